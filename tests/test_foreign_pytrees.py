"""Pytrees of other libraries go through every transform as through JAX: rebuilt with real leaves, never with others.

Classes register pytrees that check their leaves, or whose static part depends on them, cannot be compared, or is made
anew each time. Bare JAX is the oracle; where it takes no modules, the eager call.
"""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

import liftnn
from tests.foreign_pytrees import MESH, TREES, Plain, X, assert_same, chosen


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


def by_jax(cell, make):
    """What JAX gives; where it refuses the pytree, so may liftnn."""
    try:
        return CELLS[cell](Bare, make, X)
    except Exception as error:
        return pytest.skip(f"JAX refuses it: {error!r:.60}")


@pytest.mark.parametrize("cell, tree", chosen(CELLS))
@pytest.mark.sample(28)
def test_a_transform_takes_a_pytree_as_jax_does(cell, tree):
    make = TREES[tree]
    expected = by_jax(cell, make)
    assert_same(CELLS[cell](liftnn, make, X), expected)


def double(t):
    return Plain(t.model * 2, t.step)


PREFIXES = {
    "vmap": lambda n: n.vmap(double, in_axes=(Plain(0, None),), out_axes=Plain(1, None))(Plain(X, X[0])),
    "jit": lambda n: n.jit(
        double,
        in_shardings=(Plain(jax.NamedSharding(MESH, spec("i")), None),),
        out_shardings=Plain(jax.NamedSharding(MESH, spec()), None),
    )(Plain(X, X[0])),
    "shard_map": lambda n: n.shard_map(
        double, mesh=MESH, in_specs=(Plain(spec("i"), spec()),), out_specs=Plain(spec("i"), spec())
    )(Plain(X, X[0])),
    "pmap": lambda n: n.pmap(double, in_axes=(Plain(0, None),), out_axes=Plain(0, 0))(Plain(X[:1], X[0])),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_a_prefix_may_be_a_pytree_of_the_class(name):
    assert_same(PREFIXES[name](liftnn), PREFIXES[name](Bare))


def test_a_prefix_may_be_a_pytree_of_the_class_in_a_scan():
    axes = Plain(liftnn.Carry, 0)
    out = liftnn.scan(lambda t: Plain(t.model + t.step, t.step), in_axes=(axes,), out_axes=axes)(
        Plain(X[0], X)
    )
    assert_same(out, Plain(*jax.lax.scan(lambda c, x: (c + x, x), X[0], X)))
