"""RoPE and attention with it give the numbers of Flax NNX, bit for bit; older versions of Flax do not have them."""

import functools

import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn.compat import nnx

pytestmark = pytest.mark.filterwarnings("ignore:'.value' access is now deprecated")  # Flax's own use of it
in_flax = pytest.mark.skipif(not hasattr(flax.nnx, "RoPE"), reason="not in this version of Flax")
X = jax.random.normal(jax.random.key(0), (2, 5, 4))
TABLES = {"tables": {"embedding_size": 4, "max_seq_len": 7}, "no tables": {}, "base": {"theta": 500.0}}


@in_flax
@pytest.mark.parametrize("options", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize(
    "positions", [None, jnp.array([3.0, 1.0, 4.0, 1.0, 5.0])], ids=["0, 1, ...", "given"]
)
def test_rotated_features_are_those_of_flax(options, positions):
    expected = flax.nnx.RoPE(**options)(X, positions)
    actual = nnx.RoPE(**options)(X, positions)
    assert actual.tobytes() == expected.tobytes()


@in_flax
@pytest.mark.parametrize("options", TABLES.values(), ids=TABLES.keys())
def test_attention_is_that_of_flax(options):
    def run(library):
        attend = functools.partial(library.dot_product_attention_with_rope, rope=library.RoPE(**options))
        rngs = library.Rngs(0)
        layer = library.MultiHeadAttention(2, 8, attention_fn=attend, decode=False, rngs=rngs)
        return layer(jnp.concatenate([X, X], axis=-1))

    assert run(nnx).tobytes() == run(flax.nnx).tobytes()


@pytest.mark.parametrize("options", TABLES.values(), ids=TABLES.keys())
def test_rotated_features_are_those_of_the_formula(options):
    actual = nnx.RoPE(**options)(X)
    angles = np.arange(5.0)[:, None] * options.get("theta", 1e4) ** (-2 * np.arange(2) / 4)
    turned = (np.asarray(X)[..., :2] + 1j * np.asarray(X)[..., 2:]) * np.exp(1j * angles)
    np.testing.assert_allclose(
        actual, np.concatenate([turned.real, turned.imag], axis=-1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.thorough
def test_each_sequence_may_have_positions_of_its_own():
    positions = jnp.array([[0.0, 1.0, 2.0, 3.0, 4.0], [7.0, 7.0, 1.0, 0.0, 2.0]])
    rope, q = nnx.RoPE(), X.reshape(2, 5, 1, 4)
    actual = nnx.dot_product_attention_with_rope(q, q, q, rope=rope, input_positions=positions)
    for i in range(2):
        expected = nnx.dot_product_attention_with_rope(
            q[i], q[i], q[i], rope=rope, input_positions=positions[i]
        )
        np.testing.assert_allclose(actual[i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: nnx.RoPE(embedding_size=4), "RoPE got only one of embedding_size and max_seq_len."),
        (
            lambda: nnx.RoPE(embedding_size=3, max_seq_len=2),
            "RoPE rotates pairs of features, but embedding_size is 3.",
        ),
        (
            lambda: nnx.RoPE(embedding_size=4, max_seq_len=3)(X),
            "RoPE has tables for 3 positions, but the input has 5.",
        ),
        (
            lambda: nnx.RoPE()(X, jnp.arange(3.0)),
            "The input of RoPE has 5 positions, but input_positions has shape (3,).",
        ),
    ],
)
def test_what_does_not_fit_is_an_error(call, text):
    with pytest.raises(liftnn.ArgumentError) as error:
        call()
    assert str(error.value).startswith(text)
