"""The content of a static value as one flat tuple, equal for interchangeable values.

Every compound value (a tuple, a closure, a list) becomes one *token*: its type, its own data, and references to its
parts. Equal tokens are stored once and referred to by number. So the size of the content, and the time to compute, hash
and compare it, is linear in the number of objects, however many paths reach each of them. A reference from a part back
to an enclosing value (a recursive function) is a negative number. Nothing here is recursive.
"""

from __future__ import annotations

import copy
import types
import weakref
from collections.abc import MappingView, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from liftnn import errors
from liftnn._src.static_values.value_types import (
    FROZEN_DATACLASS_VALUE,
    MUTABLE_DATACLASS_VALUE,
    SIMPLE_TYPES,
    Identity,
    ValueKind,
    attributes_before,
    find_parts,
    is_hashable,
    is_users_function,
    rank,
)
from liftnn._src.trees import an


class Copied:
    """A private copy of an unhashable value of an unknown type, compared with the value's own `==`.

    Args:
      value: The value to copy.

    Raises:
      StructureError: If the value cannot be copied or holds a Module or Variable, or if `==` does not return a bool, or
        not True for the copy.
    """

    __slots__ = ("copy",)

    def __init__(self, value: Any):
        try:
            self.copy = copy_deeply(value)
            with jax.ensure_compile_time_eval():
                same = value == self.copy
        except errors.StructureError:
            raise
        except Exception as error:
            raise cannot_copy(value, error) from error
        if not isinstance(same, (bool, np.bool_)):
            raise errors.StructureError(
                f"A static value of type {type(value).__qualname__} is not hashable, and comparing it with == does not "
                "return True or False, so liftnn cannot detect changes to it.",
                "Make it hashable, or store the arrays in it as attributes or Variables.",
            )
        if not same:
            raise copy_differs(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Copied) and self.matches(other.copy)

    def matches(self, value: Any, in_trace: bool = True) -> bool:
        """Return whether a value equals the copy; no other copy is made.

        Args:
          value: The value.
          in_trace: Whether JAX may be tracing; if not, the comparison is 2 us faster. The default is True.
        """
        if type(self.copy) is not type(value):
            return False
        if not in_trace:
            return bool(self.copy == value)
        with jax.ensure_compile_time_eval():
            return bool(self.copy == value)

    def __hash__(self) -> int:
        return hash(type(self.copy))


def copy_deeply(value: Any) -> Any:
    """Return a copy of a value that can change in place. Arrays in it are copied at once, also under a trace.

    Args:
      value: The value.

    Returns:
      The copy.

    Raises:
      StructureError: If the value holds a Module or Variable: changes of it would not be seen in the copy.
    """
    memo: dict[int, Any] = {}
    with jax.ensure_compile_time_eval():
        copied = copy.deepcopy(value, memo)
    found = next((x for x in memo.values() if hasattr(type(x), "__graph_node__")), None)
    if found is None:
        return copied
    raise errors.StructureError(
        f"A static value of type {type(value).__qualname__} is not hashable, so liftnn copies it, but it holds "
        f"{an(type(found))}, whose copy would not see later changes.",
        f"Make it hashable, a Module or a dataclass, or store the {type(found).__name__} in a list, a dict or an "
        "attribute of a Module.",
    )


def cannot_copy(value: Any, error: Exception) -> errors.StructureError:
    """Return the error for a value that is not hashable and cannot be copied."""
    if isinstance(error, jax.errors.ConcretizationTypeError):
        return errors.StructureError(
            f"A static value of type {type(value).__qualname__} holds an array computed inside the function. The array "
            "would leak as a tracer.",
            "Store the array in an attribute, a Variable, or a list, dict or dataclass of them.",
        )
    copied = [code for cls, code in _COPIES.items() if isinstance(value, cls)]
    return errors.StructureError(
        f"A static value of type {type(value).__qualname__} is not hashable and cannot be copied and "
        f"compared ({type(error).__name__}), so liftnn cannot detect changes to it.",
        f"Store a copy of it: `{copied[0]}`."
        if copied
        else "Make it hashable, or store it outside the module.",
    )


_COPIES = {types.MappingProxyType: "dict(x)", MappingView: "tuple(x)"}
"""Views of dicts, which show the changes of the dict, and the code that copies what they show."""


def copy_differs(value: Any) -> errors.StructureError:
    """Return the error for a value that differs from its copy."""
    return errors.StructureError(
        f"A static value of type {type(value).__qualname__} is not hashable, and a copy of it does not compare "
        "equal to it, so it would seem changed in every call.",
        "Make it hashable, or define an __eq__ that compares content. Store modules in a list, a dict or an "
        "attribute of a Module, where liftnn finds them.",
    )


class Content(NamedTuple):
    """The content of a value.

    Args:
      key: A hashable key, equal only for interchangeable values.
      is_mutable: Whether a part of the value can change in place, so that a copy must be kept instead of the value.
      closes_over_mutable: Whether a function in it closes over a mutable value.
      is_opaque: Whether a part of it is of an unknown type, compared by its own `==` or by identity.
      has_users_function: Whether it contains a user's function, which can get another closure at any time.
    """

    key: Any
    is_mutable: bool = False
    closes_over_mutable: bool = False
    is_opaque: bool = False
    has_users_function: bool = False


class NotImmutableError(Exception):
    """Raised if a value must be deeply immutable but is not."""


