"""Runs the example in the process of the tests, which has JAX loaded already."""

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_mnist"


class Outcome(NamedTuple):
    """How a run ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_here(monkeypatch, capsys) -> Iterator[Callable[..., Outcome]]:
    """Runs the example in this process; what it imports is forgotten afterwards."""
    monkeypatch.syspath_prepend(EXAMPLE)
    before = set(sys.modules)

    def run(*options: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE / "train.py"), *map(str, options)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(sys.argv[0], run_name="__main__")
        return Outcome(end.value.code, *capsys.readouterr())

    yield run
    for name in ("data", "models", "options", "plots", "progress", "resume"):
        if name not in before:
            sys.modules.pop(name, None)
