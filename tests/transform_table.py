"""Every transform as a way to call `f(model, x)` once: the columns of the conformance table.

Each entry takes such a function and returns one with the same arguments, result and effects, which runs it under
the transform. A new transform is one more line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import liftnn

Function = Callable[[Any, jax.Array], Any]


def _scalar(f: Function) -> Function:
    """The function with a scalar in front, for differentiation."""

    def pair(model: Any, x: jax.Array) -> Any:
        out = f(model, x)
        return sum((jnp.sum(model.first.w.value), jnp.sum(x)), start=jnp.zeros(())), out

    return pair


def _grad(f: Function) -> Function:
    return lambda model, x: liftnn.grad(_scalar(f), has_aux=True)(model, x)[1]


def _value_and_grad(f: Function) -> Function:
    both = liftnn.value_and_grad(_scalar(f), argnums=(0, 1), has_aux=True)
    return lambda model, x: both(model, x)[0][1]


def _vmap(f: Function) -> Function:
    one_lane = liftnn.vmap(f, in_axes=(None, None), out_axes=None, axis_size=1, split_rngs=False)
    return lambda model, x: one_lane(model, x)


def _third_party(f: Function) -> Function:
    return liftnn.lift(f, bind=lambda plan, pure: jax.checkpoint(pure), name="remat")


TRANSFORMS: dict[str, Callable[[Function], Function]] = {
    "jit": liftnn.jit,
    "donating jit": liftnn.jit(donate_argnums=0),
    "grad": _grad,
    "value_and_grad": _value_and_grad,
    "vmap": _vmap,
    "lift": _third_party,
}
