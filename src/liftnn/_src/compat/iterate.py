"""Iterate over a tree of modules in the order of Flax NNX: children before what holds them, attributes sorted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from liftnn._src.compat.modes import accept_modes
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import LIST, TUPLE, VARIABLE, NodeKind
from liftnn._src.metrics import Metric
from liftnn._src.modules import iterate
from liftnn._src.modules.module import Module
from liftnn._src.modules.recursive_map import map_recursively
from liftnn._src.optim.optimizer import Optimizer
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.trees import Key, Path, sort_key

_NO_MODULES = (Metric, Optimizer, RngStream, Rngs)
"""Classes that are not Modules in Flax NNX, which has another base class for them."""


def _children(x: Any) -> list[tuple[Key, Any]]:
    """Return the children of a module or container by key: sorted, except those of a list or tuple."""
    kind = iterate.kind_of(x)
    if kind in iterate.LEAVES or kind is VARIABLE:
        return []
    _, keys, children = kind.flatten(x)
    return [(keys[i], children[i]) for i in _order(kind, keys)]


def _order(kind: NodeKind, keys: Sequence[Key]) -> Sequence[int]:
    """Return the positions of children by key: sorted, except those of a list or tuple."""
    positions = range(len(keys))
    return positions if kind in (LIST, TUPLE) else sorted(positions, key=lambda i: sort_key((keys[i],)))


@accept_modes
def iter_graph(node: Any, /) -> Iterator[tuple[Path, Any]]:
    """Iterate over everything that a tree of modules reaches, as `liftnn.iter_graph` does, in the order of Flax NNX.

    Args:
      node: A module, or any pytree with modules in it.

    Returns:
      An iterator over pairs of path and value. Children are before the object that holds them, attributes are sorted. A
      module, Variable or container is there once, an array or static value once for each path.

    Raises:
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> [path for path, x in nnx.iter_graph(model) if isinstance(x, (nnx.Variable, nnx.Module))]
      [('bias',), ('kernel',), ()]
    """
    walk_tree(node)  # raises for what cannot be part of a module
    return _iter(node)


def _iter(node: Any) -> Iterator[tuple[Path, Any]]:
    seen: dict[int, Any] = {}  # holds the objects, since flattening creates some, and ids are used again
    stack: list[tuple[Path, Any, bool]] = [((), node, False)]
    while stack:
        path, x, finished = stack.pop()
        if finished or iterate.kind_of(x) in iterate.LEAVES:
            yield path, x
        elif id(x) not in seen:
            seen[id(x)] = x
            stack.append((path, x, True))
            stack += [((*path, key), child, False) for key, child in _children(x)[::-1]]


@accept_modes
def iter_modules(module: Any, /) -> Iterator[tuple[Path, Any]]:
    """Iterate over all modules that a tree of modules reaches, the root included, in the order of Flax NNX.

    Args:
      module: A module, or any pytree with modules in it.

    Returns:
      An iterator over pairs of path and module, in the order of `iter_graph`. Streams of random keys, optimizers and
      metrics are left out.

    Raises:
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> [(path, type(x).__name__) for path, x in nnx.iter_modules(model)]
      [(('layers', 0), 'Linear'), ((), 'Sequential')]
    """
    found = ((path, x) for path, x in iter_graph(module) if isinstance(x, Module))
    return ((path, x) for path, x in found if not isinstance(x, _NO_MODULES))


@accept_modes
def iter_children(node: Any, /) -> Iterator[tuple[Key, Any]]:
    """Iterate over the modules and Variables that an object holds itself, sorted by attribute.

    Args:
      node: A module, or a list, dict or other container that modules can hold.

    Returns:
      An iterator over pairs of key and child.

    Raises:
      ArgumentTypeError: If the object cannot hold modules.

    Example:
      >>> from liftnn.compat import nnx
      >>> [key for key, x in nnx.iter_children(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))]
      ['bias', 'kernel']
    """
    iterate.iter_children(node)  # raises for what cannot hold modules
    return ((key, x) for key, x in _children(node) if hasattr(type(x), "__graph_node__"))


@accept_modes
def iter_module_children(node: Any, /) -> Iterator[tuple[Key, Any]]:
    """Iterate over the modules that an object holds itself, sorted by attribute.

    Args:
      node: A module, or a list, dict or other container that modules can hold.

    Returns:
      An iterator over pairs of key and module.

    Raises:
      ArgumentTypeError: If the object cannot hold modules.

    Example:
      >>> from liftnn.compat import nnx
      >>> [key for key, x in nnx.iter_module_children(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))]
      ['rngs']
    """
    return ((key, x) for key, x in iter_children(node) if isinstance(x, Module))


@accept_modes
def recursive_map(f: Callable[[Path, Any], Any], node: Any, /) -> Any:
    """Return a copy of a tree of modules in which a function may replace each object.

    It visits everything in the order of `iter_graph`.

    Args:
      f: Called with the path tuple and a module, container, Variable, array or static value; returns what to put in its
        place.
      node: A module, or any pytree with modules in it.

    Returns:
      What the function returns for the whole; see `liftnn.recursive_map`.

    Raises:
      StructureError: If something in the tree cannot be part of a module, or if an object is replaced that an immutable
        object below it refers to.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.5))
      >>> without = nnx.recursive_map(lambda path, x: nnx.identity if isinstance(x, nnx.Dropout) else x, model)
      >>> without.layers[1] is nnx.identity
      True
    """
    return map_recursively(f, node, _order)
