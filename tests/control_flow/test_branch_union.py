"""What branches have in common: the union of what they write, in one structure."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from tests.same import assert_same
from tests.user_modules import Affine, Holder

import liftnn
from liftnn._src.control_flow.branch_union import BranchUnion


def completed(*functions):
    """Each function's own effect, by the completed result of the one at position `which`."""

    def run(which, *args):
        def bind(plan, *pures):
            def call(leaves):
                results = [pure(leaves) for pure in pures]
                names = [f"branch {i}" for i in range(len(pures))]
                common = BranchUnion(plan, results, leaves, names, "completed")
                parts = [common.complete(r) for r in results]
                assert len({len(p) for p in parts}) == 1
                return common.result(parts[which])

            return call

        return liftnn.lift(*functions, bind=bind, name="completed")(*args)

    return run


def write_w(m):
    m.layer.w.value = m.layer.w * 2


def write_arrays(m):
    m.arrays[1] = m.arrays[1] + 1
    m.pair = (m.arrays[1], m.pair[1])
    m.layer.mode = "train"  # as before


def write_all(m):
    write_w(m)
    m.arrays[0] = jnp.full(2, 7.0)
    m.layer.b.value = m.layer.w.value


def replace_pair(m):
    m.pair = (m.pair[0] * 2, m.pair[1])


def make():
    return Holder(layer=Affine(), arrays=[jnp.zeros(2), jnp.ones(2)], pair=(jnp.zeros(2), "static"))


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(
    "functions",
    [(write_w, write_all, lambda m: None), (write_arrays, replace_pair, write_arrays)],
    ids=["values", "arrays"],
)
def test_a_completed_result_does_what_its_branch_does(functions, which):
    model, reference = make(), make()
    completed(*functions)(which, model)
    functions[which](reference)
    assert_same(model, reference)


def test_a_branch_that_changes_structure_alone_is_refused():
    model = make()
    with pytest.raises(liftnn.StructureError, match=r"args\[0\].note: added, 1"):
        completed(write_w, lambda m: setattr(m, "note", 1))(0, model)
    assert_same(model, make())
