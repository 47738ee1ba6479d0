"""`vjp`: the output of a function and its vector-Jacobian product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import jax

from liftnn._src.autodiff.diff_leaves import DiffLeaves
from liftnn._src.autodiff.outputs import Differentiable, differentiate, options_error
from liftnn._src.autodiff.selection import ArgNums
from liftnn._src.autodiff.tangents import ArrayMap, Like, describe, fill, read
from liftnn._src.filters import Filter
from liftnn._src.lifting.array_calls import call_of_arrays
from liftnn._src.lifting.contract import Result
from liftnn._src.publish import publish
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
    """Compute the output of `f` and its vector-Jacobian product, as `jax.vjp`; the cotangent of a module is a State.

    Updates that `f` makes to modules are applied once, by `vjp`. The VJP function does not change modules.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0.
      *primals: The arguments of `f`: arrays, modules and trees of them. The floating point and complex Variables of a
        module that match `wrt` are differentiated.
      has_aux: Whether `f` returns a pair `(output, auxiliary)`, of which only the output is differentiated. The
        default is False.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default, None, means all positional arguments.
      wrt: A filter that selects the differentiated Variables of a module. The default, `Param`, leaves out no Variable
        of floating point or complex dtype that is an argument itself, or an element of one.
      **options: Further options of `jax.vjp`, for calls without modules only.

    Returns:
      A pair `(output, f_vjp)`, or `(output, f_vjp, auxiliary)` if `has_aux` is True. `f_vjp` takes the cotangent of the
      output; a State, a module of the same structure or nested dicts may represent a module, and None means zero.
      Variables that are left out have zero cotangents. It returns a tuple with one cotangent for each differentiated
      argument: a tree of its structure, with a State in place of a module, dtype `float0` for integers, and None for
      non-array leaves. A shared Variable appears once, at its first path, with the sum of its cotangents. `f_vjp` can
      be called many times and is a pytree.

    Raises:
      ArgumentError: When `f_vjp` is called, if a cotangent does not have the shape and dtype of its output.
      ArgumentTypeError: If `argnums` has another type, if one of its arguments was not passed by position, or if
        `has_aux` is True and `f` does not return a pair.
      FilterError: If `wrt` matches no Variable. With `argnums`, each selected argument must have a match; without, one
        match in all arguments is enough, and the default `wrt` needs none.
      StructureError: When `f_vjp` is called, if the cotangent does not have the structure of the output; the message
        names the path.

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

    def run(function: Differentiable) -> tuple[PullBack, Result]:
        if options:
            raise options_error("vjp", options)
        return pull_back(function)

    def of_modules() -> Any:
        return differentiate(f, "vjp", has_aux, argnums, wrt, run)(*primals)

    if argnums is not None:
        return of_modules()
    return call_of_arrays("vjp", (f,), of_arrays, primals, of_modules)


def pull_back(function: Differentiable) -> tuple[PullBack, Result]:
    """Return the VJP function of a pure function, and the result of its call."""
    out, pull, result = jax.vjp(function, function.primals, has_aux=True)
    return PullBack(pull, function.arguments, function.outputs, describe(out)), result


@boundary
class PullBack:
    """The VJP function that `vjp` returns: it maps the cotangent of the output to cotangents of the arguments.

    Args:
      pull: The function that `jax.vjp` returned.
      arguments: The differentiated leaves of the arguments.
      outputs: The differentiated leaves of the output.
      like: The structures, shapes and dtypes of the output's cotangents.
    """

    def __init__(self, pull: Any, arguments: DiffLeaves, outputs: DiffLeaves, like: Like):
        self._pull = pull
        self._static = arguments, outputs, like

    def __call__(self, cotangent: Any) -> tuple[Any, ...]:
        """Return the cotangent of each differentiated argument."""
        arguments, outputs, like = self._static
        (found,) = self._pull(fill(read(outputs, like, "cotangent", [cotangent]), like))
        return tuple(arguments.trees(found))

    def __repr__(self) -> str:
        return "<function of cotangents, returned by liftnn.vjp>"


jax.tree_util.register_pytree_node(
    PullBack, lambda x: ((x._pull,), x._static), lambda static, children: PullBack(*children, *static)
)


publish(vjp)
