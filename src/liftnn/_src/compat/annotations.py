"""The marks of data and static attributes, which Flax NNX needs; liftnn sees the difference without them."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Annotated, Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.annotations import annotations_of
from liftnn._src.graph.kinds import is_object
from liftnn._src.trees import an, is_array

T = TypeVar("T")
C = TypeVar("C", bound=type)

Data = Annotated[T, "data"]
"""The annotation of an attribute as data; in liftnn it has an effect on numbers in fields of a `dataclass` only."""

Static = Annotated[T, "static"]
"""The annotation of a class attribute as static; without effect in liftnn."""

_NO_VALUE: Any = object()
_IS_DATA = "liftnn data"
"""The entry in the metadata of a field of a dataclass that `data` declares."""
_data_types: set[type] = set()
"""The classes registered with `register_data_type`."""


def data(value: Any = _NO_VALUE, /, **field: Any) -> Any:
    """Mark an attribute as data, or declare a field of a dataclass.

    Args:
      value: The value of the attribute. A Python number becomes an array, so that it may change from call to call
        without a new trace; anything else is returned as it is.
      **field: Without a value, the options of `dataclasses.field`.

    Returns:
      The value, or the field.

    Raises:
      ArgumentTypeError: If both a value and options are given.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.data([1, 2])
      [1, 2]
      >>> nnx.data(2).shape
      ()
    """
    if value is _NO_VALUE:
        field["metadata"] = {**(field.get("metadata") or {}), _IS_DATA: True}
    return _as_data(_value_or_field("data", value, field))


def static(value: Any = _NO_VALUE, /, **field: Any) -> Any:
    """Mark an attribute as static, or declare a field of a dataclass.

    Args:
      value: The value of the attribute, which is returned as it is.
      **field: Without a value, the options of `dataclasses.field`.

    Returns:
      The value, or the field.

    Raises:
      ArgumentTypeError: If both a value and options are given.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.static("relu")
      'relu'
    """
    return _value_or_field("static", value, field)


def _value_or_field(name: str, value: Any, field: dict[str, Any]) -> Any:
    """Return the value if there is one, else the field of a dataclass."""
    if value is _NO_VALUE:
        return dataclasses.field(**field)
    if field:
        raise errors.ArgumentTypeError(
            f"nnx.{name} got a value and the options {', '.join(field)}.",
            f"Write nnx.{name}(value) for an attribute, or nnx.{name}(default=value) for a field of a dataclass.",
        )
    return value


@dataclass_transform(field_specifiers=(dataclasses.field, data, static))
def dataclass(cls: Any = None, /, **options: Any) -> Any:
    """Make a class of modules a dataclass, as `dataclasses.dataclass` does, with the repr of a module.

    Python numbers in fields that are declared as data, by `data` or the annotation `Data`, become arrays after
    `__init__`, so that they may change from call to call without a new trace.

    Args:
      cls: The class. Without it, the result is a decorator.
      **options: The options of `dataclasses.dataclass`.

    Returns:
      The class, or the decorator.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> @nnx.dataclass
      ... class Scale(nnx.Pytree):
      ...   factor: nnx.Data[nnx.Variable]
      ...   name: nnx.Static[str] = "scale"
      >>> Scale(nnx.Param(jnp.ones(2))).name
      'scale'
    """
    options = {"repr": False, **options}

    def make(cls: Any) -> Any:
        decorated: Any = dataclasses.dataclass(**options)(cls)
        return _convert_numbers(decorated) if "__init__" in vars(decorated) else decorated

    return make if cls is None else make(cls)


def _as_data(value: Any) -> Any:
    """Return an array in place of a Python number; anything else unchanged."""
    return jnp.asarray(value) if type(value) in (int, float, complex) else value


def _convert_numbers(cls: Any) -> Any:
    """Let the `__init__` of a dataclass convert the numbers in fields that are declared as data."""
    init = cls.__init__

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # the name in tracebacks
        init(self, *args, **kwargs)
        for name in _data_fields(type(self)) if type(self) is cls else ():
            value = getattr(self, name, None)
            if type(value) in (int, float, complex):
                setattr(self, name, _as_data(value))

    cls.__init__ = __init__
    return cls


@functools.lru_cache(maxsize=1024)
def _data_fields(cls: type) -> tuple[str, ...]:
    """Return the fields of a dataclass that are declared as data."""
    fields = dataclasses.fields(cls)
    return tuple(x.name for x in fields if x.metadata.get(_IS_DATA) or _is_annotated(cls, x))


def _is_annotated(cls: type, field: dataclasses.Field[Any]) -> bool:
    """Return whether a field of a dataclass has the annotation `Data`, which may be a string."""
    found: Any = field.type
    if isinstance(found, str):
        owner = next((c for c in cls.__mro__ if field.name in annotations_of(c)), cls)
        try:
            found = eval(found, vars(sys.modules[owner.__module__]))
        except Exception:  # it names what does not exist at run time
            return False
    return "data" in getattr(found, "__metadata__", ())


def register_data_type(cls: C, /) -> C:
    """Register a class of values that `is_data` counts as data.

    Args:
      cls: The class.

    Returns:
      The class.

    Example:
      >>> from liftnn.compat import nnx
      >>> @nnx.register_data_type
      ... class Scene: pass
      >>> nnx.is_data(Scene())
      True
    """
    _data_types.add(cls)
    return cls


def is_data(value: Any, /) -> bool:
    """Return whether a value is an array, a Variable, a Module, or of a class registered as data.

    Args:
      value: Any object.

    Returns:
      True if it is.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> nnx.is_data(jnp.ones(2)), nnx.is_data(2.0)
      (True, False)
    """
    return is_array(value) or is_object(value) or type(value) in _data_types


def has_data(value: Any, /) -> list[Any]:
    """Return the data in a pytree; see `is_data`.

    Args:
      value: Any object or pytree.

    Returns:
      The leaves that are data.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> len(nnx.has_data({"a": 1, "b": jnp.ones(2)}))
      1
    """
    return [x for x in jax.tree.leaves(value, is_leaf=is_data) if is_data(x)]


def check_pytree(pytree: Any) -> None:
    """Check that a value is a Module; liftnn has nothing else to check, since it sees which attributes are data.

    Args:
      pytree: The Module.

    Raises:
      ArgumentTypeError: If it is not a Module.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.check_pytree(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    """
    if not is_object(pytree):
        raise errors.ArgumentTypeError(
            f"check_pytree takes a Module, not {an(type(pytree))}.", "Pass the Module itself."
        )