def content_of(value: Any, immutable: bool = False, inside: bool = False) -> Content:
    """Compute the current content of a value.

    Args:
      value: Any Python object that is not an array, Variable or Module.
      immutable: Whether to raise an error for values that are not immutable. The default is False.
      inside: Whether a function holds the value, so that its identity counts. The default is False.

    Returns:
      The content.

    Raises:
      StructureError: If a part of it can be neither hashed nor copied and compared.
      NotImmutableError: If `immutable`, and a part of it can change or is of an unknown type.
    """
    kind = type(value)
    if kind in SIMPLE_TYPES:
        return Content((kind, value))
    if kind is tuple and SIMPLE_TYPES.issuperset(
        map(type, value)
    ):  # the same as below, in a third of the time
        return Content((((tuple, None), tuple([(type(x), x) for x in value]), 0),))
    f = _Flattener(immutable)
    key = f.flatten(value, inside)
    return Content(key, f.is_mutable, f.closes_over_mutable, f.is_opaque, f.has_users_function)


class _PendingParts:
    """A compound value with parts that are being flattened.

    Args:
      place: Its key among the known values.
      head: Its type and its own data.
      children: Its parts.
      index: Its number in the order of opening, from 1.
      inside: Whether its parts belong to a function.
      unordered: Whether the order of its parts is arbitrary.
    """

    __slots__ = ("bound", "children", "head", "index", "inside", "place", "references", "unordered")

    def __init__(
        self, place: Any, head: Any, children: Sequence[Any], index: int, inside: bool, unordered: bool
    ):
        self.place = place
        self.head = head
        self.children = children
        self.index = index
        self.inside = inside
        self.unordered = unordered
        self.references: list[Any] = []
        self.bound = False
        """Whether one of its parts refers back to it."""


class _Flattener:
    """A pass that flattens one value.

    Args:
      immutable: Whether the value has to be immutable.
    """

    def __init__(self, immutable: bool):
        self.is_mutable = self.closes_over_mutable = self.is_opaque = self.has_users_function = False
        self._immutable = immutable
        self._tokens: dict[Any, int] = {}
        self._known: dict[tuple[int, bool], int | _PendingParts] = {}
        self._kept: list[Any] = []  # a visited value must not be freed, or another one could get its id
        self._opened = 0

    def flatten(self, value: Any, inside: bool) -> Any:
        """Return the key of a value."""
        top = _PendingParts(None, None, (value,), 0, inside, False)
        stack = [top]
        while True:
            node = stack[-1]
            if len(node.references) < len(node.children):
                found = self._reference(node.children[len(node.references)], node.inside)
                if isinstance(found, _PendingParts):
                    stack.append(found)
                else:
                    node.references.append(found)
                continue
            stack.pop()
            if node is top:
                only = node.references[0]
                return tuple(self._tokens) if type(only) is int else only
            stack[-1].references.append(self._finish(node))

    def _reference(self, x: Any, inside: bool) -> Any:
        """Return the reference to a part: a token for a leaf, else a number; an open value at the first visit."""
        kind = type(x)
        if kind in SIMPLE_TYPES:
            return (kind, x)
        inside = inside or kind is types.FunctionType
        known = self._known.get((id(x), inside))
        if isinstance(known, _PendingParts):
            known.bound = True
            return -known.index
        if known is not None:
            return known
        parts = find_parts(kind)
        if (
            parts is None
            or (self._immutable and parts is FROZEN_DATACLASS_VALUE)  # an object with identity
            or (not inside and parts is MUTABLE_DATACLASS_VALUE)  # which is a node, except in a function
        ):
            return self._unknown(x, inside)
        if parts.is_mutable:
            self._note_mutable(inside)
        extra, children = parts.flatten(x)
        if parts.base is not None and kind is not parts.base:
            names, values = attributes_before(x, parts.base)
            if kind.__eq__ is not parts.base.__eq__ and kind.__hash__ is not None:
                extra = (extra, x)  # a subclass written in C may hold hidden data
            if names:
                self._note_mutable(inside)
                extra, children = (extra, names), (*children, *values)
        if parts.is_leaf and not children:
            return (kind, extra)
        return self._enter(x, parts, extra, children, inside)

    def _note_mutable(self, inside: bool) -> None:
        if self._immutable:
            raise NotImmutableError
        if inside:
            self.closes_over_mutable = True
        else:
            self.is_mutable = True

    def _enter(
        self, x: Any, parts: ValueKind, extra: Any, children: Sequence[Any], inside: bool
    ) -> _PendingParts:
        """Create the open value of a compound value."""
        if parts.is_mutable and inside:
            extra = (extra, Identity(x))  # closures over two equal lists can become different
        self.has_users_function = self.has_users_function or is_users_function(x)
        self._opened += 1
        self._kept.append((x, children))
        if parts.is_unordered and not all(type(y) in SIMPLE_TYPES for y in children):
            children = sorted(children, key=rank)
        place = (id(x), inside)
        opened = _PendingParts(place, (type(x), extra), children, self._opened, inside, parts.is_unordered)
        self._known[place] = opened
        return opened

    def _finish(self, node: _PendingParts) -> int:
        """Return the number of a compound value after its parts have been flattened."""
        references: Any = tuple(node.references)
        if node.unordered and int not in map(type, references):
            references = (len(references), frozenset(references))
        token = (node.head, references, node.index if node.bound else 0)
        number = self._tokens.setdefault(token, len(self._tokens))
        self._known[node.place] = number
        return number

    def _unknown(self, x: Any, inside: bool) -> Any:
        """Return the token of a value of an unknown type."""
        if self._immutable:
            raise NotImmutableError
        self.is_opaque = True
        if type(x) is Identity:
            return x
        if inside or isinstance(
            x, (weakref.ref, jax.Ref)
        ):  # references to equal objects are not interchangeable
            return Identity(x)
        if is_hashable(x):
            return (type(x), x)
        self.is_mutable = True
        return Copied(x)
