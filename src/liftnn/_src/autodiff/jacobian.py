"""`jacfwd`, `jacrev` and `hessian`: all derivatives of all outputs, nested as in JAX, with States for modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import jax

from liftnn import errors
from liftnn._src.autodiff.diff_leaves import DiffLeaves, dtype_of, is_inexact, join
from liftnn._src.autodiff.outputs import Differentiable, check_pair
from liftnn._src.autodiff.selection import ArgNums, DiffState, Selection, parse_argnums
from liftnn._src.filters import Filter
from liftnn._src.lifting.configure import keeps_arguments
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Finish, Lifted, Options
from liftnn._src.lifting.values import decode
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable
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
    """The Jacobian of a function, computed column by column, as `jax.jacfwd`; that of a module is a State.

    It is the better choice where there are fewer inputs than outputs. What the function does to modules is done to
    them once.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0. It returns arrays of floating point
        dtype, modules, trees of them.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default is 0.
      has_aux: Whether the function returns a pair, of which only the first is differentiated. The default is False.
      holomorphic: Whether it is holomorphic, with complex input and output. The default is False.
      wrt: Which Variables of a differentiated module. The default is `Param`.

    Returns:
      A function that returns the Jacobian, or the pair of Jacobian and auxiliary output. The tree of the output is
      outside; in place of each array there is what `grad` would return, each of shape `(*output, *input)`. A module
      in the output is a State of its Variables of floating point dtype; the State of a differentiated module below
      one continues its paths: `jacobian["loss"]["layers"][0]["w"]`.

    Raises:
      ArgumentError: When called, if an argument of `argnums` was not passed.
      ArgumentTypeError: If `argnums` is neither; when called, if something of integer or boolean dtype is to be
        differentiated, or is returned.
      FilterError: When called, if the filter matches nothing in a module.

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
    """The Jacobian of a function, computed row by row, as `jax.jacrev`; see `jacfwd`.

    It is the better choice where there are fewer outputs than inputs.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0. It returns arrays of floating point
        dtype, modules, trees of them.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default is 0.
      has_aux: Whether the function returns a pair, of which only the first is differentiated. The default is False.
      holomorphic: Whether it is holomorphic, with complex input and output. The default is False.
      allow_int: Whether integers may be differentiated. The default is False.
      wrt: Which Variables of a differentiated module. The default is `Param`.

    Returns:
      A function that returns the Jacobian, or the pair of Jacobian and auxiliary output.

    Raises:
      ArgumentError: When called, if an argument of `argnums` was not passed.
      ArgumentTypeError: If `argnums` is neither; when called, if something of integer or boolean dtype is to be
        differentiated, or is returned.
      FilterError: When called, if the filter matches nothing in a module.

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
    """The second derivatives of a function, as `jax.hessian`; that of a module is a State of pairs of paths.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0. It returns arrays of floating point
        dtype, modules, trees of them.
      argnums: The differentiated arguments: an int, which may be negative, a `DiffState`, or a sequence of them. The
        default is 0.
      has_aux: Whether the function returns a pair, of which only the first is differentiated. The default is False.
      holomorphic: Whether it is holomorphic, with complex input and output. The default is False.
      wrt: Which Variables of a differentiated module. The default is `Param`.

    Returns:
      A function that returns the second derivatives, or the pair of them and the auxiliary output. They are nested as
      in JAX: the tree of the output, then that of the arguments, then that of the arguments again. The entry for two
      Variables of a module stands at the path of the one continued by that of the other,
      `hessian["first"]["w"]["second"]["b"]`, and has the type and metadata of the other. With several `argnums` the
      State has a tuple at the path of the one.

    Raises:
      ArgumentError: When called, if an argument of `argnums` was not passed.
      ArgumentTypeError: If `argnums` is neither; when called, if something of integer or boolean dtype is to be
        differentiated, or is returned.
      FilterError: When called, if the filter matches nothing in a module.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> second = liftnn.hessian(lambda model, x: (model(x) ** 2).sum())(model, jnp.ones(2))
      >>> second["kernel"]["bias"].shape
      (2, 3, 3)
    """
    return _jacobian(f, jax.hessian, 2, argnums, wrt, has_aux, {"holomorphic": holomorphic})


def _jacobian(
    f: Callable[..., Any],
    transform: Callable[..., Any],
    depth: int,
    argnums: ArgNums,
    wrt: Filter,
    has_aux: bool,
    options: dict[str, Any],
) -> Lifted[..., Any]:
    """The three transforms, which differ in JAX's function and in how often the arguments' tree is repeated."""
    chosen = parse_argnums(argnums, wrt)
    single = isinstance(argnums, (int, DiffState))

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        selection = Selection(plan, chosen)

        def call(leaves: Sequence[Any]) -> Result:
            picked = selection.pick(leaves, "allowed" if options.get("allow_int") else "refused")
            function = Differentiable(pure, picked, leaves, has_aux)
            trees: list[Any] = []

            def flat(diff: list[Any]) -> tuple[list[Any], Result]:
                out, result = function(diff)
                _check_dtypes(function.outputs, out)
                flattened, treedef = jax.tree.flatten(out)
                trees.append(treedef)
                return flattened or diff, result  # of no output at all JAX has no Jacobian

            jacobians, result = transform(flat, has_aux=True, **options)(function.primals)
            treedef = jax.tree.structure(function.primals)
            rows = [_nest(picked, treedef, x, depth, single) for x in jacobians[: trees[0].num_leaves]]
            return result._replace(extra=_fill(function.outputs, trees[0].unflatten(rows))[0])

        return call

    of_arrays = None
    if not any(isinstance(one, DiffState) for one in ([argnums] if single else argnums)):
        of_arrays = functools.partial(transform, argnums=argnums, has_aux=has_aux, **options)
    finish: Finish = (lambda out, found: (found, out[1])) if has_aux else (lambda out, found: found)
    check = check_pair if has_aux else None
    return Lifted((f,), bind, Options(transform.__name__, finish, check=check, of_arrays=of_arrays))


def _nest(picked: DiffLeaves, treedef: Any, row: Any, depth: int, single: bool) -> Any:
    """The derivatives of one output array: the arguments' tree, and that again below each leaf if `depth` is 2.

    Args:
      picked: What is differentiated.
      treedef: The structure of the list of it.
      row: What JAX returns: lists by position, nested `depth` times.
      depth: How often.
      single: Whether there is one argument, not a tuple of them.
    """
    if depth == 1:
        trees = picked.trees(row)
    else:
        below = [_nest(picked, treedef, x, depth - 1, single) for x in treedef.flatten_up_to(row)]
        trees = _fill(picked, treedef.unflatten(below))
    return trees[0] if single else tuple(trees)


def _fill(picked: DiffLeaves, parts: Sequence[Any]) -> list[Any]:
    """Trees with whole trees of derivatives in place of the arrays: nothing is put into a Variable.

    Args:
      picked: What was differentiated.
      parts: What stands for each position.
    """
    leaves = picked.leaves(parts, lambda number, x: decode(x))
    pairs = zip(picked.arguments, leaves, strict=True)
    return [_rebuild(argument.treedef, each) for (argument, _), each in pairs]


def _rebuild(treedef: Any, leaves: Sequence[Any]) -> Any:
    """A tree with these leaves, those of a State being continued by the States among them."""
    tree = treedef.unflatten(leaves)
    if not _holds_state(treedef):
        return tree
    if isinstance(tree, State):
        return join({p: x.raw_value if isinstance(x, Variable) else x for p, x in tree.flat().items()})
    taken = iter(leaves)
    children = [_rebuild(child, list(islice(taken, child.num_leaves))) for child in treedef.children()]
    return jax.tree.structure(tree, is_leaf=lambda x: x is not tree).unflatten(children)


def _holds_state(treedef: Any) -> bool:
    """Whether a State is somewhere in a tree structure."""
    node = treedef.node_data()
    return node is not None and (issubclass(node[0], State) or any(map(_holds_state, treedef.children())))


def _check_dtypes(outputs: DiffLeaves, out: Sequence[Any]) -> None:
    """Only floating point and complex numbers have a Jacobian."""
    for position, value in enumerate(out):
        for leaf in jax.tree.leaves(value):
            if not is_inexact(leaf):
                raise errors.ArgumentTypeError(
                    f"{outputs.name_of(position)} is to be differentiated, but its dtype is {dtype_of(leaf)}.",
                    "Convert it to a floating point dtype, or return it as auxiliary output with has_aux=True.",
                )
