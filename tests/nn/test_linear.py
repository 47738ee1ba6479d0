from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors

ATTRIBUTES = (
    "kernel", "bias", "in_features", "out_features", "use_bias", "dtype", "param_dtype", "precision",
    "kernel_init", "bias_init", "dot_general",
)  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_bias": False},
        {"dtype": jnp.bfloat16},
        {"param_dtype": jnp.bfloat16},
        {"param_dtype": jnp.float16, "dtype": jnp.float32},
        {"precision": "highest"},
        {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32},
    ],
)
@pytest.mark.sample(8)
def test_outputs_and_gradients_are_those_of_flax(options, agrees_with_flax, rand, drawn):
    agrees_with_flax("Linear", 3, 5, x=rand(4, 3), grad=True, **drawn, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"param_dtype": jnp.bfloat16}, {"use_bias": False, "kernel_init": liftnn.initializers.he_uniform()}],
)
def test_initial_weights_are_those_of_flax(options, agrees_with_flax, rand):
    agrees_with_flax("Linear", 3, 5, x=rand(4, 3), **options)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (0, 3)])
def test_any_number_of_batch_axes(shape, agrees_with_flax, rand, drawn):
    agrees_with_flax("Linear", 3, 5, **drawn, x=rand(*shape))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, jnp.uint8, bool])
def test_dtypes_of_the_input_are_promoted_as_in_flax(dtype, agrees_with_flax, rand, drawn):
    agrees_with_flax("Linear", 3, 5, **drawn, x=rand(2, 3, dtype=dtype))


def test_layers_from_one_rngs_get_different_weights_the_same_as_in_flax():
    ours, theirs = liftnn.Rngs(0), nnx.Rngs(0)
    kernels = [liftnn.Linear(3, 5, rngs=ours).kernel.value for _ in range(2)]
    np.testing.assert_array_equal(kernels, [nnx.Linear(3, 5, rngs=theirs).kernel[...] for _ in range(2)])
    assert not np.array_equal(*kernels)


def test_a_default_layer_has_the_attributes_of_the_recording_in_order():
    assert (
        tuple(a for a in vars(liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))) if not a.startswith("_"))
        == ATTRIBUTES
    )


def test_an_option_that_is_given_becomes_an_attribute():
    def promote(arrays, *, dtype):
        return tuple(jnp.asarray(a, dtype) for a in arrays)

    layer = liftnn.Linear(
        2, 2, promote_dtype=promote, preferred_element_type=jnp.float32, rngs=liftnn.Rngs(0)
    )
    assert layer.promote_dtype is promote
    assert layer.preferred_element_type is jnp.float32
    assert layer(jnp.ones((1, 2))).shape == (1, 2)


def test_without_bias_the_bias_is_none():
    assert liftnn.Linear(2, 2, use_bias=False, rngs=liftnn.Rngs(0)).bias is None


def test_metadata_goes_to_the_params():
    layer = liftnn.Linear(
        2, 2, kernel_metadata={"axes": ("in", "out")}, bias_metadata={"note": "b"}, rngs=liftnn.Rngs(0)
    )
    assert layer.kernel.axes == ("in", "out")
    assert layer.bias.note == "b"


def test_the_given_dot_general_is_called_without_options_that_were_not_given():
    calls = []

    def dot_general(lhs, rhs, dimension_numbers, precision):
        calls.append(dimension_numbers)
        return jax.lax.dot_general(lhs, rhs, dimension_numbers, precision=precision)

    layer = liftnn.Linear(2, 2, dot_general=dot_general, rngs=liftnn.Rngs(0))
    layer(jnp.ones((5, 2)))
    assert calls == [(((1,), (0,)), ((), ()))]


def test_out_sharding_goes_to_the_product():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        layer = liftnn.Linear(2, 4, rngs=liftnn.Rngs(0))
        y = layer(jnp.ones((4, 2)), out_sharding=jax.sharding.PartitionSpec("data", None))
    assert jax.typeof(y).sharding.spec == jax.sharding.PartitionSpec("data", None)


def test_a_wrong_number_of_features_is_refused_with_both_numbers():
    layer = liftnn.Linear(3, 4, rngs=liftnn.Rngs(0))
    with pytest.raises(errors.ArgumentError) as info:
        layer(jnp.ones((2, 5)))
    assert str(info.value) == (
        "This Linear expects 3 input features, but its input of shape (2, 5) has 5 along axis 1.\n"
        "Create the layer with the input's number of features, or change the input."
    )


def test_a_scalar_is_refused():
    with pytest.raises(errors.ArgumentError, match=r"axes \(-1,\), but its input has 0 axes"):
        liftnn.Linear(3, 4, rngs=liftnn.Rngs(0))(1.0)


def test_a_seed_in_place_of_rngs_is_refused():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Linear(3, 4, rngs=0)
    assert str(info.value) == (
        "A layer initializes its weights with a liftnn.Rngs, but rngs is of type int.\n"
        "Pass rngs=liftnn.Rngs(0), where 0 is the seed."
    )


def test_an_integer_dtype_is_refused():
    with pytest.raises(errors.ArgumentError, match="cannot compute in dtype=int32"):
        liftnn.Linear(3, 4, dtype=jnp.int32, rngs=liftnn.Rngs(0))(jnp.ones((2, 3)))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (0, 3)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.sample(3)
