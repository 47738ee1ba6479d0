"""Rngs: the keys of Flax NNX for the same seeds, and none of them twice."""

from __future__ import annotations

import copy
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors
from tests.raising import raises


def data(keys):
    return np.asarray(jax.random.key_data(keys)).tolist()


def all_different(keys):
    flat = [tuple(k) for key in keys for k in np.asarray(jax.random.key_data(key)).reshape(-1, 2).tolist()]
    return len(flat) == len(set(flat))


# --- the keys

SEEDS = {
    "default": ((0,), {}),
    "key": ((jax.random.key(3),), {}),
    "named": ((), {"params": 1, "dropout": jax.random.key(2)}),
    "default and named": ((5,), {"dropout": 7}),
    "mapping": (({"params": 1, "noise": 2},), {"dropout": 3}),
    "old key": ((jax.random.PRNGKey(4),), {}),
}


@pytest.mark.parametrize("args, kwargs", SEEDS.values(), ids=SEEDS)
def test_keys_are_those_of_flax(args, kwargs):
    ours, theirs = liftnn.Rngs(*args, **kwargs), nnx.Rngs(*args, **kwargs)
    assert sorted(ours) == sorted(theirs)
    for name in [*ours, *ours]:
        assert data(ours[name]()) == data(theirs[name]())
        assert data(getattr(ours, name)()) == data(getattr(theirs, name)())
    if "default" in ours:
        assert data(ours()) == data(theirs())
        assert data(ours.unknown_stream()) == data(theirs.unknown_stream())


def test_the_nth_key_of_a_stream_folds_in_n():
    stream = liftnn.RngStream(5, tag="noise")
    keys = [stream() for _ in range(3)]
    assert [data(k) for k in keys] == [data(jax.random.fold_in(jax.random.key(5), i)) for i in range(3)]
    assert (stream.count.value.dtype, int(stream.count)) == (jnp.uint32, 3)
    assert (stream.tag, stream.key.tag, stream.count.tag) == ("noise", "noise", "noise")


@pytest.mark.parametrize(
    "seed",
    [3, np.int64(3), jnp.int32(3), liftnn.RngKey(jax.random.key(3)), jax.random.key(3)],
    ids=lambda x: type(x).__name__,
)
def test_a_seed_is_an_int_or_a_key(seed):
    assert data(liftnn.Rngs(seed)()) == data(nnx.Rngs(3)())


def test_a_mapping_of_seeds_need_not_be_a_dict():
    assert list(liftnn.Rngs(types.MappingProxyType({"params": 0}))) == ["params"]


def test_a_stream_leaked_from_a_raw_transform_says_so():
    leaked = []
    jax.jit(lambda: leaked.append(liftnn.Rngs(1)) or 0)()
    with raises(
        errors.TraceContextError,
        "Cannot change the value of an RngCount here: it was created under a raw JAX transform (jax.jit, jax.grad, "
        "jax.vmap, jax.lax.scan ...) that has returned (leaked), and may hold tracers.\n"
        "Use the liftnn transform of the same name and return the object, or return its arrays.",
    ):
        leaked[0].params()


def test_another_key_implementation_is_kept():
    key = jax.random.key(0, impl="rbg")
    assert liftnn.Rngs(key)().dtype == key.dtype


@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_a_raw_key_is_one_of_the_default_implementation_as_in_flax(shape):
    with jax.default_prng_impl("rbg"):
        raw = jax.random.PRNGKey(5) + jnp.zeros((*shape, 4), jnp.uint32)
        ours, theirs = liftnn.Rngs(raw).default, nnx.Rngs(raw).default
        assert data(ours.key.value) == data(theirs.key[...])
        two_numbers = jnp.ones((*shape, 2), jnp.uint32)
        with raises(
            errors.ArgumentError,
            f"The stream 'default' of an Rngs needs an int or a PRNG key, not {two_numbers!r:.60}.\n"
            "Pass an int such as 0, or jax.random.key(0).",
        ):
            liftnn.Rngs(two_numbers)


