"""The shape of the objects between functions and captured modules, for the cache key and for messages.

Which element of which container, in which order, led to which module: code can observe it, for example by
`len(models)` or the order of a dict.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from liftnn._src.captures.steps import ClassOf, name_from
from liftnn._src.trees import Path, an, module_of

Number = tuple[str, int]
"""The number of an object: of a module, or of a holder that leads to one."""
_MOST_SHOWN = 8


class Holder(NamedTuple):
    """An object that leads to a module.

    Args:
      identity: What code runs in it: its class; a class itself; the code of a function, also in a partial.
      tag: Its kind, such as `list`.
      size: The number of elements of a long container.
      hidden: The names of modules of its class that its attributes hide.
      entries: The key of each step to another object, and the number of that object; None if it leads to no module.
    """

    identity: Hashable
    tag: str
    size: int | None
    hidden: tuple[str, ...]
    entries: tuple[tuple[Hashable, Number | None], ...]

    def describe(self) -> str:
        """Return its kind with its keys, or with the number of its elements."""
        tag = self.tag
        if tag in ("tuple", "frozenset"):  # only the elements that lead to a module are known
            return f"a {tag}"
        if tag in ("list", "set", "deque"):
            return f"a {tag} of {len(self.entries) if self.size is None else self.size}"
        keys = list(dict.fromkeys(filter(None, [_text_of(key) for key, _ in self.entries])))
        if len(keys) > _MOST_SHOWN:
            keys[_MOST_SHOWN:] = [f"and {len(keys) - _MOST_SHOWN} more"]
        name = self.identity.__name__ if tag == "object" and isinstance(self.identity, type) else tag
        return f"{an(name)} with {', '.join(keys)}" if keys else an(name)


def _text_of(key: Any) -> str:
    """Return the text of the key of a step; an empty string for a position."""
    if isinstance(key, str):
        return "" if key.startswith("__") else key
    if isinstance(key, tuple) and len(key) == 2:
        return repr(key[1]) if isinstance(key[0], type) else key[1] if isinstance(key[1], str) else ""
    return ""


def identity_of(x: Any) -> Hashable:
    """Return what code runs in an object that leads to a module: another object in its place may run other code."""
    cls = type(x)
    if cls is types.MethodType:
        return getattr(x.__func__, "__code__", None)
    if cls is types.FunctionType:
        return x.__code__
    if issubclass(cls, functools.partial):  # a module may be among the arguments only
        return cls, identity_of(x.func)
    carried = getattr(cls, "__carried_functions__", None)
    if (
        carried is not None and module_of(cls).partition(".")[0] == "liftnn"
    ):  # likewise of a transformed method
        return cls, tuple([identity_of(f) for f in carried(x) if callable(f)])
    return x.cls if cls is ClassOf else x if issubclass(cls, type) else cls


class Link(NamedTuple):
    """How an object was reached first.

    Args:
      label: What the step to it adds to the name of the object above.
      above: The number of that object; None for the function where the search began.
    """

    label: str
    above: Number | None


class CapturedShape:
    """The objects through which modules are captured.

    Args:
      holders: The holders of each search, in order.
      links: How each object of each search was reached, by its number.
    """

    __slots__ = ("_hash", "_holders", "_links")

    def __init__(
        self, holders: tuple[tuple[Holder, ...], ...] = (), links: tuple[Mapping[Number, Link], ...] = ()
    ):
        self._holders = holders
        self._links = links
        self._hash = hash(holders)

    def __add__(self, other: CapturedShape) -> CapturedShape:
        """Return what both searches have found."""
        return CapturedShape((*self._holders, *other._holders), (*self._links, *other._links))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CapturedShape) and self._holders == other._holders

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return "captured containers"

    def describe_parts(
        self, path: Path, paths: Mapping[int, tuple[Path, ...]]
    ) -> Iterator[tuple[Path, tuple[Hashable, str]]]:
        """Yield the path of each holder with a comparable value and its text.

        Args:
          path: The path of this value.
          paths: The paths of the nodes of the graph, which are not needed.
        """
        for holders, links in zip(self._holders, self._links, strict=True):
            for i, holder in enumerate(holders):
                targets = [(key, None if n is None else _name(n, links)) for key, n in holder.entries]
                name = _name(("holder", i), links)  # empty for the function where the search began
                yield (*path, name) if name else path, ((*holder[:-1], tuple(targets)), holder.describe())


def _name(number: Number, links: Mapping[Number, Link]) -> str:
    """Return the name of an object in the code."""

    def labels() -> Iterator[str]:
        at: Number | None = number
        while at is not None:
            link = links[at]
            yield link.label
            at = link.above

    return name_from(labels())
