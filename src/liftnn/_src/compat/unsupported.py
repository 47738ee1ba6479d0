"""Names of Flax NNX that liftnn cannot support: they can be imported, and raise when they are used."""

from __future__ import annotations

from typing import Any, NoReturn

from liftnn import errors

_LIFT = (
    "Write the transform with `liftnn.lift`, which gives a pure function of flat arrays; see "
    "docs/guides/custom_transforms.md."
)
_INTERNAL = ("it is internal to Flax", _LIFT)

REASONS: dict[str, tuple[str, str]] = {
    "MergeContext": ("liftnn's transforms do not use it", _LIFT),
    "NodeStates": ("liftnn's transforms do not use it", _LIFT),
    "SplitContext": ("liftnn's transforms do not use it", _LIFT),
    "UpdateContext": ("liftnn's transforms do not use it", _LIFT),
    "current_update_context": ("liftnn's transforms do not use it", _LIFT),
    "deprecations": _INTERNAL,
    "extract": _INTERNAL,
    "from_tree": ("liftnn's transforms do not use it", _LIFT),
    "merge_context": ("liftnn's transforms do not use it", _LIFT),
    "proxy_caller": _INTERNAL,
    "reprlib": _INTERNAL,
    "split_context": ("liftnn's transforms do not use it", _LIFT),
    "tracers": _INTERNAL,
    "update_context": ("liftnn's transforms do not use it", _LIFT),
}
"""For each name, why it is missing, and what to do instead."""


REMOVED = {
    "to_arrays": "Leave it out: the Variables of liftnn always hold arrays.",
    "with_sharding_constraint": (
        "Write `jax.lax.with_sharding_constraint(state, nnx.get_named_sharding(state, mesh))`."
    ),
}
"""Names that Flax NNX had before 0.12 and that programs still use, and what to write instead."""


def unknown_name(module: str, name: str) -> AttributeError:
    """Return the error for a name that neither Flax NNX nor liftnn has.

    Args:
      module: The name of the module.
      name: The name.

    Returns:
      The error; for a name of `REMOVED` it says what to write instead.
    """
    text = f"module {module!r} has no attribute {name!r}"
    if name not in REMOVED:
        return AttributeError(text)
    return errors.AttributeNameError(f"{text}, which Flax NNX has removed.", REMOVED[name])


class Unsupported:
    """The placeholder of a name that liftnn cannot support.

    Args:
      name: The name.
      reason: Why it is missing.
      remedy: What to do instead.
    """

    __slots__ = ("_error",)

    def __init__(self, name: str, reason: str, remedy: str):
        self._error = (f"nnx.{name} of Flax is not in liftnn.compat.nnx: {reason}.", remedy)

    def _raise(self, *_: Any, **__: Any) -> NoReturn:
        raise errors.AttributeNameError(*self._error)

    __call__ = __getitem__ = __enter__ = __instancecheck__ = __subclasscheck__ = __mro_entries__ = _raise

    def __exit__(self, *_: object) -> None:
        """Do nothing; `__enter__` has raised."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._raise()

    def __repr__(self) -> str:
        return f"<{self._error[0]}>"


def unsupported(name: str) -> Any:
    """Return the placeholder of a name.

    Args:
      name: A name of `REASONS`.

    Returns:
      An object that raises an AttributeNameError, with reason and remedy, when it is used.
    """
    return Unsupported(name, *REASONS[name])
