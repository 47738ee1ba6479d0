"""`split_rngs` splits streams in place, as Flax NNX does: for good, in a block, or around a function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors
from tests.strategies import Node


def data(keys):
    return np.asarray(jax.random.key_data(keys)).tolist()


def all_different(keys):
    flat = [tuple(k) for key in keys for k in np.asarray(jax.random.key_data(key)).reshape(-1, 2).tolist()]
    return len(flat) == len(set(flat))


class FlaxNode(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = rngs, nnx.List([rngs.fork()])


SPLITS = {
    "all": {"splits": 4},
    "a shape": {"splits": (2, 3)},
    "a tag": {"splits": 4, "only": "dropout"},
    "squeeze": {"splits": 1, "squeeze": True},
}


def look(rngs):
    """Keys and counts of the streams."""
    return {n: (data(s.key.value), s.count.value.tolist()) for n, s in rngs.items()}


def look_flax(rngs):
    return {n: (data(s.key[...]), s.count[...].tolist()) for n, s in rngs.items()}


@pytest.mark.parametrize("options", SPLITS.values(), ids=SPLITS)
def test_split_rngs_does_in_place_what_flax_does(options):
    ours, theirs = liftnn.Rngs(0, dropout=1), nnx.Rngs(0, dropout=1)
    model, flax_model = Node(a=ours, b=[ours.fork()]), FlaxNode(theirs)
    for _ in range(2):
        with liftnn.split_rngs(model, **options), nnx.split_rngs(flax_model, **options):
            assert look(model.a) == look_flax(flax_model.a)
            assert look(model.b[0]) == look_flax(flax_model.b[0])
        assert look(model.a) == look_flax(flax_model.a)
        assert look(model.b[0]) == look_flax(flax_model.b[0])
    assert model.a is ours


def test_split_rngs_decorates_a_function_as_in_flax():
    def draw(rngs, x):
        return jax.random.normal(rngs.dropout(), ()) + x

    results = []
    for module in (liftnn, nnx):
        axes = module.StateAxes({"dropout": 0, ...: None})
        mapped = module.vmap(draw, in_axes=(axes, 0))
        call = module.split_rngs(splits=3, only="dropout")(mapped)
        rngs = module.Rngs(0, dropout=1)
        results.append([call(rngs, jnp.arange(3.0)).tolist() for _ in range(2)])
        assert rngs.dropout.key.shape == ()
    assert results[0] == results[1]


def test_split_rngs_decorates_methods_and_keeps_the_name():
    class Model(liftnn.Module):
        def __init__(self):
            self.rngs = liftnn.Rngs(0)

        @liftnn.split_rngs(splits=2)
        def draw(self):
            """Draws."""
            return liftnn.vmap(lambda m: m.rngs())(self)

    model = Model()
    assert (Model.draw.__name__, Model.draw.__doc__) == ("draw", "Draws.")
    assert all_different([model.draw(), model.draw(), model.rngs()])


def test_split_rngs_restores_when_the_function_raises():
    rngs = liftnn.Rngs(0)
    key = data(rngs.default.key.value)
    with pytest.raises(KeyError, match="my own"), liftnn.split_rngs(rngs, splits=2):
        raise KeyError("my own")
    assert (data(rngs.default.key.value), int(rngs.default.count)) == (key, 1)


def test_restoring_twice_gives_no_key_twice():
    rngs = liftnn.Rngs(0)
    split = liftnn.split_rngs(rngs, splits=2)
    keys = [liftnn.vmap(lambda r: r())(rngs)]
    split.restore()
    keys.append(rngs())
    split.restore()
    assert all_different([*keys, rngs()])


def test_split_rngs_works_inside_jit():
    @liftnn.jit
    def draw(rngs):
        with liftnn.split_rngs(rngs, splits=3):
            keys = liftnn.vmap(lambda r: r())(rngs)
        return keys, rngs()

    rngs = liftnn.Rngs(0)
    assert all_different([*draw(rngs), *draw(rngs), rngs()])
    assert draw.n_traces == 1


def test_a_shared_stream_is_split_once():
    stream = liftnn.RngStream(0, tag="x")
    with liftnn.split_rngs((liftnn.Rngs(a=stream, b=stream), [stream]), splits=2):
        assert stream.key.shape == (2,)
    assert int(stream.count) == 1


def test_splitting_what_is_split_is_an_error_that_changes_no_key():
    rngs = liftnn.Rngs(0, dropout=1)
    rngs.dropout = rngs.split(3).dropout
    key = data(rngs.default.key.value)
    with pytest.raises(errors.ArgumentError, match=r"^The stream 'dropout' holds keys of shape \(3,\)"):
        liftnn.split_rngs(rngs, splits=2)
    assert (data(rngs.default.key.value), rngs.dropout.key.shape) == (key, (3,))


def test_without_streams_there_is_nothing_to_split():
    assert liftnn.split_rngs(splits=2)(lambda x, note: x)(1.0, "text") == 1.0
