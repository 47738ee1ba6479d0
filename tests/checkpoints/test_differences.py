"""What modules share, in the checkpoint and now, with modules that are skipped and attributes in another order."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import pytest
from tests.raising import raises
from tests.user_modules import Holder

import liftnn

REMEDY = (
    "Change the modules to fit what was saved, pass `...` in place of modules to skip, or pass `strict=False` to "
    "restore only what fits."
)


def variable(value):
    return liftnn.Variable(jnp.full(2, value, jnp.float32))


def one(x):
    a = Holder(w=variable(x))
    return a, Holder(inner=a, u=variable(x + 1))


def several(x):
    a = Holder(w=variable(x))
    return a, Holder(x=a, v=variable(x + 1)), Holder(y=[a], z=a.w)


def whole(x):
    a = Holder(w=variable(x), below=Holder(v=variable(x + 1)))
    return Holder(a=a), a


def chain(x):
    inner = Holder(w=variable(x))
    middle = Holder(p=inner, q=inner)
    return Holder(m=middle, n=middle), Holder(o=middle), Holder(i=Holder(c=inner))


def cycle(x):
    a, b = Holder(w=variable(x)), Holder(v=variable(x + 1))
    a.b, b.a = b, a
    return a, b


def holder(x):
    shared = [variable(x)]
    return Holder(s=shared), Holder(t=shared, u={"s": shared})


def late(x):
    w = variable(x)
    module, container = Holder(w=w), [w]
    return Holder(w=w, m=module, c=container), Holder(m=module), Holder(c=container)


RUNS = [one, several, whole, chain, cycle, holder, late]


@pytest.mark.parametrize("make", RUNS, ids=lambda make: make.__name__)
def test_a_skipped_module_may_share_with_those_that_are_not(tmp_path, make):
    liftnn.save(tmp_path, 1, *make(5))
    for kept in range(len(make(0))):
        modules = make(0)
        liftnn.restore(tmp_path, *[x if i == kept else ... for i, x in enumerate(modules)])
        expected = liftnn.state(make(5)[kept]).flat()
        found = liftnn.state(modules[kept]).flat()
        assert {path: x.value.tolist() for path, x in found.items()} == {
            path: x.value.tolist() for path, x in expected.items()
        }


def assert_differs(tmp_path, modules, *lines):
    text = "\n".join([f"The checkpoint {tmp_path}/1 does not fit the modules:", *lines, REMEDY])
    with raises(liftnn.CheckpointError, text):
        liftnn.restore(tmp_path, *modules)


def test_what_only_a_skipped_module_and_another_path_have_in_common_is_not_missed(tmp_path):
    liftnn.save(tmp_path, 1, *one(5))
    assert_differs(
        tmp_path,
        (..., Holder(u=variable(0))),
        "unexpected in the checkpoint:",
        "  modules[1].inner.w: float32[2] in the checkpoint",
    )


def test_what_a_skipped_module_ties_is_tied(tmp_path):
    a = Holder(w=variable(5))
    liftnn.save(tmp_path, 1, a, Holder(x=a), Holder(y=a))
    assert_differs(
        tmp_path,
        (..., Holder(x=Holder(w=variable(0))), Holder(y=Holder(w=variable(0)))),
        "different:",
        "  modules[2].y.w: shared with modules[1].x.w in the checkpoint, separate in the module",
    )


def test_what_a_skipped_module_has_apart_is_apart(tmp_path):
    a, b, c = Holder(w=variable(5)), Holder(w=variable(6)), Holder(w=variable(0))
    liftnn.save(tmp_path, 1, Holder(a=a, b=b), Holder(x=a), Holder(y=b))
    assert_differs(
        tmp_path,
        (..., Holder(x=c), Holder(y=c)),
        "different:",
        "  modules[2].y.w: separate in the checkpoint, shared with modules[1].x.w in the module",
    )


@dataclasses.dataclass
class Record:
    x: object


CONTAINERS = {
    "list": lambda x: [x],
    "dict": lambda x: {"k": x},
    "tuple": lambda x: (x, 1),
    "dataclass": Record,
    "nested": lambda x: [{"k": Record((x,))}],
    "module": lambda x: Holder(x=x),
    "function": lambda x: lambda: x,
}


LEAVES = {"Variable": variable, "array": lambda x: jnp.full(2, x, jnp.float32)}
FROZEN = ("tuple", "nested")  # in which an array cannot be set


@pytest.mark.parametrize(
    "name, leaf",
    [(name, leaf) for name in CONTAINERS for leaf in LEAVES if leaf == "Variable" or name not in FROZEN],
)
def test_a_shared_container_is_found_whatever_its_first_path_is(tmp_path, name, leaf):
    make, leaf = CONTAINERS[name], LEAVES[leaf]
    saved, wanted = make(leaf(5)), make(leaf(0))
    liftnn.save(tmp_path, 1, Holder(a=saved, b=saved))
    model = Holder(b=wanted, a=wanted)
    liftnn.restore(tmp_path, model)
    assert model.a is model.b
    values = [getattr(x, "value", x).tolist() for x in liftnn.state(model).flat().values()]
    assert values == [[5, 5]]


@pytest.mark.parametrize(
    "make", [x for k, x in CONTAINERS.items() if k not in ("function", "tuple", "nested")]
)
def test_a_container_that_is_shared_on_one_side_is_told(tmp_path, make):
    def modules(same):
        one = make(jnp.zeros(2))
        return Holder(a=one, b=one if same else make(jnp.ones(2)))

    for saved in (True, False):
        folder = tmp_path / str(saved)
        liftnn.save(folder, 1, modules(saved))
        with pytest.raises(liftnn.CheckpointError, match=r"shared with modules\[0\]\.a"):
            liftnn.restore(folder, modules(not saved))
