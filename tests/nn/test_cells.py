from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.quick import quick
from tests.raising import raises
from tests.recurrent import (
    CELLS,
    assert_same,
    draw,
    gradients_of,
    make_cell,
    make_pair,
    numbers,
    weights_of,
)

import liftnn

GATED = CELLS[1:]
BFLOAT16 = {"kernel_init": draw, "recurrent_kernel_init": draw, "param_dtype": jnp.bfloat16}
OPTIONS = {
    "defaults": {},
    "dtype": {"dtype": jnp.bfloat16},
    "param_dtype": BFLOAT16,
    "both": {**BFLOAT16, "dtype": jnp.bfloat16},
    "float16": {**BFLOAT16, "param_dtype": jnp.float16, "dtype": jnp.float32},
    "activation_fn": {"activation_fn": jax.nn.relu},
    "kernel_init": {"kernel_init": jax.nn.initializers.he_uniform()},
    "recurrent_kernel_init": {"recurrent_kernel_init": jax.nn.initializers.normal()},
    "carry_init": {"carry_init": jax.nn.initializers.normal()},
    "keep_rngs": {"keep_rngs": True},
}


def carry_of(name, dtype=jnp.float32):
    arrays = [numbers(2, 4, dtype=dtype, seed=seed) for seed in (1, 2)]
    return tuple(arrays) if "LSTM" in name else arrays[0]


@pytest.mark.thorough
@pytest.mark.parametrize("options", quick(OPTIONS.values(), 2), ids=OPTIONS)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.sample(12)
def test_weights_carry_output_and_gradients_are_those_of_flax_bit_for_bit(name, options):
    ours, theirs = make_pair(name, bias_init=draw, **options)
    assert_same(weights_of(liftnn, ours), weights_of(nnx, theirs))
    own = "keep_rngs" in options
    first = ours.initialize_carry((2, 3), None if own else liftnn.Rngs(5))
    assert_same(first, theirs.initialize_carry((2, 3), None if own else nnx.Rngs(5)))
    carry, x = carry_of(name), numbers(2, 3)
    assert_same(ours(carry, x), theirs(carry, x))

    def run(cell):
        return cell(carry, x)

    assert_same(gradients_of(liftnn, ours, run), gradients_of(nnx, theirs, run))


@pytest.mark.sample(4)
@pytest.mark.parametrize("dtype", quick([jnp.bfloat16, jnp.float16, jnp.int32]))
@pytest.mark.parametrize("name", CELLS)
def test_dtypes_of_input_and_carry_are_promoted_as_in_flax(name, dtype):
    ours, theirs = make_pair(name, bias_init=draw, **BFLOAT16)
    carry, x = carry_of(name, jnp.bfloat16), numbers(2, 3, dtype=dtype)
    assert_same(ours(carry, x), theirs(carry, x))


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", GATED)
def test_another_function_for_the_gates_gives_the_numbers_of_flax(name):
    ours, theirs = make_pair(name, gate_fn=jax.nn.hard_sigmoid)
    carry, x = carry_of(name), numbers(2, 3)
    assert_same(ours(carry, x), theirs(carry, x))


def test_a_residual_cell_adds_the_hidden_state_in_the_order_of_flax():
    ours, theirs = make_pair("SimpleCell", residual=True, bias_init=draw)
    carry, x = carry_of("SimpleCell"), numbers(2, 3)
    assert_same(ours(carry, x), theirs(carry, x))


def test_dtype_none_of_a_simple_cell_infers_the_dtype():
    cell = make_cell(liftnn, "SimpleCell", dtype=None, **BFLOAT16)
    assert (
        cell(carry_of("SimpleCell", jnp.bfloat16), numbers(2, 3, dtype=jnp.bfloat16))[1].dtype == jnp.bfloat16
    )


@pytest.mark.parametrize("name", CELLS)
def test_parameters_have_the_names_kinds_and_order_of_flax(name):
    ours, theirs = (inspect.signature(getattr(library, name).__init__) for library in (liftnn, nnx))
    added = ["use_hidden_bias"] if name == "GRUCell" else []
    assert [(p.name, p.kind) for p in ours.parameters.values()] == [
        *((p.name, p.kind) for p in theirs.parameters.values()),
        *((name, inspect.Parameter.KEYWORD_ONLY) for name in added),
    ]


