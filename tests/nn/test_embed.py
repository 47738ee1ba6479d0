from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors


@pytest.mark.parametrize("options", [{}, {"dtype": jnp.bfloat16}, {"param_dtype": jnp.bfloat16}])
@pytest.mark.parametrize("rows", [jnp.array(1), jnp.array([[0, 4], [-1, 2]]), jnp.array([5, -6], jnp.int8)])
@pytest.mark.sample(2)
def test_weights_and_rows_are_those_of_flax(options, rows, agrees_with_flax):
    agrees_with_flax("Embed", 5, 3, x=rows, **options)


def test_a_single_row_is_given_for_every_integer_as_in_flax(agrees_with_flax):
    agrees_with_flax("Embed", 1, 3, x=jnp.array([[0, 7], [3, -9]]))


@pytest.mark.parametrize("rows", [130, 200, 256, 300])
def test_negative_integers_count_from_the_end_also_if_the_table_has_more_rows_than_their_dtype(rows):
    layer = liftnn.Embed(rows, 1, rngs=liftnn.Rngs(0))
    found = np.array([-1, -128, 5, 127], np.int8)
    np.testing.assert_array_equal(layer(found), np.asarray(layer.embedding.value)[found.astype(int)])


@pytest.mark.parametrize("before, after", [(1, 3), (3, 1), (2, 4)])
def test_a_table_of_another_size_is_looked_up_as_in_a_layer_of_that_size(before, after):
    layer, other = (liftnn.Embed(n, 2, rngs=liftnn.Rngs(0)) for n in (before, after))
    layer.embedding.value = other.embedding.value
    rows = jnp.array([2, 0, 1])
    np.testing.assert_array_equal(layer(rows), other(rows))


def test_gradients_reach_the_rows_that_were_looked_up():
    layer = liftnn.Embed(4, 2, rngs=liftnn.Rngs(0))

    def loss(table):
        layer = liftnn.Embed(4, 2, rngs=liftnn.Rngs(0))
        layer.embedding.value = table
        return layer(jnp.array([1, 1, 3])).sum()

    np.testing.assert_array_equal(jax.grad(loss)(layer.embedding.value), [[0, 0], [2, 2], [0, 0], [1, 1]])


def test_attend_is_the_inner_product_with_each_row(rand, close):
    layer = liftnn.Embed(4, 2, rngs=liftnn.Rngs(0))
    close(layer.attend(rand(3, 2)), rand(3, 2) @ layer.embedding.value.T)


@pytest.mark.thorough
def test_out_sharding_goes_to_the_rows():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    spec = jax.sharding.PartitionSpec("data", None)
    with jax.set_mesh(mesh):
        layer = liftnn.Embed(4, 2, rngs=liftnn.Rngs(0))
        assert jax.typeof(layer(jnp.array([0, 1]), out_sharding=spec)).sharding.spec == spec
        assert jax.typeof(layer.attend(jnp.ones((3, 2)), out_sharding=spec)).sharding.spec == spec


def test_floats_are_refused():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Embed(4, 2, rngs=liftnn.Rngs(0))(jnp.array([1.0]))
    assert str(info.value) == (
        "Embed looks up integers, but its inputs have dtype float32.\nConvert them with inputs.astype(int)."
    )


def test_a_query_of_another_size_is_refused():
    with pytest.raises(errors.ArgumentError, match="expects 2 input features"):
        liftnn.Embed(4, 2, rngs=liftnn.Rngs(0)).attend(jnp.ones((3, 5)))
