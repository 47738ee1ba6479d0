from __future__ import annotations

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.nnx.nn import dtypes as flax_dtypes
from tests.quick import quick

import liftnn
from liftnn import errors
from liftnn._src.nn import dtypes

ARRAYS = [jnp.ones(2, d) for d in (jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64, jnp.int32, bool)]
ARRAYS += [1, 2.0, None, jnp.asarray(2.0), np.ones(2, np.float32)]


@pytest.mark.parametrize("inexact", [True, False])
@pytest.mark.parametrize("arrays", list(itertools.combinations_with_replacement(ARRAYS, 2)))
def test_promotion_is_that_of_flax(arrays, inexact):
    if all(a is None for a in arrays):
        pytest.skip("nothing to infer from")
    ours = dtypes.promote_dtype(arrays, inexact=inexact)
    theirs = flax_dtypes.promote_dtype(arrays, inexact=inexact)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.dtype, a.weak_type) == (b.dtype, b.weak_type)


def test_a_given_dtype_is_used():
    x, none = dtypes.promote_dtype((jnp.ones(2), None), dtype=jnp.bfloat16)
    assert (x.dtype, none) == (jnp.bfloat16, None)


def test_a_given_integer_dtype_is_refused_unless_it_may_be_exact():
    with pytest.raises(errors.ArgumentError) as info:
        dtypes.promote_dtype((jnp.ones(2),), dtype=jnp.int8)
    assert str(info.value) == (
        "A layer cannot compute in dtype=int8: it needs a floating point or complex dtype.\n"
        "Pass a dtype such as jax.numpy.float32 or jax.numpy.bfloat16, or None to infer it."
    )
    assert dtypes.promote_dtype((jnp.ones(2),), dtype=jnp.int8, inexact=False)[0].dtype == jnp.int8


# --- all layers against Flax

RECURRENT = {"recurrent_kernel_init": liftnn.initializers.normal()}  # Flax's default has no half precision
LAYERS = {
    "Linear": ((4, 3), {}, (2, 4)),
    "LinearGeneral": ((4, (2, 3)), {}, (2, 4)),
    "Einsum": (("ab,bc->ac", (4, 3), (3,)), {}, (2, 4)),
    "Embed": ((5, 3), {}, None),
    "Conv": ((4, 3, (3,)), {}, (2, 6, 4)),
    "ConvTranspose": ((4, 3, (3,)), {}, (2, 6, 4)),
    "MultiHeadAttention": ((2, 4), {"normalize_qk": True, "decode": False}, (2, 5, 4)),
    "LoRA": ((4, 2, 3), {}, (2, 4)),
    "LoRALinear": ((4, 3), {"lora_rank": 2}, (2, 4)),
    "BatchNorm": ((4,), {}, (5, 4)),
    "LayerNorm": ((4,), {}, (5, 4)),
    "RMSNorm": ((4,), {}, (5, 4)),
    "GroupNorm": ((4,), {"num_groups": 2}, (5, 4)),
    "InstanceNorm": ((4,), {}, (2, 5, 4)),
    "SimpleCell": ((4, 3), RECURRENT, (2, 4)),
    "GRUCell": ((4, 3), RECURRENT, (2, 4)),
    "LSTMCell": ((4, 3), RECURRENT, (2, 4)),
    "OptimizedLSTMCell": ((4, 3), RECURRENT, (2, 4)),
}
"""The arguments of each layer, and the shape of its input; None for integers."""
BFLOAT16, FLOAT32 = jnp.bfloat16, jnp.float32
COMBINATIONS = [
    {"x": BFLOAT16},
    {"x": FLOAT32, "dtype": BFLOAT16},
    {"x": FLOAT32, "param_dtype": BFLOAT16},
    {"x": BFLOAT16, "param_dtype": BFLOAT16},
    {"x": BFLOAT16, "param_dtype": BFLOAT16, "dtype": FLOAT32},
    {"x": FLOAT32},
]


def both(name, **options):
    """The layer of both libraries; options that it does not have are left out."""
    args, own, _ = LAYERS[name]
    known = inspect.signature(getattr(nnx, name).__init__).parameters
    options = {**own, **{k: v for k, v in options.items() if k in known}}
    return [getattr(lib, name)(*args, **options, rngs=lib.Rngs(0)) for lib in (liftnn, nnx)]


