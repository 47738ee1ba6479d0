"""Slices of scanned arrays along axis 0. What a step writes to a slice of a mutable array is written to the array."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from liftnn._src.graph.slots import Slot


def slice_type(x: Any) -> Any:
    """Return something of the type of one slice of a scanned array, which may have size 0.

    Args:
      x: The array.

    Returns:
      The shape and dtype; for a mutable array, which has no public abstract type, a new mutable array.
    """
    if isinstance(x, jax.Ref):
        return jax.new_ref(jnp.zeros(x.shape[1:], x.dtype))
    weak = getattr(jax.typeof(x), "weak_type", False)
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype, weak_type=weak)


@contextlib.contextmanager
def slices_of(scanned: Mapping[Slot, Any], which: int | slice) -> Generator[dict[Slot, Any]]:
    """Yield slices of the scanned leaves; at the end, write those of mutable arrays back.

    Args:
      scanned: The scanned leaves, by slot.
      which: The position of one slice, or of several.

    Yields:
      The slices, by slot.
    """
    copies: list[tuple[Any, Any]] = []

    def take(x: Any) -> Any:
        if not isinstance(x, jax.Ref):
            return x[which]
        copies.append((x, jax.new_ref(x[which])))
        return copies[-1][1]

    yield {slot: jax.tree.map(take, x) for slot, x in scanned.items()}
    for ref, copy in copies:
        ref[which] = copy[...]
