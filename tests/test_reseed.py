"""`reseed` gives each stream of a tree its own key, as Flax NNX does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors
from tests.interrupted import interruptions
from tests.raising import raises
from tests.strategies import Node


def data(keys):
    return np.asarray(jax.random.key_data(keys)).tolist()


def look(tree, library):
    """Keys and counts of all streams by path."""
    found = [(path, x) for path, x in library.iter_graph(tree) if isinstance(x, library.RngStream)]
    return {path: (data(x.key[...]), np.asarray(x.count[...]).tolist()) for path, x in found}


def model_of(library):
    """A model with many layers of Dropout, whose attributes were not set in the order of their names."""
    rngs = library.Rngs(0, dropout=1)

    class Model(library.Module):
        def __init__(self):
            self.z = library.Dropout(0.5, rngs=rngs)
            self.a = library.Dropout(0.5, rngs=rngs)
            layers = [library.Dropout(0.5, rngs=rngs) for _ in range(12)]
            self.layers = nnx.List(layers) if library is nnx else layers
            self.rngs = rngs
            by_name = {"y": library.Dropout(0.5, rngs=rngs), "b": self.a}
            self.by_name = nnx.Dict(by_name) if library is nnx else by_name
            self.z.rngs()

    return Model()


@pytest.mark.parametrize("seeds", [{"dropout": 7}, {"dropout": 7, "default": jax.random.key(3)}])
def test_every_stream_gets_the_key_that_it_gets_in_flax(seeds):
    ours, theirs = model_of(liftnn), model_of(nnx)
    for _ in range(2):
        liftnn.reseed(ours, **seeds)
        nnx.reseed(theirs, **seeds)
        assert look(ours, liftnn) == look(theirs, nnx)
    keys = [tuple(key) for key, _ in look(ours, liftnn).values()]
    assert len(set(keys)) == len(keys)


def test_layers_have_different_masks():
    model = model_of(liftnn)
    liftnn.reseed(model, dropout=7)
    assert not (model.a(jnp.ones(100)) == model.z(jnp.ones(100))).all()


def test_streams_of_other_names_and_the_variables_stay():
    model = Node(a=liftnn.Rngs(0, dropout=1), b=[liftnn.Rngs(dropout=2)])
    key, default = model.a.dropout.key, data(model.a.default.key.value)
    liftnn.reseed(model, dropout=7)
    assert model.a.dropout.key is key
    assert data(model.a.default.key.value) == default


@pytest.mark.parametrize(
    "policy", ["match_shape", lambda path, key, shape: jax.random.split(key, (*shape, 1))[..., 0]]
)
def test_a_policy_fits_the_key_to_a_split_stream(policy):
    ours, theirs = liftnn.Rngs(0, dropout=1).split(3), nnx.Rngs(0, dropout=1).split(3)
    liftnn.reseed(ours, policy=policy, dropout=7)
    nnx.reseed(theirs, policy=policy, dropout=7)
    assert look(ours, liftnn) == look(theirs, nnx)


def test_a_policy_may_split_some_streams_and_not_others():
    model = Node(a=liftnn.Rngs(dropout=1), b=liftnn.Rngs(dropout=1).split(3))
    liftnn.reseed(model, policy="match_shape", dropout=7, graph=True)
    assert (model.a.dropout.key.shape, model.b.dropout.key.shape) == ((), (3,))


def test_a_split_stream_without_a_policy_is_an_error_that_changes_nothing():
    model = Node(a=liftnn.Rngs(dropout=1), b=liftnn.Rngs(dropout=1).split(3))
    before = look(model, liftnn)
    with raises(
        errors.ArgumentError,
        "The stream at b.dropout holds keys of shape (3,), one for each batch element of a vmap, but reseed makes one "
        'key.\nPass policy="match_shape", which splits the new key into this shape.',
    ):
        liftnn.reseed(model, dropout=7)
    assert look(model, liftnn) == before


@pytest.mark.parametrize("policy", ["scalars", 3])
def test_a_policy_that_is_neither_a_name_nor_a_function_is_an_error(policy):
    with raises(
        errors.ArgumentError,
        f'`policy` must be "scalars_only", "match_shape" or a function, not {policy!r}.\n'
        "A function takes path, key and shape, and returns keys of that shape.",
    ):
        liftnn.reseed(liftnn.Rngs(0), policy=policy, default=1)


def test_a_stream_that_is_not_there_is_an_error_that_changes_nothing():
    rngs = liftnn.Rngs(dropout=0)
    with raises(
        errors.ArgumentError,
        "No random stream in the tree is named 'noise', 'params'; it has: dropout.\n"
        "Pass the names of existing streams.",
    ):
        liftnn.reseed(rngs, params=1, noise=2, dropout=3)
    assert data(rngs.dropout()) == data(nnx.Rngs(dropout=0).dropout())


def test_reseed_causes_no_retrace():
    rngs, traces = liftnn.Rngs(0), []
    step = liftnn.jit(lambda r: traces.append(1) or r())
    step(rngs)
    for _ in range(2):
        liftnn.reseed(rngs, default=5)
        keys = step(rngs), step(rngs)
        flax = nnx.Rngs(0)
        nnx.reseed(flax, default=5)
        assert [*map(data, keys)] == [data(flax()), data(flax())]
    assert len(traces) == 1


def test_keys_that_cannot_be_sorted_keep_their_order():
    mixed = Node(a={"b": liftnn.RngStream(0, tag="x"), 1: liftnn.RngStream(0, tag="x")})
    liftnn.reseed(mixed, x=3)
    expected = liftnn.Rngs(3)
    assert [data(s.key.value) for s in mixed.a.values()] == [data(expected()), data(expected())]


def test_an_interrupted_call_has_reseeded_all_streams_or_none():
    models = []

    def make():
        models.append(liftnn.Rngs(0, dropout=1))
        return lambda rngs=models[-1]: liftnn.reseed(rngs, default=3, dropout=4)

    make()
    make()()
    expected = [look(model, liftnn) for model in models]
    for at in interruptions(make, "_src/reseed.py"):
        assert look(models[-1], liftnn) in expected, f"line event {at}"


def test_a_policy_without_keys_for_one_stream_changes_nothing():
    model = model_of(liftnn)
    before = look(model, liftnn)
    keys = iter([jax.random.key(7)])
    with pytest.raises(errors.ArgumentError, match="needs an int or a PRNG key, not 'none'"):
        liftnn.reseed(model, dropout=4, policy=lambda path, key, shape: next(keys, "none"))
    assert look(model, liftnn) == before
