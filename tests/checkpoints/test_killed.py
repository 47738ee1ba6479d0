"""A process that is killed while it saves, at each of its file operations and at random times, loses nothing complete.

The child saves steps 0, 1, 2 ... of a model whose arrays are filled with the number of the step, keeps two of them, and
reports each step once it is complete. It dies by SIGKILL: at the n-th audit event that opens, renames or
removes files, or when the parent says so. After that the latest checkpoint must load, hold one step only, and be at
least the last one that was reported.
"""

from __future__ import annotations

import os
import random

import jax.numpy as jnp
import numpy as np
import pytest
from tests import forked
from tests.checkpoints.saving import save_steps
from tests.quick import quick

import liftnn


def check_latest(folder, reported):
    """The step of the latest checkpoint, after checking that all complete checkpoints hold one step each."""
    model = liftnn.Module()
    model.parts = [liftnn.Param(jnp.zeros(3000)) for _ in range(5)]
    steps = liftnn.saved_steps(folder)
    assert steps, "nothing is left"
    for step in steps:
        found = liftnn.restore(folder, model, step=step)
        assert found.values == {"step": step}
        assert all((np.asarray(part.value) == step).all() for part in model.parts)
    assert steps[-1] >= reported
    return steps[-1]


def kill_once(folder, operations=0, seconds=None, in_background=True):
    """Go on with the run in a folder until it is killed; return the latest step."""
    steps = liftnn.saved_steps(folder)
    first = steps[-1] + 1 if steps else 0
    found = forked.run_until_killed(
        save_steps, str(folder), first, operations, in_background, seconds=seconds
    )
    reported = [first - 1, *found][-1]
    return check_latest(folder, reported) if reported >= 0 or liftnn.saved_steps(folder) else -1


def save_first(folder):
    model = liftnn.Module()
    model.parts = [liftnn.Param(jnp.zeros(3000)) for _ in range(5)]
    liftnn.save(folder, 0, model, values={"step": 0})


@pytest.mark.thorough
@pytest.mark.part(2)
@pytest.mark.parametrize("operations", quick([3, 45, *range(1, 160, 2)], most=2))
def test_killed_at_a_file_operation_the_last_checkpoint_loads(tmp_path, operations):
    save_first(tmp_path)
    kill_once(tmp_path, operations=operations, in_background=operations % 4 == 1)


@pytest.mark.thorough
def test_killed_at_random_times_nothing_is_lost(tmp_path):
    save_first(tmp_path)
    draw = random.Random(0)
    count = int(os.environ.get("LIFTNN_KILLS", "10"))
    steps = [
        kill_once(tmp_path, seconds=draw.uniform(0.05, 1.2), in_background=i % 2 == 0) for i in range(count)
    ]
    assert steps == sorted(steps)
    assert steps[-1] > count // 2
