"""Why a compiled function is traced again: by attribute path, what differs from an earlier trace."""

from __future__ import annotations

import collections
import logging
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn.graph.views import describe_difference
from liftnn.lifting.result import Plan, name_argument

logger = logging.getLogger("liftnn.retrace")
"""Every trace after the first is noted here, at level INFO, with its cause."""

_MANY = 5
"""The retrace that warns."""
_REMEMBERED = 16
"""How many traces are remembered, to find the one that is most like the new one."""
_SHOWN = 8


class Trace(NamedTuple):
    """What one trace was made for.

    Args:
      plan: The structure of the arguments.
      types: Shape and dtype of each value and each bare array, in words.
    """

    plan: Plan
    types: tuple[str, ...]


class Traces:
    """The traces of one function.

    Args:
      name: The function.
      most: How many there may be; None for any number.
    """

    __slots__ = ("_most", "_name", "_recent", "count")

    def __init__(self, name: str, most: int | None):
        self._name = name
        self._most = most
        self.count = 0
        self._recent: collections.deque[Trace] = collections.deque(maxlen=_REMEMBERED)

    def begin(self, plan: Plan, values: Sequence[Any], arrays: Sequence[Any]) -> Trace:
        """Notes what a trace is for.

        Args:
          plan: The structure of the arguments.
          values: The values of the Variables.
          arrays: The bare arrays.

        Returns:
          The trace, for `end`.

        Raises:
          RetraceError: If there are as many as there may be.
        """
        trace = Trace(plan, tuple(map(_type_of, (*values, *arrays))))
        if self._most is not None and self.count >= self._most:
            raise errors.RetraceError(
                f"{self._again()}, and max_traces is {self._most}:\n{self._cause(trace)}"
            )
        return trace

    def end(self, trace: Trace) -> None:
        """Counts a trace that has been made; if it is not the first, says why it was.

        Args:
          trace: The trace.
        """
        self.count += 1
        many = self.count == _MANY + 1
        if self.count > 1 and (many or logger.isEnabledFor(logging.INFO)):
            cause = self._cause(trace)
            logger.info("%s:\n%s", f"{self._name} is traced again (trace {self.count})", cause)
            if many:
                text = f"{self._name} is traced again (trace {self.count}); this time because of\n{cause}"
                warnings.warn(text, errors.RetraceWarning, stacklevel=2)
        self._recent.append(trace)

    def _again(self) -> str:
        return f"{self._name} would be traced again (trace {self.count + 1})"

    def _cause(self, trace: Trace) -> str:
        """What differs from the earlier trace that is most like this one."""
        if not self._recent:
            return "nothing is known of the traces before."
        alike = [t for t in self._recent if t.plan.graph == trace.plan.graph]
        if not alike:
            return describe_difference(self._recent[-1].plan.graph, trace.plan.graph, name_argument)
        before = min(
            reversed(alike), key=lambda t: sum(a != b for a, b in zip(t.types, trace.types, strict=True))
        )
        pairs = enumerate(zip(before.types, trace.types, strict=True))
        lines = [f"{_name_of(trace.plan, i)}: {a} -> {b}" for i, (a, b) in pairs if a != b]
        if len(lines) > _SHOWN:
            lines[_SHOWN:] = [f"... and {len(lines) - _SHOWN} more"]
        return (
            "\n".join(lines)
            or "the arguments are as before; the caches were cleared or JAX's configuration changed."
        )


def _type_of(x: Any) -> str:
    """Shape and dtype of an array, or of the arrays in a pytree, in words."""
    leaves, treedef = jax.tree.flatten(x)
    words = [f"{'weak ' * _is_weak(leaf)}{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in leaves]
    if treedef == _LEAF:
        return words[0]
    return str(treedef.unflatten(words)).replace("'", "")


def _is_weak(x: Any) -> bool:
    return bool(getattr(jax.typeof(x), "weak_type", False))


_LEAF = jax.tree.structure(0)


def _name_of(plan: Plan, position: int) -> str:
    """The path of a value or bare array."""
    if position < len(plan.variables):
        return plan.path_of(plan.variables[position])
    return plan.array_name(position - len(plan.variables))
