"""Rules that JAX runs after the call that they belong to: what they capture can no longer become an input of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from liftnn import errors
from liftnn._src.captures.search import find_captured
from liftnn._src.lifting.purify import PureFunction
from liftnn._src.lifting.result import Result
from liftnn._src.modules.verbs import iter_graph
from liftnn._src.tracebacks import at_line
from liftnn._src.trees import format_path
from liftnn._src.variables import frames


def without_captures(
    pure: PureFunction, leaves: Sequence[Any], who: str, function: Callable[..., Any]
) -> Result:
    """A pure call that JAX makes after the call that it belongs to, when nothing more can become an input of that.

    Args:
      pure: The pure function.
      leaves: The dynamic leaves.
      who: What it calls, for the message.
      function: The user's function, likewise.

    Returns:
      Its result.

    Raises:
      TraceContextError: If it uses captured objects.
    """
    try:
        return pure(leaves)
    except frames.RetryWithCaptures as missing:
        raise late_error(missing, who, function) from None


def late_error(missing: frames.RetryWithCaptures, who: str, function: Callable[..., Any]) -> errors.LiftError:
    """The error for a rule that used captured objects when nothing more could become an input.

    Args:
      missing: What it used.
      who: What the rule is called.
      function: The user's function.

    Returns:
      The error, to be raised.
    """
    error = errors.TraceContextError(
        f"{who} uses {_name_captured(function, missing.objects[0])}, which it reached through a closure, after the "
        "call that it belongs to.",
        "Pass it as an argument of the function; to the backward pass, as a residual.",
    )
    return at_line(error, missing.line)


def _name_captured(function: Callable[..., Any], x: Any) -> str:
    """What the code of a function calls an object that it captures, and its type, in words."""
    roots = find_captured([function]).roots
    found = [format_path(p, n) for n, r in roots.items() for p, y in iter_graph(r) if frames.lookup(y) is x]
    return f"{found[0]} (a {type(x).__name__})" if found else f"a {type(x).__name__}"
