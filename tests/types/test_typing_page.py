"""`typing_page.py`, which pyright reads, is the code of docs/guides/type_checking.md, which other tests run."""

import ast
import pathlib
import re


def test_the_types_that_the_page_shows_are_checked():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "guides" / "type_checking.md").read_text(
        encoding="utf-8"
    )
    shown = ast.parse("".join(re.findall(r"^```python\n(.*?)^```$", page, re.S | re.M)))
    checked = ast.parse(pathlib.Path(__file__).with_name("typing_page.py").read_text(encoding="utf-8"))
    assert [ast.unparse(x) for x in checked.body[1:]] == [ast.unparse(x) for x in shown.body]
