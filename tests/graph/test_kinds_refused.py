"""What a module cannot hold is refused by path, not lost."""

from __future__ import annotations

import collections
import dataclasses
import types
import weakref

import jax.numpy as jnp
import pytest
from tests.raising import raises
from tests.strategies import Frozen, Node, Point

import liftnn
from liftnn import errors
from liftnn._src.trees import an, at_start


class Names(list):
    """A subclass of list."""


class Tally(dict):
    """A subclass of dict."""


class Pair(tuple):
    """A subclass of tuple."""


class NamedPoint(Point):
    """A subclass of a namedtuple."""


CONTAINERS = {
    Names: Names,
    Tally: lambda children: Tally(enumerate(children)),
    Pair: Pair,
    NamedPoint: lambda children: NamedPoint(*children),
}


@pytest.mark.parametrize("cls", CONTAINERS)
@pytest.mark.parametrize("children", [(1, 2), (jnp.ones(1), 2)], ids=["static", "dynamic"])
def test_a_container_with_attributes_of_its_own_is_an_error(cls, children):
    x = CONTAINERS[cls](children)
    x.note = "mine"
    with raises(
        errors.StructureError,
        f"x: A {cls.__qualname__} is a container with extra attributes (note), which would be lost.\n"
        "Use a plain list, dict or tuple, or a Module that holds the container and the attributes.",
    ):
        liftnn.split(Node(x=x))


class SlottedNames(list):
    """A list with a slot."""

    __slots__ = ("note",)


@dataclasses.dataclass
class Output(collections.OrderedDict):
    """A dataclass that is a dict, too, as the outputs of other libraries are."""

    note: object


@pytest.mark.parametrize("note", ["mine", None])
@pytest.mark.parametrize("cls", [SlottedNames, Output])
def test_a_container_with_slots_or_fields_is_an_error(cls, note):
    x = cls.__new__(cls)
    x.note = note
    with raises(
        errors.StructureError,
        f"x: {at_start(an(cls))} is a container with extra attributes (note), which would be lost.\n"
        "Use a plain list, dict or tuple, or a Module that holds the container and the attributes.",
    ):
        liftnn.split(Node(x=x))


@pytest.mark.parametrize(
    "holder", [lambda m: {m}, lambda m: frozenset([m]), lambda m: {(m, 1)}, lambda m: {frozenset([m])}]
)
@pytest.mark.parametrize("make", [Node, lambda: liftnn.Param(1.0)], ids=["module", "variable"])
def test_a_set_of_modules_or_variables_is_an_error(holder, make):
    with raises(
        errors.StructureError,
        "deep.x: A set holds modules or Variables. A set has no order, so its elements cannot be numbered.\n"
        "Use a list or a dict.",
    ):
        liftnn.split(Node(deep=Node(x=holder(make()))))


def test_a_module_as_a_dict_key_is_an_error():
    with raises(
        errors.StructureError,
        "x[0]: A dict has a Node as a key, but keys must be static.\n"
        "Store it as a value, under a string key.",
    ):
        liftnn.split(Node(x=[{Node(): 1}]))


def test_a_static_value_that_cannot_be_copied_is_an_error_with_its_path():
    with raises(
        errors.StructureError,
        "a[1].k: A static value of type mappingproxy is not hashable and cannot be copied and compared "
        "(TypeError), so liftnn cannot detect changes to it.\nStore a copy of it: `dict(x)`.",
    ):
        liftnn.split(Node(a=[0, {"k": types.MappingProxyType({})}]))


@pytest.mark.parametrize("base", [dict, collections.OrderedDict])
@pytest.mark.parametrize("view", ["keys", "values", "items"])
def test_a_view_of_a_dict_is_an_error_since_the_dict_can_change(view, base):
    x = getattr(base(a=1), view)()
    text = (
        "{}: A static value of type {} is not hashable and cannot be copied and compared (TypeError), so liftnn cannot "
        "detect changes to it.\nStore a copy of it: `tuple(x)`."
    )
    for node, path in ((Node(x=[x]), "args[0].x[0]"), (Node(v=liftnn.Variable(1.0, x=x)), "args[0].v.x")):
        with raises(errors.StructureError, text.format(path, type(x).__name__)):
            liftnn.jit(lambda node: node)(node)
    with raises(
        errors.ArgumentError,
        f"args[1] is static and must be hashable, but is {an(type(x))}: {x!r:.60}.\n"
        "Pass a hashable value, such as a tuple instead of a list or a frozen dataclass instead of a dict.",
    ):
        liftnn.jit(lambda node, x: node, static_argnums=1)(Node(), x)


def test_a_module_hidden_in_an_unhashable_static_object_is_an_error():
    with raises(
        errors.StructureError,
        "x: A static value of type UserDict is not hashable, so liftnn copies it, but it holds a Node, whose copy "
        "would not see later changes.\n"
        "Make it hashable, a Module or a dataclass, or store the Node in a list, a dict or an attribute of a Module.",
    ):
        liftnn.split(Node(x=collections.UserDict(m=Node())))


class Named:
    """Unhashable, and compared by name alone."""

    def __init__(self, held):
        self.held = held

    def __eq__(self, other):
        return isinstance(other, Named)


@pytest.mark.parametrize("hide", [Named, lambda x: Named([x]), lambda x: weakref.WeakSet([x])])
@pytest.mark.parametrize("transform", [liftnn.jit, liftnn.remat])
def test_it_is_an_error_in_a_call_if_its_copy_compares_equal(hide, transform):
    """Else each attempt of the call would meet another copy."""
    held = Node()
    with pytest.raises(
        errors.StructureError, match="but it holds a Node, whose copy would not see later changes"
    ):
        transform(lambda node, x: x)(Node(x=hide(held)), 1.0)
    with pytest.raises(
        errors.StructureError, match="but it holds a Node, whose copy would not see later changes"
    ):
        liftnn.remat(lambda x, y: y)(hide(held), 1.0)


def test_a_cycle_of_frozen_objects_alone_is_an_error():
    frozen = Frozen(1)
    object.__setattr__(frozen, "b", (frozen,))
    with raises(
        errors.StructureError,
        "a.b: A tuple is part of a cycle of immutable objects, which a transform cannot rebuild.\n"
        "Put a list, a dict or a Module into the cycle.",
    ):
        liftnn.split(Node(a=frozen))
