"""The error for a write that the running transform does not allow: what cannot be changed here, and why."""

from __future__ import annotations

from typing import Any

from liftnn import errors
from liftnn._src.trees import an
from liftnn._src.variables import frames


def write_error(x: Any, what: str, path: str | None = None) -> errors.TraceContextError:
    """Return the error for a write that `may_write` does not allow.

    Args:
      x: The object.
      what: The part that was to be changed, such as `"the value"` or `"the attribute 'w'"`.
      path: The path of the object. The default, None, asks the innermost frame.

    Returns:
      The error to raise.
    """
    frame, owner = frames.current_frame(), x._owner
    path = path or frame.path_to(x)
    of = f"{path} ({an(type(x))})" if path else f"{an(type(x))}"
    if owner is frames.COPIED:
        return errors.TraceContextError(
            f"Cannot change {what} of {of} here: it is a copy that a raw JAX transform made of its argument, and the "
            "change would be lost.",
            "Use the liftnn transform of the same name instead.",
        )
    if owner is frames.VIEW:
        return errors.TraceContextError(
            f"Cannot change {what} of {of} here: it is one layer of a Stack, and the layers of a Stack differ only in "
            "the values of Variables and arrays.",
            "Change `stack.layers`, the module that holds all layers, or assign a layer: `stack[i] = layer`.",
        )
    if frames.is_raw_trace():
        return errors.TraceContextError(
            f"Cannot change {what} of {of} here: it comes from {_origin(owner)}, and this code runs under a raw JAX "
            "transform (jax.jit, jax.grad, jax.vmap, jax.lax.scan ...), which would lose the change or leak a tracer.",
            "Use the liftnn transform of the same name instead.",
        )
    if type(owner) is frames.RawTrace:
        return errors.TraceContextError(
            f"Cannot change {what} of {of} here: it was created under a raw JAX transform (jax.jit, jax.grad, "
            "jax.vmap, jax.lax.scan ...) that has returned (leaked), and may hold tracers.",
            "Use the liftnn transform of the same name and return the object, or return its arrays.",
        )
    if frames.frames_up_to(x) is None:
        return errors.TraceContextError(
            f"Cannot change {what} of {of} here: it was created inside a call of liftnn.{owner.name} that has returned "
            "(leaked), and may hold tracers.",
            "Return it from that call, or store it in a module that was an argument of that call.",
        )
    return errors.TraceContextError(
        f"Cannot change {what} of {of} here: it comes from {_origin(owner)} and reached liftnn.{frame.name} through a "
        "closure, where only values of Variables can be changed.",
        f"Pass the object as an argument of the function given to liftnn.{frame.name}.",
    )


def _origin(owner: Any) -> str:
    """Return the origin of an owner's objects as text."""
    if isinstance(owner, frames.RawTrace):
        return "another trace"
    return "plain Python" if owner is frames.PLAIN else f"liftnn.{owner.name}"
