"""Find captured modules: closures, globals, defaults, bound objects, containers and attributes that lead to them.

The search runs no user code. It starts with the closure cells of a function, the globals that its code names and its
defaults, and continues through functions, containers and attributes. Of classes, Python modules and other objects it
follows only the attributes that the code names. It skips libraries that do not use liftnn; see `libraries.py`. A
captured module that the search misses is detected when it is used (see `retries.RetryWithCaptures`). Then `find_missed`
looks for it everywhere, so that the steps to it are guarded, too; see `missed.py`.

The search is a depth-first walk with an explicit stack. It returns the modules, the guards (see `guards.py`), and the
shape of the objects between function and modules: which element of which container, in which order, led to which
module. The shape is part of the cache key, since code can observe it, for example by `len(models)` or the order of a
dict.
"""

from __future__ import annotations

import collections
import types
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple

from liftnn._src.captures.code_names import Names, names_in, names_read_in
from liftnn._src.captures.expand import Scope, expand
from liftnn._src.captures.guards import Guard, Guards, Leading, LeadingObject
from liftnn._src.captures.libraries import is_library
from liftnn._src.captures.module_classes import has_class, is_own
from liftnn._src.captures.shape import CapturedShape, Holder, Link, identity_of
from liftnn._src.captures.steps import ClassOf, Expansion, Step, name_from
from liftnn._src.graph.checks import Elements, is_atom
from liftnn._src.static_values.static import is_foreign
from liftnn._src.variables.holding import is_container

_SEARCH_LIMIT = 10_000
"""The maximum number of objects to visit: a global may refer to the whole program."""
_MOST_OBVIOUS = 8
"""The maximum number of functions in which `captures_nothing` looks."""


class Captured(NamedTuple):
    """The modules and Variables that functions capture.

    Args:
      roots: The modules and Variables, by their name in the code.
      guards: While they hold, another search finds the same.
      shape: The objects between the functions and the roots, for the cache key.
      names_classes: Whether the code names a class of modules, so it may create a module.
    """

    roots: dict[str, Any]
    guards: Guards
    shape: CapturedShape
    names_classes: bool


class _Node:
    """One object that the search has visited.

    Args:
      x: The object; kept alive, so that its id stays valid.
      above: The node that led to it first.
      label: The suffix that it adds to the name of the node above.
      exact: Whether it is part of a cache key; then its atoms are guarded by identity.
    """

    __slots__ = ("above", "exact", "expansion", "holds", "label", "leads", "parents", "quiet", "targets", "x")

    def __init__(self, x: Any, above: _Node | None, label: str, exact: bool):
        self.x = x
        self.above = above
        self.label = label
        self.exact = exact
        self.expansion: Expansion | None = None
        self.quiet = above is not None and (
            above.quiet or (above.expansion is not None and above.expansion.quiet)
        )
        self.targets: list[_Node | None] = []
        self.parents: list[tuple[_Node, Step]] = []
        self.leads = False
        """Whether it is, or leads to, a module."""
        self.holds = False
        """Whether it is, or holds, a module: not only by what code names."""

    @property
    def name(self) -> str:
        """Its name in the code."""
        return name_from(node.label for node in self.lineage())

    def lineage(self) -> Iterator[_Node]:
        """Yield the node, the one that led to it first, and so on."""
        node = self
        while node is not None:
            yield node
            node = node.above


def find_captured(
    functions: Iterable[Any],
    keyed: Iterable[Any] = (),
    passed: Container[int] = (),
) -> Captured:
    """Find the modules and Variables that functions capture.

    Args:
      functions: The functions, or other callables.
      keyed: Functions that are part of the cache key by content: static values that modules hold.
      passed: The ids of the objects that are passed. A container among them is captured like a module: the captured
        name does not see what happens to its copy. The default is none.

    Returns:
      The captured modules and Variables, with guards and shape.
    """
    starts = [*((f, True) for f in keyed), *((f, False) for f in functions)]
    return _search_again(names_in, starts, passed, _Search.captured)


def find_missed(starts: Iterable[Any], missed: Sequence[Any]) -> Captured:
    """Find modules and Variables that `find_captured` misses: follow all attributes.

    The search visits what is near first, and ends as soon as it has reached all of them. It follows only globals that
    the code may read: guards of other references to a module than that of the function would be in vain.

    Args:
      starts: The functions, and static values that modules hold.
      missed: The modules and Variables.

    Returns:
      Those that were reached, and the modules on the way, whose attributes the code may read, too; with guards of the
      steps to them, and their shape.
    """
    search = _Search(Scope(set(), names_in, is_foreign, every=True), ())
    try:
        goals = set(map(id, missed))
        search.reach(starts, goals)
        return search.captured(goals | search.modules_above(goals))
    finally:
        search.unlink()


