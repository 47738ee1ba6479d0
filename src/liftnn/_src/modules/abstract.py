"""The errors of a module that is called although its Variables have no values: they are abstract, leaked, or popped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from liftnn import errors
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.trees import an, at_start, format_path, is_tracer
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Empty

_ABSTRACT = jax.ShapeDtypeStruct.__name__
_EMPTY = type(Empty).__name__
LEAKED = (
    "Return the module from that transform, or store it in a module that was an argument of that transform. In a "
    "callback, such as one of `jax.pure_callback`, pass its State as an operand: `state, graphdef = "
    "liftnn.split(model)`, then `liftnn.merge(graphdef, state)` in the callback."
)
"""The remedy for a module that has left a transform other than as its result."""


def explain_abstract(error: Exception, module: Any) -> None:
    """Raise a clear error in place of JAX's if a call of a module failed because a Variable has no value here.

    Args:
      error: What the call raised.
      module: The module.

    Raises:
      ArgumentTypeError: If a Variable of the module is abstract, or was popped; it names the first one.
      TraceContextError: If a Variable holds an array of a transform that has returned; it names the first one.
    """
    if isinstance(error, jax.errors.UnexpectedTracerError) and frames.is_plain():
        leaked = _find(module, is_tracer)
        if leaked:
            raise errors.TraceContextError(
                f"{at_start(an(type(module)))} was called, but it has leaked: {leaked} whose array belongs to a "
                "transform that has returned, so it has no value here.",
                LEAKED,
            ) from error
    if isinstance(error, errors.LiftError):
        return
    if _EMPTY in str(error):
        popped = _find(module, lambda x: x is Empty)
        if popped:
            raise errors.ArgumentTypeError(
                f"{at_start(an(type(module)))} was called, but a value in it was popped: {popped} without a value.",
                "Set the value again with `update(model, state)`, where `state` is what `pop` returned, or pop other "
                "Variables, such as `pop(model, liftnn.Intermediate)`.",
            ) from error
    if _ABSTRACT not in str(error):
        return
    abstract = _find(module, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    if abstract:
        raise errors.ArgumentTypeError(
            f"{at_start(an(type(module)))} was called, but it is abstract: {abstract} with a shape and a dtype, and "
            "without a value.",
            "Create the model without `eval_shape`, or set all its Variables first, for example by "
            "`update(model, state)`. To compute shapes, call it under `eval_shape`.",
        ) from error


def _find(module: Any, is_valueless: Callable[[Any], bool]) -> str:
    """Return path and type of the first Variable with a value that has no meaning here; an empty text without one."""
    for path, x in iter_graph(module):
        if isinstance(x, Variable):
            parts = jax.tree.leaves(x.raw_value, is_leaf=lambda y: y is Empty)
            if any(map(is_valueless, parts)):
                return f"{format_path(path)} is {an(type(x))}"
    return ""
