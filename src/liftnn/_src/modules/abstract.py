"""The error of a module that is called although its Variables are abstract, as after `eval_shape`."""

from __future__ import annotations

from typing import Any

import jax

from liftnn import errors
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.trees import an, at_start, format_path
from liftnn._src.variables.variable import Variable

_ABSTRACT = jax.ShapeDtypeStruct.__name__


def explain_abstract(error: Exception, module: Any) -> None:
    """Raise a clear error in place of JAX's if a call of a module failed because a Variable has no value.

    Args:
      error: What the call raised.
      module: The module.

    Raises:
      ArgumentTypeError: If a Variable of the module is abstract; it names the first one.
    """
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


def _is_abstract(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)