def names_read(starts: Iterable[Any]) -> frozenset[str]:
    """Return the attributes that the code may read that functions and classes lead to.

    Args:
      starts: The functions and classes.

    Returns:
      The names, including all strings that are identifiers, since `getattr` may use them.
    """
    pairs = [(x, False) for x in starts]
    return _search_again(names_read_in, pairs, (), lambda search: frozenset(search.scope.names))


def _search_again(
    names_in: Callable[[types.CodeType], Names],
    starts: Sequence[tuple[Any, bool]],
    passed: Container[int],
    result: Callable[[_Search], Any],
) -> Any:
    """Search until no more names are found: code that is found late may name attributes of what was found early."""
    names: set[str] = set()
    while True:
        known = len(names)
        search = _Search(Scope(names, names_in, is_library), passed)
        try:
            for x, exact in starts:
                search.visit(x, exact)
            if len(names) == known or not search.holds_attributes:
                return result(search)
        finally:
            search.unlink()


def captures_nothing(function: Any) -> bool:
    """Return whether a function obviously captures nothing: it uses only its arguments, libraries and atoms.

    It takes a tenth of the time of `find_captured`, which decides the other cases.

    Args:
      function: The function, or another callable.

    Returns:
      True if a search would find no modules and no class of modules; False if only a search can tell.
    """
    stack, seen = [function], set[int]()
    while stack:
        f = stack.pop()
        if id(f) in seen:
            continue
        seen.add(id(f))
        if type(f) is not types.FunctionType or f.__closure__ or f.__dict__:
            return False
        if f.__defaults__ or f.__kwdefaults__ or len(seen) > _MOST_OBVIOUS:
            return False
        for name in names_in(f.__code__).loaded:
            x = f.__globals__.get(name)
            if type(x) is types.FunctionType:
                stack.append(x)
            elif not is_atom(x) and not _is_library(x):
                return False
    return True


def _is_library(x: Any) -> bool:
    """Return whether an object is a library other than liftnn, whose classes create modules."""
    return type(x) is types.ModuleType and not is_own(x.__name__) and is_library(x.__name__)


class _Search:
    """One pass over the objects that functions refer to.

    Args:
      scope: Limits which objects are followed.
      passed: See `find_captured`.
    """

    def __init__(self, scope: Scope, passed: Container[int]):
        self.holds_attributes = False
        self._passed = passed
        self.scope = scope
        self._nodes: dict[int, _Node] = {}

    def visit(self, x: Any, exact: bool) -> None:
        """Visit every object that an object leads to."""
        if is_atom(x) or id(x) in self._nodes:
            return
        stack = [self._add(_Node(x, None, "", exact))]
        while stack:
            node = stack.pop()
            if len(self._nodes) <= _SEARCH_LIMIT:
                stack.extend(reversed(self._children(node)))

    def reach(self, starts: Iterable[Any], goals: Set[int]) -> None:
        """Visit what objects lead to, the nearest first, until all goals, given by their ids, are reached."""
        queue = collections.deque[_Node]()
        for x in starts:
            if not is_atom(x) and id(x) not in self._nodes:
                queue.append(self._add(_Node(x, None, "", False)))
        remaining = set(goals - self._nodes.keys())
        while queue and remaining and len(self._nodes) <= _SEARCH_LIMIT:
            new = self._children(queue.popleft())
            remaining.difference_update(id(node.x) for node in new)
            queue += new

    def modules_above(self, goals: Iterable[int]) -> set[int]:
        """Return the ids of the modules that led to the goals."""
        nodes = (self._nodes.get(goal) for goal in goals)
        above = {id(n): n for node in nodes if node is not None for n in node.lineage()}
        return {id(n.x) for n in above.values() if hasattr(type(n.x), "_module_parts")}

    def _children(self, node: _Node) -> list[_Node]:
        """Visit the children of an object, and return those that are new.

        Modules and Variables are followed only with `every`: a module may hold a view of another one.
        """
        if hasattr(type(node.x), "__graph_node__") and not self.scope.every:
            return []
        found = node.expansion = expand(node.x, self.scope, node.exact)
        self.holds_attributes |= found.by_name
        new: list[_Node] = []
        for step in found.steps:
            target = None if is_atom(step.child) else self._nodes.get(_address(step.child))
            if target is None and not is_atom(step.child):
                inherits = node.exact and found.inherits
                target = self._add(_Node(step.child, node, step.label, inherits))
                new.append(target)
            if target is not None:
                target.parents.append((node, step))
            node.targets.append(target)
        return new

    def _add(self, node: _Node) -> _Node:
        self._nodes[_address(node.x)] = node
        return node

    def _is_passed(self, x: Any) -> bool:
        return id(x) in self._passed and is_container(x)

    def captured(self, goals: Container[int] | None = None) -> Captured:
        """Return the modules found so far, with guards and shape.

        Args:
          goals: The ids of the modules to return. Then only the steps to them are guarded. The default, None, returns
            all.
        """
        nodes = list(self._nodes.values())
        if goals is None:
            roots = [n for n in nodes if hasattr(type(n.x), "__graph_node__") or self._is_passed(n.x)]
        else:
            roots = [n for n in nodes if id(n.x) in goals]
        stack = [(node, True) for node in roots]
        while stack:
            node, holds = stack.pop()
            if not node.leads or (holds and not node.holds):
                node.leads, node.holds = True, node.holds or holds
                stack += [(parent, holds and step.is_held) for parent, step in node.parents]
        names_classes = any(has_class(n.x, self.scope.names) for n in nodes)
        guards = _collect(nodes, goals is not None)
        if any(issubclass(type(n.x), weakref.ref) for n in nodes if n.leads):
            guards.weak = frozenset([id(n.x) for n in roots if not _is_held(n)])
        return Captured(_by_name(roots), guards, _shape(nodes, roots), names_classes)

    def unlink(self) -> None:
        """Break the cycles between the nodes, so that the visited objects live no longer than the search."""
        for node in self._nodes.values():
            node.above = None
            node.targets, node.parents = [], []


