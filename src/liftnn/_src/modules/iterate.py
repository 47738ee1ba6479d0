"""Iterate over what a tree of modules reaches: everything, the modules, or the children of one object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.attributes import Attributed
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import ARRAY_NODE, FLOAT, SIMPLE, STATIC, classify, is_object, kind_by_type
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Key, Path, an, key_of


@boundary
def iter_graph(tree: Any, /) -> Iterator[tuple[Path, Any]]:
    """Iterate over everything that a tree of modules reaches: modules, Variables, containers, arrays, static values.

    Args:
      tree: A module, or any pytree with modules in it.

    Returns:
      An iterator over pairs of path and value, depth first in attribute order; each object once, at its first path.

    Raises:
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> [path for path, x in liftnn.iter_graph(model) if isinstance(x, liftnn.Variable)]
      [('kernel',), ('bias',)]
    """
    graphdef, objects, _ = walk_tree(tree)
    numbers = {id(x): number for number, x in enumerate(objects)}
    found: list[tuple[Path, Any]] = []
    seen: set[int] = set()
    todo = root_leaves(tree)[::-1]
    while todo:
        path, x = todo.pop()
        number = numbers.get(id(x))
        if number in seen:
            continue
        found.append((path, x))
        if number is not None:
            seen.add(number)
            spec = graphdef.specs[number]
            if spec.keys:
                _, keys, children = spec.kind.flatten(x)
                todo += [((*path, k), child) for k, child in zip(keys, children, strict=True)][::-1]
    return iter(found)


def root_leaves(tree: Any) -> list[tuple[Path, Any]]:
    """Return the leaves of a tree of modules, with their paths.

    Args:
      tree: A module, or any pytree with modules in it.

    Returns:
      Pairs of path and leaf.
    """
    entries, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_object)
    return [(tuple(map(key_of, path)), leaf) for path, leaf in entries]


@boundary
def iter_modules(tree: Any, /) -> Iterator[tuple[Path, Any]]:
    """Iterate over all modules that a tree of modules reaches, the root included.

    Args:
      tree: A module, or any pytree with modules in it.

    Returns:
      An iterator over pairs of path and module, depth first in attribute order; each once, at its first path.

    Raises:
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import liftnn
      >>> model = liftnn.Sequential(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
      >>> [(path, type(x).__name__) for path, x in liftnn.iter_modules(model)]
      [((), 'Sequential'), (('layers', 0), 'Linear')]
    """
    return ((path, x) for path, x in iter_graph(tree) if isinstance(x, Attributed))


@boundary
def iter_children(node: Any, /) -> Iterator[tuple[Key, Any]]:
    """Iterate over the modules, Variables and containers that an object holds itself.

    Args:
      node: A module, or a list, dict or other container that modules can hold.

    Returns:
      An iterator over pairs of key and child, in attribute order. A list or dict of static values is a child too.

    Raises:
      ArgumentTypeError: If the object cannot hold modules.

    Example:
      >>> import liftnn
      >>> [key for key, x in liftnn.iter_children(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))]
      ['kernel', 'bias']
    """
    kind = kind_of(node)
    if kind in LEAVES:
        raise errors.ArgumentTypeError(
            f"iter_children takes a module or a container, not {an(type(node))}.",
            "Pass the module that holds it.",
        )
    _, keys, children = kind.flatten(node)
    return ((k, x) for k, x in zip(keys, children, strict=True) if kind_of(x) not in LEAVES)


LEAVES = (SIMPLE, FLOAT, STATIC, ARRAY_NODE)
"""The kinds of values without children."""


def kind_of(x: Any) -> Any:
    """Return the kind of a value."""
    return kind_by_type(type(x)) or classify(x)
