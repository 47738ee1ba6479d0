"""The names of the code: words of the field, and each class and constant has a name of its own."""

from __future__ import annotations

import ast
import collections
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "src" / "liftnn"
FILES = sorted(p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py"))
VAGUE = {
    "given",
    "held",
    "made",
    "own",
    "left",
    "way",
    "ways",
    "how",
    "outcome",
    "outcomes",
    "picked",
    "foreseen",
}
"""Names that say too little."""
OF_FLAX = ("_src/compat/", "compat/")
"""The folders that have the names of Flax, so some of liftnn's once more."""


def definitions(file: str) -> Iterator[tuple[str, int]]:
    """The name and line of everything that a file gives a name to: variables, parameters, attributes, functions."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        match node:
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
                | ast.arg(arg=name)
            ):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno


def globals_of(file: str) -> Iterator[str]:
    """The classes and constants of a file, without type variables."""
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.Assign) and "TypeVar(" in ast.unparse(node.value):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [node.name] if isinstance(node, ast.ClassDef) else [getattr(x, "id", "") for x in targets]
        yield from (name for name in names if name and not name.startswith("__"))


@pytest.mark.parametrize("file", FILES)
def test_names_are_not_vague(file):
    assert [f"{line}: {name}" for name, line in definitions(file) if name in VAGUE] == []


def test_each_class_and_constant_has_a_name_of_its_own():
    files = collections.defaultdict(set)
    for file in FILES:
        for name in globals_of(file):
            files[name].add(file)
    repeated = {
        name: sorted(where)
        for name, where in files.items()
        if len(where) > 1 and sum(not file.startswith(OF_FLAX) for file in where) > 1
    }
    assert repeated == {}
