"""`recursive_map`: a copy of a tree of modules in which a function replaces modules, Variables and other values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from liftnn import errors
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import VARIABLE, NodeKind
from liftnn._src.modules.copies import copy_modules
from liftnn._src.modules.iterate import LEAVES, kind_of
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Key, Path, an, format_path

T = TypeVar("T")


@boundary
def recursive_map(f: Callable[[Path, Any], Any], tree: T, /) -> T:
    """Return a copy of a tree of modules in which a function may replace each object.

    The function is called with everything that the tree reaches: with the children of an object before the object,
    which then holds their replacements. Modules and containers are copies; Variables and arrays are those of the tree.

    Args:
      f: Called with the path tuple and a module, container, Variable, array or static value; returns what to put in its
        place. It is called once for a shared object, with its first path.
      tree: A module, or any pytree with modules in it.

    Returns:
      What the function returns for the whole.

    Raises:
      StructureError: If something in the tree cannot be part of a module, or if an object is replaced that an immutable
        object below it refers to.

    Example:
      >>> import liftnn
      >>> model = liftnn.Sequential(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), liftnn.Dropout(0.5))
      >>> without = liftnn.recursive_map(
      ...   lambda path, x: liftnn.identity if isinstance(x, liftnn.Dropout) else x, model
      ... )
      >>> without[1] is liftnn.identity, without[0].kernel is model[0].kernel
      (True, True)
    """
    return map_recursively(f, tree, lambda kind, keys: range(len(keys)))


Order = Callable[[NodeKind, Sequence[Key]], Sequence[int]]
"""Returns the positions of the children of a node, given its kind and its keys, in the order to visit them."""


def map_recursively(f: Callable[[Path, Any], Any], tree: T, order: Order) -> T:
    """Do what `recursive_map` does, with the children of each object in an order.

    Args:
      f: The user's function.
      tree: The tree.
      order: The order.

    Returns:
      What the function returns for the whole.
    """
    return RecursiveMap(f, order).map(copy_modules(walk_tree(tree)))


class RecursiveMap:
    """The walk of `recursive_map` over a copy: an object after its children.

    Args:
      f: The user's function.
      order: The order of the children.
    """

    def __init__(self, f: Callable[[Path, Any], Any], order: Order):
        self._f = f
        self._order = order
        self._results: dict[int, tuple[Any, Any]] = {}
        """Each finished object and its replacement, by the id of the object."""
        self._late: list[tuple[Any, Path]] = []
        """Objects that hold an object above them, to be filled again if that is replaced."""

    def map(self, tree: Any) -> Any:
        """Map a tree, and replace the references to objects that were not finished when they were met."""
        top = _PendingValue((), tree, self._order)
        stack, opened = [top], {id(tree)}
        while True:
            node = stack[-1]
            child = node.next(self._results)
            if child is None:
                stack.pop()
                self._finish(node)
                if not stack:
                    break
                stack[-1].take(self._results[id(node.value)][1])
            elif id(child.value) in opened and child.is_node:
                self._late.append((node.value, node.path))
                node.take(child.value)
            elif child.is_node:
                opened.add(id(child.value))
                stack.append(child)
            else:
                node.take(self._f(child.path, child.value))
        for x, path in self._late:
            self._fill_again(*self._results[id(x)], path)
        return self._results[id(tree)][1]

    def _finish(self, node: _PendingValue) -> None:
        """Put the new children into an object, and call the function."""
        self._results[id(node.value)] = (node.value, self._f(node.path, node.rebuild()))

    def _fill_again(self, x: Any, new: Any, path: Path) -> None:
        """Put the replacements of objects above into an object, if they were replaced."""
        kind = kind_of(x)
        extra, keys, children = kind.flatten(x)
        found = [self._results.get(id(c), (c, c)) for c in children]
        replaced = [r if old is c else c for c, (old, r) in zip(children, found, strict=True)]
        if all(a is b for a, b in zip(replaced, children, strict=True)):
            return
        if kind.frozen:
            raise errors.StructureError(
                f"{format_path(path)} is {an(type(x))}, which is immutable, but an object above it, to which it "
                "refers, was replaced.",
                "Return the object itself from the function, after changing its attributes.",
            )
        kind.fill(x, extra, keys, replaced)


class _PendingValue:
    """A value whose children are being mapped.

    Args:
      path: Its path.
      value: The value.
      order: The order of children.
    """

    __slots__ = ("_order", "_todo", "children", "extra", "is_node", "keys", "kind", "path", "taken", "value")

    def __init__(self, path: Path, value: Any, order: Order):
        self.path, self.value, self.kind, self._order = path, value, kind_of(value), order
        self.is_node = self.kind not in LEAVES
        self.extra, self.keys, self.children = None, (), ()
        if self.is_node and self.kind is not VARIABLE:
            self.extra, self.keys, self.children = self.kind.flatten(value)
        self._todo = list(order(self.kind, self.keys))[::-1]
        self.taken: list[Any] = [None] * len(self.children)

    def next(self, results: dict[int, tuple[Any, Any]]) -> _PendingValue | None:
        """Return the next child, after taking those that are finished; None at the end."""
        while self._todo:
            child = self.children[self._todo[-1]]
            found = results.get(id(child))
            if found is None or found[0] is not child:
                return _PendingValue((*self.path, self.keys[self._todo[-1]]), child, self._order)
            self.take(found[1])
        return None

    def take(self, new: Any) -> None:
        """Take what replaces the next child."""
        self.taken[self._todo.pop()] = new

    def rebuild(self) -> Any:
        """Return the value with its new children: the same object if it is mutable."""
        if all(a is b for a, b in zip(self.taken, self.children, strict=True)):
            return self.value
        if self.kind.frozen:
            return self.kind.unflatten(type(self.value), self.extra, tuple(self.keys), self.taken)
        self.kind.fill(self.value, self.extra, tuple(self.keys), self.taken)
        return self.value


publish(recursive_map)
