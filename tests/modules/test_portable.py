"""Layers with closures and wrapped functions as attributes pickle, and come back equal."""

from __future__ import annotations

import copy
import pickle

import cloudpickle
import jax
import jax.numpy as jnp
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
