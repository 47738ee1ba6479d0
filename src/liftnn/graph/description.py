"""The static description of an object graph: flat, hashable and equal by content.

Nodes are numbered in the order in which a depth-first walk meets them. A node's spec lists its children as *edges*:

- an int: the node of that number;
- `ARRAY`: a bare array; which one is given by the order of visit, node by node;
- `(type, value)`: a static value of a simple type;
- `Static`: any other static value;
- `KEEP`: in the description of a change, what the object has there already.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any, NamedTuple, TypeVar, overload

from liftnn.graph.kinds import VARIABLE, NodeKind
from liftnn.trees import Path, key_of, same_tree
from liftnn.variables.static import Static

Edge = Any
T = TypeVar("T")


class _Sentinel:
    """A named constant that is equal to itself only."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return self.name


ARRAY = _Sentinel("ARRAY")
KEEP = _Sentinel("KEEP")


class _TypeByName:
    """A class that Python gives no importable name of its own; unpickles as the class.

    Args:
      name: Its name in `types`.
    """

    def __init__(self, name: str):
        self.name = name

    def __reduce__(self) -> Any:
        return (_type_named, (self.name,))


def _type_named(name: str) -> type:
    """Unpickles a class of `types`."""
    return getattr(types, name)


_TYPES_BY_NAME: dict[type, str] = {
    getattr(types, name): name for name in ("FunctionType", "CellType", "MethodType")
}


class NodeSpec(NamedTuple):
    """One node: its kind, class, static extra, and edges by key."""

    kind: NodeKind
    type: type
    extra: Any
    keys: tuple[Any, ...]
    edges: tuple[Edge, ...]

    def __reduce__(self) -> Any:
        name = _TYPES_BY_NAME.get(self.type)
        return (NodeSpec, (self.kind, self.type if name is None else _TypeByName(name), *self[2:]))


def keep_leaves(spec: NodeSpec) -> NodeSpec:
    """The change that renews the references of a node and keeps everything else."""
    return spec._replace(edges=tuple([e if type(e) is int else KEEP for e in spec.edges]))


def find_holders(specs: Sequence[NodeSpec], changed: Set[int]) -> set[int]:
    """The nodes that must be changed because a frozen node that they hold is built anew.

    Args:
      specs: Node specs by number.
      changed: The nodes that change anyway.

    Returns:
      The numbers of the others.
    """
    found: set[int] = set()
    renewed = {i for i in changed if specs[i].kind.frozen}
    while renewed:
        holders = {
            i
            for i, spec in enumerate(specs)
            if i not in changed
            and i not in found
            and any(type(e) is int and e in renewed for e in spec.edges)
        }
        found |= holders
        renewed = {i for i in holders if specs[i].kind.frozen}
    return found


class LeafPaths(Sequence[Path]):
    """The paths of the leaves of a tree, made from JAX's when they are first asked for.

    A treedef does not have them, and its tree cannot be rebuilt without its leaves: a class may check them. Any two are
    equal, since they go with a treedef, which is compared.

    Args:
      entries: The path of each leaf as JAX gives it, or as a tuple of keys.
    """

    __slots__ = ("_entries", "_paths")

    def __init__(self, entries: Iterable[Sequence[Any]] = ((),)):
        self._entries: Sequence[Sequence[Any]] = list(entries)
        self._paths: list[Path] | None = None

    def _all(self) -> list[Path]:
        if self._paths is None:
            self._paths = [tuple(map(key_of, path)) for path in self._entries]
        return self._paths

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Path]: ...

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LeafPaths)

    def __hash__(self) -> int:
        return 0

    def __reduce__(self) -> Any:
        return (LeafPaths, (self._all(),))

    def below(self, *keys: Any) -> LeafPaths:
        """The paths of the same leaves in a tree that has this one at some keys."""
        return LeafPaths([(*keys, *path) for path in self._all()])


class Leaf(NamedTuple):
    """One place in a graph that holds arrays: a Variable or a bare array, at its first path.

    Args:
      path: From the root down.
      node: Number of the Variable, or of the node that holds the array; -1 for the root.
      position: Which of the node's arrays; -1 for a Variable.
    """

    path: Path
    node: int
    position: int


