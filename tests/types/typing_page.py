"""The snippets of docs/guides/type_checking.md, for pyright to read."""

from typing import assert_type

import jax
import jax.numpy as jnp
import optax

import liftnn


class Model(liftnn.Module):
    def __init__(self, size: int, *, rngs: liftnn.Rngs):
        self.linear = liftnn.Linear(size, size, rngs=rngs)
        self.seen = liftnn.Variable(0)

    def __call__(self, x: jax.Array) -> jax.Array:
        self.seen += 1
        return self.linear(x)

    @liftnn.jit(static_argnames="times")
    def repeat(self, x: jax.Array, times: int = 2) -> jax.Array:
        for _ in range(times):
            x = self(x)
        return x


model = Model(3, rngs=liftnn.Rngs(0))
x = jnp.ones((2, 3))
assert_type(model.repeat(x, times=3), jax.Array)
assert_type(liftnn.vmap(model)(x), jax.Array)


def loss_fn(model: Model, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    y = model(x)
    return (y**2).mean(), {"y": y}


@liftnn.jit
def train_step(model: Model, optimizer: liftnn.Optimizer, x: jax.Array) -> jax.Array:
    (loss, aux), grads = liftnn.value_and_grad(loss_fn, has_aux=True)(model, x)
    assert_type(loss, jax.Array)
    assert_type(aux, dict[str, jax.Array])
    assert_type(grads, liftnn.State)
    optimizer.update(model, grads)
    return loss


train_step(model, liftnn.Optimizer(model, optax.sgd(0.1)), x)
assert_type(train_step.n_traces, int)

assert_type(model.linear.kernel, liftnn.Param)
assert_type(model.linear.kernel.value, jax.Array)
assert_type(model.seen, liftnn.Variable[jax.Array])
cache = liftnn.Cache({"last": x})
assert_type(cache, liftnn.Cache[dict[str, jax.Array]])

kernel = model.linear.kernel
assert_type(x @ kernel, jax.Array)
assert_type(kernel.shape, tuple[int, ...])
assert_type(jnp.square(kernel.value), jax.Array)


class Sharded(liftnn.Param[jax.Array]):
    axes: tuple[str, ...]


w = Sharded(x, axes=("batch", "features"))
assert_type(w.axes, tuple[str, ...])
w.axes  # -> ('batch', 'features')

params, rest, graphdef = liftnn.split(model, liftnn.Param, ...)
assert_type(params, liftnn.State)
assert_type(graphdef, liftnn.GraphDef[Model])
assert_type(liftnn.merge(graphdef, params, rest), Model)
