"""Modules handed to JAX itself: JAX is told how to take one apart only in order to say that it should not.

JAX asks for the parts of an object before it looks at its type, so this is where a message can name the transform of
liftnn's that would do.
"""

from __future__ import annotations

from typing import Any, NoReturn

import jax

from liftnn import errors
from liftnn.tracebacks import boundary


def refuse_in_jax(cls: type) -> None:
    """Makes JAX's functions refuse the instances of a class of Modules.

    Args:
      cls: The class.
    """
    jax.tree_util.register_pytree_node(cls, _refuse, _never)


@boundary
def _refuse(module: Any) -> NoReturn:
    raise errors.ArgumentTypeError(
        f"A {type(module).__name__} was handed to a function of JAX's, or returned from one that JAX transforms. JAX "
        "knows arrays and trees of them; it would not see what happens to a Module.",
        "Use the liftnn transform of the same name (liftnn.jit for jax.jit, liftnn.grad for jax.grad ...); or give JAX "
        "the State that liftnn.split makes of the Module, and merge it inside.",
    )


def _never(*_: Any) -> NoReturn:
    raise AssertionError
