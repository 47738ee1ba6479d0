"""What `grad` differentiates: `argnums`, `DiffState`, `wrt`, auxiliary output, dtypes; and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises
from tests.user_modules import Affine, Holder

import liftnn
from liftnn import errors


def loss(model, x):
    return model.loss(x)


def f(x, y, z):
    return x * y**2 + jnp.sin(z)


@pytest.mark.parametrize("argnums", [0, 1, -1, -3, (0, 2), (2, 0), [1], (-1, 0)])
@pytest.mark.parametrize("transform", ["grad", "value_and_grad"])
def test_argnums_mean_what_they_mean_in_jax(transform, argnums):
    ours = getattr(liftnn, transform)(f, argnums)(2.0, 3.0, 4.0)
    theirs = getattr(jax, transform)(f, argnums=argnums)(2.0, 3.0, 4.0)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert jax.tree.map(float, ours) == jax.tree.map(float, theirs)


def test_keyword_arguments_are_not_differentiated():
    assert float(liftnn.grad(f)(2.0, z=1.0, y=3.0)) == float(jax.grad(f)(2.0, z=1.0, y=3.0))


@pytest.mark.parametrize("argnums", [(0, 1), (1, 0), [0], -2])
def test_modules_and_arrays_are_differentiated_together(argnums):
    model = Affine(2.0)
    by_position = {
        0: liftnn.grad(loss)(Affine(2.0), 3.0)["w"].value.tolist(),
        1: float(jax.grad(lambda x: ((x * 2.0 * jnp.ones(3)) ** 2).sum())(3.0)),
    }
    grads = liftnn.grad(loss, argnums=argnums)(model, 3.0)
    chosen = [argnums] if isinstance(argnums, int) else argnums
    several = (grads,) if isinstance(argnums, int) else grads
    assert type(several) is tuple
    for argnum, grad in zip(chosen, several, strict=True):
        got = grad["w"].value.tolist() if isinstance(grad, liftnn.State) else float(grad)
        assert got == by_position[argnum % 2]


def test_several_modules_have_a_state_each():
    a, b = Affine(2.0), Affine(3.0)
    grads = liftnn.grad(lambda a, b: (a.w * b.w).sum(), argnums=(0, 1))(a, b)
    assert [g["w"].value.tolist() for g in grads] == [[3.0] * 3, [2.0] * 3]


FILTERS = {
    "type": (liftnn.Param, ["w", "b"]),
    "another type": (liftnn.BatchStat, ["mean"]),
    "tag": ("frozen", ["b"]),
    "path": (liftnn.PathContains("w"), ["w"]),
    "predicate": (lambda path, x: path == ("b",) and isinstance(x, liftnn.Param), ["b"]),
    "tuple": ((liftnn.BatchStat, liftnn.PathContains("b")), ["b", "mean"]),
    "list": ([liftnn.BatchStat, "frozen"], ["b", "mean"]),
    "not": (liftnn.All(liftnn.Param, liftnn.Not(liftnn.WithTag("frozen"))), ["w"]),
    "any": (liftnn.Any(liftnn.PathContains("w"), liftnn.BatchStat), ["w", "mean"]),
    "everything": (..., ["w", "b", "mean", "scale"]),
    "array leaves": (liftnn.PathContains("scale"), ["scale"]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_wrt_picks_variables(name):
    wrt, expected = FILTERS[name]
    model = Holder(
        w=liftnn.Param(jnp.ones(2)),
        b=liftnn.Param(jnp.ones(2), tag="frozen"),
        mean=liftnn.BatchStat(jnp.ones(2)),
        scale=jnp.ones(2),
    )

    def total(m):
        return (m.w * 2 + m.b * 3 + m.mean * 4 + m.scale * 5).sum()

    grads = liftnn.grad(total, wrt=wrt)(model)
    assert list(grads) == expected
    numbers = {"w": 2.0, "b": 3.0, "mean": 4.0, "scale": 5.0}
    for key in expected:
        assert np.asarray(grads[key]).tolist() == [numbers[key]] * 2


def test_diff_state_filters_one_argument():
    only_b, rest = liftnn.DiffState(0, liftnn.PathContains("b")), liftnn.DiffState(-1, liftnn.Param)
    a, b = Affine(2.0), Affine(3.0)
    grads = liftnn.grad(lambda a, b: (a.w * b.w + a.b).sum(), argnums=(only_b, rest))(a, b)
    assert [list(g) for g in grads] == [["b"], ["w", "b"]]
    single = liftnn.grad(lambda a: a.loss(1.0), argnums=only_b)(a)
    assert list(single) == ["b"]


def test_wrt_holds_for_the_arguments_without_a_filter_of_their_own():
    argnums = (liftnn.DiffState(0, liftnn.Param), 1)
    grads = liftnn.grad(lambda a, b: (a.w + b.w + b.b).sum(), argnums=argnums, wrt=liftnn.PathContains("b"))(
        Affine(), Affine()
    )
    assert [list(g) for g in grads] == [["w", "b"], ["b"]]


def test_the_gradient_of_a_tree_is_a_tree_of_states():
    tree = {"model": Affine(2.0), "more": [3.0, None, (Affine(1.0), jnp.ones(2))]}
    grads = liftnn.grad(lambda t: t["model"].w.sum() * t["more"][0] + t["more"][2][1].sum())(tree)
    assert grads["model"]["w"].value.tolist() == [3.0] * 3
    assert float(grads["more"][0]) == 6.0
    assert grads["more"][1] is None
    assert grads["more"][2][0]["w"].value.tolist() == [0.0] * 3
    assert grads["more"][2][1].tolist() == [1.0, 1.0]


def test_auxiliary_output_may_be_anything():
    def with_aux(model, x):
        return model.loss(x), {"model": model, "new": Affine(7.0), "text": "text", "x": x * 2, "none": None}

    model = Affine(2.0)
    (value, aux), grads = liftnn.value_and_grad(with_aux, has_aux=True)(model, 3.0)
    assert float(value) == 108.0
    assert aux["model"] is model
    assert aux["new"].w.value.tolist() == [7.0] * 3
    assert (aux["text"], float(aux["x"]), aux["none"]) == ("text", 6.0, None)
    assert list(grads) == ["w", "b"]
    only, again = liftnn.grad(with_aux, has_aux=True)(model, 3.0)
    assert only["w"].value.tolist() == grads["w"].value.tolist()
    assert again["model"] is model


def test_holomorphic_functions_are_differentiated_as_in_jax():
    z = jnp.array([1 + 2j, 3 - 1j])
    model = Holder(z=liftnn.Param(z))
    ours = liftnn.grad(lambda m: (m.z**3).sum(), holomorphic=True)(model)["z"].value
    assert ours.tolist() == jax.grad(lambda z: (z**3).sum(), holomorphic=True)(z).tolist()


def test_complex_params_of_a_real_loss_are_differentiated_as_in_jax():
    z = jnp.array([1 + 2j, 3 - 1j])
    ours = liftnn.grad(lambda m: (abs(m.z.value) ** 2).sum())(Holder(z=liftnn.Param(z)))["z"].value
    assert ours.tolist() == jax.grad(lambda z: (abs(z) ** 2).sum())(z).tolist()


def test_integers_have_float0_gradients_if_allowed():
    model = Holder(w=liftnn.Param(jnp.ones(2)), n=liftnn.Param(jnp.arange(2)))
    grads = liftnn.grad(lambda m: (m.w * m.n).sum(), allow_int=True)(model)
    assert grads["n"].value.dtype == jax.dtypes.float0
    assert grads["w"].value.tolist() == [0.0, 1.0]


JAX_ERRORS = {
    "no scalar": (lambda x: jnp.ones(3) * x, {}),
    "an integer output": (lambda x: 3, {}),
    "a complex output": (lambda x: x * 1j, {}),
    "holomorphic of a real argument": (lambda x: x, {"holomorphic": True}),
}


@pytest.mark.parametrize("name", JAX_ERRORS)
def test_outputs_that_jax_refuses_raise_jaxs_error(name):
    function, options = JAX_ERRORS[name]
    texts = []
    for grad, argument in ((jax.grad, 2.0), (liftnn.grad, 2.0), (liftnn.grad, liftnn.Param(2.0))):
        with pytest.raises(TypeError) as caught:
            grad(lambda x: function(jnp.asarray(x)), **options)(argument)
        texts.append(str(caught.value))
    assert texts[0] == texts[1] == texts[2]


NO_SCALAR = (
    "The function to differentiate must return {}.\n"
    "Return an array of shape (), not a Variable but its `.value`; return further outputs with has_aux=True."
)
OUTPUTS = {
    "none": (lambda m: None, {}, "a scalar array"),
    "a pair": (lambda m: (m.loss(1.0), 1), {}, "a scalar array"),
    "a variable": (lambda m: liftnn.Variable(m.loss(1.0)), {}, "a scalar array"),
    "a module": (lambda m: m, {}, "a scalar array"),
    "text": (lambda m: "text", {}, "a scalar array"),
    "none first": (lambda m: (None, m.loss(1.0)), {"has_aux": True}, "a pair (scalar array, auxiliary)"),
    "a list first": (lambda m: ([m.loss(1.0)], 1), {"has_aux": True}, "a pair (scalar array, auxiliary)"),
    "a module first": (lambda m: (m, m.loss(1.0)), {"has_aux": True}, "a pair (scalar array, auxiliary)"),
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("transform", [liftnn.grad, liftnn.value_and_grad])
def test_an_output_that_is_no_scalar_is_an_error(transform, name):
    function, options, where = OUTPUTS[name]
    with raises(errors.ArgumentTypeError, NO_SCALAR.format(where)):
        transform(function, **options)(Affine())


@pytest.mark.parametrize(
    "output, what",
    [
        (jnp.ones(()), "an array"),
        ((jnp.ones(()),), "a tuple of 1"),
        ((jnp.ones(()), 1, 2), "a tuple of 3"),
        ([jnp.ones(())], "a list of 1"),
        (None, "a NoneType"),
    ],
)
def test_an_output_that_is_no_pair_is_an_error_with_has_aux(output, what):
    with raises(
        errors.ArgumentTypeError,
        f"With has_aux=True the function must return a pair (output, auxiliary), not {what}.\n"
        "Return a tuple `(output, auxiliary)`, or leave has_aux out.",
    ):
        liftnn.grad(lambda m: output, has_aux=True)(Affine())


@pytest.mark.parametrize("argnums", ["m", 1.0, None, (0, "m"), {"a": 1}])
def test_argnums_of_another_type_are_an_error(argnums):
    with raises(
        errors.ArgumentTypeError,
        f"`argnums` must be an int, a DiffState or a sequence of them, not {argnums!r}.\n"
        "Pass the position of an argument, such as 0, or several, such as (0, liftnn.DiffState(1, filter)).",
    ):
        liftnn.grad(loss, argnums=argnums)


@pytest.mark.parametrize("argnums, passed", [(2, 2), (-3, 2), (liftnn.DiffState(5), 2)])
def test_argnums_out_of_range_are_an_error(argnums, passed):
    number = getattr(argnums, "argnum", argnums)
    with raises(
        errors.ArgumentTypeError,
        f"argnums contains {number}, but only {passed} positional arguments were passed.\n"
        "Pass the differentiated arguments by position.",
    ):
        liftnn.grad(loss, argnums=argnums)(Affine(), 1.0)


@pytest.mark.parametrize("argnums", [0, 1, (0, 1), (1, 0), liftnn.DiffState(0, liftnn.Param)])
def test_a_differentiated_argument_of_a_call_with_modules_may_be_passed_by_keyword(argnums):
    model = Affine(2.0)
    grad = liftnn.value_and_grad(loss, argnums)
    expected = grad(model, 3.0)
    for args, kwargs in [
        ((), {"model": model, "x": 3.0}),
        ((), {"x": 3.0, "model": model}),
        ((model,), {"x": 3.0}),
    ]:
        found = grad(*args, **kwargs)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_differentiated_argument_that_has_no_position_is_an_error():
    with raises(
        errors.ArgumentTypeError,
        "argnums contains 0, but only 0 positional arguments were passed.\n"
        "Pass the differentiated arguments by position.",
    ):
        liftnn.grad(lambda *, model, x: loss(model, x))(model=Affine(), x=1.0)


def test_a_filter_that_matches_nothing_is_an_error():
    with raises(
        errors.FilterError,
        "Nothing to differentiate: no Variable of args[0]['a'] matches OfType(BatchStat).\n"
        "Pass a filter as `wrt` that matches Variables of the module, such as liftnn.Param, or leave the argument out "
        "of `argnums`.".replace("['a']", ".a"),
    ):
        liftnn.grad(lambda d: d["a"].loss(1.0), wrt=liftnn.BatchStat)({"a": Affine()})


@pytest.mark.parametrize("pack", [tuple, list, lambda layers: dict(enumerate(layers))])
def test_of_several_modules_in_an_argument_one_needs_a_match(pack):
    layers = pack([Affine(), liftnn.Dropout(0.5, deterministic=True), jnp.float32(2.0)])

    def chain(layers, x):
        return layers[0].loss(layers[1](x) * layers[2])

    affine, dropout, factor = (liftnn.grad(chain)(layers, 3.0)[i] for i in range(3))
    alone, expected = liftnn.grad(lambda m, c, x: m.loss(x * c), argnums=(0, 1))(
        layers[0], jnp.float32(2.0), 3.0
    )
    assert dropout.to_pure_dict() == {}
    assert factor == expected
    assert list(affine) == list(alone)
    assert all((affine[name].value == x.value).all() for name, x in alone.items())


def test_of_several_modules_one_needs_a_match():
    class Scale(liftnn.Module):
        def __call__(self, x):
            return 2.0 * x

    with_none, with_some = liftnn.grad(lambda a, b, x: b.loss(a(x)), argnums=(0, 1))(Scale(), Affine(), 3.0)
    expected = liftnn.grad(lambda b, x: b.loss(2.0 * x))(Affine(), 3.0)
    assert with_none.to_pure_dict() == {}
    assert list(with_some) == list(expected)
    assert all((with_some[name].value == x.value).all() for name, x in expected.items())
    with raises(
        errors.FilterError,
        "Nothing to differentiate: no Variable of args[0] matches OfType(Param).\n"
        "Pass a filter as `wrt` that matches Variables of the module, such as liftnn.Param, or leave the argument out "
        "of `argnums`.",
    ):
        liftnn.grad(lambda a, b: a(b(3.0)), argnums=(0, 1))(Scale(), Scale())


INTEGERS = {
    "a param": (
        lambda: Holder(layers=[Holder(n=liftnn.Param(jnp.arange(2)))]),
        "args[0].layers[0].n",
        "int32",
    ),
    "an argument": (lambda: 3, "args[0]", "int32"),
    "a truth value": (lambda: True, "args[0]", "bool"),
    "an array in a dict": (lambda: {"n": jnp.arange(2), "x": 1.0}, "args[0].n", "int32"),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_refused_by_path(name):
    build, path, dtype = INTEGERS[name]
    with raises(
        errors.ArgumentTypeError,
        f"Cannot differentiate {path}: its dtype is {dtype}.\n"
        "Exclude it with `wrt` or `argnums`, convert it to a floating point dtype, or pass allow_int=True.",
    ):
        liftnn.grad(lambda x: 1.0)(build())


def test_a_static_leaf_cannot_be_differentiated():
    with raises(
        errors.ArgumentTypeError,
        "Cannot differentiate args[0].name: it is not an array.\n"
        "With `argnums`, select only arguments that contain nothing but arrays and modules.",
    ):
        liftnn.grad(lambda d: d["x"])({"x": 1.0, "name": "text"})
