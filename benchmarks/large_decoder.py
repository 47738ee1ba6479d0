"""A decoder of 7 billion parameters that exists nowhere: described, traced, lowered and compiled for eight devices.

The sizes are those of Llama 2 7B. The decoder by hand is nested dicts of stacked weights under `jax.lax.scan`, with the
same operations, shardings and recomputation.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from measure import Figure, Row

import liftnn

WIDTH, HEADS, HIDDEN, DEPTH, VOCABULARY = 4096, 32, 11008, 32, 32_000
ROWS, LENGTH = 8, 2048
RULES = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",
    "heads": "tensor",
    "hidden": "tensor",
    "vocab": "tensor",
    "layers": None,
}
tx = optax.adamw(1e-3)


class Block(liftnn.Module):
    """One layer: causal attention with rotary positions, and a gated layer."""

    def __init__(self, rngs: liftnn.Rngs):
        linear = functools.partial(liftnn.Linear, use_bias=False, dtype=jnp.bfloat16, rngs=rngs)
        self.attention_norm, self.norm = (
            liftnn.RMSNorm(WIDTH, dtype=jnp.bfloat16, rngs=rngs) for _ in range(2)
        )
        self.attention = liftnn.MultiHeadAttention(
            HEADS,
            WIDTH,
            use_bias=False,
            dtype=jnp.bfloat16,
            rotary_embedding=liftnn.rotary_embedding,
            kernel_metadata={"sharding": ("embed", "heads", None)},
            out_kernel_metadata={"sharding": ("heads", None, "embed")},
            rngs=rngs,
        )
        up, down = {"sharding": ("embed", "hidden")}, {"sharding": ("hidden", "embed")}
        self.gate, self.up = (linear(WIDTH, HIDDEN, kernel_metadata=up) for _ in range(2))
        self.down = linear(HIDDEN, WIDTH, kernel_metadata=down)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.attention_norm(x), is_causal=True)
        y = self.norm(x)
        y = liftnn.with_logical_constraint(jax.nn.silu(self.gate(y)) * self.up(y), ("batch", None, "hidden"))
        return liftnn.with_logical_constraint(x + self.down(y), ("batch", None, None))


class Decoder(liftnn.Module):
    """Stacked blocks between an embedding and a linear layer."""

    def __init__(self, rngs: liftnn.Rngs):
        table, head = {"sharding": ("vocab", None)}, {"sharding": ("embed", "vocab")}
        self.embed = liftnn.Embed(VOCABULARY, WIDTH, dtype=jnp.bfloat16, embedding_metadata=table, rngs=rngs)
        axes = {liftnn.PARTITION_NAME: "layers"}
        self.blocks = liftnn.Stack(DEPTH, Block, rngs=rngs, remat=True, transform_metadata=axes)
        self.norm = liftnn.RMSNorm(WIDTH, dtype=jnp.bfloat16, rngs=rngs)
        self.head = liftnn.Linear(
            WIDTH, VOCABULARY, use_bias=False, dtype=jnp.bfloat16, kernel_metadata=head, rngs=rngs
        )

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = liftnn.with_logical_constraint(self.embed(tokens), ("batch", None, None))
        return self.head(self.norm(self.blocks(x))).astype(jnp.float32)


def make() -> tuple[Decoder, liftnn.Optimizer]:
    """The decoder and its optimizer."""
    model = Decoder(liftnn.Rngs(0))
    return model, liftnn.Optimizer(model, tx, wrt=liftnn.Param)


def cross_entropy(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """The mean loss of the next tokens."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def train(model: Any, optimizer: Any, tokens: jax.Array) -> jax.Array:
    """One step of liftnn."""
    loss, grads = liftnn.value_and_grad(lambda model: cross_entropy(model(tokens[:, :-1]), tokens))(model)
    optimizer.update(model, grads)
    return loss


HEAD = WIDTH // HEADS
LAYERS = {
    "attention_norm": ((WIDTH,), ()),
    "norm": ((WIDTH,), ()),
    "query": ((WIDTH, HEADS, HEAD), ("fsdp", "tensor")),
    "key": ((WIDTH, HEADS, HEAD), ("fsdp", "tensor")),
    "value": ((WIDTH, HEADS, HEAD), ("fsdp", "tensor")),
    "out": ((HEADS, HEAD, WIDTH), ("tensor", None, "fsdp")),
    "gate": ((WIDTH, HIDDEN), ("fsdp", "tensor")),
    "up": ((WIDTH, HIDDEN), ("fsdp", "tensor")),
    "down": ((HIDDEN, WIDTH), ("tensor", "fsdp")),
}
"""Shape and spec of the weights of a layer."""
OUTER = {
    "embed": ((VOCABULARY, WIDTH), ("tensor",)),
    "final": ((WIDTH,), ()),
    "head": ((WIDTH, VOCABULARY), ("fsdp", "tensor")),
}
"""Those of the others."""


