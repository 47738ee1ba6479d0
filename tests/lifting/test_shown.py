"""JAX's messages of a traced value name the user's function, its line and the path of the argument."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import pytest

import liftnn


class Scale(liftnn.Module):
    def __init__(self):
        self.w = liftnn.Param(jnp.ones(3))

    def branch(self, x):
        return x if self.w.sum() > 0 else 2 * x


def branch(model, x):
    return x if model.w.sum() > 0 else 2 * x


def branch_on_element(x):
    return x if x > 0 else -x


def with_rule(define):
    f = define(branch)
    if define is liftnn.custom_jvp:
        f.defjvp(lambda primals, tangents: (f(*primals), tangents[1]))
    else:
        f.defvjp(lambda model, x: (f(model, x), None), lambda _, g: (g, g))
    return f


X = jnp.ones(3)
MESH = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
SPECS = {"mesh": MESH, "in_specs": (jax.P(), jax.P("x")), "out_specs": jax.P("x")}
JIT = liftnn.jit
CALLS = {
    "jit": lambda f, model: JIT(f)(model, X),
    "remat": lambda f, model: liftnn.remat(f)(model, X),
    "remat in jit": lambda f, model: JIT(liftnn.remat(f))(model, X),
    "eval_shape": lambda f, model: liftnn.eval_shape(f, model, X),
    "make_jaxpr": lambda f, model: liftnn.make_jaxpr(f)(model, X),
    "checkify": lambda f, model: liftnn.checkify(f)(model, X),
    "trace_once": lambda f, model: JIT(lambda model: liftnn.trace_once(f)(model, X))(model),
    "shard_map": lambda f, model: JIT(liftnn.shard_map(f, **SPECS))(model, X),
    "pmap": lambda f, model: liftnn.pmap(f, in_axes=(None, 0))(model, X[None]),
    "scan": lambda f, model: liftnn.scan(f, in_axes=(None, 0), out_axes=0)(model, X),
    "repeat": lambda f, model: liftnn.repeat(f, 3)(model, X),
    "custom_jvp": lambda f, model: JIT(with_rule(liftnn.custom_jvp))(model, X),
}
UNNAMED = {"checkify"}
"""JAX traces these functions with values of an outer trace, and does not say which argument a value depends on."""


def message_of(call, f, model):
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        call(f, model)
    return str(caught.value)


@pytest.mark.parametrize("name", CALLS)
def test_the_message_of_a_branch_on_a_value_names_the_function_and_the_attribute(name):
    text = message_of(CALLS[name], branch, Scale())
    line = branch.__code__.co_firstlineno
    assert f"while tracing the function branch at {__file__}:{line} for " in text
    assert "liftnn_" not in text
    assert "_src" not in text
    if name not in UNNAMED:
        assert re.search(r"depends on the value of the argument args\[0\]\.w\.", text)


@pytest.mark.parametrize("name", ["custom_vjp"])
def test_the_message_of_a_function_with_a_backward_rule_names_the_function(name):
    model = Scale()
    text = message_of(lambda f, model: JIT(with_rule(liftnn.custom_vjp))(model, X), branch, model)
    assert f"the function branch at {__file__}:{branch.__code__.co_firstlineno} for " in text


@pytest.mark.parametrize(
    "transform", [JIT, liftnn.remat, liftnn.make_jaxpr], ids=["jit", "remat", "make_jaxpr"]
)
def test_the_message_names_a_captured_module_a_method_and_the_function_in_a_partial(transform):
    model, line = Scale(), Scale.branch.__code__.co_firstlineno
    text = message_of(lambda f, model: transform(model.branch)(X), None, model)
    assert f"the function branch at {__file__}:{line} for " in text
    assert "argument args[0].w." in text
    text = message_of(lambda f, model: transform(functools.partial(branch, x=X))(model), None, model)
    assert f"the function branch at {__file__}:{branch.__code__.co_firstlineno} for " in text

    def captures(x):
        return x if model.w.sum() > 0 else 2 * x

    text = message_of(lambda f, _: transform(captures)(X), None, model)
    assert f"captures at {__file__}:{captures.__code__.co_firstlineno} for " in text
    assert "argument model.w." in text


def test_the_message_of_a_branch_on_an_element_of_a_map_names_the_function():
    model = Scale()

    def f(x):
        return branch_on_element(x) * model.w

    text = message_of(lambda f, _: liftnn.map(f, X), f, model)
    assert f"the function f at {__file__}:{f.__code__.co_firstlineno} for " in text
    assert "argument args[0]." in text
