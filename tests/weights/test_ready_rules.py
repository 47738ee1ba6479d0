"""The rules for liftnn's layers: tensors that PyTorch has recorded give PyTorch's outputs, and are converted back.

`recorded.npz` has the tensors and the outputs; `record_torch.py` has made it.
"""

from __future__ import annotations

import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn.compat import nnx
from tests.user_modules import Holder
from tests.weights.torch_cases import CASES, GRU, LAYERS, LSTM, NETWORKS, RECURRENT, SUMS, rnn

TOLERANCE = 1e-5
RECORDED = np.load(pathlib.Path(__file__).parent / "recorded.npz")
EXACT = [*LAYERS, *RECURRENT, *(name for name in NETWORKS if "LSTM" not in name)]


def recorded(name):
    """The tensors that PyTorch has recorded for a case."""
    prefix = f"{name}/state/"
    return {key.removeprefix(prefix): RECORDED[key] for key in RECORDED if key.startswith(prefix)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(8)
def test_the_tensors_of_a_network_give_the_outputs_of_pytorch(name):
    case = CASES[name]
    module = case.make_ours()
    report = liftnn.from_torch(module, recorded(name))
    output = case.run_ours(module, *case.inputs())
    assert not report
    np.testing.assert_allclose(output, RECORDED[f"{name}/output"], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.sample(6)
def test_to_torch_gives_the_tensors_back_bit_for_bit(name):
    module, tensors = CASES[name].make_ours(), recorded(name)
    liftnn.from_torch(module, tensors)
    written = liftnn.to_torch(module)
    assert set(written) == {key for key in tensors if not key.endswith("num_batches_tracked")}
    for key, x in written.items():
        assert (x.dtype, x.shape) == (tensors[key].dtype, tensors[key].shape)
        assert x.tobytes() == tensors[key].tobytes()


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", [name for name in CASES if name not in EXACT])
def test_two_biases_are_written_as_their_sum_and_zeros(name):
    module, tensors = CASES[name].make_ours(), recorded(name)
    liftnn.from_torch(module, tensors)
    written = liftnn.to_torch(module)
    assert set(written) == set(tensors)
    for key, x in written.items():
        expected = tensors[key]
        if "bias_ih" in key:
            expected = expected + tensors[key.replace("_ih", "_hh")]
        if "bias_hh" in key:
            expected = np.zeros_like(expected)
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(8)
def test_what_to_torch_gives_is_loaded_again_bit_for_bit(name):
    module, other = CASES[name].make_ours(0), CASES[name].make_ours(1)
    liftnn.from_torch(module, recorded(name))
    liftnn.from_torch(other, liftnn.to_torch(module))
    for (path, x), y in zip(
        liftnn.state(module).flat().items(), liftnn.state(other).flat().values(), strict=True
    ):
        if not isinstance(x, liftnn.RngState):
            assert np.asarray(x.value).tobytes() == np.asarray(y.value).tobytes(), path


def test_the_gates_of_an_lstm_are_in_the_order_i_f_g_o():
    name = "LSTM with a product for each gate"
    module, tensors = SUMS[name].make_ours(), recorded(name)
    liftnn.from_torch(module, tensors)
    bias = tensors["bias_ih_l0"] + tensors["bias_hh_l0"]
    for i, gate in enumerate(("i", "f_", "g", "o")):
        cell, rows = module.cell, slice(4 * i, 4 * i + 4)
        of_input, of_hidden = getattr(cell, f"i{gate}"), getattr(cell, f"h{gate.rstrip('_')}")
        np.testing.assert_array_equal(of_input.kernel.value, tensors["weight_ih_l0"][rows].T)
        np.testing.assert_array_equal(of_hidden.kernel.value, tensors["weight_hh_l0"][rows].T)
        np.testing.assert_array_equal(of_hidden.bias.value, bias[rows])


def test_the_gates_of_a_gru_are_in_the_order_r_z_n_and_follow_the_formula_of_pytorch():
    name = "GRUCell"
    tensors, x = recorded(name), CASES[name].inputs()[0]
    w_r, w_z, w_n = np.split(x @ tensors["weight_ih"].T + tensors["bias_ih"], 3, -1)
    _, _, b_n = np.split(tensors["bias_hh"], 3)
    b_r, b_z, _ = np.split(tensors["bias_hh"], 3)
    r, z = 1 / (1 + np.exp(-w_r - b_r)), 1 / (1 + np.exp(-w_z - b_z))
    expected = (1 - z) * np.tanh(w_n + r * b_n)  # the hidden state is zero
    module = GRU(3, 4, use_hidden_bias=True, rngs=liftnn.Rngs(0))
    liftnn.from_torch(module, tensors)
    np.testing.assert_allclose(module(jnp.zeros((2, 4)), x)[1], expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_gru_without_a_bias_of_the_hidden_state_takes_one_that_is_zero_where_it_matters():
    name = "GRU with a bias of the hidden state"
    tensors = recorded(name)
    tensors["bias_hh_l0"] = np.where(np.arange(12) < 8, tensors["bias_hh_l0"], np.float32(0))
    x = CASES[name].inputs()[0]
    with_bias, without = rnn(GRU, 3, 4, use_hidden_bias=True)(liftnn.Rngs(0)), rnn(GRU, 3, 4)(liftnn.Rngs(0))
    liftnn.from_torch(with_bias, tensors)
    liftnn.from_torch(without, tensors)
    np.testing.assert_allclose(without(x), with_bias(x), rtol=TOLERANCE, atol=TOLERANCE)


def test_the_projections_of_attention_are_parts_of_one_tensor_query_first():
    name = "MultiheadAttention"
    module, tensors = CASES[name].make_ours(), recorded(name)
    liftnn.from_torch(module, tensors)
    for i, part in enumerate((module.query, module.key, module.value)):
        rows = slice(8 * i, 8 * i + 8)
        np.testing.assert_array_equal(part.kernel.value.reshape(8, 8), tensors["in_proj_weight"][rows].T)
        np.testing.assert_array_equal(part.bias.value.reshape(8), tensors["in_proj_bias"][rows])


def test_running_statistics_are_averaged_as_in_pytorch_with_one_minus_its_momentum():
    layer = liftnn.BatchNorm(3, momentum=1 - 0.1, rngs=liftnn.Rngs(0))
    mean, var = np.float32([1, 2, 3]), np.float32([4, 5, 6])
    ones = np.ones(3, np.float32)
    liftnn.from_torch(layer, {"weight": ones, "bias": ones, "running_mean": mean, "running_var": var})
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    layer(x)
    # PyTorch's documentation: x_new = (1 - momentum) * x_old + momentum * x_observed
    np.testing.assert_allclose(layer.mean.value, 0.9 * mean + 0.1 * x.mean(0), rtol=TOLERANCE)
    np.testing.assert_allclose(layer.var.value, 0.9 * var + 0.1 * x.var(0), rtol=TOLERANCE)


def test_only_a_batch_norm_needs_no_variable_for_the_counter_of_batches():
    tensors = recorded("BatchNorm1d")
    assert not liftnn.from_torch(liftnn.BatchNorm(4, rngs=liftnn.Rngs(0)), tensors)
    report = liftnn.from_torch(liftnn.InstanceNorm(4, rngs=liftnn.Rngs(0)), tensors, strict=False)
    assert report.unexpected[-1] == "'num_batches_tracked': int64[]"


def test_the_counter_of_batches_is_known_under_every_name_of_a_batch_norm():
    def norm(rngs):
        return liftnn.BatchNorm(4, rngs=rngs)

    module = Holder(norm=norm(liftnn.Rngs(0)), stack=liftnn.Stack(2, norm, rngs=liftnn.Rngs(0)))
    module.again = module.norm
    tensors = {
        f"{prefix}.{name}": x
        for name, x in recorded("BatchNorm1d").items()
        for prefix in ("bn", "again", "stack.0", "stack.1")
    }
    assert not liftnn.from_torch(module, tensors, [("^norm", "bn")])
    report = liftnn.from_torch(
        module, tensors | {"x.num_batches_tracked": np.array(1)}, [("^norm", "bn")], strict=False
    )
    assert report.unexpected == ("'x.num_batches_tracked': int64[]",)


class Encoder(liftnn.Module):
    """Recurrent layers under several names."""

    def __init__(self, rngs):
        self.by_name = {"left": rnn(LSTM, 3, 4)(rngs), "right": rnn(LSTM, 3, 4)(rngs)}
        self.mixed = [rnn(LSTM, 3, 4)(rngs), liftnn.Linear(4, 3, rngs=rngs), rnn(LSTM, 3, 4)(rngs)]
        self.cells = [LSTM(3, 4, rngs=rngs) for _ in range(11)]


def test_layers_in_a_list_of_the_flax_conventions_are_those_of_one_lstm():
    layers = nnx.List([nnx.RNN(nnx.OptimizedLSTMCell(3, 3, rngs=nnx.Rngs(0))) for _ in range(2)])
    names = liftnn.to_torch({"lstm": layers})
    assert [name for name in names if "weight_ih" in name] == ["lstm.weight_ih_l0", "lstm.weight_ih_l1"]


def test_recurrent_layers_in_dicts_and_mixed_lists_are_layers_of_their_own():
    names = list(liftnn.to_torch(Encoder(liftnn.Rngs(0))))
    assert [name for name in names if "weight_ih" in name] == [
        "by_name.left.weight_ih_l0",
        "by_name.right.weight_ih_l0",
        "mixed.0.weight_ih_l0",
        "mixed.2.weight_ih_l0",
        *(f"cells.{i}.weight_ih" for i in range(11)),
    ]


# --- weight_norm: the weight is g * v / |v|

SCALE, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"


def normed(*axes):
    return liftnn.WeightNorm(liftnn.Linear(4, 4, rngs=liftnn.Rngs(0)), feature_axes=axes, rngs=liftnn.Rngs(0))


@pytest.mark.parametrize("names", [("weight_g", "weight_v"), (SCALE, DIRECTION)], ids=["old", "new"])
def test_weight_norm_has_old_and_new_names_in_pytorch(names):
    random = np.random.default_rng(0)
    g, v, x = (random.normal(size=shape).astype(np.float32) for shape in ((4, 1), (4, 4), (2, 4)))
    tensors = {f"module.body.0.{names[0]}": g, f"module.body.0.{names[1]}": v}
    tensors |= {"module.body.0.bias": np.ones(4, np.float32)}
    net = {"body": liftnn.Sequential(normed(-1))}
    assert not liftnn.from_torch(net, tensors, [("^", "module.")])
    expected = x @ (g * v / np.linalg.norm(v, axis=1, keepdims=True)).T + 1
    np.testing.assert_allclose(net["body"](x), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_stack_has_the_norms_of_each_layer():
    stack = liftnn.Stack(2, lambda: normed(-1), rngs=None)
    tensors = {f"{i}.bias": np.zeros(4, np.float32) for i in range(2)}
    tensors |= {f"{i}.weight_g": np.full((4, 1), i + 1, np.float32) for i in range(2)}
    tensors |= {f"{i}.weight_v": np.eye(4, dtype=np.float32) * 5 for i in range(2)}
    assert not liftnn.from_torch(stack, tensors)
    np.testing.assert_allclose(stack(jnp.ones((1, 4))), np.full((1, 4), 1 * 2), rtol=TOLERANCE)


def test_norms_along_another_axis_are_an_error():
    tensors = {"weight_g": np.ones((4, 1)), "weight_v": np.ones((4, 4)), "bias": np.zeros(4)}
    tensors = {name: x.astype(np.float32) for name, x in tensors.items()}
    cause = re.escape("'weight_g': float32[4,1] has the shape (1, 4) before it is reshaped, not (4, 1)")
    with pytest.raises(liftnn.CheckpointError, match=cause):
        liftnn.from_torch(normed(0), tensors)
