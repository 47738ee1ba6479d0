"""The errors of arguments without values for JAX: abstract, arrays of a returned transform, or no arrays of numbers.

JAX raises its own errors when it uses such an array; they are replaced by errors with the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from liftnn import errors
from liftnn._src.captures.search import find_captured
from liftnn._src.lifting.contract import Plan
from liftnn._src.modules.abstract import LEAKED
from liftnn._src.trees import an, holds_no_numbers, is_tracer
from liftnn._src.variables import frames

_NO_ARRAY = ("is not a valid JAX type", "as an abstract array", "masked arrays are not supported")
"""Parts of JAX's errors for an argument that is not an array of numbers."""


def explain_valueless(error: BaseException, plan: Plan, leaves: Sequence[Any], name: str) -> None:
    """Raise an error with a path in place of JAX's if a call failed because an argument has no value.

    Args:
      error: What the call raised.
      plan: The arguments.
      leaves: The dynamic leaves.
      name: The name of the transform.

    Raises:
      ArgumentTypeError: If an argument is abstract, or a numpy array of something other than numbers; it names the
        first one. Also if such an array is returned.
      ArgumentError: If an argument is a masked array of numpy; it names the first one.
      TraceContextError: If an argument is an array of a transform that has returned; it names the first one.
    """
    if isinstance(error, jax.errors.UnexpectedTracerError) and frames.is_plain():
        leaked = _find(plan, leaves, is_tracer)
        if leaked:
            raise errors.TraceContextError(
                f"{leaked} is an array of a transform that has returned (leaked), so liftnn.{name} cannot use it.",
                LEAKED,
            ) from error
    elif not isinstance(error, errors.LiftError) and any(part in str(error) for part in _NO_ARRAY):
        abstract = _find(plan, leaves, lambda x: isinstance(x, jax.ShapeDtypeStruct))
        if abstract:
            raise errors.ArgumentTypeError(
                f"{abstract} is abstract: it has a shape and a dtype, but no value, so liftnn.{name} cannot use it.",
                "Create the model without `eval_shape`, or set all its Variables first, for example by "
                "`update(model, state)`. To compute shapes, use `eval_shape`.",
            ) from error
        _explain_numpy(error, plan, leaves, name)


def _explain_numpy(error: BaseException, plan: Plan, leaves: Sequence[Any], name: str) -> None:
    """Raise an error for the first numpy array that JAX does not take, if there is one."""
    masked = _find(plan, leaves, lambda x: isinstance(x, np.ma.MaskedArray))
    if masked:
        raise errors.ArgumentError(
            f"{masked} is a masked array of numpy, so liftnn.{name} cannot use it.",
            "Store its data and its mask as two arrays, or `x.filled(value)`.",
        ) from error
    kind = "a numpy array of strings, objects or dates"
    other = _find(plan, leaves, holds_no_numbers)
    if other or plan.unreturnable:
        raise errors.ArgumentTypeError(
            f"{other} is {kind}, so liftnn.{name} cannot use it: arrays of JAX hold numbers."
            if other
            else f"liftnn.{name} cannot return {plan.unreturnable}, which is {kind}: arrays of JAX hold numbers.",
            "Store a tuple, which is static, as in `tuple(x.tolist())`.",
        ) from error


def explain_leaked(error: BaseException, functions: Sequence[Any], name: str) -> None:
    """Raise an error with a name in place of JAX's if a call failed because the function captures a leaked module.

    If no captured module has leaked, a note says that JAX keeps traces of functions, which may capture modules.

    Args:
      error: What the call raised.
      functions: The functions of the call.
      name: The name of the transform.

    Raises:
      TraceContextError: If a captured module was created in a transform that has returned; it names the first one.
    """
    if not isinstance(error, jax.errors.UnexpectedTracerError) or not frames.is_plain():
        return
    captured = find_captured(functions).roots
    for where, x in captured.items():
        if frames.frames_up_to(x) is None:
            raise errors.TraceContextError(
                f"{where} ({an(type(x))}), which the function captures, was created in a transform that has returned "
                f"(leaked), so liftnn.{name} cannot use it.",
                LEAKED,
            ) from error
    if captured:
        error.add_note(_KEPT_TRACE)


_KEPT_TRACE = (
    "If a function that captures a module was passed to a transform of JAX, such as jax.jit, jax.checkpoint or "
    "jax.lax.scan, JAX has kept its trace, with the arrays that the module had there. If the function has a rule of "
    "jax.custom_vjp or jax.custom_jvp, it cannot be differentiated by what it captures. Use the liftnn transform of "
    "the same name, or pass the arrays as arguments."
)


def _find(plan: Plan, leaves: Sequence[Any], is_valueless: Any) -> str:
    """Return the name of the first leaf without a value; an empty text if there is none."""
    for slot, x in zip(plan.slots, leaves, strict=True):
        if any(map(is_valueless, jax.tree.leaves(x))):
            return plan.typed_name(slot)
    return ""
