"""`split_rngs` splits streams in place, as Flax NNX does: for good, in a block, or around a function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors
from tests.raising import raises
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
    "a stream that is not there": {"splits": 4, "only": "noise"},
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


@pytest.mark.parametrize("name, options", [("split_rngs", {"splits": 2}), ("fork_rngs", {})])
def test_a_function_that_runs_after_its_call_is_an_error(name, options):
    async def later(rngs):
        return rngs.key.shape

    def one_by_one(rngs):
        yield rngs.key.shape

    for function in (later, one_by_one):
        with pytest.raises(
            errors.ArgumentTypeError, match=f"^liftnn.{name} got an? .* computes nothing when called"
        ):
            getattr(liftnn, name)(**options)(function)


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
    for name, options in (("split_rngs", {"splits": 2}), ("fork_rngs", {})):
        with raises(
            errors.ArgumentError,
            f"The stream 'dropout' holds keys of shape (3,), so {name} cannot split it again.\n"
            f"Leave {name} out: each batch element of a vmap over axis 0 has its own key. Or select other streams.",
        ):
            getattr(liftnn, name)(rngs, **options)
    assert (data(rngs.default.key.value), rngs.dropout.key.shape) == (key, (3,))
    assert int(rngs.default.count) == 1


def test_a_negative_size_is_an_error_that_draws_nothing():
    rngs = liftnn.Rngs(0, dropout=1)
    for call in (lambda: liftnn.split_rngs(rngs, splits=-2), lambda: liftnn.fork_rngs(rngs, split=(3, -2))):
        with pytest.raises(errors.ArgumentError, match="must be a number of keys or a shape, not"):
            call()
    assert [int(stream.count) for _, stream in rngs.items()] == [0, 0]


def test_a_filter_of_keys_selects_streams():
    rngs = liftnn.Rngs(0, dropout=1)
    with liftnn.split_rngs(rngs, splits=3, only=liftnn.RngKey):
        assert [s.key.shape for _, s in rngs.items()] == [(3,), (3,)]


def test_a_decorator_for_a_stream_that_is_not_there_leaves_the_rest():
    rngs = liftnn.Rngs(0, params=1)
    assert data(liftnn.split_rngs(splits=3, only="dropout")(lambda r: r())(rngs)) == data(nnx.Rngs(0)())


FORKS = {
    "all": {},
    "a number": {"split": 3},
    "a shape": {"split": (2, 3)},
    "by name": {"split": {"dropout": 4}},
}


@pytest.mark.filterwarnings("ignore:The 'split' argument of 'fork' is deprecated")
@pytest.mark.parametrize("options", FORKS.values(), ids=FORKS)
def test_fork_rngs_does_in_place_what_flax_does(options):
    ours, theirs = liftnn.Rngs(0, dropout=1), nnx.Rngs(0, dropout=1)
    model, flax_model = Node(a=ours, b=[ours.fork()]), FlaxNode(theirs)
    for _ in range(2):
        with liftnn.fork_rngs(model, **options), nnx.fork_rngs(flax_model, **options):
            assert look(model.a) == look_flax(flax_model.a)
            assert look(model.b[0]) == look_flax(flax_model.b[0])
        assert look(model.a) == look_flax(flax_model.a)
        assert look(model.b[0]) == look_flax(flax_model.b[0])


def test_fork_rngs_takes_the_first_match():
    rngs = liftnn.Rngs(0, dropout=1)
    with liftnn.fork_rngs(rngs, split={"dropout": 4, ...: None}):
        assert [s.key.shape for _, s in rngs.items()] == [(), (4,)]
    with raises(
        errors.ArgumentError,
        "`split` must be a number of keys or a shape, not 'a'.\n"
        "Pass the number of keys, such as 8, or their shape, such as (2, 4).",
    ):
        liftnn.fork_rngs(rngs, split={"dropout": "a"})


def test_fork_rngs_decorates_a_function():
    rngs = liftnn.Rngs(0)
    keys = [liftnn.fork_rngs()(lambda r: (r(), r()))(rngs), liftnn.fork_rngs()(lambda r: (r(), r()))(rngs)]
    assert all_different([*keys[0], *keys[1], rngs()])


@pytest.mark.parametrize("name, options", [("split_rngs", {"splits": 3}), ("fork_rngs", {})])
def test_restore_rngs_restores(name, options):
    ours, theirs = liftnn.Rngs(0, dropout=1), nnx.Rngs(0, dropout=1)
    liftnn.restore_rngs(getattr(liftnn, name)(ours, **options))
    nnx.restore_rngs(getattr(nnx, name)(theirs, **options))
    assert look(ours) == look_flax(theirs)


@pytest.mark.parametrize("name, options", [("split_rngs", {"splits": 3}), ("fork_rngs", {})])
@pytest.mark.parametrize("mode", ["graph", "graph_updates"])
def test_without_updates_the_result_is_a_copy_as_in_flax(name, options, mode):
    ours, theirs = liftnn.Rngs(0, dropout=1), nnx.Rngs(0, dropout=1)
    copy = getattr(liftnn, name)(ours, **options, **{mode: False})
    flax_copy = getattr(nnx, name)(theirs, **options, graph_updates=False)
    assert look(copy) == look_flax(flax_copy)
    assert look(ours) == look_flax(theirs)


@pytest.mark.filterwarnings(
    "ignore:The 'split' argument of 'fork' is deprecated:DeprecationWarning"
)  # in Flax
@pytest.mark.parametrize("name, options", [("split_rngs", {"only": "dropout"}), ("fork_rngs", {})])
def test_the_copy_has_the_other_variables_of_the_original_as_in_flax(name, options):
    def shared(library):
        class Net(library.Module):
            def __init__(self, rngs):
                self.norm, self.rngs, self.again = library.BatchNorm(2, rngs=rngs), rngs, rngs

        net = Net(library.Rngs(0, dropout=1))
        sizes = {"splits": 3} if name == "split_rngs" else {"split": {"dropout": 3}}
        copy = getattr(library, name)(net, **options, **sizes, graph_updates=False)
        pairs = [(copy, net), (copy.norm, net.norm), (copy.norm.mean, net.norm.mean), (copy.rngs, copy.again)]
        streams = [("key", "default"), ("count", "default"), ("key", "dropout"), ("count", "dropout")]
        pairs += [(getattr(copy.rngs[s], x), getattr(net.rngs[s], x)) for x, s in streams]
        return [a is b for a, b in pairs]

    assert shared(liftnn) == shared(nnx)


def test_without_streams_there_is_nothing_to_split():
    assert liftnn.split_rngs(splits=2)(lambda x, note: x)(1.0, "text") == 1.0
