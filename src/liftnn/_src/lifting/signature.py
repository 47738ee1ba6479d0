"""Selections of arguments by position and name, as in `static_argnums` and `donate_argnames`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from liftnn import errors

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Selected(NamedTuple):
    """Some arguments of a function, by position and by name.

    Args:
      nums: Positions; negative ones count from the last positional argument.
      names: Names by which they may be passed as keywords.
    """

    nums: tuple[int, ...]
    names: tuple[str, ...]

    def positions(self, count: int) -> set[int]:
        """Return the selected positions among `count` positional arguments."""
        return {n for n in self.nums if 0 <= n < count} | {n + count for n in self.nums if -count <= n < 0}

    def common(self, other: Selected) -> list[Any]:
        """Return the positions that two selections share; if there are none, the names that they share."""
        return sorted({*self.nums} & {*other.nums}) or sorted({*self.names} & {*other.names})

    def __bool__(self) -> bool:
        return bool(self.nums or self.names)


def select(
    function: Callable[..., Any],
    argnums: int | Sequence[int] | None,
    argnames: str | Iterable[str] | None,
    what: str,
) -> Selected:
    """Resolve a pair of options to positions and names; as in JAX, one option implies the other.

    Args:
      function: The function.
      argnums: Positions, or None.
      argnames: Names, or None.
      what: The prefix of the options' names, such as `"static"`.

    Returns:
      Positions and names; the positions are not negative if the function has a signature.

    Raises:
      ArgumentError: If the function does not have one of the arguments.
      ArgumentTypeError: If a position is not an int or a name is not a string.
    """
    nums = _several(argnums, int, f"{what}_argnums", "an int or a sequence of ints")
    names = _several(argnames, str, f"{what}_argnames", "a string or a sequence of strings")
    if not nums and not names:
        return Selected((), ())
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return Selected(nums, names)
    return _complete(parameters, nums, names, argnums is None, argnames is None, what)


def _several(given: Any, kind: type, option: str, expected: str) -> tuple[Any, ...]:
    """Convert None, one value of a kind, or an iterable of them to a tuple."""
    several = () if given is None else (given,) if isinstance(given, kind) else given
    found = tuple(several) if isinstance(several, Iterable) else (several,)
    if kind is int:
        found = tuple([int(x) if isinstance(x, np.integer) else x for x in found])
    if not all(isinstance(x, kind) for x in found):
        item, example = ("position", "0") if kind is int else ("name", "'mode'")
        raise errors.ArgumentTypeError(
            f"{option} must be {expected}, not {given!r}.",
            f"Pass one {item}, such as `{option}={example}`, or a tuple of {item}s.",
        )
    return found


def _complete(
    parameters: Any,
    nums: tuple[int, ...],
    names: tuple[str, ...],
    infer_nums: bool,
    infer_names: bool,
    what: str,
) -> Selected:
    """Check positions and names against a signature, and infer missing positions or names."""
    kinds = [p.kind for p in parameters.values()]
    positional = [name for name, p in parameters.items() if p.kind in _POSITIONAL]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        for n in nums:
            if not -len(positional) <= n < len(positional):
                raise errors.ArgumentError(
                    f"{what}_argnums contains {n}, but the function has {len(positional)} positional arguments.",
                    f"Count positions from 0; the positional arguments are: {', '.join(positional) or 'none'}.",
                )
        nums = tuple([n % len(positional) for n in nums])
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in names:
            if name not in parameters:
                raise errors.ArgumentError(
                    f"{what}_argnames contains {name!r}, but the function has no argument of that name.",
                    f"Check the spelling; the arguments are: {', '.join(parameters) or 'none'}.",
                )
    for name in names:
        if name in parameters and parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY:
            raise errors.ArgumentError(
                f"{what}_argnames contains {name!r}, which is a positional-only argument.",
                f"Pass its position in {what}_argnums instead.",
            )
    if infer_nums:
        nums = tuple([i for i, name in enumerate(positional) if name in names])
    if infer_names:
        by_name = [n for n in positional if parameters[n].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        names = tuple([positional[n] for n in nums if 0 <= n < len(positional) and positional[n] in by_name])
    return Selected(nums, names)
