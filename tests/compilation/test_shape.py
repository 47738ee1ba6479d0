"""`eval_shape` tells what `jax.eval_shape` tells, and does nothing to its arguments."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.same import assert_same
from tests.user_modules import Affine, Holder, Pair, step

A = jnp.ones((2, 3), jnp.bfloat16)
SHAPE = jax.ShapeDtypeStruct((4, 3), jnp.float32)

CASES = {
    "arrays": (lambda x, y: {"a": x @ y.T, "b": [x.sum()]}, (A, A), {}),
    "shapes": (lambda x: jnp.tanh(x) * 2, (SHAPE,), {}),
    "numbers": (lambda x, y: (x + y, x * 1j), (2, 3.0), {}),
    "keywords": (lambda x, *, k: x * k, (A,), {"k": 2.0}),
    "no arguments": (lambda: jnp.zeros((2, 2)), (), {}),
    "none": (lambda x: None, (A,), {}),
    "keys": (lambda k: jax.random.split(k, 3), (jax.random.key(0),), {}),
    "partial": (functools.partial(lambda x, y: x * y, 2.0), (A,), {}),
    "jitted": (liftnn.jit(lambda x: x * 2), (A,), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_arrays_have_the_shapes_that_jax_tells(name):
    function, args, kwargs = CASES[name]
    theirs = jax.eval_shape(function if name != "jitted" else lambda x: x * 2, *args, **kwargs)
    assert liftnn.eval_shape(function, *args, **kwargs) == theirs


def test_a_module_can_be_described_without_being_made():
    model = liftnn.eval_shape(lambda: Pair())
    assert model.second.w is model.first.w
    assert model.first.mode == "train"
    leaves = jax.tree.leaves(liftnn.state(model))
    assert [(x.shape, x.dtype) for x in leaves] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(liftnn.state(Pair()))
    ]
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)


def test_a_described_module_can_be_an_argument():
    model = liftnn.eval_shape(Affine)
    assert liftnn.eval_shape(step, model, SHAPE) == SHAPE
    assert liftnn.eval_shape(model.loss, SHAPE) == jax.ShapeDtypeStruct((), jnp.float32)


def test_the_arguments_are_left_as_they_are():
    def change(model, x):
        model.w.value = jnp.zeros((5, x.shape[0]))
        model.new, model.mode = Holder(v=liftnn.Param(x)), "eval"
        del model.b
        return model

    model = Affine()
    kept = dict(vars(model))
    out = liftnn.eval_shape(change, model, jnp.ones(2))
    assert vars(model) == kept
    assert_same(model, Affine())
    assert (out.w.shape, out.new.v.shape, out.mode, hasattr(out, "b")) == ((5, 2), (2,), "eval", False)


def test_a_returned_argument_is_a_copy_with_shapes_only():
    model = Pair()
    model.array = jnp.ones(2)
    out, first, w = liftnn.eval_shape(lambda m: (m, m.first, m.second.w), model)
    assert out is not model
    assert first is out.first
    assert w is out.first.w is out.second.w
    leaves = [*jax.tree.leaves(liftnn.state(out)), out.array]
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)


@pytest.mark.parametrize("value", [None, "text", ("text", None), {"a": None}], ids=str)
def test_values_that_are_no_arrays_are_as_they_are(value):
    model = Holder(v=liftnn.Variable(value), w=liftnn.Param(jnp.ones(2)))
    for out in (liftnn.eval_shape(lambda m: m, model), liftnn.jit(lambda m: m).trace(model).out_info):
        assert_same(out.v.value, value)


def test_bound_methods_and_instances():
    model = Affine()
    assert liftnn.eval_shape(model, A) == jax.ShapeDtypeStruct((2, 3), jnp.float32)
    assert liftnn.eval_shape(model.loss, 1.0) == jax.ShapeDtypeStruct((), jnp.float32)
    assert_same(model, Affine())


def test_static_leaves_are_values():
    assert liftnn.eval_shape(lambda name, x: (name, x * len(name)), "abc", 1.0)[0] == "abc"


def test_inside_another_transform_the_outer_module_is_untouched():
    def f(model):
        shape = liftnn.eval_shape(lambda m: m(jnp.ones((7, 3))), model).shape
        return jnp.zeros(shape), model.calls.value

    out, calls = liftnn.jit(f)(Affine())
    assert (out.shape, int(calls)) == ((7, 3), 0)


def test_the_functions_error_comes_out():
    def fails(model):
        model.w.value = model.w * 2
        raise KeyError("my own")

    model = Affine()
    with pytest.raises(KeyError, match="my own"):
        liftnn.eval_shape(fails, model)
    assert_same(model, Affine())


MESH = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
SHARDED = jax.sharding.NamedSharding(MESH, jax.P("x"))


def test_a_compiled_function_keeps_its_shardings_and_static_arguments_as_in_jax():
    def f(x, n, *, mode="a"):
        return (x * n, x) if mode == "a" else (x, x)

    options = {"out_shardings": (SHARDED, None), "static_argnums": 1, "static_argnames": ("n", "mode")}
    expected = jax.eval_shape(jax.jit(f, **options), jnp.ones(4), 2, mode="b")
    for jit in (jax.jit, liftnn.jit):
        out = liftnn.eval_shape(jit(f, **options), jnp.ones(4), 2, mode="b")
        assert out == expected
        assert [x.sharding for x in out] == [x.sharding for x in expected]


def test_a_compiled_function_of_modules_keeps_its_shardings():
    def f(model, x):
        model.w.value = model.w + x
        return model.w.value

    model = Affine(1.0, size=4)
    expected = jax.eval_shape(jax.jit(lambda w, x: w + x, out_shardings=SHARDED), model.w.value, jnp.ones(4))
    out = liftnn.eval_shape(liftnn.jit(f, out_shardings=SHARDED), model, jnp.ones(4))
    assert (out, out.sharding) == (expected, expected.sharding)
    assert model.w.value.tolist() == [1.0] * 4


def test_the_trace_of_a_compiled_function_serves_its_calls_as_in_jax():
    counts = []
    for of in (jax, liftnn):
        traces = []
        f = of.jit(lambda x, traces=traces: traces.append(x) or x * 2)
        of.eval_shape(f, jnp.ones(3))
        f(jnp.ones(3))
        counts.append(len(traces))
    assert counts == [1, 1]
