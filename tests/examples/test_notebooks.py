"""The notebooks run from top to bottom, and show the text that is stored in them."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import pathlib
import sys
import types

import matplotlib.pyplot as plt
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "examples/notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_cells(notebook):
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, module: types.ModuleType) -> list[str]:
    """Run a cell as Jupyter does; return what it prints, the text of its value, and of the figures that it shows."""
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    *body, last = ast.parse("\n".join(lines)).body
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(body, []), "<cell>", "exec"), vars(module))
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), vars(module))
        else:
            exec(compile(ast.Module([*body, last], []), "<cell>", "exec"), vars(module))
    shown = [printed.getvalue()] * bool(printed.getvalue()) + [repr(value)] * (value is not None)
    figures = [repr(plt.figure(number)) for number in plt.get_fignums()]
    plt.close("all")
    return shown + figures


def stored(cell) -> list[str]:
    """What a cell has shown, as text."""
    texts = [x["text"] if x["output_type"] == "stream" else x["data"]["text/plain"] for x in cell["outputs"]]
    return ["".join(text) for text in texts]


@pytest.mark.thorough
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_is_stored(notebook, monkeypatch):
    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", lambda: None)
    module = types.ModuleType("notebook_" + notebook.stem)
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where its classes are defined
    for number, cell in enumerate(code_cells(notebook), 1):
        assert run_cell("".join(cell["source"]), module) == stored(cell), f"cell {number}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_stored_after_a_whole_run_without_warnings(notebook):
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {x.get("name", x["output_type"]) for cell in cells for x in cell["outputs"]}
    assert kinds <= {"stdout", "display_data", "execute_result"}


def test_running_a_cell_shows_prints_values_and_figures_as_jupyter_does():
    module = types.ModuleType("cell")
    assert run_cell("%magic\nx = 1", module) == []
    assert run_cell("print('a')\nx + 1", module) == ["a\n", "2"]
    assert run_cell("None", module) == []
