"""What repeated blocks cost before they run: a decoder as a Stack, as a list, and as a list that is traced once.

    python benchmarks/stacked.py [--quick] [--rounds N] [--output FOLDER]

Each round traces, or compiles, functions that JAX has not seen. The decoder written by hand is `jax.lax.scan` over
nested dicts of stacked weights, with the same operations.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from machine import environment
from measure import Row, Run, options, report, take_single_turns

import liftnn

WIDTH, HEADS, DEPTH = 32, 2, 100


class Block(liftnn.Module):
    """One layer of a decoder."""

    def __init__(self, rngs: liftnn.Rngs):
        self.norms = [liftnn.LayerNorm(WIDTH, rngs=rngs) for _ in range(2)]
        self.attend = liftnn.MultiHeadAttention(HEADS, WIDTH, use_bias=False, rngs=rngs)
        self.up = liftnn.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = liftnn.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attend(self.norms[0](x), is_causal=True)
        return x + self.down(jax.nn.gelu(self.up(self.norms[1](x))))


class Once(Block):
    """The same layer, traced once."""


liftnn.trace_once(Once)


class Listed(liftnn.Module):
    """A decoder as a Python list of layers."""

    def __init__(self, cls: type[Block], depth: int):
        rngs = liftnn.Rngs(0)
        self.layers = [cls(rngs) for _ in range(depth)]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


def loss(model: Any, x: jax.Array) -> jax.Array:
    """What the gradients are of."""
    return (model(x) ** 2).mean()


def ours(model: Any, compiles: bool) -> Run:
    """Traces, and compiles if asked, the gradients of a model."""
    x = jnp.ones((2, 16, WIDTH))

    def run(n: int) -> None:
        for _ in range(n):
            traced = liftnn.jit(lambda model, x: liftnn.value_and_grad(loss)(model, x)).trace(model, x)
            if compiles:
                traced.lower().compile()

    return run


def normalize(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """LayerNorm by hand."""
    mean = x.mean(-1, keepdims=True)
    var = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0.0)
    return (x - mean) * (jax.lax.rsqrt(var + 1e-6) * p["scale"]) + p["bias"]


def layer(p: dict[str, Any], x: jax.Array) -> jax.Array:
    """One layer by hand."""
    h = normalize(p["norms"][0], x)
    attend = p["attend"]
    q, k, v = (jnp.einsum("bld,dhk->blhk", h, attend[name]["kernel"]) for name in ("query", "key", "value"))
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    x = x + jnp.einsum("blhk,hkd->bld", y, attend["out"]["kernel"])
    h = jax.nn.gelu(normalize(p["norms"][1], x) @ p["up"]["kernel"] + p["up"]["bias"])
    return x + h @ p["down"]["kernel"] + p["down"]["bias"]


def by_hand(stack: liftnn.Stack[Block], compiles: bool) -> Run:
    """The same for nested dicts of stacked weights."""
    params = liftnn.state(stack.layers, liftnn.Param).to_pure_dict()
    x = jnp.ones((2, 16, WIDTH))

    def run(n: int) -> None:
        for _ in range(n):

            def step(params: Any, x: jax.Array) -> Any:
                def model(x: jax.Array) -> jax.Array:
                    return jax.lax.scan(lambda x, p: (layer(p, x), None), x, params)[0]

                return loss(model, x)

            traced = jax.jit(jax.value_and_grad(step)).trace(params, x)
            if compiles:
                traced.lower().compile()

    return run


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    rounds = max(3, chosen.rounds // 10)
    rows: list[Row] = []
    stack = liftnn.Stack(DEPTH, Block, rngs=liftnn.Rngs(0))
    for compiles, label in ((False, "trace"), (True, "trace and compile")):
        times = take_single_turns({"liftnn": ours(stack, compiles), "jax": by_hand(stack, compiles)}, rounds)
        row = Row(
            f"{label} a Stack of {DEPTH} layers / lax.scan",
            times.ratio("liftnn", "jax"),
            1.10 if compiles else None,
        )
        row.microseconds, row.at_best = times.microseconds(), times.at_best("liftnn", "jax")
        rows.append(row)
        depth = 24
        models = {"once": Listed(Once, depth), "list": Listed(Block, depth)}
        times = take_single_turns({name: ours(model, compiles) for name, model in models.items()}, rounds)
        row = Row(f"{label} {depth} layers in a list, traced once / not", times.ratio("once", "list"), None)
        row.microseconds, row.at_best = times.microseconds(), times.at_best("once", "list")
        rows.append(row)
    report("stacked", rows, chosen.output, started)


if __name__ == "__main__":
    main()
