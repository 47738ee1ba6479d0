"""The steps that are timed: a stack of dense layers in liftnn, in plain JAX, and in its peers.

Each function makes one contender: a function that makes `n` calls and waits for the last one. liftnn and Flax NNX
share their source, since they share their names. The layers are tiny, so that calling them costs more than they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx as flax_nnx
from measure import Run

import liftnn

WIDTH = 4
ADAM = optax.adam(1e-3)
traces: dict[str, int] = {}
"""How often the function of each contender has been traced."""


def batch() -> tuple[jax.Array, jax.Array]:
    """Inputs and targets of shape `(2, WIDTH)`."""
    x = jax.random.normal(jax.random.key(1), (2, WIDTH))
    return x, jnp.ones((2, WIDTH))


def kernels(depth: int) -> list[jax.Array]:
    """The kernel of each layer."""
    return list(jax.random.normal(jax.random.key(0), (depth, WIDTH, WIDTH)) / 2)


def count(name: str) -> None:
    """Called inside a traced function."""
    traces[name] = traces.get(name, 0) + 1


def module_classes(nnx: Any) -> tuple[type, type]:
    """The layer and the stack of layers, for liftnn or Flax NNX."""

    class Dense(nnx.Module):
        def __init__(self, kernel: jax.Array):
            self.kernel = nnx.Param(jnp.array(kernel))
            self.bias = nnx.Param(jnp.zeros(WIDTH))

        def __call__(self, x: jax.Array) -> jax.Array:
            return jax.nn.relu(x @ self.kernel + self.bias)

    class Stack(nnx.Module):
        def __init__(self, depth: int):
            layers = [Dense(k) for k in kernels(depth)]
            self.layers = layers if nnx is liftnn else nnx.List(layers)

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers:
                x = layer(x)
            return x

    return Dense, Stack


STACKS = {library: module_classes(library)[1] for library in (liftnn, flax_nnx)}


def functions(nnx: Any, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`infer(model, x)` and `train(model, optimizer, x, y)`, not compiled."""

    def infer(model: Any, x: jax.Array) -> jax.Array:
        count(name)
        return model(x)

    def loss_fn(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((model(x) - y) ** 2)

    def train(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        count(name)
        loss, grads = nnx.value_and_grad(loss_fn)(model, x, y)
        optimizer.update(model, grads)
        return loss

    return infer, train


def lifted(depth: int, *, train: bool, donate: bool = False) -> Run:
    """`liftnn.jit`."""
    model = STACKS[liftnn](depth)
    infer_fn, train_fn = functions(liftnn, "liftnn")
    x, y = batch()
    if not train:
        infer = liftnn.jit(infer_fn)
        return lambda n: repeat(n, infer, model, x)
    optimizer = liftnn.Optimizer(model, optax.adam(1e-3), wrt=liftnn.Param)
    step = liftnn.jit(train_fn, donate_argnums=(0, 1)) if donate else liftnn.jit(train_fn)
    return lambda n: repeat(n, step, model, optimizer, x, y)


def repeat(n: int, f: Callable[..., Any], *args: Any) -> Any:
    """Calls a function of modules, which change in place; gives the last output."""
    out = None
    for _ in range(n):
        out = f(*args)
    return jax.block_until_ready(out)


def calls(f: Callable[..., Any], *args: Any) -> Run:
    """A contender that repeats one call."""
    return lambda n: repeat(n, f, *args)


def flax_jit(depth: int, *, train: bool, donate: bool = False) -> Run:
    """Flax NNX, `nnx.jit` in graph mode."""
    model = STACKS[flax_nnx](depth)
    infer_fn, train_fn = functions(flax_nnx, "nnx.jit")
    x, y = batch()
    if not train:
        infer = flax_nnx.jit(infer_fn, graph=True)
        return lambda n: repeat(n, infer, model, x)
    optimizer = flax_nnx.Optimizer(model, optax.adam(1e-3), wrt=flax_nnx.Param)
    step = flax_nnx.jit(train_fn, graph=True, donate_argnums=(0, 1) if donate else None)
    return lambda n: repeat(n, step, model, optimizer, x, y)


def flax_cached_partial(depth: int, *, train: bool, donate: bool = False) -> Run:
    """Flax NNX, `nnx.cached_partial` of `nnx.jit` in graph mode: the modules are fixed."""
    model = STACKS[flax_nnx](depth)
    infer_fn, train_fn = functions(flax_nnx, "nnx.cached_partial")
    x, y = batch()
    if not train:
        infer = flax_nnx.cached_partial(flax_nnx.jit(infer_fn, graph=True), model)
        return lambda n: repeat(n, infer, x)
    optimizer = flax_nnx.Optimizer(model, optax.adam(1e-3), wrt=flax_nnx.Param)
    jitted = flax_nnx.jit(train_fn, graph=True, donate_argnums=(0, 1) if donate else None)
    step = flax_nnx.cached_partial(jitted, model, optimizer)
    return lambda n: repeat(n, step, x, y)


def flax_jit_partial(depth: int, *, train: bool, donate: bool = False) -> Run:
    """Flax NNX, `nnx.jit_partial` in tree mode, without sharing and changes of structure: the modules are fixed."""
    model = STACKS[flax_nnx](depth)
    infer_fn, train_fn = functions(flax_nnx, "nnx.jit_partial")
    x, y = batch()
    if not train:
        infer = flax_nnx.jit_partial(infer_fn, model, graph=False)
        return lambda n: repeat(n, infer, x)
    optimizer = flax_nnx.Optimizer(model, optax.adam(1e-3), wrt=flax_nnx.Param)
    donated = 0 if donate else None  # the fixed arguments are one
    step = flax_nnx.jit_partial(train_fn, model, optimizer, graph=False, donate_argnums=donated)
    return lambda n: repeat(n, step, x, y)


def nested_params(depth: int) -> dict[str, Any]:
    """The parameters as hand-written JAX has them: a dict of dicts."""
    return {
        f"layer_{i:03}": {"kernel": jnp.array(k), "bias": jnp.zeros(WIDTH)}
        for i, k in enumerate(kernels(depth))
    }


def forward(params: Mapping[str, Any], x: jax.Array) -> jax.Array:
    """The stack over nested dicts."""
    for layer in params.values():
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x


def hand_written(name: str, tx: Any = ADAM) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`infer(params, x)` and `train(params, opt_state, x, y)` over nested dicts, not compiled."""

    def infer(params: Any, x: jax.Array) -> jax.Array:
        count(name)
        return forward(params, x)

    def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((forward(params, x) - y) ** 2)

    def train(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        count(name)
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return infer, train


def jax_nested(depth: int, *, train: bool, donate: bool = False) -> Run:
    """Hand-written `jax.jit` over nested dicts."""
    params = nested_params(depth)
    infer_fn, train_fn = hand_written("jax")
    x, y = batch()
    if not train:
        infer = jax.jit(infer_fn)
        return lambda n: repeat(n, infer, params, x)
    step = jax.jit(train_fn, donate_argnums=(0, 1) if donate else ())
    return threaded(step, (params, ADAM.init(params)), x, y)


def jax_flat(depth: int, *, train: bool, donate: bool = False) -> Run:
    """Hand-written `jax.jit` over one flat list of arrays."""
    params = nested_params(depth)
    infer_fn, train_fn = hand_written("jax, flat")
    x, y = batch()
    leaves, treedef = jax.tree.flatten(params if not train else (params, ADAM.init(params)))
    if not train:
        infer = jax.jit(lambda leaves, x: infer_fn(treedef.unflatten(leaves), x))
        return lambda n: repeat(n, infer, leaves, x)

    def train_flat(leaves: list[jax.Array], x: jax.Array, y: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        *new, loss = train_fn(*treedef.unflatten(leaves), x, y)
        return jax.tree.leaves(new), loss

    return threaded(jax.jit(train_flat, donate_argnums=(0,) if donate else ()), (leaves,), x, y)


def threaded(step: Callable[..., Any], state: tuple[Any, ...], *args: Any) -> Run:
    """A contender whose state goes in and comes out of each call; gives what follows it in the last result."""
    kept, size = [state], len(state)

    def run(n: int) -> Any:
        state, rest = kept[0], None
        if size == 1:
            (only,) = state
            for _ in range(n):
                only, rest = step(only, *args)
            state = (only,)
        else:
            first, second = state
            for _ in range(n):
                first, second, rest = step(first, second, *args)
            state = (first, second)
        kept[0] = state
        return jax.block_until_ready(rest)

    return run


class EquinoxDense(eqx.Module):
    """A layer as Equinox has it."""

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ self.kernel + self.bias)


class EquinoxStack(eqx.Module):
    """A stack as Equinox has it."""

    layers: list[EquinoxDense]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


def equinox_filter_jit(depth: int, *, train: bool, donate: bool = False) -> Run:
    """Equinox, `eqx.filter_jit`."""
    model = EquinoxStack([EquinoxDense(jnp.array(k), jnp.zeros(WIDTH)) for k in kernels(depth)])
    data = batch()
    if not train:
        infer = eqx.filter_jit(lambda model, x: (count("eqx.filter_jit"), model(x))[1])
        return lambda n: repeat(n, infer, model, data[0])
    tx = optax.adam(1e-3)

    def loss_fn(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((model(x) - y) ** 2)

    @eqx.filter_jit(donate="all-except-first" if donate else "none")
    def step(data: Any, model: Any, opt_state: Any) -> tuple[Any, Any, jax.Array]:
        count("eqx.filter_jit")
        loss, grads = eqx.filter_value_and_grad(loss_fn)(model, *data)
        updates, opt_state = tx.update(grads, opt_state)
        return eqx.apply_updates(model, updates), opt_state, loss

    return threaded(lambda m, s, d: step(d, m, s), (model, tx.init(model)), data)


CONTENDERS: dict[str, Callable[..., Run]] = {
    "liftnn": lifted,
    "jax": jax_nested,
    "jax, flat": jax_flat,
    "nnx.jit": flax_jit,
    "nnx.cached_partial": flax_cached_partial,
    "nnx.jit_partial": flax_jit_partial,
    "eqx.filter_jit": equinox_filter_jit,
}
