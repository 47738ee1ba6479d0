"""Options of `jit`: JAX checks them when a function is wrapped, and warns at the user's line of deprecated ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax

from liftnn._src.prefixes.prefix import ByFilter, as_prefixes, is_prefix_leaf
from liftnn._src.tracebacks import call_at_users_line


def check_options(in_shardings: Any, out_shardings: Any, device: Any, backend: str | None) -> None:
    """Let JAX check shardings, device and backend when a function is wrapped, as `jax.jit` does.

    Args:
      in_shardings: The shardings of the arguments.
      out_shardings: The shardings of the output.
      device: The device to run on.
      backend: The backend to run on.

    Raises:
      Exception: Whatever `jax.jit` raises.
    """
    shardings = {"in_shardings": in_shardings, "out_shardings": out_shardings}
    given: dict[str, Any] = {
        name: jax.tree.map(_entries, as_prefixes(tree), is_leaf=is_prefix_leaf)
        for name, tree in shardings.items()
        if tree is not None
    }
    placement = {"device": device, "backend": backend}
    given |= {name: x for name, x in placement.items() if x is not None}
    if given:
        call_at_users_line(jax.jit, lambda: None, **given)


def _entries(prefix: Any) -> Any:
    """Return the shardings of one entry, which JAX knows."""
    return [sharding for _, sharding in prefix.pairs] if isinstance(prefix, ByFilter) else prefix


def apply_jit(f: Callable[..., Any], **options: Any) -> Any:
    """Return `jax.jit(f, **options)`, without a second warning of deprecated options.

    Args:
      f: The function.
      **options: Options of `jax.jit`.
    """
    if "device" not in options and "backend" not in options:
        return jax.jit(f, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "backend and device argument", DeprecationWarning)
        return jax.jit(f, **options)
