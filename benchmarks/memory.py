"""How much memory compiled steps take, as `memory_analysis()` says: liftnn / hand-written JAX.

    python benchmarks/memory.py [--output FOLDER]

Of temporary, argument and output bytes, and of the flops of `cost_analysis()`, each row shows the worst ratio. Nothing
is run, and nothing here varies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import transformed
from machine import environment
from measure import Figure, Row, options, report
from steps import forward

import liftnn

DEPTH, WIDTH, BATCH = 8, 256, 128
KINDS = ("temp", "argument", "output", "alias")


class Body(liftnn.Module):
    """The layers before the last."""

    def __init__(self, rngs: liftnn.Rngs):
        self.layers = [liftnn.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(DEPTH - 1)]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return x


class Model(liftnn.Module):
    """A body and a head."""

    def __init__(self) -> None:
        rngs = liftnn.Rngs(0)
        self.body = Body(rngs)
        self.head = liftnn.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(self.head(self.body(x)))


def data() -> tuple[jax.Array, jax.Array]:
    """Inputs and targets."""
    return jnp.ones((BATCH, WIDTH)), jnp.ones((BATCH, WIDTH))


def lifted(wrt: Any, **jit_options: Any) -> dict[str, int]:
    """The bytes of liftnn's step."""
    model = Model()
    optimizer = liftnn.Optimizer(model, optax.adam(1e-3), wrt=wrt)

    @liftnn.jit(**jit_options)
    def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        def loss_fn(model: Any) -> jax.Array:
            return jnp.mean((model(x) - y) ** 2)

        loss, grads = liftnn.value_and_grad(loss_fn, wrt=wrt)(model)
        optimizer.update(model, grads)
        return loss

    return sizes(step.lower(model, optimizer, *data()))


def layers(n: int) -> dict[str, Any]:
    """Layers as nested dicts."""
    return {f"layer_{i}": {"kernel": jnp.ones((WIDTH, WIDTH)), "bias": jnp.zeros(WIDTH)} for i in range(n)}


def hand_written(donate: bool) -> dict[str, int]:
    """The bytes of a step over all parameters."""
    params, tx = layers(DEPTH), optax.adam(1e-3)

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, ...]:
        def loss_fn(params: Any) -> jax.Array:
            return jnp.mean((forward(params, x) - y) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    jitted = jax.jit(step, donate_argnums=(0, 1) if donate else ())
    return sizes(jitted.lower(params, tx.init(params), *data()))


def hand_written_frozen(donate: bool) -> dict[str, int]:
    """The bytes of a step over the parameters of the head; those of the body go in, and not out."""
    body, head, tx = layers(DEPTH - 1), layers(1), optax.adam(1e-3)

    def step(body: Any, head: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, ...]:
        def loss_fn(head: Any) -> jax.Array:
            return jnp.mean((forward(head, forward(body, x)) - y) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(head)
        updates, opt_state = tx.update(grads, opt_state, head)
        return optax.apply_updates(head, updates), opt_state, loss

    jitted = jax.jit(step, donate_argnums=(1, 2) if donate else ())
    return sizes(jitted.lower(body, head, tx.init(head), *data()))


def sizes(lowered: Any) -> dict[str, int]:
    """What the compiler says."""
    compiled = lowered.compile()
    analysis = compiled.memory_analysis()
    found = {kind: getattr(analysis, f"{kind}_size_in_bytes") for kind in KINDS}
    return {**found, "flops": int(compiled.cost_analysis()["flops"])}


def row(name: str, ours: dict[str, int], theirs: dict[str, int]) -> Row:
    """The worst ratio, and all bytes."""
    worst = max((ours[k] + 1) / (theirs[k] + 1) for k in (*KINDS[:3], "flops"))
    note = ", ".join(f"{k} {ours[k]:,} / {theirs[k]:,}" for k in ours)
    return Row(name, Figure(worst, worst, worst), 1.01, note=note)


def main() -> None:
    """Compiles, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    head: Callable[..., bool] = liftnn.PathContains("head")
    rows = [
        row("train", lifted(liftnn.Param), hand_written(donate=False)),
        row("train, donated", lifted(liftnn.Param, donate_argnums=(0, 1)), hand_written(donate=True)),
        row("train, donate_written", lifted(liftnn.Param, donate_written=True), hand_written(donate=True)),
        row("frozen body", lifted(head), hand_written_frozen(donate=False)),
        row(
            "frozen body, donate_written", lifted(head, donate_written=True), hand_written_frozen(donate=True)
        ),
    ]
    for transform in ("grad", "vmap", "scan"):
        ours, theirs = [sizes(case.traced().lower()) for case in transformed.case(transform, 64)]
        rows.append(row(f"{transform} of 64 layers", ours, theirs))
    report("memory", rows, chosen.output, started)


if __name__ == "__main__":
    main()
