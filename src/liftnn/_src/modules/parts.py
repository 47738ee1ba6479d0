"""The submodules of a module, cached until the structure changes.

`train()` and `eval()` set a few attributes of all modules, perhaps before each step. Flattening the graph each time
would cost more than the step.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from liftnn._src.graph.attributes import Attributed, attributes_of
from liftnn._src.graph.checks import ABSENT, Check, check_node
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import MODULE, VARIABLE
from liftnn._src.graph.undo import Former
from liftnn._src.variables import frames
from liftnn._src.variables.watch import (
    EVERY_NAME,
    Changing,
    changes,
    is_simple,
    note_static_change,
    start_watch,
)


class ModuleParts:
    """A module and its submodules.

    Args:
      root: The module.
    """

    __slots__ = ("__weakref__", "_checks", "_holders", "_in_classes", "_watch", "modules")

    def __init__(self, root: Any):
        since = changes.count
        graphdef, objects, _ = walk_tree(root)
        pairs = list(zip(objects, graphdef.specs, strict=True))
        self.modules = [weakref.ref(x) for x, spec in pairs if spec.kind is MODULE]
        """Weak references to the modules; weak because the root is one of them."""
        bases = {
            base for cls in {type(x) for x, spec in pairs if spec.kind is MODULE} for base in cls.__mro__
        }
        self._in_classes = [vars(base) for base in bases]
        """The attributes of the classes of the modules, as they are now."""
        self._checks: list[Check] = []
        for x, spec in pairs:
            if spec.kind is not VARIABLE or spec.keys:
                self._checks += check_node(x, spec, tuple(spec.kind.flatten(x)[2]))
        self._holders: dict[tuple[Any, ...], list[HeldAttribute]] = {}
        """By the names, and whether each of the classes has each of them, which may change."""
        self._watch = start_watch(
            self, [x for x in objects if hasattr(type(x), "__graph_node__")], since, EVERY_NAME
        )

    def are_current(self) -> bool:
        """Return whether the root still reaches the same modules."""
        try:
            return self._watch.valid and all(check.holds() for check in self._checks)
        except Exception:  # another thread is changing one of the containers
            return False

    def holders(self, names: tuple[str, ...]) -> list[HeldAttribute]:
        """Return the modules that have attributes of the given names.

        Args:
          names: The names.

        Returns:
          For each attribute, a weak reference to the module, the name, and whether plain assignment sets it.
        """
        known = (names, *[name in attributes for attributes in self._in_classes for name in names])
        found = self._holders.get(known)
        if found is None:
            found = self._holders[known] = [
                (reference, name, _is_plain(module, name))
                for reference in self.modules
                if (module := reference()) is not None
                for name in names
                if has_attribute(module, name)
            ]
        return found


def parts_of(root: Any) -> ModuleParts:
    """Return the modules that a module reaches; search them again only if something has changed."""
    parts = root._module_parts
    if parts is None or not parts.are_current():
        parts = ModuleParts(root)
        if frames.is_plain():
            object.__setattr__(root, "_module_parts", parts)
    return parts


HeldAttribute = tuple[Callable[[], Any], str, bool]
"""A weak reference to a module, the name of an attribute, and whether plain assignment sets it."""


def set_attributes_of(root: Any, holders: Iterable[HeldAttribute], attributes: dict[str, Any]) -> None:
    """Set attributes of a module and its submodules: all of them or, if one raises an error, none.

    Args:
      root: The module.
      holders: Where to set them.
      attributes: The new values by name.
    """
    writable = frames.may_write(root._owner)
    done: list[Former | tuple[Any, str, Any]] = []
    try:
        for reference, name, plain in holders:
            module, value = reference(), attributes[name]
            if plain and writable and module._owner is root._owner:
                old = attributes_of(module).get(name, ABSENT)
                if old is value:
                    continue
                if is_simple(old) and is_simple(value):
                    done.append((module, name, old))
                    _set_simple(module, name, value)
                    continue
            elif getattr(module, name) is value:
                continue
            if frames.may_write(module._owner):
                done.append(Former(module))
            setattr(module, name, value)
    except BaseException:
        for change in reversed(done):
            if isinstance(change, Former):
                change.restore()
            else:
                _set_simple(*change)
        raise


def _set_simple(module: Any, name: str, value: Any) -> None:
    """Set an attribute whose old and new values are simple."""
    with Changing(module):
        attributes_of(module)[name] = value
        note_static_change(module, name)


def has_attribute(module: Any, name: str) -> bool:
    """Return whether a module has an attribute, without `__getattr__`, which accepts every name for an Rngs."""
    if name in attributes_of(module):
        return True
    return inspect.getattr_static(type(module), name, ABSENT) is not ABSENT and hasattr(module, name)


def _is_plain(module: Any, name: str) -> bool:
    """Return whether assigning an attribute only writes the attribute dictionary, without other effects."""
    cls = type(module)
    descriptor = inspect.getattr_static(cls, name, None)
    ordinary = getattr(cls, "__setattr__", None) is getattr(_base(cls), "__setattr__", None)
    return ordinary and name in attributes_of(module) and not hasattr(type(descriptor), "__set__")


def _base(cls: type) -> type:
    """Return the Module class, which all classes of modules derive from."""
    return next(
        base for base in reversed(cls.__mro__) if issubclass(base, Attributed) and base is not Attributed
    )
