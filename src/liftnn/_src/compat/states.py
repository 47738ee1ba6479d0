"""Functions on States: by path, as plain values, split by filters, and differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from liftnn import errors
from liftnn._src.compat.flat_state import Leaves, to_flat_state
from liftnn._src.compat.path_filters import PathIn
from liftnn._src.compat.traversals import flatten_mapping, unflatten_mapping
from liftnn._src.filters import Filter
from liftnn._src.graph.kinds import is_object
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, format_path, list_paths
from liftnn._src.variables.nested import flatten_nested
from liftnn._src.variables.state import State, _put, as_state
from liftnn._src.variables.variable import Variable


@boundary
def from_flat_state(flat_state: Leaves, *, cls: type[State] = State) -> State:
    """Return the State with these leaves; the inverse of `to_flat_state`.

    Args:
      flat_state: A FlatState, a mapping from paths to leaves, or an iterable of such pairs.
      cls: The class of the result.

    Returns:
      The State.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> nnx.from_flat_state([(("a", "w"), nnx.Param(jnp.ones(2)))]).a.w.shape
      (2,)
    """
    return cls(State.from_flat(flat_state))  # what is a mapping becomes a State


@boundary
def to_tree(tree: Any, /, **options: Any) -> Any:
    """Return a tree without modules, such as a State, as it is: it is a pytree already.

    Args:
      tree: The tree.
      **options: Options of Flax's function, which serve transforms and are errors here.

    Returns:
      The tree.

    Raises:
      ArgumentTypeError: If the tree contains a module or a Variable outside of a State, or if there are options.

    Example:
      >>> import jax
      >>> from liftnn.compat import nnx
      >>> state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> [x.shape for x in jax.tree.leaves(nnx.to_tree(state))]
      [(3,), (2, 3)]
    """
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, State) or is_object(x))
    found = next((x for x in leaves if is_object(x)), None)
    if found is None and not options:
        return tree
    what = f"{an(type(found))} in its tree" if found is not None else f"the option {next(iter(options))!r}"
    raise errors.ArgumentTypeError(
        f"nnx.to_tree of liftnn.compat.nnx takes trees of arrays and States, not {what}: liftnn's transforms do not "
        "use it.",
        "To read arrays, pass `nnx.state(model)`. Write a transform with `liftnn.lift`; see "
        "docs/guides/custom_transforms.md.",
    )


@boundary
def to_pure_dict(state: Mapping[Any, Any], extract_fn: Callable[[Any], Any] | None = None) -> dict[Any, Any]:
    """Return the values of a State as plain nested dicts.

    Args:
      state: The State.
      extract_fn: Called with each Variable or array; returns what to store. The default, None, takes the value of a
        Variable.

    Returns:
      The dicts, with sorted keys.

    Raises:
      ArgumentTypeError: If it is not a State or a mapping.

    Example:
      >>> from liftnn.compat import nnx
      >>> values = nnx.to_pure_dict(nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
      >>> values["bias"].shape
      (3,)
    """
    extract = extract_fn or (lambda x: x.value if isinstance(x, Variable) else x)
    return unflatten_mapping([(path, extract(x)) for path, x in to_flat_state(state)])


@boundary
def replace_by_pure_dict(
    state: State, pure_dict: Mapping[Any, Any], replace_fn: Callable[[Any, Any], Any] | None = None
) -> None:
    """Replace Variables of a State, in place, by Variables with values from plain nested dicts.

    A module that the State was taken from keeps its Variables; use `update(module, state)` to set their values. Integer
    keys may be given as strings.

    Args:
      state: The State.
      pure_dict: Nested dicts of values, with all or some of the paths of the State.
      replace_fn: Called with the Variable and the value; returns what to store. The default, None, returns a Variable
        of the same type and metadata.

    Raises:
      ArgumentError: If a path is not in the State. Nothing is changed then.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> nnx.replace_by_pure_dict(state, {"bias": jnp.ones(3)})
      >>> state.bias.value.tolist()
      [1.0, 1.0, 1.0]
    """
    replace = replace_fn or (lambda x, value: x.replace(value) if isinstance(x, Variable) else value)
    leaves = state.flat()
    by_text = {tuple(map(str, path)): path for path in leaves}
    found: dict[Path, Any] = {}
    unknown: list[Path] = []
    for path, value in flatten_nested(pure_dict, by_text):
        known = path if path in leaves else by_text.get(tuple(map(str, path)))
        if known is None:
            unknown.append(path)
        else:
            found[known] = replace(leaves[known], value)
    if unknown:
        raise errors.ArgumentError(
            f"These keys of the dicts are not in the State:\n{list_paths(map(format_path, unknown))}",
            "Compare them with the paths of `nnx.to_flat_state(state)`.",
        )
    for path, x in found.items():
        _put(state, path, x)


@boundary
def restore_int_paths(pure_dict: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return nested dicts with integers in place of keys that are integers written as strings.

    Some checkpoint formats write every key as a string.

    Args:
      pure_dict: The nested dicts.

    Returns:
      New nested dicts.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.restore_int_paths({"layers": {"0": 1.5}})
      {'layers': {0: 1.5}}
    """
    leaves = flatten_mapping(pure_dict)
    return unflatten_mapping([(tuple(map(_to_int, path)), x) for path, x in leaves.items()])


def _to_int(key: Any) -> Any:
    try:
        return int(key)
    except (TypeError, ValueError):
        return key


def split_state(state: Mapping[Any, Any], /, *filters: Filter) -> Any:
    """Partition a State by the first filter that each Variable matches.

    Args:
      state: The State.
      *filters: One or more filters; the last may be `...`.

    Returns:
      A State for one filter, a tuple of States for several.

    Raises:
      FilterError: If a Variable matches none of them; the message lists the paths.

    Example:
      >>> from liftnn.compat import nnx
      >>> state = nnx.state(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
      >>> params, stats = nnx.split_state(state, nnx.Param, nnx.BatchStat)
      >>> list(params), list(stats)
      (['bias', 'scale'], ['mean', 'var'])
    """
    return as_state("split_state", state).split(*filters)


def filter_state(state: Mapping[Any, Any], /, *filters: Filter) -> Any:
    """Return the Variables of a State that match.

    Args:
      state: The State.
      *filters: One or more filters; the first match wins, and Variables that match none are left out.

    Returns:
      A State for one filter, a tuple of States for several.

    Raises:
      FilterError: If an argument is not a filter.

    Example:
      >>> from liftnn.compat import nnx
      >>> list(nnx.filter_state(nnx.state(nnx.BatchNorm(2, rngs=nnx.Rngs(0))), nnx.BatchStat))
      ['mean', 'var']
    """
    return as_state("filter_state", state).filter(*filters)


def merge_state(state: Mapping[Any, Any], /, *states: Mapping[Any, Any], cls: type[State] = State) -> State:
    """Return the union of several States; where they overlap, the last one wins.

    Args:
      state: The first State.
      *states: The other States, or nested dicts.
      cls: The class of the result.

    Returns:
      A new State with the same Variables.

    Raises:
      ArgumentTypeError: If one of them is neither.

    Example:
      >>> from liftnn.compat import nnx
      >>> state = nnx.state(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
      >>> list(nnx.merge_state(*nnx.split_state(state, nnx.BatchStat, ...)))
      ['mean', 'var', 'bias', 'scale']
    """
    merged = as_state("merge_state", state).merge(*states)
    return merged if cls is State else cls.from_flat(merged.flat())


def map_state(f: Callable[[Path, Any], Any], state: Mapping[Any, Any]) -> State:
    """Return a State with the results of a function of each path and Variable.

    Args:
      f: Called with the path tuple and the Variable or array; returns what to store.
      state: The State.

    Returns:
      The new State.

    Raises:
      ArgumentTypeError: If it is not a State or a mapping.

    Example:
      >>> from liftnn.compat import nnx
      >>> state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> nnx.map_state(lambda path, x: x.replace(x + 1), state).bias.value.tolist()
      [1.0, 1.0, 1.0]
    """
    return from_flat_state([(path, f(path, x)) for path, x in to_flat_state(state)])


def diff(state: Mapping[Any, Any], other: Mapping[Any, Any]) -> State:
    """Return what a State has at paths that another State does not have.

    Args:
      state: The State.
      other: The other State.

    Returns:
      A new State with the same Variables.

    Raises:
      ArgumentTypeError: If one of them is not a State or a mapping.

    Example:
      >>> from liftnn.compat import nnx
      >>> state = nnx.state(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
      >>> list(nnx.statelib.diff(state, nnx.filter_state(state, nnx.Param)))
      ['mean', 'var']
    """
    known = as_state("diff", other).flat()
    return State.from_flat([(path, x) for path, x in to_flat_state(state) if path not in known])


@boundary
def create_path_filters(state: Mapping[Any, Any]) -> dict[PathIn, Any]:
    """Return the values of a State by filters that match the paths of each.

    Args:
      state: A State of hashable values, such as labels. Equal values have one filter.

    Returns:
      A dict from filters to values, which can be passed to `StateAxes` and the like.

    Raises:
      ArgumentTypeError: If it is not a State or a mapping.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.statelib.create_path_filters(nnx.State({"a": 0, "b": None}))
      {PathIn(('a',)): 0, PathIn(('b',)): None}
    """
    paths: dict[Any, list[Path]] = {}
    for path, x in to_flat_state(state):
        paths.setdefault(x.value if isinstance(x, Variable) else x, []).append(path)
    return {PathIn(*found): value for value, found in paths.items()}
