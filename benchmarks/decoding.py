"""What a token costs: greedy decoding with a cache of keys and values, against hand-written JAX.

    python benchmarks/decoding.py [--quick] [--rounds N] [--output FOLDER]

The decoder is a list of blocks, and a Stack of them. By hand, weights and caches are nested dicts, and the step returns
the new caches; the operations are the same. A call decodes one token; in the last row, `scan` decodes many in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from machine import environment
from measure import Row, Run, options, report, take_turns

import liftnn

VOCAB, WIDTH, HEADS, LENGTH, TOKENS = 256, 128, 4, 256, 64

Tree = dict[str, Any]


class Block(liftnn.Module):
    """One layer of a decoder."""

    def __init__(self, rngs: liftnn.Rngs):
        self.norms = [liftnn.LayerNorm(WIDTH, rngs=rngs) for _ in range(2)]
        self.attend = liftnn.MultiHeadAttention(HEADS, WIDTH, use_bias=False, decode=True, rngs=rngs)
        self.up = liftnn.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = liftnn.Linear(4 * WIDTH, WIDTH, rngs=rngs)
        self.attend.init_cache((1, LENGTH, WIDTH))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attend(self.norms[0](x))
        return x + self.down(jax.nn.gelu(self.up(self.norms[1](x))))


class Decoder(liftnn.Module):
    """A decoder of one token at a time.

    Args:
      depth: The number of layers.
      stacked: Whether they are a Stack.
    """

    def __init__(self, depth: int, stacked: bool):
        rngs = liftnn.Rngs(0)
        self.embed = liftnn.Embed(VOCAB, WIDTH, rngs=rngs)
        self.blocks = (
            liftnn.Stack(depth, Block, rngs=rngs) if stacked else [Block(rngs) for _ in range(depth)]
        )

    def __call__(self, token: jax.Array) -> jax.Array:
        x = self.embed(token)
        if isinstance(self.blocks, liftnn.Stack):
            x = self.blocks(x)
        else:
            for block in self.blocks:
                x = block(x)
        return jnp.argmax(self.embed.attend(x), axis=-1)


def normalize(p: Tree, x: jax.Array) -> jax.Array:
    """LayerNorm by hand."""
    mean = x.mean(-1, keepdims=True)
    var = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0.0)
    return (x - mean) * (jax.lax.rsqrt(var + 1e-6) * p["scale"]) + p["bias"]


def layer(p: Tree, cache: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    """One layer by hand: the output and the new cache."""
    h = normalize(p["norms"][0], x)
    attend, index = p["attend"], cache["index"]
    q, k, v = (jnp.einsum("bld,dhk->blhk", h, attend[name]["kernel"]) for name in ("query", "key", "value"))
    keys = jax.lax.dynamic_update_slice_in_dim(cache["key"], k, index, axis=1)
    values = jax.lax.dynamic_update_slice_in_dim(cache["value"], v, index, axis=1)
    y = jax.nn.dot_product_attention(q, keys, values, mask=(jnp.arange(LENGTH) <= index)[None, None, None])
    x = x + jnp.einsum("blhk,hkd->bld", y, attend["out"]["kernel"])
    h = jax.nn.gelu(normalize(p["norms"][1], x) @ p["up"]["kernel"] + p["up"]["bias"])
    x = x + h @ p["down"]["kernel"] + p["down"]["bias"]
    return x, {"key": keys, "value": values, "index": index + 1}


def decode(params: Tree, caches: Any, token: jax.Array) -> tuple[jax.Array, Any]:
    """A token by hand: the next one and the new caches, of a list of layers or of stacked ones."""
    x = params["embed"]["embedding"][token]
    if isinstance(caches, dict):
        x, new = jax.lax.scan(lambda x, pc: layer(*pc, x), x, (params["blocks"]["layers"], caches))
    else:
        new = []
        for i, cache in enumerate(caches):
            x, cache = layer(params["blocks"][i], cache, x)
            new.append(cache)
    return jnp.argmax(x @ params["embed"]["embedding"].T, axis=-1), new


def decode_many(params: Tree, caches: Any, token: jax.Array) -> tuple[jax.Array, Any]:
    """Many tokens by hand, in one loop."""

    def one(carry: Any, _: None) -> tuple[Any, jax.Array]:
        token, caches = decode(params, *carry[::-1])
        return (token, caches), token

    (_, caches), tokens = jax.lax.scan(one, (token, caches), length=TOKENS)
    return tokens, caches


def ours_many(model: Decoder, token: jax.Array) -> jax.Array:
    """Many tokens in one loop of liftnn's."""

    def one(model: Decoder, token: jax.Array) -> tuple[jax.Array, jax.Array]:
        token = model(token)
        return token, token

    axes = (liftnn.StateAxes({liftnn.Cache: liftnn.Carry, ...: None}), liftnn.Carry)
    return liftnn.scan(one, in_axes=axes, out_axes=(liftnn.Carry, 0), length=TOKENS)(model, token)[1]


def by_hand(function: Callable[..., Any], params: Tree, caches: Any) -> Run:
    """Calls of a jitted function by hand, whose caches go on from call to call."""
    step, token = jax.jit(function), jnp.zeros((1, 1), jnp.int32)

    def run(n: int) -> None:
        now = caches
        for _ in range(n):
            out, now = step(params, now, token)
        jax.block_until_ready(out)

    return run


def lifted(function: Callable[..., Any], model: Decoder) -> Run:
    """Calls of a jitted function of a model."""
    step, token = liftnn.jit(function), jnp.zeros((1, 1), jnp.int32)

    def run(n: int) -> None:
        for _ in range(n):
            out = step(model, token)
        jax.block_until_ready(out)

    return run


def contenders(depth: int, stacked: bool, many: bool) -> dict[str, Run]:
    """The same decoding by both, checked to give the same tokens."""
    model = Decoder(depth, stacked)
    params = liftnn.state(model, liftnn.Param).to_pure_dict()
    shape = (1, LENGTH, HEADS, WIDTH // HEADS)
    cache = {"key": jnp.zeros(shape), "value": jnp.zeros(shape), "index": jnp.zeros((), jnp.int32)}
    caches = jax.tree.map(lambda x: jnp.stack([x] * depth), cache) if stacked else [cache] * depth
    ours, theirs = (ours_many, decode_many) if many else (Decoder.__call__, decode)
    token = jnp.zeros((1, 1), jnp.int32)
    assert (liftnn.jit(ours)(model, token) == jax.jit(theirs)(params, caches, token)[0]).all()
    return {"liftnn": lifted(ours, model), "jax": by_hand(theirs, params, caches)}


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    rows: list[Row] = []
    for name, stacked, many in (
        ("a token, list of 4 layers", False, False),
        ("a token, Stack of 4 layers", True, False),
        (f"{TOKENS} tokens in one scan, list of 4 layers", False, True),
    ):
        times = take_turns(contenders(4, stacked, many), chosen.rounds)
        row = Row(name, times.ratio("liftnn", "jax"), 1.05, microseconds=times.microseconds())
        row.at_best = times.at_best("liftnn", "jax")
        rows.append(row)
    report("decoding", rows, chosen.output, started)


if __name__ == "__main__":
    main()