def abstract_by_hand(mesh: jax.sharding.Mesh) -> tuple[Any, Any, Any]:
    """The abstract parameters and state of the optimizer, and the shardings of both."""

    def leaf(shape: tuple[int, ...], spec: tuple[Any, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    params = {name: leaf(*x) for name, x in OUTER.items()}
    params["layers"] = {name: leaf((DEPTH, *shape), (None, *spec)) for name, (shape, spec) in LAYERS.items()}
    whole = NamedSharding(mesh, PartitionSpec())
    state = optax.tree.map_params(
        tx,
        lambda _, x: x,
        jax.eval_shape(tx.init, params),
        params,
        transform_non_params=lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
    )
    return params, state, jax.tree.map(lambda x: x.sharding, (params, state))


def forward_by_hand(params: Any, tokens: jax.Array) -> jax.Array:
    """The logits."""
    half = jnp.bfloat16
    hidden, outer = PartitionSpec(RULES["batch"], None, "tensor"), PartitionSpec(RULES["batch"])
    hold = jax.lax.with_sharding_constraint

    def normalize(x: jax.Array, scale: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        mean = jnp.mean(wide**2, axis=-1, keepdims=True)
        return (wide * (jax.lax.rsqrt(mean + 1e-6) * scale)).astype(half)

    def rotate(x: jax.Array) -> jax.Array:
        steps = 10_000.0 ** (-jnp.arange(HEAD // 2, dtype=jnp.float32) / (HEAD // 2))
        angles = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None, None] * steps
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        first, second = x[..., : HEAD // 2], x[..., HEAD // 2 :]
        turned = [first * cos - second * sin, first * sin + second * cos]
        return jnp.concatenate(turned, axis=-1).astype(x.dtype)

    @jax.checkpoint
    def block(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        y, w = (
            normalize(x, layer["attention_norm"]),
            {name: value.astype(half) for name, value in layer.items()},
        )
        query, key, value = (jnp.einsum("blf,fhd->blhd", y, w[name]) for name in ("query", "key", "value"))
        y = jax.nn.dot_product_attention(rotate(query), rotate(key), value, is_causal=True)
        x = x + jnp.einsum("blhd,hdf->blf", y, w["out"])
        y = normalize(x, layer["norm"])
        y = hold(jax.nn.silu(y @ w["gate"]) * (y @ w["up"]), hidden)
        return hold(x + y @ w["down"], outer), None

    x = hold(jnp.take(params["embed"].astype(half), tokens, axis=0), outer)
    x, _ = jax.lax.scan(block, x, params["layers"])
    return (normalize(x, params["final"]) @ params["head"].astype(half)).astype(jnp.float32)


def train_by_hand(params: Any, state: Any, tokens: jax.Array) -> tuple[Any, Any, jax.Array]:
    """One step of bare JAX."""
    loss, grads = jax.value_and_grad(
        lambda params: cross_entropy(forward_by_hand(params, tokens[:, :-1]), tokens)
    )(params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss


def rows(mesh: jax.sharding.Mesh) -> list[Row]:
    """The seconds to describe, trace and lower a train step, and the memory of the compiled one."""
    split = NamedSharding(mesh, PartitionSpec(RULES["batch"]))
    tokens = jax.ShapeDtypeStruct((ROWS, LENGTH + 1), jnp.int32, sharding=split)
    with liftnn.axis_rules(RULES, mesh):
        start = time.perf_counter()
        described = liftnn.abstract(make)
        times = {"describe": time.perf_counter() - start}
        lowered = _lower(liftnn.jit(train, donate_argnums=(0, 1)), (*described, tokens), times)
        ours = lowered.compile().memory_analysis()
        *given, shardings = abstract_by_hand(mesh)
        whole = NamedSharding(mesh, PartitionSpec())
        step = jax.jit(train_by_hand, donate_argnums=(0, 1), out_shardings=(*shardings, whole))
        by_hand: dict[str, float] = {}
        theirs = _lower(step, (*given, tokens), by_hand).compile().memory_analysis()
    size = liftnn.count_params(described[0]) / 1e9
    found = [
        _exactly(
            f"a decoder of {size:.2f} billion parameters: {what}",
            seconds,
            1.0,
            f"JAX: {by_hand[what]:.2f} s" if what in by_hand else "",
            "s",
        )
        for what, seconds in times.items()
    ]
    bytes_of = [x.temp_size_in_bytes + x.argument_size_in_bytes for x in (ours, theirs)]
    note = " / ".join(f"{x / 1e9:.2f} GB" for x in bytes_of)
    return [
        *found,
        _exactly("memory of its train step on a device", bytes_of[0] / bytes_of[1], 1.01, note, "x"),
    ]


def _lower(step: Any, args: tuple[Any, ...], times: dict[str, float]) -> Any:
    start = time.perf_counter()
    traced = step.trace(*args)
    middle = time.perf_counter()
    lowered = traced.lower()
    times |= {"trace": middle - start, "lower": time.perf_counter() - middle}
    return lowered


def _exactly(name: str, value: float, target: float, note: str, unit: str) -> Row:
    return Row(name, Figure(value, value, value), target, unit, note=note)
