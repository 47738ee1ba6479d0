"""`vjp`: a function's output, and the function that pulls cotangents of it back to the arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import jax

from liftnn._src.autodiff.diff_leaves import DiffLeaves
from liftnn._src.autodiff.outputs import Differentiable, differentiate, options_error
from liftnn._src.autodiff.selection import ArgNums
from liftnn._src.autodiff.tangents import ArrayMap, Like, describe, fill, read
from liftnn._src.filters import Filter
from liftnn._src.lifting.array_calls import HAS_MODULES, call_of_arrays
from liftnn._src.lifting.contract import Result
from liftnn._src.tracebacks import boundary
from liftnn._src.type_variables import Aux, R
from liftnn._src.variables.variable_types import Param


@overload
def vjp(
    f: Callable[..., R],
    /,
    *primals: Any,
    has_aux: Literal[False] = False,
    argnums: ArgNums | None = None,
    wrt: Filter = Param,
) -> tuple[R, PullBack]: ...


@overload
def vjp(
    f: Callable[..., tuple[R, Aux]],
    /,
    *primals: Any,
    has_aux: Literal[True],
    argnums: ArgNums | None = None,
    wrt: Filter = Param,
) -> tuple[R, PullBack, Aux]: ...


@boundary
def vjp(
    f: Callable[..., Any],
    /,
    *primals: Any,
    has_aux: bool = False,
    argnums: ArgNums | None = None,
    wrt: Filter = Param,
    **options: Any,
) -> Any:
    """The output of a function and its vector-Jacobian product, as `jax.vjp`; the cotangent of a module is a State.

    What the function does to modules is done to them once, by `vjp` itself; the product touches no module.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0.
      *primals: Its arguments: arrays, modules, trees of them. Of a module, the Variables that match `wrt` and have a
        floating point or complex dtype are differentiated.
      has_aux: Whether the function returns a pair, of which only the first is differentiated. The default is False.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default, None, means all.
      wrt: Which Variables of a module. The default is `Param`.
      **options: Further options of `jax.vjp`, for calls without modules.

    Returns:
      The pair of the output and a function, or a triple with the auxiliary output. The function takes the cotangent
      of the output, in which a State (or a module, or nested dicts) stands for a module and None for zero; Variables
      that it leaves out have a cotangent of zero. It returns a tuple with the cotangent of each differentiated
      argument: its tree, with a State for a module, `float0` for integers, and None for what is no array. A shared
      Variable stands once, at its first path, with the sum. The function may be called many times, and is a pytree.

    Raises:
      ArgumentError: If an argument of `argnums` was not passed; when the function is called, if a cotangent has
        another shape or dtype than its output.
      ArgumentTypeError: If `argnums` is of another type, or there is no pair where `has_aux` promises one.
      FilterError: If `wrt` is not the default and matches nothing, or nothing in an argument of `argnums`.
      StructureError: When the function is called, if a cotangent does not fit the output; the message has its path.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> out, pull_back = liftnn.vjp(lambda model, x: model(x), model, jnp.ones((1, 2)))
      >>> of_model, of_x = pull_back(jnp.ones((1, 3)))
      >>> of_model["bias"].value.tolist(), of_x.shape
      ([1.0, 1.0, 1.0], (1, 2))
    """

    def of_arrays(f: Callable[..., Any], *primals: Any) -> Any:
        out, pull, *aux = jax.vjp(f, *primals, has_aux=has_aux, **options)
        return (out, ArrayMap(pull, describe((out,))), *aux)

    if argnums is None:
        out = call_of_arrays("vjp", (f,), of_arrays, *primals)
        if out is not HAS_MODULES:
            return out

    def run(function: Differentiable) -> tuple[PullBack, Result]:
        if options:
            raise options_error("vjp", options)
        out, pull, result = jax.vjp(function, function.primals, has_aux=True)
        return PullBack(pull, function.arguments, function.outputs, describe(out)), result

    return differentiate(f, "vjp", primals, has_aux, argnums, wrt, run)


@boundary
class PullBack:
    """The vector-Jacobian product that `vjp` returns: from the cotangent of the output to those of the arguments.

    Args:
      pull: What `jax.vjp` returned.
      arguments: What of the arguments is differentiated.
      outputs: What of the output is.
      like: What its cotangents look like.
    """

    def __init__(self, pull: Any, arguments: DiffLeaves, outputs: DiffLeaves, like: Like):
        self._pull = pull
        self._static = arguments, outputs, like

    def __call__(self, cotangent: Any) -> tuple[Any, ...]:
        """The cotangent of each differentiated argument."""
        arguments, outputs, like = self._static
        (found,) = self._pull(fill(read(outputs, like, "cotangent", [cotangent]), like))
        return tuple(arguments.trees(found))

    def __repr__(self) -> str:
        return "<function that pulls cotangents back, made by liftnn.vjp>"


jax.tree_util.register_pytree_node(
    PullBack, lambda x: ((x._pull,), x._static), lambda static, children: PullBack(*children, *static)
)
