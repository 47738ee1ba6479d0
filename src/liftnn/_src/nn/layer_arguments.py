"""The arguments of the layers of a Stack: what is neither an array nor a module is static."""

from __future__ import annotations

from typing import Any

import jax

from liftnn._src.graph.kinds import is_object
from liftnn._src.static_values.static import Static
from liftnn._src.trees import ARRAY_TYPES


@jax.tree_util.register_pytree_node_class
class _Constant:
    """A static argument of the layers, as a pytree without leaves.

    Args:
      static: The value.
    """

    def __init__(self, static: Static):
        self.static = static

    def tree_flatten(self) -> tuple[tuple[()], Static]:
        """Return no leaves, and the value as the static part."""
        return (), self.static

    @classmethod
    def tree_unflatten(cls, static: Static, _: tuple[()]) -> _Constant:
        """Return the object with this static part."""
        return cls(static)


def mark_static(tree: Any) -> Any:
    """Wrap the leaves of arguments that are neither arrays nor objects of liftnn: transforms would trace numbers.

    Args:
      tree: The arguments.

    Returns:
      The arguments with a pytree without leaves in place of each such leaf.
    """
    return jax.tree.map(
        lambda x: x if isinstance(x, ARRAY_TYPES) or is_object(x) else _Constant(Static(x)),
        tree,
        is_leaf=is_object,
    )


def without_marks(tree: Any) -> Any:
    """Return the arguments that `mark_static` has wrapped.

    Args:
      tree: What `mark_static` has returned.

    Returns:
      The arguments.
    """
    return jax.tree.map(
        lambda x: x.static.value if isinstance(x, _Constant) else x,
        tree,
        is_leaf=lambda x: isinstance(x, _Constant) or is_object(x),
    )
