"""Loading and saving keep at most one tensor in memory besides the values of the module, and read each tensor once."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import liftnn
from liftnn._src.weights.tensor_file import TensorFile
from tests.user_modules import Holder

MB = 1 << 20
SLACK = MB
"""Python objects, and the buffers of 1 MB for checksums, which come one for each thread."""


@pytest.fixture
def file(tmp_path):
    return str(tmp_path / "model.safetensors")


class Traced:
    """The memory that numpy has allocated: before, at most, and at the end."""

    before = peak = after = 0


@contextlib.contextmanager
def traced():
    tracemalloc.start()
    found = Traced()
    try:
        found.before = tracemalloc.get_traced_memory()[0]
        yield found
        found.after, found.peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def holder(n, megabytes, make=np.zeros):
    return Holder(**{f"w{i}": liftnn.Param(make((megabytes, MB // 4), np.float32)) for i in range(n)})


@pytest.mark.parametrize("shard", [None, 10 * MB])
def test_loading_takes_one_tensor_more_than_the_model(file, shard):
    liftnn.save_weights(file, holder(6, 4, np.ones), max_shard_size=shard)
    with traced() as found:
        module = holder(6, 4)
        liftnn.load_weights(file, module)
    assert all((getattr(module, f"w{i}").value == 1).all() for i in range(6))
    assert found.after <= 6 * 4 * MB + SLACK
    assert found.peak <= 7 * 4 * MB + (os.cpu_count() or 1) * SLACK


def test_checking_a_file_takes_no_tensor(file):
    liftnn.save_weights(file, holder(3, 8, np.ones))
    tensors = TensorFile("load_weights", file)
    with contextlib.closing(tensors), traced() as found:
        tensors.verify()
    assert found.peak <= (min(8, os.cpu_count() or 1) + 1) * SLACK


def test_parts_of_a_tensor_do_not_keep_the_whole_of_it(file):
    save_file({"packed": np.ones((12, MB // 4), np.float32)}, file)
    module = Holder(**{name: liftnn.Param(jnp.zeros((4, MB // 4))) for name in "qkv"})
    rules = [liftnn.Rule(name, "packed", part=(i, 3)) for i, name in enumerate("qkv")]
    with traced() as found:
        liftnn.load_weights(file, module, rules)
    assert found.after <= 12 * MB + SLACK
    assert found.peak <= (8 + 12 + 4) * MB + (os.cpu_count() or 1) * SLACK


def test_comparing_the_tensors_of_a_tie_takes_one_at_a_time(file):
    x = np.ones((8, MB // 4), np.float32)
    save_file({"a": x, "b": x, "c": x}, file)
    tied = liftnn.Param(jnp.zeros(x.shape))
    with traced() as found:
        liftnn.load_weights(file, Holder(a=tied, b=tied, c=tied))
    assert found.peak <= 16 * MB + SLACK


def test_saving_takes_no_copy_of_the_model(file):
    module = holder(6, 4, jnp.ones)
    with traced() as found:
        liftnn.save_weights(file, module)
    assert found.peak <= SLACK


def test_saving_arrays_that_are_not_contiguous_copies_one_at_a_time(file):
    module = Holder(**{f"w{i}": np.ones((MB // 4, 4), np.float32).T for i in range(6)})
    with traced() as found:
        liftnn.save_weights(file, module)
    assert found.peak <= 4 * MB + SLACK


def count_reads(monkeypatch):
    """The names of the tensors that are read from now on."""
    names, read = [], TensorFile.read
    monkeypatch.setattr(TensorFile, "read", lambda self, name: names.append(name) or read(self, name))
    return names


def test_each_tensor_is_read_once(file, monkeypatch):
    read = count_reads(monkeypatch)
    tied = liftnn.Param(jnp.zeros(2))
    model = Holder(a=tied, b=tied, c=liftnn.Param(jnp.zeros(3)), d=np.zeros(1))
    liftnn.save_weights(file, model)
    liftnn.load_weights(file, model)
    assert sorted(read) == ["a", "c", "d"]


def test_tensors_that_nobody_needs_are_not_read(file, monkeypatch):
    read = count_reads(monkeypatch)
    liftnn.save_weights(file, holder(4, 1))
    module = holder(4, 1)
    liftnn.load_weights(
        file, module, [("w2", None), liftnn.Rule("w2", None)], only=lambda path, x: path != ("w3",)
    )
    assert sorted(read) == ["w0", "w1"]
    liftnn.load_weights(file, Holder(w9=liftnn.Param(jnp.zeros(1))), strict=False)
    assert sorted(read) == ["w0", "w1"]


CHILD = """
import json, sys
import jax, jax.numpy as jnp
import liftnn

def resident(which):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) >> 10

file = sys.argv[1]
liftnn.load_weights(sys.argv[2], liftnn.Param(jnp.zeros(2)))  # what is loaded at first use
before = resident("VmRSS:")
model = liftnn.eval_shape(lambda: [liftnn.Param(jnp.zeros((32, 1 << 18))) for _ in range(6)])
liftnn.load_weights(file, model)
abstract = resident("VmHWM:") - before
assert all(x.value[0, 0] == 1 for x in model)
liftnn.load_weights(file, model)
print(json.dumps([abstract, resident("VmHWM:") - before]))
"""


@pytest.mark.thorough
@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="needs the memory of a process, from Linux"
)
def test_a_process_needs_the_memory_of_the_model_and_one_tensor(file, tmp_path):
    liftnn.save_weights(file, [liftnn.Param(jnp.ones((32, MB // 4))) for _ in range(6)])
    small = str(tmp_path / "small.safetensors")
    liftnn.save_weights(small, liftnn.Param(jnp.zeros(2)))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, file, small],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
    )
    assert done.returncode == 0, done.stderr
    abstract, again = json.loads(done.stdout)
    assert abstract <= 7 * 32
    assert again <= 8 * 32 + 16  # JAX frees an array that was loaded before when the next one is made