def test_a_gru_has_a_bias_of_the_hidden_state_on_request():
    random = np.random.default_rng(0)
    cell = liftnn.GRUCell(3, 4, use_hidden_bias=True, bias_init=draw, rngs=liftnn.Rngs(0))
    x, h = random.normal(size=(2, 3)).astype(np.float32), random.normal(size=(2, 4)).astype(np.float32)
    w_i, b_i, w_h, b_h = (
        np.asarray(v.value)
        for v in (cell.dense_i.kernel, cell.dense_i.bias, cell.dense_h.kernel, cell.dense_h.bias)
    )
    x_r, x_z, x_n = np.split(x @ w_i + b_i, 3, -1)
    h_r, h_z, h_n = np.split(h @ w_h + b_h, 3, -1)
    r, z = (1 / (1 + np.exp(-a - b)) for a, b in ((x_r, h_r), (x_z, h_z)))
    expected = (1 - z) * np.tanh(x_n + r * h_n) + z * h
    np.testing.assert_allclose(cell(h, x)[0], expected, rtol=1e-5, atol=1e-6)
    assert liftnn.GRUCell(3, 4, rngs=liftnn.Rngs(0)).dense_h.bias is None


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_has_the_attributes_of_flax(name):
    ours, theirs = make_pair(name)
    public = [{a for a in vars(cell) if not a.startswith("_")} for cell in (ours, theirs)]
    assert public[0] == public[1]
    assert ours.num_feature_axes == theirs.num_feature_axes == 1


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("shape", quick([(3,), (2, 5, 3), (0, 3)]))
@pytest.mark.sample(6)
def test_any_number_of_batch_axes(name, shape):
    ours, theirs = make_pair(name, bias_init=draw)
    carry = ours.initialize_carry(shape, liftnn.Rngs(1), jax.nn.initializers.ones)
    assert_same(ours(carry, numbers(*shape)), theirs(carry, numbers(*shape)))


@pytest.mark.parametrize("name", CELLS)
def test_each_array_of_a_carry_draws_one_key_as_in_flax(name):
    ours, theirs = make_pair(name, carry_init=jax.nn.initializers.normal())
    for init in (None, jax.nn.initializers.uniform()):
        seeds, flax_seeds = liftnn.Rngs(0, carry=1), nnx.Rngs(0, carry=1)
        for _ in range(2):
            carry = ours.initialize_carry((2, 3), seeds, init)
            assert_same(carry, theirs.initialize_carry((2, 3), flax_seeds, init))
        assert int(seeds.carry.count) == int(flax_seeds.carry.count[...])
        assert_same(
            ours.initialize_carry((2, 3), seeds.carry, init),
            theirs.initialize_carry((2, 3), flax_seeds.carry, init),
        )


