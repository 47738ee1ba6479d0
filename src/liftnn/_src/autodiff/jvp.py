"""`jvp` and `linearize`: a function's output, and the tangent that tangents of the arguments give it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import jax

from liftnn import errors
from liftnn._src.autodiff.diff_leaves import DiffLeaves
from liftnn._src.autodiff.outputs import Differentiable, check_pair, differentiate, options_error
from liftnn._src.autodiff.selection import ArgNums, DiffState, Selection
from liftnn._src.autodiff.tangents import ArrayMap, Like, describe, fill, read
from liftnn._src.filters import Filter
from liftnn._src.lifting.array_calls import HAS_MODULES, call_of_arrays
from liftnn._src.lifting.callables import unwrap_callable
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Lifted, Options
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an
from liftnn._src.type_variables import Aux, R
from liftnn._src.variables.variable_types import Param


@overload
def jvp(
    f: Callable[..., R],
    /,
    primals: Sequence[Any],
    tangents: Sequence[Any],
    has_aux: Literal[False] = False,
    *,
    wrt: Filter = Param,
) -> tuple[R, Any]: ...


@overload
def jvp(
    f: Callable[..., tuple[R, Aux]],
    /,
    primals: Sequence[Any],
    tangents: Sequence[Any],
    has_aux: Literal[True],
    *,
    wrt: Filter = Param,
) -> tuple[R, Any, Aux]: ...


@boundary
def jvp(
    f: Callable[..., Any],
    /,
    primals: Sequence[Any],
    tangents: Sequence[Any],
    has_aux: bool = False,
    *,
    wrt: Filter = Param,
) -> Any:
    """The output of a function and its tangent, as `jax.jvp`; the tangent of a module is a State.

    What the function does to modules is done to them once.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0.
      primals: Its arguments, a tuple or list of arrays, modules, trees of them.
      tangents: One tangent for each argument; for that of a bound method's module too, or else it is zero. A State
        (or a module of the same structure, or nested dicts) stands for a module and None for zero; Variables that it
        leaves out have a tangent of zero, and cost nothing.
      has_aux: Whether the function returns a pair, of which only the first is differentiated. The default is False.
      wrt: Which Variables of a module may have tangents. The default is `Param`.

    Returns:
      The pair of the output and its tangent, or a triple with the auxiliary output. The tangent of the output is its
      tree, with a State of the Variables of floating point or complex dtype for a module.

    Raises:
      AliasingError: If a shared Variable has two tangents.
      ArgumentError: If there are not as many tangents as arguments, or one has another shape or dtype than its value.
      ArgumentTypeError: If primals or tangents are neither tuple nor list, or there is no pair where `has_aux`
        promises one.
      StructureError: If a tangent does not fit its argument, or is of something that `wrt` does not choose; the
        message has its path.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> direction = {"bias": jnp.arange(3.0)}
      >>> out, tangent = liftnn.jvp(lambda m, x: m(x), (model, jnp.ones((1, 2))), (direction, None))
      >>> tangent.tolist()
      [[0.0, 1.0, 2.0]]
    """
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, (tuple, list)):
            raise errors.ArgumentTypeError(
                f"{name} of jvp must be a tuple or list with one for each argument, not {an(type(given))}.",
                f"Pass `({name},)` if there is one argument.",
            )
    out = call_of_arrays("jvp", (f,), functools.partial(_jvp, has_aux), primals, tangents)
    if out is not HAS_MODULES:
        return out
    carried = len(unwrap_callable(f, "jvp")[1])

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        given = complete(tangents, len(primals) + carried, carried)
        selection = Selection(plan, [DiffState(i, wrt) for i in range(len(given))], "none")

        def call(leaves: Sequence[Any]) -> Result:
            picked = selection.pick(leaves)
            function = Differentiable(pure, picked, leaves, has_aux)
            found = read(picked, describe(function.primals), "tangent", given)
            diff = [None if t is None else x for x, t in zip(function.primals, found, strict=True)]
            _, tangent, result = jax.jvp(function, (diff,), (found,), has_aux=True)
            return result._replace(extra=function.outputs.trees(tangent)[0])

        return call

    def finish(out: Any, tangent: Any) -> Any:
        return (out[0], tangent, out[1]) if has_aux else (out, tangent)

    return Lifted((f,), bind, Options("jvp", finish, check=check_pair if has_aux else None))(*primals)


def _jvp(has_aux: bool, f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """JAX's."""
    return jax.jvp(f, primals, tangents, has_aux)


@overload
def linearize(
    f: Callable[..., R],
    /,
    *primals: Any,
    has_aux: Literal[False] = False,
    argnums: ArgNums | None = None,
    wrt: Filter = Param,
) -> tuple[R, PushForward]: ...


