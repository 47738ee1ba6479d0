"""pickle and deepcopy of modules: values, sharing and cycles are preserved, for module chains of any length.

Pickling submodules recursively would overflow the stack for a chain of thousands of modules. So every module that is
reached is first written as an empty shell, and then the attributes of all of them.

A class with a `__getstate__`, `__setstate__` or `__reduce__` of its own is copied and pickled as these say; only what
it names is written.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from liftnn._src.graph.attributes import flatten_attributes, make_shell, put_attribute
from liftnn._src.graph.description import reach
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import FUNCTION, MODULE
from liftnn._src.modules.portable import portable
from liftnn._src.variables import frames
from liftnn._src.variables.watch import Changing, end_watches
from liftnn._src.variables.write_errors import write_error

T = TypeVar("T")


def find_modules(module: Any, is_separate: Callable[[type], bool]) -> list[Any]:
    """Return every module that a module reaches, itself first, except those held only by functions (not copied).

    Args:
      module: The module.
      is_separate: A predicate of classes, whose modules are copied or pickled by themselves: they are left out, with
        what only they reach.
    """
    if is_separate(type(module)):
        return [module]
    graphdef, objects, _ = walk_tree(module)
    specs = graphdef.specs
    reached = reach(
        specs,
        graphdef.edges,
        lambda spec: spec.kind is not FUNCTION and not (spec.kind is MODULE and is_separate(spec.type)),
    )
    return [objects[number] for number in sorted(reached) if specs[number].kind is MODULE]


def get_state(module: Any) -> Any:
    """Return the attributes of a module by name: `Module.__getstate__`."""
    return read_attributes(module)


def set_state(module: Any, state: Any) -> None:
    """Set attributes by name: `Module.__setstate__`. The `Contents` of a pickle have already set them."""
    if not isinstance(state, Contents):
        set_attributes(module, state)


def _has_own_state(cls: Any) -> bool:
    """Return whether a class says itself what its state is."""
    return _is_own(cls.__getstate__, get_state) or _is_own(cls.__setstate__, set_state)


def _is_own(method: Any, default: Any) -> bool:
    """Return whether a user has written a method; one of a dataclass with slots would leave out other attributes."""
    return method is not default and getattr(method, "__module__", None) != "dataclasses"


def _state_of(module: Any) -> Any:
    """Return the state of a module: that of its class's own `__getstate__`, or its attributes."""
    return module.__getstate__() if _is_own(type(module).__getstate__, get_state) else get_state(module)


def _set_state_of(module: Any, state: Any) -> None:
    """Set the state of a module by its class's own `__setstate__`, or its attributes."""
    if _is_own(type(module).__setstate__, set_state):
        module.__setstate__(state)
    else:
        set_state(module, state)


def _is_pickled_separately(cls: Any) -> bool:
    """Return whether a class says itself how it is pickled."""
    return (
        _has_own_state(cls)
        or cls.__reduce__ is not reduce_module
        or cls.__reduce_ex__ is not object.__reduce_ex__
    )


def read_attributes(module: Any) -> dict[str, Any]:
    """Return the attributes of a module by name."""
    _, names, children = flatten_attributes(module)
    return dict(zip(names, children, strict=True))


def set_attributes(module: Any, attributes: dict[str, Any]) -> None:
    """Set the attributes of a shell, or of a module in use, without calling its `__setattr__`."""
    if not frames.may_write(module._owner):
        raise write_error(module, "the state")
    with Changing(module):
        for name, child in attributes.items():
            put_attribute(module, name, child)
        end_watches(module)


def new_shell(cls: type[T]) -> T:
    """Create a module without attributes, for unpickling."""
    return make_shell(cls, frames.owner_now())


def copy_module(module: T) -> T:
    """Return a module with the same attributes: `Module.__copy__`."""
    new = new_shell(type(module))
    _set_state_of(new, _state_of(module))
    return new


def deepcopy_module(module: T, memo: dict[int, Any], default: Callable[..., Any]) -> T:
    """Copy a module and all that it reaches.

    Args:
      module: The module.
      memo: The copies made so far, by id, as passed by `copy.deepcopy`.
      default: `Module.__deepcopy__`; a class that overrides it is copied by its own method.

    Returns:
      The copy.
    """
    every: list[Any] = find_modules(module, _has_own_state)
    copied = [m for m in every if id(m) not in memo and type(m).__deepcopy__ is default]
    if not any(m is module for m in copied):
        copied.append(module)
    for m in copied:
        memo[id(m)] = new_shell(type(m))
    for m in copied:
        state = _state_of(m)
        if type(state) is dict:  # a dict that is copied itself would be kept in the memo
            state = {name: copy.deepcopy(child, memo) for name, child in state.items()}
        else:
            state = copy.deepcopy(state, memo)
        _set_state_of(memo[id(m)], state)
    return memo[id(module)]


# --- pickle


class _Shells(threading.local):
    """The shells that are being written, per thread."""

    def __init__(self) -> None:
        self.by_id: weakref.WeakValueDictionary[int, Shell] = weakref.WeakValueDictionary()
        """By the id of their modules. Weak, so none remains if a signal handler raises meanwhile."""

    def start(self, shell: Shell) -> None:
        """Write the module of a shell without attributes from now on."""
        self.by_id[id(shell.module)] = shell

    def stop(self, shell: Shell) -> None:
        """Write the module of a shell with its attributes again."""
        self.by_id.pop(id(shell.module), None)


_shells = _Shells()


def reduce_module(module: Any) -> Any:
    """Reduce a module to a shell and the contents of everything it reaches."""
    if id(module) in _shells.by_id:
        return (new_shell, (type(module),))
    if type(module).__setstate__ is not set_state:
        return (new_shell, (type(module),), Contents(module), None, None, keep_state)
    return (new_shell, (type(module),), Contents(module))


def keep_state(module: Any, contents: Contents) -> None:
    """Do nothing: reading the `Contents` of a pickle has set the state of the module."""


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
        modules = find_modules(self.module, _is_pickled_separately)
        yield from map(Shell, modules)
        for module in modules:
            state = _state_of(module)
            if type(state) is dict:
                state = {name: portable(child) for name, child in state.items()}
            yield (module, state)

    def append(self, item: Any) -> None:
        """Unpickle one item."""
        if isinstance(item, tuple):
            _set_state_of(*item)

    def extend(self, items: Any) -> None:
        """Unpickle several items."""
        for item in items:
            self.append(item)


class Shell:
    """A module to write without its attributes.

    The class is written first, since this step may fail.

    Args:
      module: The module.
    """

    def __init__(self, module: Any):
        self.module = module

    def __reduce__(self) -> Any:
        start, stop = PickleMark(_shells.start, self), PickleMark(_shells.stop, self)
        return (third, (type(self.module), start, self.module, stop))


class PickleMark:
    """An action to run when it is pickled; unpickles as None.

    Args:
      action: The action.
      shell: Its argument.
    """

    def __init__(self, action: Callable[[Shell], None], shell: Shell):
        self.action = action
        self.shell = shell

    def __reduce__(self) -> Any:
        self.action(self.shell)
        return (nothing, ())


def third(cls: type, before: None, module: T, after: None) -> T:
    """Return the module of a `Shell`, for unpickling."""
    return module


def nothing() -> None:
    """Return None, the unpickled value of a `PickleMark`."""
