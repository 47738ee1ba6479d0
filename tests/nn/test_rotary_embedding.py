from __future__ import annotations

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors


def rotated_by_formula(x, positions, base):
    """The formula of the paper: each pair of features is a complex number, times `exp(i * position * frequency)`."""
    depth = x.shape[-1]
    frequencies = base ** (-2 * np.arange(depth // 2) / depth)
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * positions[..., None, None] * frequencies)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


@pytest.mark.thorough
@pytest.mark.parametrize("base", [10_000.0, 500.0])
@pytest.mark.parametrize("positions", [None, [3, 1, 0, 7], [[0, 1, 2, 3], [5, 6, 7, 8]]])
@pytest.mark.sample(6)
def test_interleaved_pairs_are_rotated_as_in_the_paper(base, positions, rand, close):
    x = rand(2, 4, 3, 8)
    y = liftnn.rotary_embedding(
        x, None if positions is None else jnp.array(positions), base=base, interleaved=True
    )
    expected = rotated_by_formula(np.asarray(x), np.asarray(positions or np.arange(4)), base)
    close(y, expected.astype(np.float32))


@pytest.mark.thorough
def test_pairs_of_halves_are_rotated_as_in_equinox(rand, close):
    x = rand(6, 3, 8)
    close(
        liftnn.rotary_embedding(x),
        jax.vmap(equinox.nn.RotaryPositionalEmbedding(8), in_axes=1, out_axes=1)(x),
    )


@pytest.mark.thorough
def test_both_pairings_are_the_same_up_to_the_order_of_features(rand, close):
    x = rand(4, 3, 8)
    order = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    close(liftnn.rotary_embedding(x)[..., order], liftnn.rotary_embedding(x[..., order], interleaved=True))


@pytest.mark.thorough
@pytest.mark.parametrize("interleaved", [False, True])
def test_products_depend_on_the_difference_of_positions(interleaved, rand, close):
    query, key = rand(1, 1, 8), 2 * rand(1, 1, 8) + 1

    def product(m, n):
        rotated = [
            liftnn.rotary_embedding(x, jnp.array([p]), interleaved=interleaved)
            for x, p in ((query, m), (key, n))
        ]
        return jnp.sum(rotated[0] * rotated[1])

    np.testing.assert_allclose(product(3, 1), product(13, 11), rtol=1e-5)
    assert not np.allclose(product(3, 1), product(3, 2), rtol=1e-2)


def test_the_first_position_is_not_rotated(rand):
    x = rand(2, 4, 3, 8)
    np.testing.assert_array_equal(liftnn.rotary_embedding(x)[:, 0], x[:, 0])


def test_bfloat16_is_rotated_in_float32_and_rounded_once(rand):
    x = rand(4, 3, 8, dtype=jnp.bfloat16)
    y = liftnn.rotary_embedding(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, liftnn.rotary_embedding(x.astype(jnp.float32)).astype(jnp.bfloat16))


@pytest.mark.parametrize("x", [jnp.ones((4, 8)), jnp.ones((4, 2, 7)), jnp.ones((4, 2, 8), int)])
def test_what_cannot_be_rotated_is_refused(x):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.rotary_embedding(x)
    assert str(info.value) == (
        "rotary_embedding rotates pairs of features of a floating point array of shape (*batch, length, heads, depth), "
        f"but its input has shape {x.shape} and dtype {x.dtype.name}.\n"
        "Pass an array with these axes and an even depth; add an axis of one head with x[..., None, :]."
    )


@pytest.mark.parametrize("shape", [(5,), (3, 4), (1, 2, 4)])
def test_positions_of_another_shape_are_refused(shape):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.rotary_embedding(jnp.ones((2, 4, 3, 8)), jnp.zeros(shape))
    assert str(info.value) == (
        f"The positions have shape {shape}, but an input of shape (2, 4, 3, 8) has positions of shape (2, 4).\n"
        "Pass one position for each entry along the axis of length."
    )
