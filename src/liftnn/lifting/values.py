"""The values of Variables on their way through JAX: leaves that are no arrays travel as static tree nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from liftnn import errors
from liftnn.graph.kinds import is_object
from liftnn.trees import describe_tree, is_argument_array, is_jax_array
from liftnn.variables.static import Static


class Opaque:
    """A leaf that JAX cannot take, such as a string, as a pytree node without leaves.

    Args:
      static: The leaf.
    """

    __slots__ = ("static",)

    def __init__(self, static: Static):
        self.static = static


jax.tree_util.register_pytree_node(Opaque, lambda x: ((), x.static), lambda static, _: Opaque(static))


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
        return Opaque(Static(None))
    leaves, treedef = jax.tree.flatten(value, is_leaf=is_object)
    if all(map(is_argument_array, leaves)) and not any(hasattr(type(x), "__graph_node__") for x in leaves):
        return value
    for x in leaves:
        if hasattr(type(x), "__graph_node__"):
            raise errors.StructureError(
                f"{path()}: the value of a Variable has a {type(x).__name__} in it.",
                "Make it an attribute of a Module instead; a Variable holds arrays.",
            )
    return treedef.unflatten([x if is_argument_array(x) else Opaque(Static(x)) for x in leaves])


def decode(value: Any) -> Any:
    """The inverse of `encode`."""
    if is_jax_array(value):
        return value
    leaves, treedef = jax.tree.flatten(value, is_leaf=_is_opaque)
    if not any(map(_is_opaque, leaves)):
        return value
    return treedef.unflatten([x.static.value if _is_opaque(x) else x for x in leaves])


def has_opaque(tree: Any) -> bool:
    """Whether an encoded value is somewhere in a tree."""
    return any(map(_is_opaque, jax.tree.leaves(tree, is_leaf=_is_opaque)))


def describe(value: Any, in_words: Callable[[Any], str]) -> str:
    """An encoded value in words; it is not decoded, so its arrays may be abstract.

    Args:
      value: The value.
      in_words: Gives the text for an array.

    Returns:
      The text.
    """
    leaves, treedef = jax.tree.flatten(value, is_leaf=_is_opaque)
    return describe_tree(treedef, [repr(x.static.value) if _is_opaque(x) else in_words(x) for x in leaves])


def _is_opaque(x: Any) -> bool:
    return isinstance(x, Opaque)
