"""Runs the examples, or imports their files, in the process of the tests, which has JAX loaded already."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import runpy
import sys
from pathlib import Path
from typing import NamedTuple
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
def files_of(name):
    """Inside, the files of an example are imported by their names, and those of the others are not."""
    folder = EXAMPLES / name
    names = {file.stem for example in EXAMPLES.iterdir() for file in example.glob("*.py")}
    kept = {name: sys.modules.pop(name) for name in names & sys.modules.keys()}
    with mock.patch.object(sys, "path", [str(folder), *sys.path]):
        try:
            yield importlib.import_module
        finally:
            for name in names & sys.modules.keys():
                del sys.modules[name]
            sys.modules.update(kept)


def run(name, *options):
    """Runs an example with these options."""
    out, err = io.StringIO(), io.StringIO()
    argv = [str(EXAMPLES / name / "train.py"), *map(str, options)]
    with (
        files_of(name),
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        runpy.run_path(argv[0], run_name="__main__")
    return Outcome(end.value.code, out.getvalue(), err.getvalue())


def match(patterns, lines):
    """The groups of the patterns that match the lines one by one."""
    assert len(lines) == len(patterns), "\n".join(lines)
    found = [re.fullmatch(pattern, line) for pattern, line in zip(patterns, lines, strict=True)]
    assert all(found), [line for line, x in zip(lines, found, strict=True) if not x]
    return [x.groups() for x in found]
