"""State: the dynamic part of a tree of modules. Nested dicts of Variables that are a JAX pytree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

from liftnn._src.filters import Filter, check_tags, first_match, to_predicates
from liftnn._src.printing import Displayed
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Key, Path, copy_containers, format_path
from liftnn._src.variables.nested import (
    leaf_above_others,
    left_over,
    nest,
    not_a_state,
    pair_paths,
    render,
    with_aside,
)
from liftnn._src.variables.operators import constant_or_value
from liftnn._src.variables.state_pytree import register
from liftnn._src.variables.variable import Variable


@boundary
class State(dict[Key, Any], Displayed):
    """Variables and array leaves by path: nested dicts, in attribute order, that are a JAX pytree.

    `state["layers"][0]["w"]` is a Variable, and so is `state.layers[0].w`: attributes are the entries with that name.
    Entries can be set and deleted, and a nested mapping that is set becomes a State. A State iterates in the order of
    attributes, and over lists in numeric order.

    As a pytree it is nested dicts, with keys sorted as JAX sorts those of dicts, whose leaves are the Variables, which
    are nodes with the value below. So `jax.tree.map(f, state)` maps over the values and keeps types and metadata, and
    with `is_leaf=lambda x: isinstance(x, liftnn.Variable)` it maps over the Variables.

    Args:
      tree: A nested mapping of Variables or arrays, or pairs of key and entry, as for a dict.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> state = liftnn.State({"a": {"w": liftnn.Param(jnp.ones(2))}})
      >>> float(jax.tree.map(lambda x: 2 * x, state).a.w.sum())
      4.0
    """

    __slots__ = ("_aside",)

    if TYPE_CHECKING:
        _aside: dict[Path, Any]
        """Leaves that no key leads to: at the empty path, and those in a Variable's metadata, by path from here."""

    def __init__(self, tree: Mapping[Key, Any] | Iterable[tuple[Key, Any]] = {}):
        _set_aside(self, dict(tree._aside) if isinstance(tree, State) else {})
        for key, x in (tree if isinstance(tree, Mapping) else dict(tree)).items():
            _set(self, key, State(x) if isinstance(x, Mapping) else x)

    @classmethod
    def from_flat(cls, leaves: Mapping[Path, Any] | Iterable[tuple[Path, Any]]) -> State:
        """Create a State from Variables by path; the inverse of `flat`.

        Args:
          leaves: A mapping from path tuples to Variables or arrays, or an iterable of such pairs.

        Returns:
          The State.

        Raises:
          StructureError: If a path leads through an array, or another leaf that is not a Variable.
        """
        state = cls()
        for path, x in leaves.items() if isinstance(leaves, Mapping) else leaves:
            if above_others := _put(state, path, x):
                raise leaf_above_others(above_others)
        return state

    def flat(self) -> dict[Path, Any]:
        """Return the Variables by path tuple, in order, as a new dict; the inverse of `from_flat`."""
        return dict(self._items(True))

    def _items(self, with_metadata: bool = True) -> Iterator[tuple[Path, Any]]:
        """Yield pairs of path and leaf, in order, with or without the leaves in the metadata of Variables."""
        stack: list[tuple[Path, Any]] = [((), self)]
        while stack:
            path, x = stack.pop()
            if not isinstance(x, State):
                yield path, x
                continue
            below = [((*path, key), child) for key, child in x.items()]
            if x._aside:
                below = with_aside(path, below, x._aside, with_metadata)
            stack += below[::-1]

    if not TYPE_CHECKING:  # hidden, so that type checkers know the entries as Any

        @boundary
        def __missing__(self, key: Key) -> Any:
            known = ", ".join(repr(k) for k in self)
            raise KeyError(f"{key!r} is not in this State; it has {known or 'nothing'}")

        @boundary
        def __getattr__(self, name: str) -> Any:
            if name in self and not name.startswith("__"):
                return self[name]
            known = ", ".join(str(k) for k in self)
            raise AttributeError(  # Python may add ". Did you mean: 'x'?"
                f"A State has no attribute or entry {name!r}; its entries are: {known or 'none'}"
            )

        def __setattr__(self, name: str, value: Any) -> None:
            self[name] = value

        def __delattr__(self, name: str) -> None:
            del self[name]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(k for k in self if isinstance(k, str) and k.isidentifier())})

    def __setitem__(self, key: Key, value: Any) -> None:
        self._forget(key)
        _set(self, key, _as_entry(value))

    def __delitem__(self, key: Key) -> None:
        if key not in self:
            self[key]  # raises an error that says which entries there are
        self._forget(key)
        super().__delitem__(key)

    def _forget(self, key: Key) -> None:
        """Forget what the metadata of an entry hold."""
        for path in [p for p in self._aside if p and p[0] == key]:
            del self._aside[path]

    def pop(self, key: Key, *default: Any) -> Any:
        """Remove an entry and return it.

        Args:
          key: The key.
          *default: The value to return if the entry does not exist.

        Returns:
          The Variable, array or State.

        Raises:
          KeyError: If the entry does not exist and no default is given.
        """
        if key not in self and default:
            return super().pop(key, *default)
        found = self[key]
        del self[key]
        return found

    def popitem(self) -> tuple[Key, Any]:
        """Remove the last entry, and return its key and value."""
        key, found = super().popitem()
        self._forget(key)
        return key, found

    def clear(self) -> None:
        """Remove all entries."""
        super().clear()
        self._aside.clear()

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """Return an entry, after setting it if it is missing.

        Args:
          key: The key.
          default: What to set.

        Returns:
          The entry.
        """
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, other: Any = (), /, **entries: Any) -> None:
        """Set entries, as `dict.update` does: an entry replaces that with the same key, and everything below it.

        `merge` and `|` join what is below.

        Args:
          other: A mapping, or pairs of key and entry.
          **entries: More entries.
        """
        aside = dict(other._aside) if isinstance(other, State) else {}
        for key, x in dict(other, **entries).items():
            self[key] = x
        self._aside.update({p: x for p, x in aside.items() if not p or p[0] not in entries})

    def copy(self) -> State:
        """Return a new State of the same Variables."""
        return State.from_flat(self.flat())

    __copy__ = copy
    __eq__ = object.__eq__  # Variables compare element by element, so two States have no single answer
    __ne__ = object.__ne__
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]  # dict declares None

    @overload
    def filter(self, filter: Filter = ..., /) -> State: ...

    @overload
    def filter(self, first: Filter, second: Filter, /, *others: Filter) -> tuple[State, ...]: ...

    def filter(self, *filters: Filter) -> State | tuple[State, ...]:
        """Return the Variables that match.

        Args:
          *filters: One or more filters; the first match wins.

        Returns:
          A State for one filter, a tuple of States for several. Variables that match none are left out.

        Raises:
          FilterError: If an argument is not a filter.
        """
        parts = self._split(filters)[:-1]
        return parts[0] if len(parts) == 1 else tuple(parts)

    @overload
    def split(self, filter: Filter = ..., /) -> State: ...

    @overload
    def split(self, first: Filter, second: Filter, /, *others: Filter) -> tuple[State, ...]: ...

    def split(self, *filters: Filter) -> State | tuple[State, ...]:
        """Partition all Variables by the first filter that each matches.

        Args:
          *filters: One or more filters; the last may be `...`.

        Returns:
          A State for one filter, a tuple of States for several.

        Raises:
          FilterError: If a Variable matches none of them; the message lists the paths.
        """
        *parts, rest = self._split(filters)
        if rest:
            raise left_over(format_path(path) for path in rest.flat())
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _split(self, filters: tuple[Filter, ...]) -> list[State]:
        """Return one State for each filter, and one for the Variables that match none."""
        predicates = to_predicates(filters or (...,))
        parts: list[dict[Path, Any]] = [{} for _ in range(len(predicates) + 1)]
        check_tags(predicates, leaves := list(self._items()))
        for path, x in leaves:
            parts[first_match(predicates, path, x)][path] = x
        return [State.from_flat(p) for p in parts]

    def merge(self, *states: Mapping[Key, Any]) -> State:
        """Return the union of this State and others; where they overlap, the last one wins.

        Args:
          *states: The other States, or plain nested dicts.

        Returns:
          A new State with the same Variables.

        Raises:
          ArgumentTypeError: If one of them is neither.
        """
        merged = self.copy()
        for state in states:
            for path, x in as_state("State.merge", state)._items():
                _put(merged, path, x)
        return merged

    def __or__(self, other: Mapping[Key, Any]) -> State:
        return self.merge(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Mapping[Key, Any]) -> State:
        return State(other).merge(self) if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> State:  # joins what is below, as `|`
        joined = self.merge(other)
        self.clear()
        self.update(joined)
        return self

    def map(self, f: Callable[[Path, Any], Any]) -> State:
        """Return a State of the same structure with other values.

        Args:
          f: Called with the path tuple and the Variable (or array). It returns the new value, or a Variable to use
            as is.

        Returns:
          The new State; types and metadata are kept.
        """
        leaves: dict[Path, Any] = {}
        for path, x in self._items():
            new = f(path, x)
            leaves[path] = (
                x.replace(new) if isinstance(x, Variable) and not isinstance(new, Variable) else new
            )
        return State.from_flat(leaves)

    def to_pure_dict(self) -> dict[Key, Any]:
        """Return the values as plain nested dicts, without Variables."""
        values = [(p, constant_or_value(x) if isinstance(x, Variable) else x) for p, x in self._items(False)]
        return nest((path, copy_containers(x)) for path, x in values)

    def replace_by_pure_dict(self, values: Mapping[Key, Any]) -> None:
        """Replace the Variables, in this State, by Variables with values from plain nested dicts.

        Types and metadata are kept. A module that has one of the replaced Variables keeps it, with its value. Integer
        keys may be given as strings, as in JSON and most checkpoint formats.

        Args:
          values: Nested dicts as returned by `to_pure_dict`, with all or some of the paths of this State.

        Raises:
          StructureError: If a path is unknown. Nothing is replaced then.
          ArgumentError: If a Variable cannot hold its value. Nothing is replaced then.
        """
        leaves = dict(self._items(False))
        found = [
            (path, leaves[path].replace(x) if isinstance(leaves[path], Variable) else x)
            for path, x in pair_paths(leaves, values).items()
        ]
        for path, x in found:
            _put(self, path, x)

    def __repr__(self) -> str:
        return f"State({render(self._aside.get((), self))})"

    def __reduce__(self) -> Any:
        return State, (), (dict(self), self._aside)

    def __setstate__(self, content: tuple[dict[Key, Any], dict[Path, Any]]) -> None:
        dict.update(self, content[0])
        _set_aside(self, content[1])


