"""Encode the values of Variables for JAX: leaves that are not arrays become static."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.containers import refuse_objects
from liftnn._src.graph.kinds import is_object
from liftnn._src.instances import instance_dict
from liftnn._src.printing import ordered_repr
from liftnn._src.static_values.static import Static
from liftnn._src.trees import an, describe_tree, is_argument_array, is_jax_array, treedef_text


class Encoded:
    """A value with leaves that JAX does not accept, such as strings: a pytree of only its arrays.

    The tree of the value is not rebuilt with placeholders for these leaves, since a class may check its leaves.

    Args:
      treedef: The structure of the value.
      statics: The static value of each leaf; None for an array.
      arrays: The arrays.
    """

    __slots__ = ("arrays", "static")

    def __init__(self, treedef: Any, statics: tuple[Static | None, ...], arrays: Sequence[Any]):
        self.static = treedef, statics
        self.arrays = arrays

    def merge(self, statics: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
        """Return one entry for each leaf: from `statics` for a static leaf, from `arrays` for an array."""
        taken = iter(arrays)
        pairs = zip(self.static[1], statics, strict=True)
        return [next(taken) if known is None else x for known, x in pairs]


jax.tree_util.register_pytree_node(
    Encoded, lambda x: (x.arrays, x.static), lambda static, arrays: Encoded(*static, arrays)
)


def encode(value: Any, path: Any) -> Any:
    """Encode a value for JAX.

    Args:
      value: The value of a Variable.
      path: Called without arguments for an error message; returns the Variable's path.

    Returns:
      The value itself if it is not None and all its leaves are arrays or numbers; otherwise an `Encoded`.

    Raises:
      StructureError: If the value contains a module or Variable.
    """
    if is_jax_array(value):
        return value
    if value is None:  # None as an update means that the Variable was not written
        return Encoded(jax.tree.structure(None), (), ())
    leaves, treedef = jax.tree.flatten(value, is_leaf=is_object)
    if all(map(is_argument_array, leaves)) and not any(hasattr(type(x), "__graph_node__") for x in leaves):
        return value
    for x in leaves:
        if hasattr(type(x), "__graph_node__"):
            raise errors.StructureError(
                f"{path()}: the value of this Variable contains {an(type(x))}. A Variable holds arrays, not modules or "
                "Variables.",
                f"Store the {type(x).__name__} as an attribute of a Module instead.",
            )
    statics = tuple([None if is_argument_array(x) else static_leaf(x, path) for x in leaves])
    return Encoded(treedef, statics, [x for x, static in zip(leaves, statics, strict=True) if static is None])


def static_leaf(leaf: Any, path: Callable[[], str]) -> Static:
    """Return a leaf that is neither an object nor an array as a static value.

    Args:
      leaf: The leaf.
      path: Gives its path, for messages.

    Returns:
      The static value.

    Raises:
      StructureError: If it can be neither hashed nor copied and compared.
    """
    try:
        if isinstance(leaf, (set, frozenset)):
            refuse_objects(leaf)
        return Static(leaf)
    except errors.StructureError as error:
        raise errors.StructureError(f"{path()}: {error.cause}", error.remedy) from error.__cause__


def not_dynamic(leaf: Any, path: str, transform: str) -> errors.ArgumentTypeError:
    """Return the error for a leaf that is neither an object nor an array, of a transform without static leaves.

    Args:
      leaf: The leaf.
      path: Its path.
      transform: The name of the transform.

    Returns:
      The error.
    """
    if isinstance(leaf, type) and hasattr(leaf, "__graph_node__"):
        return errors.ArgumentTypeError(
            f"{path} of liftnn.{transform} is the class {leaf.__qualname__}, not an array or a module.",
            f"Create the module: `{leaf.__qualname__}(...)`.",
        )
    text = ordered_repr(leaf)
    remedy = None
    if any(hasattr(type(x), "__graph_node__") for x in instance_dict(leaf).values()):
        remedy = (
            f"Make {type(leaf).__name__}, which has modules as attributes, a `liftnn.Module` or a dataclass. Or "
            f"transform its bound method, as in `liftnn.{transform}(object.method)`."
        )
    elif hasattr(type(leaf), "__array__"):
        remedy = "Pass it as an array, as in `numpy.asarray(x)`."
    return errors.ArgumentTypeError(
        f"{path} of liftnn.{transform} is {an(type(leaf))}, not an array or a module: "
        f"{f'{text}.' if len(text) <= 60 else f'{text:.57}...'}",
        remedy,
    )


def decode(value: Any) -> Any:
    """Restore a value: the inverse of `encode`."""
    if not isinstance(value, Encoded):
        return value
    treedef, statics = value.static
    return treedef.unflatten(value.merge([None if s is None else s.value for s in statics], value.arrays))


def has_encoded(tree: Any) -> bool:
    """Return whether a tree contains an encoded value."""
    return any(map(_is_encoded, jax.tree.leaves(tree, is_leaf=_is_encoded)))


def encoded_parts(treedef: Any) -> tuple[Any, Sequence[Static | None]]:
    """Return the tree of a value and the static value (or None) of each leaf, from the tree of its encoding."""
    node = treedef.node_data()
    return node[1] if node and node[0] is Encoded else (treedef, [None] * treedef.num_leaves)


def describe_structure(treedef: Any) -> str:
    """Return the structure of a value, or of an encoded one, as text."""
    tree, statics = encoded_parts(treedef)
    if tree is treedef:
        return treedef_text(treedef).replace("*", "an array")
    return describe_tree(tree, ["an array" if s is None else ordered_repr(s.value) for s in statics])


def describe(value: Any, in_words: Callable[[Any], str]) -> str:
    """Describe an encoded value without decoding it, so its arrays may be abstract.

    Args:
      value: The value.
      in_words: Returns the text for an array.

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
