"""The settings of a module: the static attributes that say more than the constructor's defaults and the shapes do."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, MutableMapping, MutableSequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from liftnn._src.annotations import signature_of
from liftnn._src.graph.kinds import ARRAY_NODE, VARIABLE
from liftnn._src.summary.outline import OutlineEntry
from liftnn._src.summary.value_text import leaves_of, raw_value

_MISSING = object()


def is_setting(entry: OutlineEntry, holder: OutlineEntry) -> bool:
    """Return whether a static attribute is shown.

    All elements of a sequence or mapping that is a module are shown. Left out of other modules are private attributes,
    values at the default of the constructor's parameter of the same name, sizes and dtypes that the constructor
    requires or derives and that a Variable of the module shows, what layers of liftnn derive from their arguments, and
    None for an attribute that has no default.

    Args:
      entry: The static attribute.
      holder: The module or dataclass that has it.

    Returns:
      True if it is shown.
    """
    x, cls = entry.value, type(holder.value)
    if isinstance(holder.value, (MutableSequence, MutableMapping)):
        return True
    if str(entry.key).startswith("_"):
        return False
    default = _defaults(cls).get(entry.key, _MISSING)
    if default is _MISSING or default is inspect.Parameter.empty:
        if x is None or (default is _MISSING and _is_own(cls)):
            return False
    elif _is_equal(x, default):
        return False
    elif default is not None:
        return True
    elif _is_own(cls) and _is_size(x):
        return False
    return default is _MISSING or not _is_shown(x, holder)


def _is_own(cls: type) -> bool:
    """Return whether a class is liftnn's own."""
    return cls.__module__.partition(".")[0] == "liftnn"


@functools.lru_cache(maxsize=1024)
def _defaults(cls: type) -> Mapping[str, Any]:
    """Return the defaults of the parameters of a constructor, and `inspect.Parameter.empty` for required ones."""
    try:
        parameters = signature_of(cls.__init__).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {x.name: x.default for x in parameters if x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)}


def _is_equal(x: Any, default: Any) -> bool:
    """Return whether a value is a default, perhaps converted to a tuple, a dict or a dtype."""
    if x is default:
        return True
    try:
        if isinstance(x, tuple) and not isinstance(default, tuple):
            default = tuple(default) if isinstance(default, list) else (default,)
        elif isinstance(x, dict) and isinstance(default, Mapping):
            default = dict(default)
        elif isinstance(x, np.dtype):
            default = jnp.dtype(default)
        return type(x) is type(default) and bool(x == default)
    except Exception:  # the `==` of arrays, or of a class that raises
        return False


def _is_size(x: Any) -> bool:
    return type(x) is int or (isinstance(x, (list, tuple)) and bool(x) and all(type(n) is int for n in x))


def _is_shown(x: Any, holder: OutlineEntry) -> bool:
    """Return whether the Variables that a module holds show a size, sizes of axes next to each other, or a dtype."""
    arrays = [
        array
        for entry in holder.below
        if entry.kind is VARIABLE or entry.kind is ARRAY_NODE
        for array in leaves_of(raw_value(entry.value) if entry.kind is VARIABLE else entry.value)
    ]
    if _is_size(x):
        sizes = (x,) if type(x) is int else tuple(x)
        return any(_has_run(tuple(array.shape), sizes) for array in arrays)
    return isinstance(x, np.dtype) and any(array.dtype == x for array in arrays)


def _has_run(shape: tuple[int, ...], sizes: tuple[int, ...]) -> bool:
    return any(shape[i : i + len(sizes)] == sizes for i in range(len(shape) - len(sizes) + 1))
