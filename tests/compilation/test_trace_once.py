"""Blocks that are traced once act like plain blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.quick import quick
from tests.raising import caught

X = jnp.sin(jnp.arange(12.0)).reshape(3, 4)
FACTOR = liftnn.Variable(jnp.array(2.0))
traces = []


class Block(liftnn.Module):
    """Everything that differs between blocks."""

    def __init__(self, rngs):
        self.linear = liftnn.Linear(4, 4, rngs=rngs)
        self.norm = liftnn.BatchNorm(4, rngs=rngs)
        self.dropout = liftnn.Dropout(0.5, rngs=rngs)
        self.calls = liftnn.Variable(jnp.array(0))

    def __call__(self, x, scale=1.0, *, residual=True, mask=None):
        traces.append(type(self).__name__)
        self.calls += 1
        FACTOR.value = FACTOR + 1
        y = self.dropout(jnp.tanh(self.norm(self.linear(x)))) * scale
        return x + y if residual else y


@liftnn.trace_once
class Once(Block):
    """The same, traced once."""

    def __call__(self, x, scale=1.0, *, residual=True, mask=None):
        return super().__call__(x, scale, residual=residual, mask=mask)


class Model(liftnn.Module):
    def __init__(self, cls, shared=False):
        rngs = liftnn.Rngs(0)
        self.layers = [cls(rngs) for _ in range(3)]
        if shared:
            self.layers[2] = self.layers[0]
            self.layers[1].linear.kernel = self.layers[0].linear.kernel

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x, 0.5, residual=True)
        return x


def values(model):
    flat = liftnn.state(model, liftnn.Not(liftnn.RngKey)).flat()
    return {path: x.value for path, x in flat.items()}


def assert_close(mine, theirs):
    """Equal up to the order of float32 sums.

    The gradient of a bias before BatchNorm is 0 in exact arithmetic: terms of the size of the largest
    gradient cancel, so what remains is their rounding.
    """
    assert mine.keys() == theirs.keys()
    rounding = 1e-5 * max(np.abs(x).max() for x in theirs.values())
    for path, x in theirs.items():
        np.testing.assert_allclose(mine[path], x, rtol=1e-5, atol=rounding, err_msg=str(path))


@pytest.mark.thorough
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("wrap", quick([liftnn.jit, lambda f: f]))
def test_values_gradients_and_writes_are_those_of_plain_blocks(shared, wrap):
    def step(model, x):
        return liftnn.value_and_grad(lambda model: (model(x) ** 2).sum())(model)

    results = []
    for cls in (Block, Once):
        FACTOR.value = jnp.array(2.0)
        model, run = Model(cls, shared), wrap(step)
        for _ in range(2):
            value, grads = run(model, X)
        results.append(({"value": value, **values(model), "captured": FACTOR.value}, values(grads)))
    for theirs, mine in zip(*results, strict=True):
        assert_close(mine, theirs)


def test_blocks_of_one_structure_are_traced_once():
    count = 0

    @liftnn.trace_once
    class Counted(liftnn.Module):
        def __init__(self, rngs):
            self.linear = liftnn.Linear(4, 4, rngs=rngs)
            self.mode = "a"

        def __call__(self, x, scale, *, residual):
            nonlocal count
            count += 1
            return self.linear(x)

    def n_traces(model, x):
        nonlocal count
        count = 0
        run(model, x)
        return count

    run = liftnn.jit(lambda model, x: model(x))
    model = Model(lambda rngs: Counted(rngs))
    assert n_traces(model, X) == 1
    model.layers[1].mode = "b"
    assert n_traces(model, X) == 1  # the others have been traced before
    assert n_traces(model, X[:2]) == 2


def test_outside_of_transforms_a_block_is_called_as_usual():
    traces.clear()
    Model(Once)(X)
    assert len(traces) == 3


def test_a_program_has_one_function_for_all_blocks():
    def lowered(cls):
        return liftnn.jit(lambda model, x: model(x)).lower(Model(cls), X).as_text()

    assert lowered(Once).count("stablehlo.tanh") == 1
    assert lowered(Block).count("stablehlo.tanh") == 3


@pytest.mark.parametrize("scale", [2, 0.5, np.float32(0.5), jnp.array(0.5), X])
def test_numbers_are_static_and_arrays_are_not(scale):
    seen = []

    @liftnn.trace_once
    def f(x, scale):
        seen.append(isinstance(scale, jax.core.Tracer))
        return x * scale

    np.testing.assert_array_equal(jax.jit(f)(X, scale), X * scale)
    np.testing.assert_array_equal(liftnn.jit(lambda x: f(x, scale))(X), X * scale)
    assert seen[-1] == (not isinstance(scale, (int, float)) or isinstance(scale, np.generic))


def test_functions_methods_and_modules_can_be_traced_once():
    block = Block(liftnn.Rngs(0))
    block.eval()
    for f in (
        liftnn.trace_once(block),
        liftnn.trace_once(block.__call__),
        lambda x: liftnn.trace_once(Block.__call__)(block, x),
    ):
        np.testing.assert_allclose(liftnn.jit(lambda x, f=f: f(x))(X), block(X), rtol=1e-5)


def test_a_change_of_a_captured_array_is_seen():
    holder = liftnn.Module()
    holder.factor = jnp.array(2.0)

    @liftnn.trace_once
    def f(x):
        return x * holder.factor

    run = liftnn.jit(lambda x: f(x) + f(x))
    assert float(run(jnp.array(1.0))) == 4
    holder.factor = jnp.array(3.0)
    assert float(run(jnp.array(1.0))) == 6


def test_an_array_of_the_trace_around_it_may_be_captured():
    def outer(x):
        @liftnn.trace_once
        def f(y):
            return x * y

        return f(x) + f(2 * x)

    assert float(liftnn.jit(outer)(jnp.array(3.0))) == float(outer(jnp.array(3.0))) == 27


def test_a_failing_block_leaves_the_model_as_it_was():
    class Fails(Block):
        def __call__(self, x):
            self.calls += 1
            raise KeyError("half way")

    model = liftnn.Sequential(Once(liftnn.Rngs(0)), liftnn.trace_once(Fails)(liftnn.Rngs(0)))
    before = values(model)
    error = caught(liftnn.jit(lambda model, x: model(x)), model, X)
    assert type(error) is KeyError
    assert error.__notes__[0] == "raised in model.layers[1] (a Fails)"
    assert_close(values(model), before)


@pytest.mark.thorough
def test_blocks_in_other_transforms():
    model = Model(Once)
    reference = Model(Block)
    model.eval()
    reference.eval()

    def run(model, xs):
        return liftnn.vmap(liftnn.remat(lambda model, x: model(x)), in_axes=(None, 0))(model, xs)

    with pytest.raises(
        liftnn.SharedWriteError
    ):  # as without the decorator: a write that differs is not shared
        liftnn.vmap(lambda model, x: setattr(model.layers[0].calls, "value", x.sum()), in_axes=(None, 0))(
            model, X
        )
    xs = jnp.stack([X, 2 * X])
    np.testing.assert_allclose(run(model, xs), run(reference, xs), rtol=1e-5)
