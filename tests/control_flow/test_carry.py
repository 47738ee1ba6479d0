"""What a step may do to objects that all steps share, one case for each rule."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from tests.same import assert_same
from tests.user_modules import Affine, Holder

import liftnn


def make():
    shared = liftnn.Param(jnp.ones(2))
    inner = Holder(value=shared, kept=liftnn.Variable(1.0))
    inner.up = inner
    return Holder(inner=inner, again=shared, pair=(shared, [jnp.zeros(())]), mode="a")


def replace_everywhere(m):
    m.inner.value = m.again = liftnn.Param(m.again * 2)
    m.pair = (m.again, [m.pair[1][0] + 1])


def replace_a_cycle(m):
    new = Holder(value=m.again, kept=liftnn.Variable(m.inner.kept * 3))
    new.up = new
    m.inner = new


def write(m):
    m.again.value = m.again + 1
    m.pair[1][0] = m.pair[1][0] + 1


def replace_in_one_place(m):
    m.again = liftnn.Param(m.again * 2)


def replace_by_a_tie(m):
    m.inner.kept = m.again


def break_a_cycle(m):
    m.inner.up = Holder(value=m.again, kept=m.inner.kept, up=m.inner)


def exchange(m):
    m.again, m.inner.kept = m.inner.kept, m.again


def change_static(m):
    m.mode += "b"


def change_order(m):
    mode = m.mode
    del m.mode
    m.mode = mode
    inner = m.inner
    del m.inner
    m.inner = inner


def change_metadata(m):
    m.again.note = "new"


def replace_with_other_metadata(m):
    m.inner.kept = liftnn.Variable(m.inner.kept * 2, note="new")


def replace_with_other_class(m):
    m.inner.kept = liftnn.Param(m.inner.kept * 2)


def array_to_static(m):
    m.pair = (m.again, [0.0])


ALLOWED = [write, replace_everywhere, replace_a_cycle]
SETTLING = [
    replace_in_one_place,
    replace_by_a_tie,
    break_a_cycle,
    change_order,
    change_metadata,
    replace_with_other_metadata,
    replace_with_other_class,
    array_to_static,
]
"""What changes structure in the first step, and not any more in those that follow."""
REFUSED = [exchange, change_static]


def repeat(step, model, steps):
    def body(i, model):
        step(model)
        return model

    return liftnn.fori_loop(0, steps, body, model)


def repeat_while(step, model, steps):
    def body(state):
        step(state[1])
        return state[0] + 1, state[1]

    return liftnn.while_loop(lambda state: state[0] < steps, body, (0, model))[1]


@pytest.mark.parametrize("step", ALLOWED, ids=lambda f: f.__name__)
def test_what_leaves_the_same_structure_is_the_python_loop(step):
    model, reference = make(), make()
    repeat(step, model, 3)
    for _ in range(3):
        step(reference)
    assert_same(model, reference)


@pytest.mark.parametrize("step", SETTLING, ids=lambda f: f.__name__)
def test_what_leaves_the_same_structure_from_the_second_step_on_is_the_python_loop(step):
    model, reference = make(), make()
    repeat(step, model, 4)
    for _ in range(4):
        step(reference)
    assert_same(model, reference)


@pytest.mark.parametrize(
    "repeat, step",
    [*((repeat, step) for step in REFUSED), *((repeat_while, step) for step in (*REFUSED, *SETTLING[:3]))],
    ids=lambda f: f.__name__,
)
def test_what_does_not_is_refused_and_leaves_everything_as_it_was(repeat, step):
    model = make()
    with pytest.raises(liftnn.StructureError, match="init_val"):
        repeat(step, model, 3)
    assert_same(model, make())


@pytest.mark.sample(2)
@pytest.mark.parametrize("step", [*ALLOWED, *SETTLING, *REFUSED], ids=lambda f: f.__name__)
def test_a_single_step_may_do_anything(step):
    model, reference = make(), make()
    repeat(step, model, 1)
    step(reference)
    assert_same(model, reference)


def test_scanned_modules_start_from_the_same_structure_in_each_step():
    def step(total, layer):
        layer.mode = "used"
        layer.seen = liftnn.Intermediate(total)
        del layer.b
        return total + layer.w.value.sum()

    layers = liftnn.vmap(Affine)(jnp.arange(3.0))
    run = liftnn.scan(step, in_axes=(liftnn.Carry, 0), out_axes=liftnn.Carry)
    assert float(run(0.0, layers)) == 9.0
    assert layers.seen.value.tolist() == [0.0, 0.0, 3.0]
    assert (layers.mode, hasattr(layers, "b")) == ("used", False)
