"""What a module cannot hold is refused by path, not lost."""

from __future__ import annotations

import collections
import types

import jax.numpy as jnp
import pytest
from tests.raising import raises
from tests.strategies import Frozen, Node, Point

import liftnn
from liftnn import errors


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
        f"x: A {cls.__qualname__} is a container with attributes of its own (note).\n"
        "Use a plain container, or a Module that holds one.",
    ):
        liftnn.split(Node(x=x))


@pytest.mark.parametrize(
    "holder", [lambda m: {m}, lambda m: frozenset([m]), lambda m: {(m, 1)}, lambda m: {frozenset([m])}]
)
@pytest.mark.parametrize("make", [Node, lambda: liftnn.Param(1.0)], ids=["module", "variable"])
def test_a_set_of_modules_or_variables_is_an_error(holder, make):
    with raises(
        errors.StructureError,
        "deep.x: A set holds modules or Variables, and a set has no order to number them by.\n"
        "Use a list or a dict.",
    ):
        liftnn.split(Node(deep=Node(x=holder(make()))))


def test_a_module_as_a_dict_key_is_an_error():
    with raises(
        errors.StructureError, "x[0]: A dict has a Node as a key.\nUse it as a value, under a string."
    ):
        liftnn.split(Node(x=[{Node(): 1}]))


def test_a_static_value_that_cannot_be_copied_is_an_error_with_its_path():
    with raises(
        errors.StructureError,
        "a[1].k: A static value of type mappingproxy is neither hashable nor can it be copied and compared "
        "(TypeError).\nMake it hashable, or keep it outside the module.",
    ):
        liftnn.split(Node(a=[0, {"k": types.MappingProxyType({})}]))


def test_a_module_hidden_in_an_unhashable_static_object_is_an_error():
    with raises(
        errors.StructureError,
        "x: A static value of type UserDict is unhashable, and a copy of it does not compare equal to it, so it would "
        "look changed at every call.\n"
        "Make it hashable, or give it an __eq__ that compares content; a module in it belongs into a list, a dict or "
        "an attribute.",
    ):
        liftnn.split(Node(x=collections.UserDict(m=Node())))


def test_a_cycle_of_frozen_objects_alone_is_an_error():
    frozen = Frozen(1)
    object.__setattr__(frozen, "b", (frozen,))
    with raises(
        errors.StructureError,
        "a.b: A tuple and what it holds form a cycle in which nothing can be changed, so it cannot be built again.\n"
        "Put a list, a dict or a Module into the cycle.",
    ):
        liftnn.split(Node(a=frozen))
