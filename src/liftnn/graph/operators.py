"""The operators of an array, for a box that holds one: each acts on the value, in-place ones write it back."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from liftnn.tracebacks import hide_frames

BinaryMethod = Callable[[Any, Any], Any]


def unwrap(x: Any) -> Any:
    """The value of a box; anything else as it is."""
    return x.value if isinstance(x, Operators) else x


def _compare(function: Callable[[Any, Any], Any]) -> BinaryMethod:
    """`box op other`."""

    def method(self: Any, other: Any) -> Any:
        return function(self.value, unwrap(other))

    return method


def _arithmetic(function: Callable[[Any, Any], Any]) -> tuple[BinaryMethod, BinaryMethod, BinaryMethod]:
    """`box op other`, `other op box` and `box op= other`."""

    def reflected(self: Any, other: Any) -> Any:
        return function(unwrap(other), self.value)

    def in_place(self: Any, other: Any) -> Any:
        try:
            self.value = function(self.value, unwrap(other))
        except Exception as error:
            hide_frames(error)
            raise
        return self

    return _compare(function), reflected, in_place


class Operators:
    """Mixin: operators, indexing and conversions on `self.value`."""

    __slots__ = ()
    __array_priority__ = 100  # numpy leaves `ndarray op box` to the reflected operator here

    value: Any

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

    __eq__ = _compare(operator.eq)  # type: ignore[assignment]
    __ne__ = _compare(operator.ne)  # type: ignore[assignment]
    __lt__ = _compare(operator.lt)
    __le__ = _compare(operator.le)
    __gt__ = _compare(operator.gt)
    __ge__ = _compare(operator.ge)
    __hash__ = object.__hash__  # a box is itself, whatever it holds

    def __divmod__(self, other: Any) -> Any:
        return divmod(self.value, unwrap(other))

    def __rdivmod__(self, other: Any) -> Any:
        return divmod(unwrap(other), self.value)

    def __neg__(self) -> Any:
        return -self.value

    def __pos__(self) -> Any:
        return +self.value

    def __abs__(self) -> Any:
        return abs(self.value)

    def __invert__(self) -> Any:
        return ~self.value

    def __round__(self, ndigits: int | None = None) -> Any:
        return round(self.value, ndigits) if ndigits is not None else round(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __complex__(self) -> complex:
        return complex(self.value)

    def __index__(self) -> int:
        return operator.index(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def __contains__(self, item: Any) -> bool:
        return item in self.value

    def __getitem__(self, index: Any) -> Any:
        return self.value if index is ... else self.value[unwrap(index)]

    def __setitem__(self, index: Any, item: Any) -> None:
        current, index, item = self.value, unwrap(index), unwrap(item)
        try:
            if isinstance(current, jax.Array):
                whole = index is ... and isinstance(item, jax.Array)
                same = whole and item.shape == current.shape and item.dtype == current.dtype
                self.value = item if same else current.at[index].set(item)
            else:
                self.value = item if index is ... else _with_item(current, index, item)
        except Exception as error:
            hide_frames(error)
            raise

    def __jax_array__(self) -> Any:
        return self.value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.asarray(self.value, dtype)
        return array.copy() if copy else array


def _with_item(container: Any, index: Any, item: Any) -> Any:
    """A shallow copy of a mutable container with one item set, so that the old value stays as it is."""
    changed = container.copy()
    changed[index] = item
    return changed
