"""Variables are pytrees, so that compiled JAX functions such as `jnp.sum` and most of `jax.nn` accept them.

liftnn's own transforms treat them as objects and do not flatten them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from liftnn._src.variables import frames
from liftnn._src.variables.operators import constant_or_value

_VALUE = jax.tree_util.GetAttrKey("value")


def _flatten(variable: Any) -> tuple[tuple[Any], Any]:
    return (constant_or_value(variable),), variable._metadata


def _flatten_with_keys(variable: Any) -> tuple[tuple[tuple[Any, Any]], Any]:
    return ((_VALUE, constant_or_value(variable)),), variable._metadata


def register(cls: type[Any], make: Callable[[type[Any], Any, Any, Any], Any]) -> None:
    """Register a class of Variables with JAX.

    Args:
      cls: The class.
      make: Creates a Variable from its class, value, metadata and owner.
    """

    def unflatten(metadata: Any, children: Any) -> Any:
        owner = frames.owner_now()
        return make(cls, children[0], metadata, owner if isinstance(owner, frames.Frame) else frames.COPIED)

    jax.tree_util.register_pytree_with_keys(cls, _flatten_with_keys, unflatten, _flatten)
