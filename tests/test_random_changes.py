"""Any change of any random graph, made inside a transform, comes out as in plain Python."""

from __future__ import annotations

import copy

import hypothesis.strategies as st
import jax.numpy as jnp
import pytest
from hypothesis import given

import liftnn
from tests.alike import find_difference
from tests.strategies import build, mutate, mutated, recipes

TRANSFORMS = {
    "jit": liftnn.jit,
    "grad": lambda f: liftnn.grad(f, argnums=1),
    "vmap": lambda f: lambda m, x: liftnn.vmap(f, in_axes=(None, 0))(m, jnp.full(2, x)),
    "jit of grad": lambda f: liftnn.jit(liftnn.grad(f, argnums=1)),
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(t, id=n, marks=[pytest.mark.thorough] * (n == "jit of grad"))
        for n, t in TRANSFORMS.items()
    ],
)
@given(recipes(), st.data())
def test_changes_inside_a_transform_come_out_as_in_plain_python(transform, recipe, data):
    plain, lifted = build(recipe), build(recipe)
    changes = [data.draw(mutated(plain)) for _ in range(data.draw(st.integers(1, 3)))]

    def change(model, x):
        for _, choices in changes:
            replay = iter(choices)
            mutate(model, lambda n, replay=replay: next(replay))
        return x * 2

    transform(change)(lifted, 1.0)
    assert find_difference(plain, lifted, array_types=False) is None, changes


@pytest.mark.thorough
@given(recipes(), st.data())
def test_changes_between_and_inside_calls_of_one_jitted_function_come_out_as_in_plain_python(recipe, data):
    plain, lifted = build(recipe), build(recipe)

    @liftnn.jit
    def note(model, x):
        model.noted = liftnn.Intermediate(x)
        return x

    for i in range(data.draw(st.integers(2, 4))):
        _, choices = data.draw(mutated(plain))
        replay = iter(choices)
        mutate(lifted, lambda n, replay=replay: next(replay))
        plain.noted = liftnn.Intermediate(jnp.float32(i))
        note(lifted, jnp.float32(i))
        assert find_difference(plain, lifted, array_types=False) is None


@pytest.mark.thorough
@given(recipes())
def test_a_model_that_is_returned_is_the_model_itself(recipe):
    model = build(recipe)
    same, parts = liftnn.jit(lambda m: (m, [x for _, x in m.iter_modules()]))(model)
    assert same is model
    assert all(x is y for x, (_, y) in zip(parts, model.iter_modules(), strict=True))
    assert find_difference(model, build(recipe)) is None


@pytest.mark.thorough
@given(recipes(weak=False))
def test_a_model_that_is_made_inside_is_like_one_made_outside(recipe):
    made = liftnn.jit(lambda: build(recipe))()
    assert find_difference(made, build(recipe), array_types=False) is None
    assert find_difference(copy.deepcopy(made), made) is None
