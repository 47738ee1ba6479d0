"""State: the dynamic part of a tree of modules. It maps paths to Variables and is a JAX pytree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, overload

import jax

from liftnn import errors
from liftnn._src.filters import Filter, first_match, to_predicates
from liftnn._src.printing import mapping
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Key, Path, an, format_path, list_paths
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Variable, make_variable


class PathKey:
    """The path of a Variable, as a single entry of a JAX key path.

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


@boundary
class State(Mapping[Key, Any]):
    """Variables and array leaves by path: a nested, ordered mapping that is a JAX pytree of their values.

    It iterates in attribute order, and over lists in numeric order. `state["layers"][0]["w"]` is a Variable. The
    structure of a State is fixed; its Variables can be written.

    As a pytree it has one leaf (or subtree, if a value is a pytree) for each Variable, so `jax.tree.map(f, state)`
    maps over the values and keeps types and metadata.

    Args:
      tree: A nested mapping of Variables or arrays.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> state = liftnn.State({"a": {"w": liftnn.Param(jnp.ones(2))}})
      >>> float(jax.tree.map(lambda x: 2 * x, state)["a"]["w"].sum())
      4.0
    """

    __slots__ = ("_leaves",)

    def __init__(self, tree: Mapping[Key, Any] = {}):
        self._leaves: dict[Path, Any] = dict(_flatten(tree))

    @classmethod
    def from_flat(cls, leaves: Mapping[Path, Any] | Iterable[tuple[Path, Any]]) -> State:
        """Create a State from Variables by path; the inverse of `flat`.

        Args:
          leaves: A mapping from path tuples to Variables or arrays, or an iterable of such pairs.

        Returns:
          The State.
        """
        state = cls.__new__(cls)
        state._leaves = dict(leaves)
        return state

    def flat(self) -> dict[Path, Any]:
        """Return the Variables by path tuple, in order, as a new dict; the inverse of `from_flat`."""
        return dict(self._leaves)

    def __getitem__(self, key: Key) -> Any:
        if (key,) in self._leaves:
            return self._leaves[(key,)]
        below = {path[1:]: x for path, x in self._leaves.items() if path and path[0] == key}
        if not below:
            known = ", ".join(repr(k) for k in self)
            raise KeyError(f"{key!r} is not in this State; it has {known or 'nothing'}")
        return State.from_flat(below)

    def __iter__(self) -> Iterator[Key]:
        return iter(dict.fromkeys(path[0] for path in self._leaves if path))

    def __len__(self) -> int:
        return len({path[0] for path in self._leaves if path})

    def __contains__(self, key: object) -> bool:
        return any(path and path[0] == key for path in self._leaves)

    __eq__ = object.__eq__  # Variables compare element by element, so two States have no single answer
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]  # Mapping declares None

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
            raise left_over(format_path(path) for path in rest._leaves)
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _split(self, filters: tuple[Filter, ...]) -> list[State]:
        """Return one State for each filter, and one for the Variables that match none."""
        predicates = to_predicates(filters or (...,))
        parts: list[dict[Path, Any]] = [{} for _ in range(len(predicates) + 1)]
        for path, x in self._leaves.items():
            parts[first_match(predicates, path, x)][path] = x
        return [State.from_flat(p) for p in parts]

    def merge(self, *states: State) -> State:
        """Return the union of this State and others; where they overlap, the last one wins.

        Args:
          *states: The other States.

        Returns:
          A new State with the same Variables.

        Raises:
          ArgumentTypeError: If one of them is not a State.
        """
        leaves = dict(self._leaves)
        for state in states:
            check_state("State.merge", state)
            leaves.update(state._leaves)
        return State.from_flat(leaves)

    def __or__(self, other: State) -> State:
        return self.merge(other) if isinstance(other, State) else NotImplemented

    def map(self, f: Callable[[Path, Any], Any]) -> State:
        """Return a State of the same structure with other values.

        Args:
          f: Called with the path tuple and the Variable (or array). It returns the new value, or a Variable to use
            as is.

        Returns:
          The new State; types and metadata are kept.
        """
        leaves: dict[Path, Any] = {}
        for path, x in self._leaves.items():
            new = f(path, x)
            leaves[path] = (
                x.replace(new) if isinstance(x, Variable) and not isinstance(new, Variable) else new
            )
        return State.from_flat(leaves)

    def to_pure_dict(self) -> dict[Key, Any]:
        """Return the values as plain nested dicts, without Variables."""
        return nest((path, _value(x)) for path, x in self._outer().items())

    def _outer(self) -> dict[Path, Any]:
        """Return the leaves without those inside the metadata of a Variable, which has its own entry."""
        holders = [p for p, x in self._leaves.items() if isinstance(x, Variable) and x._metadata.key is None]
        if not holders:
            return self._leaves
        inside = {path for path in self._leaves for p in holders if path[: len(p)] == p and path != p}
        return {path: x for path, x in self._leaves.items() if path not in inside}

    def replace_by_pure_dict(self, values: Mapping[Key, Any]) -> None:
        """Set the values of the Variables from plain nested dicts, in place.

        Integer keys may be given as strings, as in JSON and most checkpoint formats.

        Args:
          values: Nested dicts as returned by `to_pure_dict`, with exactly the paths of this State.

        Raises:
          StructureError: If a path is missing or unknown. No value is changed then.
          ArgumentError: If a Variable cannot hold its value. No value is changed then.
        """
        leaves = self._outer()
        by_text = {tuple(map(str, path)): path for path in leaves}
        found: dict[Path, Any] = {}
        unknown: list[Path] = []
        for path, x in _flatten(values, by_text):
            actual = path if path in leaves else by_text.get(tuple(map(str, path)))
            if actual is None or actual in found:
                unknown.append(path)
            else:
                found[actual] = x
        missing = [path for path in leaves if path not in found]
        if unknown or missing:
            raise mismatch("The values do not fit the State", missing, unknown)
        for path, x in found.items():
            if isinstance(leaves[path], Variable):
                leaves[path].replace(x)  # raises before the first write if a Variable cannot hold it
        for path, x in found.items():
            if isinstance(self._leaves[path], Variable):
                self._leaves[path].raw_value = x
            else:
                self._leaves[path] = x

    def __repr__(self) -> str:
        return f"State({_render(nest(self._outer().items()))})"

    def __reduce__(self) -> Any:
        return (State.from_flat, (self._leaves,))


