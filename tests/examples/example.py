"""An example as a user runs it, or with its files imported; each folder has files of the same names."""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Outcome(NamedTuple):
    """How a run ended."""

    returncode: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def imported(name: str) -> Iterator[Any]:
    """Import files of an example by name: `with imported("rl") as load: train = load("train")`."""
    folder = EXAMPLES / name
    names = {path.stem for path in folder.glob("*.py")}
    others = {x: sys.modules.pop(x) for x in names & sys.modules.keys()}
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(folder))
        for x in names:
            sys.modules.pop(x, None)
        sys.modules.update(others)


def run_here(name: str, monkeypatch, capsys, *options: object) -> Outcome:
    """Run an example in this process, which has JAX loaded already."""
    script = str(EXAMPLES / name / "train.py")
    monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
    with imported(name), pytest.raises(SystemExit) as end:
        runpy.run_path(script, run_name="__main__")
    return Outcome(end.value.code, *capsys.readouterr())


def run_alone(name: str, *options: object) -> Outcome:
    """Run an example in a process of its own."""
    command = [sys.executable, str(EXAMPLES / name / "train.py"), *map(str, options)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    return Outcome(result.returncode, result.stdout, result.stderr)
