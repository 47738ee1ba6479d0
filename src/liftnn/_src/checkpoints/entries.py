"""What the index says of one value: an array with dtype and shape, a plain value, or a tree of them."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.checkpoints.keys import malformed
from liftnn._src.checkpoints.plain_values import decode_value, encode_value
from liftnn._src.checkpoints.stored import can_store, is_key, native
from liftnn._src.trees import NUMBER_TYPES, an, is_array, is_array_subclass, is_deleted, is_tracer, type_of

JAX, NUMPY, SCALAR = "jax", "numpy", "scalar"
"""The kinds of arrays: the class that a restored array has."""

_DTYPE = re.compile(r"bool|bfloat16|complex(64|128)|u?int\d{1,2}|float\d{1,2}(_\w{1,12})?|[<>][fiuc]\d{1,2}")


@dataclasses.dataclass(frozen=True, slots=True)
class ArrayEntry:
    """An array.

    Args:
      dtype: The name of its dtype, such as `bfloat16`, `>f4` for the other byte order, or `key<fry>`.
      shape: Its shape.
      kind: `jax`, `numpy`, or `scalar` for a numpy number.
      weak: Whether its type is weak, as that of the result of Python numbers.
      impl: For typed keys, the name of their implementation.
      name: Its name among the arrays that Orbax holds; None for an array without elements.
    """

    dtype: str
    shape: tuple[int, ...]
    kind: str
    weak: bool
    impl: str | None
    name: str | None

    @classmethod
    def of(cls, x: Any, name: str | None) -> ArrayEntry:
        """Return the entry of an array or numpy number that has a name."""
        dtype, shape = _name_of(x), tuple(x.shape)
        if isinstance(x, np.generic):
            return cls(dtype, shape, SCALAR, False, None, name)
        if not isinstance(x, jax.Array):
            return cls(dtype, shape, NUMPY, False, None, name)
        if is_key(x):
            return cls(dtype, shape, JAX, False, str(jax.random.key_impl(x)), name)
        return cls(dtype, shape, JAX, bool(x.weak_type), None, name)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON."""
        optional = {"weak": self.weak or None, "impl": self.impl, "name": self.name}
        kept = {key: x for key, x in optional.items() if x is not None}
        return {"dtype": self.dtype, "shape": list(self.shape), "kind": self.kind, **kept}

    @classmethod
    def from_json(cls, data: Any) -> ArrayEntry:
        """Return the entry that was read as JSON; raise CheckpointError if it is not one."""
        if not isinstance(data, dict):
            raise malformed(data)
        fields = [data.get(key) for key in ("dtype", "shape", "kind", "impl", "name")]
        dtype, shape, kind, impl, name = fields
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise malformed(data)
        if not isinstance(dtype, str) or kind not in (JAX, NUMPY, SCALAR):
            raise malformed(data)
        if not isinstance(impl, str | None) or not isinstance(name, str | None):
            raise malformed(data)
        if impl is None and _DTYPE.fullmatch(dtype) is None:
            raise malformed(data)
        return cls(dtype, tuple(shape), kind, bool(data.get("weak")), impl, name)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype; not that of keys.

        Raises:
          CheckpointError: If this version does not know it.
        """
        try:
            return np.dtype(self.dtype)
        except TypeError as error:
            raise errors.CheckpointError(
                f"The checkpoint has an array of dtype {self.dtype}, which this version of JAX does not have.",
                "Update JAX.",
            ) from error

    def fits(self, x: Any) -> bool:
        """Return whether a value of a module has this dtype, in any byte order, and this shape."""
        if not (is_array(x) or isinstance(x, NUMBER_TYPES)):
            return False
        return self.shape == tuple(jnp.shape(x)) and _native_name(self.dtype) == _native_name(_name_of(x))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True, slots=True)
class PlainEntry:
    """A Python number, a string or bytes.

    Args:
      value: The value.
    """

    value: Any

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON."""
        return {"value": encode_value(self.value, (), "", None)}

    def fits(self, x: Any) -> bool:
        """Return whether a value of a module has the same type, or is an array for this number."""
        if type(x) is type(self.value):
            return True
        is_number = isinstance(self.value, NUMBER_TYPES) and (is_array(x) or isinstance(x, NUMBER_TYPES))
        return is_number and jnp.shape(x) == () and _name_of(x) == _name_of(self.value)

    def __str__(self) -> str:
        return describe(self.value)


CheckpointEntry = ArrayEntry | PlainEntry


def entry_from_json(data: Any) -> CheckpointEntry:
    """Return the entry that was read as JSON.

    Args:
      data: The JSON.

    Returns:
      The entry.

    Raises:
      CheckpointError: If it is not an entry.
    """
    if isinstance(data, dict) and "value" in data:
        return PlainEntry(decode_value(data["value"], malformed_array))
    return ArrayEntry.from_json(data)


def malformed_array(data: Any) -> Any:
    """Raise the error for an array where there must not be one."""
    raise malformed(data)


def is_plain(x: Any) -> bool:
    """Return whether a leaf is written into the index as it is."""
    return type(x) in (bool, int, float, complex, str, bytes)


def check_storable(x: Any, path: str) -> None:
    """Raise an error for a leaf that cannot be saved.

    Args:
      x: The leaf.
      path: Its path, for the message.

    Raises:
      ArgumentTypeError: If it is abstract, a tracer, or of a type that a checkpoint cannot hold.
      DonatedError: If its buffer was donated.
    """
    if isinstance(x, jax.ShapeDtypeStruct):
        raise errors.ArgumentTypeError(
            f"{path} is abstract: it has a shape and a dtype, but no value.",
            "Save the module after its Variables have values.",
        )
    if is_tracer(x):
        raise errors.ArgumentTypeError(
            f"{path} is a tracer: save was called inside a transform, where arrays have no values.",
            "Call save outside of the compiled function.",
        )
    if is_deleted(x):
        raise errors.DonatedError(f"The buffer of {path} was donated earlier and is gone.")
    is_plain_array = (is_array(x) or isinstance(x, np.generic)) and not is_array_subclass(x)
    if not is_plain_array or not can_store(x.dtype):
        what = f"an array of dtype {x.dtype}" if is_plain_array else an(type(x))
        raise errors.ArgumentTypeError(
            f"{path} holds {what}, which a checkpoint cannot hold.",
            "Store numbers, strings, or arrays of numbers in Variables.",
        )


def _name_of(x: Any) -> str:
    return _dtype_name(x.dtype if hasattr(x, "dtype") else jnp.result_type(x))


@functools.cache
def _dtype_name(dtype: Any) -> str:
    return str(dtype)


@functools.cache
def _native_name(name: str) -> str:
    """Return the name of a dtype in the byte order of this machine."""
    return native(name).name if name[0] in "<>" else name


def describe(x: Any) -> str:
    """Return a value of a module for a message: dtype and shape of an array, the type of others."""
    return type_of(x) if is_array(x) or isinstance(x, np.generic) else an(type(x))
