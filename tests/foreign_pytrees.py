"""Classes that register pytrees as other libraries do, and what it is for two values to be the same."""

from __future__ import annotations

import collections
import dataclasses
import random
from typing import Any

import equinox
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn

X = jnp.arange(12.0).reshape(3, 4) / 10
MESH = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))


def is_real(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Checked:
    """Checks its leaf whenever it is rebuilt."""

    x: Any

    def __post_init__(self):
        assert is_real(self.x)


@jax.tree_util.register_pytree_node_class
class Distribution:
    """As in distrax: what is an array is a child, the rest is static."""

    def __init__(self, x, name="normal"):
        self.x, self.name = x, name

    def tree_flatten(self):
        leaves, tree = jax.tree.flatten(vars(self))
        is_data = [is_real(x) for x in leaves]
        rest = [None if d else x for x, d in zip(leaves, is_data, strict=True)]
        data = [x if d else None for x, d in zip(leaves, is_data, strict=True)]
        return data, (rest, is_data, tree)

    @classmethod
    def tree_unflatten(cls, aux, children):
        rest, is_data, tree = aux
        self = object.__new__(cls)
        leaves = [c if d else r for c, r, d in zip(children, rest, is_data, strict=True)]
        vars(self).update(jax.tree.unflatten(tree, leaves))
        return self


class Unequal:
    """Raises when it is compared."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        raise TypeError("cannot be compared")


def with_aux(name, given, fresh=None):
    """A class whose static part is a given object, or made anew each time that an instance is flattened."""

    def init(self, x):
        assert is_real(x)
        self.x = x

    cls = type(name, (), {"__init__": init})
    flatten = lambda self: ((self.x,), given if fresh is None else fresh())  # noqa: E731
    jax.tree_util.register_pytree_node(cls, flatten, lambda aux, children: cls(*children))
    return cls


class Point(collections.namedtuple("Point", ["x", "n"])):
    """A NamedTuple that checks what it is made of."""

    __slots__ = ()

    def __new__(cls, x, n=None):
        n = jnp.ones(jnp.shape(x), x.dtype) if n is None else n
        assert is_real(x)
        assert is_real(n)
        return super().__new__(cls, x, n)


class Eqx(equinox.Module):
    x: jax.Array
    name: str = equinox.field(static=True, default="a")

    def __check_init__(self):
        assert is_real(self.x)


@flax.struct.dataclass
class Struct:
    x: Any
    name: str = flax.struct.field(pytree_node=False, default="a")

    def __post_init__(self):
        assert is_real(self.x)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Nested:
    """Holds others in a container, and one leaf of its own."""

    x: Any
    others: Any = None

    def __post_init__(self):
        self.others = (
            {"a": [Checked(self.x)], "b": Distribution(self.x)} if self.others is None else self.others
        )
        assert is_real(self.x)
        assert isinstance(self.others["b"], Distribution)


TREES = {
    "checked dataclass": Checked,
    "distribution": Distribution,
    "numpy": with_aux("Numpy", np.arange(3)),
    "fresh numpy": with_aux("FreshNumpy", None, lambda: np.arange(3)),
    "nan": with_aux("Nan", float("nan")),
    "fresh nan": with_aux("FreshNan", None, lambda: float("nan")),
    "raises": with_aux("Raises", Unequal()),
    "fresh raises": with_aux("FreshRaises", None, Unequal),
    "identity": with_aux("Identity", object()),
    "fresh identity": with_aux("FreshIdentity", None, object),
    "namedtuple": Point,
    "equinox": Eqx,
    "flax.struct": Struct,
    "nested": Nested,
}
USUAL = ["checked dataclass", "distribution", "fresh numpy", "namedtuple"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Plain:
    model: Any
    step: Any


def assert_same(a: Any, b: Any) -> None:
    """Two values of the same classes, with equal arrays."""
    if isinstance(b, jax.ShapeDtypeStruct):
        assert (type(a), a.shape, a.dtype) == (type(b), b.shape, b.dtype)
    elif isinstance(b, (jax.Array, np.ndarray)):
        assert isinstance(a, jax.Array)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6)
    else:
        assert type(a) is type(b)
        one, other = children_of(a), children_of(b)
        assert list(one) == list(other)
        if "" in one:
            assert a == b
        else:
            for path, x in one.items():
                assert_same(x, other[path])


def children_of(x: Any) -> dict[str, Any]:
    """The children of a value by path; the value itself if it has none."""
    if isinstance(x, liftnn.Variable):
        return {".value": x.raw_value}
    x = vars(x) if isinstance(x, liftnn.Module) else x
    return {
        jax.tree_util.keystr(path): child
        for path, child in jax.tree_util.tree_flatten_with_path(x, is_leaf=lambda y: y is not x)[0]
    }


def chosen(cells, trees=USUAL):
    """All trees for all cells if the run is thorough, else one of the usual trees and one more."""
    other, table = random.Random(0), []
    for i, cell in enumerate(cells):
        quick = {trees[i % len(trees)], other.choice(list(TREES))}
        table += [pytest.param(cell, t, marks=[] if t in quick else pytest.mark.thorough) for t in TREES]
    return table
