"""The arrays of a module by name, such as `layers.0.kernel`: what is written to a file, and filled from one."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.checkpoints.targets import target_sharding
from liftnn._src.filters import Filter, check_tags, first_match, to_predicates
from liftnn._src.graph.description import find_all_paths
from liftnn._src.graph.graphdef import WalkedTree, walk_tree
from liftnn._src.trees import ARRAY_TYPES, NUMBER_TYPES, Path, format_path, is_tracer, key_of
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.variable import Variable

_PLAIN = re.compile(r"[^\W\d][\w-]*")
"""String keys that a name has as they are; others are quoted, so that no two paths have one name."""
_MOST_PATHS = 100
"""The most paths to one Variable that are listed, since objects that share each other have too many."""
METADATA = "__metadata__"
"""The key of the metadata in the header of a safetensors file, which no tensor can have as its name."""


def name_of(path: Path) -> str:
    """Return the name of a path: keys joined by dots, and strings that are not identifiers as `['0']`."""
    text = ""
    for key in path:
        if (isinstance(key, str) and _PLAIN.fullmatch(key)) or (type(key) is int and key >= 0):
            text += f".{key}"
        else:
            text += f"[{key!r}]"
    name = text.removeprefix(".")
    return f"[{name!r}]" if name == METADATA else name


class Spec(NamedTuple):
    """Shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def nbytes(self) -> int:
        """The number of bytes of the array; not that of typed keys."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One array of a module; it does not hold the array, which is freed when its Variable gets another one.

    Args:
      path: The first path to it: that of its holder, and the keys in a value that is a container.
      holder: What holds it: a Variable, or a function that returns an array leaf of a module.
      position: The position among the leaves of the Variable's value.
      spec: Shape and dtype; those of a number are numpy's for its type.
      type: The class of the array, key array, number or abstract array.
      sharding: The sharding of an array that is committed to devices, or declared by an abstract one; else None.
      is_weak: Whether its type is weak, as that of the result of Python numbers.
      aliases: The other paths to it.
    """

    path: Path
    holder: Variable[Any] | Callable[[], Any]
    position: int
    spec: Spec
    type: type
    sharding: Any
    is_weak: bool = False
    aliases: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The name of the first path."""
        return name_of(self.path)

    @property
    def text(self) -> str:
        """The first path as Python code."""
        return format_path(self.path)

    def at(self, path: Path) -> Entry:
        """Return the same array under another path."""
        return dataclasses.replace(self, path=path, aliases=())

    def value(self) -> Any:
        """Return the array now."""
        if isinstance(self.holder, Variable):
            return jax.tree.leaves(self.holder.raw_value)[self.position]
        return self.holder()


def find_entries(verb: str, tree: Any, *filters: Filter) -> list[Entry]:
    """Return the arrays of a module whose Variables match one of the filters, in order.

    Args:
      verb: The function that needs them, for messages.
      tree: A module, or any pytree with modules in it.
      *filters: The filters; none means all.

    Returns:
      The entries; a shared Variable is one, with its other paths as aliases.

    Raises:
      ArgumentError: If a value is neither an array nor a number, or if two paths have the same name.
      FilterError: If an argument is not a filter.
    """
    predicates = to_predicates(filters or (...,))
    walked = walk_tree(tree)
    leaves = list(walked.leaves())
    check_tags(predicates, leaves)
    others = _other_paths(walked)
    entries: list[Entry] = []
    for path, x in leaves:
        if first_match(predicates, path, x) < 0:
            continue
        if isinstance(x, Variable):
            entries += _entries_of_variable(verb, path, x, _aliases(path, others))
        else:
            entries.append(_entry(verb, path, functools.partial(_identity, x), 0, x))
    _check_names(entries)
    return entries


def check_match(verb: str, parameter: str, tree: Any, *filters: Filter) -> None:
    """Raise an error if a module has Variables and none of them matches one of the filters.

    Args:
      verb: What is done with those that match, for messages.
      parameter: How the filters are passed, for messages, after a space; empty if they are arguments.
      tree: A module, or any pytree with modules in it.
      *filters: The filters; none, or `...`, always match.

    Raises:
      FilterError: If nothing matches.
    """
    if not filters or (len(filters) == 1 and filters[0] is ...):
        return
    predicates = to_predicates(filters)
    leaves = list(walk_tree(tree).leaves())
    if leaves and all(first_match(predicates, path, x) < 0 for path, x in leaves):
        raise errors.FilterError(
            f"Nothing to {verb}: no Variable of the module matches {' or '.join(map(repr, predicates))}.",
            f"Pass a filter{parameter} that matches Variables of the module, such as liftnn.Param.",
        )


def find_names(tree: Any) -> list[str]:
    """Return the names of all Variables and array leaves of a module, under each of their paths.

    Args:
      tree: A module, or any pytree with modules in it.

    Returns:
      The names.
    """
    walked = walk_tree(tree)
    others = _other_paths(walked)
    names: list[str] = []
    for path, x in walked.leaves():
        value = x.raw_value if isinstance(x, Variable) else x
        for entries, _ in jax.tree_util.tree_flatten_with_path(value)[0]:
            below = tuple(map(key_of, entries))
            names += [name_of((*each, *below)) for each in (path, *_aliases(path, others))]
    return names


def _entries_of_variable(verb: str, path: Path, variable: Variable[Any], aliases: list[Path]) -> list[Entry]:
    """Return an entry for each array in the value of a Variable; none if it is empty."""
    found, _ = jax.tree_util.tree_flatten_with_path(variable.raw_value)
    entries: list[Entry] = []
    for position, (keys, leaf) in enumerate(found):
        below = tuple(key_of(entry) for entry in keys)
        entry = _entry(verb, (*path, *below), variable, position, leaf)
        entries.append(dataclasses.replace(entry, aliases=tuple((*other, *below) for other in aliases)))
    return entries


def _identity(x: Any) -> Any:
    return x


def _other_paths(walked: WalkedTree) -> Mapping[Path, list[Path]]:
    """Return the other paths of each shared object, by its first path."""
    return {paths[0]: paths[1:] for paths in find_all_paths(walked.graphdef).values() if len(paths) > 1}


def _aliases(path: Path, others: Mapping[Path, list[Path]]) -> list[Path]:
    """Return the other paths of a Variable: its own, and those through the other paths of each object above it.

    A path that leads from an object to itself is not among them.
    """
    found = [path]
    for one in found:  # which grows
        for depth in range(len(one), -1, -1):
            for other in others.get(one[:depth], ()):
                new = (*other, *one[depth:])
                if other[:depth] != one[:depth] and new not in found and len(found) < _MOST_PATHS:
                    found.append(new)
    return found[1:]


def _entry(verb: str, path: Path, holder: Any, position: int, leaf: Any) -> Entry:
    """Return the entry of an array or a number."""
    if not _is_array_or_number(leaf):
        raise errors.ArgumentError(
            f"{verb} takes arrays and numbers, but {format_path(path)} is of type {type(leaf).__qualname__}.",
            "Select other Variables with a filter, or store the object as a static attribute of a module.",
        )
    spec = Spec(jnp.shape(leaf), getattr(leaf, "dtype", None) or np.asarray(leaf).dtype)
    sharding = None if is_tracer(leaf) else target_sharding(leaf)
    return Entry(path, holder, position, spec, type(leaf), sharding, getattr(leaf, "weak_type", False))


def _is_array_or_number(x: Any) -> bool:
    return isinstance(x, (*NUMBER_TYPES, *ARRAY_TYPES))


def holds_arrays(x: Any) -> bool:
    """Return whether a Variable or array leaf holds nothing but arrays and numbers."""
    return all(map(_is_array_or_number, jax.tree.leaves(unwrap_raw(x))))


def _check_names(entries: list[Entry]) -> None:
    """Raise ArgumentError if two entries have the same name."""
    first: dict[str, Entry] = {}
    for entry in entries:
        other = first.setdefault(entry.name, entry)
        if other is not entry:
            raise errors.ArgumentError(
                f"{other.text} and {entry.text} have the same name {entry.name!r} in a weight file.",
                "Use other keys in the dict.",
            )