@overload
def linearize(
    f: Callable[..., tuple[R, Aux]],
    /,
    *primals: Any,
    has_aux: Literal[True],
    argnums: ArgNums | None = None,
    wrt: Filter = Param,
) -> tuple[R, PushForward, Aux]: ...


@boundary
def linearize(
    f: Callable[..., Any],
    /,
    *primals: Any,
    has_aux: bool = False,
    argnums: ArgNums | None = None,
    wrt: Filter = Param,
    **options: Any,
) -> Any:
    """The output of a function and the linear function that approximates it there, as `jax.linearize`.

    What the function does to modules is done to them once, by `linearize` itself; the linear function touches no
    module.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0.
      *primals: Its arguments: arrays, modules, trees of them. Of a module, the Variables that match `wrt` and have a
        floating point or complex dtype are differentiated.
      has_aux: Whether the function returns a pair, of which only the first is differentiated. The default is False.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default, None, means all.
      wrt: Which Variables of a module. The default is `Param`.
      **options: Further options of `jax.linearize`, for calls without modules.

    Returns:
      The pair of the output and a function, or a triple with the auxiliary output. The function takes a tangent for
      each differentiated argument, as `jvp` does, and returns the tangent of the output. It may be called many
      times, and is a pytree.

    Raises:
      AliasingError: When the function is called, if a shared Variable has two tangents.
      ArgumentError: If an argument of `argnums` was not passed; when the function is called, if there are not as many
        tangents as arguments, or one has another shape or dtype than its value.
      ArgumentTypeError: If `argnums` is of another type, or there is no pair where `has_aux` promises one.
      FilterError: If `wrt` is not the default and matches nothing, or nothing in an argument of `argnums`.
      StructureError: When the function is called, if a tangent does not fit its argument.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> out, push = liftnn.linearize(lambda model, x: model(x), model, jnp.ones((1, 2)))
      >>> push({"bias": jnp.arange(3.0)}, None).tolist()
      [[0.0, 1.0, 2.0]]
    """
    carried = len(unwrap_callable(f, "linearize")[1]) if argnums is None else 0

    def of_arrays(f: Callable[..., Any], *primals: Any) -> Any:
        out, push, *aux = jax.linearize(f, *primals, has_aux=has_aux, **options)
        return (out, ArrayMap(push, describe(primals)), *aux)

    if argnums is None:
        out = call_of_arrays("linearize", (f,), of_arrays, *primals)
        if out is not HAS_MODULES:
            return out

    def run(function: Differentiable) -> tuple[PushForward, Result]:
        if options:
            raise options_error("linearize", options)
        _, push, result = jax.linearize(function, function.primals, has_aux=True)
        like = describe(function.primals)
        return PushForward(push, function.arguments, function.outputs, like, carried), result

    return differentiate(f, "linearize", primals, has_aux, argnums, wrt, run)


@boundary
class PushForward:
    """The linear function that `linearize` returns: from tangents of the arguments to that of the output.

    Args:
      push: What `jax.linearize` returned.
      arguments: What of the arguments is differentiated.
      outputs: What of the output is.
      like: What the tangents of the arguments look like.
      carried: How many arguments come first that a bound method brings along.
    """

    def __init__(self, push: Any, arguments: DiffLeaves, outputs: DiffLeaves, like: Like, carried: int):
        self._push = push
        self._static = arguments, outputs, like, carried

    def __call__(self, *tangents: Any) -> Any:
        """The tangent of the output."""
        arguments, outputs, like, carried = self._static
        given = complete(tangents, len(arguments.arguments), carried)
        return outputs.trees(self._push(fill(read(arguments, like, "tangent", given), like)))[0]

    def __repr__(self) -> str:
        return "<function that pushes tangents forward, made by liftnn.linearize>"


jax.tree_util.register_pytree_node(
    PushForward, lambda x: ((x._push,), x._static), lambda static, children: PushForward(*children, *static)
)


def complete(tangents: Sequence[Any], count: int, carried: int) -> Sequence[Any]:
    """One tangent for each argument: a bound method's module may be left out, and has then a tangent of zero.

    Args:
      tangents: Those that were given.
      count: How many arguments there are.
      carried: How many of them a bound method brings along.

    Returns:
      The tangents.

    Raises:
      ArgumentError: If there are fewer or more.
    """
    if len(tangents) == count:
        return tangents
    if len(tangents) != count - carried:
        raise errors.ArgumentError(
            f"There are {len(tangents)} tangents for {count} arguments.",
            "Pass one for each; None stands for zero.",
        )
    return [None] * carried + list(tangents)
