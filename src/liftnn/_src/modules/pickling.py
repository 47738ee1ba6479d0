"""pickle and deepcopy of modules: values, sharing and cycles are preserved, for module chains of any length.

Pickling submodules recursively would overflow the stack for a chain of thousands of modules. So every module that is
reached is first written as an empty shell, and then the attributes of all of them.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from liftnn._src.graph.attributes import flatten_attributes, make_shell, put_attribute
from liftnn._src.graph.description import reach
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import FUNCTION, MODULE
from liftnn._src.modules.portable import portable
from liftnn._src.variables import frames

T = TypeVar("T")


def find_modules(module: Any) -> list[Any]:
    """Return every module that a module reaches, itself first, except those held only by functions (not copied)."""
    graphdef, objects, _ = walk_tree(module)
    specs = graphdef.specs
    reached = reach(specs, graphdef.edges, lambda spec: spec.kind is not FUNCTION)
    return [objects[number] for number in sorted(reached) if specs[number].kind is MODULE]


def read_attributes(module: Any) -> dict[str, Any]:
    """Return the attributes of a module by name."""
    _, names, children = flatten_attributes(module)
    return dict(zip(names, children, strict=True))


def set_attributes(module: Any, attributes: dict[str, Any]) -> None:
    """Set the attributes of a shell without calling its `__setattr__`."""
    for name, child in attributes.items():
        put_attribute(module, name, child)


def new_shell(cls: type[T]) -> T:
    """Create a module without attributes, for unpickling."""
    return make_shell(cls, frames.owner_now())


def deepcopy_module(module: T, memo: dict[int, Any], default: Callable[..., Any]) -> T:
    """Copy a module and all that it reaches.

    Args:
      module: The module.
      memo: The copies made so far, by id, as passed by `copy.deepcopy`.
      default: `Module.__deepcopy__`; a class that overrides it is copied by its own method.

    Returns:
      The copy.
    """
    copied = [m for m in find_modules(module) if id(m) not in memo and type(m).__deepcopy__ is default]
    if not any(m is module for m in copied):
        copied.append(module)
    for m in copied:
        memo[id(m)] = new_shell(type(m))
    for m in copied:
        attributes = read_attributes(m)
        set_attributes(memo[id(m)], {name: copy.deepcopy(child, memo) for name, child in attributes.items()})
    return memo[id(module)]


# --- pickle


class _Shells(threading.local):
    """The ids of the modules to write without attributes, per thread."""

    def __init__(self) -> None:
        self.ids: set[int] = set()


_shells = _Shells()


def reduce_module(module: Any) -> Any:
    """Reduce a module to a shell and the contents of everything it reaches."""
    if id(module) in _shells.ids:
        return (new_shell, (type(module),))
    return (new_shell, (type(module),), Contents(module))


class Contents:
    """The shells of all modules that a module reaches, then their attributes, as a flat list.

    Args:
      module: The module; None when unpickling.
    """

    def __init__(self, module: Any = None):
        self.module = module

    def __reduce__(self) -> Any:
        return (Contents, (), None, self.items())

    def items(self) -> Iterator[Any]:
        """Yield the shells, then pairs of module and attributes."""
        modules = find_modules(self.module)
        yield from map(Shell, modules)
        for module in modules:
            attributes = read_attributes(module)
            yield (module, {name: portable(child) for name, child in attributes.items()})

    def append(self, item: Any) -> None:
        """Unpickle one item."""
        if isinstance(item, tuple):
            set_attributes(*item)

    def extend(self, items: Any) -> None:
        """Unpickle several items."""
        for item in items:
            self.append(item)


class Shell:
    """A module to write without its attributes.

    The class is written first, since this step may fail; between the two marks nothing can fail, so no id remains.

    Args:
      module: The module.
    """

    def __init__(self, module: Any):
        self.module = module

    def __reduce__(self) -> Any:
        key = id(self.module)
        return (
            third,
            (
                type(self.module),
                PickleMark(_shells.ids.add, key),
                self.module,
                PickleMark(_shells.ids.discard, key),
            ),
        )


class PickleMark:
    """An action to run when it is pickled; unpickles as None.

    Args:
      action: The action.
      argument: The argument of the action.
    """

    def __init__(self, action: Callable[[int], None], argument: int):
        self.action = action
        self.argument = argument

    def __reduce__(self) -> Any:
        self.action(self.argument)
        return (nothing, ())


def third(cls: type, before: None, module: T, after: None) -> T:
    """Return the module of a `Shell`, for unpickling."""
    return module


def nothing() -> None:
    """Return None, the unpickled value of a `PickleMark`."""
