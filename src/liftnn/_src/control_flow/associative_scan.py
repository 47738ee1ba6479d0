"""`associative_scan`: a parallel scan with an associative function over stacked arrays and modules."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.graph.graphdef import GraphDef, merge, split
from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.array_calls import call_of_arrays
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Lifted, LiftOptions, T
from liftnn._src.publish import publish
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
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State


@boundary
def associative_scan(fn: Callable[[T, T], T], elems: T, reverse: bool = False, axis: int = 0) -> T:
    """Perform a scan with an associative function in parallel, as `jax.lax.associative_scan`.

    Args:
      fn: An associative function, called as `fn(a, b)`. `a` and `b` have the structure of `elems` and hold several
        stacked elements, so `fn` must work on all of them at once; wrap it in `liftnn.vmap` if it takes single
        elements. It returns the combinations in the structure of `elems`: new modules, or `a` or `b`, which are copies
        and may be changed. The number of calls is unspecified, so `fn` may read other modules but not write to them.
      elems: An array, a module, or a tree of them, stacked along `axis`.
      reverse: Whether to combine from the last element to the first. The default is False.
      axis: The axis of the elements in all arrays. The default is 0.

    Returns:
      New objects with the structure and shapes of `elems`: position k has the combination of the first k + 1 elements.

    Raises:
      ArgumentError: If an array does not have the axis, if sizes along it differ, or if `fn` changes a shape or dtype.
      ArgumentTypeError: If a Variable holds an object that is not an array.
      SharedWriteError: If `fn` changes a module other than its two arguments.
      StructureError: If `fn` returns a structure other than that of `elems`.

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

    def of_arrays(fn: Callable[[Any, Any], Any], elems: Any) -> Any:
        return jax.lax.associative_scan(fn, elems, reverse, axis)

    def scan(fn: Callable[[Any, Any], Any], elems: Any) -> Any:
        state, graphdef = split(_with_arrays(elems))
        _check_axis(_named_leaves(state, "elems"), operator.index(axis))

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

    def of_modules() -> Any:
        return Lifted((scan,), _bind, LiftOptions("associative_scan", needs_values=True))(fn, elems)

    return call_of_arrays("associative_scan", (fn,), of_arrays, (elems,), of_modules)


def _bind(plan: Plan, pure: PureFunction) -> PureFunction:
    """Bind the scan without a JAX transform; raise if `fn` writes, since the number of its calls is not defined."""

    def call(leaves: Sequence[Any]) -> Result:
        with frames.noting_writes() as lines:
            result = pure(leaves)
        for number in result.written:
            name = plan.typed_path(number)
            error = errors.SharedWriteError(
                f"The function given to associative_scan changed {name}, but how often it is called is undefined.",
                "Return the new value instead. The function may change only the two elements that it combines.",
            )
            raise at_line(error, lines.get(name))
        return result

    return call


def _structure(tree: Any) -> Any:
    """Return the structure of a tree of modules; None for a single module, as in a GraphDef."""
    return None if is_object(tree) else jax.tree.structure(tree, is_leaf=is_object)


def _with_arrays(tree: Any) -> Any:
    """Replace the numbers in a tree by arrays."""
    return jax.tree.map(
        lambda x: x if is_object(x) or not is_argument_array(x) else jnp.asarray(x), tree, is_leaf=is_object
    )


def _named_leaves(state: State, root: str) -> list[tuple[str, Any]]:
    """Return the path as text, and the array, of each leaf of a State."""
    values = [(path, unwrap_raw(x)) for path, x in state.flat().items()]
    return [
        (format_path((*path, *map(key_of, keys)), root), leaf)
        for path, value in values
        for keys, leaf in jax.tree_util.tree_leaves_with_path(value)
    ]


def _check_axis(leaves: list[tuple[str, Any]], axis: int) -> None:
    """Raise an error if a leaf is not an array, or does not have the axis with the size of the first leaf."""
    if not leaves:
        raise errors.ArgumentError(
            "associative_scan has nothing to scan: `elems` does not contain an array.",
            "Pass arrays, or modules that contain arrays.",
        )
    for path, leaf in leaves:
        if not is_array(leaf):
            raise errors.ArgumentTypeError(
                f"{path} is {an(type(leaf))}, which has no axis to scan over: {leaf!r:.60}.",
                "Store it as a plain attribute of the module, where it is static, not in a Variable.",
            )
        # Like JAX, count a negative axis from the end of the first array.
        position = axis + leaves[0][1].ndim if axis < 0 else axis
        if not 0 <= position < leaf.ndim:
            raise errors.ArgumentError(
                f"{path} has no axis {axis}: its shape is {leaf.shape}.",
                "Pass an `axis` that all arrays in `elems` have.",
            )
        (first, array), *_ = leaves
        if leaf.shape[position] != array.shape[position]:
            raise errors.ArgumentError(
                f"{first} and {path} have different sizes along axis {axis}: {array.shape[position]} and "
                f"{leaf.shape[position]}.",
                "Stack the same number of elements in each array.",
            )


def _check_combined(expected: GraphDef, structure: GraphDef, a: State, out: State) -> None:
    """Raise an error if the combination has another structure, shape or dtype than the elements."""
    if structure != expected or jax.tree.structure(out) != jax.tree.structure(a):
        raise errors.StructureError(
            "The function given to associative_scan must return the structure of its arguments, but its output "
            "differs at:\n"
            + list_paths(expected.diff(structure).splitlines() or ["the values of its Variables"]),
            "Return the combination in the structure of `elems`.",
        )
    before, after = _named_leaves(a, "a"), _named_leaves(out, "the output")
    for (path, x), (name, y) in zip(before, after, strict=True):
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise errors.ArgumentError(
                f"The function given to associative_scan must keep shapes and dtypes, but {path} is {type_of(x)} and "
                f"{name} is {type_of(y)}.",
                "Combine all elements at once, stacked along the axis; for one at a time, use liftnn.vmap.",
            )


publish(associative_scan)
