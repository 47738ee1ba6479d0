"""Guards: what a compiled call depends on beside its arguments, each a check by identity.

The search for captured modules goes from a function through cells, globals, containers and attributes. Each step is a
guard: it says where it looked, and what stood there. While all guards hold, the same search would find the same
modules, so a call need not search again. A step that led to no module is guarded too, since a module may stand there
later: an empty list, a name bound to None. There a guard only asks whether something without modules stands there
still; a number may change freely.

`Guards.hold` checks them all in a loop; the generated fast path has the same checks written out (see
`compilation/generate.py`). A guard whose step leads to a module can also put back what stood there: code that runs
under a transform must not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from liftnn._src.graph.checks import ABSENT, ATOMS, Elements, size_of


class GuardKind(NamedTuple):
    """How guards of one kind read a place, and how they restore it.

    Args:
      name: Its name.
      read: From holder and key, what stands there now.
      write: Puts a value there.
      source: The expression that reads it in generated code, of `{h}`, the holder, and `{k}`, the key.
    """

    name: str
    read: Callable[[Any, Any], Any]
    write: Callable[[Any, Any, Any], None]
    source: str


def _read_cell(cell: Any, key: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return ABSENT


def _write_cell(cell: Any, key: Any, value: Any) -> None:
    cell.cell_contents = value


def _write_item(mapping: Any, key: Any, value: Any) -> None:
    if value is ABSENT:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def _read_class(proxy: Any, key: Any) -> Any:
    return proxy[1].get(key, ABSENT)


def _write_class(proxy: Any, key: Any, value: Any) -> None:
    type.__setattr__(proxy[0], key, value)


def _not_written(holder: Any, key: Any, value: Any) -> None:
    """For what code cannot rebind."""


CELL = GuardKind("cell", _read_cell, _write_cell, "{h}.cell_contents")
ITEM = GuardKind("item", lambda d, key: d.get(key, ABSENT), _write_item, "{h}[{k}]")
CLASS = GuardKind("class attribute", _read_class, _write_class, "{h}[1][{k}]")
ATTRIBUTE = GuardKind("attribute", getattr, _not_written, "{h}.{name}")


def _read_slot(x: Any, member: Any) -> Any:
    try:
        return member.__get__(x)
    except AttributeError:
        return ABSENT


def _write_slot(x: Any, member: Any, value: Any) -> None:
    if value is ABSENT:
        member.__delete__(x)
    else:
        member.__set__(x, value)


SLOT = GuardKind("slot", _read_slot, _write_slot, "{k}.__get__({h})")
CONTEXT = GuardKind(
    "context variable", lambda v, _: v.get(ABSENT), lambda v, _, x: v.set(x), "{h}.get(ABSENT)"
)
SIZE = GuardKind("size", lambda container, _: size_of(container), _not_written, "size_of({h})")
ELEMENT = GuardKind("element", lambda x, i: x[i], _write_item, "{h}[{k}]")
CALLED = GuardKind("reference", lambda reference, _: reference(), _not_written, "{h}()")


class Guard(NamedTuple):
    """One place and what stood there.

    Args:
      kind: How to read the place.
      holder: Where it is: a cell, a mapping, an object.
      key: Which of its places.
      value: What stood there.
      loose: Whether another atom will do.
    """

    kind: GuardKind
    holder: Any
    key: Any
    value: Any
    loose: bool = False

    def holds(self) -> bool:
        """Whether it stands there still."""
        now = self.kind.read(self.holder, self.key)
        if self.kind is SIZE:
            return now == self.value
        return now is self.value or (self.loose and type(now) in ATOMS)


class Guards:
    """The guards of one call.

    Args:
      guards: Single places.
      elements: Containers.
      leading: Those of both that lead to a captured module, so that code under a transform must leave them alone.
    """

    __slots__ = ("elements", "guards", "leading")

    def __init__(
        self,
        guards: Sequence[Guard] = (),
        elements: Sequence[Elements] = (),
        leading: Sequence[Guard | Elements] = (),
    ):
        self.guards = guards
        self.elements = elements
        self.leading = leading

    def __bool__(self) -> bool:
        return bool(self.guards or self.elements)

    def hold(self) -> bool:
        """Whether everything stands where it stood."""
        try:
            for guard in self.guards:
                if not guard.holds():
                    return False
            for elements in self.elements:
                if not elements.holds():
                    return False
        except Exception:  # another thread is changing a container; an object has lost an attribute
            return False
        return True

    def restore(self) -> list[Guard | Elements]:
        """Puts back what leads to captured modules.

        Returns:
          The guards of the places that had been changed.
        """
        broken = [guard for guard in self.leading if not guard.holds()]
        for guard in broken:
            if isinstance(guard, Elements):
                guard.restore()
            else:
                guard.kind.write(guard.holder, guard.key, guard.value)
        return broken


NO_GUARDS = Guards()
