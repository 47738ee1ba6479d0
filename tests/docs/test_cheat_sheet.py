"""Each line of the cheat sheet runs, in order, after the code at its top."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "cheat_sheet.md"
ROW = re.compile(r"^\|(.*?)\| `(.*)` \|$", re.MULTILINE)
"""A row of a table: a task, and the code that does it."""


def lines():
    """The code of all rows."""
    return [code for _, code in ROW.findall(PAGE.read_text(encoding="utf-8"))]


def test_each_row_of_the_tables_is_one_line_of_code():
    rows = re.findall(r"^\|(?! to \|)(?!---)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines()) == len(rows) > 80


@pytest.mark.thorough
def test_each_line_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    setup = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert setup is not None
    names = {"__name__": "cheat_sheet"}
    exec(setup[1], names)
    for line in lines():
        try:
            exec(line, names)
        except Exception as error:
            error.add_note(f"in the line {line!r} of {PAGE.name}")
            raise


@pytest.mark.thorough
def test_each_public_name_in_a_line_exists():
    import liftnn

    used = set(re.findall(r"liftnn\.(\w+)", " ".join(lines())))
    assert used <= set(dir(liftnn))
