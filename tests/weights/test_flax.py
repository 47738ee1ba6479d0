"""`from_flax`: liftnn's layers compute what Flax NNX's compute with the same State, bit for bit."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import Rule
from tests.raising import raises
from tests.user_modules import Holder


def numbers(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def recurrent(name):
    return lambda library, rngs: library.RNN(getattr(library, name)(3, 4, rngs=rngs), rngs=rngs)


LAYERS = {
    "Linear": (lambda library, rngs: library.Linear(4, 3, rngs=rngs), numbers(5, 4)),
    "LinearGeneral": (
        lambda library, rngs: library.LinearGeneral((3, 2), (4, 2), axis=(-2, -1), rngs=rngs),
        numbers(5, 3, 2),
    ),
    "Einsum": (lambda library, rngs: library.Einsum("ab,bc->ac", (4, 3), (3,), rngs=rngs), numbers(5, 4)),
    "Conv": (lambda library, rngs: library.Conv(4, 6, (3, 3), rngs=rngs), numbers(2, 5, 5, 4)),
    "ConvTranspose": (
        lambda library, rngs: library.ConvTranspose(4, 3, (3, 2), strides=(2, 1), rngs=rngs),
        numbers(2, 5, 5, 4),
    ),
    "BatchNorm": (
        lambda library, rngs: library.BatchNorm(4, use_running_average=True, rngs=rngs),
        numbers(5, 4),
    ),
    "LayerNorm": (lambda library, rngs: library.LayerNorm(4, rngs=rngs), numbers(5, 4)),
    "RMSNorm": (lambda library, rngs: library.RMSNorm(4, rngs=rngs), numbers(5, 4)),
    "GroupNorm": (lambda library, rngs: library.GroupNorm(4, num_groups=2, rngs=rngs), numbers(5, 4)),
    "InstanceNorm": (lambda library, rngs: library.InstanceNorm(4, rngs=rngs), numbers(2, 5, 4)),
    "Embed": (lambda library, rngs: library.Embed(7, 3, rngs=rngs), np.arange(6).reshape(2, 3)),
    "PReLU": (lambda library, rngs: library.PReLU(), numbers(5, 4)),
    "MultiHeadAttention": (
        lambda library, rngs: library.MultiHeadAttention(2, 8, decode=False, normalize_qk=True, rngs=rngs),
        numbers(2, 5, 8),
    ),
    "LSTMCell": (recurrent("LSTMCell"), numbers(2, 5, 3)),
    "OptimizedLSTMCell": (recurrent("OptimizedLSTMCell"), numbers(2, 5, 3)),
    "GRUCell": (recurrent("GRUCell"), numbers(2, 5, 3)),
    "SimpleCell": (recurrent("SimpleCell"), numbers(2, 5, 3)),
    "Sequential": (
        lambda library, rngs: library.Sequential(
            *(library.Linear(4, 4, rngs=rngs) for _ in range(11)), library.relu
        ),
        numbers(5, 4),
    ),
    "WeightNorm": (  # in Flax 0.12.8 its scales are arrays outside of Variables
        lambda library, rngs: library.WeightNorm(library.Linear(4, 3, rngs=rngs), rngs=rngs),
        numbers(5, 4),
    ),
    "LoRA": (lambda library, rngs: library.LoRA(4, 2, 3, rngs=rngs), numbers(5, 4)),
}


def make(library, name, seed):
    """A layer with random numbers in all weights."""
    layer = LAYERS[name][0](library, library.Rngs(seed))
    random = np.random.default_rng(seed)
    for _, x in library.iter_graph(layer):
        if isinstance(x, library.Param | library.BatchStat):
            x[...] = jnp.asarray(random.uniform(0.5, 1.5, size=x[...].shape), x[...].dtype)
    if name == "WeightNorm" and not isinstance(layer.scales["kernel",], library.Param):
        layer.scales["kernel",] = jnp.asarray(random.uniform(0.5, 1.5, size=3), jnp.float32)
    return layer


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.sample(20)
def test_a_layer_computes_what_that_of_flax_computes(name):
    theirs, ours = make(nnx, name, 1), make(liftnn, name, 2)
    assert not liftnn.from_flax(ours, nnx.state(theirs))
    x = jnp.asarray(LAYERS[name][1])
    np.testing.assert_array_equal(ours(x), theirs(x))


class Net:
    """Layers, a list past ten, a shared layer, and Variables that are not weights."""

    def __init__(self, library, rngs):
        self.first = library.Linear(2, 3, rngs=rngs)
        self.norm = library.BatchNorm(3, rngs=rngs)
        self.dropout = library.Dropout(0.5, rngs=rngs)
        self.cache = library.Cache(jnp.ones(2))
        many = [library.Linear(3, 3, rngs=rngs) for _ in range(12)]
        self.layers = library.List(many) if library is nnx else many
        self.again = self.first


class Ours(Net, liftnn.Module):
    pass


class Theirs(Net, nnx.Module):
    pass


def pair():
    return Ours(liftnn, liftnn.Rngs(0)), Theirs(nnx, nnx.Rngs(1))


def with_text_keys(tree):
    return {str(k): with_text_keys(v) if isinstance(v, dict) else v for k, v in tree.items()}


FORMS = {
    "a State": nnx.state,
    "nested dicts of arrays": lambda theirs: nnx.to_pure_dict(nnx.state(theirs)),
    "dicts of a checkpoint, whose keys are texts": lambda theirs: with_text_keys(
        nnx.to_pure_dict(nnx.state(theirs))
    ),
    "nested dicts of numpy arrays": lambda theirs: jax.tree.map(
        np.asarray, nnx.to_pure_dict(nnx.state(theirs, nnx.Not(nnx.RngState)))
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_network_is_filled_from(form):
    ours, theirs = pair()
    key = jax.random.key_data(ours.dropout.rngs.key.value)
    assert not liftnn.from_flax(ours, FORMS[form](theirs))
    for i in range(12):
        np.testing.assert_array_equal(ours.layers[i].kernel.value, theirs.layers[i].kernel[...])
    np.testing.assert_array_equal(ours.first.kernel.value, theirs.first.kernel[...])
    np.testing.assert_array_equal(ours.norm.mean.value, theirs.norm.mean[...])
    assert ours.again is ours.first
    np.testing.assert_array_equal(jax.random.key_data(ours.dropout.rngs.key.value), key)


def test_keys_of_a_dict_that_are_texts_of_numbers_stay_texts():
    layers = {"0": liftnn.Linear(2, 2, rngs=liftnn.Rngs(0)), "1": liftnn.Linear(2, 2, rngs=liftnn.Rngs(1))}
    theirs = {
        k: {"kernel": np.full((2, 2), float(k), np.float32), "bias": np.zeros(2, np.float32)} for k in "01"
    }
    module = Holder(layers=layers, dropout=liftnn.Dropout(0.5, rngs=liftnn.Rngs(0)))
    state = nnx.State({"layers": theirs, "dropout": nnx.state(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))})
    assert not liftnn.from_flax(module, state)
    np.testing.assert_array_equal(layers["1"].kernel.value, np.ones((2, 2)))


def test_what_differs_is_listed_and_nothing_changes():
    ours, theirs = pair()
    before = np.asarray(ours.first.kernel.value)
    state = nnx.to_pure_dict(nnx.state(theirs, nnx.Param))
    del state["again"]["bias"]  # Flax has a shared layer at its first path in sorted order
    state["again"]["kernel"] = np.ones((2, 4), np.float32)
    state["other"] = np.ones(3, np.float32)
    with raises(
        liftnn.CheckpointError,
        "The State does not fit the module:\n"
        "missing:\n"
        "  first.bias: float32[3], from 'first.bias'\n"
        "  norm.mean: float32[3], from 'norm.mean'\n"
        "  norm.var: float32[3], from 'norm.var'\n"
        "unexpected:\n"
        "  'other': float32[3]\n"
        "mismatched:\n"
        "  first.kernel: float32[2,3] in the module, float32[2,4] from 'again.kernel'\n"
        "Change the module or the rules to fit. A rule (pattern, None) skips tensors, `only` selects Variables, "
        "`cast=True` converts dtypes, and `strict=False` loads what fits and returns the rest as a report.",
    ):
        liftnn.from_flax(ours, state)
    np.testing.assert_array_equal(ours.first.kernel.value, before)


def test_only_selects_variables():
    ours, theirs = pair()
    assert not liftnn.from_flax(ours, nnx.state(theirs, nnx.Param), only=liftnn.Param)
    np.testing.assert_array_equal(ours.norm.scale.value, theirs.norm.scale[...])


def test_rules_change_names_and_layouts():
    module = Holder(dense=liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
    linen = {"Dense_0": {"kernel": numbers(3, 2), "bias": numbers(3)}, "step": np.int32(3)}
    rules = [Rule(r"dense\.kernel", "Dense_0.kernel", transpose=(1, 0)), ("dense", "Dense_0"), ("step", None)]
    assert not liftnn.from_flax(module, linen, rules)
    np.testing.assert_array_equal(module.dense.kernel.value, numbers(3, 2).T)


def test_a_bfloat16_network_stays_bfloat16():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = nnx.Linear(2, 3, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        ours = liftnn.Linear(2, 3, param_dtype=jnp.bfloat16, rngs=liftnn.Rngs(1))
        liftnn.from_flax(ours, nnx.state(theirs))
    assert ours.kernel.value.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours.kernel.value, theirs.kernel[...])
