"""`List` and `Dict`: a sequence and a mapping that are Modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence
from typing import Any, TypeVar, overload

import jax

from liftnn import errors
from liftnn._src.compat.modules import Module
from liftnn._src.graph.attributes import attributes_of, fill_attributes
from liftnn._src.graph.checks import ABSENT
from liftnn._src.trees import an
from liftnn._src.variables import frames
from liftnn._src.variables.watch import Changing, end_watches
from liftnn._src.variables.write_errors import write_error

T = TypeVar("T")


class List(Module, MutableSequence[T]):
    """A sequence that is a Module: it holds modules, Variables, arrays and static values under the keys 0, 1, 2 ...

    An attribute may as well be a plain list; a List can also be passed to a transform alone.

    Args:
      items: The elements; none by default.

    Example:
      >>> from liftnn.compat import nnx
      >>> layers = nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu])
      >>> layers.append(nnx.Linear(3, 1, rngs=nnx.Rngs(1)))
      >>> len(layers), list(nnx.state(layers))
      (3, [0, 2])
    """

    def __init__(self, items: Iterable[T] | None = None, /):
        self._replace([] if items is None else list(items))

    def _elements(self) -> list[T]:
        """Return the elements as a new list. They are the attributes with an int as name."""
        return [x for key, x in attributes_of(self).items() if type(key) is int]

    def _replace(self, elements: list[T]) -> None:
        """Set all elements."""
        self._check_writable()
        names = {key: x for key, x in attributes_of(self).items() if type(key) is not int}
        everything: dict[Any, Any] = {**names, **dict(enumerate(elements))}
        with Changing(self):
            fill_attributes(self, None, tuple(everything), list(everything.values()))
            end_watches(self)

    def _check_writable(self) -> None:
        if not frames.may_write(self._owner):
            raise write_error(self, "the elements")

    def __len__(self) -> int:
        return sum(type(key) is int for key in attributes_of(self))

    def __iter__(self) -> Iterator[T]:
        return iter(self._elements())

    @overload
    def __getitem__(self, index: int, /) -> T: ...

    @overload
    def __getitem__(self, index: slice, /) -> list[T]: ...

    def __getitem__(self, index: Any, /) -> Any:
        return self._elements()[index]

    def __setitem__(self, index: Any, value: Any, /) -> None:
        elements = self._elements()
        if isinstance(index, slice):
            values = list(value)
            if len(elements[index]) != len(values):
                raise errors.ArgumentError(
                    f"A slice of {len(elements[index])} elements of a List was set to {len(values)} values.",
                    "Set as many values as there are elements, or use append, insert and del.",
                )
            elements[index] = values
            self._replace(elements)
            return
        key = range(len(elements))[index]
        self._check_writable()
        attributes: dict[Any, Any] = attributes_of(self)
        old = attributes[key]
        with Changing(self):
            attributes[key] = value
            if old is not value and not (isinstance(old, jax.Array) and isinstance(value, jax.Array)):
                end_watches(self)

    def __delitem__(self, index: Any, /) -> None:
        elements = self._elements()
        del elements[index]
        self._replace(elements)

    def insert(self, index: int, value: T) -> None:
        """Insert an element before a position.

        Args:
          index: The position.
          value: The element.
        """
        elements = self._elements()
        elements.insert(index, value)
        self._replace(elements)

    def pop(self, index: int = -1) -> T:  # pyright: ignore[reportIncompatibleMethodOverride]  # a list's
        """Remove an element and return it.

        Args:
          index: The position. The default is the last element.

        Returns:
          The element.
        """
        return MutableSequence.pop(self, index)

    __eq__ = object.__eq__  # a Module is equal to itself only
    __hash__ = object.__hash__


class Dict(Module, MutableMapping[str, T]):
    """A mapping that is a Module: its entries are its attributes.

    An attribute may as well be a plain dict; a Dict can also be passed to a transform alone.

    Args:
      *args: A mapping, or an iterable of pairs of name and value.
      **kwargs: More entries.

    Raises:
      ArgumentTypeError: If a name is not a string.

    Example:
      >>> from liftnn.compat import nnx
      >>> layers = nnx.Dict(first=nnx.Linear(2, 3, rngs=nnx.Rngs(0)), act=nnx.relu)
      >>> layers.first is layers["first"], list(layers)
      (True, ['first', 'act'])
    """

    def __init__(self, *args: Any, **kwargs: Any):
        entries: dict[Any, Any] = dict(*args, **kwargs)
        for name, value in entries.items():
            self[name] = value

    def __getitem__(self, name: str, /) -> T:
        return attributes_of(self)[name]

    def __setitem__(self, name: str, value: T, /) -> None:
        if not isinstance(name, str):
            raise errors.ArgumentTypeError(
                f"The keys of a Dict must be strings, not {an(type(name))}.",
                "Use a string, or a plain dict as an attribute of a Module: it takes any key.",
            )
        setattr(self, name, value)

    def __delitem__(self, name: str, /) -> None:
        if name not in attributes_of(self):
            raise KeyError(name)
        delattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(list(attributes_of(self)))

    def __len__(self) -> int:
        return len(attributes_of(self))

    def pop(self, key: str, default: Any = ABSENT) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # a dict's
        """Remove an entry and return it.

        Args:
          key: The name.
          default: The value to return if the entry does not exist.

        Returns:
          The value.
        """
        return MutableMapping.pop(self, key, *(() if default is ABSENT else (default,)))

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set entries, as `dict.update` does.

        Args:
          *args: A mapping, or an iterable of pairs of name and value.
          **kwargs: More entries.
        """
        MutableMapping.update(self, *args, **kwargs)

    __eq__ = object.__eq__  # a Module is equal to itself only
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]  # Mapping declares None
