"""Split and fork streams of random keys in place, in all modules of a tree, and restore them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.filters import Filter, first_match, to_predicate, to_predicates
from liftnn._src.lifting.callables import unwrap_callable
from liftnn._src.lifting.configure import MISSING
from liftnn._src.modules.copies import clone
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.modules.recursive_map import recursive_map
from liftnn._src.publish import publish
from liftnn._src.rngs import RngStream, Shape, Shapes, check_shape, selects
from liftnn._src.tracebacks import boundary
from liftnn._src.variables.variable import Variable

F = TypeVar("F", bound=Callable[..., Any])


class SplitStreams:
    """A context manager for streams split by `split_rngs` or `fork_rngs`, which restores their keys at the end.

    Args:
      streams: The streams, before they are split.
    """

    def __init__(self, streams: list[RngStream]):
        self._kept = [(stream, stream.key.value, stream.count.value) for stream in streams]

    def variables(self) -> Iterator[Variable[Any]]:
        """Yield the Variables of the streams."""
        for stream, _, _ in self._kept:
            yield from (stream.key, stream.count)

    def restore(self) -> None:
        """Restore the keys and counts from before the split. A second call does nothing, so that no key repeats."""
        kept, self._kept = self._kept, []
        for stream, key, count in kept:
            stream.key.value, stream.count.value = key, count

    def __enter__(self) -> SplitStreams:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()


@overload
def split_rngs(
    node: Any,
    /,
    *,
    splits: Shape,
    only: Filter = ...,
    squeeze: bool = False,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> SplitStreams: ...


@overload
def split_rngs(
    *,
    splits: Shape,
    only: Filter = ...,
    squeeze: bool = False,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Callable[[F], F]: ...


@boundary
def split_rngs(
    node: Any = MISSING,
    /,
    *,
    splits: Shape,
    only: Filter = ...,
    squeeze: bool = False,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Split streams of random keys in place into one key for each batch element, for use under `vmap` with axis 0.

    By default `vmap` also gives each batch element its own keys of a shared Rngs. `split_rngs` selects the streams and
    keeps the keys of the batch elements in the modules. `Rngs.split` creates a new Rngs instead.

    Args:
      node: A module, or any pytree that contains modules. If it is omitted, the result is a decorator that splits the
        streams in the arguments of a function during each call.
      splits: The number of keys per stream, or their shape.
      only: A filter that selects the streams by the Variables of their keys, such as the name of a stream, or
        `liftnn.RngKey` for all. The default, `...`, means all. Other streams are left as they are.
      squeeze: Whether each stream gets a single new key of shape `()`; `splits` must be 1. The default is False.
      graph: With False, the result is a copy of `node` with the same Variables, except for those of the streams that
        are split; the streams of `node` keep their keys. The default, None, and True mean in place. It has no effect
        on a decorator.
      graph_updates: The same.

    Returns:
      A context manager that restores the keys of the streams at its end; its method `restore` does the same. Each count
      has then advanced by one.

    Raises:
      ArgumentError: If `splits` is neither a number of keys nor a shape, if `squeeze` is True and `splits` is not 1, or
        if a stream is already split.

    Example:
      >>> import jax, liftnn
      >>> rngs = liftnn.Rngs(0, dropout=1)
      >>> with liftnn.split_rngs(rngs, splits=5, only="dropout"):
      ...   axes = liftnn.StateAxes({"dropout": 0, ...: None})
      ...   keys = liftnn.vmap(lambda rngs: rngs.dropout(), in_axes=axes)(rngs)
      >>> keys.shape, rngs.dropout.key.shape
      ((5,), ())
    """
    check_shape("splits", splits)
    if squeeze and splits != 1:
        raise errors.ArgumentError(
            f"squeeze=True needs splits=1, not {splits!r}.", "Pass splits=1 or squeeze=False."
        )

    def split(tree: Any) -> SplitStreams:
        return _start_in_place("split_rngs", tree, {only: splits}, squeeze)

    return _apply("split_rngs", split, node, copy=graph is False or graph_updates is False)


