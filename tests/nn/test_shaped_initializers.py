"""A kernel of several axes has the values of a matrix, whatever initializer drew it, and no matrix in between."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import liftnn
from liftnn import initializers
from liftnn._src.nn.shaped_initializers import initializer_of_shape, initializer_of_vector

ROWS, COLUMNS = (2, 3), (4, 5)
INITIALIZERS = {
    **{
        name: getattr(initializers, name)()
        for name in initializers.__all__
        if name.endswith(("normal", "uniform")) and name != "delta_orthogonal"
    },
    "normal of a scale": initializers.normal(0.5, jnp.bfloat16),
    "fan_avg": initializers.variance_scaling(2.0, "fan_avg", "normal"),
    "fan_geo_avg": initializers.variance_scaling(2.0, "fan_geo_avg", "uniform"),
    "other axes": initializers.variance_scaling(2.0, "fan_in", "uniform", in_axis=-1, out_axis=-2),
    "constant": initializers.constant(2.0),
    "zeros": initializers.zeros,
    "orthogonal": initializers.orthogonal(),
    "a function of the user": lambda key, shape, dtype: jnp.arange(shape[0] * shape[1], dtype=dtype).reshape(
        shape
    ),
}
SHARED = (
    "normal",
    "uniform",
    "constant",
    "zeros",
    "lecun",
    "xavier",
    "glorot",
    "he_",
    "kaiming",
    "truncated",
    "fan_",
)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.sample(64)
def test_the_values_are_those_of_the_matrix_bit_by_bit(name, dtype):
    if name in ("orthogonal", "uniform", "truncated_normal") and dtype != jnp.float32:
        pytest.skip("JAX draws no such numbers")
    init, key = INITIALIZERS[name], jax.random.key(0)
    actual = initializer_of_shape(init, ROWS, COLUMNS)(key, ROWS + COLUMNS, dtype)
    np.testing.assert_array_equal(actual, init(key, (6, 20), dtype).reshape(ROWS + COLUMNS))


@pytest.mark.parametrize("name", [n for n in INITIALIZERS if n in ("normal", "constant", "zeros", "uniform")])
def test_the_values_of_a_vector_too(name):
    init, key = INITIALIZERS[name], jax.random.key(0)
    actual = initializer_of_vector(init, COLUMNS)(key, COLUMNS, jnp.float32)
    np.testing.assert_array_equal(actual, init(key, (20,), jnp.float32).reshape(COLUMNS))


@pytest.mark.parametrize("name", [n for n in INITIALIZERS if n.startswith(SHARED)])
def test_no_matrix_is_drawn_in_between(name):
    init = initializer_of_shape(INITIALIZERS[name], ROWS, COLUMNS)
    text = str(jax.make_jaxpr(lambda key: init(key, ROWS + COLUMNS, jnp.float32))(jax.random.key(0)))
    assert "[6,20]" not in text


def test_metadata_of_initializers_are_kept_in_any_order():
    init = liftnn.with_metadata(
        liftnn.with_partitioning(initializers.lecun_normal(), (None, None, "model")), tag="a"
    )
    plain = liftnn.LinearGeneral(6, (2, 4), rngs=liftnn.Rngs(0))
    layer = liftnn.LinearGeneral(6, (2, 4), kernel_init=init, rngs=liftnn.Rngs(0))
    assert layer.kernel.get_metadata() == {"sharding": (None, None, "model"), "tag": "a"}
    np.testing.assert_array_equal(layer.kernel.value, plain.kernel.value)


def test_a_kernel_that_is_sharded_along_its_last_axis_is_never_whole():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    init = liftnn.with_partitioning(initializers.lecun_normal(), (None, None, "d"))

    def make():
        return liftnn.LinearGeneral(512, (8, 128), use_bias=False, kernel_init=init, rngs=liftnn.Rngs(0))

    shardings = liftnn.get_named_sharding(liftnn.eval_shape(make), mesh)
    compiled = liftnn.jit(make, out_shardings=shardings).lower().compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 512 * 8 * 128 * 4
