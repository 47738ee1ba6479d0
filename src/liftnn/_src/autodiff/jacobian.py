"""`jacfwd`, `jacrev` and `hessian`: full Jacobians, nested as in JAX, with a State in place of each module."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from liftnn._src.autodiff.diff_leaves import DiffLeaves
from liftnn._src.autodiff.outputs import Differentiable
from liftnn._src.autodiff.selection import ArgNums, Selection, parse_argnums
from liftnn._src.filters import Filter
from liftnn._src.lifting.configure import keeps_arguments
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Finish, Lifted, LiftOptions
from liftnn._src.lifting.values import decode
from liftnn._src.publish import publish
from liftnn._src.variables.variable_types import Param


@keeps_arguments
def jacfwd(
    f: Callable[..., Any],
    /,
    argnums: ArgNums = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    *,
    wrt: Filter = Param,
) -> Lifted[..., Any]:
    """Create a function that computes the Jacobian of `f` in forward mode, column by column, as `jax.jacfwd`.

    Forward mode needs one pass for each input entry, so it suits functions with fewer inputs than outputs. Updates that
    `f` makes to modules are applied once.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0. It returns arrays of
        floating point dtype, modules and trees of them.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default is 0.
      has_aux: Whether `f` returns a pair `(output, auxiliary)`, of which only the output is differentiated. The
        default is False.
      holomorphic: Whether `f` is holomorphic, with complex inputs and outputs. The default is False.
      wrt: A filter that selects the differentiated Variables of a module. The default, `Param`, leaves out no Variable
        of floating point or complex dtype that is an argument itself, or an element of one.

    Returns:
      A function with the arguments of `f` that returns the Jacobian, or `(jacobian, auxiliary)` if `has_aux` is True.
      The Jacobian has the structure of the output. Each of its arrays is replaced by a tree like the gradient that
      `grad` returns, with arrays of shape `(*output_shape, *input_shape)`. A module in the output is replaced by a
      State of its floating point Variables; the paths of a differentiated module are appended to the path of the
      output: `jacobian["loss"]["layers"][0]["w"]`.

    Raises:
      ArgumentTypeError: If `argnums` has another type; when called, if an argument in `argnums` was not passed by
        position, if an integer or boolean array would be differentiated or is returned as a differentiated output.
      FilterError: When called, if the filter matches no Variable of the argument; with several positions in
        `argnums`, if it matches none in all of them.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> jacobian = liftnn.jacfwd(lambda model, x: model(x))(model, jnp.ones(2))
      >>> jacobian["kernel"].shape, jacobian["bias"].shape
      ((3, 2, 3), (3, 3))
    """
    return _jacobian(f, jax.jacfwd, 1, argnums, wrt, has_aux, {"holomorphic": holomorphic})


@keeps_arguments
def jacrev(
    f: Callable[..., Any],
    /,
    argnums: ArgNums = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    *,
    wrt: Filter = Param,
) -> Lifted[..., Any]:
    """Create a function that computes the Jacobian of `f` in reverse mode, row by row, as `jax.jacrev`.

    Reverse mode needs one pass for each output entry, so it suits functions with fewer outputs than inputs. See
    `jacfwd` for the structure of the Jacobian.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0. It returns arrays of
        floating point dtype, modules and trees of them.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default is 0.
      has_aux: Whether `f` returns a pair `(output, auxiliary)`, of which only the output is differentiated. The
        default is False.
      holomorphic: Whether `f` is holomorphic, with complex inputs and outputs. The default is False.
      allow_int: Whether integer and boolean arrays may be differentiated. The default is False.
      wrt: A filter that selects the differentiated Variables of a module. The default, `Param`, leaves out no Variable
        of floating point or complex dtype that is an argument itself, or an element of one.

    Returns:
      A function with the arguments of `f` that returns the Jacobian, or `(jacobian, auxiliary)` if `has_aux` is True.

    Raises:
      ArgumentTypeError: If `argnums` has another type; when called, if an argument in `argnums` was not passed by
        position, if an integer or boolean array would be differentiated or is returned as a differentiated output.
      FilterError: When called, if the filter matches no Variable of the argument; with several positions in
        `argnums`, if it matches none in all of them.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> jacobian = liftnn.jacrev(lambda model, x: model(x), argnums=(0, 1))(model, jnp.ones(2))
      >>> jacobian[0]["bias"].value.tolist(), jacobian[1].shape
      ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], (3, 2))
    """
    options = {"holomorphic": holomorphic, "allow_int": allow_int}
    return _jacobian(f, jax.jacrev, 1, argnums, wrt, has_aux, options)


@keeps_arguments
def hessian(
    f: Callable[..., Any],
    /,
    argnums: ArgNums = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    *,
    wrt: Filter = Param,
) -> Lifted[..., Any]:
    """Create a function that computes the Hessian of `f`, as `jax.hessian`; see `jacfwd` for the structure.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0. It returns arrays of
        floating point dtype, modules and trees of them.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default is 0.
      has_aux: Whether `f` returns a pair `(output, auxiliary)`, of which only the output is differentiated. The
        default is False.
      holomorphic: Whether `f` is holomorphic, with complex inputs and outputs. The default is False.
      wrt: A filter that selects the differentiated Variables of a module. The default, `Param`, leaves out no Variable
        of floating point or complex dtype that is an argument itself, or an element of one.

    Returns:
      A function with the arguments of `f` that returns the Hessian, or `(hessian, auxiliary)` if `has_aux` is True.
      As in JAX, the tree of the output contains the tree of the arguments, which contains the tree of the arguments
      again; its arrays have shape `(*output_shape, *input_shape, *input_shape)`. For two Variables of a module, the
      path of the second is appended to the path of the first, `hessian["first"]["w"]["second"]["b"]`; the entry has the
      type and metadata of the second. With a sequence of `argnums`, the State has a tuple at the path of the first.

    Raises:
      ArgumentTypeError: If `argnums` has another type; when called, if an argument in `argnums` was not passed by
        position, if an integer or boolean array would be differentiated or is returned as a differentiated output.
      FilterError: When called, if the filter matches no Variable of the argument; with several positions in
        `argnums`, if it matches none in all of them.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> second = liftnn.hessian(lambda model, x: (model(x) ** 2).sum())(model, jnp.ones(2))
      >>> second["kernel"]["bias"].shape
      (2, 3, 3)
    """
    return _jacobian(f, jax.hessian, 2, argnums, wrt, has_aux, {"holomorphic": holomorphic})


_OUTPUT_REMEDY = "Convert it to a floating point dtype, or return it as auxiliary output with has_aux=True."


def _jacobian(
    f: Callable[..., Any],
    transform: Callable[..., Any],
    depth: int,
    argnums: ArgNums,
    wrt: Filter,
    has_aux: bool,
    options: dict[str, Any],
) -> Lifted[..., Any]:
    """Implement the three transforms, which differ in JAX's function and in the nesting depth of the result."""
    chosen = parse_argnums(argnums, wrt)

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        selection = Selection(plan, chosen.arguments, chosen.matched)

        def call(leaves: Sequence[Any]) -> Result:
            diff_leaves = selection.pick(leaves, "allowed" if options.get("allow_int") else "rejected")
            function = Differentiable(pure, diff_leaves, leaves, has_aux)
            trees: list[Any] = []

            def flat(diff: list[Any]) -> tuple[list[Any], Result]:
                out, result = function(diff)
                function.outputs.check_inexact(out, _OUTPUT_REMEDY)
                flattened, treedef = jax.tree.flatten(out)
                trees.append(treedef)
                return flattened or diff, result  # JAX has no Jacobian of an empty output

            jacobians, result = transform(flat, has_aux=True, **options)(function.primals)
            treedef = jax.tree.structure(function.primals)
            rows = [
                _nest(diff_leaves, treedef, x, depth, chosen.is_single)
                for x in jacobians[: trees[0].num_leaves]
            ]
            return result._replace(extra=_fill(function.outputs, trees[0].unflatten(rows))[0])

        return call

    of_arrays = None
    if chosen.argnums is not None:
        of_arrays = functools.partial(transform, argnums=chosen.argnums, has_aux=has_aux, **options)
    finish: Finish = (lambda out, found: (found, out[1])) if has_aux else (lambda out, found: found)
    name = transform.__name__
    lift_options = LiftOptions(name, finish, has_aux=has_aux, of_arrays=of_arrays, as_methods=True)
    return Lifted((f,), bind, lift_options)