def _is_held(root: _Node) -> bool:
    """Return whether other than weak references lead to a module."""
    stack, seen = [root], {id(root)}
    while stack:
        node = stack.pop()
        if node.above is None:
            return True
        parents = (parent for parent, _ in node.parents if not issubclass(type(parent.x), weakref.ref))
        new = [parent for parent in parents if id(parent) not in seen]
        seen.update(map(id, new))
        stack += new
    return False


def _address(x: Any) -> int:
    """Return the key of an object among the nodes; a class is another one than what is run of it for an object."""
    return -id(x.cls) if type(x) is ClassOf else id(x)


def _by_name(roots: Sequence[_Node]) -> dict[str, Any]:
    """Return the roots under unique names."""
    named: dict[str, Any] = {}
    for node in roots:
        name = node.name or type(node.x).__name__
        while name in named:
            name += "'"
        named[name] = node.x
    return named


def _collect(nodes: Sequence[_Node], only_leading: bool) -> Guards:
    """Collect the guards of steps: of all that could lead elsewhere in a later search, or only of those to a root."""
    guards: list[Guard] = []
    elements: list[Elements] = []
    leading: list[Leading] = []
    for node in nodes:
        found = node.expansion
        if found is None or ((node.quiet or only_leading) and not node.leads):
            continue
        for step, target in zip(found.steps, node.targets, strict=True):
            leads = target is not None and target.leads
            if step.guard is not None and (leads or (step.always and not only_leading)):
                guards.append(step.guard)
                if leads:
                    leading.append(step.guard)
        if found.whole is not None and _holds_part(node):
            leading.append(LeadingObject(found.whole))
        guards += found.guards
        if found.elements is not None and (found.always or node.leads):
            elements.append(found.elements._replace(ordered=node.leads))
            if node.holds:
                leading.append(LeadingObject(found.elements.container))
    return Guards(guards, elements, leading)


def _holds_part(node: _Node) -> bool:
    """Return whether an attribute of an object, or an element of a container, holds a module."""
    assert node.expansion is not None
    pairs = zip(node.expansion.steps, node.targets, strict=True)
    is_container = issubclass(type(node.x), (list, dict, collections.deque))  # `isinstance` would ask it
    return any(
        (is_container or step.is_attribute) and step.is_held and target is not None and target.holds
        for step, target in pairs
    )


def _shape(nodes: Sequence[_Node], roots: Sequence[_Node]) -> CapturedShape:
    """Return the shape: for each object that leads to a module, the target of each of its steps."""
    numbered: dict[int, _Node] = {id(n.x): n for n in roots}
    numbers = {address: ("module", i) for i, address in enumerate(numbered)}
    between = [n for n in nodes if n.leads and n.expansion is not None]
    numbers |= {id(n.x): ("holder", i) for i, n in enumerate(between)}
    numbered |= {id(n.x): n for n in between}
    holders: list[Holder] = []
    for node in between:
        found = node.expansion
        assert found is not None
        steps = zip(found.steps, node.targets, strict=True)
        whole = found.elements is not None
        entries = [
            (step.key, numbers.get(id(target.x)) if target is not None and target.leads else None)
            for step, target in steps
            if whole or (target is not None and target.leads)
        ]
        holders.append(Holder(identity_of(node.x), found.tag, found.size, found.hidden, tuple(entries)))
    links = {
        numbers[address]: Link(node.label, None if node.above is None else numbers[id(node.above.x)])
        for address, node in numbered.items()
    }
    return CapturedShape((tuple(holders),), (links,))
