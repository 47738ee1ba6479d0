"""The step with everything that changes: BatchNorm, Dropout, sow (popped in each step), metrics, adam; by library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx as flax_nnx
from measure import Run
from steps import count, repeat

import liftnn

BLOCKS, FEATURES, CLASSES, BATCH = 8, 8, 4, 4
RATE, MOMENTUM, EPSILON = 0.1, 0.9, 1e-5

Tree = dict[str, Any]


def batch() -> tuple[jax.Array, jax.Array]:
    """Inputs of shape `(BATCH, FEATURES)` and labels of shape `(BATCH,)`."""
    return jax.random.normal(jax.random.key(1), (BATCH, FEATURES)), jnp.arange(BATCH) % CLASSES


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def make_model(nnx: Any) -> Any:
    """The model, for liftnn or Flax NNX."""
    rngs = nnx.Rngs(0)

    class Block(nnx.Module):
        def __init__(self) -> None:
            self.linear = nnx.Linear(FEATURES, FEATURES, rngs=rngs)
            self.norm = nnx.BatchNorm(FEATURES, momentum=MOMENTUM, epsilon=EPSILON, rngs=rngs)
            self.dropout = nnx.Dropout(RATE, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = jax.nn.relu(self.norm(self.linear(x)))
            self.sow(nnx.Intermediate, "size", jnp.mean(x**2))
            return self.dropout(x)

    class Model(nnx.Module):
        def __init__(self) -> None:
            blocks = [Block() for _ in range(BLOCKS)]
            self.blocks = blocks if nnx is liftnn else nnx.List(blocks)
            self.head = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    return Model()


def make_step(nnx: Any, name: str) -> tuple[Callable[..., Any], tuple[Any, Any, Any]]:
    """The step, not compiled, and its model, optimizer and metrics, for liftnn or Flax NNX."""
    model = make_model(nnx)
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    kinds = nnx.metrics if nnx is flax_nnx else nnx
    metrics = nnx.MultiMetric(accuracy=kinds.Accuracy(), loss=kinds.Average("loss"))

    def loss_fn(model: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = model(x)
        return cross_entropy(logits, y), logits

    def step(model: Any, optimizer: Any, metrics: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Any]:
        count(name)
        (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, x, y)
        optimizer.update(model, grads)
        metrics.update(loss=loss, logits=logits, labels=y)
        return loss, jax.tree.leaves(nnx.pop(model, nnx.Intermediate))

    return step, (model, optimizer, metrics)


def lifted(*, donate: bool) -> Run:
    """`liftnn.jit`."""
    step, modules = make_step(liftnn, "liftnn")
    jitted = liftnn.jit(step, donate_argnums=(0, 1, 2)) if donate else liftnn.jit(step)
    x, y = batch()
    return lambda n: repeat(n, jitted, *modules, x, y)


def flax_jit(*, donate: bool) -> Run:
    """Flax NNX, `nnx.jit` in graph mode."""
    step, modules = make_step(flax_nnx, "nnx.jit")
    jitted = flax_nnx.jit(step, graph=True, donate_argnums=(0, 1, 2) if donate else None)
    x, y = batch()
    return lambda n: repeat(n, jitted, *modules, x, y)


def flax_cached_partial(*, donate: bool) -> Run:
    """Flax NNX, `nnx.cached_partial` of `nnx.jit` in graph mode."""
    step, modules = make_step(flax_nnx, "nnx.cached_partial")
    jitted = flax_nnx.jit(step, graph=True, donate_argnums=(0, 1, 2) if donate else None)
    cached = flax_nnx.cached_partial(jitted, *modules)
    x, y = batch()
    return lambda n: repeat(n, cached, x, y)


def initial(key: jax.Array) -> tuple[Tree, Tree]:
    """Parameters and everything else that changes, as hand-written JAX has them: dicts of dicts."""
    params: Tree = {}
    state: Tree = {"accuracy": zero_average(), "loss": zero_average()}
    scale = FEATURES**-0.5
    for i, k in enumerate(jax.random.split(key, BLOCKS)):
        kernel = jax.random.normal(k, (FEATURES, FEATURES)) * scale
        params[f"block_{i}"] = {
            "linear": {"kernel": kernel, "bias": jnp.zeros(FEATURES)},
            "norm": {"scale": jnp.ones(FEATURES), "bias": jnp.zeros(FEATURES)},
        }
        state[f"block_{i}"] = {
            "norm": {"mean": jnp.zeros(FEATURES), "var": jnp.ones(FEATURES)},
            "dropout": {"key": jax.random.fold_in(k, 1), "count": jnp.zeros((), jnp.uint32)},
        }
    head = jax.random.normal(key, (FEATURES, CLASSES)) * scale
    params["head"] = {"kernel": head, "bias": jnp.zeros(CLASSES)}
    return params, state


def zero_average() -> Tree:
    """An average of nothing."""
    return {"total": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)}


def add_average(average: Tree, values: jax.Array) -> Tree:
    """An average with more values."""
    return {"total": average["total"] + values.sum(), "count": average["count"] + values.size}


def batch_norm(params: Tree, state: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    """Batch normalization, and the new running averages."""
    mean, square = x.mean(0), (x * x).mean(0)
    var = jnp.maximum(0.0, square - mean * mean)
    new = {
        name: jax.lax.stop_gradient(MOMENTUM * state[name] + (1 - MOMENTUM) * now)
        for name, now in (("mean", mean), ("var", var))
    }
    return (x - mean) * (jax.lax.rsqrt(var + EPSILON) * params["scale"]) + params["bias"], new


def dropout(state: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    """Dropout, and the next count."""
    key = jax.random.fold_in(state["key"], state["count"])
    kept = jax.random.bernoulli(key, 1 - RATE, x.shape)
    return jnp.where(kept, x / (1 - RATE), 0.0), {"key": state["key"], "count": state["count"] + 1}


def forward(params: Tree, state: Tree, x: jax.Array) -> tuple[jax.Array, Tree, list[jax.Array]]:
    """Logits, the new state, and what the blocks sow."""
    state, sown = dict(state), []
    for name in [f"block_{i}" for i in range(BLOCKS)]:
        p, s = params[name], state[name]
        x, norm = batch_norm(p["norm"], s["norm"], x @ p["linear"]["kernel"] + p["linear"]["bias"])
        x = jax.nn.relu(x)
        sown.append(jnp.mean(x**2))
        x, drop = dropout(s["dropout"], x)
        state[name] = {"norm": norm, "dropout": drop}
    return x @ params["head"]["kernel"] + params["head"]["bias"], state, sown


def hand_written_step(name: str) -> tuple[Callable[..., Any], tuple[Any, Any, Any]]:
    """The step over nested dicts, not compiled, and its parameters, optimizer state and other state."""
    tx = optax.adam(1e-3)

    def loss_fn(params: Tree, state: Tree, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Any]:
        logits, state, sown = forward(params, state, x)
        return cross_entropy(logits, y), (logits, state, sown)

    def step(params: Tree, opt_state: Any, state: Tree, x: jax.Array, y: jax.Array) -> tuple[Any, ...]:
        count(name)
        (loss, (logits, state, sown)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, state, x, y)
        updates, opt_state = tx.update(grads, opt_state, params)
        state["accuracy"] = add_average(state["accuracy"], logits.argmax(-1) == y)
        state["loss"] = add_average(state["loss"], loss)
        return optax.apply_updates(params, updates), opt_state, state, (loss, sown)

    params, state = initial(jax.random.key(0))
    return step, (params, tx.init(params), state)


def jax_nested(*, donate: bool) -> Run:
    """Hand-written `jax.jit` over nested dicts."""
    step, start = hand_written_step("jax")
    return _threaded(jax.jit(step, donate_argnums=(0, 1, 2) if donate else ()), start)


def jax_flat(*, donate: bool) -> Run:
    """Hand-written `jax.jit` over one flat list of arrays."""
    step, start = hand_written_step("jax, flat")
    leaves, treedef = jax.tree.flatten(start)

    def flat(leaves: list[jax.Array], x: jax.Array, y: jax.Array) -> tuple[list[jax.Array], Any]:
        *new, out = step(*treedef.unflatten(leaves), x, y)
        return jax.tree.leaves(new), out

    return _threaded(jax.jit(flat, donate_argnums=0 if donate else ()), (leaves,))


def _threaded(step: Callable[..., Any], start: tuple[Any, ...]) -> Run:
    """A contender whose state goes in and comes out of each call."""
    kept = list(start)
    x, y = batch()

    def run(n: int) -> None:
        out = None
        for _ in range(n):
            *kept[:], out = step(*kept, x, y)
        jax.block_until_ready(out)

    return run


CONTENDERS: dict[str, Callable[..., Run]] = {
    "liftnn": lifted,
    "jax": jax_nested,
    "jax, flat": jax_flat,
    "nnx.jit": flax_jit,
    "nnx.cached_partial": flax_cached_partial,
}