@pytest.mark.parametrize("seed", ["seed", 1.5, jnp.ones(2), None], ids=repr)
def test_what_is_no_seed_is_an_error(seed):
    with raises(
        errors.ArgumentError,
        f"The stream 'params' of an Rngs needs an int or a PRNG key, not {seed!r:.60}.\n"
        "Pass an int such as 0, or jax.random.key(0).",
    ):
        liftnn.Rngs(params=seed)


# --- streams


def test_a_stream_without_a_default_is_an_attribute_error_that_lists_the_streams():
    with raises(
        errors.AttributeNameError,
        "This Rngs has no stream 'dropout' and no default stream; it has: params, noise.\n"
        "Create the Rngs with this stream, Rngs(dropout=seed), or with a default stream, Rngs(seed).",
    ):
        liftnn.Rngs(params=0, noise=1).dropout()
    with raises(
        errors.AttributeNameError,
        "This Rngs has no stream 'default' and no default stream; it has: none.\n"
        "Create the Rngs with this stream, Rngs(default=seed), or with a default stream, Rngs(seed).",
    ):
        liftnn.Rngs()()


def test_private_names_are_no_streams():
    with pytest.raises(AttributeError, match=r"^_private$"):
        liftnn.Rngs(0)._private  # noqa: B018


def test_an_rngs_is_like_a_mapping_of_its_streams():
    rngs = liftnn.Rngs(0, dropout=1)
    assert list(rngs) == ["default", "dropout"]
    assert len(rngs) == 2
    assert ("dropout" in rngs, "params" in rngs, 3 in rngs) == (True, False, False)
    assert [(name, stream.tag) for name, stream in rngs.items()] == [
        ("default", "default"),
        ("dropout", "dropout"),
    ]
    assert rngs["dropout"] is rngs.dropout
    assert rngs["params"] is rngs.default


def test_a_stream_that_is_given_is_shared():
    stream = liftnn.RngStream(0, tag="x")
    rngs = liftnn.Rngs(a=stream, b=stream)
    keys = [rngs.a(), rngs.b(), stream()]
    assert all_different(keys)
    assert rngs.a is rngs.b


def test_streams_are_random_state():
    state = liftnn.state(liftnn.Rngs(0, dropout=1), liftnn.RngState)
    assert [(path, type(v)) for path, v in state.flat().items()] == [
        (("default", "key"), liftnn.RngKey), (("default", "count"), liftnn.RngCount),
        (("dropout", "key"), liftnn.RngKey), (("dropout", "count"), liftnn.RngCount),
    ]  # fmt: skip
    assert list(liftnn.state(liftnn.Rngs(0, dropout=1), "dropout").flat()) == [
        ("dropout", "key"),
        ("dropout", "count"),
    ]


# --- no key twice


def test_no_key_is_given_out_twice_in_any_mix_of_calls():
    rngs = liftnn.Rngs(0, dropout=1, params=2)
    keys = [rngs(), rngs.params(), rngs.dropout(), rngs.other()]
    forks = [rngs.fork(), rngs.fork(), rngs.split(3), rngs.fork(dropout=2)]
    keys += [rngs(), rngs.params(), rngs.dropout()]
    for fork in forks[:2]:
        keys += [stream() for _, stream in fork.items()]
        keys += [fork.fork().dropout()]
    for fork in forks[2:]:
        keys += [stream.key.value for _, stream in fork.items()]
    assert all_different(keys)


def test_no_key_is_given_out_twice_under_transforms():
    rngs = liftnn.Rngs(0)
    keys = [rngs()]
    keys.append(liftnn.jit(lambda r: r())(rngs))
    keys += list(liftnn.jit(lambda r: (r(), r()))(rngs))
    keys.append(liftnn.grad(lambda w, r: (w.value**2, r()), has_aux=True)(liftnn.Param(1.0), rngs)[1])
    keys.append(liftnn.vmap(lambda x, r: r(), in_axes=(0, None))(jnp.ones(3), rngs))
    keys.append(liftnn.vmap(lambda x, r: r(), in_axes=(0, None))(jnp.ones(3), rngs))
    keys.append(rngs())
    assert all_different(keys)


