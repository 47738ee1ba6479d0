"""What JAX's messages show of a pure function: the user's function, and attribute paths in place of flat leaves."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

from liftnn._src.lifting.contract import Plan
from liftnn._src.lifting.names import innermost

F = TypeVar("F", bound=Callable[..., Any])

_OF_LEAVES = inspect.signature(lambda liftnn_leaves: None)
LEAF_NAME = re.compile(r"\bliftnn_leaves\[(\d+)\]")
"""JAX's name for a dynamic leaf; the prefix makes a clash with a user's text unlikely."""


def show_as(pure: F, function: Any, signature: inspect.Signature = _OF_LEAVES) -> F:
    """Give a function the name and the line of another function in JAX's messages.

    Args:
      pure: The function, which is changed.
      function: The user's function, or a pure function that shows it.
      signature: The signature to which JAX binds the arguments. The default has one argument, the dynamic leaves.

    Returns:
      `pure`.
    """
    functools.update_wrapper(pure, innermost(function), updated=())
    pure.__signature__ = signature
    return pure


def leaf_names(plan: Plan) -> Callable[[re.Match[str]], str]:
    """Return a function that gives the attribute path for what `LEAF_NAME` has found.

    Args:
      plan: The arguments.
    """
    return lambda found: plan.name(plan.slots[int(found[1])])


def rename(error: BaseException, pattern: re.Pattern[str], name: Callable[[re.Match[str]], str]) -> None:
    """Replace JAX's names of flat leaves by attribute paths in the text of an error.

    Args:
      error: The error, which is changed.
      pattern: Finds JAX's names.
      name: Returns the attribute path for what was found.
    """
    if any(isinstance(x, str) and pattern.search(x) for x in error.args):
        error.args = tuple([pattern.sub(name, x) if isinstance(x, str) else x for x in error.args])
