"""Functions that `tests.processes` calls: a training run that is saved on some devices and restored on others."""

from __future__ import annotations

import importlib
import os
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


def sync() -> None:
    multihost_utils.sync_global_devices("test")


def outcome(call: Any) -> str:
    """What a call raises in this process."""
    try:
        return f"returned {call()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def save_while_training(folder: str) -> str:
    """Save in the background while donated steps go on: the saved values are those at the time of the save."""
    modules = run()
    lines: list[str] = []
    with liftnn.Checkpoints(f"{folder}/background") as checkpoints:
        for step in range(3):
            write(pathlib.Path(folder, f"{step}.npz"), whole(modules))
            checkpoints.save(step, *modules)
            for _ in range(3):
                train(*modules[:2], jnp.ones((4, 8)))
            modules[2].metric.update(values=jnp.float32(step))
            modules[2].array.value += 1
    for step in range(3):
        other = run(seed=1)
        liftnn.restore(f"{folder}/background", *other, step=step)
        lines += differing(pathlib.Path(folder, f"{step}.npz"), other)
    return str(lines)


def keep_the_latest(folder: str) -> str:
    local = Local(0)
    with liftnn.Checkpoints(f"{folder}/latest", max_to_keep=2) as checkpoints:
        for step in range(5):
            checkpoints.save(step, local)
    sync()
    for step in range(5, 7):
        liftnn.save(f"{folder}/latest", step, local, max_to_keep=2)
    sync()
    return str(liftnn.saved_steps(f"{folder}/latest"))


def keep_the_best(folder: str) -> str:
    """The metrics of process 0 decide; those of process 1 would keep others."""
    local = Local(0)
    with liftnn.Checkpoints(f"{folder}/best", max_to_keep=2, best="accuracy") as checkpoints:
        for step, accuracy in enumerate([0.7, 0.9, 0.8, 0.1, 0.2, 0.3]):
            checkpoints.save(step, local, metrics={"accuracy": -accuracy if RANK else accuracy})
    sync()
    return f"{checkpoints.steps()} {checkpoints.best_step()}"


def values_of_process_0(folder: str) -> str:
    """Plain values, numpy arrays and arrays on one device differ by process; those of process 0 are restored in all."""
    local = Local(RANK)
    local.array.value = np.full(6, RANK, np.float32)
    liftnn.save(f"{folder}/values", 1, local, values={"rank": RANK, "array": np.arange(3) + RANK})
    found = liftnn.restore(f"{folder}/values", local)
    same = bool((local.rngs() == liftnn.Rngs(0)()).all())
    return f"{found.values} {local.array.value} {local.number.value} {same}"


def mistakes_in_save(folder: str) -> str:
    """Saves that fail in process 1 only, and one that does not."""
    local = Local(0)
    where = f"{folder}/mistakes"
    donated = liftnn.Param(jnp.ones(2))
    if RANK:
        donated.value.delete()
    texts = [
        outcome(lambda: liftnn.save(where, 1, donated)),
        outcome(lambda: liftnn.save(where, -1 if RANK else 1, local)),
        outcome(lambda: liftnn.save(where, 2 if RANK else 1, local)),
        outcome(lambda: liftnn.save(where, 1, liftnn.Param(jnp.ones(3 if RANK else 2)))),
        outcome(lambda: liftnn.save(where, 1, local, values={"x": object() if RANK else 1})),
        outcome(lambda: liftnn.save(where, 1, local)),
        outcome(lambda: liftnn.save(where, 1, local)),
    ]
    return "\n\n".join(texts)


class FullDisk:
    """A future of Orbax for a part that cannot be written."""

    def result(self, timeout: float | None = None) -> None:
        raise OSError("the disk is full")


def writes_that_fail(folder: str) -> str:
    """Background saves of which the write, or its start, fails in process 1 only; then one that does not."""
    where, modules = f"{folder}/failing", run()
    handler = importlib.import_module("orbax.checkpoint").PyTreeCheckpointHandler
    begin = handler.async_save

    async def fail_later(self: Any, *args: Any, **kwargs: Any) -> Any:
        return [*await begin(self, *args, **kwargs), FullDisk()]

    async def fail_at_once(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError("no permission")

    def save_twice() -> None:
        with liftnn.Checkpoints(where) as checkpoints:
            for step in (1, 2):
                checkpoints.save(step, *modules)

    texts: list[str] = []
    for failing in (fail_later, fail_at_once, begin):
        handler.async_save = failing if RANK else begin
        texts.append(outcome(save_twice))
    handler.async_save = begin
    return "\n\n".join([*texts, str(liftnn.saved_steps(where)), str(sorted(os.listdir(where)))])


def mistakes_in_restore(folder: str) -> str:
    """Restores that fail in process 1 only; then nothing is changed in process 0 either."""
    where = f"{folder}/fit"
    saved = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    liftnn.save(where, 1, saved)
    liftnn.save(where, 2, saved)
    model = liftnn.Linear(2, 4 if RANK else 3, rngs=liftnn.Rngs(1))
    before = np.asarray(model.kernel.value)
    texts = [
        outcome(lambda: liftnn.restore(where, model)),
        outcome(lambda: liftnn.restore(where, model, strict=False)),
        outcome(lambda: liftnn.restore(where, saved, step=RANK + 1)),
        outcome(lambda: liftnn.restore(where, saved, step=3 if RANK else 1)),
        outcome(lambda: liftnn.restore(where, "model" if RANK else saved)),
    ]
    assert (np.asarray(model.kernel.value) == before).all()
    return "\n\n".join(texts)
