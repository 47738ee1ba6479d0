"""`check_replicas` in two processes: what differs is told by path in both, within a time limit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

import liftnn

PROGRAM = """
import sys, jax, jax.numpy as jnp
jax.distributed.initialize("localhost:{port}", 2, {rank}, initialization_timeout=60)
import liftnn
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
rank = {rank}
class Model(liftnn.Module):
    def __init__(self, rngs, rate=0.1):
        self.linear = liftnn.Linear(2, 3, rngs=rngs)
        self.dropout = liftnn.Dropout(rate, rngs=rngs)
model = Model(liftnn.Rngs(0))
{change}
try:
    liftnn.check_replicas({modules})
    print("the same")
except liftnn.StructureError as error:
    print(error)
"""


def run(change="", modules="model"):
    """The output of both processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(port=port, rank=rank, change=change, modules=modules)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=150) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), outputs
    texts = [[line for line in out.splitlines() if "Gloo" not in line] for out, _ in outputs]
    assert texts[0] == texts[1]
    return texts[0]


def test_equal_modules_pass_and_so_do_arrays_that_are_sharded_over_processes():
    change = """
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
model = liftnn.make_sharded(lambda: Model(liftnn.Rngs(0)), mesh)
model.batch = jax.make_array_from_process_local_data(NamedSharding(mesh, P("data")), jnp.full((2, 3), rank))
"""
    assert run(change, "model, {'again': model}") == ["the same"]


@pytest.mark.parametrize(
    "change, path, what",
    [
        (
            "model = Model(liftnn.Rngs(rank))",
            "linear.kernel: process 0 has Param float32[2,3] of content",
            None,
        ),
        ("model.dropout.rate += rank", "dropout.rate: process 0 has 0.1, process 1 has 1.1", None),
        (
            "if rank: model.extra = liftnn.Param(jnp.ones(2))",
            "extra: process 0 has missing, process 1 has Param",
            None,
        ),
        ("model.linear.bias.tag = f'p{rank}'", "linear.bias: process 0 has Param", "tag='p1'"),
    ],
)
@pytest.mark.sample(4)
def test_what_differs_is_told_by_path_in_both_processes(change, path, what):
    first, *lines, remedy = run(change)
    assert first == "The processes do not hold the same modules:"
    assert any(line.strip().startswith(path) and (what or "") in line for line in lines), lines
    assert remedy == (
        "Create the modules in the same way in each process, with the same seeds; only the data differ by process."
    )


def test_one_process_has_nothing_to_compare():
    assert liftnn.check_replicas(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))) is None