_set = dict.__setitem__
_set_aside = vars(State)["_aside"].__set__  # bypasses __setattr__, which sets an entry


def _as_entry(x: Any) -> Any:
    """Return what a State holds for an object: a State for a mapping, else the object."""
    return State(x) if isinstance(x, Mapping) and not isinstance(x, State) else x


def _put(state: State, path: Path, x: Any) -> Path | None:
    """Set a leaf at a path; create the States above it. Return the path of a leaf that cannot be above another one."""
    if not path:
        state._aside[path] = x
        return None
    above_others = None
    node: Any = state
    for depth, key in enumerate(path):
        below = node.get(key)
        if depth == len(path) - 1:
            if isinstance(below, State) and isinstance(x, Variable):
                node._aside.update({(key, *p): y for p, y in below.flat().items()})
            elif isinstance(below, State) and below:
                above_others = path
            _set(node, key, x)
        elif isinstance(below, Variable):
            node._aside[path[depth:]] = x
            break
        elif not isinstance(below, State):
            above_others = path[: depth + 1] if key in node else None
            below = State()
            _set(node, key, below)
        node = below
    return above_others


def as_state(verb: str, x: Any) -> State:
    """Return the argument as a State.

    Args:
      verb: The function that received it, for the message.
      x: A State, or a plain nested dict of Variables or arrays.

    Returns:
      The State.

    Raises:
      ArgumentTypeError: If it is neither.
    """
    if not isinstance(x, Mapping):
        raise not_a_state(verb, x)
    return x if isinstance(x, State) else State(x)


def make_state(entries: Iterable[tuple[Key, Any]], aside: dict[Path, Any]) -> State:
    """Create a State from its entries, which are Variables, arrays or States, without checks."""
    dict.update(state := State.__new__(State), entries)
    _set_aside(state, aside)
    return state


register(State, make_state)
