"""Nested mappings and mappings by path, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from liftnn import errors
from liftnn._src.trees import Path, an


class _EmptyNode:
    """The type of `empty_node`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "empty_node"


empty_node = _EmptyNode()
"""The leaf that stands for an empty mapping, if `keep_empty_nodes` is True."""

IsLeaf = Callable[[Path, Mapping[Any, Any]], bool]


def flatten_to_sequence(
    xs: Mapping[Any, Any], /, *, is_leaf: IsLeaf | None = None, keep_empty_nodes: bool = False
) -> list[tuple[Path, Any]]:
    """Return the leaves of a nested mapping by path, in order.

    Args:
      xs: The nested mapping.
      is_leaf: Called with the path of a mapping and the mapping; returns whether the mapping is a leaf. The default,
        None, means that no mapping is a leaf.
      keep_empty_nodes: Whether an empty mapping below the root is a leaf, `empty_node`.

    Returns:
      Pairs of path and leaf.

    Raises:
      ArgumentTypeError: If `xs` is not a mapping.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.traversals.flatten_to_sequence({"a": {"b": 1}, "c": 2})
      [(('a', 'b'), 1), (('c',), 2)]
    """
    if not isinstance(xs, Mapping):
        raise errors.ArgumentTypeError(
            f"Only a mapping can be flattened by path, not {an(type(xs))}.", "Pass a dict or a State."
        )
    found: list[tuple[Path, Any]] = []
    stack: list[tuple[Path, Any]] = [((), xs)]
    while stack:
        path, x = stack.pop()
        if not isinstance(x, Mapping) or (is_leaf is not None and is_leaf(path, x)):
            found.append((path, x))
        elif x:
            stack += [((*path, key), child) for key, child in x.items()][::-1]
        elif keep_empty_nodes and path:
            found.append((path, empty_node))
    return found


def flatten_mapping(
    xs: Mapping[Any, Any],
    /,
    *,
    keep_empty_nodes: bool = False,
    is_leaf: IsLeaf | None = None,
    sep: str | None = None,
) -> dict[Any, Any]:
    """Return the leaves of a nested mapping as a dict by path; the inverse of `unflatten_mapping`.

    Args:
      xs: The nested mapping.
      keep_empty_nodes: Whether an empty mapping below the root is a leaf, `empty_node`. The default leaves it out.
      is_leaf: Called with the path of a mapping and the mapping; returns whether the mapping is a leaf. The default,
        None, means that no mapping is a leaf.
      sep: Joins the keys of a path to a string. The default, None, keeps tuples.

    Returns:
      The dict.

    Raises:
      ArgumentTypeError: If `xs` is not a mapping.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.traversals.flatten_mapping({"a": {"b": 1}, "c": 2}, sep="/")
      {'a/b': 1, 'c': 2}
    """
    leaves = flatten_to_sequence(xs, is_leaf=is_leaf, keep_empty_nodes=keep_empty_nodes)
    return {path if sep is None else sep.join(path): x for path, x in leaves}


def unflatten_mapping(
    xs: Mapping[Any, Any] | Iterable[tuple[Any, Any]], /, *, sep: str | None = None
) -> dict[Any, Any]:
    """Return nested dicts from leaves by path; the inverse of `flatten_mapping`.

    Args:
      xs: A mapping from paths to leaves, or pairs of path and leaf.
      sep: What separates the keys in a path that is a string. The default, None, takes tuples.

    Returns:
      The nested dicts.

    Raises:
      ArgumentTypeError: If `xs` is neither a mapping nor an iterable.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.traversals.unflatten_mapping({("a", "b"): 1, ("c",): 2})
      {'a': {'b': 1}, 'c': 2}
    """
    if not isinstance(xs, Iterable):
        raise errors.ArgumentTypeError(
            f"Leaves by path must be a mapping or pairs of path and leaf, not {an(type(xs))}.",
            "Pass what flatten_mapping returns.",
        )
    tree: dict[Any, Any] = {}
    pairs: Iterable[tuple[Any, Any]] = xs.items() if isinstance(xs, Mapping) else xs
    for path, x in pairs:
        key_path: Any = path
        *above, last = key_path if sep is None else key_path.split(sep)
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = {} if x is empty_node else x
    return tree
