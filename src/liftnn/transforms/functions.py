"""The functions that a loop or branch is given: lifted along with its operands, and traced once each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from liftnn.graph.module import Module
from liftnn.lifting.lift import open_function
from liftnn.lifting.pure import PureCall


def hold_functions(transform: str, **functions: Any) -> Module:
    """A module of functions, to be passed as an argument.

    So modules whose bound methods or partials they are, or that they are themselves, take part in the call.

    Args:
      transform: What messages call the transform.
      **functions: A function, or a list of them, under each name.

    Returns:
      The module, with the functions as attributes.

    Raises:
      ArgumentTypeError: If one of them is not callable.
    """
    holder = Module()
    for name, given in functions.items():
        for function in given if isinstance(given, list) else [given]:
            open_function(function, transform)
        setattr(holder, name, given)
    return holder


def trace_once(pure: PureCall) -> Callable[..., Any]:
    """A pure call that JAX traces once for each type of its arguments, however often it is used.

    What a loop writes is found by tracing its body before the loop is made. Without this, each level of nested loops
    would double the traces of the innermost body.
    """
    return jax.jit(pure, inline=True)
