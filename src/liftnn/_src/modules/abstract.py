"""The errors of a module that is called although its Variables have no values: they are abstract, or leaked."""

from __future__ import annotations

from typing import Any

import jax

from liftnn import errors
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.trees import an, at_start, format_path, is_tracer
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Variable

_ABSTRACT = jax.ShapeDtypeStruct.__name__
LEAKED = (
    "Return the module from that transform, or store it in a module that was an argument of that transform."
)
"""The remedy for a module that has left a transform other than as its result."""


def explain_abstract(error: Exception, module: Any) -> None:
    """Raise a clear error in place of JAX's if a call of a module failed because a Variable has no value here.

    Args:
      error: What the call raised.
      module: The module.

    Raises:
      ArgumentTypeError: If a Variable of the module is abstract; it names the first one.
      TraceContextError: If a Variable holds an array of a transform that has returned; it names the first one.
    """
    if isinstance(error, jax.errors.UnexpectedTracerError) and frames.is_plain():
        _explain_leaked(error, module)
    if isinstance(error, errors.LiftError) or _ABSTRACT not in str(error):
        return
    for path, x in iter_graph(module):
        if isinstance(x, Variable) and any(map(_is_abstract, jax.tree.leaves(x.raw_value))):
            raise errors.ArgumentTypeError(
                f"{at_start(an(type(module)))} was called, but it is abstract: {format_path(path)} is "
                f"{an(type(x))} with a shape and a dtype, and without a value.",
                "Create the model without `eval_shape`, or set all its Variables first, for example by "
                "`update(model, state)`. To compute shapes, call it under `eval_shape`.",
            ) from error


def _explain_leaked(error: Exception, module: Any) -> None:
    """Raise TraceContextError if a Variable of a module holds a tracer, which has no meaning outside of its trace."""
    for path, x in iter_graph(module):
        if isinstance(x, Variable) and any(map(is_tracer, jax.tree.leaves(x.raw_value))):
            raise errors.TraceContextError(
                f"{at_start(an(type(module)))} was called, but it is leaked: {format_path(path)} is {an(type(x))} with "
                "an array of a transform that has returned, so it has no value here.",
                LEAKED,
            ) from error


def _is_abstract(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)
