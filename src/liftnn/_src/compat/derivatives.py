"""`custom_vjp`, `vjp` and `jvp` with the arguments of Flax NNX."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.annotations import signature_of
from liftnn._src.autodiff import custom_vjp as own_rule, jvp as own_jvp, vjp as own_vjp
from liftnn._src.autodiff.selection import DiffState
from liftnn._src.compat.keywords import take_by_name
from liftnn._src.compat.modes import accept_modes, check_modes, set_graph_mode, set_graph_updates
from liftnn._src.compat.splitting import state
from liftnn._src.compat.tree_gradients import pulls_trees
from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.configure import MISSING, configurable
from liftnn._src.tracebacks import boundary
from liftnn._src.type_variables import P, R
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State

F = TypeVar("F", bound=Callable[..., Any])


def _or_decorator(derivative: F) -> F:
    """Let a derivative be called without values, or with options only; then it returns a function of the rest."""

    @functools.wraps(derivative)
    def call(f: Any = MISSING, /, *primals: Any, **options: Any) -> Any:
        if f is MISSING:
            return functools.partial(call, **options)
        if primals or "primals" in options:
            return derivative(f, *primals, **options)
        return functools.wraps(f, updated=())(functools.partial(derivative, f, **options))

    return call  # pyright: ignore[reportReturnType]  # the same signature


vjp = take_by_name(_or_decorator(pulls_trees(own_vjp.vjp)), "f")
jvp = accept_modes(take_by_name(_or_decorator(own_jvp.jvp), "f"))


@configurable
def custom_vjp(
    f: Callable[P, R],
    /,
    nondiff_argnums: Any = (),
    *,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> own_rule.CustomVjp[P, R]:
    """Set up a function for a custom VJP rule, whose backward pass gets `(inputs_g, out_g)`.

    Args:
      f: The function, as for `liftnn.custom_vjp`.
      nondiff_argnums: Positions of arguments that are not differentiated. A `DiffState`, which selects Variables of an
        argument, is not needed: Variables that the backward pass leaves out have zero cotangents.
      graph: If this or `graph_updates` is False, the rule is that of `liftnn.custom_vjp`, as in JAX: the backward pass
        gets the cotangent of the output alone. The defaults are those of `set_graph_mode` and `set_graph_updates`.
      graph_updates: See `graph`.

    Returns:
      A function with the signature of `f` and the method `defvjp(fwd, bwd)`. `bwd` is called with the residuals and the
      pair `(inputs_g, out_g)`. `inputs_g` has an entry for each differentiated argument: for a module a State of zeros,
      since what a function writes has no derivative, and None for arrays.

    Raises:
      ArgumentError: If an option names an argument that `f` does not have.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> @nnx.custom_vjp
      ... def double(w):
      ...   return 2 * w.value
      >>> def forward(w):
      ...   return double(w), None
      >>> def backward(residuals, g):
      ...   (w_g,), out_g = g
      ...   return (jax.tree.map(lambda x: x + 5 * out_g, w_g),)
      >>> double.defvjp(forward, backward)
      >>> float(nnx.grad(double)(nnx.Param(1.0)).value)
      5.0
    """
    check_modes(graph=graph, graph_updates=graph_updates)
    graph = set_graph_mode.current_value() if graph is None else graph
    graph_updates = set_graph_updates.current_value() if graph_updates is None else graph_updates
    kind = _GraphRule if graph and graph_updates else _TreeRule
    nums = nondiff_argnums if isinstance(nondiff_argnums, (tuple, list)) else [nondiff_argnums]
    return kind(f, "custom_vjp", [n for n in nums if not isinstance(n, DiffState)], ())


@boundary
class _TreeRule(own_rule.CustomVjp[P, R]):
    """A function with a custom VJP rule whose backward pass gets the cotangent of the output."""

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Define the rule; see `liftnn.custom_vjp`.

        Args:
          fwd: As for `liftnn.custom_vjp`.
          bwd: As for `liftnn.custom_vjp`.
          *args: As for `liftnn.custom_vjp`.
          **options: As for `liftnn.custom_vjp`.

        Raises:
          ArgumentTypeError: If `bwd` has a parameter `updates_g`.
        """
        if "updates_g" in signature_of(bwd).parameters:
            raise errors.ArgumentTypeError(
                "bwd of custom_vjp has a parameter `updates_g`, but liftnn does not differentiate written values.",
                "Return every value that is to be differentiated, and leave `updates_g` out.",
            )
        super().defvjp(fwd, bwd, *args, **options)


@boundary
class _GraphRule(own_rule.CustomVjp[P, R]):
    """A function with a custom VJP rule whose backward pass gets `(inputs_g, out_g)`."""

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Define the rule; see `liftnn.custom_vjp`.

        Args:
          fwd: Called with the arguments; returns a pair of the output and the residuals.
          bwd: Called with the residuals and `(inputs_g, out_g)`; returns a tuple of cotangents.
          *args: As for `liftnn.custom_vjp`.
          **options: As for `liftnn.custom_vjp`.
        """

        def forward(*inputs: Any) -> Any:
            out, residuals = fwd(*inputs)
            nondiff = set(self._nondiff.positions(len(inputs)))
            zeros = [_zeros(x) for i, x in enumerate(inputs) if i not in nondiff]
            return out, (residuals, zeros)

        def backward(*arguments: Any) -> Any:
            *nondiff, (residuals, zeros), out_g = arguments
            inputs_g = tuple([x if x is None else jax.tree.map(jnp.zeros_like, x) for x in zeros])
            found = bwd(*nondiff, residuals, (inputs_g, out_g))
            return jax.tree.map(_without_integers, found, is_leaf=lambda x: x is None or isinstance(x, State))

        super().defvjp(forward, backward, *args, **options)


def _zeros(x: Any) -> Any:
    """Return the State of an argument with zeros for values; None if it has no modules or Variables."""
    if not any(is_object(leaf) for leaf in jax.tree.leaves(x, is_leaf=is_object)):
        return None
    return jax.tree.map(jnp.zeros_like, state(x))


def _without_integers(x: Any) -> Any:
    """Return a cotangent without the entries for integers, which have no derivative."""
    if not isinstance(x, State):
        return x
    flat = x.flat().items()
    return State.from_flat(
        [(path, y) for path, y in flat if jnp.issubdtype(jnp.result_type(unwrap_raw(y)), jnp.inexact)]
    )
