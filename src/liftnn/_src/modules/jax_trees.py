"""Modules as pytrees of JAX, for classes that are declared with `pytree=True`.

JAX gets the Variables and array leaves of all that a module reaches, each once, in the order of its State; the
structure is the GraphDef. So shared Variables stay shared, and cycles stay cycles, in the modules that JAX builds.
Under JAX's own transforms these can only be read, like Variables that are passed to one: a change would be lost.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import jax
from jax.tree_util import GetAttrKey, SequenceKey

from liftnn._src.graph.checks import ABSENT
from liftnn._src.graph.graphdef import GraphDef, walk_tree
from liftnn._src.graph.kinds import NodeKind
from liftnn._src.graph.merge import merge_all
from liftnn._src.graph.slots import Slot
from liftnn._src.graph.walk import OpenNode, Sharing, Walk
from liftnn._src.trees import Key, Path, is_array, sort_key
from liftnn._src.variables import frames

Keyed = tuple[Any, Any]
"""An entry of a JAX key path, and the child that it leads to."""


class Branch:
    """What a module holds below one attribute, so that the key paths of JAX have an entry for each key.

    Args:
      pairs: The entries of key paths, and the children.
    """

    __slots__ = ("pairs",)

    def __init__(self, pairs: Sequence[Keyed]):
        self.pairs = pairs


jax.tree_util.register_pytree_with_keys(
    Branch,
    lambda branch: (branch.pairs, tuple([entry for entry, _ in branch.pairs])),
    lambda entries, children: Branch(list(zip(entries, children, strict=True))),
    lambda branch: ([x for _, x in branch.pairs], tuple([entry for entry, _ in branch.pairs])),
)


def register(cls: type) -> None:
    """Register a class of modules as a pytree.

    Args:
      cls: The class.
    """
    jax.tree_util.register_pytree_with_keys(cls, _flatten_with_keys, _unflatten, _flatten)


def _flatten_with_keys(module: Any) -> tuple[list[Keyed], GraphDef[Any]]:
    _, substitutes = _substitutes_in.get(id(module), (None, {}))
    walked = walk_tree(module, functools.partial(_Walk, substitutes)) if substitutes else walk_tree(module)
    leaves = [(path, walked.leaf(slot)) for path, slot in _in_order(walked.graphdef)]
    return _nest([(path, x.value if type(x) is _Substitute else x) for path, x in leaves]), walked.graphdef


def _flatten(module: Any) -> tuple[list[Any], GraphDef[Any]]:
    pairs, graphdef = _flatten_with_keys(module)
    return [x for _, x in pairs], graphdef


def _unflatten(graphdef: GraphDef[Any], children: Iterable[Any]) -> Any:
    leaves = dict(zip([slot for _, slot in _in_order(graphdef)], _leaves(children), strict=True))
    owner = frames.owner_now()
    module, merged = merge_all(
        graphdef,
        [leaves[slot] for slot in graphdef.slots],
        owner if isinstance(owner, frames.Frame) else frames.COPIED,
        {slot.node: x for slot, x in leaves.items() if slot.key is None},
    )
    substitutes = {
        (id(merged.objects[slot.node]), slot.key): x
        for slot, x in leaves.items()
        if slot.key is not None and not is_array(x)
    }
    if substitutes:
        number = id(module)
        _substitutes_in[number] = (
            weakref.ref(module, lambda _: _substitutes_in.pop(number, None)),
            substitutes,
        )
    return module


_substitutes_in: dict[int, tuple[Any, dict[tuple[int, Key], Any]]] = {}
"""By the id of a module: a reference to it, and what stands for array leaves in it, by the holder's id and the key.

`jax.tree.map` may replace arrays by anything, as in a mask of booleans, which is a tree of the same structure.
"""


class _Substitute(jax.ShapeDtypeStruct):
    """What stands for an array leaf, as an abstract array for the walk.

    Args:
      value: The object.
    """

    def __init__(self, value: Any):
        super().__init__((), bool)
        self.value = value


class _Walk(Walk):
    """A walk of a module in which other objects stand for array leaves.

    Args:
      substitutes: The objects, by the id of the holder and the key.
      sharing: See `Walk`.
    """

    def __init__(self, substitutes: Mapping[tuple[int, Key], Any], sharing: Sharing):
        super().__init__(sharing=sharing)
        self._substitutes = substitutes

    def _enter(self, kind: NodeKind, cls: type, child: Any) -> tuple[Any, OpenNode | None]:
        edge, node = super()._enter(kind, cls, child)
        if node is not None:
            pairs = zip(node.keys, node.children, strict=True)
            known = [(self._substitutes.get((id(child), key), ABSENT), x) for key, x in pairs]
            node.children = [_Substitute(x) if found is x else x for found, x in known]
        return edge, node


_orders: weakref.WeakKeyDictionary[GraphDef[Any], list[tuple[Path, Slot]]] = weakref.WeakKeyDictionary()


def _in_order(graphdef: GraphDef[Any]) -> list[tuple[Path, Slot]]:
    """Return the path and slot of each leaf, in the order of a State as a pytree: by keys, numbers before names."""
    found = _orders.get(graphdef)
    if found is None:
        found = sorted(graphdef.leaves.items(), key=lambda pair: sort_key(pair[0]))
        _orders[graphdef] = found
    return found


def _nest(leaves: Sequence[tuple[Path, Any]], depth: int = 0) -> list[Keyed]:
    """Return the children of a module, or of a branch, from leaves by path; those of one key are next to each other."""
    children: list[Keyed] = []
    for key, found in groupby(leaves, lambda leaf: leaf[0][depth]):
        below = list(found)
        if len(below[0][0]) == depth + 1:  # in a Variable with leaves in its metadata, others follow
            children.append((_entry(key), below.pop(0)[1]))
        if below:
            children.append((_entry(key), Branch(_nest(below, depth + 1))))
    return children


def _entry(key: Key) -> Any:
    return SequenceKey(key) if type(key) is int else GetAttrKey(str(key))


def _leaves(children: Iterable[Any]) -> Iterator[Any]:
    """Yield the Variables and arrays below a module."""
    for x in children:
        if type(x) is Branch:
            yield from _leaves([child for _, child in x.pairs])
        else:
            yield x