def test_keys_under_jit_are_those_of_the_plain_call():
    plain, jitted = liftnn.Rngs(0, dropout=1), liftnn.Rngs(0, dropout=1)

    def draw(rngs):
        return rngs(), rngs.dropout(), rngs.fork().dropout()

    step = liftnn.jit(draw)
    for _ in range(3):
        assert [data(k) for k in draw(plain)] == [data(k) for k in step(jitted)]
    assert int(plain.dropout.count) == int(jitted.dropout.count) == 6


# --- fork and split


def test_fork_gives_streams_that_start_from_the_next_keys():
    rngs = liftnn.Rngs(0, dropout=1)
    expected = {
        name: data(jax.random.fold_in(jax.random.key(seed), 0))
        for name, seed in (("default", 0), ("dropout", 1))
    }
    fork = rngs.fork()
    assert {name: data(stream.key.value) for name, stream in fork.items()} == expected
    assert [int(s.count) for _, s in fork.items()] == [0, 0]
    assert [int(s.count) for _, s in rngs.items()] == [1, 1]


def test_fork_splits_the_streams_that_it_is_told_to():
    fork = liftnn.Rngs(0, dropout=1).fork(dropout=(2, 3))
    assert (fork.default.key.shape, fork.dropout.key.shape, fork.dropout.count.shape) == ((), (2, 3), (2, 3))
    expected = jax.random.split(jax.random.fold_in(jax.random.key(1), 0), (2, 3))
    assert data(fork.dropout.key.value) == data(expected)


def test_fork_of_a_stream_that_is_not_there_is_an_error():
    rngs = liftnn.Rngs(0)
    with pytest.raises(errors.ArgumentError, match=r"^This Rngs has no stream 'dropout'; it has: default\."):
        rngs.fork(dropout=2)
    assert int(rngs.default.count) == 0


FORKS = {
    "nothing": None,
    "a number": 3,
    "a shape": (2, 3),
    "by name": {"dropout": 4},
    "the first match": {"dropout": 4, ...: (2,)},
}


def look(rngs):
    """Keys and counts of the streams of either library."""
    return {n: (data(s.key[...]), np.asarray(s.count[...]).tolist()) for n, s in rngs.items()}


@pytest.mark.filterwarnings("ignore:The 'split' argument of 'fork' is deprecated")
@pytest.mark.parametrize("split", FORKS.values(), ids=FORKS)
def test_fork_splits_as_flax_does(split):
    ours, theirs = liftnn.Rngs(0, dropout=1), nnx.Rngs(0, dropout=1)
    assert look(ours.fork(split=split)) == look(theirs.fork(split=split))
    assert look(ours) == look(theirs)


@pytest.mark.filterwarnings("ignore:The 'split' argument of 'fork' is deprecated")
@pytest.mark.parametrize("split", [None, 3, (2, 3)])
def test_fork_of_a_stream_splits_as_flax_does(split):
    ours, theirs = liftnn.Rngs(0).default, nnx.Rngs(0).default
    assert look({"x": ours.fork(split=split), "y": ours}) == look(
        {"x": theirs.fork(split=split), "y": theirs}
    )


@pytest.mark.parametrize("k", [3, (2, 3)])
def test_split_and_broadcast_of_a_stream_are_those_of_flax(k):
    ours, theirs = liftnn.Rngs(0).default, nnx.Rngs(0).default
    for name in ("split", "broadcast"):
        new, flax = getattr(ours, name)(k), getattr(theirs, name)(k)
        assert look({"x": new, "y": ours}) == look({"x": flax, "y": theirs})
        assert new.tag == "default"


@pytest.mark.parametrize("k", FORKS.values(), ids=FORKS)
def test_broadcast_repeats_keys_as_flax_does(k):
    ours, theirs = liftnn.Rngs(0, dropout=1), nnx.Rngs(0, dropout=1)
    assert look(ours.broadcast(k)) == look(theirs.broadcast(k))
    assert look(ours) == look(theirs)


