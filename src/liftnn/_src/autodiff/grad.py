"""`grad` and `value_and_grad`: gradients with respect to arrays and to the Variables of modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.autodiff.gradient_types import gives_gradient, gives_value_and_gradient
from liftnn._src.autodiff.selection import ArgNums, Selection, parse_argnums
from liftnn._src.filters import Filter
from liftnn._src.graph.kinds import is_object
from liftnn._src.graph.slots import ARRAY
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Finish, Lifted, LiftOptions
from liftnn._src.trees import LEAF
from liftnn._src.type_variables import P, R
from liftnn._src.variables.variable_types import Param


@gives_gradient
def grad(
    f: Callable[..., Any],
    /,
    argnums: ArgNums = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    reduce_axes: Sequence[Any] = (),
    *,
    wrt: Filter = Param,
) -> Lifted[..., Any]:
    """Create a function that computes the gradient of `f`, as `jax.grad`; the gradient of a module is a State.

    Updates that `f` makes to modules (values of BatchStats, counts of an Rngs, attributes) are applied once.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0. It returns a
        scalar array of shape `()`, or a pair `(scalar, auxiliary)` if `has_aux` is True.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default is 0.
      has_aux: Whether `f` returns a pair `(scalar, auxiliary)`. The default is False.
      holomorphic: Whether `f` is holomorphic, with complex inputs and outputs. The default is False.
      allow_int: Whether integer and boolean arrays may be differentiated; their gradients have dtype `float0`. The
        default is False.
      reduce_axes: As in `jax.grad`, where only `()`, the default, is valid.
      wrt: A filter that selects the differentiated Variables of a module. The default, `Param`, leaves out no Variable
        of floating point or complex dtype that is an argument itself, or an element of one.

    Returns:
      A function with the arguments of `f` that returns the gradient, or `(gradient, auxiliary)` if `has_aux` is True.
      The gradient has the structure of the differentiated argument, with a State in place of each module. The State
      has the matching Variables with their types and metadata; a shared Variable appears once, at its first path,
      with the sum of its gradients. For a sequence of `argnums` the gradient is a tuple.

    Raises:
      ArgumentError: When called, if `argnums` has an argument twice.
      ArgumentTypeError: If `argnums` has another type; when called, if an argument in `argnums` was not passed by
        position, if an integer or boolean array would be differentiated, or if `f` does not return a scalar array.
      FilterError: When called, if the filter matches no Variable of the argument; with several positions in
        `argnums`, if it matches none in all of them.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.grad(lambda model, x: model(x).sum())(model, jnp.ones((1, 2)))["bias"].value.tolist()
      [1.0, 1.0, 1.0]
    """
    finish: Finish = (lambda out, grads: (grads, out[1])) if has_aux else (lambda out, grads: grads)
    return _differentiated(
        f,
        "grad",
        finish,
        argnums,
        wrt,
        has_aux,
        holomorphic=holomorphic,
        allow_int=allow_int,
        reduce_axes=reduce_axes,
    )


@gives_value_and_gradient
def value_and_grad(
    f: Callable[..., Any],
    /,
    argnums: ArgNums = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    reduce_axes: Sequence[Any] = (),
    *,
    wrt: Filter = Param,
) -> Lifted[..., Any]:
    """Create a function that computes the value and the gradient of `f`, as `jax.value_and_grad`; see `grad`.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0. It returns a
        scalar array of shape `()`, or a pair `(scalar, auxiliary)` if `has_aux` is True.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default is 0.
      has_aux: Whether `f` returns a pair `(scalar, auxiliary)`. The default is False.
      holomorphic: Whether `f` is holomorphic, with complex inputs and outputs. The default is False.
      allow_int: Whether integer and boolean arrays may be differentiated; their gradients have dtype `float0`. The
        default is False.
      reduce_axes: As in `jax.value_and_grad`, where only `()`, the default, is valid.
      wrt: A filter that selects the differentiated Variables of a module. The default, `Param`, leaves out no Variable
        of floating point or complex dtype that is an argument itself, or an element of one.

    Returns:
      A function with the arguments of `f` that returns a pair of the output of `f` and the gradient. If `has_aux` is
      True, the output is the pair `(scalar, auxiliary)`.

    Raises:
      ArgumentError: When called, if `argnums` has an argument twice.
      ArgumentTypeError: If `argnums` has another type; when called, if an argument in `argnums` was not passed by
        position, if an integer or boolean array would be differentiated, or if `f` does not return a scalar array.
      FilterError: When called, if the filter matches no Variable of the argument; with several positions in
        `argnums`, if it matches none in all of them.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> loss, grads = liftnn.value_and_grad(lambda model, x: model(x).sum())(model, jnp.zeros((1, 2)))
      >>> float(loss), grads["bias"].value.tolist()
      (0.0, [1.0, 1.0, 1.0])
    """
    return _differentiated(
        f,
        "value_and_grad",
        lambda out, grads: (out, grads),
        argnums,
        wrt,
        has_aux,
        holomorphic=holomorphic,
        allow_int=allow_int,
        reduce_axes=reduce_axes,
    )


def _differentiated(
    f: Callable[..., Any],
    name: str,
    finish: Finish,
    argnums: ArgNums,
    wrt: Filter,
    has_aux: bool,
    **options: Any,
) -> Lifted[..., Any]:
    """Implement `grad` and `value_and_grad`, which differ only in their return values."""
    chosen = parse_argnums(argnums, wrt)

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        selection = Selection(plan, chosen.arguments, chosen.matched)

        def call(leaves: Sequence[Any]) -> Result:
            diff_leaves = selection.pick(leaves, "allowed" if options["allow_int"] else "rejected")

            def loss(diff: list[Any]) -> tuple[Any, Result]:
                result = pure(diff_leaves.put(diff, leaves))
                return _scalar(result, has_aux), result

            (_, result), grads = jax.value_and_grad(loss, has_aux=True, **options)(diff_leaves.take(leaves))
            trees = diff_leaves.trees(grads)
            return result._replace(extra=trees[0] if chosen.is_single else tuple(trees))

        return call

    of_arrays = None
    if chosen.argnums is not None:
        transform = jax.grad if name == "grad" else jax.value_and_grad
        of_arrays = functools.partial(transform, argnums=chosen.argnums, has_aux=has_aux, **options)
    n_positional = max((a.argnum + 1 for a in chosen.arguments), default=0)
    lift_options = LiftOptions(
        name, finish, has_aux=has_aux, n_positional=n_positional, of_arrays=of_arrays, as_methods=True
    )
    return _Derivative((f,), bind, lift_options)


class _Derivative(Lifted[P, R]):
    """A transformed function; in a call with modules, the differentiated arguments may be passed by keyword."""

    def _in_place(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not kwargs or not any(map(is_object, jax.tree.leaves((args, kwargs), is_leaf=is_object))):
            return args, kwargs  # JAX differentiates positional arguments only
        return super()._in_place(args, kwargs)


def _scalar(result: Result, has_aux: bool) -> Any:
    """Return the scalar to differentiate: the output, or the first element of the pair."""
    treedef = result.change.treedef.children()[0] if has_aux else result.change.treedef
    if treedef != LEAF or result.change.edges[0] is not ARRAY:
        raise errors.ArgumentTypeError(
            "The function to differentiate must return "
            + ("a pair (scalar array, auxiliary)." if has_aux else "a scalar array."),
            "Return an array of shape (), not a Variable but its `.value`; return further outputs with has_aux=True.",
        )
    return result.leaves[0]
