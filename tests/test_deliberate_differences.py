"""The deliberate differences from JAX on functions of arrays: the table in `docs/how_it_works.md`, row by row."""

from __future__ import annotations

import functools
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.array_programs import JAX, LIFTNN, MESH

X = jnp.arange(1.0, 5.0)
ROWS = jax.NamedSharding(MESH, jax.P("x"))


def weighted(x, y=2.0):
    return x * y


def with_tangent_none(of):
    f = of.custom_jvp(lambda x: x)
    f.defjvp(lambda primals, tangents: (primals[0], None))
    return of.jvp(f, (1.0,), (1.0,))[1]


def traced_nondiff(of):
    f = of.custom_vjp(lambda x, y: x * y, nondiff_argnums=(0,))
    f.defvjp(lambda x, y: (f(x, y), y), lambda x, saved, g: (g,))
    return of.jit(lambda x, y: f(x, y))(2.0, 3.0)


def method_with_rule(of):
    class Model:
        @functools.partial(of.custom_jvp, nondiff_argnums=(0,))
        def f(self, x):
            return x

    Model.f.defjvp(lambda self, primals, tangents: (primals[0], 7 * tangents[0]))
    return of.grad(Model().f)(1.0)


def static_method(of):
    class Model:
        f = of.jit(staticmethod(weighted))

    return Model.f(3.0)


class WithoutWeakReferences:
    __slots__ = ()

    def __call__(self, x):
        return x * 2


def keywords_of_shard_map(of):
    specs = {"in_specs": (jax.P("x"), jax.P()), "out_specs": jax.P("x")}
    return of.shard_map(weighted, mesh=MESH, **specs)(X, y=3.0)


ACCEPTED = {
    "a string as a result": (lambda of: of.jit(lambda x: "text")(X), "text"),
    "None as a tangent": (lambda of: of.jvp(lambda x: x * 2, (1.0,), (None,))[1], 0.0),
    "None as a tangent from a rule": (with_tangent_none, 0.0),
    "a keyword beside in_axes": (
        lambda of: of.vmap(weighted, in_axes=(0, None))(X, y=3.0),
        X * 3,
    ),
    "a keyword beside in_shardings": (lambda of: of.jit(lambda x: x, in_shardings=ROWS)(x=X), X),
    "a keyword beside in_specs": (keywords_of_shard_map, X * 3),
    "a string as an argument": (lambda of: of.eval_shape(lambda mode: mode, "train"), "train"),
    "a string in a carry": (lambda of: of.scan(lambda c, x: (c, x))("train", X)[0], "train"),
    "a string beside the operands": (lambda of: of.cond(True, lambda s: 1.0, lambda s: 2.0, "train"), 1.0),
    "a namespace of arrays": (lambda of: of.jit(lambda n: n.x * 2)(types.SimpleNamespace(x=X)), X * 2),
    "no argument to differentiate": (lambda of: of.grad(lambda x: x, argnums=())(1.0), ()),
    "a list for a tuple of primals": (lambda of: of.jvp(lambda x: x * 2, [1.0], (1.0,))[1], 2.0),
    "a traced array in nondiff_argnums": (traced_nondiff, 6.0),
    "a method with a rule": (method_with_rule, 7.0),
    "a static method": (static_method, 6.0),
    "a callable without weak references": (lambda of: of.jit(WithoutWeakReferences())(2.0), 4.0),
    "a static argument left to its default": (
        lambda of: of.remat(weighted, static_argnums=1)(3.0),
        6.0,
    ),
    "a static argument of pmap left to its default": (
        lambda of: of.pmap(weighted, static_broadcasted_argnums=1)(X[:1]),
        X[:1] * 2,
    ),
    "a list as in_axes of pmap": (lambda of: of.pmap(weighted, in_axes=[0, None])(X[:1], 3.0), X[:1] * 3),
    "a pmap with axis_size only": (
        lambda of: of.pmap(lambda x: x, in_axes=None, axis_size=1)(2.0),
        jnp.array([2.0]),
    ),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ACCEPTED)
def test_liftnn_accepts_what_jax_rejects(name):
    run, expected = ACCEPTED[name]
    with pytest.raises(
        (TypeError, ValueError, AttributeError, jax.errors.UnexpectedTracerError, AssertionError)
    ):
        run(JAX)
    jax.tree.map(np.testing.assert_array_equal, run(LIFTNN), expected)


def test_static_argnums_of_minus_one_is_the_last_parameter():
    def seen_by(of):
        seen = []
        of.jit(lambda x, y=2.0: seen.append(isinstance(x, jax.core.Tracer)), static_argnums=-1)(1.0)
        return seen

    assert seen_by(LIFTNN) == [True]
    assert seen_by(JAX) in ([False], [True])  # JAX 0.10 and 0.12


def test_a_position_to_donate_that_is_not_there_raises():
    assert jax.pmap(lambda x: x, donate_argnums=3)(X[:1]).tolist() == [1.0]
    with pytest.raises(liftnn.ArgumentError, match="donate_argnums"):
        liftnn.pmap(lambda x: x, donate_argnums=3)


def test_a_donated_buffer_is_a_runtime_error():
    def use_twice(of):
        f = of.jit(lambda x: x + 1, donate_argnums=0)
        x = jnp.ones(3)
        f(x)
        f(x)

    with pytest.raises((RuntimeError, ValueError)):
        use_twice(JAX)
    with pytest.raises(RuntimeError):
        use_twice(LIFTNN)


@pytest.mark.thorough
def test_many_retraces_warn():
    def warned(of):
        f = of.jit(lambda x: x * 2)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            for n in range(1, 8):
                f(jnp.ones(n))
        return [w.category for w in found]

    assert (warned(JAX), warned(LIFTNN)) == ([], [liftnn.RetraceWarning])


def test_checkify_keeps_the_name():
    assert JAX.checkify(weighted).__name__ == "checked_fun"
    assert LIFTNN.checkify(weighted).__name__ == "weighted"


def test_the_repr_names_the_transform():
    assert repr(LIFTNN.jit(weighted)) == "<liftnn.jit of weighted>"
    assert "liftnn" not in repr(JAX.jit(weighted))