def test_batch_elements_of_a_broadcast_draw_the_same_keys():
    rngs = liftnn.Rngs(0)
    numbers = liftnn.vmap(lambda r: r.normal((2,)))(rngs.broadcast(3))
    assert (numbers == numbers[0]).all()
    assert not (numbers[0] == rngs.normal((2,))).all()


def test_split_takes_shapes_by_filter_as_flax_does():
    sizes = {"params": 5, "dropout": None, ...: (2, 5)}
    ours, theirs = (x.Rngs(params=1, dropout=2, noise=3) for x in (liftnn, nnx))
    assert look(ours.split(sizes)) == look(theirs.split(sizes))
    assert look(ours) == look(theirs)


@pytest.mark.parametrize("name", ["split", "broadcast"])
def test_a_stream_that_is_kept_is_shared_so_that_no_key_is_drawn_twice(name):
    rngs = liftnn.Rngs(0, dropout=1)
    new = getattr(rngs, name)({"dropout": 2, ...: None})
    assert new.default is rngs.default
    assert all_different([rngs(), new(), rngs(), new.dropout.key.value[0], rngs.dropout()])
    assert getattr(rngs, name)({"dropout": 2}).default is rngs.default


@pytest.mark.parametrize("size", [np.int64(3), np.uint8(2), (np.int32(2), 3)], ids=repr)
def test_a_size_may_be_an_integer_of_numpy(size):
    shape = tuple(map(int, size)) if isinstance(size, tuple) else int(size)
    for change in (
        lambda rngs, size: rngs.split(size),
        lambda rngs, size: rngs.broadcast(size),
        lambda rngs, size: rngs.fork(split=size),
        lambda rngs, size: liftnn.split_rngs(rngs, splits=size, graph=False),
    ):
        with_numpy, with_ints = (change(liftnn.Rngs(0), s).default.key.value for s in (size, shape))
        assert data(with_numpy) == data(with_ints)


@pytest.mark.parametrize("name", ["fork", "split", "broadcast"])
@pytest.mark.parametrize("size", [2.5, -1, (2, -3)], ids=repr)
def test_a_size_that_is_no_shape_is_an_error_that_draws_nothing(name, size):
    rngs = liftnn.Rngs(0, dropout=1)
    call = (lambda x: rngs.fork(split=x)) if name == "fork" else getattr(rngs, name)
    argument = "split" if name == "fork" else "k"
    with raises(
        errors.ArgumentError,
        f"`{argument}` must be a number of keys or a shape, not {size!r}.\n"
        "Pass the number of keys, such as 8, or their shape, such as (2, 4).",
    ):
        call({"dropout": size})
    with pytest.raises(errors.FilterError, match=r"^Filter 0 of 2 matches everything"):
        call({...: 2, "dropout": 3})
    assert [int(s.count) for _, s in rngs.items()] == [0, 0]


SPLIT = jax.random.split(jax.random.key(1), 3)


@pytest.mark.parametrize(
    "dropout, call",
    [
        (SPLIT, lambda rngs: rngs.fork()),
        (SPLIT, lambda rngs: rngs.split(2)),
        (SPLIT, lambda rngs: rngs.split({"dropout": 2, ...: 3})),
        (SPLIT, lambda rngs: rngs.broadcast(2)),
        (1, lambda rngs: rngs.fork(default=2, dropout=2.5)),
    ],
)
def test_an_error_for_a_later_stream_draws_nothing(dropout, call):
    rngs = liftnn.Rngs(0, dropout=dropout)
    with pytest.raises(
        errors.ArgumentError, match=r"^(The stream 'dropout' holds|`split` must be a number of keys)"
    ):
        call(rngs)
    assert int(rngs.default.count) == 0


def test_a_size_of_none_splits_nothing():
    rngs = liftnn.Rngs(0, dropout=1).fork(default=2, dropout=None)
    assert (rngs.default.key.shape, rngs.dropout.key.shape) == ((2,), ())


