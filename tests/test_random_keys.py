"""No key is used twice in any mix of transforms; lanes of a `vmap` draw different numbers unless told to share."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors
from tests.quick import quick
from tests.raising import raises
from tests.user_modules import Holder

LANES = jnp.arange(3)


def keys_in(tree):
    """Every key in a tree of key arrays, as rows of integers."""
    rows = [np.asarray(jax.random.key_data(k)).reshape(-1, 2) for k in jax.tree.leaves(tree)]
    return np.concatenate(rows)


def assert_no_key_twice(*trees):
    rows = keys_in(trees)
    assert len(np.unique(rows, axis=0)) == len(rows)


def draw(rngs, x):
    return rngs()


def draw_lanes(rngs, size=3, **options):
    return liftnn.vmap(draw, in_axes=(None, 0), **options)(rngs, jnp.arange(size))


def test_elements_of_a_shared_stream_draw_different_keys():
    rngs = liftnn.Rngs(0)
    first, second = draw_lanes(rngs), draw_lanes(rngs)
    assert_no_key_twice(first, second, rngs(), rngs())
    assert int(rngs.default.count.value) == 4


def test_maps_of_different_sizes_draw_different_keys():
    rngs = liftnn.Rngs(0)
    assert_no_key_twice([draw_lanes(rngs, n) for n in (2, 3, 5)])


def test_a_map_that_draws_nothing_leaves_the_stream_as_it_is():
    rngs, fresh = liftnn.Rngs(0), liftnn.Rngs(0)
    key = rngs.default.key.value
    liftnn.vmap(lambda rngs, x: x, in_axes=(None, 0))(rngs, LANES)
    assert rngs.default.key.value is key
    assert (keys_in(rngs()) == keys_in(fresh())).all()


def test_with_split_rngs_off_all_elements_draw_what_the_plain_call_draws():
    rngs, plain = liftnn.Rngs(0), liftnn.Rngs(0)
    rows = keys_in(draw_lanes(rngs, split_rngs=False))
    assert (rows == keys_in(plain())).all()
    assert int(rngs.default.count.value) == 1


def test_mapped_streams_are_used_as_they_are():
    rngs, plain = liftnn.Rngs(0).split(3), liftnn.Rngs(0).split(3)
    out = liftnn.vmap(lambda rngs: (rngs(), rngs()))(rngs)
    keys = [liftnn.Rngs(k) for k in plain.default.key.value]
    expected = [[r() for r in keys], [r() for r in keys]]
    for ours, theirs in zip(out, expected, strict=True):
        assert (keys_in(ours) == keys_in(theirs)).all()
    assert rngs.default.count.value.tolist() == [2, 2, 2]


def test_streams_inside_a_mapped_module_are_split_where_they_are_shared():
    axes = liftnn.StateAxes({liftnn.Param: 0, ...: None})
    model = Holder(w=liftnn.Param(jnp.ones(3)), rngs=liftnn.Rngs(0, dropout=1))
    keys = liftnn.vmap(lambda m: (m.rngs(), m.rngs.dropout()), in_axes=(axes,))(model)
    assert_no_key_twice(keys, model.rngs(), model.rngs.dropout())


def test_the_number_of_elements_may_come_from_axis_size_or_a_keyword():
    by_size = liftnn.vmap(lambda r: r(), in_axes=None, axis_size=4)(liftnn.Rngs(0))
    by_keyword = liftnn.vmap(lambda r, *, x: r(), in_axes=(None,))(liftnn.Rngs(0), x=jnp.arange(4))
    assert_no_key_twice(by_size)
    assert (keys_in(by_size) == keys_in(by_keyword)).all()


def test_elements_of_nested_maps_draw_different_keys():
    def inner(rngs, x):
        return rngs(), rngs.dropout()

    def outer(rngs, x):
        before = rngs()
        many = liftnn.vmap(inner, in_axes=(None, 0))(rngs, jnp.arange(2))
        more = liftnn.vmap(inner, in_axes=(None, 0))(rngs, jnp.arange(4))
        return before, many, more, rngs()

    rngs = liftnn.Rngs(0, dropout=1)
    calls = [liftnn.vmap(outer, in_axes=(None, 0))(rngs, LANES) for _ in range(2)]
    assert_no_key_twice(calls, rngs(), rngs.dropout())


def test_a_map_inside_a_map_and_a_map_by_itself_draw_different_keys():
    def outer(rngs, x):
        return draw_lanes(rngs, 2)

    rngs = liftnn.Rngs(0)
    assert_no_key_twice(
        liftnn.vmap(outer, in_axes=(None, 0))(rngs, jnp.arange(2)), draw_lanes(rngs, 2), draw_lanes(rngs, 2)
    )


def under_jit(f):
    return liftnn.jit(f)


def under_grad(f):
    def lifted(rngs, x):
        (_, keys), _ = liftnn.value_and_grad(lambda r, y: (y * 2.0, f(r, y)), argnums=1, has_aux=True)(
            rngs, x
        )
        return keys

    return lifted


def under_vmap(f):
    def lifted(rngs, x):
        return liftnn.vmap(lambda r, y: f(r, x + y), in_axes=(None, 0))(rngs, jnp.arange(2.0))

    return lifted


def under_lift(f):
    return liftnn.lift(f, bind=lambda plan, pure: jax.checkpoint(pure))


def under_map(f):
    return lambda rngs, x: liftnn.map(functools.partial(lambda r, y: f(r, x + y), rngs), jnp.arange(2.0))


def under_batches(f):
    def lifted(rngs, x):
        return liftnn.map(functools.partial(lambda r, y: f(r, x + y), rngs), jnp.arange(3.0), batch_size=2)

    return lifted


WAYS = (under_jit, under_grad, under_vmap, under_lift)
NESTED = [
    *itertools.product(WAYS, repeat=2),
    (under_jit, under_vmap, under_vmap),
    (under_vmap, under_grad, under_vmap),
    (under_grad, under_vmap, under_jit),
    (under_map, under_vmap),
    (under_vmap, under_map),
    (under_batches, under_vmap),
    (under_vmap, under_batches),
    (under_batches, under_batches),
    (under_jit, under_map, under_batches),
]


@pytest.mark.parametrize("ways", quick(NESTED, 21), ids=lambda ways: "-".join(w.__name__[6:] for w in ways))
@pytest.mark.sample(6)
def test_no_key_is_drawn_twice_in_nested_transforms(ways):
    def before_and_after(f):
        return lambda rngs, x: (rngs(), f(rngs, x), rngs.named(), f(rngs, x), rngs())

    function = draw
    for way in ways[::-1]:
        function = before_and_after(way(function))
    rngs = liftnn.Rngs(0, named=1)
    assert_no_key_twice(function(rngs, 1.0), rngs(), rngs.named())


def test_dropout_differs_between_elements_and_calls():
    layer = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
    call = liftnn.vmap(lambda layer, x: layer(x), in_axes=(None, 0))
    rows = np.concatenate([call(layer, jnp.ones((3, 64))) for _ in range(2)])
    assert len(np.unique(rows, axis=0)) == 6


def test_forks_and_splits_draw_different_keys():
    rngs = liftnn.Rngs(0)
    forks = [rngs.fork(), rngs.fork()]
    lanes = rngs.fork(default=3)
    assert_no_key_twice(rngs(), [f() for f in forks * 2], liftnn.vmap(lambda r: (r(), r()))(lanes))


def test_a_reseed_inside_a_map_reaches_the_shared_stream():
    rngs, plain = liftnn.Rngs(0), liftnn.Rngs(0)
    liftnn.vmap(lambda r, x: liftnn.reseed(r, default=3), in_axes=(None, 0))(rngs, LANES)
    liftnn.reseed(plain, default=3)
    assert (keys_in(rngs()) == keys_in(plain())).all()


def test_a_reseed_that_differs_between_elements_is_an_error():
    with raises(
        errors.SharedWriteError,
        "args[0].default.key (an RngKey) is shared by all batch elements of this vmap, but they write different "
        "values to it.\n"
        "Map the Variable as well (an axis in `in_axes`, or `StateAxes`), reduce the value over the axis "
        "before writing it (for example with `jax.lax.pmean` and an `axis_name`), or specify in "
        "`reduce_writes` how to reduce it.",
    ):
        liftnn.vmap(lambda r, x: liftnn.reseed(r, default=x), in_axes=(None, 0))(liftnn.Rngs(0), LANES)


def test_the_key_variable_of_a_shared_stream_is_still_the_shared_one():
    rngs = liftnn.Rngs(0)
    assert liftnn.vmap(lambda r, x: r.default.key, in_axes=(None, 0))(rngs, LANES) is rngs.default.key
    assert rngs.default.key.shape == ()


def test_a_split_stream_cannot_be_drawn_from_outside():
    with raises(
        errors.ArgumentError,
        "The stream 'default' holds keys of shape (3,), one for each batch element of a vmap.\n"
        "Draw from it inside the vmap, with the Rngs mapped over axis 0.",
    ):
        liftnn.Rngs(0).split(3)()
