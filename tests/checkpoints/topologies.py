"""Functions that `tests.processes` calls: a training run that is saved on some devices and restored on others."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

import liftnn
from liftnn._src.checkpoints.leaves import flatten_modules

RANK, LAST = jax.process_index(), jax.process_count() - 1
VALUES = {"epoch": 3, "name": "run", "order": np.arange(5), "nested": [(1, 2.5), {"a": None}]}


class Model(liftnn.Module):
    """Weights over both axes of the mesh and over one, statistics, random streams, a numpy array and a number."""

    def __init__(self, seed: int):
        rngs = liftnn.Rngs(seed)
        init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), ("rows", "columns"))
        self.first = liftnn.Linear(8, 16, kernel_init=init, rngs=rngs)
        self.norm = liftnn.BatchNorm(16, rngs=rngs)
        self.dropout = liftnn.Dropout(0.5, rngs=rngs)
        self.last = liftnn.Linear(16, 8, rngs=rngs, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
        self.small = liftnn.Variable(jnp.arange(16, dtype=jnp.int4), sharding=("rows",))
        self.keys = liftnn.Variable(jax.random.split(jax.random.key(seed), 8), sharding=("columns",))
        self.tied = self.first.kernel

    def __call__(self, x: Any) -> Any:
        return self.last(self.dropout(self.norm(self.first(x))))


def make(seed: int = 0) -> Any:
    model = Model(seed)
    return model, liftnn.Optimizer(model, optax.adam(1e-3), wrt=liftnn.Param)


def mesh() -> Any:
    n = jax.device_count()
    shape = (2, n // 2) if jax.process_count() < 4 else (n // 2, 2)
    return jax.make_mesh(shape, ("rows", "columns"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


class Local(liftnn.Module):
    """Variables that each process holds as a whole on its own device, and values that are not on devices."""

    def __init__(self, seed: int):
        self.rngs = liftnn.Rngs(seed)
        self.metric = liftnn.Average()
        self.array = liftnn.Variable(np.arange(6, dtype=np.float32) + seed)
        self.number = liftnn.Variable(7 + seed)


@liftnn.jit(donate_argnums=(0, 1))
def train(model: Any, optimizer: Any, x: Any) -> Any:
    def loss_of(model: Any) -> Any:
        return (model(x) ** 2).mean()

    loss, grads = liftnn.value_and_grad(loss_of)(model)
    optimizer.update(model, grads)
    return loss


def run(seed: int = 0) -> list[Any]:
    model, optimizer = liftnn.make_sharded(lambda: make(seed), mesh())
    train(model, optimizer, jnp.ones((4, 8)))
    local = Local(seed)
    local.rngs()
    local.metric.update(values=jnp.float32(1 + seed))
    return [model, optimizer, local]


def arrays(modules: Any) -> dict[str, Any]:
    leaves = flatten_modules(tuple(modules), "save").leaves
    found = {str(leaf.path): jax.tree.leaves(leaf.value) for leaf in leaves.values()}
    return {f"{path} {i}": x for path, xs in found.items() for i, x in enumerate(xs)}


def bits(x: Any) -> Any:
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return x


def whole(modules: Any) -> dict[str, Any]:
    """All values as whole numpy arrays; those that each process holds as a whole are those of this process."""
    result = {}
    for path, x in arrays(modules).items():
        x = bits(x)
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            x = multihost_utils.process_allgather(x, tiled=True)
        result[path] = np.ascontiguousarray(np.asarray(x))
    return result


def write(path: pathlib.Path, values: dict[str, Any]) -> None:
    if RANK == 0:
        np.savez(path, **{name: np.frombuffer(x.tobytes(), np.uint8) for name, x in values.items()})


def differing(path: pathlib.Path, modules: Any) -> list[str]:
    """The paths at which a shard of this process has other bits than what was saved."""
    lines = []
    with np.load(path) as saved:
        found = {name: bits(x) for name, x in arrays(modules).items()}
        assert [*saved] == [*found]
        for name, x in found.items():
            expected = saved[name].view(np.asarray(x).dtype if not isinstance(x, jax.Array) else x.dtype)
            expected = expected.reshape(np.shape(x))
            shards = x.addressable_shards if isinstance(x, jax.Array) else ()
            parts = [(np.asarray(s.data), expected[s.index]) for s in shards] or [(np.asarray(x), expected)]
            lines += [name for a, b in parts if a.tobytes() != b.tobytes()]
    return lines


def save(folder: str) -> str:
    modules = run()
    write(pathlib.Path(folder, "saved.npz"), whole(modules))
    liftnn.save(f"{folder}/run", 1, *modules, values=VALUES, metrics={"loss": 0.5 + RANK})
    return str(liftnn.saved_steps(f"{folder}/run"))


def shardings(modules: Any) -> list[Any]:
    return [getattr(x, "sharding", None) for x in arrays(modules).values()]


def restore(folder: str) -> str:
    modules = run(seed=1)
    before = shardings(modules)
    found = liftnn.restore(f"{folder}/run", *modules)
    assert shardings(modules) == before
    assert str(found.values) == str(VALUES), found.values
    assert found.metrics == {"loss": 0.5}
    assert modules[0].tied is modules[0].first.kernel
    result = str(differing(pathlib.Path(folder, "saved.npz"), modules))
    train(*modules[:2], jnp.ones((4, 8)))
    return result


def restore_abstract(folder: str) -> str:
    model, optimizer = liftnn.abstract(make, mesh())
    modules = [model, optimizer, liftnn.eval_shape(lambda: Local(1))]
    liftnn.restore(f"{folder}/run", *modules)
    shown = model.first.kernel.value.sharding.spec
    assert shown == jax.P("rows", "columns"), shown
    train(model, optimizer, jnp.ones((4, 8)))
    again = [model, optimizer, liftnn.eval_shape(lambda: Local(1))]
    liftnn.restore(f"{folder}/run", *again)
    return str(differing(pathlib.Path(folder, "saved.npz"), again))
