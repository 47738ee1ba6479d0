"""`vjp` gives the output and cotangents that JAX gives, with States for modules; effects come out once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder, Pair, step

import liftnn
from liftnn import errors

X = jnp.array([1.0, -2.0, 3.0])
CT = jnp.array([1.0, 10.0, 100.0])


def plain(p, x):
    return x * p["w"] + p["b"]


def params_of(model):
    return {"w": model.w.value, "b": model.b.value}


def assert_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_output_and_cotangents_are_jaxs():
    model = Affine(2.0)
    out, pull_back = liftnn.vjp(step, model, X)
    expected, plain_pull_back = jax.vjp(plain, params_of(model), X)
    assert out.tolist() == expected.tolist()
    for ct in (CT, -CT):
        of_model, of_x = pull_back(ct)
        assert list(of_model) == ["w", "b"]
        assert type(of_model["w"]) is liftnn.Param
        assert_close((of_model.to_pure_dict(), of_x), plain_pull_back(ct))
    assert int(model.calls.value) == 1


@pytest.mark.parametrize("name", ["loss", "__call__"])
def test_the_module_of_a_bound_method_is_argument_0(name):
    model, reference = Affine(2.0), Affine(2.0)
    out, pull_back = liftnn.vjp(getattr(model, name), X)
    expected, other = liftnn.vjp(getattr(Affine, name), reference, X)
    assert_same(pull_back(jnp.ones_like(out)), other(jnp.ones_like(expected)))
    assert_same(model, reference)


def test_a_module_instance_can_be_differentiated():
    _, pull_back = liftnn.vjp(Affine(2.0), X)
    assert pull_back(CT)[0]["w"].value.tolist() == (CT * X).tolist()


def test_a_shared_param_has_one_cotangent_the_sum_at_its_first_path():
    model = Pair()
    _, pull_back = liftnn.vjp(lambda m, x: m(x), model, X)
    (of_model, _) = pull_back(CT)

    def by_hand(w, b1, b2):
        return (X * w + b1) * w + b2

    _, plain_pull_back = jax.vjp(by_hand, model.first.w.value, jnp.zeros(3), jnp.zeros(3))
    assert list(of_model.flat()) == [("first", "w"), ("first", "b"), ("second", "b")]
    assert_close([v.value for v in of_model.flat().values()], list(plain_pull_back(CT)))


def test_a_param_shared_by_two_arguments_stands_in_the_first():
    model = Pair()
    _, pull_back = liftnn.vjp(lambda a, b: a.w * 2 + b.w * 3 + b.b, model.first, model.second)
    first, second = pull_back(jnp.ones(3))
    assert (list(first), list(second)) == (["w", "b"], ["b"])
    assert first["w"].value.tolist() == [5.0] * 3


ARGUMENTS = {
    "integers": (3,),
    "a typed key": (jax.random.key(0),),
    "a truth value": (True,),
    "a tree": ({"x": 2.0, "n": jnp.arange(2), "none": None},),
    "complex": (1 + 2j,),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_without_modules_are_treated_as_in_jax(name):
    def f(x, y):
        leaves = [z * y for z in jax.tree.leaves(x) if jnp.issubdtype(jnp.result_type(z), jnp.inexact)]
        return sum(leaves, start=y * 2)

    ours, theirs = (module.vjp(f, *ARGUMENTS[name], 2.0) for module in (liftnn, jax))
    got, wanted = (pull_back(jnp.ones_like(out)) for out, pull_back in (ours, theirs))
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.dtype == jax.dtypes.float0 or a.tolist() == b.tolist()


def test_what_is_no_array_has_none_for_a_cotangent():
    out, pull_back = liftnn.vjp(
        lambda model, how, x: model(x) * len(how["name"]), Affine(2.0), {"name": "four"}, X
    )
    _, of_text, of_x = pull_back(jnp.ones_like(out))
    assert of_text == {"name": None}
    assert of_x.tolist() == [8.0] * 3


def test_modules_without_a_match_have_an_empty_state():
    def f(model, rngs, x):
        return model(x) + jax.random.normal(rngs(), (3,))

    rngs = liftnn.Rngs(0)
    _, pull_back = liftnn.vjp(f, Affine(2.0), rngs, X)
    of_model, of_rngs, of_x = pull_back(CT)
    assert (list(of_model), list(of_rngs), of_x.tolist()) == (["w", "b"], [], (2 * CT).tolist())
    assert int(rngs.default.count.value) == 1
    of_drop, of_x = liftnn.vjp(liftnn.Dropout(0.0, rngs=rngs), X)[1](CT)
    assert (list(of_drop), of_x.tolist()) == ([], CT.tolist())


def test_wrt_everything_leaves_integers_out():
    model = Holder(w=liftnn.Param(X), n=liftnn.Param(jnp.arange(3)), scale=X, rngs=liftnn.Rngs(0))
    _, pull_back = liftnn.vjp(lambda m: m.w * m.n + m.scale, model, wrt=...)
    (found,) = pull_back(CT)
    assert found["w"].value.tolist() == (CT * jnp.arange(3)).tolist()
    assert found["scale"].tolist() == CT.tolist()
    assert list(found.flat()) == [("w",), ("scale",)]


@pytest.mark.parametrize("argnums, chosen", [(0, [0]), (-1, [1]), ((1, 0), [1, 0]), ([-2], [0])])
def test_argnums_choose_arguments(argnums, chosen):
    model = Affine(2.0)
    _, pull_back = liftnn.vjp(step, model, X, argnums=argnums)
    _, everything = liftnn.vjp(step, model, X)
    got, both = pull_back(CT), everything(CT)
    assert type(got) is tuple
    assert_close(got, tuple(both[i] for i in chosen))


def test_diff_state_filters_one_argument():
    only_b = liftnn.DiffState(0, liftnn.PathContains("b"))
    _, pull_back = liftnn.vjp(lambda a, b: a.w * b.w + a.b, Affine(), Affine(), argnums=(only_b, 1))
    assert [list(x) for x in pull_back(CT)] == [["b"], ["w", "b"]]


def test_a_cotangent_of_a_module_is_a_state_a_module_or_a_dict_and_may_have_gaps():
    def f(model, x):
        model.w.value = model.w * x
        return {"model": model, "x": x * 2}

    model = Affine(2.0)
    _, pull_back = liftnn.vjp(f, model, X)
    as_module = Affine()
    as_module.w.value, as_module.b.value = CT, jnp.zeros(3)
    state = liftnn.State({"w": liftnn.Param(CT)})
    for given in (as_module, state, {"w": CT}, {"w": liftnn.Param(CT), "b": None}):
        of_model, of_x = pull_back({"model": given, "x": None})
        assert of_model["w"].value.tolist() == (CT * X).tolist()
        assert of_x.tolist() == (CT * 2).tolist()
    assert pull_back({"model": None, "x": CT})[1].tolist() == (CT * 2).tolist()
    assert jax.tree.leaves(pull_back(None)[1])[0].tolist() == [0.0] * 3


def test_a_numpy_cotangent_of_64_bits_is_converted_as_in_jax():
    ct = np.array(CT, np.float64)
    expected = jax.vjp(plain, params_of(Affine(2.0)), X)[1](ct)
    of_model, of_x = liftnn.vjp(step, Affine(2.0), X)[1](ct)
    assert_close((of_model.to_pure_dict(), of_x), expected)


def test_cotangents_of_shared_variables_in_the_output_are_added():
    _, pull_back = liftnn.vjp(lambda pair: [pair.second, pair.first, pair.first.w.value * 5], Pair())
    (found,) = pull_back([{"w": CT}, {"w": CT}, CT])
    assert found["first"]["w"].value.tolist() == (7 * CT).tolist()


def test_modules_made_inside_and_their_array_leaves_have_cotangents():
    def f(x):
        return Holder(
            layers=[Affine(), liftnn.Param({"a": x * 2, "n": jnp.arange(2)})], scale=x * 3, name="new"
        )

    out, pull_back = liftnn.vjp(f, X)
    assert out.name == "new"
    ct = {"layers": {1: {"a": CT}}, "scale": CT}
    ct["layers"][1]["n"] = None
    assert pull_back(ct)[0].tolist() == (CT * 5).tolist()


def test_arrays_that_a_changed_module_kept_or_got_have_cotangents():
    class Point(NamedTuple):
        x: object
        y: object

    def f(model, x):
        model.first = model.a * x
        model.pair = Point(model.pair.y, model.b * x)
        model.layers.append(x * 5)
        model.w.note = x * 7
        del model.b
        return model

    def plain(a, b, y, layer, x):
        return {
            "a": a,
            "layers": {0: layer, 1: x * 5},
            "pair": {"x": y, "y": b * x},
            "first": a * x,
            "note": x * 7,
        }

    arrays = [X + i for i in range(4)]
    model = Holder(a=arrays[0], b=arrays[1], pair=Point(X, arrays[2]), layers=[arrays[3]], w=liftnn.Param(X))
    out, pull_back = liftnn.vjp(f, model, X, wrt=...)
    expected, plain_pull_back = jax.vjp(plain, *arrays, X)
    ct = jax.tree.map(lambda x: CT * x, expected)
    given = {k: x for k, x in ct.items() if k != "note"}
    of_model, of_x = pull_back({**given, "w": None})
    ct["note"] = 0 * CT
    *of_arrays, plain_of_x = plain_pull_back(ct)
    found = [of_model["a"], of_model["b"], of_model["pair"]["y"], of_model["layers"][0]]
    assert_close((found, of_x), (of_arrays, plain_of_x))
    assert out is model
    tangent = liftnn.jvp(lambda m: m, (out,), ({"pair": {"y": CT}, "layers": {1: X}},), wrt=...)[1]
    assert tangent["pair"]["y"].tolist() == CT.tolist()
    assert tangent["layers"][1].tolist() == X.tolist()


def test_auxiliary_output_may_be_anything():
    def f(model, x):
        return model(x), {"model": model, "text": "text", "new": Affine(7.0)}

    model = Affine(2.0)
    out, pull_back, aux = liftnn.vjp(f, model, X, has_aux=True)
    assert out.tolist() == (2 * X).tolist()
    assert aux["model"] is model
    assert (aux["text"], aux["new"].w.value.tolist()) == ("text", [7.0] * 3)
    assert pull_back(CT)[1].tolist() == (2 * CT).tolist()


def test_the_product_touches_no_module_and_sees_no_later_change():
    model = Affine(2.0)
    _, pull_back = liftnn.vjp(step, model, X)
    before = pull_back(CT)
    model.w.value, model.mode = model.w * 7, "eval"
    assert_close(pull_back(CT), before)
    assert (model.w.value.tolist(), int(model.calls.value)) == ([14.0] * 3, 1)


def test_the_product_works_under_transforms_and_comes_out_of_jit():
    model = Affine(2.0)
    out, pull_back = liftnn.jit(lambda model, x: liftnn.vjp(step, model, x))(model, X)
    assert out.tolist() == (2 * X).tolist()
    assert int(model.calls.value) == 1
    rows = liftnn.vmap(pull_back)(jnp.eye(3))
    assert rows[0]["w"].value.tolist() == jnp.diag(X).tolist()
    assert jax.jit(pull_back)(CT)[1].tolist() == (2 * CT).tolist()
    (again,) = jax.vjp(lambda ct: pull_back(ct)[1], CT)[1](X)
    assert again.tolist() == (2 * X).tolist()


def test_vjp_inside_jit_and_vmap():
    def row(model, x, ct):
        return liftnn.vjp(step, model, x)[1](ct)

    model = Affine(2.0)
    mapped = liftnn.vmap(row, in_axes=(None, 0, 0))
    of_model, of_x = liftnn.jit(mapped)(model, jnp.stack([X, 2 * X]), jnp.stack([CT, CT]))
    assert of_model["w"].value.tolist() == jnp.stack([CT * X, CT * 2 * X]).tolist()
    assert of_x.tolist() == jnp.stack([2 * CT, 2 * CT]).tolist()


def test_empty_modules_and_arrays_of_no_size():
    model = Holder(w=liftnn.Param(jnp.zeros((0, 3))), gone=liftnn.Param(liftnn.Empty), none=Holder())
    out, pull_back = liftnn.vjp(lambda m, e, x: (m.w.value.sum(0) + x, e), model, Holder(), X)
    assert isinstance(out[1], Holder)
    of_model, of_empty, of_x = pull_back((CT, {}))
    assert (of_model["w"].shape, list(of_model), list(of_empty)) == ((0, 3), ["w"], [])
    assert of_x.tolist() == CT.tolist()


def test_a_cycle_is_no_obstacle():
    model = Affine(2.0)
    model.me, model.list = model, [model]
    out, pull_back = liftnn.vjp(lambda m, x: (m, m.list[0].me(x)), model, X)
    assert out[0] is model
    of_model, _ = pull_back(({"me": {"list": {0: {"w": CT}}}}, None))
    assert of_model["w"].value.tolist() == CT.tolist()
    assert list(of_model.flat()) == [("w",), ("b",)]


def test_an_exception_changes_nothing():
    def fails(model):
        model.w.value, model.mode = model.w * 2, "eval"
        raise KeyError("half way")

    model = Affine()
    with pytest.raises(KeyError, match="half way"):
        liftnn.vjp(fails, model)
    assert_same(model, Affine())


def test_no_tracer_leaks():
    model = Pair()
    with jax.checking_leaks():
        _, pull_back = liftnn.jit(lambda m, x: liftnn.vjp(lambda m, x: (m(x), m), m, x))(model, X)
        pull_back((CT, None))
    assert not has_tracer(model)


BAD = {
    "unknown": {"w": CT, "v": {"a": CT}},
    "integers": {"calls": jnp.ones((), jnp.int32)},
    "shape": {"w": jnp.ones(2)},
    "dtype": {"w": jnp.ones(3, jnp.bfloat16)},
    "text": {"w": "text"},
    "tree": {"w": {"a": CT}},
}
TEXTS = {
    "unknown": (errors.StructureError, "the output[0] does not match its structure:\nunexpected:\n  v.a\n"),
    "integers": (errors.StructureError, "not differentiated:\n  the output[0].calls\n"),
    "shape": (
        errors.ArgumentError,
        "the output[0].w is float32[2], but must be float32[3]",
    ),
    "text": (errors.ArgumentError, "the output[0].w is a str, but must be float32[3]"),
    "tree": (errors.ArgumentError, "the output[0].w is a dict, but must be float32[3]"),
    "dtype": (errors.ArgumentError, "the output[0].w is bfloat16[3], but must be float32[3]"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_cotangent_that_does_not_fit_is_an_error_by_path(name):
    _, pull_back = liftnn.vjp(lambda m, x: (m, x), Affine(), X)
    cls, text = TEXTS[name]
    with pytest.raises(cls) as caught:
        pull_back((BAD[name], None))
    assert text in str(caught.value)


def test_a_cotangent_of_another_tree_is_an_error():
    _, pull_back = liftnn.vjp(lambda m, x: {"a": m, "b": (x, x)}, Affine(), X)
    with raises(
        errors.StructureError,
        "The cotangent of the output has the structure {'a': *, 'b': [*, *]}, not {'a': *, 'b': (*, *)}.\n"
        "Pass a cotangent with the structure of the value and a State in place of each module; None means zero.",
    ):
        pull_back({"a": Affine(), "b": [X, X]})


def test_a_filter_that_matches_nothing_at_all_or_in_its_argument_is_an_error():
    with raises(
        errors.FilterError,
        "Nothing to differentiate: no floating point Variable of args[0] matches OfType(BatchStat).\n"
        "Pass a filter as `wrt` that matches Variables of the module, such as liftnn.Param, or leave the argument out "
        "of `argnums`.",
    ):
        liftnn.vjp(step, Affine(), X, wrt=liftnn.BatchStat)
    with pytest.raises(errors.FilterError, match=r"no floating point Variable of args\[1\] matches OfType"):
        liftnn.vjp(lambda a, b: a(X), Affine(), liftnn.Rngs(0), argnums=(0, liftnn.DiffState(1)))
