"""Classes that take type arguments in Flax NNX take them here: in annotations, as bases, and when called."""

import contextlib

import flax.nnx
import pytest
from tests.compat.oracle import assert_equal_in_both

from liftnn.compat import nnx


def subscript(cls):
    """Return a class with one type argument, or with two; None if it takes neither."""
    for parameters in (int, (int, int)):
        with contextlib.suppress(TypeError):
            return cls[parameters]
    return None


GENERIC = sorted(
    name
    for name, x in vars(flax.nnx).items()
    if not name.startswith("_") and isinstance(x, type) and subscript(x) is not None
)


@pytest.mark.parametrize("name", GENERIC)
def test_a_class_takes_type_arguments_as_in_flax(name):
    assert subscript(getattr(nnx, name)) is not None


def test_optimizers_with_a_type_argument_train_as_in_flax():
    assert_equal_in_both(
        """
        class Tracked(nnx.Optimizer[nnx.Linear]):
            pass
        def loss(model):
            return model(jnp.ones((1, 2))).sum()
        @nnx.jit
        def step(model, optimizer):
            optimizer.update(model, nnx.grad(loss)(model))
        @nnx.jit
        def step_both(optimizer):
            optimizer.update(nnx.grad(loss)(optimizer.model))
        result = []
        for cls in (nnx.Optimizer, nnx.Optimizer[nnx.Linear], Tracked):
            model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
            optimizer = cls(model, optax.adam(0.1), wrt=nnx.Param)
            step(model, optimizer), step(model, optimizer)
            result.append([nnx.state(model), optimizer.step])
        model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        optimizer = nnx.ModelAndOptimizer[nnx.Linear](model, optax.adam(0.1), wrt=nnx.Param)
        step_both(optimizer), step_both(optimizer)
        result.append([nnx.state(optimizer.model), optimizer.step])
        """
    )
