"""Optimizer against bare optax over plain dicts of the same arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.optim_models import (
    TRANSFORMATIONS,
    X,
    assert_same_params,
    dict_loss,
    full,
    loss,
    make_dict,
    make_model,
)
from tests.strategies import Node

import liftnn
from liftnn import errors

CASES = [
    *((name, {}) for name in TRANSFORMATIONS),
    *(
        (name, metadata)
        for name in ("adam", "mask", "multi_transform")
        for metadata in ({"tag": "t"}, {"axes": ["x"]})
    ),
]


@pytest.mark.sample(6)
@pytest.mark.parametrize(
    "name, metadata",
    [*CASES[:6], *(pytest.param(*case, marks=pytest.mark.thorough) for case in CASES[6:])],
    ids=str,
)
def test_steps_are_those_of_optax_over_dicts(name, metadata):
    model, params = make_model(**metadata), make_dict()
    tx, dict_tx = TRANSFORMATIONS[name](model)
    optimizer, opt_state = liftnn.Optimizer(model, tx), dict_tx.init(params)
    for i in range(4):
        grads = jax.grad(dict_loss)(params, X + i)
        updates, opt_state = dict_tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        optimizer.update(model, liftnn.grad(loss)(model, X + i))
        assert_same_params(model, params)
    assert int(optimizer.step) == 4
    assert model.seen.value.tolist() == [0, 0]


@pytest.mark.sample(6)
@pytest.mark.parametrize(
    "name", ["adamw on a schedule", "mask", "multi_transform", "MultiSteps", "inject_hyperparams"]
)
def test_steps_under_jit_are_those_outside_and_compile_once(name):
    plain, jitted, traces = make_model(), make_model(), []
    pairs = [(m, liftnn.Optimizer(m, TRANSFORMATIONS[name](m)[0])) for m in (plain, jitted)]

    def step(model, optimizer, x):
        traces.append(1)
        value, grads = liftnn.value_and_grad(loss)(model, x)
        optimizer.update(model, grads)
        return value

    jit_step = liftnn.jit(step)
    for i in range(4):
        np.testing.assert_allclose(step(*pairs[0], X + i), jit_step(*pairs[1], X + i), rtol=1e-5)
    assert len(traces) == 4 + 1
    for one, two in zip(
        liftnn.state(plain).flat().values(), liftnn.state(jitted).flat().values(), strict=True
    ):
        np.testing.assert_allclose(one.value, two.value, rtol=1e-5, atol=1e-6)
    assert int(pairs[1][1].step) == 4


@pytest.mark.thorough
def test_lbfgs_takes_value_grad_and_value_fn():
    model, params = make_model(tag="t"), make_dict()
    tx = optax.lbfgs()
    optimizer, opt_state = liftnn.Optimizer(model, tx), tx.init(params)
    graphdef, rest = liftnn.split(model)[-1], liftnn.state(model, liftnn.BatchStat)
    for _ in range(2):
        value, grads = jax.value_and_grad(dict_loss)(params, X)
        updates, opt_state = tx.update(
            grads, opt_state, params, value=value, grad=grads, value_fn=lambda p: dict_loss(p, X)
        )
        params = optax.apply_updates(params, updates)
        value, grads = liftnn.value_and_grad(loss)(model, X)
        optimizer.update(
            model, grads, value=value, grad=grads, value_fn=lambda p: loss(graphdef.merge(p, rest), X)
        )
        assert_same_params(model, params)


def cubes(model):
    return sum((x**3).sum() for x in jax.tree.leaves(liftnn.state(model)))


@pytest.mark.parametrize(
    "make, form, wrt",
    [
        (make_model, lambda grads: grads.to_pure_dict(), liftnn.Param),
        (lambda: (make_model(),), lambda grads: grads, liftnn.Param),
        (lambda: {"m": [make_model()]}, lambda grads: grads, liftnn.Param),
        (lambda: liftnn.Param(full(2, 0.3)), lambda grads: grads, liftnn.Param),
        (make_model, lambda grads: grads, lambda path, x: path[-1] == "w"),
    ],
    ids=["nested dicts", "tuple", "dict and list", "Variable", "more than is updated"],
)
def test_an_extra_argument_takes_gradients_in_each_form_that_update_takes(make, form, wrt):
    tx = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),
        lambda updates, state, params=None, *, grad: (
            jax.tree.map(lambda u, g: -0.1 * (u + g), updates, grad),
            state,
        ),
    )
    model, expected = make(), make()
    optimizer, twice = (
        liftnn.Optimizer(model, tx, wrt=wrt),
        liftnn.Optimizer(expected, optax.sgd(0.2), wrt=wrt),
    )
    for _ in range(2):
        grads = form(liftnn.grad(cubes)(model))
        optimizer.update(model, grads, grad=grads)
        twice.update(expected, grads)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), liftnn.state(model), liftnn.state(expected)
    )


@pytest.mark.parametrize("form", [dict, lambda grads: grads.to_pure_dict(), lambda grads: grads])
def test_another_tree_over_the_parameters_may_be_an_extra_argument(form):
    tx = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),
        lambda updates, state, params=None, *, rates: (
            jax.tree.map(lambda u, r: -r * u, updates, rates),
            state,
        ),
    )
    model, expected = make_model(), make_model()
    grads = liftnn.grad(loss)(model, X)
    rates = jax.tree.map(lambda g: jnp.full_like(g, 0.2), grads)
    liftnn.Optimizer(model, tx).update(model, grads, rates=form(rates))
    liftnn.Optimizer(expected, optax.sgd(0.2)).update(expected, grads)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), liftnn.state(model), liftnn.state(expected)
    )


@pytest.mark.thorough
def test_apply_if_finite_skips_a_step():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=2))
    before = liftnn.state(model).to_pure_dict()
    grads = jax.tree.map(lambda x: x * jnp.nan, liftnn.grad(loss)(model, X))
    optimizer.update(model, grads)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), before, liftnn.state(model).to_pure_dict()))
    assert int(optimizer.opt_state.notfinite_count) == 1


@pytest.mark.sample(2)
@pytest.mark.parametrize("jit", [False, True])
def test_a_hyperparameter_that_is_set_is_used_by_the_next_step_without_a_new_trace(jit):
    model, params, traces = make_model(), make_dict(), []
    optimizer = liftnn.Optimizer(model, optax.inject_hyperparams(optax.sgd)(learning_rate=0.1))

    def step(model, optimizer):
        traces.append(1)
        optimizer.update(model, liftnn.grad(loss)(model, X))

    run = liftnn.jit(step) if jit else step
    for rate in (0.1, 0.5, jnp.array(0.0), 1, np.float64(0.25)):
        optimizer.opt_state.hyperparams["learning_rate"] = rate
        run(model, optimizer)
        params = jax.tree.map(lambda p, g, r=rate: p - r * g, params, jax.grad(dict_loss)(params, X))
        assert_same_params(model, params)
        assert float(optimizer.opt_state.hyperparams["learning_rate"].value) == np.float32(rate)
    assert len(traces) == (1 if jit else 5)


def test_a_hyperparameter_that_is_set_inside_a_compiled_step_is_the_callers():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.inject_hyperparams(optax.sgd)(learning_rate=0.1))

    @liftnn.jit
    def halve():
        optimizer.opt_state.hyperparams["learning_rate"] *= 0.5

    halve()
    halve()
    assert float(optimizer.opt_state.hyperparams["learning_rate"].value) == np.float32(0.1) / 4


# --- what is optimized


def test_shared_parameters_get_the_summed_gradient_once():
    model = make_model()
    model.layers[1].w = model.layers[0].w
    w, biases = full((2, 2), 0.1), [full(2, 0.0), full(2, 0.1)]

    def tied(w):
        return dict_loss({f"l{i}": {"w": w, "b": b} for i, b in enumerate(biases)}, X)

    optimizer = liftnn.Optimizer(model, optax.sgd(0.1))
    optimizer.update(model, liftnn.grad(loss)(model, X))
    np.testing.assert_allclose(model.layers[0].w.value, w - 0.1 * jax.grad(tied)(w), rtol=1e-5)
    assert model.layers[1].w is model.layers[0].w


@pytest.mark.parametrize(
    "wrt",
    [liftnn.PathContains("w"), lambda path, x: path[:2] == ("layers", 0), [liftnn.BatchStat, liftnn.Param]],
)
def test_only_what_wrt_names_is_optimized(wrt):
    model, before = make_model(), make_model()
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1), wrt=wrt)
    optimizer.update(model, liftnn.grad(lambda m, x: loss(m, x) + (m.seen - 1).sum(), wrt=wrt)(model, X))
    changed = {
        path
        for path, x in liftnn.state(model).flat().items()
        if (x.value != liftnn.state(before).flat()[path].value).any()
    }
    assert changed == set(liftnn.state(before, wrt).flat())


def test_a_single_variable_is_a_model():
    v = liftnn.Param(jnp.array([1.0, 2.0]))
    optimizer = liftnn.Optimizer(v, optax.sgd(0.5))
    optimizer.update(v, liftnn.grad(lambda v: (v**2).sum())(v))
    assert v.value.tolist() == [0.0, 0.0]


def test_a_tree_of_models_is_optimized_together():
    one, two = make_model(), make_model()
    optimizer = liftnn.Optimizer((one, two), optax.sgd(0.1))
    optimizer.update(
        (one, two), liftnn.grad(lambda ms, x: loss(ms[0], x) + 2 * loss(ms[1], x))((one, two), X)
    )
    params = make_dict()
    grads = jax.grad(dict_loss)(params, X)
    assert_same_params(one, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads))
    assert_same_params(two, jax.tree.map(lambda p, g: p - 0.2 * g, params, grads))


def test_a_value_that_is_a_pytree_is_optimized():
    model = Node(v=liftnn.Param({"a": jnp.ones(2), "b": (jnp.zeros(1),)}), w=liftnn.Param(jnp.ones(1)))
    optimizer = liftnn.Optimizer(model, optax.adam(0.5))
    optimizer.update(model, liftnn.grad(lambda m: m.v["a"].sum() - m.v["b"][0].sum() + m.w.sum())(model))
    np.testing.assert_allclose(model.v.value["a"], [0.5, 0.5], rtol=1e-4)
    np.testing.assert_allclose(model.v.value["b"][0], [0.5], rtol=1e-4)
    np.testing.assert_allclose(model.w.value, [0.5], rtol=1e-4)


def test_low_precision_parameters_keep_their_dtype():
    model = Node(w=liftnn.Param(jnp.ones(2, jnp.bfloat16)))
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    optimizer.update(model, liftnn.grad(lambda m: m.w.sum())(model))
    assert model.w.dtype == jnp.bfloat16


def test_metadata_set_after_the_optimizer_was_made_do_not_matter():
    model = make_model(tag="before")
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    model.layers[0].w.tag = "after"
    optimizer.update(model, liftnn.grad(loss)(model, X))
    assert model.layers[0].w.tag == "after"


def test_the_model_may_be_another_with_the_same_variables():
    model = make_model()
    optimizer, other = liftnn.Optimizer(model, optax.sgd(0.1)), liftnn.clone(model)
    optimizer.update(other, liftnn.grad(loss)(other, X))
    assert (model.layers[0].w.value == make_model().layers[0].w.value).all()
    assert not (other.layers[0].w.value == model.layers[0].w.value).all()


# --- the state of the transformation


def test_the_state_is_what_optax_makes():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    bare = optax.adam(0.1).init(make_dict())
    assert type(optimizer.opt_state) is type(bare)
    assert type(optimizer.opt_state[0]) is type(bare[0])
    assert [x.shape for x in jax.tree.leaves(optimizer.opt_state)] == [x.shape for x in jax.tree.leaves(bare)]
    variables = jax.tree.leaves(optimizer.opt_state, is_leaf=lambda x: isinstance(x, liftnn.Variable))
    assert all(type(v) is liftnn.OptState for v in variables)
    assert all(type(v) is liftnn.OptState for v in liftnn.state(optimizer).flat().values())


def test_setting_the_state_continues_from_there():
    one, two = make_model(), make_model()
    first, second = liftnn.Optimizer(one, optax.adam(0.1)), liftnn.Optimizer(two, optax.adam(0.1))
    for _ in range(2):
        first.update(one, liftnn.grad(loss)(one, X))
    second.opt_state = first.opt_state
    liftnn.update(two, liftnn.state(one))
    for model, optimizer in ((one, first), (two, second)):
        optimizer.update(model, liftnn.grad(loss)(model, X))
    for a, b in zip(liftnn.state(one).flat().values(), liftnn.state(two).flat().values(), strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def test_setting_a_state_of_another_structure_replaces_it():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1))
    new = optax.adam(0.1).init(liftnn.state(model, liftnn.Param))
    optimizer.opt_state = new
    assert type(optimizer.opt_state[0]) is type(new[0])
    assert jax.tree.leaves(optimizer.opt_state[0].mu)[0].shape == (2,)
    assert type(optimizer.opt_state[0].mu.layers[0].w) is liftnn.OptState


def test_update_returns_the_updates():
    model, params = make_model(), make_dict()
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1))
    updates = optimizer.update(model, liftnn.grad(loss)(model, X))
    assert type(updates) is liftnn.State
    expected = jax.tree.map(lambda g: -0.1 * g, jax.grad(dict_loss)(params, X))
    np.testing.assert_allclose(updates.layers[1].w.value, expected["l1"]["w"], rtol=1e-6)


def test_arrays_that_are_attributes_are_optimized_if_wrt_selects_them():
    model = Node(w=liftnn.Param(jnp.ones(2)), scale=jnp.full(2, 3.0), parts=[jnp.ones(1)], other=jnp.zeros(1))

    def wrt(path, x):
        return path[0] != "other"

    optimizer = liftnn.Optimizer(model, optax.adam(0.5), wrt=wrt)
    optimizer.update(model, liftnn.grad(lambda m: (m.w * m.scale).sum() + m.parts[0].sum(), wrt=wrt)(model))
    params = {"w": jnp.ones(2), "scale": jnp.full(2, 3.0), "parts": [jnp.ones(1)]}
    tx = optax.adam(0.5)
    grads = jax.grad(lambda p: (p["w"] * p["scale"]).sum() + p["parts"][0].sum())(params)
    expected = optax.apply_updates(params, tx.update(grads, tx.init(params), params)[0])
    for found, wanted in zip(
        (model.w.value, model.scale, model.parts[0]),
        (expected["w"], expected["scale"], expected["parts"][0]),
        strict=True,
    ):
        np.testing.assert_array_equal(found, wanted)
    assert model.other.tolist() == [0]
    assert ("opt_state", 0, "mu", "scale") in liftnn.state(optimizer).flat()


def test_an_array_that_cannot_be_set_is_an_error_and_changes_nothing():
    model = Node(w=liftnn.Param(jnp.ones(2)), pair=(jnp.ones(1), jnp.ones(1)))
    optimizer = liftnn.Optimizer((model, jnp.ones(1)), optax.sgd(0.5), wrt=...)
    grads = liftnn.grad(lambda m, x: m.w.sum() + x.sum(), argnums=(0, 1), wrt=...)(model, jnp.ones(1))
    with pytest.raises(errors.StructureError, match=r"\[1\] cannot be set in place"):
        optimizer.update((model, jnp.ones(1)), grads)
    assert model.w.value.tolist() == [1, 1]
    assert int(optimizer.step) == 0


def test_parameters_without_a_value_are_left_alone():
    model = Node(w=liftnn.Param(jnp.ones(2)), bias=liftnn.Param(None))
    optimizer = liftnn.Optimizer(model, optax.adamw(0.5))
    optimizer.update(model, liftnn.grad(lambda m: m.w.sum())(model))
    assert model.bias.value is None
    assert (model.w.value < 1).all()


def test_a_parameter_without_elements_is_optimized():
    model = Node(w=liftnn.Param(jnp.ones((0, 2))))
    optimizer = liftnn.Optimizer(model, optax.adam(0.5))
    optimizer.update(model, liftnn.grad(lambda m: m.w.sum())(model))
    assert model.w.shape == (0, 2)


def test_the_model_may_be_a_state():
    params = liftnn.state(make_model(), liftnn.Param)
    optimizer = liftnn.Optimizer(params, optax.sgd(0.1))
    kernel, bare = params.layers[0].w, make_dict()
    grads = jax.grad(dict_loss)(bare, X)
    optimizer.update(params, {"layers": {i: grads[f"l{i}"] for i in range(2)}})
    np.testing.assert_allclose(kernel.value, bare["l0"]["w"] - 0.1 * grads["l0"]["w"], rtol=1e-6)


def test_a_captured_optimizer_updates_a_captured_model():
    model, params = make_model(), make_dict()
    optimizer, tx = liftnn.Optimizer(model, optax.adam(0.1)), optax.adam(0.1)
    opt_state = tx.init(params)

    @liftnn.jit
    def step(x):
        optimizer.update(model, liftnn.grad(loss)(model, x))

    for i in range(3):
        step(X + i)
        updates, opt_state = tx.update(jax.grad(dict_loss)(params, X + i), opt_state, params)
        params = optax.apply_updates(params, updates)
    assert_same_params(model, params)
    assert int(optimizer.opt_state[0].count) == 3


def test_an_ensemble_of_optimizers_is_one_optimizer_under_vmap():
    @liftnn.vmap
    def make(scale):
        model = Node(w=liftnn.Param(scale * jnp.ones(2)))
        return model, liftnn.Optimizer(model, optax.adam(0.5))

    @liftnn.jit
    @liftnn.vmap
    def step(model, optimizer):
        optimizer.update(model, liftnn.grad(lambda m: (m.w**2).sum())(model))

    models, optimizers = make(jnp.arange(1.0, 4.0))
    step(models, optimizers)
    assert optimizers.opt_state[0].mu.w.shape == (3, 2)
    for i in range(3):
        params, tx = {"w": (i + 1.0) * jnp.ones(2)}, optax.adam(0.5)
        updates, _ = tx.update(jax.grad(lambda p: (p["w"] ** 2).sum())(params), tx.init(params), params)
        np.testing.assert_allclose(models.w.value[i], params["w"] + updates["w"], rtol=1e-6)


def test_steps_in_a_scan_are_those_of_a_loop():
    one, two = make_model(), make_model()
    pairs = [(m, liftnn.Optimizer(m, optax.adam(0.1))) for m in (one, two)]

    def step(pair, x):
        model, optimizer = pair
        optimizer.update(model, liftnn.grad(loss)(model, x))
        return pair, 0

    xs = jnp.stack([X, X + 1, X + 2])
    for x in xs:
        step(pairs[0], x)
    liftnn.scan(step)(pairs[1], xs)
    for a, b in zip(jax.tree.leaves(pairs[0]), jax.tree.leaves(pairs[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_an_exception_in_the_transformation_changes_nothing():
    def update(updates, state, params=None):
        raise RuntimeError("no step")

    model = make_model()
    tx = optax.chain(optax.adam(0.1), optax.GradientTransformation(lambda params: (), update))
    optimizer = liftnn.Optimizer(model, tx)
    for run in (optimizer.update, liftnn.jit(lambda m, g: optimizer.update(m, g))):
        with pytest.raises(RuntimeError, match="no step"):
            run(model, liftnn.grad(loss)(model, X))
    assert int(optimizer.step) == 0
    assert int(optimizer.opt_state[0][0].count) == 0
    assert_same_params(model, make_dict())
