"""Selections of arguments by position and name, as in `static_argnums` and `donate_argnames`."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from liftnn import errors
from liftnn._src.annotations import signature_of

T = TypeVar("T")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


_NOT_BY_NAME = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


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

    def after(self, count: int) -> Selected:
        """Return the selection with `count` more arguments in front."""
        return Selected(tuple([n + count if n >= 0 else n for n in self.nums]), self.names)

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
    nums, names = as_positions(argnums, f"{what}_argnums"), _names(argnames, f"{what}_argnames")
    if not nums and not names:
        return Selected((), ())
    try:
        parameters = signature_of(function).parameters
    except (TypeError, ValueError):
        if what == "donate" and argnames is not None:  # as in JAX: their positions are unknown
            raise errors.ArgumentError(
                "donate_argnames cannot be used, since the function has no signature.",
                "Pass the positions in donate_argnums instead.",
            ) from None
        return Selected(nums, names)
    return _complete(parameters, nums, names, argnums is None, argnames is None, what)


def select_for_jax(
    function: Callable[..., Any],
    argnums: int | Sequence[int] | None,
    argnames: str | Iterable[str] | None,
    what: str,
) -> dict[str, Any]:
    """Resolve a pair of options as `select`, and return the options to pass to JAX.

    JAX infers an option that is None from the other one, but takes `()` as it is. So an option that the user has
    passed is passed on, also if it is empty.

    Args:
      function: The function.
      argnums: Positions, or None.
      argnames: Names, or None.
      what: The prefix of the options' names, such as `"static"`.

    Returns:
      The options by name.

    Raises:
      ArgumentError: If the function does not have one of the arguments.
      ArgumentTypeError: If a position is not an int or a name is not a string.
    """
    selected = select(function, argnums, argnames, what)
    pairs = {"argnums": (argnums, selected.nums), "argnames": (argnames, selected.names)}
    return {f"{what}_{key}": x for key, (passed, x) in pairs.items() if x or passed is not None}


def _one_or_several(value: Any, convert: Callable[[Any], T]) -> tuple[T, ...]:
    """Convert one value, or an iterable of values, to a tuple, as in JAX; `convert` raises TypeError for others."""
    try:
        return (convert(value),)
    except TypeError:
        return tuple(map(convert, value))


def as_positions(argnums: Any, option: str) -> tuple[int, ...]:
    """Convert an option to a tuple of positions.

    Args:
      argnums: An integer, or several; None means none.
      option: The name of the option.

    Returns:
      The positions.

    Raises:
      ArgumentTypeError: If a position is not an integer.
    """
    try:
        return () if argnums is None else _one_or_several(argnums, operator.index)
    except TypeError:
        raise errors.ArgumentTypeError(
            f"{option} must be an int or a sequence of ints, not {argnums!r}.",
            f"Pass one position, such as `{option}=0`, or a tuple of positions.",
        ) from None


def _names(argnames: Any, option: str) -> tuple[str, ...]:
    """Convert an option to a tuple of names."""
    try:
        return () if argnames is None else _one_or_several(argnames, _as_name)
    except TypeError:
        raise errors.ArgumentTypeError(
            f"{option} must be a string or a sequence of strings, not {argnames!r}.",
            f"Pass one name, such as `{option}='mode'`, or a tuple of names.",
        ) from None


def _as_name(x: Any) -> str:
    if not isinstance(x, str):
        raise TypeError
    return x


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
        kind = parameters[name].kind if name in parameters else None
        if kind in _NOT_BY_NAME:
            what_it_is = (
                "a positional-only argument"
                if kind in _POSITIONAL
                else "the name of the `*args` of the function"
            )
            raise errors.ArgumentError(
                f"{what}_argnames contains {name!r}, which is {what_it_is}.",
                f"Pass its position in {what}_argnums instead.",
            )
    if infer_nums:
        nums = tuple([i for i, name in enumerate(positional) if name in names])
    if infer_names:
        by_name = [n for n in positional if parameters[n].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        names = tuple([positional[n] for n in nums if 0 <= n < len(positional) and positional[n] in by_name])
    return Selected(nums, names)