@overload
def fork_rngs(
    node: Any,
    /,
    *,
    split: Shapes = None,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> SplitStreams: ...


@overload
def fork_rngs(
    *, split: Shapes = None, graph: bool | None = None, graph_updates: bool | None = None
) -> Callable[[F], F]: ...


@boundary
def fork_rngs(
    node: Any = MISSING,
    /,
    *,
    split: Shapes = None,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Restart streams of random keys from their next key, in place, with or without splitting it.

    Args:
      node: A module, or any pytree that contains modules. If it is omitted, the result is a decorator that forks the
        streams in the arguments of a function during each call.
      split: The number of keys per stream, or their shape; None means one key of shape `()`. Or a mapping of them by
        filter, of which the first match counts; streams without a match are left as they are. The default is None.
      graph: With False, the result is a copy of `node` with the same Variables, except for those of the streams that
        are forked; the streams of `node` keep their keys. The default, None, and True mean in place. It has no effect
        on a decorator.
      graph_updates: The same.

    Returns:
      A context manager that restores the keys of the streams at its end; its method `restore` does the same. Each count
      has then advanced by one.

    Raises:
      ArgumentError: If a size is neither a number of keys nor a shape, or if a stream is already split.
      FilterError: If a key of `split` is not a filter.

    Example:
      >>> import liftnn
      >>> rngs = liftnn.Rngs(0, dropout=1)
      >>> with liftnn.fork_rngs(rngs, split={"dropout": 5, ...: None}):
      ...   rngs.dropout.key.shape, int(rngs.default.count)
      ((5,), 0)
      >>> int(rngs.default.count)
      1
    """
    shapes = split if isinstance(split, Mapping) else {...: split}
    for shape in shapes.values():
        if shape is not None:
            check_shape("split", shape)

    def fork(tree: Any) -> SplitStreams:
        return _start_in_place("fork_rngs", tree, shapes, squeeze=False)

    return _apply("fork_rngs", fork, node, copy=graph is False or graph_updates is False)


@boundary
def restore_rngs(backups: SplitStreams, /) -> None:
    """Restore the keys of streams that `split_rngs` or `fork_rngs` has changed.

    Args:
      backups: The result of `split_rngs` or `fork_rngs`.

    Example:
      >>> import liftnn
      >>> rngs = liftnn.Rngs(0)
      >>> backups = liftnn.split_rngs(rngs, splits=3)
      >>> liftnn.restore_rngs(backups)
      >>> rngs.default.key.shape
      ()
    """
    backups.restore()


def _apply(name: str, change: Callable[[Any], SplitStreams], node: Any, copy: bool) -> Any:
    """Change the streams of a tree or of its copy; without a tree, return a decorator for those in the arguments."""
    if node is not MISSING and copy:
        with change(node) as streams:
            changed = {id(x) for x in streams.variables()}
            return recursive_map(lambda _, x: clone(x) if id(x) in changed else x, node)
    return _decorator(name, change) if node is MISSING else change(node)


def _decorator(name: str, change: Callable[[Any], SplitStreams]) -> Callable[[F], F]:
    """Return a decorator that changes the streams in the arguments of a function during each call."""

    @boundary
    def decorate(f: Callable[..., Any]) -> Any:
        unwrap_callable(f, name)  # for its errors

        @boundary
        @functools.wraps(f, updated=())
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with change((args, kwargs)):
                return f(*args, **kwargs)

        return wrapper

    return decorate


def _start_in_place(name: str, tree: Any, shapes: Mapping[Any, Shape | None], squeeze: bool) -> SplitStreams:
    """Start the streams of a tree that match a filter from their next key, split into the shape for the filter."""
    predicates, by_filter = to_predicates(list(shapes)), list(shapes.values())
    found = [(path, x) for path, x in iter_graph(tree) if isinstance(x, RngStream)]
    matches = [(x, first_match(predicates, (*path, "key"), x.key)) for path, x in found]
    chosen = [(stream, by_filter[i]) for stream, i in matches if i >= 0]
    for stream, _ in chosen:
        _check_not_split(name, stream)
    keys = [stream() for stream, _ in chosen]
    kept = SplitStreams([stream for stream, _ in chosen])
    for (stream, shape), key in zip(chosen, keys, strict=True):
        new = key if shape is None else jax.random.split(key, shape)
        stream.key.value = new[0] if squeeze else new
        stream.count.value = jnp.zeros(stream.key.value.shape, jnp.uint32)
    return kept


def select_streams(node: Any, only: Filter) -> list[RngStream]:
    """Return the streams in a tree of modules that a filter selects.

    Args:
      node: A module, or any pytree that contains modules.
      only: The filter.

    Returns:
      The streams.
    """
    predicate = to_predicate(only)
    found = [(path, x) for path, x in iter_graph(node) if isinstance(x, RngStream)]
    return [stream for path, stream in found if selects(predicate, path, stream)]


def _check_not_split(name: str, stream: RngStream) -> None:
    """Raise ArgumentError if a stream holds more than one key."""
    if stream.key.value.ndim:
        raise errors.ArgumentError(
            f"The stream {stream.tag!r} holds keys of shape {stream.key.value.shape}, so {name} cannot split it again.",
            f"Leave {name} out: each batch element of a vmap over axis 0 has its own key. Or select other streams.",
        )


publish(fork_rngs, restore_rngs, split_rngs)
