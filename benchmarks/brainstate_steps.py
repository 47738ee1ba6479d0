"""The steps in brainstate: the function reads and writes the states of modules that it captures."""

from __future__ import annotations

from typing import Any

import brainstate
import jax
import jax.numpy as jnp
import optax
from measure import Run
from steps import WIDTH, batch, calls, count, kernels

NAME = "brainstate.jit"


class Dense(brainstate.nn.Module):
    """A layer as brainstate has it."""

    def __init__(self, kernel: jax.Array):
        super().__init__()
        self.kernel = brainstate.ParamState(jnp.array(kernel))
        self.bias = brainstate.ParamState(jnp.zeros(WIDTH))

    def update(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ self.kernel.value + self.bias.value)


class Stack(brainstate.nn.Module):
    """A stack as brainstate has it."""

    def __init__(self, depth: int):
        super().__init__()
        self.layers = [Dense(k) for k in kernels(depth)]

    def update(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


def compiled(depth: int, *, train: bool, donate: bool = False) -> Run | None:
    """`brainstate.transform.jit`; None where states would be donated, since it donates arguments only."""
    if donate:
        return None
    model = Stack(depth)
    x, y = batch()

    def infer(x: jax.Array) -> jax.Array:
        count(NAME)
        return model(x)

    if not train:
        return calls(brainstate.transform.jit(infer), x)

    params, tx = model.states(brainstate.ParamState), optax.adam(1e-3)
    optimizer = brainstate.LongTermState(tx.init({path: param.value for path, param in params.items()}))

    def loss_fn(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((model(x) - y) ** 2)

    def step(x: jax.Array, y: jax.Array) -> Any:
        count(NAME)
        grads, loss = brainstate.transform.grad(loss_fn, params, return_value=True)(x, y)
        values = {path: param.value for path, param in params.items()}
        updates, optimizer.value = tx.update(grads, optimizer.value, values)
        for path, value in optax.apply_updates(values, updates).items():
            params[path].value = value
        return loss

    return calls(brainstate.transform.jit(step), x, y)
