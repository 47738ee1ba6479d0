"""The hooks of Variables: functions that run when a value is created, read or stored, or when an axis moves."""

from __future__ import annotations

from typing import Any

from liftnn import errors

HOOKS = {
    "on_get_value": "get_value_hooks",
    "on_set_value": "set_value_hooks",
    "on_create_value": "create_value_hooks",
    "on_add_axis": "add_axis_hooks",
    "on_remove_axis": "remove_axis_hooks",
}
"""The kinds of hooks, by their name in a subclass and in metadata; and the name of further hooks, which run last."""

HOOK_NAMES = tuple(HOOKS.values())


def normalize_hook(name: str, hooks: Any) -> Any:
    """Return the hooks of a metadata entry as the metadata keep them.

    Args:
      name: The name of the entry.
      hooks: A callable, or a sequence of callables.

    Returns:
      A tuple; a single callable given as `on_get_value` or its like stays as it is.

    Raises:
      ArgumentError: If a hook is not callable.
    """
    single = callable(hooks)
    result = (hooks,) if single else tuple(hooks) if isinstance(hooks, (list, tuple)) else None
    if result is None or not all(callable(h) for h in result):
        raise errors.ArgumentError(
            f"{name} must be a callable or a sequence of callables, not {hooks!r}.",
            f"Pass {name}=f, or {name}=(f, g) to call f first and then g.",
        )
    return hooks if single and name in HOOKS else result


def as_hooks(hooks: Any) -> tuple[Any, ...]:
    """Return the hooks of a normalized entry as a tuple."""
    return hooks if isinstance(hooks, tuple) else (hooks,)
