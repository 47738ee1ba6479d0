"""Sequential holds its functions in a List, as in Flax NNX, and is one of liftnn's Sequentials otherwise."""

import copy
import pickle

import flax.nnx
import jax.numpy as jnp
import numpy as np
import pytest
from tests.compat.oracle import assert_equal_in_both

import liftnn
from liftnn.compat import nnx

START = """
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(2, 3, rngs=rngs), nnx.relu, nnx.Dropout(0.5), nnx.Linear(3, 1, rngs=rngs))
    """
TEXTS = {
    "modules": """
    result = [(path, type(x).__name__) for path, x in nnx.iter_modules(model)]
    """,
    "children": """
    result = [(key, type(x).__name__) for key, x in nnx.iter_children(model)]
    """,
    "the class": """
    result = [isinstance(model.layers, nnx.List), len(model.layers), [type(x).__name__ for x in model.layers]]
    """,
    "surgery": """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.List):
            for position, layer in enumerate(module):
                if isinstance(layer, nnx.Linear):
                    module[position] = nnx.LoRA(
                        layer.in_features, 2, layer.out_features, base_module=layer, rngs=rngs
                    )
    model.eval()
    result = [nnx.state(model), model(jnp.ones((4, 2))), type(model.layers[3]).__name__]
    """,
    "appended": """
    model.layers.append(nnx.Linear(1, 2, rngs=rngs))
    model.eval()
    result = [len(model.layers), nnx.jit(lambda model, x: model(x))(model, jnp.ones((4, 2)))]
    """,
    "merged": """
    again = nnx.merge(*nnx.split(model))
    result = [nnx.state(again), isinstance(again.layers, nnx.List), again.layers[1] is nnx.relu]
    """,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_it_acts_as_in_flax(text):
    assert_equal_in_both(START + text)


def make(library=nnx):
    rngs = library.Rngs(0)
    return library.Sequential(library.Linear(2, 3, rngs=rngs), library.relu, library.Linear(3, 1, rngs=rngs))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), nnx.clone])
def test_a_copy_computes_the_same(duplicate):
    model, x = make(), jnp.ones((4, 2))
    copied = duplicate(model)
    assert type(copied) is nnx.Sequential
    assert copied.layers[0] is not model.layers[0]
    np.testing.assert_array_equal(copied(x), model(x))


def test_it_is_one_of_liftnns_with_entries_and_slices():
    model = make()
    assert isinstance(model, liftnn.Sequential)
    assert model[0] is model.layers[0]
    assert type(model[:2]) is nnx.Sequential
    model[1] = nnx.tanh
    del model[0]
    assert list(model) == [nnx.tanh, model.layers[1]]
    with pytest.raises(liftnn.ArgumentError, match="not a function or module"):
        nnx.Sequential(nnx.relu, 3)


def test_weights_of_flax_and_of_torch_have_the_names_of_liftnns_sequential():
    model, other, x = make(), make(flax.nnx), jnp.ones((4, 2))
    other.layers[0].kernel[...] *= 2
    liftnn.from_flax(model, flax.nnx.state(other))
    np.testing.assert_array_equal(model(x), other(x))
    assert list(liftnn.to_torch(model)) == list(liftnn.to_torch(make(liftnn)))


def test_keyword_arguments_that_no_function_has_are_ignored():
    """As in Flax NNX 0.12.12: a layer that takes them may be left out."""
    model = nnx.Sequential(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), nnx.Sequential(nnx.relu))
    x = jnp.ones((2, 3))
    y = model(x, deterministic=True, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(y, model(x))
