"""`fwd_and_bwd`: the forward and the backward pass of a function, each compiled once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from liftnn._src.autodiff.outputs import differentiate
from liftnn._src.autodiff.selection import ArgNums, parse_argnums
from liftnn._src.autodiff.vjp import PullBack, pull_back
from liftnn._src.compilation.jit import jit
from liftnn._src.filters import Filter
from liftnn._src.graph.recipes import Recipe
from liftnn._src.lifting.configure import keep_items
from liftnn._src.lifting.lift import Lifted
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.variables.variable_types import Param


@boundary
def fwd_and_bwd(
    f: Callable[..., Any],
    /,
    argnums: ArgNums,
    has_aux: bool = False,
    jitted: bool = True,
    *,
    wrt: Filter = Param,
) -> tuple[Callable[..., tuple[Any, ...]], Callable[[PullBack, Any], Any]]:
    """Create functions for the forward and the backward pass of `f`, as `jax.fwd_and_bwd`.

    `fwd` is `vjp`, and `bwd` calls the VJP function that it returned. Each is compiled once, and they may run in
    different programs, for example with the stages of a pipeline. Updates that `f` makes to modules are applied by
    `fwd`; `bwd` does not change modules.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them.
      has_aux: Whether `f` returns a pair `(output, auxiliary)`, of which only the output is differentiated. The
        default is False.
      jitted: Whether both functions are compiled by `liftnn.jit`. The default is True. If only `bwd` is compiled, it is
        compiled in each call, since each call of an eager `fwd` gives another function.
      wrt: A filter that selects the differentiated Variables of a module. The default, `Param`, leaves out no Variable
        of floating point or complex dtype that is an argument itself, or an element of one.

    Returns:
      The functions `fwd` and `bwd`. `fwd` takes the arguments of `f`, and returns `(output, residuals)`, or
      `(output, residuals, auxiliary)` if `has_aux` is True. `bwd` takes the residuals and the cotangent of the output,
      and returns the cotangent of the differentiated argument, with a State in place of each module; a tuple of
      cotangents for a sequence of `argnums`.

    Raises:
      ArgumentError: When `bwd` is called, if the cotangent does not have the shape and dtype of the output.
      ArgumentTypeError: If `f` is not callable or `argnums` has another type; when `fwd` is called, if one of its
        arguments was not passed by position, or if `has_aux` is True and `f` does not return a pair.
      FilterError: When `fwd` is called, if `wrt` matches no Variable of a differentiated argument.
      StructureError: When `bwd` is called, if the cotangent does not have the structure of the output; the message
        names the path.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> fwd, bwd = liftnn.fwd_and_bwd(lambda model, x: model(x), argnums=0)
      >>> out, residuals = fwd(model, jnp.ones((1, 2)))
      >>> bwd(residuals, jnp.ones((1, 3)))["bias"].value.tolist()
      [1.0, 1.0, 1.0]
    """
    argnums = keep_items(argnums)
    is_single = parse_argnums(argnums, wrt).is_single
    fwd = _forward(f, argnums, has_aux, wrt)

    def bwd(residuals: PullBack, cotangent: Any) -> Any:
        cotangents = residuals(cotangent)
        return cotangents[0] if is_single else cotangents

    return (jit(fwd), jit(bwd)) if jitted else (fwd, bwd)


def _forward(f: Callable[..., Any], argnums: ArgNums, has_aux: bool, wrt: Filter) -> Lifted[..., Any]:
    """Return the forward pass; in a copy of what holds it, one that acts on the copy."""
    fwd = differentiate(f, "fwd_and_bwd", has_aux, argnums, wrt, pull_back)
    fwd.__recipe__ = Recipe(_forward, (argnums, has_aux, wrt), {})
    return fwd


publish(fwd_and_bwd)
