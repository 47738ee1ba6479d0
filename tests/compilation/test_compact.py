"""Which of its traces a compiled program ran is told by its result, so that each is put back in its own way."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.same import assert_same
from tests.user_modules import Affine


def by_shape(model, x):
    """Does something else for each shape of its argument, so that one structure has several results."""
    size = x.shape[0]
    if size == 1:
        return {1: x}
    if size == 2:
        model.w.value = model.w + 1
        return {True: x}
    if size == 3:
        model.b.value = model.b + 1
        return model.w * 2, "text"
    if size == 4:
        model.w = liftnn.Param(model.w * 2)
        return None
    model.note = size
    return model


@pytest.mark.sample(3)
@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")
@pytest.mark.parametrize("options", [{}, {"donate_argnums": 0}, {"donate_written": True}])
def test_each_trace_of_one_program_has_its_own_output_spec(options):
    call, model, reference = liftnn.jit(by_shape, **options), Affine(2.0), Affine(2.0)
    for size in (1, 2, 3, 4, 3, 2, 1, 2, 4, 4, 1, 3, 5, 1, 2, 3, 4, 5, 5, 1):
        ours, theirs = call(model, jnp.ones(size)), by_shape(reference, jnp.ones(size))
        assert_same((ours, model), (theirs, reference))
        assert ours is model or size < 5


def test_traces_that_do_the_same_have_one_output_spec():
    call, model = liftnn.jit(lambda m, x: m.w.sum() + x.sum()), Affine()
    for size in range(1, 5):
        call(model, jnp.ones(size, jnp.float32 if size % 2 else jnp.int32))
    [(_, program)] = call._lifted._bound.values()
    assert len(program.output_specs._specs) == 1


def test_a_key_of_the_output_keeps_its_type():
    def by_rank(x):
        return {1: x} if x.ndim else {True: x}

    ours, theirs = liftnn.jit(by_rank), jax.jit(by_rank)
    for x in (jnp.ones(2), jnp.ones(()), jnp.ones(2)):
        assert list(map(type, ours(x))) == list(map(type, theirs(x)))


def test_an_array_alone_is_not_taken_for_the_result_of_another_trace():
    def f(model, x):
        if x.shape[0] == 4:
            model.w.value = model.w + 1
        return x * 2

    call = liftnn.jit(f)
    call(Affine(), jnp.ones(3))  # the first trace returns nothing but an array
    model, reference = Affine(), Affine()
    for size in (4, 4, 3, 4, 3, 3, 4):  # 3 is the length of the second result too
        ours, theirs = call(model, jnp.arange(size)), f(reference, jnp.arange(size))
        assert_same((ours, model), (theirs, reference))
