"""A State and a dict with fixed entries: assigning to an entry sets the value of the Variable there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NoReturn, Self

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.publish import PICKLED, publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import (
    Key,
    Path,
    an,
    format_path,
    is_argument_array,
    is_leaf_tree,
    is_tracer,
    key_of,
    type_of,
)
from liftnn._src.variables.nested import pair_paths
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State, make_state
from liftnn._src.variables.state_pytree import register
from liftnn._src.variables.variable import Variable

_set_item = dict.__setitem__


@boundary
class _FixedEntries(dict[Key, Any]):
    """What a State and a dict with fixed entries share: assigning sets values, and nothing can be removed."""

    __slots__ = ()
    __fixed_entries__ = True

    @boundary
    def __setitem__(self, key: Key, value: Any) -> None:
        assign(self, [(key, value)])

    @boundary
    def __delitem__(self, key: Key) -> None:
        _refuse(f"{format_path((key,))} cannot be removed")

    def popitem(self) -> tuple[Key, Any]:
        """Raise StructureError: the entries are fixed."""
        _refuse("No entry can be removed")

    def clear(self) -> None:
        """Raise StructureError: the entries are fixed."""
        _refuse("No entry can be removed")

    def update(self, other: Any = (), /, **entries: Any) -> None:
        """Set the values of several entries; nothing is set if one of them does not fit."""
        assign(self, dict(other, **entries).items())

    @boundary
    def __ior__(self, other: Any) -> Self:
        assign(self, dict(other).items())
        return self


@boundary
class FixedState(_FixedEntries, State):
    """A State with fixed entries.

    Args:
      tree: The entries, as a mapping or pairs: Variables, FixedStates, and whatever an optax transformation keeps for
        a parameter.
      aside: The leaves that no key leads to, by path.
    """

    __slots__ = ()

    def __init__(
        self, tree: Mapping[Key, Any] | Iterable[tuple[Key, Any]] = (), aside: Mapping[Path, Any] = {}
    ):
        super().__init__()
        dict.update(self, tree)
        self._aside.update(aside)

    def replace_by_pure_dict(self, values: Mapping[Key, Any]) -> None:
        """Set the values of the Variables from plain nested dicts; nothing is set if one of them does not fit.

        Args:
          values: Nested dicts of values, with all or some of the paths of this State.

        Raises:
          StructureError: If a path is unknown, or if a value does not fit.
        """
        leaves = self.flat()
        found = pair_paths(leaves, values)
        arrays = {path: x for path, x in found.items() if not isinstance(leaves[path], Variable)}
        writes = [
            pair for path, x in found.items() if path not in arrays for pair in _pair(path, leaves[path], x)
        ]
        for variable, x in writes:
            variable.raw_value = x
        for path, x in arrays.items():  # in a tree that jax.tree.map has made
            _set_item(functools.reduce(dict.__getitem__, path[:-1], self), path[-1], x)

    def __reduce__(self) -> Any:
        return FixedState, (dict(self), dict(self._aside))


@boundary
class FixedDict(_FixedEntries):
    """A dict with fixed entries, such as the hyperparameters in the state of `optax.inject_hyperparams`.

    Args:
      entries: The entries.
    """

    __slots__ = ()
    _aside: ClassVar[Mapping[Path, Any]] = {}
    """Nothing: each leaf has a key; for the pytree registration."""

    def pop(self, key: Key, *default: Any) -> Any:
        """Raise StructureError: the entries are fixed."""
        _refuse(f"{format_path((key,))} cannot be removed")

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """Return an entry; raise StructureError if it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def __reduce__(self) -> Any:
        return FixedDict, (dict(self),)


def _refuse(what: str) -> NoReturn:
    """Raise the error for a change of the entries."""
    raise errors.StructureError(
        f"{what}: the entries of this tree of Variables are fixed.",
        "Set values only, or assign a whole new tree, such as `optimizer.opt_state = tree`.",
    )


def assign(holder: dict[Key, Any], entries: Iterable[tuple[Key, Any]]) -> None:
    """Set the values of the Variables in entries of a FixedState or FixedDict.

    Args:
      holder: The FixedState or FixedDict.
      entries: Pairs of key and new value: an array or Variable for a Variable, else a tree of them.

    Raises:
      StructureError: If the entry does not exist, or the new value does not fit. Nothing is set then.
    """
    writes: list[tuple[Variable[Any], Any]] = []
    arrays: list[tuple[Key, Any]] = []
    for key, new in entries:
        if key not in holder:
            _refuse(
                f"{format_path((key,))} cannot be added to {', '.join(format_path((k,)) for k in holder) or 'nothing'}"
            )
        old = dict.__getitem__(holder, key)
        if old is new:
            continue
        if _is_bare_leaf(old) and _is_bare_leaf(new):  # in a tree that jax.tree.map has made
            arrays.append((key, new))
        else:
            writes += _pair((key,), old, new)
    for variable, new in writes:
        variable.raw_value = new
    for key, new in arrays:
        _set_item(holder, key, new)


