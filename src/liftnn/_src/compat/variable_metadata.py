"""`VariableMetadata`: a value with metadata for the Variable that will hold it; annotated initializers return it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from liftnn._src.compat.modes import check_variable_kinds
from liftnn._src.tracebacks import boundary
from liftnn._src.variables.metadata import Annotated

A = TypeVar("A")

_Annotated = Annotated if TYPE_CHECKING else object


class _AnyAnnotated(type):
    """The metaclass of `VariableMetadata`: what liftnn's annotated initializers return are its instances too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return type(instance) is Annotated


@boundary
class VariableMetadata(Generic[A], metaclass=_AnyAnnotated):
    """A value with metadata: `nnx.Param(nnx.VariableMetadata(x, metadata={"tag": "lora"})).tag`.

    Args:
      raw_value: The value.
      on_set_value: Hooks of the Variable, each `(variable, value) -> value`.
      on_get_value: Hooks, likewise.
      on_create_value: Hooks, likewise.
      on_add_axis: Hooks, each `(variable, axis_index, axis_name)`.
      on_remove_axis: Hooks, likewise.
      metadata: Other metadata by name. Metadata that are passed to the Variable itself take precedence.

    Raises:
      ArgumentError: If `hijax` or `ref` is True in the metadata.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> value = nnx.VariableMetadata(jnp.ones(2), metadata={"tag": "lora"})
      >>> nnx.Param(value).tag
      'lora'
    """

    def __new__(
        cls,
        raw_value: A,
        on_set_value: Any = (),
        on_get_value: Any = (),
        on_create_value: Any = (),
        on_add_axis: Any = (),
        on_remove_axis: Any = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the value with metadata as liftnn's initializers return it."""
        hooks = {
            "on_set_value": on_set_value,
            "on_get_value": on_get_value,
            "on_create_value": on_create_value,
            "on_add_axis": on_add_axis,
            "on_remove_axis": on_remove_axis,
        }
        entries = dict(metadata or {})
        check_variable_kinds(**{name: entries.pop(name, False) for name in ("hijax", "ref")})
        return Annotated(raw_value, {**entries, **{name: hook for name, hook in hooks.items() if hook}})


class AnnotatedMethods(_Annotated):
    """The fields of a `VariableMetadata` that liftnn's own class has under other names."""

    @property
    def raw_value(self) -> Any:
        """The value."""
        return self.value

    @property
    def on_set_value(self) -> Any:
        """The hooks that run when a value is stored."""
        return self.metadata.get("on_set_value", ())

    @property
    def on_get_value(self) -> Any:
        """The hooks that run when the value is read."""
        return self.metadata.get("on_get_value", ())

    @property
    def on_create_value(self) -> Any:
        """The hooks that run when the Variable is created."""
        return self.metadata.get("on_create_value", ())

    @property
    def on_add_axis(self) -> Any:
        """The hooks that run when a transform adds an axis."""
        return self.metadata.get("on_add_axis", ())

    @property
    def on_remove_axis(self) -> Any:
        """The hooks that run when a transform removes an axis."""
        return self.metadata.get("on_remove_axis", ())
