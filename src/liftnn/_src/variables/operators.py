"""Array operators of a Variable: each acts on the value, and in-place operators assign the result to it."""

from __future__ import annotations

import copy
import inspect
import math
import operator
from collections.abc import Callable, Iterator
from types import EllipsisType
from typing import Any, Generic, Protocol, TypeVar, cast, overload

import jax
import jax.numpy as jnp
import numpy as np

from liftnn._src.tracebacks import hide_frames
from liftnn._src.trees import is_tracer
from liftnn._src.type_variables import T
from liftnn._src.variables import frames
from liftnn._src.variables.array_attributes import ArrayAttributes

Written = TypeVar("Written")
BinaryMethod = Callable[[Any, Any], jax.Array]


class InPlaceMethod(Protocol):
    """The type of a method that returns the Variable itself."""

    def __get__(self, variable: Written, owner: type | None = None, /) -> Callable[[Any], Written]: ...


def unwrap(x: Any) -> Any:
    """Return the value of a Variable; anything else unchanged."""
    return x.get_value() if isinstance(x, Operators) else x


def unwrap_index(index: Any) -> Any:
    """Return an index with the values of the Variables in it."""
    return tuple(map(unwrap, index)) if type(index) is tuple else unwrap(index)


class At:
    """The `at` of a Variable's array.

    Args:
      at: That of the array.
    """

    __slots__ = ("_at",)

    def __init__(self, at: Any):
        self._at = at

    def __getitem__(self, index: Any) -> Any:
        return self._at[unwrap_index(index)]

    def __repr__(self) -> str:
        return repr(self._at)


def unwrap_raw(x: Any) -> Any:
    """Return the value of a Variable, without hooks; anything else unchanged."""
    return cast(Any, x).raw_value if isinstance(x, Operators) else x


def _compare(function: Callable[[Any, Any], Any]) -> BinaryMethod:
    """Return the method for `variable op other`."""

    def method(self: Any, other: Any) -> Any:
        return function(self.get_value(), unwrap(other))

    return method


def _arithmetic(function: Callable[[Any, Any], Any]) -> tuple[BinaryMethod, BinaryMethod, InPlaceMethod]:
    """Return the methods for `variable op other`, `other op variable` and `variable op= other`."""

    def reflected(self: Any, other: Any) -> Any:
        return function(unwrap(other), self.get_value())

    def in_place(self: Any, other: Any) -> Any:
        try:
            self.set_value(function(self.get_value(), unwrap(other)))
        except Exception as error:
            hide_frames(error)
            raise
        return self

    method: Any = in_place
    return _compare(function), reflected, method


