"""What does not fit is listed with both sides, or left out on request; `only`, `cast` and rules say what fits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import liftnn
from tests.raising import raises
from tests.user_modules import Affine, Holder

Param, Rule = liftnn.Param, liftnn.Rule


@pytest.fixture
def file(tmp_path):
    return str(tmp_path / "model.safetensors")


def param(*shape, dtype=jnp.float32):
    return Param(jnp.zeros(shape, dtype))


def values(module):
    return [np.asarray(x).tolist() for x in jax.tree.leaves(module)]


def misfits():
    """What a file has, and a module that it does not fit: a fits, b, c and d differ, e is missing, f unexpected."""
    saved = Holder(
        a=Param(jnp.ones(2)),
        b=Param(jnp.ones(3)),
        c=Param(jnp.ones(2, int)),
        d=np.ones(1),
        f=Param(jnp.ones(())),
    )
    return saved, Holder(a=param(2), b=param(4), c=param(2), d=np.zeros(2), e=param())


REPORT = liftnn.LoadReport(
    missing=("e: float32[], from 'e'",),
    unexpected=("'f': float32[]",),
    mismatched=(
        "b: float32[4] in the module, float32[3] from 'b'",
        "c: float32[2] in the module, int32[2] from 'c'",
        "d: float64[2] in the module, float64[1] from 'd'",
    ),
)


def test_all_that_does_not_fit_is_in_one_error_and_nothing_is_changed(file):
    saved, module = misfits()
    liftnn.save_weights(file, saved)
    before = values(module)
    with pytest.raises(liftnn.CheckpointError) as caught:
        liftnn.load_weights(file, module)
    assert caught.value.cause == f"{file} does not fit the module:\n{REPORT}"
    assert values(module) == before


def test_without_strict_what_fits_is_loaded_and_the_rest_reported(file):
    saved, module = misfits()
    liftnn.save_weights(file, saved)
    report = liftnn.load_weights(file, module, strict=False)
    assert report == REPORT
    assert report
    assert values(module) == [[1, 1], [0] * 4, [0, 0], 0, [0, 0]]


def test_a_report_has_a_line_for_each_path():
    assert str(REPORT).splitlines() == [
        "missing:",
        "  e: float32[], from 'e'",
        "unexpected:",
        "  'f': float32[]",
        "mismatched:",
        "  b: float32[4] in the module, float32[3] from 'b'",
        "  c: float32[2] in the module, int32[2] from 'c'",
        "  d: float64[2] in the module, float64[1] from 'd'",
    ]
    assert str(liftnn.LoadReport()) == ""
    assert not liftnn.LoadReport(metadata={"epoch": "3"})


def test_an_empty_variable_takes_nothing_and_a_module_without_arrays_fits_a_file_without_tensors(file):
    liftnn.save_weights(file, Holder(a=liftnn.Variable(liftnn.Empty)))
    module = Holder(a=liftnn.Variable(liftnn.Empty))
    assert not liftnn.load_weights(file, module)
    assert not liftnn.load_weights(file, Holder())
    liftnn.save_weights(file, Holder(a=param(2)))
    assert liftnn.load_weights(file, module, strict=False).unexpected == ("'a': float32[2]",)


def test_keys_of_another_implementation_do_not_fit(file):
    liftnn.save_weights(file, Holder(k=liftnn.Variable(jax.random.key(0, impl="rbg"))))
    report = liftnn.load_weights(file, Holder(k=liftnn.Variable(jax.random.key(0))), strict=False)
    assert report.mismatched == ("k: key<fry>[] in the module, key<rbg>[] from 'k'",)


def test_only_fills_some_and_ignores_the_tensors_of_the_others(file):
    def make(x):
        return Holder(
            a=Param(jnp.full(2, x)),
            b=liftnn.BatchStat(jnp.full(3, x)),
            c=liftnn.Variable("text"),
            n=np.full(1, x),
        )

    liftnn.save_weights(file, make(2.0), lambda path, x: path[-1] != "c")
    module = make(0.0)
    assert not liftnn.load_weights(file, module, only=Param)
    assert (module.a.value.tolist(), module.b.value.tolist(), module.n.tolist()) == ([2, 2], [0] * 3, [0])
    assert not liftnn.load_weights(file, module, only=[liftnn.BatchStat, lambda path, x: path[-1] == "n"])
    assert (module.b.value.tolist(), module.n.tolist()) == ([2] * 3, [2])


def test_only_does_not_hide_a_tensor_that_no_variable_has(file):
    save_file({"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32), "x": np.zeros(2)}, file)
    module = Holder(a=param(2), b=liftnn.BatchStat(jnp.zeros(2)))
    assert liftnn.load_weights(file, module, only=Param, strict=False).unexpected == ("'x': float64[2]",)


CASTS = {
    ("float64", "float32"): True, ("float32", "bfloat16"): True, ("bfloat16", "float32"): True,
    ("float32", "float8_e4m3fn"): True, ("int64", "int32"): True, ("int8", "uint8"): True, ("int32", "int4"): True,
    ("float32", "int32"): False, ("int32", "float32"): False, ("bool", "int32"): False, ("float32", "complex64"): False,
    ("uint8", "bool"): False,
}  # fmt: skip


@pytest.mark.sample(2)
@pytest.mark.parametrize("saved, wanted", CASTS)
def test_cast_converts_dtypes_of_the_same_kind(file, saved, wanted):
    x = np.array([0, 1, 1, 0]).astype(saved)
    liftnn.save_weights(file, Holder(a=x))
    module = Holder(a=param(4, dtype=wanted))
    assert liftnn.load_weights(file, module, strict=False)
    report = liftnn.load_weights(file, module, strict=False, cast=True)
    assert bool(report) is not CASTS[saved, wanted]
    expected = x.astype(wanted) if CASTS[saved, wanted] else np.zeros(4, wanted)
    np.testing.assert_array_equal(np.asarray(module.a.value), expected, strict=True)


def test_pairs_rename_and_skip(file):
    save_file(
        {f"net.layer{i}.w": np.full(2, i, np.float32) for i in range(3)} | {"optimizer": np.ones(1)}, file
    )
    module = Holder(layers=[Holder(weight=param(2)) for _ in range(3)])
    rules = [(r"^layers\.(\d+)", r"net.layer\1"), ("weight$", lambda match: "w"), ("opt.*", None)]
    assert not liftnn.load_weights(file, module, rules)
    assert [x.weight.value.tolist() for x in module.layers] == [[i, i] for i in range(3)]


def test_pairs_that_match_nothing_change_nothing(file):
    liftnn.save_weights(file, Affine(2.0))
    module = Affine(0.0)
    assert not liftnn.load_weights(file, module, [("x", "y"), ("x", None)])
    assert module.w.value.tolist() == [2, 2, 2]


def test_two_variables_may_be_filled_from_one_tensor(file):
    save_file({"w": np.ones(2, np.float32)}, file)
    module = Holder(a=param(2), b=param(2))
    assert not liftnn.load_weights(file, module, [("^[ab]$", "w")])
    assert module.a is not module.b
    assert values(module) == [[1, 1], [1, 1]]


X = np.arange(24, dtype=np.float32).reshape(4, 6)
RULES = {
    "transpose": (Rule("w", "x", transpose=(1, 0)), X.T),
    "reshape": (Rule("w", "x", reshape=(2, 2, -1)), None),
    "flat": (Rule("w", "x", reshape=(4, 6)), X.reshape(2, 12)),
    "part": (Rule("w", "x", part=(1, 2)), X[2:]),
    "part of columns": (Rule("w", "x", part=(2, 3), axis=1), X[:, 4:]),
    "transposed part": (Rule("w", "x", part=(1, 2), transpose=(1, 0)), X[2:].T),
    "join": (Rule("w", ["x", "y"]), np.concatenate([X, -X])),
    "join columns": (Rule("w", ("x", lambda match: "y"), axis=1), np.concatenate([X, -X], 1)),
    "groups": (Rule("(w)", r"deep.\1.x"), X + 1),
    "first rule": ([Rule("w", "y"), Rule("w", "x")], -X),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", RULES)
def test_rules_say_how_layouts_differ(file, name):
    rules, expected = RULES[name]
    save_file({"x": X, "y": -X, "deep.w.x": X + 1}, file)
    if expected is None:
        rules, expected = Rule("w", "x", reshape=(-1, 6)), X.reshape(2, 2, 6)
    module = Holder(w=param(*expected.shape))
    report = liftnn.load_weights(file, module, rules if isinstance(rules, list) else [rules], strict=False)
    assert (report.missing, report.mismatched) == ((), ())
    np.testing.assert_array_equal(np.asarray(module.w.value), expected)


WRONG = {
    "axes": (Rule("w", "x", transpose=(0, 2, 1)), "float32[4,6] has 2 axes, not 3"),
    "axis": (
        Rule("w", "x", transpose=(0, 7)),
        "float32[4,6] axis 7 is out of bounds for array of dimension 2",
    ),
    "axis of parts": (Rule("w", "x", part=(0, 2), axis=5), "float32[4,6] tuple index out of range"),
    "size": (Rule("w", "x", reshape=(4, 6)), "float32[4,6] cannot be reshaped from (4, 6) to (5,)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_rules_that_do_not_fit_are_reported(file, name):
    rule, text = WRONG[name]
    save_file({"x": X}, file)
    report = liftnn.load_weights(file, Holder(w=param(5)), [rule], strict=False)
    assert report.mismatched == (f"w: float32[5] in the module, but 'x': {text}",)


@pytest.mark.parametrize(
    "options", [{"part": (0, 2)}, {"transpose": (0,)}, {"reshape": (4,)}, {"names": ["k", "k"]}]
)
def test_random_keys_keep_their_layout(file, options):
    liftnn.save_weights(file, Holder(k=liftnn.Variable(jax.random.split(jax.random.key(0), 4))))
    rule = Rule("k", **{"names": "k"} | options)
    module = Holder(k=liftnn.Variable(jax.random.split(jax.random.key(1), 4)))
    report = liftnn.load_weights(file, module, [rule], strict=False)
    [line] = report.mismatched
    assert line.endswith("'k': key<fry>[4] cannot be divided, joined, transposed or reshaped")


def test_a_rule_without_names_keeps_the_value(file):
    save_file({"a": np.ones(2, np.float32)}, file)
    module = Holder(a=param(2), b=param(2))
    assert not liftnn.load_weights(file, module, [Rule("b", None)])
    assert values(module) == [[1, 1], [0, 0]]


@pytest.mark.parametrize("trace", [liftnn.jit, liftnn.remat, liftnn.eval_shape])
def test_inside_a_transform_nothing_is_loaded_or_saved(file, trace):
    liftnn.save_weights(file, Affine(2.0))
    module = Affine(0.0)

    def load(x):
        liftnn.load_weights(file, module)
        return x

    def save(x):
        liftnn.save_weights(file, module)
        return x

    for call in (load, save):
        with pytest.raises(liftnn.TraceContextError, match="inside a transform"):
            trace(call, jnp.ones(2)) if trace is liftnn.eval_shape else trace(call)(jnp.ones(2))
    assert module.w.value.tolist() == [0, 0, 0]


def test_under_a_raw_transform_of_jax_nothing_is_loaded(file):
    liftnn.save_weights(file, Affine(2.0))
    module = Affine(0.0)
    with pytest.raises(liftnn.TraceContextError, match="raw JAX transform"):
        jax.jit(lambda: liftnn.load_weights(file, module) and None)()
    assert module.w.value.tolist() == [0, 0, 0]


def test_an_array_that_cannot_be_set_is_an_error_before_anything_is_changed(file):
    liftnn.save_weights(file, {"a": Affine(2.0), "b": (jnp.ones(2),)})
    module = {"a": Affine(0.0), "b": (jnp.zeros(2),)}
    with pytest.raises(liftnn.StructureError, match="cannot be set in place"):
        liftnn.load_weights(file, module)
    assert module["a"].w.value.tolist() == [0, 0, 0]


READERS = {
    "from_torch": lambda module, rules: liftnn.from_torch(module, {"w": X}, rules),
    "from_flax": lambda module, rules: liftnn.from_flax(module, {"w": X}, rules),
    "from_equinox": lambda module, rules: liftnn.from_equinox(module, {"w": X}, rules),
    "to_torch": liftnn.to_torch,
}


@pytest.mark.parametrize("convert", READERS.values(), ids=READERS)
def test_a_rule_that_matches_no_variable_raises_and_changes_nothing(convert):
    module = Holder(weight=liftnn.Param(jnp.zeros((4, 6))))
    text = (
        r"The pattern 'wieght\\.0' of a Rule matches no Variable of the module; the most similar name is 'weight'."
        "\nWrite a pattern that matches the whole name of a Variable, or remove the Rule."
    )
    with raises(liftnn.errors.ArgumentError, text):
        convert(module, [Rule("weight", "w"), Rule(r"wieght\.0", "w")])
    assert not module.weight.value.any()


def test_a_rule_may_match_a_variable_that_is_not_selected_or_another_path_of_a_shared_one(file):
    shared = liftnn.Param(jnp.zeros(3))
    module = Holder(a=shared, b=shared, k=liftnn.BatchStat(jnp.zeros(2)))
    save_file({"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}, file)
    rules = [Rule("b", "b"), Rule("k", None)]
    assert not liftnn.load_weights(file, module, rules, only=liftnn.Param)
    np.testing.assert_array_equal(shared.value, np.ones(3))


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_arrays_of_64_bits_lose_no_bits_while_jax_has_none(file, dtype, cast):
    with jax.enable_x64(True):
        saved = Holder(w=Param(jnp.full(2, 3, dtype)))
        wanted = jax.ShapeDtypeStruct((2,), dtype)
        liftnn.save_weights(file, saved)
    line = f"w: {dtype}[2] in the module, but jax_enable_x64 is off; turn it on first"
    for target in (Holder(w=Param(wanted)), liftnn.clone(saved)):
        assert liftnn.load_weights(file, target, strict=False, cast=cast).mismatched == (line,)
    plain = Holder(w=Param(np.zeros(2, dtype)))
    liftnn.load_weights(file, plain)
    np.testing.assert_array_equal(plain.w.raw_value, np.full(2, 3, dtype), strict=True)
