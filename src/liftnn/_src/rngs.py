"""Rngs: named streams of random keys.

A stream is a key and a count, both Variables; its n-th key is `fold_in(key, n)`. Transforms carry the count, so a
stream never draws the same key twice. `fork`, `split` and `broadcast` start other streams from the next key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard, overload

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.filters import Filter, Predicate, first_match, to_predicate, to_predicates
from liftnn._src.graph.graphdef import GraphDef
from liftnn._src.modules.module import Module
from liftnn._src.samplers import Samplers
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, is_argument_array
from liftnn._src.variables.operators import unwrap
from liftnn._src.variables.state import State
from liftnn._src.variables.variable_types import RngCount, RngKey

Shape = int | tuple[int, ...]
"""The number of keys of a stream, or their shape."""

Shapes = Shape | Mapping[Any, Shape | None] | None
"""A shape for all streams, or shapes by filter; None means no shape."""


def as_key(seed: Any, name: str) -> Any:
    """Return a typed key from an int seed or a PRNG key."""
    seed = unwrap(seed)
    if isinstance(seed, Module):
        raise errors.ArgumentError(
            f"The stream {name!r} of an Rngs needs an int or a PRNG key, not {an(type(seed))}.",
            "Pass the Rngs itself where random keys are needed, `rngs.fork()` for independent streams of the same "
            "names, or `liftnn.Rngs(rngs())` to seed others with its next key.",
        )
    if jnp.issubdtype(getattr(seed, "dtype", int), jax.dtypes.prng_key):
        return seed
    if not is_argument_array(seed):
        raise _bad_seed(seed, name)
    shape, dtype = jnp.shape(seed), jnp.result_type(seed)
    if shape == () and jnp.issubdtype(dtype, jnp.integer):
        return jax.random.key(seed)
    if shape and dtype == jnp.uint32:
        try:
            return jax.random.wrap_key_data(seed)
        except TypeError as error:  # the default implementation has keys of another size
            raise _bad_seed(seed, name) from error
    raise _bad_seed(seed, name)


def _bad_seed(seed: Any, name: str) -> errors.ArgumentError:
    """Return the error for an object that is neither a seed nor a key."""
    return errors.ArgumentError(
        f"The stream {name!r} of an Rngs needs an int or a PRNG key, not {seed!r:.60}.",
        "Pass an int such as 0, or jax.random.key(0).",
    )


class RngStream(Samplers, Module):
    """A stream of random keys: the n-th key is `fold_in(key, n)`.

    `stream()` draws the next key. Each function of `jax.random` that takes a key is a method that draws it:
    `stream.normal((2,))` is `jax.random.normal(stream(), (2,))`. Initializers draw a key in each call:
    `stream.lecun_normal()((2, 3))`.

    Args:
      key: An int seed or a PRNG key.
      tag: The name of the stream. The default is `"default"`.

    Raises:
      ArgumentError: If `key` is neither an int nor a PRNG key.

    Example:
      >>> import jax, liftnn
      >>> stream = liftnn.RngStream(0, tag="dropout")
      >>> bool((stream() == jax.random.fold_in(jax.random.key(0), 0)).all()), int(stream.count)
      (True, 1)
      >>> stream.uniform((3,)).shape, int(stream.count)
      ((3,), 2)
    """

    def __init__(self, key: Any, tag: str = "default"):
        self.tag = tag
        self.key = RngKey(as_key(key, tag), tag=tag)
        self.count = RngCount(jnp.zeros(self.key.value.shape, jnp.uint32), tag=tag)

    def __call__(self) -> jax.Array:
        """Draw the next key, of shape `()`, and advance the count by one."""
        self._check_drawable()
        key = jax.random.fold_in(self.key.value, self.count.value)
        self.count.value = self.count.value + 1
        return key

    def _check_drawable(self) -> None:
        """Raise an error if the stream cannot draw a key here."""
        if self.key.value.ndim:
            raise errors.ArgumentError(
                f"The stream {self.tag!r} holds keys of shape {self.key.value.shape}, one for each batch element of a "
                "vmap.",
                "Draw from it inside the vmap, with the Rngs mapped over axis 0.",
            )
        self.count._writable()  # where the count cannot advance, the key would be drawn twice

    def fork(self, *, split: Shape | None = None) -> RngStream:
        """Create a new stream, seeded by the next key of this one.

        Args:
          split: The number of keys of the new stream, or their shape, for use under `vmap`. The default, None, means
            one key of shape `()`.

        Returns:
          The new stream, with the same tag. The count of this one advances by one.

        Raises:
          ArgumentError: If `split` is neither a number of keys nor a shape.
        """
        if split is not None:
            check_shape("split", split)
        key = self()
        return type(self)(key if split is None else jax.random.split(key, split), tag=self.tag)

    @overload
    def split(self, shape: Shape, /) -> RngStream: ...

    @overload
    def split(self, *filters: Filter) -> tuple[*tuple[State, ...], GraphDef[RngStream]]: ...

    def split(self, *filters: Any) -> Any:
        """Create a new stream with one key for each batch element, for use under `vmap` with axis 0.

        Args:
          *filters: The number of keys, or their shape. With filters, or without arguments, this is `Module.split`.

        Returns:
          The new stream, with the same tag. The count of this one advances by one.
        """
        if len(filters) == 1 and is_shape(filters[0]):
            return self.fork(split=filters[0])
        return super().split(*filters)

    def broadcast(self, k: Shape) -> RngStream:
        """Create a new stream that repeats the next key of this one, so that all batch elements of a `vmap` share it.

        Args:
          k: How often the key is repeated, or the shape to broadcast it to.

        Returns:
          The new stream, with the same tag. The count of this one advances by one.

        Raises:
          ArgumentError: If `k` is neither a number of keys nor a shape.
        """
        check_shape("k", k)
        return type(self)(jnp.broadcast_to(self(), k), tag=self.tag)


class Rngs(Samplers, Module):
    """A collection of named streams of random keys.

    `rngs.params()` draws the next key of the stream `params`, or of the default stream if `params` does not exist.
    `rngs()` draws the next key of the default stream. A stream never draws the same key twice.

    Each function of `jax.random` that takes a key is a method that draws it: `rngs.normal((2,))` is
    `jax.random.normal(rngs(), (2,))`, and `rngs.params.normal((2,))` uses the stream `params`. Initializers draw a key
    in each call: `rngs.params.lecun_normal()((2, 3))`.

    Args:
      default: An int seed or a PRNG key for the default stream, or a mapping of seeds and keys by stream name. The
        default, None, creates no default stream.
      **streams: Int seeds or PRNG keys by stream name. An RngStream is shared: both Rngs draw from it, and no key is
        drawn twice.

    Raises:
      ArgumentError: If a value is neither an int, a PRNG key nor an RngStream.

    Example:
      >>> import jax, liftnn
      >>> rngs = liftnn.Rngs(0, dropout=1)
      >>> rngs.dropout().shape, rngs.params().shape
      ((), ())
      >>> rngs.dropout.bernoulli(0.5, (2, 3)).shape, rngs.normal((2,)).shape
      ((2, 3), (2,))
    """

    def __init__(self, default: Any = None, **streams: Any):
        if isinstance(default, Mapping):
            streams = {**default, **streams}
        elif default is not None:
            streams = {"default": default, **streams}
        for name, seed in streams.items():
            setattr(self, name, seed if isinstance(seed, RngStream) else RngStream(seed, tag=name))

    @boundary
    def __getattr__(self, name: str) -> RngStream:
        if name.startswith("_"):
            raise AttributeError(name)
        default = vars(self).get("default")
        if default is None:
            known = ", ".join(self) or "none"
            raise errors.AttributeNameError(
                f"This Rngs has no stream {name!r} and no default stream; it has: {known}.",
                f"Create the Rngs with this stream, Rngs({name}=seed), or with a default stream, Rngs(seed).",
            )
        return default

    def __getitem__(self, name: str) -> RngStream:
        stream = vars(self).get(name)  # not an attribute of the class, such as a sampler
        return stream if isinstance(stream, RngStream) else self.__getattr__(name)

    def __call__(self) -> jax.Array:
        """Draw the next key of the default stream, of shape `()`."""
        return self.default()

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, x in vars(self).items() if isinstance(x, RngStream)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and isinstance(vars(self).get(name), RngStream)

    def items(self) -> Iterator[tuple[str, RngStream]]:
        """Return an iterator over the names and streams."""
        return iter([(name, vars(self)[name]) for name in self])

    def fork(self, *, split: Shapes = None, **sizes: Shape | None) -> Rngs:
        """Create a new Rngs with the same streams, each seeded by the next key of the old one.

        Args:
          split: The number, or the shape, of keys to create for each stream, for use under `vmap`; or a mapping of them
            by filter, of which the first match counts. None, and streams without a match, mean one key of shape `()`.
          **sizes: The same by stream name; these have precedence.

        Returns:
          The new Rngs. The counts of the old streams advance by one.

        Raises:
          ArgumentError: If a name is not a stream of this Rngs, or if a size is neither a number of keys nor a shape.
          FilterError: If a key of `split` is not a filter.
        """
        unknown = [name for name in sizes if name not in self]
        if unknown:
            raise errors.ArgumentError(
                f"This Rngs has no stream {unknown[0]!r}; it has: {', '.join(self)}.",
                "Pass the names of existing streams.",
            )
        for size in sizes.values():
            if size is not None:
                check_shape("split", size)
        shapes = {**self._matched(split, "split"), **sizes}
        for _, stream in self.items():
            stream._check_drawable()
        return Rngs({name: stream.fork(split=shapes.get(name)) for name, stream in self.items()})

    @overload
    def split(self, shape: Shape, /, *, only: Filter = ...) -> Rngs: ...

    @overload
    def split(self, shapes: Mapping[Any, Shape | None], /) -> Rngs: ...

    @overload
    def split(self, *filters: Filter) -> tuple[*tuple[State, ...], GraphDef[Rngs]]: ...

    def split(self, *filters: Any, only: Filter = ...) -> Any:
        """Create a new Rngs with one key for each batch element, for use under `vmap` with axis 0.

        Args:
          *filters: The number of keys per stream, or their shape; or a mapping of them by filter, of which the first
            match counts. In a mapping, None keeps a stream, as does the lack of a match: both Rngs then share it. With
            filters, or without arguments, this is `Module.split`.
          only: A filter that selects the streams to split by the Variables of their keys, such as the name of a stream.
            The default, `...`, means all. Other streams get one key.

        Returns:
          The new Rngs. The counts of the old streams, except those that are kept, advance by one.

        Raises:
          ArgumentError: If a size is neither a number of keys nor a shape.
          FilterError: If a key of the mapping, or `only`, is not a filter.
        """
        if len(filters) == 1 and isinstance(filters[0], Mapping):
            return self._with_shapes(filters[0], RngStream.split)
        if not (len(filters) == 1 and is_shape(filters[0])):
            return super().split(*filters)
        predicate = to_predicate(only)
        return self.fork(**{n: filters[0] for n, x in self.items() if selects(predicate, (n,), x)})

    def broadcast(self, k: Shapes) -> Rngs:
        """Create a new Rngs that repeats the next key of each stream, so that all batch elements of a `vmap` share it.

        Args:
          k: How often each key is repeated, or the shape to broadcast it to; or a mapping of them by filter, of which
            the first match counts. None keeps a stream, as does the lack of a match: both Rngs then share it.

        Returns:
          The new Rngs. The counts of the old streams, except those that are kept, advance by one.

        Raises:
          ArgumentError: If a size is neither a number of keys nor a shape.
          FilterError: If a key of the mapping is not a filter.

        Example:
          >>> import liftnn
          >>> rngs = liftnn.Rngs(0, dropout=1).broadcast({"dropout": 3, ...: None})
          >>> rngs.default.key.shape, rngs.dropout.key.shape
          ((), (3,))
        """
        return self._with_shapes(k, RngStream.broadcast)

    def _with_shapes(self, shapes: Shapes, change: Any) -> Rngs:
        """Return a new Rngs with changed streams where there is a shape, and the old streams elsewhere."""
        matched = self._matched(shapes, "k")
        for name in matched:
            self[name]._check_drawable()
        return Rngs({name: change(x, matched[name]) if name in matched else x for name, x in self.items()})

    def _matched(self, shapes: Shapes, name: str) -> dict[str, Shape]:
        """Return the shapes by stream name, without None."""
        by_filter = shapes if isinstance(shapes, Mapping) else {...: shapes}
        for shape in by_filter.values():
            if shape is not None:
                check_shape(name, shape)
        predicates, values = to_predicates(list(by_filter)), [*by_filter.values(), None]
        matches = [(n, values[first_match(predicates, (n, "key"), x.key)]) for n, x in self.items()]
        return {n: shape for n, shape in matches if shape is not None}


def is_shape(x: Any) -> TypeGuard[Shape]:
    """Check whether `x` is an int or a tuple of ints, of Python or numpy."""
    sizes: tuple[Any, ...] = x if isinstance(x, tuple) and x else (x,)
    return all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in sizes)


def check_shape(name: str, x: Any) -> None:
    """Raise ArgumentError unless `x` is a number of keys or a shape."""
    if not is_shape(x) or min(x if isinstance(x, tuple) else (x,)) < 0:
        raise errors.ArgumentError(
            f"`{name}` must be a number of keys or a shape, not {x!r}.",
            "Pass the number of keys, such as 8, or their shape, such as (2, 4).",
        )


def selects(predicate: Predicate, path: Path, stream: RngStream) -> bool:
    """Check whether a filter selects a stream: it matches the Variable of the key."""
    return predicate((*path, "key"), stream.key)
