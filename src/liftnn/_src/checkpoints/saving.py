"""From modules and plain values to arrays by name and an index."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from liftnn import errors
from liftnn._src.checkpoints.entries import ArrayEntry, PlainEntry, check_storable, is_plain
from liftnn._src.checkpoints.index import Index, Leaves
from liftnn._src.checkpoints.keys import encode_path, show_path
from liftnn._src.checkpoints.leaves import flatten_modules, flatten_value
from liftnn._src.checkpoints.plain_values import encode_value
from liftnn._src.checkpoints.stored import to_stored
from liftnn._src.sharding.descriptions import describe_array
from liftnn._src.trees import an


class Arrays:
    """The arrays that Orbax gets, by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {}

    def add(self, x: Any, path: str) -> ArrayEntry:
        """Add an array under its path, quoted, and return its entry.

        Args:
          x: A jax.Array, a numpy array or number.
          path: Its path, as text.

        Returns:
          The entry.

        Raises:
          ArgumentTypeError: If it cannot be saved.
          DonatedError: If its buffer was donated.
        """
        check_storable(x, path)
        if not math.prod(x.shape):
            return ArrayEntry.of(x, None)
        name = urllib.parse.quote(path, safe="[]' ")
        while name in self.by_name:
            name += "'"
        self.by_name[name] = to_stored(x if isinstance(x, jax.Array) else np.asarray(x))
        return ArrayEntry.of(x, name)


def describe_state(
    modules: tuple[Any, ...], values: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None
) -> tuple[dict[str, Any], Index]:
    """Return what is to be saved.

    Args:
      modules: The modules.
      values: Plain values by name.
      metrics: Numbers by name.

    Returns:
      The arrays by name, and the index without checksums.

    Raises:
      ArgumentTypeError: If something cannot be saved.
    """
    arrays = Arrays()
    flat = flatten_modules(modules, "save")
    leaves = {path: _describe_leaf(path, leaf.value, arrays) for path, leaf in flat.leaves.items()}
    if not isinstance(values, Mapping | None):
        raise errors.ArgumentTypeError(
            f"`values` must be a dict with names as keys, not {an(type(values))}.",
            "Pass `values={'epoch': 3}`.",
        )

    def pack(x: Any, path: str) -> Any:
        return arrays.add(x, path).to_json()

    encoded = encode_value(dict(values or {}), (), "values", pack)
    numbers = _as_numbers(metrics or {})
    return arrays.by_name, Index(leaves, flat.shared, encoded, numbers)


def describe_saved(step: int, arrays: Mapping[str, Any], index: Index) -> dict[str, str]:
    """Return what all processes must save alike: the step, the paths, and the arrays without their content.

    Args:
      step: The step.
      arrays: The arrays by name.
      index: The index.

    Returns:
      Texts by path.
    """
    texts = {"step": str(step)}
    for path, leaves in index.leaves.items():
        texts[show_path(path)] = "Empty" if leaves is None else ", ".join(map(str, leaves.values()))
    return texts | {urllib.parse.unquote(name): describe_array(x) for name, x in arrays.items()}


def _describe_leaf(path: Any, value: Any, arrays: Arrays) -> Leaves:
    """Return the entries of the value of a Variable, or of an array leaf."""
    leaves = flatten_value(value)
    if leaves is None:
        return None
    found: dict[Any, Any] = {}
    for at, x in leaves:
        full = path + encode_path(at)
        found[encode_path(at)] = PlainEntry(x) if is_plain(x) else arrays.add(x, show_path(full))
    return found


def _as_numbers(metrics: Any) -> dict[str, float]:
    """Return metrics as numbers by name; raise ArgumentTypeError if they are something else."""
    if not isinstance(metrics, Mapping) or not all(isinstance(name, str) for name in metrics):
        what = f"{an(type(metrics))}" if not isinstance(metrics, Mapping) else "one with other keys"
        raise errors.ArgumentTypeError(f"`metrics` must be a dict with names as keys, not {what}.", _METRICS)
    return {name: _as_number(name, x) for name, x in metrics.items()}


_METRICS = "Pass numbers: `metrics={'accuracy': 0.98}`."


def _as_number(name: str, x: Any) -> float:
    """Return a metric as a number."""
    try:
        return float(x)
    except (TypeError, ValueError, OverflowError) as error:
        what = "too large for a float" if isinstance(error, OverflowError) else f"{an(type(x))}, not a number"
        raise errors.ArgumentTypeError(f"The metric {name!r} is {what}.", _METRICS) from error
