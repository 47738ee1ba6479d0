"""`vmap` over arrays does what `jax.vmap` does: each case is run through both; over modules, what a loop does."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.effects import EFFECTS, Effect, Model
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder

import liftnn

A, B = jnp.arange(6.0).reshape(2, 3), jnp.arange(4.0)

CASES = {
    "default": ({}, lambda a, b: a + b, (A, A)),
    "int and None": ({"in_axes": (0, None)}, lambda a, b: a.sum() * b, (A, 2.0)),
    "a list": ({"in_axes": [0, None]}, lambda a, b: a.sum() * b, (A, 2.0)),
    "axis 1": ({"in_axes": 1}, lambda a: a * 2, (A,)),
    "negative axes": ({"in_axes": -1, "out_axes": -1}, lambda a: jnp.stack([a, a]), (A,)),
    "axes in and out": ({"in_axes": (0, 1), "out_axes": 1}, lambda a, b: a + b, (A, A.T)),
    "in_axes a dict": ({"in_axes": ({"x": 0, "y": None},)}, lambda d: d["x"] * d["y"], ({"x": A, "y": 2.0},)),
    "in_axes a tuple": ({"in_axes": ((0, None),)}, lambda d: d[0] * d[1], ((A, 2.0),)),
    "in_axes a list inside": ({"in_axes": ([0, None],)}, lambda d: d[0] * d[1], ([A, 2.0],)),
    "one axis for a tree": ({"in_axes": (0, None)}, lambda d, y: d["a"][0] * y, ({"a": [A]}, 2.0)),
    "None in the tree": ({}, lambda d: d["a"], ({"a": A, "b": None},)),
    "out_axes a dict": ({"out_axes": {"a": 0, "b": 1}}, lambda a: {"a": a, "b": a}, (A,)),
    "out_axes a tuple": ({"out_axes": (0, 1)}, lambda a: (a, a), (A,)),
    "out_axes a list": ({"out_axes": [0, 1]}, lambda a: [a, a], (A,)),
    "out_axes None": ({"out_axes": (0, None)}, lambda a: (a, jnp.ones(2)), (A,)),
    "constant output": ({}, lambda a: jnp.float32(3.0), (A,)),
    "None output": ({}, lambda a: (None, a), (A,)),
    "axis_size": ({"in_axes": (None,), "axis_size": 2}, lambda a: a, (A,)),
    "axis_size alone": ({"axis_size": 2}, lambda: jnp.ones(()), ()),
    "axis_size as well": ({"axis_size": 2}, lambda a: a, (A,)),
    "axis_name": ({"axis_name": "i"}, lambda a: jax.lax.pmean(a, "i") + jax.lax.axis_index("i"), (A,)),
    "spmd_axis_name": ({"axis_name": "i", "spmd_axis_name": "x"}, lambda a: jax.lax.psum(a, "i"), (A,)),
    "keys": ({}, lambda k: jax.random.normal(k), (jax.random.split(jax.random.key(0), 3),)),
    "numpy": ({}, lambda a: a * 2, (np.ones((2, 3)),)),
    "size zero": ({}, lambda a: a * 2, (jnp.zeros((3, 0)),)),
}


@pytest.mark.parametrize("name", CASES)
def test_arrays_are_mapped_as_by_jax(name):
    options, function, args = CASES[name]
    ours, theirs = liftnn.vmap(function, **options)(*args), jax.vmap(function, **options)(*args)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_keyword_arguments_are_mapped_over_axis_0():
    for vmap in (liftnn.vmap, jax.vmap):
        assert vmap(lambda a, *, k: (a * k).sum(), in_axes=(None,))(2.0, k=A).tolist() == [6.0, 24.0]


def test_arguments_with_axes_may_be_left_to_their_defaults_as_in_flax():
    """Oracle: the call with all arguments. A keyword argument before a default has its place, too."""
    rows = jnp.arange(6.0).reshape(3, 2)

    def scaled(weights, x, scale=2.0, shift=None):
        return (weights.value * x * scale + (0 if shift is None else shift)).sum()

    weights = liftnn.Variable(jnp.array([1.0, 3.0]))
    mapped = liftnn.vmap(scaled, in_axes=(None, 0, None, 0))
    assert mapped(weights, rows).tolist() == mapped(weights, x=rows).tolist()
    assert mapped(weights, rows).tolist() == mapped(weights, rows, 2.0, None).tolist()
    assert (
        mapped(weights, x=rows, shift=jnp.ones(3)).tolist()
        == mapped(weights, rows, 2.0, jnp.ones(3)).tolist()
    )
    assert liftnn.vmap(lambda x, s=2.0: x * s, in_axes=(0, None))(jnp.ones(2)).tolist() == [2, 2]

    def step(weights, carry, x, scale=2.0):
        return carry + weights.value * scale, x

    looped = liftnn.scan(step, in_axes=(None, liftnn.Carry, 0, None))
    assert [a.tolist() for a in looped(weights, jnp.zeros(2), jnp.arange(3))] == [[6, 18], [0, 1, 2]]


def ensemble(n=3, **options):
    return liftnn.vmap(Affine, **options)(jnp.arange(1.0, n + 1))


def members(n=3):
    return [Affine(float(i + 1)) for i in range(n)]


def stacked(modules):
    return jax.tree.map(lambda *xs: jnp.stack(xs), *[liftnn.state(m) for m in modules])


def test_an_ensemble_is_made_by_mapping_the_class():
    model = ensemble()
    assert model.mode == "train"
    assert_same(liftnn.state(model), stacked(members()))


def test_mapped_calls_equal_a_loop_over_the_members():
    model, plain, xs = ensemble(), members(), jnp.array([2.0, -1.0, 0.5])
    for _ in range(2):
        out = liftnn.vmap(lambda m, x: m(x))(model, xs)
        assert out.tolist() == [m(x).tolist() for m, x in zip(plain, xs, strict=True)]
    assert_same(liftnn.state(model), stacked(plain))


def test_a_mapped_training_run_equals_separate_runs():
    def train(model, x):
        grads = liftnn.grad(lambda m: m.loss(x))(model)
        for name in ("w", "b"):
            variable = getattr(model, name)
            variable.value = variable - 0.05 * grads[name]

    model, plain = ensemble(), members()
    mapped = liftnn.jit(liftnn.vmap(train, in_axes=(0, None)))
    for x in (0.5, 1.0, -0.5):
        mapped(model, x)
        for m in plain:
            train(m, x)
    assert_same(liftnn.state(model), stacked(plain))
    assert mapped.n_traces == 1


def test_state_axes_give_each_kind_its_axis():
    axes = liftnn.StateAxes({liftnn.PathContains("w"): 1, liftnn.Param: 0, ...: None})
    model = ensemble(out_axes=axes)
    assert [x.shape for x in (model.w, model.b, model.calls)] == [(3, 3), (3, 3), ()]
    assert model.w.value.tolist() == [[1.0, 2.0, 3.0]] * 3
    out = liftnn.vmap(lambda m, x: m(x), in_axes=(axes, None))(model, 2.0)
    assert out.tolist() == [[2.0] * 3, [4.0] * 3, [6.0] * 3]
    assert int(model.calls.value) == 1


def test_negative_axes_of_variables():
    v = liftnn.vmap(lambda k: liftnn.Param(jnp.full(3, k)), out_axes=-1)(jnp.arange(2.0))
    assert v.value.tolist() == [[0.0, 1.0]] * 3

    def double(v):
        v.value = v * 2

    liftnn.vmap(double, in_axes=-1)(v)
    assert v.value.tolist() == [[0.0, 2.0]] * 3


def test_a_shared_module_may_be_read_and_written_alike_by_all_elements():
    def f(model, x):
        model.b.value = model.b + 1
        model.new, model.mode = liftnn.Param(model.w * 2), "eval"
        return model(x)

    model, plain = Affine(2.0), Affine(2.0)
    out = liftnn.vmap(f, in_axes=(None, 0))(model, B)
    f(plain, 0.0)
    assert_same(model, plain)
    assert out.tolist() == (B[:, None] * 2 + jnp.ones((4, 3))).tolist()


def test_a_value_reduced_over_the_elements_may_be_written_to_a_shared_variable():
    def f(model, x):
        model.b.value = model.b + jax.lax.pmean(x, "lanes")

    model = Affine()
    liftnn.vmap(f, in_axes=(None, 0), axis_name="lanes")(model, B)
    assert model.b.value.tolist() == [1.5] * 3


def test_what_is_attached_to_a_mapped_module_gets_its_axis():
    def f(model, x):
        model.new = liftnn.Param(model.w * x)
        model.inner = Holder(layers=[Affine(5.0)], array=x)

    model = ensemble()
    liftnn.vmap(f)(model, jnp.arange(3.0))
    assert model.new.value.tolist() == [[0.0] * 3, [2.0] * 3, [6.0] * 3]
    assert model.inner.layers[0].w.value.tolist() == [[5.0] * 3] * 3
    assert model.inner.array.tolist() == [0.0, 1.0, 2.0]


def test_structure_changes_of_a_mapped_module_come_out():
    def f(model):
        del model.b
        model.mode, model.layers = "eval", [model.w]
        model.w.set_metadata(seen=True)

    model = ensemble()
    liftnn.vmap(f)(model)
    assert not hasattr(model, "b")
    assert (model.mode, model.w.seen, model.layers[0] is model.w) == ("eval", True, True)
    assert model.w.shape == (3, 3)


@pytest.mark.parametrize("out_axes", [0, 1, None, (0, None)])
def test_a_returned_argument_keeps_its_own_axes(out_axes):
    shared, mapped = Affine(2.0), ensemble()
    out = liftnn.vmap(lambda a, b: (a, b), in_axes=(None, 0), out_axes=out_axes)(shared, mapped)
    assert out[0] is shared
    assert out[1] is mapped
    assert (shared.w.shape, mapped.w.shape) == ((3,), (3, 3))


def test_a_new_module_may_hold_shared_and_mapped_arguments():
    shared, mapped = Affine(2.0), ensemble()
    new = liftnn.vmap(lambda a, b: Holder(a=a, b=[b], v=liftnn.Param(a.w * b.w)), in_axes=(None, 0))(
        shared, mapped
    )
    assert new.a is shared
    assert new.b[0] is mapped
    assert new.v.value.tolist() == [[2.0] * 3, [4.0] * 3, [6.0] * 3]


def test_the_module_of_a_bound_method_is_shared():
    model, plain = Affine(2.0), Affine(2.0)
    assert liftnn.vmap(model.loss)(B).tolist() == [float(plain.loss(x)) for x in B]
    assert liftnn.vmap(model)(B).shape == (4, 3)
    assert liftnn.vmap(model, in_axes=(0, None))(B, 2).tolist() == (2 * liftnn.vmap(model)(B)).tolist()
    assert int(model.calls.value) == 4


def test_the_module_of_a_bound_method_is_mapped_if_in_axes_has_an_entry_for_it():
    model, plain = ensemble(), members()
    out = liftnn.vmap(model.loss, in_axes=(0, None))(2.0)
    assert out.tolist() == [float(m.loss(2.0)) for m in plain]
    assert liftnn.vmap(model, in_axes=(0, 0))(jnp.arange(3.0)).shape == (3, 3)
    assert model.calls.value.tolist() == [2, 2, 2]


def test_what_a_partial_stores_is_shared():
    model = Affine(2.0)
    out = liftnn.vmap(functools.partial(lambda m, k, x: m(x) * k, model, 3.0))(B)
    assert out.tolist() == (B[:, None] * 6 * jnp.ones(3)).tolist()


def test_modules_in_containers_and_keywords_are_mapped():
    model, plain = ensemble(), members()
    by_key = liftnn.vmap(lambda d, *, m: d["m"](1.0) + m(1.0), in_axes=({"m": 0},))({"m": model}, m=model)
    assert by_key.tolist() == [(2 * m(1.0)).tolist() for m in plain]
    assert model.calls.value.tolist() == [2, 2, 2]


@pytest.mark.thorough
def test_nested_maps_nest_axes():
    model = liftnn.vmap(lambda a: liftnn.vmap(lambda b: Affine(a + 10 * b))(jnp.arange(2.0)))(jnp.arange(3.0))
    assert model.w.shape == (3, 2, 3)
    inner = liftnn.vmap(lambda m: m(1.0))
    expected = [[[i + 10.0 * j] * 3 for j in range(2)] for i in range(3)]
    assert liftnn.vmap(inner)(model).tolist() == expected
    assert liftnn.vmap(inner, in_axes=1, out_axes=1)(model).tolist() == expected
    assert model.calls.value.tolist() == [[2, 2]] * 3


@pytest.mark.thorough
def test_batch_norm_with_mapped_statistics_equals_separate_layers():
    keys, x = jax.random.split(jax.random.key(0), 3), jnp.arange(12.0).reshape(3, 2, 2)
    layer = liftnn.vmap(lambda key: liftnn.BatchNorm(2, momentum=0.5, rngs=liftnn.Rngs(key)))(keys)
    plain = [liftnn.BatchNorm(2, momentum=0.5, rngs=liftnn.Rngs(key)) for key in keys]
    for _ in range(2):
        out = liftnn.vmap(lambda m, x: m(x))(layer, x)
        np.testing.assert_allclose(out, [m(y) for m, y in zip(plain, x, strict=True)], rtol=1e-5)
    assert_same(liftnn.state(layer), stacked(plain))


def test_batch_norm_with_an_axis_name_may_be_shared():
    x = jnp.arange(12.0).reshape(3, 2, 2)
    layer = liftnn.BatchNorm(2, momentum=0.5, axis_name="i", rngs=liftnn.Rngs(0))
    plain = liftnn.BatchNorm(2, momentum=0.5, rngs=liftnn.Rngs(0))
    out = liftnn.vmap(lambda m, x: m(x), in_axes=(None, 0), axis_name="i")(layer, x)
    np.testing.assert_allclose(out.reshape(6, 2), plain(x.reshape(6, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.mean.value, plain.mean.value, rtol=1e-6)


def test_pytree_values_are_mapped_leaf_by_leaf():
    v = liftnn.Variable({"a": A, "b": (A, None)})

    def double(v):
        v.value = jax.tree.map(lambda x: 2 * x, v.value)
        return v.value["a"].sum()

    assert liftnn.vmap(double)(v).tolist() == [6.0, 24.0]
    assert v.value["b"][0].tolist() == (2 * A).tolist()


def test_an_exception_in_the_function_changes_nothing():
    def fails(model):
        model.w.value, model.mode = model.w * 2, "eval"
        raise KeyError("half way")

    model = ensemble()
    with pytest.raises(KeyError, match="half way"):
        liftnn.vmap(fails)(model)
    assert_same(model, ensemble())
    assert not has_tracer(model)


@pytest.mark.sample(4)
@pytest.mark.parametrize("effect", EFFECTS, ids=lambda f: f.__name__)
def test_with_all_options_it_acts_like_the_plain_call(effect: Effect):
    one_lane = liftnn.vmap(
        effect, in_axes=(None, None), out_axes=None, axis_size=1, split_rngs=False,
        reduce_writes={...: lambda x, axis: x.take(0, axis)}, transform_metadata={liftnn.PARTITION_NAME: "lanes"},
    )  # fmt: skip
    model, reference, x = Model(), Model(), jnp.linspace(-1.0, 1.0, 3)
    assert_same((one_lane(model, x), model), (effect(reference, x), reference))
    assert not has_tracer(model)


def test_a_model_may_hold_an_array_of_text_outside_of_jit_and_the_users_error_is_passed_on():
    model = liftnn.Module()
    model.names, model.w = np.array(["cat", "dog"]), liftnn.Param(jnp.ones(2))
    assert liftnn.vmap(lambda m, x: m.w * x, in_axes=(None, 0))(model, jnp.ones(3)).shape == (3, 2)

    def fail(m, x):
        raise ValueError(f"{m.names[1]} is not valid")

    with pytest.raises(ValueError, match=r"^dog is not valid"):
        liftnn.vmap(fail, in_axes=(None, 0))(model, jnp.ones(3))
