"""The sizes that a layer is made with: ints of 0 or more; anything else is an error with the layer's argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from liftnn import errors
from liftnn._src.trees import an, is_tracer, type_of

_ALONG_AXES = "Pass the product of the sizes along `feature_axes`, by default the size of the last axis."
_ONE = "Pass an int, such as 8."
_SEVERAL = "Pass an int, or a tuple of ints such as (8, 8)."
_SIZES_TO_PASS = {
    ("LayerNorm", "num_features"): _ALONG_AXES,
    ("RMSNorm", "num_features"): _ALONG_AXES,
    ("InstanceNorm", "num_features"): _ALONG_AXES,
    ("BatchNorm", "num_features"): "Pass the size of the input along `axis`, by default the last one.",
    ("GroupNorm", "num_features"): "Pass the size of the input's last axis.",
}
"""What to pass in place of a wrong size, for arguments that are often mistaken for others."""


def check_sizes(layer: Any, /, **sizes: Any) -> None:
    """Raise an error unless each argument is a size.

    Args:
      layer: The layer.
      **sizes: The arguments by name.

    Raises:
      ArgumentError: If one is negative.
      ArgumentTypeError: If one is not an int.
    """
    for name, size in sizes.items():
        if not is_size(size):
            raise _wrong_size(layer, name, size, _ONE)


def check_size_tuples(layer: Any, /, **sizes: Any) -> None:
    """Raise an error unless each argument is a size or a sequence of sizes, likewise."""
    for name, each in sizes.items():
        several = _is_sequence(each) or (isinstance(each, np.ndarray) and each.ndim == 1)
        for size in each if several else [each]:
            if not is_size(size):
                raise _wrong_size(layer, name, each, _SEVERAL)


def _is_sequence(x: Any) -> bool:
    """Return whether an object is a sequence, also of a configuration library; text is none."""
    return isinstance(x, Sequence) and not isinstance(x, (str, bytes))


def is_size(x: Any) -> bool:
    """Return whether an object is a size: an int of 0 or more, also of numpy or JAX, or symbolic as in `jax.export`."""
    if isinstance(x, (int, np.integer)):
        return bool(x >= 0)
    if is_tracer(x):
        return True  # JAX says that a shape cannot depend on it
    if isinstance(x, (np.ndarray, jax.Array)):
        return x.ndim == 0 and np.issubdtype(x.dtype, np.integer) and int(x) >= 0
    return export.is_symbolic_dim(x)


def _wrong_size(layer: Any, name: str, size: Any, remedy: str) -> errors.LiftError:
    """Return the error for an argument that is not a size."""
    if isinstance(size, (np.ndarray, jax.Array)) and size.ndim == 0 and np.issubdtype(size.dtype, np.integer):
        size = int(size)
    cls = type(layer).__name__
    remedy = _SIZES_TO_PASS.get((cls, name), remedy)
    parts: list[Any] = list(size) if _is_sequence(size) and size else [size]
    if all(isinstance(part, (int, np.integer)) for part in parts):
        if any(part < 0 for part in parts):
            return errors.ArgumentError(f"{name} of {cls} is {size!r}, but a size is never negative.", remedy)
        if len(parts) > 1 and cls in ("LayerNorm", "RMSNorm"):
            axes = tuple(range(-len(parts), 0))
            remedy += f" Write {cls}({math.prod(parts)}, reduction_axes={axes}, feature_axes={axes}) for these axes."
    found = type_of(size) if hasattr(size, "dtype") else f"{an(type(size))}: {size!r:.80}"
    found = "None" if size is None else found
    return errors.ArgumentTypeError(f"{name} of {cls} must be a size, not {found}.", remedy)
