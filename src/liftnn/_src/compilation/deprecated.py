"""The options `device` and `backend` of `jit`, which JAX deprecates: it warns once, at the user's line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax

from liftnn._src.tracebacks import call_at_users_line

_DEPRECATED = ("device", "backend")


def check_deprecated(
    f: Callable[..., Any], options: Mapping[str, Any], in_shardings: Any, out_shardings: Any
) -> None:
    """Let JAX check the deprecated options, and warn about them, when the user's line wraps a function.

    Args:
      f: The function.
      options: Options of `jax.jit`; those that are None are left out.
      in_shardings: The shardings of the arguments.
      out_shardings: The shardings of the output.
    """
    given = {name: options[name] for name in _DEPRECATED if name in options}
    if given:
        call_at_users_line(jax.jit, f, in_shardings=in_shardings, out_shardings=out_shardings, **given)


def apply_jit(f: Callable[..., Any], **options: Any) -> Any:
    """Return `jax.jit(f, **options)`, without a second warning about deprecated options.

    Args:
      f: The function.
      **options: Options of `jax.jit`.
    """
    if not any(name in options for name in _DEPRECATED):
        return jax.jit(f, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "backend and device argument", DeprecationWarning)
        return jax.jit(f, **options)
