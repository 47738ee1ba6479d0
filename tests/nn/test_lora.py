from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import liftnn
from liftnn import errors

ONES = {"b_initializer": liftnn.initializers.ones}
DTYPES = [jnp.float32, jnp.bfloat16]


def make_pairs(**options):
    """The layers of both libraries from one seed: alone, around a Linear, and as a Linear."""
    linear_options = {f"lora_{k}" if k.endswith("dtype") else k: v for k, v in options.items()}
    for library in (liftnn, nnx):
        base = library.Linear(3, 5, rngs=library.Rngs(1))
        yield (
            library.LoRA(3, 2, 5, rngs=library.Rngs(0), **options),
            library.LoRA(3, 2, 5, base_module=base, rngs=library.Rngs(0), **options),
            library.LoRALinear(3, 5, lora_rank=2, rngs=library.Rngs(0), **linear_options),
        )


def weights_of(layer):
    adaptation = getattr(layer, "lora", layer)
    base = getattr(layer, "base_module", layer)
    linear = () if base is None else (base.kernel, base.bias)
    return [x[...] for x in (adaptation.lora_a, adaptation.lora_b, *linear)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options", [{}, ONES, {**ONES, "dtype": jnp.bfloat16}, {**ONES, "param_dtype": jnp.bfloat16}]
)
@pytest.mark.sample(9)
def test_weights_and_outputs_are_those_of_flax_bit_for_bit(options, dtype, rand, identical):
    for ours, theirs in zip(*make_pairs(**options), strict=True):
        for weight, expected in zip(weights_of(ours), weights_of(theirs), strict=True):
            identical(weight, expected)
        identical(ours(rand(4, 3, dtype=dtype)), theirs(rand(4, 3, dtype=dtype)))


def test_gradients_are_those_of_flax_bit_for_bit(rand, identical):
    x = rand(4, 3)
    (*_, ours), (*_, theirs) = make_pairs(**ONES)
    mine = liftnn.grad(lambda model: jnp.sin(model(x)).sum())(ours)
    flax = nnx.grad(lambda model: jnp.sin(model(x)).sum())(theirs)
    for name in ("kernel", "bias"):
        identical(mine[name].value, flax[name][...])
    for name in ("lora_a", "lora_b"):
        identical(mine["lora"][name].value, flax["lora"][name][...])


def test_an_adaptation_changes_nothing_at_first(rand):
    linear = liftnn.Linear(3, 5, rngs=liftnn.Rngs(1))
    wrapper = liftnn.LoRA(3, 2, 5, base_module=linear, rngs=liftnn.Rngs(0))
    np.testing.assert_array_equal(wrapper(rand(4, 3)), linear(rand(4, 3)))


def test_a_linear_with_an_adaptation_takes_the_weights_of_a_linear(rand):
    linear = liftnn.Linear(3, 5, bias_init=liftnn.initializers.normal(), rngs=liftnn.Rngs(1))
    adapted = liftnn.LoRALinear(3, 5, lora_rank=2, rngs=liftnn.Rngs(0))
    liftnn.update(adapted, liftnn.state(linear))
    np.testing.assert_array_equal(adapted(rand(4, 3)), linear(rand(4, 3)))


def test_training_by_type_changes_the_adaptation_alone(rand):
    model = liftnn.LoRALinear(3, 5, lora_rank=2, rngs=liftnn.Rngs(0))
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1), wrt=liftnn.LoRAParam)
    before = liftnn.state(model)

    @liftnn.jit
    def step(model, optimizer):
        grads = liftnn.grad(lambda m: (m(rand(4, 3)) ** 2).sum(), wrt=liftnn.LoRAParam)(model)
        optimizer.update(model, grads)

    step(model, optimizer)
    after = liftnn.state(model)
    assert not np.array_equal(after["lora"]["lora_b"].value, before["lora"]["lora_b"].value)
    np.testing.assert_array_equal(after["kernel"].value, before["kernel"].value)


def test_the_type_and_the_metadata_of_the_weights_can_be_chosen():
    class Adapted(liftnn.Variable):
        pass

    layer = liftnn.LoRA(
        3,
        2,
        5,
        lora_param_type=Adapted,
        a_metadata={"sharding": ("in", None)},
        b_metadata={"note": "b"},
        rngs=liftnn.Rngs(0),
    )
    assert (type(layer.lora_a), type(layer.lora_b)) == (Adapted, Adapted)
    assert layer.lora_a.sharding == ("in", None)
    assert layer.lora_b.note == "b"


def test_keyword_arguments_go_to_the_base_module():
    base = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
    layer = liftnn.LoRA(64, 2, 64, base_module=base, rngs=liftnn.Rngs(1))
    np.testing.assert_array_equal(layer(jnp.ones(64), deterministic=True), np.ones(64))
    assert (layer(jnp.ones(64)) == 0).any()


def test_other_options_go_to_the_linear():
    layer = liftnn.LoRALinear(3, 5, lora_rank=2, use_bias=False, dtype=jnp.bfloat16, rngs=liftnn.Rngs(0))
    assert layer.bias is None
    assert layer.dtype == jnp.bfloat16


def test_out_sharding_goes_to_the_linear():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    spec = jax.sharding.PartitionSpec("data", None)
    with jax.set_mesh(mesh):
        layer = liftnn.LoRALinear(2, 4, lora_rank=1, rngs=liftnn.Rngs(0))
        x = jax.device_put(jnp.ones((4, 2)), jax.sharding.NamedSharding(mesh, spec))
        assert jax.typeof(layer(x, out_sharding=spec)).sharding.spec == spec


def test_a_wrong_number_of_features_is_refused():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.LoRA(3, 2, 5, rngs=liftnn.Rngs(0))(jnp.ones((4, 6)))
    assert str(info.value) == (
        "This LoRA expects 3 input features, but its input of shape (4, 6) has 6 along axis 1.\n"
        "Create the layer with the input's number of features, or change the input."
    )


def test_a_base_module_that_cannot_be_called_is_refused():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.LoRA(3, 2, 5, base_module=liftnn.Module(), rngs=liftnn.Rngs(0))
    assert str(info.value) == (
        "LoRA adds the output of base_module, which is not callable, but of type Module.\n"
        "Pass a module with a method __call__."
    )


def test_a_seed_in_place_of_rngs_is_refused():
    with pytest.raises(errors.ArgumentError, match="rngs is of type int"):
        liftnn.LoRA(3, 2, 5, rngs=0)


def test_in_a_stack_a_lora_is_put_into_each_layer():
    rngs, x = liftnn.Rngs(0), jnp.ones((1, 8))
    stack = liftnn.Stack(3, lambda rngs: liftnn.Linear(8, 8, rngs=rngs), rngs=rngs)

    def change(layer):
        return liftnn.LoRA(8, 2, 8, base_module=layer, rngs=rngs)

    wrong = liftnn.clone(stack)
    wrong.layers = change(wrong.layers)
    with pytest.raises(errors.ArgumentError) as info:
        wrong(x)
    assert str(info.value) == (
        "This Stack has 3 layers, but layers.lora_a has 8 along axis 0.\n"
        "What is put into `stack.layers` needs one value for each layer, stacked along axis 0. Put it into each layer "
        "and make a new Stack: `liftnn.Stack.from_list([change(layer) for layer in stack.to_list()])`."
    )
    expected = x
    for layer in (layers := [change(layer) for layer in stack.to_list()]):
        expected = layer(expected)
    np.testing.assert_allclose(liftnn.Stack.from_list(layers)(x), expected, rtol=1e-6)
