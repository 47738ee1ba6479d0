"""`associative_scan`: all partial combinations of a row of elements, which may be slices of modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.graph.graphdef import GraphDef, merge, split
from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.array_calls import HAS_MODULES, call_of_arrays
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Lifted, Options, T
from liftnn._src.tracebacks import at_line, boundary
from liftnn._src.trees import (
    an,
    format_path,
    has_changed,
    is_argument_array,
    is_array,
    key_of,
    list_paths,
    type_of,
)
from liftnn._src.variables import frames
from liftnn._src.variables.state import State


@boundary
def associative_scan(fn: Callable[[T, T], T], elems: T, reverse: bool = False, axis: int = 0) -> T:
    """Scans with an associative function in parallel, as `jax.lax.associative_scan`; elements may be modules.

    Args:
      fn: Called as `fn(a, b)` with slices of `elems` along the axis; each may hold any number of elements, so it works
        on all of them at once (`liftnn.vmap` gives it one at a time). It returns their combination, with the structure
        of `elems`: new modules, or `a` or `b`, changed or not, which are copies. It is called as often as the algorithm
        needs, so it may read other modules, but not write to them.
      elems: An array, a module, or a tree of them, stacked along the axis.
      reverse: Whether to combine from the end. The default is False.
      axis: The axis of all arrays. The default is 0.

    Returns:
      What `elems` is, new, with the combination of the first k + 1 elements at position k.

    Raises:
      ArgumentError: If the arrays have different sizes along the axis, or no such axis; if `fn` returns other shapes.
      ArgumentTypeError: If there is something in a Variable that is no array.
      SharedWriteError: If `fn` changes a module that it was not given by the scan.
      StructureError: If `fn` returns another structure.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> class Affine(liftnn.Module):
      ...   def __init__(self, a, b):
      ...     self.a, self.b = liftnn.Variable(a), liftnn.Variable(b)
      >>> def compose(f, g):
      ...   return Affine(f.a * g.a, g.a * f.b + g.b)
      >>> steps = Affine(jnp.array([2.0, 3.0, 4.0]), jnp.ones(3))
      >>> liftnn.associative_scan(compose, steps).b.value.tolist()
      [1.0, 4.0, 17.0]
    """
    out = call_of_arrays(
        "associative_scan", (fn,), lambda fn, elems: jax.lax.associative_scan(fn, elems, reverse, axis), elems
    )
    if out is not HAS_MODULES:
        return out

    def scan(fn: Callable[[Any, Any], Any], elems: Any) -> Any:
        state, graphdef = split(_with_arrays(elems))
        _check_axis(_named_leaves(state, "elems"), axis)

        def combine(a: State, b: State) -> State:
            combined = _with_arrays(fn(merge(graphdef, a), merge(graphdef, b)))
            out, structure = split(combined)
            if not has_changed(graphdef.treedef, structure.treedef, lambda: _structure(combined)):
                structure = GraphDef(
                    graphdef.treedef, structure.edges, structure.specs, structure.frozen, structure.paths
                )
            _check_combined(graphdef, structure, a, out)
            return out

        return merge(graphdef, jax.lax.associative_scan(combine, state, reverse, axis))

    return Lifted((scan,), _bind, Options("associative_scan"))(fn, elems)


def _bind(plan: Plan, pure: PureFunction) -> PureFunction:
    """A scan is computed without a JAX transform; but what it does to modules must not depend on the algorithm."""

    def call(leaves: Sequence[Any]) -> Result:
        with frames.noting_writes() as lines:
            result = pure(leaves)
        for number in result.written:
            name = plan.typed_path(number)
            error = errors.SharedWriteError(
                f"{name} was changed by the function given to associative_scan, which is called as often as the "
                "algorithm needs.",
                "Return what it computes; let it only read modules other than the two that it combines.",
            )
            raise at_line(error, lines.get(name))
        return result

    return call


def _structure(tree: Any) -> Any:
    """The structure of a tree of modules; None of a single one, as in a GraphDef."""
    return None if is_object(tree) else jax.tree.structure(tree, is_leaf=is_object)


def _with_arrays(tree: Any) -> Any:
    """The tree with arrays in place of numbers."""
    return jax.tree.map(
        lambda x: x if is_object(x) or not is_argument_array(x) else jnp.asarray(x), tree, is_leaf=is_object
    )


def _named_leaves(state: State, root: str) -> list[tuple[str, Any]]:
    """Path in words, and array, of each leaf of a State."""
    entries = jax.tree_util.tree_leaves_with_path(state)
    return [
        (format_path((*key_of(first), *map(key_of, rest)), root), leaf) for (first, *rest), leaf in entries
    ]


def _check_axis(leaves: list[tuple[str, Any]], axis: int) -> None:
    """Refuses arrays that have no such axis, or another size along it than the first one."""
    if not leaves:
        raise errors.ArgumentError(
            "There is no array in `elems` to scan over.", "Pass arrays, or modules of them."
        )
    for path, leaf in leaves:
        if not is_array(leaf):
            raise errors.ArgumentTypeError(
                f"{path} is {an(type(leaf))}, which has no axis to scan over: {leaf!r:.60}.",
                "Make it an attribute of the module: what is no array is static there.",
            )
        position = (
            axis + leaves[0][1].ndim if axis < 0 else axis
        )  # as JAX counts: from the end of the first one
        if not 0 <= position < leaf.ndim:
            raise errors.ArgumentError(
                f"{path} has no axis {axis}: its shape is {leaf.shape}.", "Correct `axis`."
            )
        (first, array), *_ = leaves
        if leaf.shape[position] != array.shape[position]:
            raise errors.ArgumentError(
                f"{first} and {path} have different sizes along axis {axis}: {array.shape[position]} and "
                f"{leaf.shape[position]}.",
                "Stack as many elements in each array.",
            )


def _check_combined(expected: GraphDef, structure: GraphDef, a: State, out: State) -> None:
    """Refuses a combination that is no element: of another structure, or with arrays of other shapes."""
    if structure != expected or jax.tree.structure(out) != jax.tree.structure(a):
        raise errors.StructureError(
            "The function given to associative_scan returned another structure than its arguments have:\n"
            + list_paths(expected.diff(structure).splitlines() or ["the values of its Variables"]),
            "Return the structure of `elems`.",
        )
    before, after = _named_leaves(a, "a"), _named_leaves(out, "the output")
    for (path, x), (name, y) in zip(before, after, strict=True):
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise errors.ArgumentError(
                f"{name} of the function given to associative_scan is {type_of(y)}, but {path} is {type_of(x)}.",
                "Return arrays of the same shapes and dtypes; the function gets several elements at once.",
            )
