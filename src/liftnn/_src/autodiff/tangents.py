"""Tangents and cotangents from the user: trees with a State, a module or a dict in place of each module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from liftnn import errors
from liftnn._src.autodiff.diff_leaves import DiffLeaves, dtype_of, is_inexact
from liftnn._src.graph.graphdef import state
from liftnn._src.graph.kinds import VARIABLE, is_object
from liftnn._src.graph.slots import ARRAY, Slot
from liftnn._src.lifting.values import decode, encoded_parts
from liftnn._src.static_values.static import Static
from liftnn._src.trees import (
    Path,
    an,
    format_path,
    is_argument_array,
    is_leaf_tree,
    is_tracer,
    same_node,
    treedef_text,
    type_of,
)
from liftnn._src.variables.nested import mismatch
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

Like = tuple[tuple[Any, tuple[Any, ...]], ...]
"""For each position the tree structure of the value, and the shape and dtype of each leaf's tangent."""


def describe(values: Sequence[Any]) -> Like:
    """Return the structures, shapes and dtypes of the tangents of some values."""

    def one(value: Any) -> Any:
        leaves, treedef = jax.tree.flatten(value)
        return treedef, tuple(map(_type_of_tangent, leaves))

    return tuple(map(one, values))


def _type_of_tangent(x: Any) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of the tangent of a leaf.

    Within `shard_map`, also the axes along which it varies; on a mesh with explicit axes, also its sharding.
    """
    if not is_inexact(x):
        return jax.ShapeDtypeStruct(np.shape(x), jax.dtypes.float0)
    if isinstance(x, jax.Array):
        aval = jax.typeof(x)
        varies = is_tracer(x) and getattr(getattr(aval, "manual_axis_type", None), "varying", None)
        if varies or any(getattr(getattr(aval, "sharding", None), "spec", ())):
            return jax.eval_shape(lambda x: x, x)
    return jax.ShapeDtypeStruct(np.shape(x), dtype_of(x))


def fill(found: Sequence[Any], like: Like) -> list[Any]:
    """Replace None by zeros in a list of tangents."""
    return [
        treedef.unflatten(map(zero, leaves)) if x is None else x
        for x, (treedef, leaves) in zip(found, like, strict=True)
    ]


def zero(leaf: Any) -> Any:
    """Return zeros of the shape and dtype of a leaf; for `float0` a numpy array, as in JAX."""
    if leaf.dtype == jax.dtypes.float0:
        return np.zeros(leaf.shape, leaf.dtype)
    is_outside = leaf.sharding is not None and jax.sharding.get_abstract_mesh().empty
    return jnp.zeros(leaf.shape, leaf.dtype) if is_outside else jnp.zeros_like(leaf)


def read(
    diff_leaves: DiffLeaves, like: Like, what: str, trees: Sequence[Any], of_rule: bool = False
) -> list[Any]:
    """Read the user's tangents or cotangents of the differentiated leaves.

    Args:
      diff_leaves: The differentiated leaves.
      like: The structure, shapes and dtypes for each position.
      what: `"tangent"` or `"cotangent"`. Two cotangents of one Variable are added; two tangents are an error.
      trees: One tree for each argument; None, for a whole tree or a part of it, means zero.
      of_rule: Whether the trees come from a custom rule; JAX then converts floating point dtypes. The default is False.

    Returns:
      The values by position; None where there is none.

    Raises:
      AliasingError: If one Variable has two tangents.
      ArgumentError: If a tangent does not have the shape and dtype of its value.
      StructureError: If a tangent belongs to a leaf that is not differentiated, or a tree has another structure.
    """
    return _Reader(diff_leaves, like, what, of_rule).read(trees)


class _Reader:
    """A reader of tangents or cotangents; its errors name the attribute path."""

    def __init__(self, diff_leaves: DiffLeaves, like: Like, what: str, of_rule: bool):
        self.of_rule = of_rule
        self.diff_leaves = diff_leaves
        self.plan = diff_leaves.plan
        self.like = like
        self.what = what
        self.found: list[Any] = [None] * len(like)
        self.raw: list[Any] = [None] * len(like)
        """The same as the user passed them."""

    def read(self, trees: Sequence[Any]) -> list[Any]:
        """See the function `read`."""
        for (argument, leaves), tree in zip(self.diff_leaves.arguments, trees, strict=True):
            tangents = flatten_up_to(argument.treedef, tree)
            if tangents is None:
                name = self.plan.path_name((0, self.plan.arguments[0].index(argument)))
                expected = treedef_text(argument.treedef)
                raise errors.StructureError(
                    f"The {self.what} of {name} has the structure {_structure(tree)}, not {expected}.",
                    f"Pass a {self.what} with the structure of the value and a State in place of each module; None "
                    "means zero.",
                )
            for leaf, part, x in zip(argument.leaves, leaves, tangents, strict=True):
                if isinstance(part, tuple):
                    self._read_module(leaf, x)
                elif part is not None:
                    self._put(part, unwrap_raw(x), self.plan.leaf_names[leaf])
                elif not _is_nothing(x):
                    self._refuse(leaf, [()])
        return self.found

    def _read_module(self, leaf: int, tree: Any) -> None:
        """Read the tangents of a module or Variable."""
        edge = self.plan.graph.edges[leaf]
        unknown: list[Path] = []
        rejected: list[Path] = []
        for path, x in self._entries(tree, edge):
            slot = self._resolve(edge, path)
            value = unwrap_raw(x)
            if slot is None:
                if value is not None or self._follow(edge, path) is None:
                    unknown.append(path)
            elif slot in self.diff_leaves.positions:
                self._put(
                    self.diff_leaves.positions[slot], value, format_path(path, self.plan.leaf_names[leaf])
                )
            elif not _is_nothing(value) and (isinstance(tree, Variable) or not is_object(tree)):
                rejected.append(path)
        if unknown:
            raise mismatch(
                f"The {self.what} of {self.plan.leaf_names[leaf]} does not match its structure", (), unknown
            )
        if rejected:
            self._refuse(leaf, rejected)

    def _refuse(self, leaf: int, paths: list[Path]) -> None:
        root = self.plan.leaf_names[leaf]
        lines = "\n".join(f"  {format_path(p, root)}" for p in paths[:8])
        raise errors.StructureError(
            f"A {self.what} was passed for leaves that are not differentiated:\n{lines}",
            "Leave it out. Only floating point and complex Variables that `wrt` selects are differentiated.",
        )

    def _entries(self, tree: Any, edge: Any) -> Iterator[tuple[Path, Any]]:
        """Yield the path and value of each tangent of a module."""
        if tree is None:
            return
        if isinstance(tree, Variable) or not (isinstance(tree, Mapping) or is_object(tree)):
            yield (), tree
            return
        if not isinstance(tree, Mapping):
            tree = state(tree)
        if isinstance(tree, State):
            yield from tree.flat().items()
            return
        stack: list[tuple[Path, Any]] = [((), tree)]
        while stack:
            path, x = stack.pop()
            if isinstance(x, Mapping) and self._resolve(edge, path) is None:
                below = x.flat().items() if isinstance(x, State) else [((k,), y) for k, y in x.items()]
                stack += [((*path, *p), y) for p, y in below][::-1]
            else:
                yield path, x

    def _follow(self, edge: Any, path: Path) -> tuple[Any, Slot | None] | None:
        """Return the edge at any of a node's paths, and its slot; None if there is no such path."""
        slot = None
        for key in path:
            if type(edge) is not int or key not in self.plan.graph.specs[edge].keys:
                return None
            spec, slot = self.plan.graph.specs[edge], Slot(edge, key)
            edge = spec.edges[spec.keys.index(key)]
        return edge, slot

    def _resolve(self, edge: Any, path: Path) -> Slot | None:
        """Return the slot of the Variable or array leaf at a path; None if there is none."""
        edge, slot = self._follow(edge, path) or (None, None)
        if edge is ARRAY:
            return slot
        return Slot(edge) if type(edge) is int and self.plan.graph.specs[edge].kind is VARIABLE else None

    def _put(self, position: int, value: Any, name: str) -> None:
        """Record the value for a position."""
        checked = self._checked(position, value, name)
        before = self.found[position]
        if before is None:
            self.found[position], self.raw[position] = checked, value
        elif checked is None:
            return
        elif self.what == "cotangent":
            self.found[position] = jax.tree.map(_add, before, checked)
        elif value is not self.raw[position]:
            raise errors.AliasingError(
                f"{name} has two tangents: it is the same Variable as {self.diff_leaves.name_of(position)}.",
                "Pass one tangent for a shared Variable, at one of its paths.",
            )

    def _checked(self, position: int, value: Any, name: str) -> Any:
        """Check the value for a position and replace None by zeros; return None if the whole value is zero."""
        treedef, like = self.like[position]
        if value is None or isinstance(value, SymbolicZero):
            return None
        leaves = _arrays_up_to(treedef, value)
        if leaves is None:
            expected, _ = encoded_parts(treedef)
            raise errors.StructureError(
                f"The {self.what} of {name} has the structure {_structure(value)}, but its value has the structure "
                f"{treedef_text(expected)}.",
                f"Pass a {self.what} with the structure of the value; None means zero.",
            )
        leaves = [self._taken(x, wanted) for x, wanted in zip(leaves, like, strict=True)]
        for x, wanted in zip(leaves, like, strict=True):
            if x is not None and _type_of(x) != _type_of(wanted):
                raise errors.ArgumentError(
                    f"The {self.what} of {name} is {_type_of(x)}, but must be {_type_of(wanted)}.",
                    f"A {self.what} has the shape and dtype of its value, or dtype float0 if its value is an integer.",
                )
        return treedef.unflatten([zero(w) if x is None else x for x, w in zip(leaves, like, strict=True)])

    def _taken(self, x: Any, wanted: Any) -> Any:
        """Convert a leaf as JAX does.

        Numpy arrays of 64 bits become arrays of JAX, which may have 32 bits. Cotangents of integers are dropped, and
        floating point cotangents of a rule are cast.
        """
        if isinstance(x, SymbolicZero) or x is None:
            return None
        if type(x) in (np.ndarray, np.float64, np.complex128) and x.dtype in (np.float64, np.complex128):
            x = jnp.asarray(x)
        if self.what != "cotangent" or not is_argument_array(x) or np.shape(x) != np.shape(wanted):
            return x
        if dtype_of(wanted) == jax.dtypes.float0:
            return None
        is_real = [jnp.issubdtype(dtype_of(y), jnp.floating) for y in (x, wanted)]
        return jnp.asarray(x, dtype_of(wanted)) if self.of_rule and all(is_real) else x


