from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn import errors


@pytest.mark.parametrize(
    "features, options, shape",
    [
        ((3, 4), {}, (2, 3)),
        ((3, (4, 5)), {}, (2, 3)),
        (((3, 2), (4, 5)), {"axis": (1, -1)}, (6, 3, 2)),
        (((3, 2), 4), {"axis": (-2, -1), "use_bias": False}, (5, 6, 3, 2)),
        (((3, 2), 4), {"axis": (0, 2)}, (3, 6, 2)),
        ((3, 4), {"batch_axis": {0: 6}}, (6, 2, 3)),
        ((3, (4, 2)), {"batch_axis": {0: 6, 1: 2}, "axis": 3}, (6, 2, 5, 3)),
        ((3, 4), {"dtype": jnp.bfloat16}, (2, 3)),
        ((3, 4), {"dot_general": jax.lax.dot_general, "preferred_element_type": jnp.float32}, (2, 3)),
        ((3, 4), {"dot_general_cls": lambda: jax.lax.dot_general}, (2, 3)),
    ],
)
@pytest.mark.sample(10)
def test_outputs_are_those_of_flax(features, options, shape, agrees_with_flax, rand, drawn):
    agrees_with_flax("LinearGeneral", *features, **drawn, x=rand(*shape), **options)


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{}, {"batch_axis": {0: 6}}])
def test_gradients_are_those_of_flax(options, agrees_with_flax, rand, drawn):
    x = rand(6, 3, 2)
    agrees_with_flax("LinearGeneral", (3, 2), (4, 5), axis=(1, 2), **drawn, **options, x=x, grad=True)


def test_initial_weights_are_those_of_flax(agrees_with_flax, rand):
    agrees_with_flax("LinearGeneral", (3, 2), (4, 5), axis=(1, 2), batch_axis={0: 6}, x=rand(6, 3, 2))


def test_axes_out_of_order_are_matched_with_their_features(rand, close, drawn):
    layer = liftnn.LinearGeneral((2, 3), 4, axis=(-1, 1), **drawn, rngs=liftnn.Rngs(0))
    x = rand(6, 3, 2)
    close(layer(x), jnp.einsum("bij,jio->bo", x, layer.kernel.value) + layer.bias.value)


def test_batch_axes_are_matched_by_number_whatever_their_order(drawn):
    ours = liftnn.LinearGeneral(3, 4, batch_axis={1: 2, 0: 6}, **drawn, rngs=liftnn.Rngs(0))
    assert ours.kernel.value.shape == (6, 2, 3, 4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((2, 3), 4), r"2 in_features, \(2, 3\), for 1 axes, \(-1,\)"),
        ((2, 4, {1: 5}), r"input's first ones, but they are \(1,\)"),
    ],
)
def test_axes_that_contradict_each_other_are_refused(arguments, message):
    features, batch_axis = arguments[:2], dict(*arguments[2:])
    with pytest.raises(errors.ArgumentError, match=message):
        liftnn.LinearGeneral(*features, batch_axis=batch_axis, rngs=liftnn.Rngs(0))


def test_a_wrong_number_of_features_is_refused():
    layer = liftnn.LinearGeneral((3, 2), 4, axis=(1, 2), rngs=liftnn.Rngs(0))
    with pytest.raises(
        errors.ArgumentError,
        match=r"expects \(3, 2\) input features along axes \(1, 2\), but .* has \(2, 3\)",
    ):
        layer(jnp.ones((6, 2, 3)))
