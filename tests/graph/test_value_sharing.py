"""A container that is the value of two Variables is found, with both paths; what is immutable may be shared."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises

from liftnn import errors
from liftnn._src.graph.value_sharing import check_unshared

Point = collections.namedtuple("Point", "x y")


@jax.tree_util.register_pytree_node_class
class Box:
    """A mutable pytree."""

    def __init__(self, x):
        self.x = x

    def tree_flatten_with_keys(self):
        return ((jax.tree_util.GetAttrKey("x"), self.x),), None

    def tree_flatten(self):
        return (self.x,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["x"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Fixed:
    """An immutable pytree."""

    x: object


@dataclasses.dataclass
class Settings:
    """A dataclass that JAX does not know."""

    rate: object = 1


@dataclasses.dataclass(frozen=True)
class FixedSettings:
    """The same, immutable."""

    rate: object = 1


X = jnp.ones(2)
MUTABLE = {
    "list": lambda: [X],
    "empty list": list,
    "dict": lambda: {"a": X},
    "empty dict": dict,
    "OrderedDict": lambda: collections.OrderedDict(a=X),
    "deque": lambda: collections.deque([X]),
    "set": lambda: {1},
    "bytearray": lambda: bytearray(b"a"),
    "pytree": lambda: Box(X),
    "dataclass": Settings,
    "namespace": lambda: types.SimpleNamespace(a=1),
}
IMMUTABLE = {
    "array": lambda: X,
    "numpy": lambda: np.ones(2),
    "number": lambda: 1.5,
    "None": lambda: None,
    "string": lambda: "text",
    "tuple": lambda: (X, (X,)),
    "empty tuple": tuple,
    "namedtuple": lambda: Point(X, 1),
    "frozen": lambda: Fixed(X),
    "frozen settings": FixedSettings,
    "function": lambda: len,
}
WRAPPERS = {
    "itself": (lambda x: x, ""),
    "dict": (lambda x: {"k": x}, ".k"),
    "list": (lambda x: [0, x], "[1]"),
    "tuple": (lambda x: (x,), "[0]"),
    "frozen": (Fixed, ".x"),
    "deep": (lambda x: [{"k": Point(1, x)}], "[0].k.y"),
}


@pytest.mark.parametrize("make", MUTABLE.values(), ids=MUTABLE)
@pytest.mark.parametrize("wrap, suffix", WRAPPERS.values(), ids=WRAPPERS)
def test_a_container_in_two_variables_is_an_error_with_both_paths(make, wrap, suffix):
    shared = make()
    kind = type(shared).__name__
    with raises(
        errors.StructureError,
        f"b.value and a.value{suffix} are the same {kind}. Each Variable has its own {kind} inside a "
        f"transform, so a change through one would not be visible through the other.\n"
        f"Share the Variable instead of the {kind}, or copy the {kind} for one of them.",
    ):
        check_unshared({"a": wrap(shared), "n": X, "b": shared})


@pytest.mark.parametrize("make", MUTABLE.values(), ids=MUTABLE)
def test_a_container_twice_in_one_variable_is_an_error(make):
    shared = make()
    with pytest.raises(errors.StructureError, match=r"v\.value\[1\] and v\.value\[0\] are the same"):
        check_unshared({"v": (shared, shared)})


def test_a_container_that_holds_itself_is_an_error():
    loop = []
    loop.append(loop)
    with pytest.raises(errors.StructureError, match=r"v\.value\[0\] and v\.value are the same list"):
        check_unshared({"v": loop})


@pytest.mark.parametrize("make", IMMUTABLE.values(), ids=IMMUTABLE)
def test_what_cannot_change_may_be_shared(make):
    shared = make()
    check_unshared({"a": shared, "b": (shared, shared), "c": {"k": shared}})


@pytest.mark.parametrize("make", MUTABLE.values(), ids=MUTABLE)
def test_equal_containers_are_not_shared(make):
    check_unshared({"a": make(), "b": (make(), [make()])})


def test_variables_may_go_by_numbers():
    shared = [1]
    with pytest.raises(errors.StructureError, match=r"^v7\.value and v3\.value are"):
        check_unshared({3: shared, 7: shared}, lambda number: f"v{number}")


@pytest.mark.parametrize("make", [lambda x: [x], lambda x: {"x": x}, Box, lambda x: ([x], {"x": [x]})])
def test_containers_that_a_class_creates_in_each_flattening_are_not_shared(make):
    class Wrapped:
        """A pytree whose content exists only while it is flattened."""

        def __init__(self, x):
            self.x = x

    jax.tree_util.register_pytree_node(
        Wrapped, lambda wrapped: ((make(wrapped.x),), None), lambda _, children: Wrapped(children)
    )
    check_unshared({i: [Wrapped(X), Wrapped(i)] for i in range(100)})
