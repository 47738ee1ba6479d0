"""User functions that hold modules, Variables or arrays, and the cells of their closures.

Such a function is a node of the graph, like a bound method; so is one that holds a container of the graph, since both
must refer to one copy inside a transform. Its children are the cells of its closure, its defaults and its attributes. A
cell is a node too, so functions that share a variable also share it inside a transform. Every other function is a
static value.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from liftnn import errors
from liftnn._src.graph.containers import FlattenedNode
from liftnn._src.static_values.value_types import SIMPLE_TYPES, Identity
from liftnn._src.trees import HiddenKey

CONTENT = HiddenKey("cell")
"""The key of the contents of a cell."""
ATTRIBUTES = "__dict__"
"""The key of the attribute dictionary of a function."""

_NOT_COMPARED = ("__annotate__" if sys.version_info >= (3, 14) else "__annotations__", "__type_params__")


class Definition:
    """The static part of a function: its code, names, and the number of its defaults.

    Annotations are kept but not compared.

    Args:
      f: The function.
    """

    __slots__ = ("annotations", "key")

    def __init__(self, f: types.FunctionType):
        defaults, named = f.__defaults__, f.__kwdefaults__
        sizes = (None if defaults is None else len(defaults), None if named is None else tuple(named))
        texts = (f.__name__, f.__qualname__, _hashable(f.__module__), _hashable(f.__doc__))
        self.key = (f.__code__, Identity(f.__globals__), *texts, *sizes)
        self.annotations = {name: getattr(f, name) for name in _NOT_COMPARED if hasattr(f, name)}

    @property
    def name(self) -> str:
        """The qualified name of the function."""
        return self.key[3]

    @property
    def module(self) -> str:
        """The name of its Python module."""
        return str(self.key[4])

    @property
    def sizes(self) -> tuple[Any, ...]:
        """The number of defaults, and the names of the keyword defaults."""
        return self.key[-2:]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Definition) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<function {self.name}>"

    def __reduce__(self) -> Any:
        raise errors.StructureError(
            f"The code of the function {self.name} cannot be pickled. The function is part of the model's structure, "
            "since it holds a module, a Variable, an array or a container of the model.",
            "Use a method of a module, or a functools.partial of a function at the top level of a file.",
        )


def _hashable(x: Any) -> Any:
    return x if type(x) in SIMPLE_TYPES else Identity(x)


def flatten_function(f: types.FunctionType) -> FlattenedNode:
    """Flatten a function into its cells under their variable names, its defaults, and its attribute dictionary."""
    code, defaults, named = f.__code__, f.__defaults__ or (), f.__kwdefaults__ or {}
    parameters = code.co_varnames[: code.co_argcount]
    first = len(parameters) - len(defaults)
    names = parameters[first:] if first >= 0 else range(len(defaults))
    keys = _distinct((*code.co_freevars, *names, *named, ATTRIBUTES))
    return Definition(f), keys, (*(f.__closure__ or ()), *defaults, *named.values(), f.__dict__)


def _distinct(keys: tuple[Any, ...]) -> tuple[Any, ...]:
    """Replace repeated keys by their positions; only unusual functions have repeated keys."""
    if len(set(keys)) == len(keys):
        return keys
    return tuple([i if k in keys[:i] else k for i, k in enumerate(keys)])


def unflatten_function(cls: type, extra: Definition, keys: tuple[Any, ...], children: list[Any]) -> Any:
    """Build a function with the same code and other children."""
    code, scope, name, qualname, module, doc, n_defaults, named = extra.key
    n = len(code.co_freevars)
    defaults = None if n_defaults is None else tuple(children[n : n + n_defaults])
    new = types.FunctionType(code, scope.value, name, defaults, tuple(children[:n]) or None)
    if named is not None:
        new.__kwdefaults__ = dict(zip(named, children[n + (n_defaults or 0) : -1], strict=True))
    new.__qualname__ = qualname
    new.__module__ = module.value if type(module) is Identity else module
    new.__doc__ = doc.value if type(doc) is Identity else doc
    for which, x in extra.annotations.items():
        setattr(new, which, dict(x) if type(x) is dict else x)
    new.__dict__ = children[-1]
    return new


def flatten_cell(x: types.CellType) -> FlattenedNode:
    """Flatten a cell into its contents; nothing if the cell is empty."""
    try:
        return None, (CONTENT,), (x.cell_contents,)
    except ValueError:
        return None, (), ()


def make_cell(cls: type, extra: Any, owner: Any) -> types.CellType:
    """Create an empty cell."""
    return types.CellType()


def fill_cell(x: types.CellType, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> None:
    """Replace the contents of a cell."""
    if children:
        x.cell_contents = children[0]
    else:
        del x.cell_contents