def check_state(verb: str, x: Any) -> None:
    """Raise an error if the argument is not a State.

    Args:
      verb: The function that received it, for the message.
      x: The argument.

    Raises:
      ArgumentTypeError: If it is not a State.
    """
    if not isinstance(x, State):
        raise errors.ArgumentTypeError(
            f"{verb} takes States and got {an(type(x))}.",
            "Write `*states, graphdef = split(model)`: `split` returns the GraphDef last, and `merge(graphdef, "
            "*states)` takes it first. `State.from_flat` creates a State from values by path.",
        )


def left_over(paths: Iterable[str]) -> errors.FilterError:
    """Return the error for Variables that match none of the filters."""
    return errors.FilterError(f"These Variables match none of the filters:\n{list_paths(paths)}")


def mismatch(
    what: str, missing: Iterable[Path], unknown: Iterable[Path], remedy: str | None = None
) -> errors.StructureError:
    """Return the error for two sets of paths that should be the same."""
    lines = [what + ":"]
    for title, paths in (("missing", list(missing)), ("unexpected", list(unknown))):
        if paths:
            lines += [f"{title}:", list_paths((format_path(p) for p in paths), most=4)]
    return errors.StructureError("\n".join(lines), remedy)


def _flatten(tree: Mapping[Key, Any], stop: Mapping[Path, Any] = {}) -> Iterator[tuple[Path, Any]]:
    """Yield path and leaf of a nested mapping, in order, without going below the paths of `stop`."""
    stack: list[tuple[Path, Any]] = [((), tree)]
    while stack:
        path, x = stack.pop()
        if isinstance(x, Mapping) and tuple(map(str, path)) not in stop:
            leaves = (
                x._leaves.items() if isinstance(x, State) else (((key,), child) for key, child in x.items())
            )
            stack += [((*path, *below), child) for below, child in leaves][::-1]
        else:
            yield path, x


def nest(leaves: Iterable[tuple[Path, Any]]) -> Any:
    """Return plain nested dicts from leaves by path; the leaf itself for the empty path."""
    tree: dict[Key, Any] = {}
    for path, x in leaves:
        if not path:
            return x
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = x
    return tree


def _render(x: Any, depth: int = 0) -> str:
    """Format nested dicts of Variables."""
    if not isinstance(x, dict):
        return repr(x)
    if depth > 48:
        return "{...}"
    return mapping((repr(key), _render(child, depth + 1)) for key, child in x.items())


def _kind(x: Any) -> Any:
    """Return the part of a State's treedef that describes one leaf: type and metadata; None for an array leaf."""
    return (type(x), x._metadata) if isinstance(x, Variable) else None


def _value(x: Any) -> Any:
    """Return the value of a leaf. Booleans and strings, as in a mask for optax, are constants readable in any trace."""
    if isinstance(x, Variable):
        return x._value if isinstance(x._value, (bool, str)) else x.raw_value
    return x


def _aux(state: State) -> Any:
    leaves = state._leaves
    return tuple(leaves), tuple([_kind(x) for x in leaves.values()])


def _flatten_state(state: State) -> tuple[list[Any], Any]:
    return [_value(x) for x in state._leaves.values()], _aux(state)


def _flatten_state_with_keys(state: State) -> tuple[list[tuple[PathKey, Any]], Any]:
    return [(PathKey(path), _value(x)) for path, x in state._leaves.items()], _aux(state)


def _unflatten_state(aux: Any, values: Iterable[Any]) -> State:
    paths, kinds = aux
    owner = frames.owner_now()
    leaves = [
        x if k is None else make_variable(k[0], x, k[1], owner) for k, x in zip(kinds, values, strict=True)
    ]
    return State.from_flat(zip(paths, leaves, strict=True))


jax.tree_util.register_pytree_with_keys(State, _flatten_state_with_keys, _unflatten_state, _flatten_state)
