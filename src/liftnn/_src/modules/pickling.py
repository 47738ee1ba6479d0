"""pickle and deepcopy of modules: values, sharing and cycles are kept, and no chain of modules is too long.

Writing a module would recurse into its submodules, and a chain of thousands of them would overflow the stack. So
before any attribute is written, every module that is reached is written as an empty shell.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from liftnn._src.graph.attributes import flatten_attributes, make_shell
from liftnn._src.graph.description import reach
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import FUNCTION, MODULE
from liftnn._src.modules.portable import portable
from liftnn._src.variables import frames

T = TypeVar("T")


def find_modules(module: Any) -> list[Any]:
    """Every module that a module reaches, itself first; not those that only functions hold, which are not copied."""
    graphdef, objects, _ = walk_tree(module)
    specs = graphdef.specs
    reached = reach(specs, graphdef.edges, lambda spec: spec.kind is not FUNCTION)
    return [objects[number] for number in sorted(reached) if specs[number].kind is MODULE]


def read_attributes(module: Any) -> dict[str, Any]:
    """The attributes of a module by name."""
    _, names, children = flatten_attributes(module)
    return dict(zip(names, children, strict=True))


def set_attributes(module: Any, attributes: dict[str, Any]) -> None:
    """Sets attributes of a shell, past its `__setattr__`."""
    for name, child in attributes.items():
        object.__setattr__(module, name, child)


def new_shell(cls: type[T]) -> T:
    """A module without attributes, made when one is read."""
    return make_shell(cls, frames.owner_now())


def deepcopy_module(module: T, memo: dict[int, Any], default: Callable[..., Any]) -> T:
    """A copy of a module and all that it reaches.

    Args:
      module: The module.
      memo: The copies made so far, by id, as `copy.deepcopy` passes it.
      default: `Module.__deepcopy__`; a class that defines another one is copied by its own.

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
    """The modules that are to be written without attributes, by id, in this thread."""

    def __init__(self) -> None:
        self.ids: set[int] = set()


_shells = _Shells()


def reduce_module(module: Any) -> Any:
    """How pickle writes a module: a shell, and the contents of everything it reaches."""
    if id(module) in _shells.ids:
        return (new_shell, (type(module),))
    return (new_shell, (type(module),), Contents(module))


class Contents:
    """The shells of all modules that one module reaches, then their attributes, as a flat list.

    Args:
      module: The module, when writing.
    """

    def __init__(self, module: Any = None):
        self.module = module

    def __reduce__(self) -> Any:
        return (Contents, (), None, self.items())

    def items(self) -> Iterator[Any]:
        """The shells, then pairs of module and attributes."""
        modules = find_modules(self.module)
        yield from map(Shell, modules)
        for module in modules:
            attributes = read_attributes(module)
            yield (module, {name: portable(child) for name, child in attributes.items()})

    def append(self, item: Any) -> None:
        """Reads one item."""
        if isinstance(item, tuple):
            set_attributes(*item)

    def extend(self, items: Any) -> None:
        """Reads several items."""
        for item in items:
            self.append(item)


class Shell:
    """A module that is to be written without its attributes.

    The class comes first, since it is what may fail; between the two marks nothing can, so no id is left behind.

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
    """Does something when it is written; reads as None.

    Args:
      action: What it does.
      argument: What to.
    """

    def __init__(self, action: Callable[[int], None], argument: int):
        self.action = action
        self.argument = argument

    def __reduce__(self) -> Any:
        self.action(self.argument)
        return (nothing, ())


def third(cls: type, before: None, module: T, after: None) -> T:
    """The module of a `Shell`."""
    return module


def nothing() -> None:
    """What a `PickleMark` reads as."""
