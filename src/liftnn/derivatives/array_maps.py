"""The linear functions of arrays that JAX's `vjp` and `linearize` return, to which None may stand for zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class ArrayMap:
    """JAX's linear function, with its attributes, called with None for what is zero.

    Args:
      function: JAX's function, a pytree.
      like: The arrays of each argument, with their types in their place.
    """

    def __init__(self, function: Any, like: Any):
        self._function = function
        self._like = like

    @classmethod
    def of(cls, function: Any, arguments: Any) -> ArrayMap:
        """The function for arguments that look like these."""
        return cls(function, jax.tree.map(jax.typeof, arguments))

    def __call__(self, *given: Any) -> Any:
        """Calls the function."""
        return self._function(*with_zeros(given, self._like))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._function, name)

    def __repr__(self) -> str:
        return repr(self._function)

    def flatten(self) -> tuple[tuple[Any], Any]:
        """As a pytree."""
        leaves, treedef = jax.tree.flatten(self._like)
        return (self._function,), (tuple(leaves), treedef)


def _unflatten(static: Any, children: Any) -> ArrayMap:
    leaves, treedef = static
    return ArrayMap(children[0], treedef.unflatten(leaves))


jax.tree_util.register_pytree_node(ArrayMap, ArrayMap.flatten, _unflatten)


def with_zeros(given: tuple[Any, ...], like: Any) -> tuple[Any, ...]:
    """Trees of tangents with zeros in place of None.

    Args:
      given: The trees.
      like: Trees of arrays that they are tangent to, or of their types.

    Returns:
      The trees.
    """
    leaves = jax.tree.leaves(given, is_leaf=lambda x: x is None)
    if all(x is not None for x in leaves) or len(given) != len(like):
        return given
    return jax.tree.map(_or_zeros, given, like, is_leaf=lambda x: x is None)


def _or_zeros(x: Any, like: Any) -> Any:
    return jax.tree.map(_zero_like, like) if x is None else x


def _zero_like(x: Any) -> Any:
    """What is tangent to an array, zero."""
    dtype = jnp.result_type(x) if not hasattr(x, "dtype") else x.dtype
    return np.zeros(jnp.shape(x), dtype if jnp.issubdtype(dtype, jnp.inexact) else jax.dtypes.float0)
