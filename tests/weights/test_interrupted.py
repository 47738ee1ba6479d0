"""Exceptions, threads and kills while weights are loaded or saved."""

from __future__ import annotations

import os
import random
import threading

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn._src.weights.tensor_file import TensorFile
from tests import forked
from tests.quick import quick
from tests.user_modules import Holder
from tests.weights.saving import save_steps


def holder(x):
    leaves = {f"w{i}": liftnn.Param(jnp.full(3, x)) for i in range(4)}
    return Holder(**leaves, tree=liftnn.Variable({"a": jnp.full(2, x), "b": jnp.full(2, x)}), n=np.full(2, x))


def values(module):
    tree = module.tree.raw_value
    variables = [float(getattr(module, f"w{i}").value[0]) for i in range(4)]
    return [*variables, float(tree["a"][0]), float(tree["b"][0]), float(module.n[0])]


@pytest.fixture
def file(tmp_path):
    path = str(tmp_path / "model.safetensors")
    liftnn.save_weights(path, holder(2.0))
    return path


GONE = liftnn.CheckpointError("The disk is gone.", "Nothing was changed.")


def fail(monkeypatch, first, *raised):
    """Raise errors from a read of a tensor on; the last one then stays."""
    read, count = TensorFile.read, iter(range(1000))

    def failing(self, name):
        number = next(count) - first
        error = raised[min(number, len(raised) - 1)] if number >= 0 else None
        if error is not None:
            raise error
        return read(self, name)

    monkeypatch.setattr(TensorFile, "read", failing)


@pytest.mark.sample(2)
@pytest.mark.parametrize("at", range(7))
def test_an_interrupt_while_variables_are_set_leaves_all_or_none_set(file, monkeypatch, at):
    module = holder(5.0)
    fail(monkeypatch, at, KeyboardInterrupt(), None)
    with pytest.raises(KeyboardInterrupt):
        liftnn.load_weights(file, module)
    assert (
        values(module) == [5.0 if at == 0 else 2.0] * 7
    )  # the first one is the array leaf, before all Variables


def test_a_file_that_cannot_be_read_any_more_says_what_has_not_been_loaded(file, monkeypatch):
    module = holder(5.0)
    fail(monkeypatch, 3, GONE)
    with pytest.raises(liftnn.CheckpointError) as caught:
        liftnn.load_weights(file, module)
    assert str(caught.value).splitlines() == [
        "The disk is gone.",
        "These Variables have not been loaded; those before them have:",
        "  w2",
        "  w3",
        "  tree.a",
        "Load all weights again, from another copy of the file.",
    ]
    assert values(module) == [2, 2, 5, 5, 5, 5, 2]


def test_an_interrupt_and_a_file_that_cannot_be_read_any_more_are_both_told(file, monkeypatch):
    module = holder(5.0)
    fail(monkeypatch, 3, KeyboardInterrupt(), GONE)
    with pytest.raises(KeyboardInterrupt) as caught:
        liftnn.load_weights(file, module)
    assert caught.value.__notes__ == [
        "These Variables have not been loaded; those before them have:\n  w2\n  w3\n  tree.a"
    ]


def test_a_file_that_becomes_shorter_while_it_is_read_is_an_error(file):
    liftnn.save_weights(file, liftnn.Param(jnp.zeros(100_000)))
    tensors = TensorFile("load_weights", file)
    try:
        os.truncate(file, os.path.getsize(file) - 20)
        with pytest.raises(liftnn.CheckpointError, match="it has become shorter while it was read"):
            tensors.verify()
    finally:
        tensors.close()


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(file, monkeypatch):
    read = TensorFile.read

    def replacing(self, name):
        liftnn.save_weights(file, holder(7.0))
        return read(self, name)

    monkeypatch.setattr(TensorFile, "read", replacing)
    module = holder(5.0)
    liftnn.load_weights(file, module)
    assert values(module) == [2.0] * 7


def test_threads_load_one_file_into_models_of_their_own(file):
    modules = [holder(0.0) for _ in range(8)]
    threads = [threading.Thread(target=liftnn.load_weights, args=(file, module)) for module in modules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [values(module) for module in modules] == [[2.0] * 7] * 8


def test_threads_load_into_one_model(tmp_path):
    files = [str(tmp_path / f"{i}.safetensors") for i in range(4)]
    for i, path in enumerate(files):
        liftnn.save_weights(path, holder(float(i)))
    module = holder(9.0)
    threads = [threading.Thread(target=liftnn.load_weights, args=(path, module)) for path in files * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(values(module)) <= {0.0, 1.0, 2.0, 3.0}


def kill_once(file, first, operations=0, seconds=None, size=0):
    """Save steps until the process is killed; return the step that is in the file then."""
    found = forked.run_until_killed(save_steps, file, first, operations, size, seconds=seconds)
    reported = [first - 1, *found][-1]
    found = load_step(file)
    assert found >= reported
    return found


def load_step(file):
    """The step that a file has; all its tensors are of one step."""
    model = [liftnn.Param(jnp.zeros(30_000)) for _ in range(5)]
    liftnn.load_weights(file, model)
    [step] = {float(x) for part in model for x in np.unique(np.asarray(part.value))}
    return int(step)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [0, 240_000, -240_000])
@pytest.mark.parametrize("operations", quick([2, *range(1, 16)], most=1))
def test_killed_at_a_file_operation_the_weights_are_those_of_a_step(tmp_path, operations, size):
    file = str(tmp_path / "model.safetensors")
    liftnn.save_weights(file, [liftnn.Param(jnp.zeros(30_000)) for _ in range(5)])
    kill_once(file, 1, operations=operations, size=size)


@pytest.mark.thorough
def test_killed_at_random_times_nothing_is_lost(tmp_path):
    file = str(tmp_path / "model.safetensors")
    liftnn.save_weights(file, [liftnn.Param(jnp.zeros(30_000)) for _ in range(5)])
    draw, step = random.Random(0), 0
    for i in range(int(os.environ.get("LIFTNN_KILLS", "10"))):
        found = kill_once(file, step + 1, seconds=draw.uniform(0.01, 0.3), size=(0, 240_000, -240_000)[i % 3])
        assert found >= step
        step = found
