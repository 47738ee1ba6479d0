"""`with_rngs`, a copy of a tree of modules with other streams of random keys; `split_rngs` and `fork_rngs` by mode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from liftnn import errors
from liftnn._src import split_rngs as own
from liftnn._src.compat.modes import accept_modes, resolve_modes
from liftnn._src.filters import Filter, Predicate, to_predicate
from liftnn._src.lifting.configure import MISSING
from liftnn._src.modules.recursive_map import recursive_map
from liftnn._src.rngs import RngStream, Shape, check_shape
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, format_path

Shapes = Shape | Mapping[Any, Shape] | None
Rule = tuple[str, Filter, Predicate, Callable[[RngStream], RngStream]]
"""The name of what is done to a stream, the filter of the streams, its predicate, and the function that does it."""

split_rngs = resolve_modes(own.split_rngs)
fork_rngs = resolve_modes(own.fork_rngs)


@accept_modes
def with_rngs(
    node: Any = MISSING,
    /,
    *,
    split: Shapes = None,
    fork: Filter | Sequence[Filter] | None = None,
    broadcast: Shapes = None,
    only: Filter = True,
) -> Any:
    """Return a copy of a tree of modules with other streams of random keys, each seeded by the next key of the old one.

    The copy has the Variables of the tree, except for those of the new streams. The counts of the old streams advance
    by one.

    Args:
      node: A module, an Rngs, or any pytree with them in it. If it is omitted, the result is a decorator that changes
        the streams in the arguments of a function.
      split: The number of keys of each new stream, or their shape; or a mapping of them by filter, of which the first
        match counts. The default is None: no stream is split.
      fork: A filter, or several, of the streams that get one new key. The default is None: no stream.
      broadcast: How often the new key of each stream is repeated, or the shape to broadcast it to; or a mapping of them
        by filter. The default is None: no stream.
      only: A filter of the streams to change. The default, True, means all.

    Returns:
      The copy, or the decorator. Streams that match nothing are copies with the Variables of the old ones.

    Raises:
      ArgumentError: If a stream matches filters of more than one of `split`, `broadcast` and `fork`, where `...` and
        True do not count; if a size is neither a number of keys nor a shape; or if a stream holds several keys already.
      FilterError: If something is not a filter.

    Example:
      >>> from liftnn.compat import nnx
      >>> rngs = nnx.Rngs(params=0, dropout=1)
      >>> new = nnx.with_rngs(rngs, split={"params": 4}, fork=...)
      >>> new.params.key.shape, new.dropout.key.shape, int(rngs.params.count)
      ((4,), (), 1)
    """
    rules = [
        *_sized_rules("split", split, RngStream.split),
        *_sized_rules("broadcast", broadcast, RngStream.broadcast),
        *[("fork", x, to_predicate(x), RngStream.fork) for x in _as_filters(fork)],
    ]
    is_chosen = to_predicate(only)

    def change(path: Path, x: Any) -> Any:
        return _change(path, x, rules) if isinstance(x, RngStream) and is_chosen(path, x) else x

    if node is not MISSING:
        return recursive_map(change, node)

    def decorate(f: Callable[..., Any]) -> Callable[..., Any]:
        @boundary
        @functools.wraps(f)
        def call(*args: Any, **kwargs: Any) -> Any:
            new_args, new_kwargs = recursive_map(change, (args, kwargs))
            return f(*new_args, **new_kwargs)

        return call

    return decorate


def _sized_rules(name: str, shapes: Shapes, change: Callable[..., RngStream]) -> list[Rule]:
    """Return the rules of an argument with a shape for each filter."""
    by_filter = {} if shapes is None else shapes if isinstance(shapes, Mapping) else {...: shapes}
    for shape in by_filter.values():
        check_shape(name, shape)

    def with_shape(shape: Shape) -> Callable[[RngStream], RngStream]:
        return lambda stream: change(stream, shape)

    return [(name, x, to_predicate(x), with_shape(shape)) for x, shape in by_filter.items()]


def _as_filters(fork: Any) -> Sequence[Filter]:
    """Return the filters of the argument `fork`."""
    if fork is None:
        return ()
    return fork if isinstance(fork, Sequence) and not isinstance(fork, str) else (fork,)


def _change(path: Path, stream: RngStream, rules: list[Rule]) -> RngStream:
    """Return what replaces a stream: the result of the first rule that matches, or the stream."""
    matches: dict[str, Rule] = {}
    for rule in rules:
        if rule[0] not in matches and rule[2](path, stream):
            matches[rule[0]] = rule
    specific = [f"{name} by {x!r}" for name, x, _, _ in matches.values() if x is not ... and x is not True]
    if len(specific) > 1:
        raise errors.ArgumentError(
            f"The stream {format_path(path)} matches multiple rules of nnx.with_rngs: {', '.join(specific)}.",
            "Select each stream by one of them; `...` selects those that are left.",
        )
    return next(iter(matches.values()))[3](stream) if matches else stream