def _nest(diff_leaves: DiffLeaves, treedef: Any, row: Any, depth: int, single: bool) -> Any:
    """Return the derivatives of one output array: the tree of the arguments, nested `depth` times.

    Args:
      diff_leaves: The differentiated leaves.
      treedef: The structure of their list.
      row: The derivatives from JAX: lists by position, nested `depth` times.
      depth: The nesting depth.
      single: Whether `argnums` selects a single argument instead of a tuple.
    """
    if depth == 1:
        trees = diff_leaves.trees(row)
    else:
        below = [_nest(diff_leaves, treedef, x, depth - 1, single) for x in treedef.flatten_up_to(row)]
        trees = _fill(diff_leaves, treedef.unflatten(below))
    return trees[0] if single else tuple(trees)


def _fill(diff_leaves: DiffLeaves, parts: Sequence[Any]) -> list[Any]:
    """Return trees with whole trees of derivatives in place of the arrays, not wrapped in Variables.

    Args:
      diff_leaves: The differentiated leaves.
      parts: The tree for each position.
    """
    leaves = diff_leaves.leaves(parts, lambda number, x: decode(x))
    pairs = zip(diff_leaves.arguments, leaves, strict=True)
    return [argument.treedef.unflatten(each) for (argument, _), each in pairs]


publish(hessian, jacfwd, jacrev)
