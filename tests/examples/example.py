"""An example as a user runs it, or with its files imported; each folder has files of the same names."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

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


def run_here(name: str, *options: object) -> Outcome:
    """Run an example in this process, which has JAX loaded already."""
    out, err = io.StringIO(), io.StringIO()
    argv = [str(EXAMPLES / name / "train.py"), *map(str, options)]
    with (
        imported(name),
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        runpy.run_path(argv[0], run_name="__main__")
    return Outcome(end.value.code, out.getvalue(), err.getvalue())


def run_alone(name: str, *options: object) -> Outcome:
    """Run an example in a process of its own."""
    command = [sys.executable, str(EXAMPLES / name / "train.py"), *map(str, options)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    return Outcome(result.returncode, result.stdout, result.stderr)


def match(patterns, lines):
    """Return the groups of the patterns that match the lines one by one."""
    assert len(lines) == len(patterns), "\n".join(lines)
    found = [re.fullmatch(pattern, line) for pattern, line in zip(patterns, lines, strict=True)]
    assert all(found), [line for line, x in zip(lines, found, strict=True) if not x]
    return [x.groups() for x in found]
