"""Initializers, and classes of Variables, with metadata."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from liftnn import errors
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an
from liftnn._src.variables.metadata import Annotated, Metadata


@boundary
def with_metadata(initializer: Callable[..., Any], **metadata: Any) -> Callable[..., Any]:
    """Wrap an initializer, or a class of Variables, so that the Variables created with it have metadata.

    Args:
      initializer: An initializer `(key, shape, dtype) -> array`, or a class of Variables.
      **metadata: The metadata, including hooks such as `on_get_value`. Metadata passed to the Variable itself take
        precedence.

    Returns:
      The wrapped initializer; for a class of Variables a function that creates one.

    Raises:
      ArgumentError: If a hook is not callable.
      ArgumentTypeError: If the initializer is not callable.

    Example:
      >>> import liftnn
      >>> init = liftnn.with_metadata(liftnn.initializers.lecun_normal(), tag="frozen")
      >>> liftnn.Linear(2, 3, kernel_init=init, rngs=liftnn.Rngs(0)).kernel.tag
      'frozen'
      >>> liftnn.with_metadata(liftnn.Param, tag="frozen")(1.0).tag
      'frozen'
    """
    if not callable(initializer):
        raise errors.ArgumentTypeError(
            f"with_metadata takes an initializer or a class of Variables, not {an(type(initializer))}.",
            "Pass a function (key, shape, dtype) that returns an array.",
        )
    entries = Metadata.of(metadata).entries  # checks the hooks
    return annotate(initializer, entries)


def annotate(initializer: Callable[..., Any], metadata: Mapping[str, Any]) -> Callable[..., Any]:
    """Wrap an initializer, or a class of Variables.

    Args:
      initializer: The initializer, or a class of Variables, which takes metadata itself.
      metadata: The metadata.

    Returns:
      The wrapped initializer.
    """
    is_variable = isinstance(initializer, type) and hasattr(initializer, "__graph_node__")
    return (_annotated_class if is_variable else _annotated)(initializer, tuple(metadata.items()))


def annotation_of(initializer: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]] | None:
    """Return what `annotate` was called with; None for any other function.

    Args:
      initializer: The function.

    Returns:
      The initializer and the metadata.
    """
    if getattr(initializer, "__qualname__", None) != "_annotated.<locals>.annotated":
        return None
    found = inspect.getclosurevars(initializer).nonlocals
    return found["initializer"], dict(found["items"])


# The closures are immutable, so equal ones compare equal; they can be pickled, as calls of these functions.


def _annotated(initializer: Callable[..., Any], items: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    """Return an initializer whose values have metadata."""

    def annotated(*args: Any, **kwargs: Any) -> Annotated:
        result = initializer(*args, **kwargs)
        if type(result) is Annotated:
            return Annotated(result.value, {**result.metadata, **dict(items)})
        return Annotated(result, dict(items))

    return annotated


def _annotated_class(cls: Callable[..., Any], items: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    """Return a function that creates Variables with metadata."""

    def annotated(value: Any, **metadata: Any) -> Any:
        return cls(value, **{**dict(items), **metadata})

    return annotated
