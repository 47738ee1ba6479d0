"""The linear functions of arrays that JAX's `vjp` and `linearize` return, to which None may stand for zero."""

from __future__ import annotations

from typing import Any

import jax

from liftnn._src.autodiff.tangents import Like, flatten_up_to, zero


class ArrayMap:
    """JAX's linear function, with its attributes, called with None for what is zero.

    Args:
      function: JAX's function, a pytree.
      like: What its arguments look like; see `describe`.
    """

    def __init__(self, function: Any, like: Like):
        self._function = function
        self._like = like

    def __call__(self, *given: Any) -> Any:
        """Calls the function."""
        return self._function(*with_zeros(given, self._like))

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


def with_zeros(given: tuple[Any, ...], like: Like) -> tuple[Any, ...]:
    """Trees of tangents with zeros in place of None.

    Args:
      given: The trees.
      like: What they look like.

    Returns:
      The trees.
    """
    if len(given) != len(like):
        return given
    return tuple([_fill(x, treedef, leaves) for x, (treedef, leaves) in zip(given, like, strict=True)])


def _fill(tree: Any, treedef: Any, like: tuple[Any, ...]) -> Any:
    """A tree with zeros in place of None; one that does not fit as it is, so that JAX says what is wrong."""
    parts = flatten_up_to(treedef, tree)
    if parts is None or all(x is not None for x in parts):
        return tree
    return treedef.unflatten([zero(w) if x is None else x for x, w in zip(parts, like, strict=True)])
