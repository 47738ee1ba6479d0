"""The user's rules in both directions: names, parts, joins, axes, skipping, and their order."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import Rule
from tests.user_modules import Holder


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def params(**shapes):
    return Holder(**{name: liftnn.Param(jnp.zeros(shape)) for name, shape in shapes.items()})


def both_ways(module, tensors, rules, skipped=()):
    """Fill a module, check that it gives the tensors back, and return its values by name."""
    assert not liftnn.from_torch(module, tensors, rules)
    written = liftnn.to_torch(module, rules)
    assert set(written) == set(tensors) - set(skipped)
    for name, x in written.items():
        np.testing.assert_array_equal(x, tensors[name])
        assert x.dtype == tensors[name].dtype
    return {path[-1]: np.asarray(x.value) for path, x in liftnn.state(module).flat().items()}


def test_a_pair_changes_names_as_re_sub_does_once():
    values = both_ways(params(a_a=(2,)), {"b_a": numbers(2)}, [("a", "b")])
    np.testing.assert_array_equal(values["a_a"], numbers(2))


def test_pairs_are_applied_in_order_each_to_the_result_of_the_one_before():
    both_ways(params(a=(2,)), {"x.c": numbers(2)}, [("a", "b"), ("b", "c"), ("^", "x.")])


def test_a_template_may_have_groups_and_may_be_a_function():
    layers = [params(w=(2,)) for _ in range(11)]
    tensors = {f"block{i + 1}.w": numbers(2, seed=i) for i in range(11)}
    both_ways(Holder(layers=layers), tensors, [(r"layers\.(\d+)", lambda m: f"block{int(m[1]) + 1}")])
    np.testing.assert_array_equal(layers[10].w.value, numbers(2, seed=10))
    tensors = {f"h.{i}.sub.w": numbers(2, seed=i) for i in range(11)}
    both_ways(Holder(layers=layers), tensors, [(r"layers\.(?P<n>\d+)", r"h.\g<n>.sub")])


def test_a_pair_with_none_skips_tensors_whose_whole_name_matches():
    tensors = {"a": numbers(2), "loss.scale": numbers(1), "loss.bias": numbers(1)}
    both_ways(params(a=(2,)), tensors, [(r"loss\..*", None)], skipped=("loss.scale", "loss.bias"))
    report = liftnn.from_torch(params(a=(2,)), tensors, [("loss", None)], strict=False)
    assert report.unexpected == ("'loss.scale': float32[1]", "'loss.bias': float32[1]")


def test_parts_of_a_tensor_go_to_several_variables():
    x = numbers(6, 5)
    rules = [Rule("q", "qkv", part=(0, 3)), Rule("k", "qkv", part=(1, 3)), Rule("v", "qkv", part=(2, 3))]
    values = both_ways(params(q=(2, 5), k=(2, 5), v=(2, 5)), {"qkv": x}, rules)
    np.testing.assert_array_equal(values["k"], x[2:4])


def test_parts_along_another_axis_are_transposed_and_reshaped_in_this_order():
    x = numbers(5, 8)
    rules = [
        Rule("left", "both", part=(0, 2), axis=1, transpose=(1, 0), reshape=(4, 5)),
        Rule("right", "both", part=(1, 2), axis=1, transpose=(1, 0), reshape=(4, -1)),
    ]
    values = both_ways(params(left=(2, 2, 5), right=(4, 5)), {"both": x}, rules)
    np.testing.assert_array_equal(values["left"], x[:, :4].T.reshape(2, 2, 5))
    np.testing.assert_array_equal(values["right"], x[:, 4:].T)


@pytest.mark.parametrize("axis", [0, 1])
def test_several_tensors_are_joined_in_one_variable(axis):
    q, k = numbers(3, 4, seed=1), numbers(3, 4, seed=2)
    joined = np.concatenate([q, k], axis)
    rules = [Rule(r"(\w+)", (r"\1.q", lambda match: f"{match[1]}.k"), transpose=(1, 0), axis=axis)]
    values = both_ways(params(w=joined.T.shape), {"w.q": q, "w.k": k}, rules)
    np.testing.assert_array_equal(values["w"], joined.T)


@pytest.mark.parametrize(
    "reshape, text",
    [
        ((2, 3), "has the shape (6,) before it is reshaped, not (2, 3)"),
        ((5,), "has the shape (6,) before it is reshaped, not (5,)"),
        ((-1,), None),
    ],
)
def test_reshape_is_the_shape_of_the_tensor(reshape, text):
    module = params(w=(2, 3))
    report = liftnn.from_torch(module, {"w": numbers(6)}, [Rule("w", "w", reshape=reshape)], strict=False)
    lines = [f"w: float32[2,3] in the module, but 'w': float32[6] {text}"] if text else []
    assert list(report.mismatched) == lines


def test_a_tensor_of_another_size_is_not_reshaped():
    module = params(w=(2, 3))
    report = liftnn.from_torch(module, {"w": numbers(8)}, [Rule("w", "w", reshape=(-1,))], strict=False)
    assert report.mismatched == (
        "w: float32[2,3] in the module, but 'w': float32[8] cannot be reshaped from (8,) to (2, 3)",
    )


def test_the_first_rule_that_matches_the_whole_name_counts():
    rules = [Rule("a", "x"), Rule("a.*", "y"), Rule("ab", "z")]
    both_ways(params(a=(2,), ab=(2,)), {"x": numbers(2), "y": numbers(2)}, rules)


def test_a_rule_takes_the_place_of_what_is_known_of_a_layer_and_pairs_do_not_change_it():
    layer = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    both_ways(layer, {"W": numbers(2, 3), "b": numbers(3)}, [Rule("kernel", "W"), ("^W|bias", "b")])


def test_a_rule_without_names_keeps_the_value():
    module = params(a=(2,), b=(2,))
    values = both_ways(module, {"a": numbers(2)}, [Rule("b", None)])
    assert not values["b"].any()


def test_a_rule_for_the_weights_of_a_stack_has_one_stacked_tensor():
    stack = liftnn.Stack(3, lambda rngs: liftnn.Linear(2, 2, use_bias=False, rngs=rngs), rngs=liftnn.Rngs(0))
    x = numbers(3, 2, 2)
    values = both_ways(stack, {"kernels": x}, [Rule(r"layers\.kernel", "kernels")])
    np.testing.assert_array_equal(values["kernel"], x)


def test_pairs_name_each_layer_of_a_stack():
    stack = liftnn.Stack(3, lambda rngs: liftnn.Linear(2, 2, use_bias=False, rngs=rngs), rngs=liftnn.Rngs(0))
    tensors = {f"h.{i}.fc.weight": numbers(2, 2, seed=i) for i in range(3)}
    values = both_ways(stack, tensors, [(r"^(\d+)", r"h.\1.fc")])
    np.testing.assert_array_equal(values["kernel"][2], numbers(2, 2, seed=2).T)


def test_only_the_layers_of_a_stack_are_numbered():
    class Scaled(liftnn.Stack):
        pass

    stack = Scaled(3, lambda rngs: liftnn.Linear(2, 2, use_bias=False, rngs=rngs), rngs=liftnn.Rngs(0))
    stack.scale = liftnn.Param(jnp.ones(2))
    assert list(liftnn.to_torch(stack)) == ["0.weight", "1.weight", "2.weight", "scale"]


@pytest.mark.thorough
def test_a_stack_in_a_stack_has_two_numbers():
    def inner(rngs):
        return liftnn.Stack(2, lambda rngs: liftnn.Linear(2, 2, rngs=rngs), rngs=rngs)

    stack = liftnn.Stack(3, inner, rngs=liftnn.Rngs(0))
    written = liftnn.to_torch(stack)
    assert list(written) == [
        f"{i}.{j}.{name}" for name in ("weight", "bias") for i in range(3) for j in range(2)
    ]
    np.testing.assert_array_equal(written["2.1.weight"], stack.layers.layers.kernel.value[2, 1].T)


def test_a_gpt_2_block_is_loaded_from_packed_kernels_that_are_not_transposed():
    """Hugging Face's GPT-2 has `Conv1D` layers: kernels of shape (in, out), query, key and value side by side."""
    layer = liftnn.MultiHeadAttention(2, 4, rngs=liftnn.Rngs(0))
    tensors = {"c_attn.weight": numbers(4, 12), "c_attn.bias": numbers(12)}
    tensors |= {"c_proj.weight": numbers(4, 4), "c_proj.bias": numbers(4)}
    rules = [
        *(
            Rule(rf"{name}\.{kind}", f"c_attn.{kind_there}", part=(i, 3), axis=axis, reshape=shape)
            for i, name in enumerate(("query", "key", "value"))
            for kind, kind_there, axis, shape in (
                ("kernel", "weight", 1, (4, 4)),
                ("bias", "bias", 0, (4,)),
            )
        ),
        Rule(r"out\.kernel", "c_proj.weight", reshape=(4, 4)),
        Rule(r"out\.bias", "c_proj.bias"),
    ]
    both_ways(layer, tensors, rules)
    np.testing.assert_array_equal(layer.key.kernel.value.reshape(4, 4), tensors["c_attn.weight"][:, 4:8])
