"""Layers with closures and wrapped functions as attributes pickle, and come back equal."""

from __future__ import annotations

import copy
import functools
import multiprocessing
import pickle
import sys
import types

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.same import assert_same

import liftnn

FUNCTIONS = (jax.nn.relu, jax.nn.silu, jax.nn.gelu, jnp.tanh, jax.nn.softmax, jax.nn.initializers.zeros)
FACTORIES = (
    jax.nn.initializers.lecun_normal,
    jax.nn.initializers.he_uniform,
    jax.nn.initializers.orthogonal,
    lambda: jax.nn.initializers.truncated_normal(stddev=0.5),
    lambda: jax.nn.initializers.constant(3.0),
)


def through_pickle(x):
    return pickle.loads(pickle.dumps(x))


def through_cloudpickle(x):
    return cloudpickle.loads(cloudpickle.dumps(x))


@pytest.mark.parametrize("copied", [through_pickle, through_cloudpickle, copy.deepcopy])
def test_a_network_of_default_layers_comes_back_equal(copied):
    rngs = liftnn.Rngs(0)
    layers = [liftnn.Linear(2, 3, rngs=rngs), liftnn.relu, liftnn.BatchNorm(3, rngs=rngs), jnp.tanh]
    model = liftnn.Sequential(*layers, liftnn.Dropout(0.5, rngs=rngs), liftnn.Embed(3, 4, rngs=rngs))
    assert_same(copied(model), model)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_function_of_jax_is_pickled_by_its_public_name(function):
    model = liftnn.Module()
    model.activations = [function]
    data = pickle.dumps(model)
    assert pickle.loads(data).activations[0] is function


@pytest.mark.parametrize("factory", FACTORIES)
def test_what_a_factory_made_is_made_again(factory):
    model = liftnn.Module()
    model.init = factory()
    again = through_pickle(model)
    key = jax.random.key(0)
    assert (again.init(key, (4, 4), jnp.float32) == model.init(key, (4, 4), jnp.float32)).all()
    assert_same(again, model)


def test_deepcopy_keeps_the_functions_themselves():
    model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    assert copy.deepcopy(model).kernel_init is model.kernel_init


def test_a_graphdef_with_functions_pickles():
    _, graphdef = liftnn.split(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
    assert through_pickle(graphdef) == graphdef


def test_a_closure_that_no_factory_makes_is_refused_by_pickle():
    model, number = liftnn.Module(), 3
    model.function = lambda x: x + number
    with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):
        pickle.dumps(model)


# --- functions that a decorator has transformed


def transformed_by_name():
    """Functions that decorators of liftnn and of JAX have transformed, found in this module by name."""
    return {
        "vmap": in_vmap,
        "jit": in_jit,
        "grad with options": in_grad,
        "jit over vmap": in_both,
        "custom_vjp": in_custom_vjp,
        "a method": Layer.scaled,
        "jax.jit": in_jit_of_jax,
        "jax.custom_jvp": in_custom_jvp,
    }


@liftnn.vmap
def in_vmap(x):
    return x * 2


@liftnn.jit
def in_jit(x):
    return x * 2


@functools.partial(liftnn.grad, argnums=1)
def in_grad(a, b):
    return a * b


@liftnn.jit
@liftnn.vmap
def in_both(x):
    return x * 2


@liftnn.custom_vjp
def in_custom_vjp(x):
    return x * 2


@jax.jit
def in_jit_of_jax(x):
    return x * 2


@jax.custom_jvp
def in_custom_jvp(x):
    return x * 2


class Layer(liftnn.Module):
    def __init__(self, function=None):
        self.w = liftnn.Param(jnp.ones(3))
        self.function = function

    @liftnn.jit
    def scaled(self, x):
        return x * self.w


@pytest.mark.parametrize("kind", transformed_by_name())
@pytest.mark.parametrize("copied", [through_pickle, through_cloudpickle])
def test_a_transformed_function_of_a_module_is_pickled_by_its_name(copied, kind):
    function = transformed_by_name()[kind]
    assert copied(function) is function
    assert copied(Layer(function)).function is function
    assert copied(functools.partial(function, 1.0)).func is function


def test_transformed_functions_can_be_sent_to_other_processes():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(in_vmap, [np.arange(3.0)])[0].tolist() == [0.0, 2.0, 4.0]


def test_a_function_of_another_name_is_pickled_as_its_transform():
    renamed = liftnn.vmap(plain)
    again = through_pickle(renamed)
    assert again.__wrapped__ is plain
    assert again(jnp.arange(3.0)).tolist() == [0.0, 2.0, 4.0]


def plain(x):
    return x * 2


def test_cloudpickle_takes_transformed_functions_of_a_module_along_if_it_is_registered(monkeypatch):
    module = types.ModuleType("taken_along")
    exec("import liftnn\n@liftnn.vmap\ndef double(x): return x * 2", vars(module))
    monkeypatch.setitem(sys.modules, "taken_along", module)
    cloudpickle.register_pickle_by_value(module)
    try:
        written = cloudpickle.dumps(module.double)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    monkeypatch.delitem(sys.modules, "taken_along")
    assert pickle.loads(written)(jnp.arange(3.0)).tolist() == [0.0, 2.0, 4.0]