def test_the_default_product_compiles_to_what_dot_general_does(shape, dtype):
    def step(layer, x):
        return liftnn.grad(lambda m: m(x).sum())(layer)

    def lowered(**options):
        layer = liftnn.Linear(3, 5, param_dtype=dtype, rngs=liftnn.Rngs(0), **options)
        return liftnn.jit(step).lower(layer, jnp.ones(shape, dtype)).as_text()

    assert lowered() == lowered(dot_general=lambda *args, **options: jax.lax.dot_general(*args, **options))


@pytest.mark.parametrize(
    "x, text",
    [(None, "None"), ("a", "of type str"), (liftnn.Rngs(0), "of type Rngs")],
    ids=["None", "str", "Rngs"],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: liftnn.Linear(3, 4, rngs=rngs),
        lambda rngs: liftnn.LinearGeneral(3, 4, rngs=rngs),
        lambda rngs: liftnn.Conv(3, 4, (2,), rngs=rngs),
        lambda rngs: liftnn.LoRA(3, 2, 4, rngs=rngs),
        lambda rngs: liftnn.Embed(3, 4, rngs=rngs),
        lambda rngs: liftnn.MultiHeadAttention(1, 3, rngs=rngs),
        lambda rngs: liftnn.BatchNorm(3, rngs=rngs),
        lambda rngs: liftnn.LayerNorm(3, rngs=rngs),
        lambda rngs: liftnn.RMSNorm(3, rngs=rngs),
        lambda rngs: liftnn.GroupNorm(3, 1, rngs=rngs),
        lambda rngs: liftnn.InstanceNorm(3, rngs=rngs),
        lambda rngs: liftnn.RNN(liftnn.GRUCell(3, 4, rngs=rngs)),
        lambda rngs: liftnn.Dropout(0.5, rngs=rngs),
        lambda rngs: liftnn.PReLU(),
    ],
)
def test_an_input_that_is_not_an_array_is_refused(make, x, text):
    layer = make(liftnn.Rngs(0))
    with pytest.raises(errors.ArgumentTypeError) as info:
        layer(x)
    assert str(info.value) == (
        f"This {type(layer).__name__} takes an array, but its input is {text}.\n"
        "Pass an array. If the input is the result of a function, check that it returns one."
    )


@pytest.mark.parametrize(
    "layer",
    [
        liftnn.Linear(3, 4, rngs=liftnn.Rngs(0)),
        liftnn.MultiHeadAttention(1, 3, rngs=liftnn.Rngs(0)),
        liftnn.BatchNorm(3, rngs=liftnn.Rngs(0)),
        liftnn.LayerNorm(3, rngs=liftnn.Rngs(0)),
        liftnn.RMSNorm(3, rngs=liftnn.Rngs(0)),
        liftnn.GroupNorm(3, 1, rngs=liftnn.Rngs(0)),
        liftnn.InstanceNorm(3, rngs=liftnn.Rngs(0)),
        liftnn.PReLU(),
        lambda x: liftnn.pool(x, 0.0, jax.lax.add, (1,), None, "VALID"),
        lambda x: liftnn.avg_pool(x, (1,)),
        lambda x: liftnn.max_pool(x, (1,)),
        lambda x: liftnn.min_pool(x, (1,)),
    ],
)
def test_nested_lists_of_numbers_are_arrays(layer):
    x = [[1.0, 2.0, 3.0], [4.0, 6.0, 5.0]]
    np.testing.assert_array_equal(layer(x), layer(jnp.array(x)))


def test_a_mask_may_be_a_list():
    layer, x, mask = liftnn.GroupNorm(4, 2, rngs=liftnn.Rngs(0)), jnp.arange(8.0).reshape(2, 4), [[1], [0]]
    np.testing.assert_array_equal(layer(x, mask=mask), layer(x, mask=jnp.array(mask)))


@pytest.mark.parametrize("name", sorted(set(liftnn.initializers.__all__) - {"Initializer", "ones", "zeros"}))
def test_a_function_that_makes_initializers_is_refused_before_a_key_is_drawn(name):
    factory, rngs = getattr(liftnn.initializers, name), liftnn.Rngs(0)
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Linear(3, 4, kernel_init=factory, rngs=rngs)
    name = factory.__name__
    assert str(info.value) == (
        f"{name} makes an initializer; it is not one itself.\nCall it: `{name}()` in place of `{name}`."
    )
    assert int(rngs.default.count) == 0


def test_ones_and_zeros_are_initializers_themselves():
    layer = liftnn.Linear(
        3, 4, kernel_init=liftnn.initializers.ones, bias_init=liftnn.initializers.zeros, rngs=liftnn.Rngs(0)
    )
    assert (float(layer.kernel.sum()), float(layer.bias.sum())) == (12.0, 0.0)


def test_a_library_may_replace_the_code_of_the_product(monkeypatch):
    """As qwix does for quantization, which puts its own arrays into the parameters, too."""

    def replaced(lhs, rhs, *args, **kwargs):
        import jax.numpy as jnp

        return jnp.full((*lhs.shape[:-1], rhs.shape[-1]), 7.0)

    class Quantized:
        shape, ndim = (3, 4), 2

    layer, x = (
        liftnn.Linear(3, 4, use_bias=False, promote_dtype=lambda x, dtype: x, rngs=liftnn.Rngs(0)),
        jnp.ones((2, 3)),
    )
    product = layer(x)
    with monkeypatch.context() as patch:
        patch.setattr(jax.lax.dot_general, "__code__", replaced.__code__)
        assert (layer(x) == 7).all()
        assert (liftnn.jit(lambda layer, x: layer(x))(layer, x) == 7).all()
        layer.kernel.raw_value = Quantized()
        assert (layer(x) == 7).all()
    assert (product != 7).all()