def run(name, layer, rand, dtype):
    """The leaves of the output of a layer."""
    shape = LAYERS[name][2]
    if shape is None:
        return [layer(jnp.arange(4)), layer.attend(rand(2, 3, dtype=dtype))]
    if not name.endswith("Cell"):
        return [layer(rand(*shape, dtype=dtype))]
    rngs = liftnn.Rngs(0) if isinstance(layer, liftnn.Module) else nnx.Rngs(0)
    carry = jax.tree.map(lambda c: rand(*c.shape, dtype=dtype), layer.initialize_carry(shape, rngs))
    return jax.tree.leaves(layer(carry, rand(*shape, dtype=dtype)))


@pytest.mark.parametrize("combination", quick(COMBINATIONS), ids=str)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.sample(40)
def test_results_in_each_dtype_are_those_of_flax_bit_for_bit(name, combination, rand, identical):
    options = {k: v for k, v in combination.items() if k != "x"}
    ours, theirs = both(name, **options)
    for mine, flax in zip(
        run(name, ours, rand, combination["x"]), run(name, theirs, rand, combination["x"]), strict=True
    ):
        identical(mine, flax)
    flat = {str(path): x[...] for path, x in nnx.to_flat_state(nnx.state(theirs, nnx.Param))}
    assert flat.keys() == {str(path) for path in liftnn.state(ours, liftnn.Param).flat()}
    for path, x in liftnn.state(ours, liftnn.Param).flat().items():
        identical(x.value, flat[str(path)])


def to_half(args, /, *, dtype=None, inexact=True):
    """A rule of promotion that no layer has by default."""
    return tuple(None if x is None else jnp.asarray(x, jnp.float16) for x in args)


OPTIONS = {
    "precision": "highest",
    "promote_dtype": to_half,
    "qkv_promote_dtype": to_half,
    "out_promote_dtype": to_half,
    "ln_promote_dtype": to_half,
    "dot_general": functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float16),
    "preferred_element_type": jnp.float16,
}


@pytest.mark.parametrize(
    "case",
    quick(
        [
            (name, option)
            for option in OPTIONS
            for name in LAYERS
            if option in inspect.signature(getattr(nnx, name).__init__).parameters
        ],
        4,
    ),
    ids=str,
)
def test_options_of_the_computation_are_used_as_in_flax(case, rand, identical):
    name, option = case
    ours, theirs = both(name, **{option: OPTIONS[option]})
    try:
        expected = run(name, theirs, rand, jnp.float32)
    except TypeError as error:  # as for a cell with a carry of another dtype
        with pytest.raises(type(error)):
            run(name, ours, rand, jnp.float32)
        return
    for mine, flax in zip(run(name, ours, rand, jnp.float32), expected, strict=True):
        identical(mine, flax)


@pytest.mark.filterwarnings("ignore:An array has replaced a:liftnn.AttributeWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_arrays_in_place_of_weights_are_used_as_the_weights(name, rand, identical):
    layer = both(name)[0]
    expected = run(name, layer, rand, jnp.float32)
    for _, module in list(layer.iter_modules()):
        for attribute, x in list(vars(module).items()):
            if isinstance(x, liftnn.Param):
                setattr(module, attribute, x.value)
    assert not liftnn.state(layer, liftnn.Param)
    for mine, plain in zip(run(name, layer, rand, jnp.float32), expected, strict=True):
        identical(mine, plain)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", LAYERS)
def test_metadata_reach_the_same_variables_as_in_flax(name):
    names = [p for p in inspect.signature(getattr(nnx, name).__init__).parameters if p.endswith("_metadata")]
    ours, theirs = both(name, **{p: {"tag": p} for p in names})
    found = {str(path): x.get_metadata("tag") for path, x in liftnn.state(ours, liftnn.Param).flat().items()}
    expected = nnx.to_flat_state(nnx.state(theirs, nnx.Param))
    assert found == {str(path): x.get_metadata().get("tag") for path, x in expected}
    assert names


def test_the_table_has_every_layer_with_weights():
    modules = {
        n for n in liftnn.__all__ if isinstance(x := getattr(liftnn, n), type) if issubclass(x, liftnn.Module)
    }
    weights = {n for n in modules if "param_dtype" in inspect.signature(getattr(liftnn, n)).parameters}
    assert weights - set(LAYERS) == {"PReLU", "SpectralNorm", "WeightNorm"}  # with tests of their own
