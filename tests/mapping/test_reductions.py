"""What lanes write to shared Variables is reduced as `reduce_writes` says, in the first call and in later ones."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.raising import raises
from tests.same import assert_same
from tests.user_modules import Affine, Holder

import liftnn
from liftnn import errors

LANES = jnp.array([1.0, 4.0, 10.0])
X = jnp.arange(24.0).reshape(3, 4, 2) ** 2


def assign(model, x):
    model.b.value = model.b + x
    model.w.value = model.w * x
    return model.b.sum()


def test_the_first_filter_that_matches_says_how_a_write_is_reduced():
    reductions = {liftnn.PathContains("w"): jnp.max, liftnn.Param: jnp.mean}
    call = liftnn.vmap(assign, in_axes=(None, 0), reduce_writes=reductions)
    model = Affine(2.0)
    assert call(model, LANES).tolist() == [3.0, 12.0, 30.0]
    assert (model.b.value.tolist(), model.w.value.tolist()) == ([5.0] * 3, [20.0] * 3)
    call(model, LANES)
    assert (model.b.value.tolist(), model.w.value.tolist()) == ([10.0] * 3, [200.0] * 3)


def test_a_write_that_matches_no_filter_must_be_the_same_in_all_elements():
    model = Affine()
    call = liftnn.vmap(assign, in_axes=(None, 0), reduce_writes={liftnn.PathContains("b"): jnp.mean})
    with pytest.raises(errors.SharedWriteError, match=r"^args\[0\]\.w \(a Param\) is shared"):
        call(model, LANES)
    assert_same(model, Affine())


def test_any_function_of_an_array_and_axis_reduces():
    def weighted(x, axis):
        return jnp.average(x, axis, weights=jnp.array([1.0, 0.0, 1.0]))

    model = Affine(1.0)
    liftnn.vmap(assign, in_axes=(None, 0), reduce_writes={...: weighted})(model, LANES)
    assert model.b.value.tolist() == [5.5] * 3


def test_what_all_elements_write_alike_is_reduced_too():
    def write(v, x):
        v.value = v + 1
        return x

    for function, expected in ((jnp.mean, 2.0), (jnp.sum, 6.0)):
        v = liftnn.Variable(jnp.array(1.0))
        liftnn.vmap(write, in_axes=(None, 0), reduce_writes={liftnn.Variable: function})(v, LANES)
        assert float(v.value) == expected


@pytest.mark.thorough
def test_batch_norm_may_be_shared_with_the_mean_of_its_statistics():
    layer = liftnn.BatchNorm(2, momentum=0.5, rngs=liftnn.Rngs(0))
    call = liftnn.vmap(lambda m, x: m(x), in_axes=(None, 0), reduce_writes={liftnn.BatchStat: jnp.mean})
    mean, var = np.zeros(2), np.ones(2)
    for _ in range(2):
        flax = [nnx.BatchNorm(2, momentum=0.5, use_running_average=False, rngs=nnx.Rngs(0)) for _ in X]
        np.testing.assert_allclose(
            call(layer, X), [f(x) for f, x in zip(flax, X, strict=True)], rtol=1e-5, atol=1e-5
        )
        mean = 0.5 * mean + 0.5 * X.mean(1).mean(0)
        var = 0.5 * var + 0.5 * X.var(1).mean(0)
        np.testing.assert_allclose(layer.mean.value, mean, rtol=1e-5)
        np.testing.assert_allclose(layer.var.value, var, rtol=1e-4)


@pytest.mark.thorough
def test_flax_reduces_with_an_axis_name_only_and_there_the_two_agree():
    ours = liftnn.BatchNorm(2, momentum=0.5, axis_name="i", rngs=liftnn.Rngs(0))
    theirs = nnx.BatchNorm(2, momentum=0.5, axis_name="i", use_running_average=False, rngs=nnx.Rngs(0))
    options = {"in_axes": (None, 0), "axis_name": "i"}
    for _ in range(2):
        y, z = (
            m.vmap(lambda m, x: m(x), **options)(layer, X) for m, layer in ((liftnn, ours), (nnx, theirs))
        )
        np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ours.mean.value, theirs.mean[...], rtol=1e-6)
        np.testing.assert_allclose(ours.var.value, theirs.var[...], rtol=1e-6)


def test_state_axes_and_reductions_go_together():
    axes = liftnn.StateAxes({liftnn.PathContains("b"): 1, ...: None})
    model = Affine(2.0)
    model.b.value = jnp.zeros((3, 3))
    liftnn.vmap(assign, in_axes=(axes, 0), reduce_writes={liftnn.Param: jnp.sum})(model, LANES)
    assert model.b.value.tolist() == [LANES.tolist()] * 3
    assert model.w.value.tolist() == [30.0] * 3


def test_what_is_attached_to_a_shared_module_is_reduced_like_what_was_there():
    def sow(model, x):
        model.sow(liftnn.Intermediate, "seen", x, init_fn=lambda: 0.0, reduce_fn=lambda a, b: a + b)
        model.inner = Holder(new=[liftnn.Intermediate(x)])

    model = Holder()
    call = liftnn.vmap(sow, in_axes=(None, 0), reduce_writes={liftnn.Intermediate: jnp.mean})
    for calls in (1, 2):
        call(model, LANES)
        assert (float(model.seen.value), float(model.inner.new[0].value)) == (5.0 * calls, 5.0)


def test_writes_to_captured_modules_are_reduced_too():
    model = Affine(2.0)
    liftnn.vmap(lambda x: assign(model, x), reduce_writes={liftnn.Param: jnp.mean})(LANES)
    assert (model.b.value.tolist(), model.w.value.tolist()) == ([5.0] * 3, [10.0] * 3)


def test_random_streams_are_not_reduced():
    rngs = liftnn.Rngs(0)
    liftnn.vmap(lambda r, x: r(), in_axes=(None, 0), reduce_writes={...: jnp.mean})(rngs, LANES)
    assert (rngs.default.count.value.dtype, int(rngs.default.count)) == (jnp.uint32, 1)
    assert rngs.default.key.shape == ()


def test_values_that_are_trees_are_reduced_leaf_by_leaf():
    v = liftnn.Variable({"a": jnp.zeros(2), "b": (jnp.zeros(()), None)})

    def write(v, x):
        v.value = {"a": jnp.full(2, x), "b": (2 * x, None)}

    liftnn.vmap(write, in_axes=(None, 0), reduce_writes={...: jnp.mean})(v, LANES)
    assert (v.value["a"].tolist(), float(v.value["b"][0]), v.value["b"][1]) == ([5.0, 5.0], 10.0, None)


def test_reductions_nest_and_work_under_jit_and_grad():
    def loss(model, x):
        return assign(model, x) ** 2

    inner = liftnn.vmap(assign, in_axes=(None, 0), reduce_writes={liftnn.Param: jnp.mean})
    outer = liftnn.jit(liftnn.vmap(inner, in_axes=(None, 0), reduce_writes={liftnn.Param: jnp.sum}))
    model, table = Affine(), jnp.arange(6.0).reshape(2, 3)
    outer(model, table)
    assert model.b.value.tolist() == [5.0] * 3

    def total(model, x):
        return liftnn.vmap(loss, in_axes=(None, 0), reduce_writes={...: jnp.mean})(model, x).sum()

    model = Affine()
    grads = liftnn.grad(total)(model, LANES)
    assert grads["b"].value.tolist() == [float(6 * LANES.sum())] * 3
    assert model.b.value.tolist() == [5.0] * 3


def test_one_variable_reduced_and_mapped_is_an_error_that_names_both_paths():
    v = liftnn.Param(LANES)
    with raises(
        errors.AliasingError,
        "args[0].a and args[1].b are the same Param, but they have different prefixes: None, reduced by mean and 0.\n"
        "Use the same prefix for both, or pass `liftnn.clone(module)` for one of them.",
    ):
        liftnn.vmap(lambda a, b: 0.0, in_axes=(None, 0), reduce_writes={...: jnp.mean})(
            Holder(a=v), Holder(b=v)
        )


def test_an_error_in_the_reduction_is_the_functions_own():
    def fails(x, axis):
        raise ValueError("my own")

    model = Affine()
    with pytest.raises(ValueError, match=r"^my own$"):
        liftnn.vmap(assign, in_axes=(None, 0), reduce_writes={...: fails})(model, LANES)
    assert_same(model, Affine())


def test_variables_in_an_output_without_axis_are_reduced_and_array_leaves_are_not():
    def make(x):
        return Holder(a=liftnn.Param(x), b=[liftnn.BatchStat(x)]), liftnn.Param(x)

    reductions = {liftnn.Param: jnp.mean, liftnn.BatchStat: jnp.max}
    one, many = liftnn.vmap(make, out_axes=(None, 0), reduce_writes=reductions)(LANES)
    assert (float(one.a.value), float(one.b[0].value), many.value.tolist()) == (5.0, 10.0, LANES.tolist())
    with pytest.raises(
        errors.ArgumentError, match=r"^`out_axes` is None for the output\[1\], but its value differs"
    ):
        liftnn.vmap(lambda x: (liftnn.Param(x), x), out_axes=None, reduce_writes={...: jnp.mean})(LANES)


def test_what_is_attached_to_a_shared_module_may_be_returned_too():
    def attach(model, x):
        model.new = liftnn.Param(x)
        return model.new

    model = Holder()
    new = liftnn.vmap(attach, in_axes=(None, 0), out_axes=None, reduce_writes={...: jnp.mean})(model, LANES)
    assert new is model.new
    assert float(new.value) == 5.0


def test_a_prefix_that_does_not_fit_is_shown_as_it_was_given():
    f = liftnn.vmap(lambda m, x: [x], in_axes=(None, 0), out_axes=(None, 0), reduce_writes={...: jnp.mean})
    with pytest.raises(errors.ArgumentError, match=r"^\(None, 0\) has 2 entries, but the function returned"):
        f(Affine(), LANES)


def test_what_is_not_written_is_not_reduced():
    def reduce(x, axis):
        raise AssertionError

    model = Affine()
    liftnn.vmap(lambda m, x: m.w * x, in_axes=(None, 0), reduce_writes={...: reduce})(model, LANES)
    assert_same(model, Affine())
