"""Every example in the docstring of what only the stand-in has runs, and its docstring is complete."""

import doctest
import inspect

import pytest
from tests.test_public_api import SECTIONS, entries_of, parameters_of, returns_something, sections_of

import liftnn
from liftnn.compat import nnx

MODULES = (nnx, nnx.statelib, nnx.filterlib, nnx.traversals, nnx.variablelib)
OWN = {
    name: x
    for module in MODULES
    for name, x in vars(module).items()
    if (
        not name.startswith("_")
        and (inspect.isfunction(x) or isinstance(x, type))
        and x.__module__.startswith("liftnn.")
        and x is not getattr(liftnn, name, None)
        and not x.__module__.startswith(("liftnn._src.filters", "liftnn._src.nn", "liftnn._src.lifting"))
        and getattr(x, "__wrapped__", None) is None
    )
    or name
    in ("split", "state", "graphdef", "map", "merge", "pop", "clone", "unpack", "flatten", "as_abstract")
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", sorted(OWN))
def test_the_examples_run(name):
    text = []
    for found in doctest.DocTestFinder(exclude_empty=True).find(
        OWN[name], name, globs={"__name__": "example"}
    ):
        result = doctest.DocTestRunner(verbose=False).run(found, out=text.append)
        assert result.failed == 0, "".join(text)


@pytest.mark.parametrize("name", sorted(name for name, x in OWN.items() if inspect.isfunction(x)))
def test_the_docstring_is_complete(name):
    x = inspect.unwrap(OWN[name])
    found = sections_of(x)
    entries = [
        name for name in entries_of(found.get("Args", [])) if name != "cls"
    ]  # taken for that of a method
    assert entries == parameters_of(x)
    assert ("Returns" in found or "Yields" in found) == returns_something(x)
    assert list(found) == [title for title in (*SECTIONS[:2], "Yields", *SECTIONS[2:]) if title in found]
    assert any(line.startswith(">>> ") for line in found.get("Example", []))
