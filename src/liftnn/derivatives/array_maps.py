"""The linear functions of arrays that JAX's `vjp` and `linearize` return, to which None may stand for zero."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from liftnn.derivatives.directions import flatten_up_to


class ArrayMap:
    """JAX's linear function, with its attributes, called with None for what is zero.

    Args:
      function: JAX's function, a pytree.
      like: What its arguments look like.
    """

    def __init__(self, function: Any, like: Types):
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


class Types(NamedTuple):
    """The types of the arrays in some trees, which are never rebuilt with them: a class may check its leaves.

    Args:
      leaves: The types.
      treedef: The structure of the trees.
    """

    leaves: tuple[Any, ...]
    treedef: Any

    @classmethod
    def of(cls, trees: tuple[Any, ...]) -> Types:
        """Those of some trees."""
        leaves, treedef = jax.tree.flatten(trees)
        return cls(tuple(map(jax.typeof, leaves)), treedef)


jax.tree_util.register_pytree_node(
    ArrayMap,
    lambda x: ((x._function,), x._like),
    lambda like, children: ArrayMap(children[0], like),
)


def with_zeros(given: tuple[Any, ...], like: Types) -> tuple[Any, ...]:
    """Trees of tangents with zeros in place of None.

    Args:
      given: The trees.
      like: What they are tangent to.

    Returns:
      The trees.
    """
    parts = flatten_up_to(like.treedef, given)
    if parts is None or all(x is not None for x in parts):
        return given
    pairs = zip(parts, like.leaves, strict=True)
    return like.treedef.unflatten([_zero_like(t) if x is None else x for x, t in pairs])


def _zero_like(x: Any) -> Any:
    """What is tangent to an array of a type, zero."""
    return np.zeros(x.shape, x.dtype if jnp.issubdtype(x.dtype, jnp.inexact) else jax.dtypes.float0)