def test_the_two_lstm_cells_compute_the_same_from_the_same_weights():
    cell, fused = make_cell(liftnn, "LSTMCell", bias_init=draw), make_cell(liftnn, "OptimizedLSTMCell")
    fused.dense_i.kernel.value = jnp.concatenate(
        [getattr(cell, a).kernel.value for a in ("ii", "if_", "ig", "io")], 1
    )
    fused.dense_h.kernel.value = jnp.concatenate(
        [getattr(cell, a).kernel.value for a in ("hi", "hf", "hg", "ho")], 1
    )
    fused.dense_h.bias.value = jnp.concatenate(
        [getattr(cell, a).bias.value for a in ("hi", "hf", "hg", "ho")]
    )
    carry, x = carry_of("LSTMCell"), numbers(2, 3)
    for a, b in zip(jax.tree.leaves(cell(carry, x)), jax.tree.leaves(fused(carry, x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", quick([jnp.bfloat16, jnp.float16]))
@pytest.mark.parametrize("name", CELLS)
def test_default_weights_of_half_precision_are_those_of_float32_rounded(name, dtype):
    half = weights_of(liftnn, make_cell(liftnn, name, param_dtype=dtype, kernel_init=draw))
    full = weights_of(liftnn, make_cell(liftnn, name, kernel_init=draw))
    assert_same(half, {path: x.astype(dtype) for path, x in full.items()})


@pytest.mark.thorough
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.sample(4)
def test_default_weights_with_x64_are_those_of_flax(name):
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            ours, theirs = make_pair(name, param_dtype=dtype)
            assert_same(weights_of(liftnn, ours), weights_of(nnx, theirs))


@pytest.mark.parametrize("name", CELLS)
def test_metadata_goes_to_the_params_of_its_kind(name):
    marks = {f"{kind}_metadata": {"mark": kind} for kind in ("kernel", "recurrent_kernel", "bias")}
    ours, theirs = make_pair(name, **marks)
    flax = {tuple(p): x.mark for p, x in nnx.to_flat_state(nnx.state(theirs, nnx.Param))}
    assert {p: x.mark for p, x in liftnn.iter_graph(ours) if isinstance(x, liftnn.Param)} == flax


@pytest.mark.parametrize("name", CELLS)
def test_a_given_promote_dtype_is_used_by_every_product(name):
    calls = []

    def promote(arrays, *, dtype):
        calls.append(dtype)
        return tuple(None if x is None else jnp.asarray(x, jnp.float32) for x in arrays)

    cell = make_cell(liftnn, name, dtype=jnp.bfloat16, promote_dtype=promote)
    cell(carry_of(name), numbers(2, 3))
    products = 8 if name == "LSTMCell" else 2
    assert calls == [jnp.bfloat16] * products


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.sample(4)
def test_a_loop_of_scan_is_the_loop_in_python(name):
    cell, carry, xs = make_cell(liftnn, name, bias_init=draw), carry_of(name), numbers(5, 2, 3)
    run = liftnn.scan(lambda cell, c, x: cell(c, x), in_axes=(None, liftnn.Carry, 0))
    scanned, ys = run(cell, carry, xs)
    for x, y in zip(xs, ys, strict=True):
        carry, expected = cell(carry, x)
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(carry), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_jit_does_not_trace_a_new_cell_of_the_same_configuration_again(name):
    traces = []

    @liftnn.jit
    def run(cell, carry, x):
        traces.append(name)
        return cell(carry, x)

    for options in (
        {},
        {},
        {"carry_init": jax.nn.initializers.normal()},
        {"carry_init": jax.nn.initializers.normal()},
    ):
        run(make_cell(liftnn, name, **options), carry_of(name), numbers(2, 3))
    assert len(traces) == 2


@pytest.mark.parametrize("name", CELLS)
def test_a_wrong_number_of_input_features_is_an_error_with_both_numbers(name):
    text = (
        f"This {name} expects 3 input features, but its input of shape (2, 5) has 5 along axis 1.\n"
        "Create the layer with the input's number of features, or change the input."
    )
    with raises(liftnn.ArgumentError, text):
        make_cell(liftnn, name)(carry_of(name), numbers(2, 5))


@pytest.mark.parametrize("name", CELLS)
def test_a_wrong_number_of_hidden_features_is_an_error_with_both_numbers(name):
    wrong = numbers(2, 5)
    text = (
        f"The carry of this {name} has 4 features, but the carry of the call has the shape (2, 5).\n"
        "Pass a carry from initialize_carry, or the carry that the previous call returned."
    )
    with raises(liftnn.ArgumentError, text):
        make_cell(liftnn, name)((numbers(2, 4), wrong) if "LSTM" in name else wrong, numbers(2, 3))


@pytest.mark.parametrize("name", ["LSTMCell", "OptimizedLSTMCell"])
def test_the_carry_of_an_lstm_must_be_a_pair(name):
    text = (
        f"The carry of this {name} is a pair of arrays, memory and hidden state, but the carry of the call is of type "
        "ArrayImpl.\n"
        "Pass a carry from initialize_carry, or the carry that the previous call returned."
    )
    with raises(liftnn.ArgumentError, text):
        make_cell(liftnn, name)(jnp.ones((2, 4)), numbers(2, 3))


@pytest.mark.parametrize("name", CELLS)
def test_a_first_carry_of_zeros_needs_no_random_keys(name):
    cell = make_cell(liftnn, name)
    assert_same(cell.initialize_carry((2, 3)), cell.initialize_carry((2, 3), liftnn.Rngs(0)))


@pytest.mark.parametrize("name", CELLS)
def test_a_first_carry_needs_random_keys(name):
    text = (
        f"{name} has no random keys to create its initial carry: rngs is None.\n"
        "Pass rngs=liftnn.Rngs(0) to initialize_carry, or create the cell with keep_rngs=True."
    )
    with raises(liftnn.ArgumentError, text):
        make_cell(liftnn, name).initialize_carry((2, 3), carry_init=liftnn.initializers.normal())
    text = (
        f"{name} needs a liftnn.Rngs or one of its streams, but rngs is of type int.\n"
        "Pass rngs=liftnn.Rngs(0), where 0 is the seed."
    )
    with raises(liftnn.ArgumentError, text):
        make_cell(liftnn, name).initialize_carry((2, 3), 0)


@pytest.mark.parametrize("keep_rngs", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_needs_an_rngs_not_a_seed(name, keep_rngs):
    with pytest.raises(liftnn.ArgumentError, match=r"(?s)rngs is of type int\..*Pass rngs=liftnn\.Rngs\(0\)"):
        getattr(liftnn, name)(3, 4, rngs=0, keep_rngs=keep_rngs)


@pytest.mark.parametrize(
    "what, use",
    [
        ("__call__()", lambda cell: cell(0, 1)),
        ("initialize_carry()", lambda cell: cell.initialize_carry((1, 2))),
        ("num_feature_axes", lambda cell: cell.num_feature_axes),
    ],
)
def test_the_base_class_names_what_a_subclass_must_define(what, use):
    with pytest.raises(NotImplementedError) as info:
        use(liftnn.RNNCellBase())
    assert str(info.value) == f"RNNCellBase does not define {what}."
