"""The steps in SpectraX, from its public documentation: parameters and optimizer go in and come out of each call."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import spectrax as spx
from measure import Run
from spectrax.contrib import Optimizer
from steps import WIDTH, batch, calls, count, kernels, threaded

NAME = "spx.jit"


# SpectraX finds the classes of modules by their names, so they stand at the top of a module.
class Dense(spx.Module):
    """A layer as SpectraX has it."""

    def __init__(self, kernel: jax.Array):
        super().__init__()
        self.kernel = spx.Parameter(jnp.array(kernel))
        self.bias = spx.Parameter(jnp.zeros(WIDTH))

    def forward(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ self.kernel.value + self.bias.value)


class Stack(spx.Module):
    """A stack as SpectraX has it."""

    def __init__(self, depth: int):
        super().__init__()
        self.layers = spx.nn.ModuleList([Dense(k) for k in kernels(depth)])

    def forward(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


def compiled(depth: int, *, train: bool, donate: bool = False) -> Run | None:
    """`spectrax.jit`; training as the documentation of `spectrax.contrib.Optimizer` has it."""
    model = Stack(depth)
    x, y = batch()

    def infer(model: Stack, x: jax.Array) -> jax.Array:
        count(NAME)
        return model(x)

    if not train:
        return calls(spx.jit(infer), model, x)

    graphdef, params = spx.export(model)

    def step(params: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        count(NAME)

        def loss_fn(params: Any) -> jax.Array:
            return jnp.mean((spx.bind(graphdef, params)(x) - y) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        params, optimizer = optimizer.update(params, grads)
        return params, optimizer, loss

    jitted = spx.jit(step, donate_argnums=(0, 1)) if donate else spx.jit(step)
    return threaded(jitted, (params, Optimizer.create(model, optax.adam(1e-3))), x, y)
