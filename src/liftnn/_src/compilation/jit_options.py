"""Options of `jit`: JAX checks them when a function is wrapped, and warns at the user's line of deprecated ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.kinds import is_object
from liftnn._src.prefixes.prefix import ByFilter, as_prefixes, is_prefix_leaf
from liftnn._src.tracebacks import call_at_users_line
from liftnn._src.trees import an


def check_options(in_shardings: Any, out_shardings: Any, device: Any, backend: str | None) -> None:
    """Let JAX check shardings, device and backend when a function is wrapped, as `jax.jit` does.

    Args:
      in_shardings: The shardings of the arguments.
      out_shardings: The shardings of the output.
      device: The device to run on.
      backend: The backend to run on.

    Raises:
      ArgumentTypeError: If a module or Variable is among the shardings.
      Exception: Whatever `jax.jit` raises.
    """
    shardings = {"in_shardings": in_shardings, "out_shardings": out_shardings}
    options: dict[str, Any] = {
        name: _entries(name, as_prefixes(tree)) for name, tree in shardings.items() if tree is not None
    }
    placement = {"device": device, "backend": backend}
    options |= {name: x for name, x in placement.items() if x is not None}
    if options:
        call_at_users_line(jax.jit, lambda: None, **options)


def _entries(option: str, prefix: Any) -> Any:
    """Return a tree prefix with lists of shardings, which JAX knows, in place of each StateSharding."""

    def check(x: Any) -> Any:
        if is_object(x):
            raise errors.ArgumentTypeError(
                f"`{option}` contains {an(type(x))}, which is not a sharding.",
                "Pass one sharding for the whole module, or a liftnn.StateSharding.",
            )
        return [sharding for _, sharding in x.pairs] if isinstance(x, ByFilter) else x

    return jax.tree.map(check, prefix, is_leaf=lambda x: is_prefix_leaf(x) or is_object(x))


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
