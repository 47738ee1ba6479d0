"""`trace_once`: repeated blocks of a model are traced and compiled once, in a list too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from liftnn._src.graph.recipes import Recipe
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.modules.layer_calls import wrap_call
from liftnn._src.modules.module import Module
from liftnn._src.publish import publish
from liftnn._src.static_values.static import Static
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import NUMBER_TYPES, Path
from liftnn._src.type_variables import P, R
from liftnn._src.variables import frames

C = TypeVar("C", bound=Callable[..., Any])


@boundary
def trace_once(f: C, /) -> C:
    """Trace a block once for all its uses inside a transform, and compile it as one function that is called repeatedly.

    Blocks of equal structure and shapes share one trace: their weights, statistics and random keys are its arguments,
    so each block reads and writes its own. Outside of transforms the block is called as usual. `Stack` saves more, and
    needs no decorator; this is for a list of blocks, or for blocks between other layers.

    It pays for large blocks that repeat often: the gradients of a decoder of 24 layers are traced in an eighth of the
    time, and traced and compiled in less than half of it (JAX 0.12, `benchmarks/stacked.py`). It does not pay for
    single layers. The compiler optimizes across the calls less than across plain code, so the program may need up to
    twice the memory for temporary values.

    Args:
      f: A class of modules, whose `__call__` is replaced, so it can be used as a decorator of the class; or a function,
        a bound method or a module. Arguments of a call that are neither arrays nor modules, such as flags and Python
        numbers, are static: another value is another trace.

    Returns:
      The same class; for a function, bound method or module, a function with the same signature.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> n_traces = 0
      >>> @liftnn.trace_once
      ... class Block(liftnn.Module):
      ...   def __init__(self, rngs):
      ...     self.linear = liftnn.Linear(3, 3, rngs=rngs)
      ...   def __call__(self, x):
      ...     global n_traces
      ...     n_traces += 1
      ...     return jnp.tanh(self.linear(x))
      >>> rngs = liftnn.Rngs(0)
      >>> model = liftnn.Sequential(*[Block(rngs) for _ in range(8)])
      >>> liftnn.jit(lambda model, x: model(x))(model, jnp.ones((2, 3))).shape, n_traces
      ((2, 3), 1)
    """
    if isinstance(f, type) and issubclass(f, Module):
        type.__setattr__(f, "__call__", wrap_call(TracedOnce(f.__call__)))
        return f  # pyright: ignore[reportReturnType]  # the same class
    transformed: Any = TracedOnce(f)
    transformed.__recipe__ = Recipe(trace_once, (), {})
    return transformed


class TracedOnce(Lifted[P, R]):
    """A function that each structure of its arguments traces once; see `trace_once`.

    Args:
      function: The user's function.
    """

    def __init__(self, function: Callable[P, R]):
        super().__init__((function,), _bind, LiftOptions("trace_once", needs_values=True))
        self._plain = function

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self._plain(*args, **kwargs) if frames.is_plain() else super().__call__(*args, **kwargs)

    def _leaf_edge(self, leaf: Any, keys: Path, arrays: list[Any]) -> Any:
        """Return the edge of a leaf of the arguments; a Python number is static."""
        if isinstance(leaf, NUMBER_TYPES) and not isinstance(leaf, np.generic):
            return Static(leaf)
        return super()._leaf_edge(leaf, keys, arrays)


def _bind(plan: Plan, pure: PureFunction) -> PureFunction:
    """Compile a pure function as a function of its own in each program that calls it."""
    jitted: Any = jax.jit(pure, **_INLINE)

    def call(leaves: Sequence[Any]) -> Result:
        return jitted(list(leaves))

    return call


_INLINE: dict[str, Any] = {"inline": jax.Inline.XLA_LATE} if hasattr(jax, "Inline") else {}  # pyright: ignore[reportAttributeAccessIssue]  # JAX 0.11
"""XLA inlines the calls late, after it has optimized the function: compiling takes a third less time."""


publish(trace_once)
