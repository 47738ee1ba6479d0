"""The values of Variables on their way through JAX: leaves that are no arrays travel apart, as something static."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.kinds import is_object
from liftnn._src.static_values.static import Static
from liftnn._src.trees import an, describe_tree, is_argument_array, is_jax_array


class Encoded:
    """A value with leaves that JAX cannot take, such as strings, as a pytree node of its arrays.

    The value's own tree is not rebuilt with something else in place of these leaves: a class may check them.

    Args:
      treedef: The structure of the value.
      statics: For each leaf the static value, None for an array.
      arrays: The arrays.
    """

    __slots__ = ("arrays", "static")

    def __init__(self, treedef: Any, statics: tuple[Static | None, ...], arrays: Sequence[Any]):
        self.static = treedef, statics
        self.arrays = arrays

    def merge(self, statics: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
        """Something for each leaf: for static ones from the first, for arrays from the second."""
        taken = iter(arrays)
        pairs = zip(self.static[1], statics, strict=True)
        return [next(taken) if known is None else x for known, x in pairs]


jax.tree_util.register_pytree_node(
    Encoded, lambda x: (x.arrays, x.static), lambda static, arrays: Encoded(*static, arrays)
)


def encode(value: Any, path: Any) -> Any:
    """A value as JAX can take it.

    Args:
      value: What a Variable holds.
      path: Called without arguments if something is wrong: the Variable's path in words.

    Returns:
      The value itself if it is not None and all its leaves are arrays or numbers.

    Raises:
      StructureError: If there is a module or Variable in it.
    """
    if is_jax_array(value):
        return value
    if value is None:  # as an update, None stands for a Variable that was not written
        return Encoded(jax.tree.structure(None), (), ())
    leaves, treedef = jax.tree.flatten(value, is_leaf=is_object)
    if all(map(is_argument_array, leaves)) and not any(hasattr(type(x), "__graph_node__") for x in leaves):
        return value
    for x in leaves:
        if hasattr(type(x), "__graph_node__"):
            raise errors.StructureError(
                f"{path()}: the value of a Variable has {an(type(x))} in it.",
                "Make it an attribute of a Module instead; a Variable holds arrays.",
            )
    statics = tuple([None if is_argument_array(x) else Static(x) for x in leaves])
    return Encoded(treedef, statics, [x for x, static in zip(leaves, statics, strict=True) if static is None])


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    if not isinstance(value, Encoded):
        return value
    treedef, statics = value.static
    return treedef.unflatten(value.merge([None if s is None else s.value for s in statics], value.arrays))


def has_encoded(tree: Any) -> bool:
    """Whether an encoded value is somewhere in a tree."""
    return any(map(_is_encoded, jax.tree.leaves(tree, is_leaf=_is_encoded)))


def encoded_parts(treedef: Any) -> tuple[Any, Sequence[Static | None]]:
    """The structure of a value, from that of what `encode` makes of it; and for each leaf its static value, or None."""
    node = treedef.node_data()
    return node[1] if node and node[0] is Encoded else (treedef, [None] * treedef.num_leaves)


def describe(value: Any, in_words: Callable[[Any], str]) -> str:
    """An encoded value in words; it is not decoded, so its arrays may be abstract.

    Args:
      value: The value.
      in_words: Gives the text for an array.

    Returns:
      The text.
    """
    if not isinstance(value, Encoded):
        leaves, treedef = jax.tree.flatten(value)
        return describe_tree(treedef, map(in_words, leaves))
    treedef, statics = value.static
    words = value.merge(["" if s is None else repr(s.value) for s in statics], [*map(in_words, value.arrays)])
    return describe_tree(treedef, words)


def _is_encoded(x: Any) -> bool:
    return isinstance(x, Encoded)
