"""The same sharded network and train step, in liftnn and by hand; and what a compiled program says of itself."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import liftnn

AXES = ("data", "fsdp", "tensor")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
ROWS = 64


def make_mesh() -> jax.sharding.Mesh:
    """All devices: two along fsdp, two along tensor if there are eight, the rest along data."""
    count = jax.device_count()
    tensor = 2 if count >= 8 else 1
    return jax.make_mesh((count // (2 * tensor), 2, tensor), AXES, axis_types=(AxisType.Auto,) * 3)


class Block(liftnn.Module):
    """Two dense layers around a nonlinearity, added to the input."""

    def __init__(self, width: int, rngs: liftnn.Rngs):
        kernels = ({"sharding": ("fsdp", "tensor")}, {"sharding": ("tensor", "fsdp")})
        self.up = liftnn.Linear(width, 4 * width, kernel_metadata=kernels[0], rngs=rngs)
        self.down = liftnn.Linear(4 * width, width, kernel_metadata=kernels[1], rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.down(jax.nn.gelu(self.up(x)))


class Network(liftnn.Module):
    """Blocks, one after the other."""

    def __init__(self, depth: int, width: int):
        rngs = liftnn.Rngs(0)
        self.blocks = [Block(width, rngs) for _ in range(depth)]

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return x


def make(depth: int, width: int) -> tuple[Network, liftnn.Optimizer]:
    """The network and its optimizer."""
    model = Network(depth, width)
    return model, liftnn.Optimizer(model, optax.adam(1e-3), wrt=liftnn.Param)


def train(model: Any, optimizer: Any, x: jax.Array) -> jax.Array:
    """One step of liftnn."""
    loss, grads = liftnn.value_and_grad(lambda model: jnp.mean((model(x) - x) ** 2))(model)
    optimizer.update(model, grads)
    return loss


def make_by_hand(depth: int, width: int) -> list[dict[str, jax.Array]]:
    """The parameters, drawn like those of `Network`."""
    draw = jax.nn.initializers.lecun_normal()
    key = jax.random.key(0)

    def dense(i: int, rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
        return draw(jax.random.fold_in(key, i), (rows, columns)), jnp.zeros(columns)

    blocks = []
    for i in range(depth):
        (up, up_bias), (down, down_bias) = dense(2 * i, width, 4 * width), dense(2 * i + 1, 4 * width, width)
        blocks.append({"up": up, "up_bias": up_bias, "down": down, "down_bias": down_bias})
    return blocks


SPECS = {
    "up": PartitionSpec("fsdp", "tensor"),
    "down": PartitionSpec("tensor", "fsdp"),
    "up_bias": PartitionSpec(),
    "down_bias": PartitionSpec(),
}
tx = optax.adam(1e-3)


def shardings_by_hand(mesh: jax.sharding.Mesh, depth: int) -> tuple[Any, Any]:
    """The shardings of the parameters, and of the state of the optimizer."""
    params = [{name: NamedSharding(mesh, spec) for name, spec in SPECS.items()} for _ in range(depth)]
    whole = NamedSharding(mesh, PartitionSpec())
    shapes = jax.eval_shape(lambda: tx.init(make_by_hand(depth, 4)))
    state = optax.tree.map_params(tx, lambda _, s: s, shapes, params, transform_non_params=lambda _: whole)
    return params, state


def train_by_hand(params: Any, state: Any, x: jax.Array) -> tuple[Any, Any, jax.Array]:
    """One step of bare JAX."""

    def loss_fn(params: Any) -> jax.Array:
        y = x
        for p in params:
            y = y + (jax.nn.gelu(y @ p["up"] + p["up_bias"]) @ p["down"] + p["down_bias"])
        return jnp.mean((y - x) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss


def batch(mesh: jax.sharding.Mesh, width: int) -> jax.Array:
    """Inputs, split over data and fsdp."""
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    return jax.jit(lambda: jax.random.normal(jax.random.key(1), (ROWS, width)), out_shardings=rows)()


def pair(
    mesh: jax.sharding.Mesh, depth: int, width: int, **options: Any
) -> Mapping[str, tuple[Callable[..., Any], list[Any]]]:
    """The compiled step and the modules or arrays that it takes, in liftnn and by hand with all shardings given."""
    model, optimizer = liftnn.make_sharded(lambda: make(depth, width), mesh)
    given = shardings_by_hand(mesh, depth)
    params = jax.jit(lambda: make_by_hand(depth, width), out_shardings=given[0])()
    state = jax.jit(tx.init, out_shardings=given[1])(params)
    whole = NamedSharding(mesh, PartitionSpec())
    by_hand = jax.jit(train_by_hand, out_shardings=(*given, whole), **options)
    return {
        "liftnn": (liftnn.jit(train, **options), [model, optimizer]),
        "jax": (by_hand, [params, state]),
    }


def collectives(compiled: Any) -> tuple[collections.Counter[str], int]:
    """The collectives of a compiled program by kind, and the bytes of their results on one device."""
    found: collections.Counter[str] = collections.Counter()
    moved = 0
    for line in compiled.as_text().splitlines():
        match = re.search(r"= (.*?) (" + "|".join(COLLECTIVES) + r")(?:-start)?\(", line)
        if match:
            found[match[2]] += 1
            moved += sum(_bytes(kind, shape) for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", match[1]))
    return found, moved


def _bytes(kind: str, shape: str) -> int:
    size = 1 if kind == "pred" else int(re.sub(r"\D", "", kind) or 8) // 8
    return size * math.prod(map(int, filter(None, shape.split(","))))
