"""Reports of retraces: count the traces of a compiled function, and explain each retrace by attribute paths."""

from __future__ import annotations

import collections
import functools
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn._src.graph.views import describe_difference
from liftnn._src.lifting.array_calls import is_jit_disabled
from liftnn._src.lifting.contract import Plan, name_argument
from liftnn._src.tracebacks import warn
from liftnn._src.trees import LEAF, describe_tree, is_jax_array, is_tracer, list_paths
from liftnn._src.variables.axis_rules import mesh_text

logger = logging.getLogger("liftnn.retrace")
"""Logs every trace after the first with its cause, at level INFO."""

_MANY = 5
"""The number of the explained retrace that warns."""
_REMEMBERED = 16
"""The number of recent traces to remember; a new trace is compared with the most similar of them."""
_UNEXPLAINED = (
    "the arguments are unchanged: a function in them wrote to its closure while it was traced, a cache was cleared, "
    "JAX's configuration changed, or threads trace at the same time"
)


class Trace(NamedTuple):
    """The arguments of one trace.

    Args:
      plan: The structure of the arguments.
      types: Tree and abstract arrays of each dynamic leaf.
    """

    plan: Plan
    types: tuple[Any, ...]


class Traces:
    """The traces of one function.

    Args:
      name: The name of the function.
      most: The maximum number of traces; None for no limit.
    """

    __slots__ = ("_explained", "_lock", "_most", "_recent", "count", "met", "name", "warns")

    def __init__(self, name: str, most: int | None):
        self.name = name
        self._most = most
        self.count = 0
        self.warns = True
        """Whether the fifth retrace warns."""
        self.met: weakref.WeakSet[Any] = weakref.WeakSet()
        """The programs that this function has traced, or that another wrapper of the same function had traced."""
        self._lock = threading.Lock()
        self._explained = 0
        self._recent: collections.deque[Trace] = collections.deque(maxlen=_REMEMBERED)

    def begin(self, program: Any, plan: Plan, leaves: Sequence[Any]) -> Callable[[], None]:
        """Record the arguments of a trace that starts.

        Args:
          program: The program that is traced.
          plan: The structure of the arguments.
          leaves: The dynamic leaves.

        Returns:
          The function to call when the trace has finished: it counts the trace, and logs the cause of a retrace.

        Raises:
          RetraceError: If there are already as many traces as allowed.
        """
        if _runs_in_python(leaves):
            self.met.add(program)
            return lambda: None
        trace = Trace(plan, tuple(map(_type_of, leaves)))
        if self._most is not None and self.count >= self._most:
            head = (
                f"{self.name} would be traced again (trace {self.count + 1}), but max_traces is {self._most}"
            )
            raise errors.RetraceError(f"{head}:\n{self._cause(trace) or _UNEXPLAINED}")
        self.met.add(program)
        return functools.partial(self._end, trace)

    def _end(self, trace: Trace) -> None:
        """Count a finished trace; log the cause of a retrace."""
        with self._lock:
            self.count += 1
        if self.count > 1:
            head, cause = f"{self.name} is traced again (trace {self.count})", self._cause(trace)
            logger.info("%s:\n%s", head, cause or _UNEXPLAINED)
            self._explained += bool(cause)
            if cause and self._explained == _MANY and self.warns:
                warn(f"{head}; this time because of\n{cause}", errors.RetraceWarning)
        self._recent.append(trace)

    def _cause(self, trace: Trace) -> str:
        """Describe the differences from the most similar earlier trace; an empty string if there are none."""
        recent = self._recent.copy()  # another thread may add to it
        if not recent:
            return ""
        alike = [t for t in recent if t.plan.graph == trace.plan.graph]
        if not alike:
            return describe_difference(recent[-1].plan.graph, trace.plan.graph, name_argument)
        now = list(map(_shown_of, trace.types))
        earlier = [list(map(_shown_of, t.types)) for t in reversed(alike)]
        before = min(earlier, key=lambda types: sum(a != b for a, b in zip(types, now, strict=True)))
        lines = (
            f"{trace.plan.name(trace.plan.slots[i])}: {_words(a, b)} -> {_words(b, a)}"
            for i, (a, b) in enumerate(zip(before, now, strict=True))
            if a != b
        )
        return list_paths(lines, indent="")


_Shown = tuple[Any, list[tuple[Any, ...]]]
"""What a message shows of a leaf: its tree, and shape, dtype, weak type and sharding of each array."""


def _runs_in_python(leaves: Sequence[Any]) -> bool:
    """Return whether JAX calls a function without a trace: without `jit`, or to find the line of a NaN."""
    arrays = jax.tree.leaves(leaves)
    has_values = bool(arrays) and all(isinstance(x, jax.Array) and not is_tracer(x) for x in arrays)
    return has_values or is_jit_disabled()


def _type_of(x: Any) -> tuple[Any, list[Any]]:
    """Return the tree of a value, and its abstract arrays; cheap, since every trace computes it."""
    if is_jax_array(x):
        return LEAF, [jax.typeof(x)]
    leaves, treedef = jax.tree.flatten(x)
    return treedef, list(map(jax.typeof, leaves))


def _shown_of(kind: tuple[Any, list[Any]]) -> _Shown:
    """Return what a message shows of a type."""
    treedef, types = kind
    return treedef, [(*(getattr(t, name, None) for name in _TYPE_PARTS), _place_of(t)) for t in types]


_TYPE_PARTS = ("shape", "dtype", "weak_type")


def _place_of(kind: Any) -> str:
    """Format the mesh in the type of an array, and over which of its explicit axes the array is sharded."""
    sharding = getattr(kind, "sharding", None)
    if sharding is None or sharding.mesh.empty:
        return "without a mesh"
    spec = list(sharding.spec)
    while spec and spec[-1] is None:  # those of arrays with fewer axes are the same
        spec.pop()
    return f"with {jax.sharding.PartitionSpec(*spec)} on the mesh ({mesh_text(sharding.mesh)})"


def _words(kind: _Shown, other: _Shown) -> str:
    """Format shapes and dtypes for a message, and shardings if those of the other leaf differ."""
    treedef, types = kind
    moved = {t[-1] for t in types} != {t[-1] for t in other[1]}
    words = [
        f"{'weak ' * bool(weak)}{dtype}{list(shape or ())}{f' {place}' * moved}"
        for shape, dtype, weak, place in types
    ]
    if treedef == LEAF:
        return words[0]
    return describe_tree(treedef, words).replace("'", "")
