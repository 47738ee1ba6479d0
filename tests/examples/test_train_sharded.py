"""The example over many devices: the same losses in any number of processes, killed and resumed or not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_sharded" / "train.py"
ENVIRONMENT = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
SIZES = {"layers": 2, "features": 16, "length": 16, "batch": 16, "steps": 6, "save-every": 2}


def command_of(output, processes, devices, **sizes):
    sizes = SIZES | {name.replace("_", "-"): x for name, x in sizes.items()}
    options = [word for name, x in sizes.items() for word in (f"--{name}", str(x))]
    spread = ["--processes", str(processes), "--devices", str(devices)]
    return [sys.executable, str(EXAMPLE), *spread, *options, "--output", str(output)]


def run(command):
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def losses_of(lines):
    """What a run prints of its steps, without times."""
    return [line.rpartition(", ")[0] for line in lines if line.startswith("step")]


def resumed_after(lines):
    """The step after which a run says that it goes on."""
    return int(re.fullmatch(r"resumed after step (\d+)/\d+", lines[1])[1])


def run_and_kill_one(command, after):
    """Start a run, and kill one of its processes when it has printed a step."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    for line in process.stdout:
        if line.startswith(f"step {after}/"):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            break
    _, err = process.communicate(timeout=60)
    return process.returncode, err.splitlines()[-1:]


@pytest.mark.thorough
@pytest.mark.slow
def test_a_run_of_two_processes_that_lost_one_is_resumed_by_one_process_with_the_losses_of_a_whole_run(
    tmp_path,
):
    whole = run(command_of(tmp_path / "whole", 1, 4))
    killed = run_and_kill_one(command_of(tmp_path / "killed", 2, 2), after=5)
    assert killed == (137, ["train.py: a process was killed (SIGKILL), so all were ended"])
    resumed = run(command_of(tmp_path / "killed", 1, 4))
    done = resumed_after(resumed)
    assert done in (2, 4)  # the checkpoint of step 4 is complete only some time after the step
    assert losses_of(resumed) == losses_of(whole)[done:]
    assert (tmp_path / "killed" / "losses.png").read_bytes() == (
        tmp_path / "whole" / "losses.png"
    ).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The losses and the picture of a run in one process with eight devices."""
    folder = tmp_path_factory.mktemp("whole")
    losses = losses_of(run(command_of(folder, 1, 8)))
    assert len(losses) == SIZES["steps"]
    return losses, (folder / "losses.png").read_bytes()


@pytest.mark.thorough
@pytest.mark.parametrize("processes, devices", [(2, 4), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_the_losses_do_not_depend_on_the_number_of_processes(tmp_path, whole, processes, devices):
    assert losses_of(run(command_of(tmp_path, processes, devices))) == whole[0]


@pytest.mark.thorough
def test_a_run_that_lost_a_process_goes_on_in_more_processes_and_then_in_one(tmp_path, whole):
    assert run_and_kill_one(command_of(tmp_path, 2, 4), after=3)[0] == 137
    assert run_and_kill_one(command_of(tmp_path, 4, 2), after=5)[0] == 137
    resumed = run(command_of(tmp_path, 1, 8))
    done = resumed_after(resumed)
    assert done in (2, 4)
    losses, picture = whole
    assert losses_of(resumed) == losses[done:]
    assert (tmp_path / "losses.png").read_bytes() == picture


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options, message",
    [
        (["--micro-batches", "3"], "argument --micro-batches: 3 does not divide --batch 16"),
        (["--devices", "0"], "argument --devices: '0' is not a whole number from 1 on"),
    ],
)
def test_wrong_options_are_reported_before_any_process_starts(tmp_path, options, message):
    command = [*command_of(tmp_path, 2, 2), *options]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == f"train.py: error: {message}"