def _arrays_up_to(treedef: Any, value: Any) -> list[Any] | None:
    """Return the tangents of the arrays of a value, from its encoded structure; None if the structures differ."""
    whole, statics = encoded_parts(treedef)
    parts = flatten_up_to(whole, value)
    if parts is None:
        return None
    pairs = list(zip(parts, statics, strict=True))
    if any(x is not None and static is not None and Static(x) != static for x, static in pairs):
        return None
    return [x for x, static in pairs if static is None]


def flatten_up_to(treedef: Any, tree: Any) -> list[Any] | None:
    """Split a tree at the leaves of another; None in the tree gives None for each leaf below it.

    Args:
      treedef: The structure to split at.
      tree: The tree.

    Returns:
      One part for each leaf of `treedef`; None if the structures do not match.
    """
    if tree is None:
        return [None] * treedef.num_leaves
    if is_leaf_tree(treedef):
        return [tree]
    children, structure = jax.tree.flatten(tree, is_leaf=lambda x: x is not tree)
    if not same_node(structure, treedef) or len(children) != len(treedef.children()):
        return None
    parts = [flatten_up_to(t, x) for t, x in zip(treedef.children(), children, strict=True)]
    if any(p is None for p in parts):
        return None
    return [x for part in parts for x in part or ()]


