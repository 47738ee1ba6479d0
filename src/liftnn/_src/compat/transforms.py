"""The transforms with the arguments `graph` and `graph_updates`, and partials of transformed functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from liftnn._src.autodiff import (
    custom_vjp as own_rule,
    jvp as own_jvp,
    remat as own_remat,
    vjp as own_vjp,
)
from liftnn._src.compat.modes import accept_modes, check_modes
from liftnn._src.compat.splitting import state
from liftnn._src.compilation import checkify as own_checkify, jaxpr, jit as own_jit, shape
from liftnn._src.control_flow import branches, loops, scan as own_scan
from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.configure import configurable
from liftnn._src.mapping import pmap as own_pmap, shard_map as own_shard_map, vmap as own_vmap
from liftnn._src.type_variables import P, R

checkify = accept_modes(own_checkify.checkify)
cond = accept_modes(branches.cond)
eval_shape = accept_modes(shape.eval_shape)
fori_loop = accept_modes(loops.fori_loop)
jit = accept_modes(own_jit.jit)
jvp = accept_modes(own_jvp.jvp)
make_jaxpr = accept_modes(jaxpr.make_jaxpr)
pmap = accept_modes(own_pmap.pmap)
remat = accept_modes(own_remat.remat)
scan = accept_modes(own_scan.scan)
shard_map = accept_modes(own_shard_map.shard_map)
switch = accept_modes(branches.switch)
vjp = accept_modes(own_vjp.vjp)
vmap = accept_modes(own_vmap.vmap)
while_loop = accept_modes(loops.while_loop)


@accept_modes
def cached_partial(f: Callable[..., R], /, *cached_args: Any) -> Callable[..., R]:
    """Return `functools.partial(f, *cached_args)`: a repeated call of a jitted function flattens nothing anyway.

    Args:
      f: A transformed function.
      *cached_args: Its first arguments.

    Returns:
      A function of the other arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.cached_partial(nnx.jit(lambda model, x: model(x)), model)(jnp.ones((1, 2))).shape
      (1, 3)
    """
    return functools.partial(f, *cached_args)


def jit_partial(fun: Callable[..., R], /, *partial_args: Any, **options: Any) -> Callable[..., R]:
    """Compile a function and store its first arguments.

    Args:
      fun: The function.
      *partial_args: Its first arguments, such as a model and an optimizer.
      **options: The options of `jit`.

    Returns:
      A function of the other arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.jit_partial(lambda model, x: model(x), model)(jnp.ones((1, 2))).shape
      (1, 3)
    """
    return functools.partial(jit(fun, **options), *partial_args)


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
      nondiff_argnums: Positions of arguments that are not differentiated.
      graph: If this or `graph_updates` is False, the rule is that of `liftnn.custom_vjp`, as in JAX: the backward pass
        gets the cotangent of the output alone.
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
    if graph is False or graph_updates is False:
        return own_rule.CustomVjp(f, "custom_vjp", nondiff_argnums, ())
    return _CustomVjp(f, "custom_vjp", nondiff_argnums, ())


class _CustomVjp(own_rule.CustomVjp[P, R]):
    """A function with a custom VJP rule whose backward pass gets `(inputs_g, out_g)`."""

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Define the rule; see `liftnn.custom_vjp`.

        Args:
          fwd: Called with the arguments; returns a pair of the output and the residuals.
          bwd: Called with the residuals and `(inputs_g, out_g)`; returns a tuple of cotangents.
          *args: As for `liftnn.custom_vjp`.
          **options: As for `liftnn.custom_vjp`.
        """

        def forward(*given: Any) -> Any:
            out, residuals = fwd(*given)
            nondiff = set(self._nondiff.positions(len(given)))
            zeros = [_zeros(x) for i, x in enumerate(given) if i not in nondiff]
            return out, (residuals, zeros)

        def backward(*given: Any) -> Any:
            *nondiff, (residuals, zeros), out_g = given
            inputs_g = tuple([x if x is None else jax.tree.map(jnp.zeros_like, x) for x in zeros])
            return bwd(*nondiff, residuals, (inputs_g, out_g))

        super().defvjp(forward, backward, *args, **options)


def _zeros(x: Any) -> Any:
    """Return the State of an argument with zeros for values; None if it has no modules or Variables."""
    if not any(is_object(leaf) for leaf in jax.tree.leaves(x, is_leaf=is_object)):
        return None
    return jax.tree.map(jnp.zeros_like, state(x))
