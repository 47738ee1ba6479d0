"""Modules handed to JAX itself: JAX is told how to take one apart only in order to say that it should not.

JAX asks for the parts of an object before it looks at its type, so this is where a message can name the transform of
liftnn's that would do. `jax.block_until_ready` alone gets the parts: it only waits for the arrays among them.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import jax

from liftnn import errors
from liftnn.graph.walk import Walk
from liftnn.tracebacks import boundary
from liftnn.variables.variable import Variable


def refuse_in_jax(cls: type) -> None:
    """Makes JAX's functions refuse the instances of a class of Modules.

    Args:
      cls: The class.
    """
    jax.tree_util.register_pytree_node(cls, _parts, _never)


@boundary
def _parts(module: Any) -> tuple[Any, None]:
    if _waits():
        walk = Walk()
        walk.visit(module, ())
        return [x.raw_value if isinstance(x, Variable) else None for x in walk.objects] + walk.arrays, None
    raise errors.ArgumentTypeError(
        f"A {type(module).__name__} was handed to a function of JAX's, or returned from one that JAX transforms. JAX "
        "knows arrays and trees of them; it would not see what happens to a Module.",
        "Use the liftnn transform of the same name (liftnn.jit for jax.jit, liftnn.grad for jax.grad ...); or give JAX "
        "the State that liftnn.split makes of the Module, and merge it inside. Functions of jax.tree take Modules as "
        "leaves with is_leaf=lambda x: isinstance(x, liftnn.Module).",
    )


def _waits() -> bool:
    """Whether it is `jax.block_until_ready` that asks, by way of a function or two for trees."""
    frame = sys._getframe(1)
    for _ in range(6):
        if frame is not None and frame.f_code is _WAIT:
            return True
        frame = frame.f_back if frame is not None else None
    return False


_WAIT = getattr(jax.block_until_ready, "__wrapped__", jax.block_until_ready).__code__


def _never(*_: Any) -> NoReturn:
    raise AssertionError
