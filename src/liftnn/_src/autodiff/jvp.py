"""`jvp` and `linearize`: forward-mode derivatives of functions of arrays and modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import jax
from jax.tree_util import Partial

from liftnn import errors
from liftnn._src.autodiff.diff_leaves import DiffLeaves
from liftnn._src.autodiff.outputs import Differentiable, differentiate, options_error
from liftnn._src.autodiff.selection import ArgNums, DiffState, Selection
from liftnn._src.autodiff.tangents import Like, LinearFunction, describe, fill, read
from liftnn._src.filters import Filter
from liftnn._src.lifting.array_calls import call_of_arrays
from liftnn._src.lifting.callables import as_method, unwrap_callable
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.publish import publish
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
    """Compute the output of `f` and its Jacobian-vector product, as `jax.jvp`; the tangent of a module is a State.

    Updates that `f` makes to modules are applied once.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0.
      primals: The arguments of `f`: a tuple or list of arrays, modules and trees of them.
      tangents: A tuple or list with one tangent for each argument. The tangent for the module of a bound method may be
        left out and is then zero. A State, a module of the same structure or nested dicts may represent a module, and
        None means zero. Variables that are left out have zero tangents.
      has_aux: Whether `f` returns a pair `(output, auxiliary)`, of which only the output is differentiated. The
        default is False.
      wrt: A filter that selects the Variables of a module that may have tangents. The default, `Param`, leaves out no
        Variable of floating point or complex dtype that is an argument itself, or an element of one.

    Returns:
      A pair `(output, tangent)`, or `(output, tangent, auxiliary)` if `has_aux` is True. The tangent has the structure
      of the output, with a State of the floating point and complex Variables in place of each module.

    Raises:
      AliasingError: If a shared Variable has two tangents.
      ArgumentError: If the numbers of tangents and arguments differ, or if a tangent does not have the shape and dtype
        of its value.
      ArgumentTypeError: If `primals` or `tangents` is neither a tuple nor a list, or if `has_aux` is True and `f` does
        not return a pair.
      StructureError: If a tangent does not have the structure of its argument, or belongs to a leaf that `wrt` does
        not select; the message names the path.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> direction = {"bias": jnp.arange(3.0)}
      >>> out, tangent = liftnn.jvp(lambda m, x: m(x), (model, jnp.ones((1, 2))), (direction, None))
      >>> tangent.tolist()
      [[0.0, 1.0, 2.0]]
    """
    for name, values in (("primals", primals), ("tangents", tangents)):
        if not isinstance(values, (tuple, list)):
            raise errors.ArgumentTypeError(
                f"`{name}` of jvp must be a tuple or list with one entry for each argument, not {an(type(values))}.",
                f"For a single argument pass `({name},)`.",
            )
    carried = len(unwrap_callable(as_method(f), "jvp")[1])

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        all_tangents = complete(tangents, len(primals) + carried, carried)
        selection = Selection(plan, [DiffState(i, wrt) for i in range(len(all_tangents))], "none")

        def call(leaves: Sequence[Any]) -> Result:
            diff_leaves = selection.pick(leaves)
            function = Differentiable(pure, diff_leaves, leaves, has_aux)
            found = read(diff_leaves, describe(function.primals), "tangent", all_tangents)
            diff = [None if t is None else x for x, t in zip(function.primals, found, strict=True)]
            _, tangent, result = jax.jvp(function, (diff,), (found,), has_aux=True)
            return result._replace(extra=function.outputs.trees(tangent)[0])

        return call

    def finish(out: Any, tangent: Any) -> Any:
        return (out[0], tangent, out[1]) if has_aux else (out, tangent)

    def of_modules() -> Any:
        return Lifted((f,), bind, LiftOptions("jvp", finish, has_aux=has_aux, as_methods=True))(*primals)

    of_arrays = functools.partial(jax.jvp, has_aux=has_aux)
    return call_of_arrays("jvp", (f,), of_arrays, (primals, tangents), of_modules)


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
    """Compute the output of `f` and its linear approximation at the arguments, as `jax.linearize`.

    Updates that `f` makes to modules are applied once, by `linearize`. The linear function does not change modules.

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
      **options: Further options of `jax.linearize`, for calls without modules only.

    Returns:
      A pair `(output, f_jvp)`, or `(output, f_jvp, auxiliary)` if `has_aux` is True. `f_jvp` takes one tangent for each
      differentiated argument, in the form that `jvp` accepts, and returns the tangent of the output. It can be called
      many times and is a pytree.

    Raises:
      AliasingError: When `f_jvp` is called, if a shared Variable has two tangents.
      ArgumentError: When `f_jvp` is called, if the numbers of tangents and arguments differ, or if a tangent does not
        have the shape and dtype of its value.
      ArgumentTypeError: If `argnums` has another type, if one of its arguments was not passed by position, or if
        `has_aux` is True and `f` does not return a pair.
      FilterError: If `wrt` matches no Variable. With `argnums`, each selected argument must have a match; without, one
        match in all arguments is enough, and the default `wrt` needs none.
      StructureError: When `f_jvp` is called, if a tangent does not have the structure of its argument.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> out, push = liftnn.linearize(lambda model, x: model(x), model, jnp.ones((1, 2)))
      >>> push({"bias": jnp.arange(3.0)}, None).tolist()
      [[0.0, 1.0, 2.0]]
    """
    carried = len(unwrap_callable(as_method(f), "linearize")[1]) if argnums is None else 0

    def of_arrays(f: Callable[..., Any], *primals: Any) -> Any:
        linearized: Any = jax.linearize(f, *primals, has_aux=has_aux, **options)
        out, push, *aux = linearized
        linear = LinearFunction(push.func, len(push.args), describe(primals))
        return (out, Partial(linear, *push.args), *aux)

    def run(function: Differentiable) -> tuple[PushForward, Result]:
        if options:
            raise options_error("linearize", options)
        _, push, result = jax.linearize(function, function.primals, has_aux=True)
        like = describe(function.primals)
        return PushForward(push, function.arguments, function.outputs, like, carried), result

    def of_modules() -> Any:
        return differentiate(f, "linearize", has_aux, argnums, wrt, run)(*primals)

    if argnums is not None:
        return of_modules()
    return call_of_arrays("linearize", (f,), of_arrays, primals, of_modules)


@boundary
class PushForward:
    """The linear function that `linearize` returns: it maps tangents of the arguments to the tangent of the output.

    Args:
      push: The linear function that `jax.linearize` returned.
      arguments: The differentiated leaves of the arguments.
      outputs: The differentiated leaves of the output.
      like: The structures, shapes and dtypes of the tangents.
      carried: The number of leading arguments that come from a bound method or module.
    """

    def __init__(self, push: Any, arguments: DiffLeaves, outputs: DiffLeaves, like: Like, carried: int):
        self._push = push
        self._static = arguments, outputs, like, carried

    def __call__(self, *tangents: Any) -> Any:
        """Return the tangent of the output."""
        arguments, outputs, like, carried = self._static
        all_tangents = complete(tangents, len(arguments.arguments), carried)
        return outputs.trees(self._push(fill(read(arguments, like, "tangent", all_tangents), like)))[0]

    def __repr__(self) -> str:
        return "<linear function of tangents, returned by liftnn.linearize>"


jax.tree_util.register_pytree_node(
    PushForward, lambda x: ((x._push,), x._static), lambda static, children: PushForward(*children, *static)
)


def complete(tangents: Sequence[Any], count: int, carried: int) -> Sequence[Any]:
    """Complete the tangents with zeros for the module of a bound method, if they are left out.

    Args:
      tangents: The tangents that the user passed.
      count: The number of arguments.
      carried: The number of leading arguments that come from a bound method or module.

    Returns:
      One tangent for each argument.

    Raises:
      ArgumentError: If there are fewer or more tangents than arguments.
    """
    if len(tangents) == count:
        return tangents
    if len(tangents) != count - carried:
        raise errors.ArgumentError(
            f"Got {len(tangents)} tangent{'s' * (len(tangents) != 1)} for {count} argument{'s' * (count != 1)}.",
            "Pass one tangent for each argument; None means zero.",
        )
    return [None] * carried + list(tangents)


publish(jvp, linearize)
