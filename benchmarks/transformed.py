"""The same network under one transform, in liftnn and by hand: what is traced and compiled for the comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import steps
from steps import forward

import liftnn

LANES = 4


class Case(NamedTuple):
    """One function to trace.

    Args:
      make: Makes the function, which JAX has not seen before.
      args: Its arguments.
      jit: What compiles it.
    """

    make: Callable[[], Callable[..., Any]]
    args: tuple[Any, ...]
    jit: Callable[..., Any]

    def traced(self) -> Any:
        """The traced stage."""
        return self.jit(self.make()).trace(*self.args)


def case(transform: str, depth: int) -> tuple[Case, Case]:
    """A transform in liftnn, and by hand: `grad` of a network, `vmap` over several, `scan` over parts of one."""
    x = steps.batch()[0]
    model, params = steps.STACKS[liftnn](depth), steps.nested_params(depth)
    if transform != "grad":
        stack = lambda tree: jax.tree.map(lambda a: jnp.stack([a] * LANES), tree)  # noqa: E731
        model = liftnn.merge(liftnn.split(model)[-1], stack(liftnn.state(model)))
        params = stack(params)
    ours, theirs = {"grad": _grad, "vmap": _vmap, "scan": _scan}[transform]()
    return Case(ours, (model, x), liftnn.jit), Case(theirs, (params, x), jax.jit)


def _grad() -> Any:
    return (
        lambda: liftnn.value_and_grad(lambda model, x: jnp.mean(model(x) ** 2)),
        lambda: jax.value_and_grad(lambda params, x: jnp.mean(forward(params, x) ** 2)),
    )


def _vmap() -> Any:
    return (
        lambda: liftnn.vmap(lambda model, x: model(x), in_axes=(0, None)),
        lambda: jax.vmap(lambda params, x: forward(params, x), in_axes=(0, None)),
    )


def _scan() -> Any:
    def by_hand(params: Any, x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, params: (forward(params, x), None), x, params)[0]

    return (
        lambda: liftnn.scan(lambda model, x: model(x), in_axes=(0, liftnn.Carry), out_axes=liftnn.Carry),
        lambda: lambda params, x: by_hand(params, x),
    )
