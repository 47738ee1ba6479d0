"""The static description of an object graph: flat, hashable and compared by content.

Nodes are numbered in depth-first order. A node's spec lists its children as *edges*:

- an int: the node with that number;
- `ARRAY`: an array leaf; `slots.py` says how it is addressed;
- `(type, value)`: a static value of a simple type;
- `Static`: any other static value;
- `KEEP`: in the description of a change, the child that the object already has.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple, TypeVar, overload

from liftnn._src.graph.kinds import VARIABLE, NodeKind
from liftnn._src.graph.slots import ARRAY, ROOT, Slot, array_slots, tree_slots
from liftnn._src.static_values.static import Static
from liftnn._src.trees import Path, key_of, same_tree

Edge = Any
T = TypeVar("T")


class KeepEdge:
    """The edge of an unchanged child, equal only to itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "KEEP"

    def __reduce__(self) -> str:
        return "KEEP"


KEEP = KeepEdge()
"""In the description of a change, the edge of a child that the object already has."""


class TypeByName:
    """A class without an importable name; it unpickles as the class.

    Args:
      name: Its name in `types`.
    """

    def __init__(self, name: str):
        self.name = name

    def __reduce__(self) -> Any:
        return (type_named, (self.name,))


def type_named(name: str) -> type:
    """Return a class of `types` by name, for unpickling."""
    return getattr(types, name)