def test_split_of_a_stream_without_a_number_is_that_of_a_module():
    stream = liftnn.RngStream(0)
    state, graphdef = stream.split()
    assert data(liftnn.merge(graphdef, state)()) == data(stream())


@pytest.mark.parametrize("shape", [4, (2, 3)])
def test_split_gives_the_keys_of_flax(shape):
    ours, theirs = liftnn.Rngs(0, dropout=1).split(shape), nnx.Rngs(0, dropout=1).split(shape)
    for name in ours:
        assert data(ours[name].key.value) == data(theirs[name].key[...])
        assert ours[name].count.shape == theirs[name].count[...].shape
    assert all_different([s.key.value for _, s in ours.items()])


ONLY = {
    "keys of one name": liftnn.All(liftnn.RngKey, "dropout"),
    "path": liftnn.PathContains("dropout"),
    "tag": "dropout",
    "not": liftnn.Not("default"),
    "predicate": lambda path, variable: variable.tag == "dropout",
    "type and tag": liftnn.All(liftnn.RngState, "dropout"),
}


@pytest.mark.parametrize("only", ONLY.values(), ids=ONLY)
def test_split_takes_a_filter_of_streams(only):
    rngs = liftnn.Rngs(0, dropout=1).split(4, only=only)
    assert (rngs.default.key.shape, rngs.dropout.key.shape) == ((), (4,))
    with liftnn.split_rngs(again := liftnn.Rngs(0, dropout=1), splits=4, only=only):
        assert (again.default.key.shape, again.dropout.key.shape) == ((), (4,))


def test_split_without_a_number_is_that_of_a_module():
    rngs = liftnn.Rngs(0)
    keys, counts, graphdef = rngs.split(liftnn.RngKey, ...)
    assert [list(state.flat()) for state in (keys, counts)] == [[("default", "key")], [("default", "count")]]
    assert data(liftnn.merge(graphdef, keys, counts)()) == data(rngs())


def test_the_keys_of_a_split_are_drawn_one_a_element():
    rngs = liftnn.Rngs(0).split(3)
    keys = liftnn.vmap(lambda r: r())(rngs)
    expected = jax.vmap(lambda k: jax.random.fold_in(k, 0))(
        jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 3)
    )
    assert data(keys) == data(expected)
    assert rngs.default.count.value.tolist() == [1, 1, 1]


def test_drawing_from_a_split_outside_of_vmap_is_an_error():
    rngs = liftnn.Rngs(0).split(3)
    with raises(
        errors.ArgumentError,
        "The stream 'default' holds keys of shape (3,), one for each batch element of a vmap.\n"
        "Draw from it inside the vmap, with the Rngs mapped over axis 0.",
    ):
        rngs()
    assert rngs.default.count.value.tolist() == [0, 0, 0]


# --- as modules


@pytest.mark.parametrize("copied", [copy.deepcopy, liftnn.clone, copy.copy])
def test_an_rngs_is_copied(copied):
    rngs = liftnn.Rngs(0, dropout=1)
    rngs.dropout()
    assert data(copied(rngs).dropout()) == data(jax.random.fold_in(jax.random.key(1), 1))


def test_streams_can_be_added_and_replaced():
    rngs = liftnn.Rngs(0)
    rngs.noise = liftnn.RngStream(3, tag="noise")
    assert data(rngs.noise()) == data(nnx.Rngs(noise=3).noise())
    del rngs.noise
    assert list(rngs) == ["default"]


@pytest.mark.parametrize("make", [liftnn.Rngs, liftnn.RngStream, lambda rngs: liftnn.Rngs(default=rngs)])
def test_an_rngs_is_no_seed(make):
    name = "default"
    with raises(
        errors.ArgumentError,
        f"The stream {name!r} of an Rngs needs an int or a PRNG key, not an Rngs.\n"
        "Pass the Rngs itself where random keys are needed, `rngs.fork()` for independent streams of the same names, "
        "or `liftnn.Rngs(rngs())` to seed others with its next key.",
    ):
        make(liftnn.Rngs(0))
