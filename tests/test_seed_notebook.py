"""The seed notebook runs on liftnn, cell by cell, and prints what it recorded; numbers and addresses may differ."""

from __future__ import annotations

import ast
import contextlib
import io
import pathlib
import re
import sys
import types
from collections.abc import Iterator

import pytest

RECORDING = pathlib.Path(__file__).with_name("seed_notebook.md")
CELL = re.compile(r"^In \[(\d+)\]:\n", re.MULTILINE)
OUTPUT_STARTS = ("Linear(", "State({", "True", "state = State(")


def read_cells() -> dict[int, tuple[str, str]]:
    """Source and recorded output of each cell."""
    text = RECORDING.read_text()
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ") or not line.strip()]
    parts = CELL.split("\n".join(lines))[1:]
    cells = {}
    for number, body in zip(parts[::2], parts[1::2], strict=True):
        rows = body.split("\n")
        start = next(i for i, row in enumerate(rows) if row.startswith(OUTPUT_STARTS))
        cells[int(number)] = ("\n".join(rows[:start]), "\n".join(rows[start:]).strip())
    return cells


CELLS = read_cells()


def run_cell(source: str, namespace: dict[str, object]) -> str:
    """What a cell prints; like a notebook, the value of a last expression is echoed."""
    tree = ast.parse(source.replace("from flax.experimental import nnx", "import liftnn as nnx"))
    *body, last = tree.body
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(body, []), "<cell>", "exec"), namespace)
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
            if value is not None:
                print(repr(value))  # noqa: T201
        else:
            exec(compile(tree, "<cell>", "exec"), namespace)
    return printed.getvalue().strip()


def mask(text: str) -> str:
    """The text without what may differ: numbers of arrays, addresses, and blanks between numbers."""
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    return (
        re.sub(r"(?<![\w.])-?\d+\.\d*(e-?\d+)?[ ]*(?=[,\]\s])", "#", text)
        .replace("[ #", "[#")
        .replace("  #", " #")
    )


def unbox(text: str) -> str:
    """The text of cells 2 to 8 in the form of cell 9, which prints array leaves where the others print Variables."""
    text = re.sub(r"Param\(\n\s+raw_value=(Array\((?:.|\n)*?dtype=float32\))\n\s+\)", r"\1", text)
    return re.sub(r"\n\s+(?=\[#)", "\n", text)


@pytest.fixture(scope="module")
def printed() -> Iterator[dict[int, str]]:
    """What each cell prints, run in order in one namespace that stands for the main script."""
    main = types.ModuleType("__main__")
    before, sys.modules["__main__"] = sys.modules["__main__"], main
    try:
        yield {number: run_cell(source, main.__dict__) for number, (source, _) in CELLS.items()}
    finally:
        sys.modules["__main__"] = before


def test_the_recording_has_nine_cells() -> None:
    assert list(CELLS) == list(range(1, 10))


@pytest.mark.parametrize("number", range(1, 9))
def test_a_cell_prints_what_is_recorded(number: int, printed: dict[int, str]) -> None:
    assert mask(printed[number]) == mask(CELLS[number][1])


def test_the_last_cell_prints_what_is_recorded_up_to_where_the_recording_ends(
    printed: dict[int, str],
) -> None:
    recorded = re.sub(r"\n\s+(?=\[#)", "\n", mask(CELLS[9][1]))
    assert unbox(mask(printed[9])).startswith(recorded)


def test_masking_leaves_structure_and_shapes() -> None:
    assert mask("[[0.5  -1.25 ]\n [2. ]]") == "[[# #]\n [#]]"
    assert mask("'din': 2, at 0x13f") == "'din': 2, at 0x"
    assert mask("'a': Array([1., 2.])") != mask("'b': Array([1., 2.])")
    assert mask("[[1., 2.]]") != mask("[[1., 2., 3.]]")
