"""Loops of no steps: the types of their results are those of longer loops, under each configuration of JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import liftnn


class Scale(liftnn.Module):
    """A weight and a count of calls."""

    def __init__(self):
        self.w = liftnn.Param(jnp.array(1.5))
        self.calls = liftnn.Variable(jnp.array(0))

    def __call__(self, x):
        self.calls.value = self.calls + 1
        return self.w * x


def over_xs(scale, start, steps):
    return liftnn.scan(lambda c, x: (c + scale(x), c))(start, jnp.zeros(steps))[0]


def in_the_carry(scale, start, steps):
    def step(carry, _):
        scale, x = carry
        return (scale, x + scale(2)), None

    return liftnn.scan(step, length=steps)((scale, start), None)[0][1]


def over_indices(scale, start, steps):
    return liftnn.fori_loop(0, steps, lambda i, c: c + scale(i), start)


def over_indices_in_jit(scale, start, steps):
    return liftnn.jit(lambda scale, start: over_indices(scale, start, steps))(scale, start)


def over_slices(scale, start, steps):
    return start + liftnn.map(scale, jnp.zeros(steps)).sum()


LOOPS = [over_xs, in_the_carry, over_indices, over_indices_in_jit, over_slices]


@pytest.mark.parametrize("start", [0, 0.0, jnp.float32(0), jnp.zeros(2)], ids=str)
@pytest.mark.parametrize("loop", LOOPS)
def test_the_carry_has_the_type_that_it_has_after_steps(loop, start):
    scale = Scale()
    none = loop(scale, start, 0)
    assert int(scale.calls.value) == 0
    assert none.tolist() == jnp.asarray(start).tolist()
    assert jax.typeof(none) == jax.typeof(loop(scale, start, 2))


@pytest.mark.parametrize(
    "config", [jax.checking_leaks(), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")]
)
@pytest.mark.parametrize("loop", LOOPS)
def test_no_step_is_as_valid_as_several(loop, config):
    with config:
        for steps in (2, 0):
            loop(Scale(), 0.0, steps)
