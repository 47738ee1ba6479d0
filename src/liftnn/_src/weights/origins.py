"""Where the value of a Variable comes from in another format: names of tensors, and steps that can be reversed.

The steps run on numpy arrays and are the same in both directions: `read` computes the value of a Variable from tensors,
`write` computes tensors from the value. A tensor that holds the values of several Variables side by side has a `Part`
for each of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

Read = Callable[[str], Any]


class LayoutStep(Protocol):
    """A change of the layout of an array that can be reversed."""

    def read(self, x: Any) -> Any:
        """Return the array in the layout of the Variable."""
        ...

    def write(self, x: Any) -> Any:
        """Return the array in the layout of the tensor."""
        ...


@dataclasses.dataclass(frozen=True)
class Transpose:
    """Permute the axes, as `numpy.transpose`.

    Args:
      axes: The axes of the tensor in the order in which the Variable has them.
    """

    axes: tuple[int, ...]

    def read(self, x: Any) -> Any:
        """Return the array in the layout of the Variable."""
        if len(self.axes) != x.ndim:
            raise ValueError(f"has {x.ndim} axes, not {len(self.axes)}")
        return np.transpose(x, self.axes)

    def write(self, x: Any) -> Any:
        """Return the array in the layout of the tensor."""
        return np.transpose(x, np.argsort(self.axes))


@dataclasses.dataclass(frozen=True)
class Reshape:
    """Change the shape.

    Args:
      tensor: The shape before; one entry may be -1.
      variable: The shape after.
    """

    tensor: tuple[int, ...]
    variable: tuple[int, ...]

    def read(self, x: Any) -> Any:
        """Return the array in the shape of the Variable."""
        fits = len(x.shape) == len(self.tensor) and all(
            n in (-1, m) for n, m in zip(self.tensor, x.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"has the shape {tuple(x.shape)} before it is reshaped, not {self.tensor}")
        if x.size != math.prod(self.variable):
            raise ValueError(f"cannot be reshaped from {tuple(x.shape)} to {self.variable}")
        return x.reshape(self.variable)

    def write(self, x: Any) -> Any:
        """Return the array in the shape of the tensor."""
        return x.reshape(self.tensor)


@dataclasses.dataclass(frozen=True)
class Flip:
    """Reverse the order along axes.

    Args:
      axes: The axes.
    """

    axes: tuple[int, ...]

    def read(self, x: Any) -> Any:
        """Return the reversed array."""
        return np.flip(x, self.axes)

    write = read


@dataclasses.dataclass(frozen=True)
class Part:
    """One of several equal parts of a tensor, side by side along an axis.

    Args:
      index: The number of the part, from 0.
      count: The number of parts.
      axis: The axis of the tensor; 0 by default.
    """

    index: int
    count: int
    axis: int = 0

    def take(self, x: Any) -> Any:
        """Return the part of a tensor."""
        if x.shape[self.axis] % self.count:
            raise ValueError(f"cannot be divided into {self.count} equal parts along axis {self.axis}")
        return np.split(x, self.count, self.axis)[self.index]


class Written(NamedTuple):
    """A tensor, or a part of one, computed from a Variable."""

    name: str
    part: Part | None
    value: Any


class Join(NamedTuple):
    """Several tensors side by side along an axis.

    Args:
      axis: The axis; 0 by default.
    """

    axis: int = 0

    def read(self, xs: Sequence[Any]) -> Any:
        """Return the tensors side by side."""
        return np.concatenate(xs, self.axis) if len(xs) > 1 else xs[0]

    def write(self, x: Any, count: int) -> list[Any]:
        """Return equal parts."""
        return np.split(x, count, self.axis) if count > 1 else [x]


class Sum(NamedTuple):
    """The sum of tensors, such as two biases that are added anyway; the first one is written, the others are zero.

    Args:
      separate: The length at the end of the second tensor that must be zero, since there the two are not simply added.
    """

    separate: int = 0

    def read(self, xs: Sequence[Any]) -> Any:
        """Return the sum."""
        if any(x.shape != xs[0].shape for x in xs):
            raise ValueError("cannot be added, since their shapes differ")
        if self.separate and np.any(np.asarray(xs[1][-self.separate :], np.float32)):
            raise ValueError(
                f"cannot be added, since the last {self.separate} entries of the second are not zero: pass "
                "use_hidden_bias=True to the GRUCell"
            )
        return sum(xs[1:], start=xs[0])

    def write(self, x: Any, count: int) -> list[Any]:
        """Return the value, and zeros."""
        return [x, *(np.zeros_like(x) for _ in range(count - 1))]


JOIN = Join()


@dataclasses.dataclass(frozen=True)
class Origin:
    """The tensors that the value of one Variable is computed from.

    Args:
      names: Their names.
      steps: How the layout changes from the tensor to the Variable.
      part: The part that the Variable has of each tensor; None means all of it.
      combine: How several tensors become one.
    """

    names: tuple[str, ...]
    steps: tuple[LayoutStep, ...] = ()
    part: Part | None = None
    combine: Join | Sum = JOIN

    @property
    def depends_on_values(self) -> bool:
        """Whether reading can fail because of the values in the tensors, not only because of their shapes."""
        return isinstance(self.combine, Sum) and self.combine.separate > 0

    def read(self, read: Read) -> Any:
        """Return the value of the Variable.

        Args:
          read: Returns the tensor of a name.

        Returns:
          The value, a view of the tensor if possible.

        Raises:
          ValueError: If the tensors do not have shapes that the steps can change; the text says what does not fit.
        """
        xs = [read(name) for name in self.names]
        if self.part is not None:
            xs = [self.part.take(x) for x in xs]
        x = self.combine.read(xs)
        for step in self.steps:
            x = step.read(x)
        return x

    def write(self, x: Any) -> list[Written]:
        """Return the tensors, or their parts, for a value of the Variable."""
        for step in reversed(self.steps):
            x = step.write(x)
        return [
            Written(name, self.part, y)
            for name, y in zip(self.names, self.combine.write(x, len(self.names)), strict=True)
        ]

    def renamed(self, rename: Callable[[str], str]) -> Origin:
        """Return the same with other names."""
        return dataclasses.replace(self, names=tuple(map(rename, self.names)))


@dataclasses.dataclass(frozen=True)
class StackedOrigin:
    """The tensors of a Variable that holds the values of several layers, stacked along axis 0.

    Args:
      layers: The origin of each layer.
    """

    layers: tuple[Origin | StackedOrigin, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors."""
        return tuple(name for layer in self.layers for name in layer.names)

    @property
    def depends_on_values(self) -> bool:
        """Whether reading can fail because of the values in the tensors."""
        return any(layer.depends_on_values for layer in self.layers)

    def read(self, read: Read) -> Any:
        """Return the stacked value; raise ValueError as `Origin.read`."""
        return np.stack([layer.read(read) for layer in self.layers])

    def write(self, x: Any) -> list[Written]:
        """Return the tensors of each layer."""
        return [w for layer, y in zip(self.layers, x, strict=True) for w in layer.write(y)]

    def renamed(self, rename: Callable[[str], str]) -> StackedOrigin:
        """Return the same with other names."""
        return StackedOrigin(tuple(layer.renamed(rename) for layer in self.layers))


def join_parts(written: Iterable[Written]) -> dict[str, Any]:
    """Return tensors by name from what several Variables have written.

    Args:
      written: Whole tensors and parts.

    Returns:
      The tensors, in order.

    Raises:
      ValueError: If a name is written twice, or if a part is missing; the text says which.
    """
    found: dict[str, list[Written]] = {}
    for w in written:
        found.setdefault(w.name, []).append(w)
    return {name: _joined(name, parts) for name, parts in found.items()}


def _joined(name: str, written: list[Written]) -> Any:
    """Return one tensor; raise ValueError if its parts are not complete."""
    part = written[0].part
    if part is None:
        if len(written) > 1:
            raise ValueError(f"several Variables would be written to the tensor {name!r}")
        return written[0].value
    by_index = {w.part.index: w.value for w in written if w.part is not None}
    if sorted(by_index) != list(range(part.count)) or len(written) != part.count:
        raise ValueError(f"{len(written)} of the {part.count} parts of the tensor {name!r} would be written")
    return np.concatenate([by_index[i] for i in range(part.count)], part.axis)
