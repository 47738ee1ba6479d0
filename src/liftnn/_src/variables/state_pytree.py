"""A State as a pytree: its children in the order in which JAX sorts keys, and its keys, which are static.

JAX flattens it through the functions of `register`. The object graph has many States in it, one for each module that an
optimizer knows, and flattens them directly: `flatten_state` is some ten times as fast as `jax.tree_util`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from liftnn._src.static_values.static import static_key
from liftnn._src.static_values.value_types import rank
from liftnn._src.trees import Key, Path
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Variable, set_owner


class PathKey:
    """The path of a leaf of a State that no key leads to, as a single entry of a JAX key path.

    Args:
      path: The path.
    """

    __slots__ = ("path",)

    def __init__(self, path: Path):
        self.path = path

    def __str__(self) -> str:
        return "".join(f"[{key!r}]" for key in self.path)

    def __repr__(self) -> str:
        return f"PathKey({self.path!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathKey) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)


class StateKeys:
    """The static part of a State as a pytree: its keys. Those of two States are equal in any order.

    Args:
      order: The keys, in the order of the State.
      aside: The paths of the leaves that no key leads to.
    """

    __slots__ = (
        "_content",
        "aside",
        "entries",
        "order",
        "path_keys",
        "pick",
        "places",
        "sorted",
        "structures",
    )

    def __init__(self, order: tuple[Key, ...], aside: tuple[Path, ...]):
        self.order = order
        self.aside = aside
        all_strings = _STRINGS.issuperset(map(type, order))
        self.sorted = tuple(sorted(order)) if all_strings else _sort(order)
        self.pick = _picker(self.sorted)
        """Return the children of a State that keys lead to."""
        place = {key: i for i, key in enumerate(self.sorted)}
        self.places = None if order == self.sorted else [place[key] for key in order]
        """The position of each key among the children; None if it is that among the keys."""
        self.entries = (*map(jax.tree_util.DictKey, self.sorted), *map(PathKey, aside))
        """The entries of key paths."""
        self.path_keys = (*self.sorted, *aside)
        """The key of each child in the paths of liftnn."""
        self.structures: dict[type, Any] | None = None
        """The structures of States with these keys, by class, if that is kept."""
        exact = self.sorted if all_strings else tuple(map(static_key, self.sorted))  # 1 == True
        self._content = (exact, aside)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, StateKeys) and self._content == other._content)

    def __hash__(self) -> int:
        return hash(self._content)

    def __repr__(self) -> str:
        return repr(list(self.sorted))

    def __reduce__(self) -> Any:
        return keys_of, (self.order, self.aside)


_STRINGS = frozenset([str])
_NAMES_AND_POSITIONS = frozenset([str, int])


def _picker(keys: tuple[Key, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that returns the entries of a dict for these keys; for two or more of them one in C."""
    if len(keys) > 1:
        return operator.itemgetter(*keys)
    return lambda entries: tuple([entries[key] for key in keys])


class _NotKept(Exception):  # noqa: N818  # not an error
    """Raised for keys that are not kept: only names and positions are equal if they look the same."""


@functools.lru_cache(maxsize=4096, typed=True)
def _known_keys(*order: Key) -> StateKeys:
    if not _NAMES_AND_POSITIONS.issuperset(map(type, order)):
        raise _NotKept
    keys = StateKeys(order, ())
    keys.structures = {}
    return keys


def keys_of(order: Iterable[Key], aside: Iterable[Path] = ()) -> StateKeys:
    """Return the static part of a State with these keys.

    Args:
      order: The keys, in the order of the State.
      aside: The paths of the leaves that no key leads to.

    Returns:
      The static part.
    """
    if not aside:
        try:
            return _known_keys(*order)
        except _NotKept:
            pass
    return StateKeys(tuple(order), tuple(aside))


def _sort(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """Return keys as JAX sorts those of dicts; keys of several types by type."""
    try:
        return tuple(sorted(keys))
    except TypeError:
        return tuple(sorted(keys, key=rank))


_FLATTEN: dict[type, Callable[[Any], tuple[Sequence[Any], StateKeys]]] = {}
"""The function that flattens a State, for each class of States."""


def flatten_state(x: Any) -> tuple[Any, tuple[Any, ...], Sequence[Any]] | None:
    """Flatten a State by one level.

    Args:
      x: Any object.

    Returns:
      Its structure, with its children as leaves; the keys of the children; the children. None if it is no State.
    """
    flatten = _FLATTEN.get(type(x))
    if flatten is None:
        return None
    children, keys = flatten(x)
    known = keys.structures
    if known is None:
        return _structure(x), keys.path_keys, children
    structure = known.get(type(x))
    if structure is None:
        structure = known[type(x)] = _structure(x)
    return structure, keys.path_keys, children


def is_state_class(cls: type) -> bool:
    """Return whether a class is one of the registered classes of States."""
    return cls in _FLATTEN


def _structure(x: Any) -> Any:
    return jax.tree.structure(x, is_leaf=lambda y: y is not x)


def register(cls: type[Any], make: Callable[[Iterable[tuple[Key, Any]], dict[Path, Any]], Any]) -> None:
    """Register the class of States as a pytree.

    Args:
      cls: The class.
      make: Creates a State from its entries, in order, and its leaves that no key leads to.
    """

    def flatten(state: Any) -> tuple[Sequence[Any], StateKeys]:
        aside = state._aside
        keys = keys_of(state, aside)
        children = keys.pick(state)
        return (*children, *aside.values()) if aside else children, keys

    def flatten_with_keys(state: Any) -> tuple[list[tuple[Any, Any]], StateKeys]:
        children, keys = flatten(state)
        return list(zip(keys.entries, children, strict=True)), keys

    def unflatten(keys: StateKeys, children: Iterable[Any]) -> Any:
        children = tuple(children)
        owner = None
        for x in children:
            if isinstance(x, Variable) and x._owner is frames.COPIED:  # made by JAX, for this State
                owner = owner or frames.owner_now()
                set_owner(x, owner)
        aside = dict(zip(keys.aside, children[len(keys.order) :], strict=True)) if keys.aside else {}
        in_order = children if keys.places is None else [children[i] for i in keys.places]
        return make(zip(keys.order, in_order, strict=False), aside)  # the leaves aside follow

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    _FLATTEN[cls] = flatten
