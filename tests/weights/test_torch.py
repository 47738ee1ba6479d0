"""`from_torch` and `to_torch`: everything fits or nothing changes; ties; arrays that are the module's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

import liftnn
from liftnn import CheckpointError, Rule
from tests.raising import raises
from tests.user_modules import Holder

REMEDY = (
    "Change the module or the rules to fit. A rule (pattern, None) skips tensors, `only` selects Variables, "
    "`cast=True` converts dtypes, and `strict=False` loads what fits and returns the rest as a report."
)


def linear(seed=0, **options):
    return liftnn.Linear(2, 3, rngs=liftnn.Rngs(seed), **options)


def tensors(seed=0, prefix="", dtype=np.float32):
    """The tensors of a Linear of PyTorch with 2 input and 3 output features."""
    random = np.random.default_rng(seed)
    return {
        f"{prefix}weight": random.normal(size=(3, 2)).astype(dtype),
        f"{prefix}bias": random.normal(size=3).astype(dtype),
    }


def values(module):
    """The values of all Variables by path."""
    flat = liftnn.state(module).flat()
    return {
        path: np.asarray(jax.random.key_data(x.value) if isinstance(x, liftnn.RngKey) else x.value)
        for path, x in flat.items()
    }


def assert_same_values(one, other):
    assert list(one) == list(other)
    for path, x in one.items():
        np.testing.assert_array_equal(x, other[path])


def test_the_objects_stay_and_their_values_are_replaced():
    module = Holder(layer=linear())
    layer, kernel = module.layer, module.layer.kernel
    weights = tensors(prefix="layer.")
    liftnn.from_torch(module, weights)
    assert module.layer is layer
    assert layer.kernel is kernel
    np.testing.assert_array_equal(kernel.value, weights["layer.weight"].T)


def test_all_that_does_not_fit_is_in_one_error_and_nothing_changes():
    module = Holder(a=linear(), b=linear(1), c=[linear(2)])
    before = values(module)
    weights = tensors(prefix="a.") | {"b.weight": np.ones((3, 5), np.float32), "d": np.ones(2, np.int32)}
    weights |= {"c.0.weight": np.ones((3, 2), np.float16), "c.0.bias": np.ones(3, np.float32)}
    with raises(
        CheckpointError,
        "The state_dict does not fit the module:\n"
        "missing:\n"
        "  b.bias: float32[3], from 'b.bias'\n"
        "unexpected:\n"
        "  'd': int32[2]\n"
        "mismatched:\n"
        "  b.kernel: float32[2,3] in the module, float32[5,3] from 'b.weight': float32[3,5]\n"
        "  c[0].kernel: float32[2,3] in the module, float16[2,3] from 'c.0.weight': float16[3,2]\n" + REMEDY,
    ):
        liftnn.from_torch(module, weights)
    assert_same_values(values(module), before)


def test_what_fits_is_loaded_without_strict_and_the_rest_is_reported():
    module = Holder(a=linear(), b=linear(1))
    before = values(module)
    weights = tensors(prefix="a.") | {"b.weight": np.ones((3, 5), np.float32), "d": np.ones(2, np.int32)}
    report = liftnn.from_torch(module, weights, strict=False)
    assert report.missing == ("b.bias: float32[3], from 'b.bias'",)
    assert report.unexpected == ("'d': int32[2]",)
    assert report.mismatched == (
        "b.kernel: float32[2,3] in the module, float32[5,3] from 'b.weight': float32[3,5]",
    )
    np.testing.assert_array_equal(module.a.kernel.value, weights["a.weight"].T)
    np.testing.assert_array_equal(module.b.kernel.value, before["b", "kernel"])


@pytest.mark.parametrize(
    "name, weight, module, text",
    [
        ("weight", (3, 2, 1), linear(), "has 3 axes, not 2"),
        ("in_proj_weight", (7, 4), liftnn.MultiHeadAttention(2, 4, use_bias=False, rngs=liftnn.Rngs(0)),
         "cannot be divided into 3 equal parts along axis 0"),
        ("in_proj_weight", (12, 5), liftnn.MultiHeadAttention(2, 4, use_bias=False, rngs=liftnn.Rngs(0)),
         "has the shape (5, 4) before it is reshaped, not (4, 4)"),
        ("weight", (2,), liftnn.PReLU(), "has the shape (2,) before it is reshaped, not (1,)"),
    ],
)  # fmt: skip
def test_a_report_says_in_which_way_a_tensor_does_not_fit(name, weight, module, text):
    report = liftnn.from_torch(module, {name: np.zeros(weight, np.float32)}, strict=False)
    assert report.mismatched[0].endswith(text)


def test_biases_of_different_shapes_are_not_added():
    module = liftnn.SimpleCell(3, 4, rngs=liftnn.Rngs(0))
    weights = liftnn.to_torch(module) | {"bias_hh": np.ones(1, np.float32)}
    (line,) = liftnn.from_torch(module, weights, strict=False).mismatched
    assert line == (
        "dense_i.bias: float32[4] in the module, but 'bias_ih' and 'bias_hh': float32[4] and float32[1] cannot be "
        "added, since their shapes differ"
    )


def test_a_bias_inside_of_the_reset_gate_is_not_lost():
    module = liftnn.GRUCell(3, 2, rngs=liftnn.Rngs(0))
    weights = liftnn.to_torch(module) | {"bias_hh": np.arange(6, dtype=np.float32)}
    (line,) = liftnn.from_torch(module, weights, strict=False).mismatched
    assert line == (
        "dense_i.bias: float32[6] in the module, but 'bias_ih' and 'bias_hh': float32[6] and float32[6] cannot be "
        "added, since the last 2 entries of the second are not zero: pass use_hidden_bias=True to the GRUCell"
    )


def test_later_changes_of_the_tensors_do_not_change_the_module():
    weights = {"weight": np.zeros((64, 64), np.float32), "bias": np.zeros(4096, np.float32)}
    module = Holder(weight=liftnn.Param(jnp.ones((64, 64))), bias=liftnn.Param(jnp.ones(4096)))
    liftnn.from_torch(module, weights)
    for x in weights.values():
        x += 1
    assert not module.weight.value.any()
    assert not module.bias.value.any()


def test_the_arrays_of_to_torch_are_copies_that_may_be_written():
    module = linear()
    before = values(module)
    for x in liftnn.to_torch(module).values():
        x += 1
        assert x.flags.c_contiguous
    assert_same_values(values(module), before)


class Tied(liftnn.Module):
    """A layer under two names."""

    def __init__(self, seed=0):
        self.embed = liftnn.Embed(5, 3, rngs=liftnn.Rngs(seed))
        self.head = self.embed


def test_a_shared_variable_takes_equal_tensors_of_both_names():
    module, x = Tied(), np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    liftnn.from_torch(module, {"embed.weight": x, "head.weight": x.copy()})
    assert module.head is module.embed
    np.testing.assert_array_equal(module.embed.embedding.value, x)


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_a_shared_variable_takes_the_tensor_of_either_name(name):
    module, x = Tied(), np.ones((5, 3), np.float32)
    liftnn.from_torch(module, {name: x})
    np.testing.assert_array_equal(module.embed.embedding.value, x)


def test_a_shared_variable_does_not_take_two_different_tensors():
    module, x = Tied(), np.ones((5, 3), np.float32)
    before = values(module)
    with raises(
        CheckpointError,
        "The state_dict does not fit the module:\n"
        "mismatched:\n"
        "  embed.embedding: is shared in the module, but 'embed.weight' and 'head.weight' have different values\n"
        + REMEDY,
    ):
        liftnn.from_torch(module, {"embed.weight": x, "head.weight": x + 1})
    assert_same_values(values(module), before)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
def test_a_common_prefix_of_all_tensors_is_an_error_with_the_rule(prefix):
    module, before = {"fc": linear(), "tied": Tied()}, linear()
    found = tensors(prefix=f"{prefix}fc.") | {f"{prefix}tied.head.weight": np.ones((5, 3), np.float32)}
    with pytest.raises(CheckpointError) as error:
        liftnn.from_torch(module, found)
    assert str(error.value).endswith(
        f"\nThe names of the tensors have {prefix!r} in front: add the rule ('^', {prefix!r}) after all others."
    )
    assert_same_values(values(module["fc"]), values(before))
    assert not liftnn.from_torch(module, found, [("^", prefix)])


@pytest.mark.parametrize(
    "found",
    [
        tensors(prefix="module."),
        tensors(prefix="module.fc.") | {"other.gc.weight": np.ones(2)},
        {f"{x}.{y}": z for x in ("ema.fc", "ema.gc", "fc", "gc") for y, z in tensors().items()},
        {},
    ],
    ids=["other names", "two prefixes", "also without prefix", "nothing"],
)
def test_tensors_without_a_common_prefix_have_the_usual_remedy(found):
    with pytest.raises(CheckpointError) as error:
        liftnn.from_torch({"fc": linear(), "gc": linear()}, found)
    assert str(error.value).endswith(REMEDY)


class Untied(liftnn.Module):
    """Two layers and an array, whose tensors PyTorch may share."""

    def __init__(self):
        self.embed = liftnn.Embed(5, 3, rngs=liftnn.Rngs(0))
        self.head = liftnn.Linear(3, 5, use_bias=False, rngs=liftnn.Rngs(1))
        self.table = jnp.zeros((5, 3))


SHARED = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
DROPPED = {"format": "pt", "head.weight": "embed.weight", "table": "embed.weight"}


def test_the_names_that_save_model_of_safetensors_dropped_are_found(tmp_path):
    save_file({"embed.weight": SHARED}, tmp_path / "a.safetensors", metadata=DROPPED)
    module = Untied()
    assert not liftnn.from_torch(module, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(module.embed.embedding.value, SHARED)
    np.testing.assert_array_equal(module.head.kernel.value, SHARED.T)
    np.testing.assert_array_equal(module.table, SHARED)


def test_a_module_without_the_stored_name_uses_a_dropped_one(tmp_path):
    save_file({"embed.weight": SHARED}, tmp_path / "a.safetensors", metadata=DROPPED)
    module = Untied()
    del module.embed
    assert not liftnn.from_torch(module, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(module.head.kernel.value, SHARED.T)


def test_a_module_need_not_have_the_dropped_names(tmp_path):
    save_file({"embed.weight": SHARED}, tmp_path / "a.safetensors", metadata=DROPPED)
    module = Untied()
    del module.head, module.table
    assert not liftnn.from_torch(module, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(module.embed.embedding.value, SHARED)
    module = Tied()
    assert not liftnn.from_torch(module, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(module.embed.embedding.value, SHARED)


def test_load_weights_finds_dropped_names_with_rules_too(tmp_path):
    save_file({"x": SHARED}, tmp_path / "a.safetensors", metadata={"y": "x", "note": "z"})
    module = Holder(a=liftnn.Param(jnp.zeros((5, 3))), y=liftnn.Param(jnp.zeros((5, 3))))
    assert not liftnn.load_weights(tmp_path / "a.safetensors", module, [("^a$", "x")])
    for x in (module.a, module.y):
        np.testing.assert_array_equal(x.value, SHARED)


def test_metadata_that_is_no_name_of_a_stored_tensor_is_no_name(tmp_path):
    save_file({"embed.weight": SHARED}, tmp_path / "a.safetensors", metadata={"head.weight": "embed"})
    module = Untied()
    with pytest.raises(CheckpointError, match=r"missing:\n  head\.kernel: .*, from 'head\.weight'\n"):
        liftnn.from_torch(module, tmp_path / "a.safetensors")


def test_metadata_of_a_user_is_no_name_in_a_file_of_save_weights(tmp_path):
    file = tmp_path / "a.safetensors"
    liftnn.save_weights(file, Holder(x=liftnn.Param(jnp.ones(2))), metadata={"y": "x"})
    with pytest.raises(CheckpointError, match=r"missing:\n  y: "):
        liftnn.load_weights(file, Holder(x=liftnn.Param(jnp.ones(2)), y=liftnn.Param(jnp.ones(2))))


def test_a_shared_variable_is_written_under_each_name_once():
    module = Tied()
    assert list(liftnn.to_torch(module)) == ["embed.weight", "head.weight"]
    assert list(liftnn.to_torch(module, [("^head", "embed")])) == ["embed.weight"]
    assert list(liftnn.to_torch(module, [Rule("head.*", None)])) == ["embed.weight"]
    module.third = module.embed
    assert list(liftnn.to_torch(module, [("^head|^third", "logits")])) == ["embed.weight", "logits.weight"]


def test_a_cyclic_module_has_each_weight_once():
    module = Holder(layer=linear())
    module.layer.parent = module
    liftnn.from_torch(module, tensors(prefix="layer."))
    np.testing.assert_array_equal(module.layer.bias.value, tensors()["bias"])
    assert sorted(liftnn.to_torch(module)) == ["layer.bias", "layer.weight"]


def test_an_empty_module_fits_an_empty_state_dict():
    assert not liftnn.from_torch(Holder(), {})
    assert liftnn.to_torch(Holder()) == {}
    assert liftnn.from_torch(Holder(), {"a": np.ones(1)}, strict=False).unexpected == ("'a': float64[1]",)


def test_layers_past_ten_keep_their_numbers():
    module = Holder(layers=[linear(i) for i in range(12)])
    weights = {}
    for i in range(12):
        weights |= tensors(i, f"layers.{i}.")
    liftnn.from_torch(module, dict(reversed(weights.items())))
    for i, layer in enumerate(module.layers):
        np.testing.assert_array_equal(layer.bias.value, tensors(i)["bias"])
    assert list(liftnn.to_torch(module)) == list(weights)


def test_a_list_or_dict_of_modules_is_loaded_without_a_module_around_it():
    pair = [linear(), {"b": linear(1)}]
    liftnn.from_torch(pair, tensors(0, "0.") | tensors(1, "1.b."))
    np.testing.assert_array_equal(pair[1]["b"].bias.value, tensors(1)["bias"])


def test_random_keys_metrics_caches_and_optimizer_states_are_left_alone():
    layer = linear()
    module = Holder(
        layer=layer,
        dropout=liftnn.Dropout(0.5, rngs=liftnn.Rngs(0)),
        accuracy=liftnn.Accuracy(),
        optimizer=liftnn.Optimizer(layer, optax.adam(0.1), wrt=liftnn.Param),
        cache=liftnn.Cache(jnp.ones(2)),
    )
    before = values(module)
    liftnn.from_torch(module, tensors(prefix="layer."))
    after = values(module)
    assert {path for path in before if not np.array_equal(before[path], after[path])} == {
        ("layer", "kernel"), ("layer", "bias"),
    }  # fmt: skip
    assert list(liftnn.to_torch(module)) == ["layer.weight", "layer.bias"]


def test_an_array_outside_of_a_variable_is_filled_if_there_is_a_tensor_for_it():
    module = Holder(layer=linear(), table=jnp.zeros(2), mask=np.zeros(2, bool))
    liftnn.from_torch(module, tensors(prefix="layer."))
    assert not module.table.any()
    liftnn.from_torch(
        module, tensors(prefix="layer.") | {"table": np.ones(2, np.float32), "mask": np.ones(2, bool)}
    )
    assert module.table.all()
    assert type(module.mask) is np.ndarray
    assert module.mask.all()
    assert sorted(liftnn.to_torch(module)) == ["layer.bias", "layer.weight"]
    report = liftnn.from_torch(
        module, {"table": np.ones(3, np.float32)}, only=liftnn.PathContains("table"), strict=False
    )
    assert report.mismatched == ("table: float32[2] in the module, float32[3] from 'table'",)


def test_only_selects_the_variables_to_fill():
    module = linear()
    before = values(module)
    report = liftnn.from_torch(module, tensors(), only=liftnn.PathContains("bias"), strict=False)
    assert report.unexpected == ("'weight': float32[3,2]",)
    np.testing.assert_array_equal(module.kernel.value, before["kernel",])
    np.testing.assert_array_equal(module.bias.value, tensors()["bias"])
    assert list(liftnn.to_torch(module, only=liftnn.PathContains("bias"))) == ["bias"]


@pytest.mark.sample(4)
@pytest.mark.parametrize("ours", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("theirs", ["bfloat16", "float16", "float32", "float64"])
def test_floats_are_cast_only_on_request(ours, theirs):
    module = linear(param_dtype=ours)
    weights = tensors(dtype=jnp.dtype(theirs))
    if ours == theirs:
        assert not liftnn.from_torch(module, weights)
    else:
        assert len(liftnn.from_torch(module, weights, strict=False).mismatched) == 2
        assert not liftnn.from_torch(module, weights, cast=True)
    np.testing.assert_array_equal(module.bias.value, weights["bias"].astype(jnp.dtype(ours)))
    assert liftnn.to_torch(module)["bias"].dtype == ours


def test_an_abstract_module_gets_its_values():
    module = liftnn.eval_shape(linear)
    liftnn.from_torch(module, tensors())
    np.testing.assert_array_equal(module.kernel.value, tensors()["weight"].T)


def test_shardings_are_kept():
    mesh = jax.make_mesh((3,), ("x",), devices=jax.devices()[:3])
    sharding = jax.NamedSharding(mesh, jax.P(None, "x"))
    module = linear()
    module.kernel.value = jax.device_put(module.kernel.value, sharding)
    liftnn.from_torch(module, tensors())
    assert module.kernel.value.sharding == sharding


def test_a_file_is_read_by_its_path(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file(tensors(), tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", str(tmp_path / "model.safetensors")):
        module = linear()
        liftnn.from_torch(module, path)
        np.testing.assert_array_equal(module.bias.value, tensors()["bias"])


def test_a_module_is_filled_inside_a_transform():
    module = linear()
    liftnn.jit(lambda module: liftnn.from_torch(module, tensors()).missing and None)(module)
    np.testing.assert_array_equal(module.kernel.value, tensors()["weight"].T)


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_a_weak_type_stays_one_inside_a_transform(kind):
    module = Holder(w=liftnn.Param(jnp.asarray(1.0)))
    with jax.set_mesh(jax.make_mesh((1,), ("x",), axis_types=(kind,))):
        liftnn.jit(lambda module: liftnn.from_torch(module, {"w": np.float32(3)}).missing and None)(module)
    assert float(module.w.value) == 3.0
    assert module.w.value.weak_type


def test_a_captured_module_cannot_be_filled_from_inside_a_foreign_trace():
    module = linear()
    before = values(module)
    with pytest.raises(liftnn.TraceContextError):
        jax.jit(lambda: liftnn.from_torch(module, tensors()).missing and 0)()
    assert_same_values(values(module), before)