class Operators(ArrayAttributes, Generic[T]):
    """Mixin: operators, indexing and conversions on what `get_value` returns."""

    __slots__ = ()
    __array_priority__ = 100  # numpy leaves `ndarray op variable` to the reflected operator here

    get_value: Callable[..., Any]
    set_value: Callable[..., Any]
    _reads_parts = True
    """Whether `get_value` takes an index."""
    _writes_parts = True
    """Whether `set_value` takes an index."""

    __add__, __radd__, __iadd__ = _arithmetic(operator.add)
    __sub__, __rsub__, __isub__ = _arithmetic(operator.sub)
    __mul__, __rmul__, __imul__ = _arithmetic(operator.mul)
    __matmul__, __rmatmul__, __imatmul__ = _arithmetic(operator.matmul)
    __truediv__, __rtruediv__, __itruediv__ = _arithmetic(operator.truediv)
    __floordiv__, __rfloordiv__, __ifloordiv__ = _arithmetic(operator.floordiv)
    __mod__, __rmod__, __imod__ = _arithmetic(operator.mod)
    __pow__, __rpow__, __ipow__ = _arithmetic(operator.pow)
    __lshift__, __rlshift__, __ilshift__ = _arithmetic(operator.lshift)
    __rshift__, __rrshift__, __irshift__ = _arithmetic(operator.rshift)
    __and__, __rand__, __iand__ = _arithmetic(operator.and_)
    __or__, __ror__, __ior__ = _arithmetic(operator.or_)
    __xor__, __rxor__, __ixor__ = _arithmetic(operator.xor)

    __lt__ = _compare(operator.lt)
    __le__ = _compare(operator.le)
    __gt__ = _compare(operator.gt)
    __ge__ = _compare(operator.ge)
    __hash__ = object.__hash__  # by identity, since the value is mutable

    # Compares element by element, as arrays do.
    def __eq__(self, other: object) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.get_value() == unwrap(other)

    def __ne__(self, other: object) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.get_value() != unwrap(other)

    def __divmod__(self, other: Any) -> tuple[jax.Array, jax.Array]:
        return divmod(self.get_value(), unwrap(other))

    def __rdivmod__(self, other: Any) -> tuple[jax.Array, jax.Array]:
        return divmod(unwrap(other), self.get_value())

    def __neg__(self) -> jax.Array:
        return -self.get_value()

    def __pos__(self) -> jax.Array:
        return +self.get_value()

    def __abs__(self) -> jax.Array:
        return abs(self.get_value())

    def __invert__(self) -> jax.Array:
        return ~self.get_value()

    def __round__(self, ndigits: int | None = None) -> jax.Array:
        return round(self.get_value(), ndigits) if ndigits is not None else round(self.get_value())

    def __bool__(self) -> bool:
        return bool(self.get_value())

    def __int__(self) -> int:
        return int(self.get_value())

    def __float__(self) -> float:
        return float(self.get_value())

    def __complex__(self) -> complex:
        return complex(self.get_value())

    def __index__(self) -> int:
        return operator.index(self.get_value())

    def __trunc__(self) -> int:
        return math.trunc(self.get_value())

    def __format__(self, spec: str) -> str:
        return format(self.get_value(), spec) if spec else str(self)

    def __len__(self) -> int:
        return len(self.get_value())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.get_value())

    def __contains__(self, item: Any) -> bool:
        return item in self.get_value()

    @overload
    def __getitem__(self, index: EllipsisType) -> T: ...

    @overload
    def __getitem__(self: Operators[jax.Array], index: Any) -> jax.Array: ...

    @overload
    def __getitem__(self, index: Any) -> Any: ...

    def __getitem__(self, index: Any) -> Any:
        if index is not ... and self._reads_parts:
            return self.get_value(index=unwrap_index(index))
        return part_of(self.get_value(), unwrap_index(index))

    def __setitem__(self, index: Any, item: Any) -> None:
        try:
            index, item = unwrap_index(index), unwrap(item)
            if self._writes_parts:
                self.set_value(item, index=index)
            else:
                self.set_value(with_part(self.get_value(), index, item))
        except Exception as error:
            hide_frames(error)
            raise

    def __delitem__(self, index: Any) -> None:
        variable: Any = self
        changed = copy.copy(variable.raw_value)
        del changed[unwrap_index(index)]
        variable.raw_value = changed

    @property
    def at(self) -> At:
        """The updates of the array at an index, as `at` of an array; an index may be a Variable."""
        return At(self.get_value().at)

    def __jax_array__(self) -> jax.Array:
        return self.get_value()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = np.asarray(self.get_value(), dtype)
        return array.copy() if copy else array


class _Whole:
    """The type of `WHOLE`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "WHOLE"


WHOLE = _Whole()
"""The default of `index` in `get_value` and `set_value`."""


def is_part(index: Any) -> bool:
    """Return whether an index that was passed is one: the default of Flax NNX, which a subclass may pass on, is not."""
    return type(index).__module__ != "flax.typing"


def part_of(value: Any, index: Any) -> Any:
    """Return the part of a value at an index or key; the value itself for `...`, or what a mutable array holds."""
    is_whole = index is ... and (isinstance(value, jax.Array) or not isinstance(value, jax.Ref))
    return value if is_whole else value[index]


def with_part(value: Any, index: Any, item: Any) -> Any:
    """Return a value with another part at an index or key; the old value does not change.

    Args:
      value: An array or a container.
      index: The index; `...` means the whole array or container.
      item: The new part.

    Returns:
      The new value; an array of the same shape and dtype for an array. A mutable array (`jax.new_ref`) is written to.
    """
    if isinstance(value, np.ndarray) and any(map(is_tracer, jax.tree.leaves((index, item)))):
        value = jnp.asarray(value)
    if isinstance(value, jax.Array):
        whole = index is ... and isinstance(item, jax.Array)
        same = whole and item.shape == value.shape and item.dtype == value.dtype
        return item if same else value.at[index].set(item)
    is_mutable_array = isinstance(value, jax.Ref)
    if index is ... and not (is_mutable_array or isinstance(value, np.ndarray)):
        return item
    changed = value if is_mutable_array else copy.copy(value)
    changed[index] = item
    return changed


def takes_index(method: Callable[..., Any]) -> bool:
    """Return whether a `get_value` or `set_value` has the parameter `index`; an override need not have it."""
    parameters = inspect.signature(method).parameters.values()
    return any(p.name == "index" or p.kind is p.VAR_KEYWORD for p in parameters)


def constant_or_value(variable: Any) -> Any:
    """Return the value of a Variable; a boolean or a string, as in a mask for optax, is a constant for every trace.

    Args:
      variable: The Variable.

    Returns:
      The value.
    """
    value = variable._storage.value
    return value if not frames.open_frames or isinstance(value, (bool, str)) else variable.raw_value
