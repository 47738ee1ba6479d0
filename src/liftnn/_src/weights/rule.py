"""One rule that a user gives: which tensor a Variable comes from, by regular expressions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from liftnn import errors
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary

Template = str | Callable[[re.Match[str]], str]
Renaming = tuple[str, Template | None]


@boundary
@dataclasses.dataclass(frozen=True)
class Rule:
    r"""Specify which tensors some Variables come from, and how their layouts differ.

    A rule works in both directions: `from_torch` and `load_weights` read the tensors, and `to_torch` writes them. The
    steps from the tensor to the Variable are, in this order: take a part, join several tensors, transpose, reshape.

    Args:
      pattern: A regular expression that matches the whole name of a Variable: its path with dots, such as
        `layers\.(\d+)\.kernel`.
      names: The name of the tensor, with groups of the pattern such as `blocks.\1.weight`; or a function from the
        match to the name; or a sequence of these for several tensors that are joined. None means that the Variable
        keeps its value and is not written.
      transpose: The axes of the tensor in the order in which the Variable has them, as for `numpy.transpose`. The
        default, None, keeps their order.
      reshape: The shape of the transposed tensor, if that of the Variable differs; one entry may be -1. The default,
        None, means the same shape.
      part: `(i, n)` if the Variable is the i-th of n equal parts of the tensor, counted from 0, along `axis`. The
        default, None, means the whole tensor.
      axis: The axis of parts, and along which several tensors are joined; 0 by default.

    Raises:
      ArgumentError: If the pattern is not a regular expression, or if another argument is not as above.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Module()
      >>> model.query, model.key = liftnn.Param(jnp.zeros((2, 3))), liftnn.Param(jnp.zeros((2, 3)))
      >>> rules = [
      ...   liftnn.Rule("query", "attention.qk", part=(0, 2), transpose=(1, 0)),
      ...   liftnn.Rule("key", "attention.qk", part=(1, 2), transpose=(1, 0)),
      ... ]
      >>> report = liftnn.from_torch(model, {"attention.qk": jnp.arange(12.0).reshape(6, 2)}, rules)
      >>> model.key.value
      Array([[ 6.,  8., 10.],
             [ 7.,  9., 11.]], dtype=float32)
    """

    pattern: str
    names: Template | Sequence[Template] | None
    transpose: tuple[int, ...] | None = None
    reshape: tuple[int, ...] | None = None
    part: tuple[int, int] | None = None
    axis: int = 0

    def __post_init__(self) -> None:
        checked_pattern(self.pattern)
        names: Any = self.names
        names = names if isinstance(names, (list, tuple)) else () if names is None else (names,)
        if not all(isinstance(name, str) or callable(name) for name in names):
            raise errors.ArgumentError(
                f"The names of a Rule must be a string, a function, a list of these, or None, not {self.names!r:.60}.",
                'Pass "weight", or ["query.weight", "key.weight"] to join two tensors.',
            )
        integers = {
            "transpose": (
                self.transpose is None or _are_integers(self.transpose),
                "a tuple of axes such as (1, 0)",
            ),
            "reshape": (
                self.reshape is None or _are_integers(self.reshape),
                "a tuple of sizes such as (8, -1)",
            ),
            "part": (
                self.part is None or _is_part(self.part),
                "a pair (i, n) with 0 <= i < n such as (0, 3)",
            ),
            "axis": (_are_integers((self.axis,)), "an integer such as 0"),
        }
        for name, (is_valid, kind) in integers.items():
            if not is_valid:
                raise errors.ArgumentError(
                    f"`{name}` of a Rule is {getattr(self, name)!r:.60}.", f"Pass {kind}."
                )


def _are_integers(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and all(type(n) is int for n in cast(Any, x))


def _is_part(x: Any) -> bool:
    return _are_integers(x) and len(x) == 2 and 0 <= x[0] < x[1]


def checked_pattern(pattern: str) -> str:
    """Return a pattern; raise ArgumentError if it is not a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise errors.ArgumentError(
            f"The pattern {pattern!r} of a rule is not a regular expression: {error}.",
            "Escape special characters, as in r'layers\\.0'.",
        ) from None
    return pattern


publish(Rule)
