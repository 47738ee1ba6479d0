"""The MNIST example, killed at any moment and started again with the same command: the same result, digit for digit."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from tests import forked

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_mnist" / "train.py"
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu"}


def command_of(output, model="mlp", epochs=4, limit=2000):
    options = ["--model", model, "--epochs", str(epochs), "--limit", str(limit), "--batch-size", "50"]
    return [sys.executable, str(EXAMPLE), *options, "--output", str(output), "--resume"]


def run(command):
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def report_of(lines):
    """What a run prints of its epochs, without times."""
    return [line.rpartition(", ")[0] for line in lines if line.startswith("epoch")]


def kill_after_epoch(command, epoch):
    """Start a run, and kill it as soon as it has printed an epoch."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    for line in process.stdout:
        if line.startswith(f"epoch {epoch}/"):
            process.kill()
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.thorough
def test_a_run_that_was_killed_goes_on_to_the_same_result(run_here, tmp_path):
    def run_whole(command):
        outcome = run_here(*command[2:])
        assert (outcome.returncode, outcome.stderr) == (0, "")
        return outcome.stdout.splitlines()

    whole = run_whole(command_of(tmp_path / "whole", epochs=3, limit=100))
    command = command_of(tmp_path / "killed", epochs=3, limit=100)
    kill_after_epoch(command, 2)
    resumed = run_whole(command)
    assert resumed[1].startswith("resumed after epoch ")
    assert report_of(whole)[-1:] == report_of(resumed)[-1:]
    assert whole[-1] == resumed[-1]
    picture = "mistakes.png"
    assert (tmp_path / "whole" / picture).read_bytes() == (tmp_path / "killed" / picture).read_bytes()


@pytest.mark.thorough
def test_a_complete_run_reports_its_result_again_and_one_with_other_options_does_not_go_on(tmp_path):
    whole, again = (run(command_of(tmp_path, epochs=1, limit=100)) for _ in range(2))
    assert (again[1], again[-1]) == ("resumed after epoch 1/1", whole[-1])
    command = command_of(tmp_path, epochs=2, limit=100)
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    message = "the run in the output folder has --epochs 1, not 2; pass that, or another --output"
    assert (result.returncode, result.stderr) == (2, f"train.py: error: {message}\n")


def train(reports, options, output, compiled):
    """Run the example in a process that has imported JAX already, with its output in a file."""
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    sys.path.insert(0, str(EXAMPLE.parent))
    sys.argv[1:] = options
    module = importlib.import_module("train")
    with open(output, "w") as file, contextlib.redirect_stdout(file):
        code = module.main()
    reports.send(code)


@pytest.mark.thorough
def test_runs_killed_at_random_moments_lose_nothing(tmp_path):
    draw, kills, number = random.Random(0), int(os.environ.get("LIFTNN_KILLS", "3")), 0
    output = tmp_path / "output"

    def start(command):
        return forked.start(train, command[2:], output, tmp_path / "compiled")

    def last_line(command):
        process, reports = start(command)
        code = reports.recv()
        process.join(300)
        assert (code, process.exitcode) == (0, 0)
        return output.read_text().splitlines()[-1]

    last_line(command_of(tmp_path / "compiles", epochs=8))
    begin = time.perf_counter()
    whole = last_line(command_of(tmp_path / "whole", epochs=8))
    length = time.perf_counter() - begin
    while kills > 0:
        number += 1
        command = command_of(tmp_path / str(number), epochs=8)
        while kills > 0:
            process, _ = start(command)
            process.join(draw.uniform(0.1, 1.0) * length)
            if not process.is_alive():
                break
            process.kill()
            process.join()
            kills -= 1
        assert last_line(command) == whole
        shutil.rmtree(tmp_path / str(number))