_TYPES_BY_NAME: dict[type, str] = {
    getattr(types, name): name for name in ("FunctionType", "CellType", "MethodType", "BuiltinFunctionType")
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
        return (NodeSpec, (self.kind, self.type if name is None else TypeByName(name), *self[2:]))


def keep_leaves(spec: NodeSpec) -> NodeSpec:
    """Return the change that replaces the references of a node to other nodes and keeps everything else."""
    return spec._replace(edges=tuple([e if type(e) is int else KEEP for e in spec.edges]))


def find_holders(specs: Sequence[NodeSpec], changed: Set[int]) -> set[int]:
    """Return the nodes that must change because a frozen node that they hold is rebuilt.

    Args:
      specs: Node specs by number.
      changed: The numbers of the nodes that change anyway.

    Returns:
      The numbers of the other nodes.
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
    """The paths of the leaves of a tree, computed from JAX's key paths when first used.

    A treedef does not contain them, and its tree cannot be rebuilt without its leaves, since a class may check them.
    Any two LeafPaths are equal: they accompany a treedef, which is compared instead.

    Args:
      entries: The path of each leaf as a JAX key path, or as a tuple of keys.
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
        """Return the paths of the same leaves in a tree that has this one below the given keys."""
        return LeafPaths([(*keys, *path) for path in self._all()])


class GraphSpec:
    """The static part of a tree of modules: classes, attributes, sharing, cycles, static values and metadata.

    Two are equal if all of these are equal.

    Args:
      treedef: Structure of the tree that was split; None if it was a single module.
      edges: One for each leaf of that tree.
      specs: One for each node, by number.
      frozen: Numbers of the nodes that can only be built after their children, in a valid build order.
      paths: The path of each leaf of that tree, which the treedef lacks.
    """

    __slots__ = (
        "__weakref__", "_hash", "_leaves", "_slots", "edges", "frozen", "paths", "specs", "to_fill", "treedef",
        "variables",
    )  # fmt: skip

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
        variables: list[int] = []
        to_fill: list[int] = []
        for number, (kind, _, _, keys, _) in enumerate(specs):
            if kind is VARIABLE:
                variables.append(number)
            if (keys or kind is not VARIABLE) and not kind.frozen:
                to_fill.append(number)
        self.variables = tuple(variables)
        """The numbers of the Variables."""
        self.to_fill = tuple(to_fill)
        """The numbers of the nodes that are created empty and filled later."""
        self._hash = hash((treedef, edges, specs))
        self._leaves: dict[Path, Slot] | None = None
        self._slots: tuple[Slot, ...] | None = None

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, GraphSpec):
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
    def starts(self) -> Iterator[tuple[Slot, Path, Edge]]:
        """Slot, path and edge of each leaf of the tree that was split."""
        pairs = enumerate(zip(self.paths, self.edges, strict=True))
        return ((Slot(ROOT, i), path, edge) for i, (path, edge) in pairs)

    @property
    def references(self) -> list[int]:
        """The number of a node for each edge that leads to it."""
        every = (self.edges, *(spec.edges for spec in self.specs))
        return [e for edges in every for e in edges if type(e) is int]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every dynamic leaf: the values of Variables, then the array leaves of the tree, then those of nodes."""
        if self._slots is None:
            values, arrays = map(Slot, self.variables), array_slots(enumerate(self.specs))
            self._slots = (*values, *tree_slots(ROOT, self.edges), *arrays)
        return self._slots

    @property
    def leaves(self) -> dict[Path, Slot]:
        """Every dynamic leaf by its first path, depth first."""
        if self._leaves is None:
            self._leaves = find_leaves(self.specs, self.starts)
        return self._leaves


def walk_edges(
    specs: Sequence[NodeSpec], starts: Iterable[tuple[Slot, Path, Edge]]
) -> Iterator[tuple[Slot, Path, Edge]]:
    """Traverse a graph depth first, in attribute order, entering each node once.

    Args:
      specs: Node specs by number.
      starts: Slot, path and edge of each start.

    Yields:
      Slot, path and edge of every edge, including the starts.
    """
    entered: set[int] = set()
    for start in starts:
        stack = [start]
        while stack:
            slot, path, edge = stack.pop()
            yield slot, path, edge
            if type(edge) is int and edge not in entered:
                entered.add(edge)
                spec = specs[edge]
                pairs = zip(spec.keys, spec.edges, strict=True)
                stack += [(Slot(edge, k), (*path, k), e) for k, e in pairs][::-1]


def find_leaves(specs: Sequence[NodeSpec], starts: Iterable[tuple[Slot, Path, Edge]]) -> dict[Path, Slot]:
    """Return every dynamic leaf reachable from the starts, by its first path, in attribute order; see `walk_edges`."""
    leaves: dict[Path, Slot] = {}
    seen: set[int] = set()
    for slot, path, edge in walk_edges(specs, starts):
        if edge is ARRAY:
            leaves[path] = slot
        elif type(edge) is int and edge not in seen:
            seen.add(edge)
            if specs[edge].kind is VARIABLE:
                leaves[path] = Slot(edge)
    return leaves


def find_all_paths(description: GraphSpec) -> dict[int, list[Path]]:
    """Return every path to each node, without entering a node twice."""
    paths: dict[int, list[Path]] = {}
    for _, path, edge in walk_edges(description.specs, description.starts):
        if type(edge) is int:
            paths.setdefault(edge, []).append(path)
    return paths


def first_paths(specs: Sequence[NodeSpec], starts: Iterable[tuple[Edge, T]]) -> dict[int, tuple[T, Path]]:
    """Return the first path to each node, with the starts in order and depth first.

    Args:
      specs: Node specs by number.
      starts: Pairs of an edge and a label.

    Returns:
      By node number, the label of the start, and the path from there.
    """
    found: dict[int, tuple[T, Path]] = {}
    for _, (start, *path), edge in walk_edges(
        specs, ((Slot(ROOT), (start,), edge) for edge, start in starts)
    ):
        if type(edge) is int and edge not in found:
            found[edge] = (start, tuple(path))
    return found


def reach(
    specs: Sequence[NodeSpec],
    edges: Iterable[Edge],
    enter: Callable[[NodeSpec], bool] = lambda spec: True,
    without: Collection[int] = (),
) -> dict[int, None]:
    """Return the nodes reachable from some edges.

    Args:
      specs: Node specs by number.
      edges: The edges.
      enter: A predicate: whether to include a node and to follow its edges. The default includes all.
      without: Nodes that are neither included nor followed. The default is none.

    Returns:
      Their numbers, an ordered set.
    """
    found: dict[int, None] = {}
    stack = list(edges)
    while stack:
        number = stack.pop()
        if type(number) is int and number not in found and number not in without and enter(specs[number]):
            found[number] = None
            stack += specs[number].edges
    return found


def static_of(edge: Edge) -> Any:
    """Return the value of a static edge."""
    return edge.value if isinstance(edge, Static) else edge[1]