def _is_bare_leaf(x: Any) -> bool:
    return not isinstance(x, Variable) and jax.tree_util.all_leaves([x])


def _pair(path: Path, old: Any, new: Any) -> list[tuple[Variable[Any], Any]]:
    """Return each Variable of an entry with its new value."""
    entries, structure = jax.tree_util.tree_flatten_with_path(as_states(old), is_leaf=is_variable)
    values, found = jax.tree.flatten(as_states(new), is_leaf=is_variable)
    if structure != found or not all(is_variable(v) for _, v in entries):
        what = "one array" if isinstance(old, Variable) else f"the tree that {an(type(old))} is here"
        raise errors.StructureError(
            f"{format_path(path)} takes {what}, not {an(type(new))}.",
            "Set values only, or assign a whole new tree, such as `optimizer.opt_state = tree`.",
        )
    return [
        (v, fit((*path, *map(key_of, entry)), v, x)) for (entry, v), x in zip(entries, values, strict=True)
    ]


def is_variable(x: Any) -> bool:
    """Return whether `x` is a Variable."""
    return isinstance(x, Variable)


def as_states(tree: Any) -> Any:
    """Return a tree with plain States in place of all States and dicts, to compare structures."""
    return convert(tree, lambda x, path: x, make_state, lambda entries: make_state(entries, {}))


Leaf = Callable[[Any, "Path | None"], Any]


def convert(
    tree: Any,
    leaf: Leaf,
    state: Callable[[dict[Key, Any], dict[Path, Any]], Any],
    mapping: Callable[[dict[Key, Any]], Any],
    path: Path | None = None,
) -> Any:
    """Convert the States, dicts and leaves of a tree; other containers stay.

    Args:
      tree: A pytree.
      leaf: Called with each Variable and each other leaf, and with its path from the outermost State around it; None if
        there is none.
      state: Called with the converted entries of each State, and with the converted leaves that no key leads to.
      mapping: Called with the converted entries of each dict.
      path: The path of the tree itself.

    Returns:
      The converted tree.
    """
    if isinstance(tree, Variable):
        return leaf(tree, path)
    if isinstance(tree, State):
        start = path or ()
        entries = {k: convert(x, leaf, state, mapping, (*start, k)) for k, x in tree.items()}
        return state(
            entries, {p: convert(x, leaf, state, mapping, (*start, *p)) for p, x in tree._aside.items()}
        )
    if type(tree) in (dict, FixedDict):
        return mapping({key: convert(x, leaf, state, mapping) for key, x in tree.items()})
    children, treedef = jax.tree.flatten(tree, is_leaf=lambda x: x is not tree)
    if is_leaf_tree(treedef):
        return leaf(tree, path)
    return treedef.unflatten([convert(x, leaf, state, mapping, path) for x in children])


def with_fixed_entries(tree: Any) -> Any:
    """Return a tree of the same leaves, with fixed entries in place of its States and dicts."""
    return convert(tree, lambda x, path: x, FixedState, FixedDict)


def fit(path: Path, variable: Variable[Any], new: Any) -> Any:
    """Return a new value as an array that a compiled function takes in place of the old one, without a new trace.

    Args:
      path: The path, for the message.
      variable: The Variable.
      new: The new value.

    Returns:
      The value with the dtype of the old one and, if that is on certain devices, on the same.

    Raises:
      StructureError: If it has another shape, or a dtype of another kind.
    """
    old, new = variable.raw_value, unwrap_raw(new)
    if not isinstance(old, jax.Array):
        return new
    if not is_argument_array(new) or jnp.shape(new) != old.shape or not _is_safe(new, old.dtype):
        found = type_of(new) if is_argument_array(new) else an(type(new))
        raise errors.StructureError(
            f"{format_path(path)} is {type_of(old)} and cannot be set to {found}.",
            "Convert it, or set the `value` of the Variable, which takes any array.",
        )
    return like(old, new)


def _is_safe(new: Any, dtype: Any) -> bool:
    """Return whether values of an array or number have a meaning in a dtype: no fraction or sign is lost."""
    if jnp.issubdtype(dtype, jax.dtypes.extended) or jnp.issubdtype(
        jnp.result_type(new), jax.dtypes.extended
    ):
        return jnp.result_type(new) == dtype
    order = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    kinds = [
        next(i for i, k in enumerate(order) if jnp.issubdtype(d, k)) for d in (jnp.result_type(new), dtype)
    ]
    return kinds[0] <= kinds[1]


def like(old: jax.Array, new: Any) -> Any:
    """Return a value with the dtype of an array and, if the array is committed to devices, its sharding."""
    if not jnp.issubdtype(old.dtype, jax.dtypes.extended):
        weak = old.weak_type and not hasattr(new, "dtype")
        new = jnp.asarray(new) if weak else jnp.asarray(new, old.dtype)
    if is_tracer(old) or is_tracer(new) or not old.committed or new.committed:
        return new
    return jax.device_put(new, old.sharding)


register(FixedState, FixedState)
register(FixedDict, lambda entries, aside: FixedDict(entries))


publish(FixedDict, FixedState, module=PICKLED)