class Description:
    """The static part of a tree of modules: classes, attributes, sharing, cycles, static values and metadata.

    Two are equal if all of this is.

    Args:
      treedef: Structure of the tree that was split; None if it was a single module.
      edges: One for each leaf of that tree.
      specs: One for each node, by number.
      frozen: Numbers of the nodes that can only be built after their children, in an order that allows it.
      paths: The path of each leaf of that tree, which a treedef does not tell.
    """

    __slots__ = ("__weakref__", "_hash", "_leaves", "edges", "frozen", "paths", "specs", "treedef")

    def __init__(
        self,
        treedef: Any,
        edges: tuple[Edge, ...],
        specs: tuple[NodeSpec, ...],
        frozen: tuple[int, ...],
        paths: LeafPaths,
    ):
        self.treedef = treedef
        self.edges = edges
        self.specs = specs
        self.frozen = frozen
        self.paths = paths
        self._hash = hash((treedef, edges, specs))
        self._leaves: tuple[Leaf, ...] | None = None

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Description):
            return NotImplemented
        return (
            self._hash == other._hash
            and self.edges == other.edges
            and same_tree(self.treedef, other.treedef)
            and same_tree(self.specs, other.specs)
        )

    def __reduce__(self) -> Any:
        return (type(self), (self.treedef, self.edges, self.specs, self.frozen, self.paths))

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Every Variable and every bare array, in the order of the walk, each at its first path."""
        if self._leaves is None:
            self._leaves = tuple(find_leaves(self))
        return self._leaves


def walk_specs(
    description: Description, enter: Callable[[int, Path], bool], array: Callable[[int, int, Path], None]
) -> None:
    """Goes through a graph depth first, in attribute order.

    Args:
      description: The graph.
      enter: Called with the number and path of each reference met; says whether to go into that node.
      array: Called with node number, position among the node's arrays, and path of each bare array met.
    """
    stack = [(-1, list(zip(description.paths, description.edges, strict=True))[::-1], 0)]
    while stack:
        node, todo, position = stack.pop()
        while todo:
            path, edge = todo.pop()
            if type(edge) is int:
                if enter(edge, path):
                    spec = description.specs[edge]
                    stack.append((node, todo, position))
                    pairs = [((*path, k), e) for k, e in zip(spec.keys, spec.edges, strict=True)]
                    stack.append((edge, pairs[::-1], 0))
                    break
            elif edge is ARRAY:
                array(node, position, path)
                position += 1


def find_leaves(description: Description) -> list[Leaf]:
    """Every Variable and every bare array, in the order of the walk, each at its first path."""
    leaves: list[Leaf] = []
    seen: set[int] = set()

    def enter(number: int, path: Path) -> bool:
        if number in seen:
            return False
        seen.add(number)
        if description.specs[number].kind is VARIABLE:
            leaves.append(Leaf(path, number, -1))
        return True

    walk_specs(description, enter, lambda node, position, path: leaves.append(Leaf(path, node, position)))
    return leaves


def find_all_paths(description: Description) -> dict[int, list[Path]]:
    """Every path by which each node is reached, not going into a node twice."""
    paths: dict[int, list[Path]] = {}

    def enter(number: int, path: Path) -> bool:
        paths.setdefault(number, []).append(path)
        return len(paths[number]) == 1

    walk_specs(description, enter, lambda *_: None)
    return paths


def first_paths(specs: Sequence[NodeSpec], starts: Iterable[tuple[Edge, T]]) -> dict[int, tuple[T, Path]]:
    """How each node is reached first, going from one start after the other into all that is below.

    Args:
      specs: Node specs by number.
      starts: Pairs of an edge and what to note for it.

    Returns:
      By number, what was noted for the start, and the path from there.
    """
    found: dict[int, tuple[T, Path]] = {}
    for edge, start in starts:
        stack: list[tuple[Edge, Path]] = [(edge, ())]
        while stack:
            number, path = stack.pop()
            if type(number) is int and number not in found:
                found[number] = (start, path)
                spec = specs[number]
                stack += [(e, (*path, k)) for k, e in zip(spec.keys, spec.edges, strict=True)][::-1]
    return found


def static_of(edge: Edge) -> Any:
    """The value of a static edge."""
    return edge.value if isinstance(edge, Static) else edge[1]