def _structure(tree: Any) -> str:
    return treedef_text(jax.tree.structure(tree, is_leaf=lambda x: isinstance(x, State) or is_object(x)))


def _type_of(x: Any) -> str:
    """Return the dtype and shape of an array leaf as text, or the class of another object."""
    x = decode(x)
    return type_of(x) if is_argument_array(x) else f"{an(type(x))}"


def _is_nothing(x: Any) -> bool:
    """Check whether a tangent is a symbolic zero or has dtype `float0`."""
    return all(isinstance(y, SymbolicZero) or _type_of(y).startswith("float0") for y in jax.tree.leaves(x))


def _add(a: Any, b: Any) -> Any:
    return a if dtype_of(a) == jax.dtypes.float0 else a + b


class LinearFunction:
    """The function of a `jax.tree_util.Partial` from JAX that takes constants and tangents, and accepts None as zero.

    Args:
      function: JAX's function.
      count: The number of constants, which the `Partial` stores.
      like: The structures, shapes and dtypes of the tangents; see `describe`.
    """

    def __init__(self, function: Callable[..., Any], count: int, like: Like):
        self._definition = function, count, like

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        function, count, like = self._definition
        return function(*arguments[:count], *with_zeros(arguments[count:], like))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinearFunction) and self._definition == other._definition

    def __hash__(self) -> int:
        return hash(self._definition)

    def __repr__(self) -> str:
        return repr(self._definition[0])


class ArrayMap:
    """A linear function from JAX, with its attributes, that accepts None as zero.

    Args:
      function: JAX's function, a pytree.
      like: The structures, shapes and dtypes of its arguments; see `describe`.
    """

    def __init__(self, function: Any, like: Like):
        self._function = function
        self._like = like

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        return self._function(*with_zeros(arguments, self._like))

    def __dir__(self) -> list[str]:
        return dir(self._function)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._function, name)

    def __repr__(self) -> str:
        return repr(self._function)


jax.tree_util.register_pytree_node(
    ArrayMap,
    lambda x: ((x._function,), x._like),
    lambda like, children: ArrayMap(children[0], like),
)


def with_zeros(trees: tuple[Any, ...], like: Like) -> tuple[Any, ...]:
    """Replace None by zeros in trees of tangents.

    Args:
      trees: The trees.
      like: Their structures, shapes and dtypes.

    Returns:
      The trees.
    """
    if len(trees) != len(like):
        return trees
    return tuple([_fill(x, treedef, leaves) for x, (treedef, leaves) in zip(trees, like, strict=True)])


def _fill(tree: Any, treedef: Any, like: tuple[Any, ...]) -> Any:
    """Replace None by zeros in a tree; return a tree of another structure unchanged, so that JAX reports it."""
    parts = flatten_up_to(treedef, tree)
    if parts is None or all(x is not None for x in parts):
        return tree
    return treedef.unflatten([zero(w) if x is None else x for x, w in zip(parts, like, strict=True)])
