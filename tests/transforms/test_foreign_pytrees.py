"""Pytrees of other libraries go through every transform as through JAX: rebuilt with real leaves, never with others.

Classes register pytrees that check their leaves, or whose static part depends on them, cannot be compared, or is made
anew each time. Bare JAX is the oracle; where it takes no modules, the eager call.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib
import random
from typing import Any, NamedTuple

import equinox
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

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


class Bare:
    """The functions of JAX as those of liftnn are called."""

    jit, grad, value_and_grad, vmap = jax.jit, jax.grad, jax.value_and_grad, jax.vmap
    jvp, vjp, linearize, jacfwd, jacrev, hessian = (
        jax.jvp,
        jax.vjp,
        jax.linearize,
        jax.jacfwd,
        jax.jacrev,
        jax.hessian,
    )
    remat, eval_shape, make_jaxpr, shard_map, pmap = (
        jax.checkpoint,
        jax.eval_shape,
        jax.make_jaxpr,
        jax.shard_map,
        jax.pmap,
    )
    while_loop, fori_loop, cond, switch, map = (
        jax.lax.while_loop,
        jax.lax.fori_loop,
        jax.lax.cond,
        jax.lax.switch,
        jax.lax.map,
    )
    associative_scan, custom_vjp, custom_jvp = jax.lax.associative_scan, jax.custom_vjp, jax.custom_jvp

    @staticmethod
    def scan(f):
        return lambda carry, xs: jax.lax.scan(f, carry, xs)

    @staticmethod
    def checkify(f):
        return importlib.import_module("jax.experimental.checkify").checkify(f)

    @staticmethod
    def export(f):
        return importlib.import_module("jax.export").export(f)


def spec(*axes):
    return PartitionSpec(*axes)


def custom_vjp(n, make, x):
    @n.custom_vjp
    def f(t):
        return make(t.x**2)

    f.defvjp(lambda t: (make(t.x**2), t), lambda t, g: (make(3 * t.x * g.x),))
    return n.grad(lambda t: f(t).x.sum())(make(x))


def custom_jvp(n, make, x):
    @n.custom_jvp
    def f(t):
        return make(t.x**2)

    f.defjvp(lambda p, t: (make(p[0].x ** 2), make(3 * p[0].x * t[0].x)))
    return n.jvp(f, (make(x),), (make(x),))


CELLS = {
    "jit, argument": lambda n, make, x: n.jit(lambda t: t.x.sum())(make(x)),
    "jit, keyword": lambda n, make, x: n.jit(lambda *, t: t.x.sum())(t=make(x)),
    "jit, output": lambda n, make, x: n.jit(lambda x: (make(2 * x), x))(x),
    "jit, twice": lambda n, make, x: (lambda f: (f(make(x)), f(make(x + 1)), f(make(x[0]))))(
        n.jit(lambda t: make(t.x * 2))
    ),
    "jit, one object": lambda n, make, x: (lambda f, t: (f(t), f(t), f(t)))(
        n.jit(lambda t: t.x * 2), make(x)
    ),
    "jit, outputs": lambda n, make, x: (lambda f: (f(x), f(x), f(x[0])))(n.jit(lambda x: make(x * 2))),
    "jit, in a tree": lambda n, make, x: n.jit(lambda d: [d["a"][0], d["b"]])({"a": (make(x),), "b": x}),
    "jit, donated": lambda n, make, x: n.jit(lambda t: make(t.x * 2), donate_argnums=0)(make(x + 0)),
    "jit, shardings": lambda n, make, x: n.jit(
        lambda t, x: make(t.x * x),
        in_shardings=(jax.NamedSharding(MESH, spec()), None),
        out_shardings=jax.NamedSharding(MESH, spec()),
    )(make(x), x),
    "jit, closure": lambda n, make, x: (lambda t: n.jit(lambda x: t.x * x)(x))(make(x)),
    "grad": lambda n, make, x: n.grad(lambda t: (t.x**2).sum())(make(x)),
    "grad, two": lambda n, make, x: n.grad(lambda t, y: (t.x * y).sum(), argnums=(0, 1))(make(x), x),
    "value_and_grad, aux": lambda n, make, x: n.value_and_grad(
        lambda x, t: ((t.x * x).sum(), make(x)), has_aux=True
    )(x, make(x)),
    "vmap": lambda n, make, x: n.vmap(lambda t: make(t.x.sum()))(make(x)),
    "vmap, axes": lambda n, make, x: n.vmap(
        lambda t, y: (make(t.x * 2), y), in_axes=(1, None), out_axes=(1, None)
    )(make(x), x[0]),
    "vmap, twice": lambda n, make, x: (lambda f: (f(make(x)), f(make(x))))(n.vmap(lambda t: make(t.x * 2))),
    "vmap, output": lambda n, make, x: n.vmap(lambda x: {"a": make(x * 2)}, out_axes={"a": 0})(x),
    "vmap, of vmap": lambda n, make, x: n.vmap(n.vmap(lambda t: make(t.x * 2)))(make(x)),
    "scan, carry": lambda n, make, x: n.scan(lambda c, x: (make(c.x + x), c.x))(make(x[0]), x),
    "scan, slices": lambda n, make, x: n.scan(lambda c, t: (c + t.x, make(t.x * 2)))(x[0], make(x)),
    "scan, both": lambda n, make, x: n.scan(lambda c, t: (make(c.x + t.x), t))(make(x[0]), make(x)),
    "scan, closure": lambda n, make, x: (lambda t: n.scan(lambda c, x: (c + t.x[0] * x, None))(x[0], x))(
        make(x)
    ),
    "while_loop": lambda n, make, x: n.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, make(c[1].x * 2)), (0, make(x))
    ),
    "fori_loop": lambda n, make, x: n.fori_loop(0, 3, lambda i, t: make(t.x + i), make(x)),
    "cond": lambda n, make, x: n.cond(True, lambda t: make(t.x * 2), lambda t: t, make(x)),
    "cond, traced": lambda n, make, x: n.jit(
        lambda x: n.cond(x.sum() > 0, lambda t: make(t.x * 2).x, lambda t: t.x, make(x))
    )(x),
    "switch": lambda n, make, x: n.switch(1, [lambda t: t, lambda t: make(t.x * 2)], make(x)),
    "map": lambda n, make, x: n.map(lambda t: make(t.x.sum()), make(x)),
    "map, batches": lambda n, make, x: n.map(lambda t: make(t.x.sum()), make(x), batch_size=2),
    "associative_scan": lambda n, make, x: n.associative_scan(lambda a, b: make(a.x + b.x), make(x)),
    "remat": lambda n, make, x: n.grad(lambda t: n.remat(lambda t: make(jnp.sin(t.x)))(t).x.sum())(make(x)),
    "jvp": lambda n, make, x: n.jvp(lambda t: make(t.x**2), (make(x),), (make(x),)),
    "vjp": lambda n, make, x: (lambda out, pull: (out, pull(make(x))))(
        *n.vjp(lambda t: make(t.x**2), make(x))
    ),
    "vjp, aux": lambda n, make, x: n.vjp(lambda t: (t.x, make(x)), make(x), has_aux=True)[2],
    "linearize": lambda n, make, x: (lambda out, push: (out, push(make(x))))(
        *n.linearize(lambda t: make(t.x**2), make(x))
    ),
    "jacfwd": lambda n, make, x: n.jacfwd(lambda t: t.x**2)(make(x)),
    "jacfwd, output": lambda n, make, x: n.jacfwd(lambda x: make(x**2))(x),
    "jacrev": lambda n, make, x: n.jacrev(lambda t: t.x**2)(make(x)),
    "jacrev, output": lambda n, make, x: n.jacrev(lambda x: make(x**2))(x),
    "jacrev, aux": lambda n, make, x: n.jacrev(lambda x: (x, make(x)), has_aux=True)(x),
    "hessian": lambda n, make, x: n.hessian(lambda x, t: (t.x * x**2).sum())(x, make(x)),
    "custom_vjp": custom_vjp,
    "custom_jvp": custom_jvp,
    "checkify": lambda n, make, x: n.checkify(lambda t: make(t.x * 2))(make(x))[1],
    "shard_map": lambda n, make, x: n.shard_map(
        lambda t, y: (make(t.x * 2), y),
        mesh=MESH,
        in_specs=(spec("i"), spec()),
        out_specs=(spec("i"), spec()),
    )(make(x), x),
    "pmap": lambda n, make, x: n.pmap(lambda t, y: make(t.x * y), in_axes=(0, None))(make(x[:1]), x),
    "eval_shape": lambda n, make, x: n.eval_shape(lambda t: make(t.x[0]), make(x)),
    "make_jaxpr": lambda n, make, x: n.make_jaxpr(lambda t: make(t.x[0]), return_shape=True)(make(x))[1],
    "export": lambda n, make, x: n.export(n.jit(lambda t: make(t.x * 2)))(make(x)).call(make(x)),
}


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


def by_jax(cell, make):
    """What JAX gives; where it refuses the pytree, so may liftnn."""
    try:
        return CELLS[cell](Bare, make, X)
    except Exception as error:
        return pytest.skip(f"JAX refuses it: {error!r:.60}")


@pytest.mark.parametrize("cell, tree", chosen(CELLS))
def test_a_transform_takes_a_pytree_as_jax_does(cell, tree):
    make = TREES[tree]
    expected = by_jax(cell, make)
    assert_same(CELLS[cell](liftnn, make, X), expected)


# --- in modules, and around them


class Holder(liftnn.Module):
    """A module with a pytree where a module can have one."""

    def __init__(self, make, x):
        self.w = liftnn.Param(x[0])
        self.attribute = make(x)
        self.items = [make(x)]
        self.value = liftnn.BatchStat(make(x))


def read(model, make, x):
    return make(model.w * x + model.attribute.x + model.items[0].x + model.value.value.x)


def write_value(model, make, x):
    model.value.value = make(model.value.value.x + 1)
    return read(model, make, x)


def write_attribute(model, make, x):
    model.attribute = make(model.attribute.x + 1)
    return read(model, make, x)


def return_module(model, make, x):
    return model, {"a": make(x)}, Holder(make, x)


EFFECTS = {f.__name__: f for f in (read, write_value, write_attribute, return_module)}


def _aux(f):
    return lambda model, x: ((model.w.value.sum() * x).sum(), f(model, x))


AROUND = {
    "jit": lambda f, m, x: liftnn.jit(f)(m, x),
    "jit, by name": lambda f, m, x: liftnn.jit(lambda *, m, x: f(m, x))(m=m, x=x),
    "grad": lambda f, m, x: liftnn.grad(_aux(f), has_aux=True)(m, x)[1],
    "vjp": lambda f, m, x: liftnn.vjp(_aux(f), m, x, has_aux=True)[2],
    "jvp": lambda f, m, x: liftnn.jvp(_aux(f), (m, x), ({"w": x[0]}, x), has_aux=True)[2],
    "cond": lambda f, m, x: liftnn.cond(True, f, f, m, x),
    "remat": lambda f, m, x: liftnn.remat(f)(m, x),
    "checkify": lambda f, m, x: liftnn.checkify(f)(m, x)[1],
}


COMPARED = {"jit": "jit, twice", "jit, by name": "jit, twice", "cond": "cond"}
"""Transforms in which JAX compares structures, with what it then must take."""


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("around, tree", chosen(AROUND))
def test_a_module_that_holds_a_pytree_acts_as_in_the_plain_call(around, tree, effect):
    make, f = TREES[tree], EFFECTS[effect]
    if around in COMPARED:
        by_jax(COMPARED[around], make)
    plain, model = Holder(make, X), Holder(make, X)
    for _ in range(2):
        expected = f(plain, make, X)
        out = AROUND[around](lambda m, x: f(m, make, x), model, X)
        assert_same(out, expected)
        assert_same(model, plain)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Plain:
    model: Any
    step: Any


class Train(equinox.Module):
    model: Any
    step: Any


class Pair(NamedTuple):
    model: Any
    step: Any


@flax.struct.dataclass
class State:
    model: Any
    step: Any


def count(t, x):
    t.model.w.value += 1
    return t.model.w * x + t.step


HOLDERS = {
    "jit": lambda f, t, x: liftnn.jit(f)(t, x),
    "jit, in a tree": lambda f, t, x: liftnn.jit(lambda d, x: f(d["a"], x))({"a": t}, x),
    "jit, returned": lambda f, t, x: liftnn.jit(lambda t, x: (f(t, x), t))(t, x)[0],
    "grad": lambda f, t, x: liftnn.grad(lambda t, x: (t.model.w.value.sum(), f(t, x)), has_aux=True)(t, x)[1],
    "vmap": lambda f, t, x: liftnn.vmap(f, in_axes=(None, 0))(t, x),
    "scan": lambda f, t, x: liftnn.scan(lambda c, x: (c, f(c, x)))(t, x[None])[1][0],
    "fori_loop": lambda f, t, x: liftnn.fori_loop(0, 1, lambda i, c: (c[0], f(c[0], x)), (t, x))[1],
    "cond": lambda f, t, x: liftnn.cond(True, f, f, t, x),
    "remat": lambda f, t, x: liftnn.remat(f)(t, x),
}


@pytest.mark.parametrize("around", HOLDERS)
@pytest.mark.parametrize("cls", [Plain, Train, Pair, State])
def test_a_pytree_that_holds_a_module_acts_as_in_the_plain_call(around, cls):
    plain, model = Holder(Checked, X), Holder(Checked, X)
    t = cls(model, jnp.array(0.5))
    expected = count(cls(plain, jnp.array(0.5)), X)
    assert_same(HOLDERS[around](count, t, X), expected)
    assert t.model is model
    assert_same(model.w.value, plain.w.value)


@pytest.mark.parametrize("tree", USUAL)
def test_a_captured_module_that_holds_a_pytree_acts_as_in_the_plain_call(tree):
    make = TREES[tree]
    plain, model = Holder(make, X), Holder(make, X)
    expected = write_value(plain, make, X)
    assert_same(liftnn.jit(lambda x: write_value(model, make, x))(X), expected)
    assert_same(model, plain)


def test_a_returned_pytree_holds_the_module_that_was_given():
    t = Train(Holder(Checked, X), jnp.array(0))
    out = liftnn.jit(lambda t: Train(t.model, t.step + 1))(t)
    assert out.model is t.model
    assert int(out.step) == 1
