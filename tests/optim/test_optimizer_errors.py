"""What does not fit an Optimizer is an error, which changes nothing; what does not matter is ignored."""

from __future__ import annotations

import flax.nnx
import jax
import jax.numpy as jnp
import optax
import pytest
from tests.optim_models import (
    X,
    assert_same_params,
    dict_loss,
    full,
    loss,
    make_dict,
    make_model,
)
from tests.raising import raises
from tests.strategies import Node

import liftnn
from liftnn import errors

NAME_BOTH = "Compare the paths above with those of the module: both sides must have the same Variables."


def test_nothing_to_optimize_is_an_error():
    with raises(
        errors.FilterError,
        "Nothing to optimize: no Variable of the model matches OfType(Cache).\n"
        "Pass a filter as `wrt` that matches Variables of the model, such as liftnn.Param.",
    ):
        liftnn.Optimizer(make_model(), optax.sgd(0.1), wrt=liftnn.Cache)
    with raises(
        errors.FilterError,
        "Nothing to optimize: the model has no Variables.\nPass a module with Variables, not a function.",
    ):
        liftnn.Optimizer(jnp.sin, optax.sgd(0.1), wrt=...)


@pytest.mark.parametrize("has_aux", [False, True])
@pytest.mark.parametrize("pack", [lambda x: x, lambda x: {"net": x}], ids=["module", "dict"])
def test_the_pair_of_value_and_grad_is_an_error_and_changes_nothing(pack, has_aux):
    model = pack(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1))

    def loss(model):
        value = jax.tree.leaves(liftnn.state(model))[0].sum()
        return (value, 2 * value) if has_aux else value

    with raises(
        errors.ArgumentTypeError,
        "Optimizer.update got the pair that liftnn.value_and_grad returns: the value and the gradients.\n"
        "Write `loss, grads = liftnn.value_and_grad(f)(model)`, then `optimizer.update(model, grads)`.",
    ):
        optimizer.update(model, liftnn.value_and_grad(loss, has_aux=has_aux)(model))
    assert int(optimizer.step) == 0


def test_a_pair_of_models_takes_the_pair_of_their_gradients():
    pair = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), liftnn.Linear(2, 3, rngs=liftnn.Rngs(1))
    optimizer = liftnn.Optimizer(pair, optax.sgd(0.5))
    grads = liftnn.grad(lambda pair: sum(m.bias.sum() for m in pair))(pair)
    optimizer.update(pair, grads)
    assert [m.bias.value.tolist() for m in pair] == [[-0.5] * 3] * 2


def test_gradients_of_other_variables_are_an_error_and_change_nothing():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1), wrt=liftnn.PathContains("w"))
    grads = liftnn.grad(loss, wrt=lambda path, x: "b" in path or 0 in path)(model, X)
    with raises(
        errors.StructureError,
        "The gradients do not cover the Variables that the optimizer updates:\n"
        "missing:\n  layers[1].w\nunexpected:\n  layers[0].b\n  layers[1].b\n" + NAME_BOTH,
    ):
        optimizer.update(model, grads)
    assert int(optimizer.step) == 0
    assert_same_params(model, make_dict())


@pytest.mark.thorough
def test_gradients_of_more_variables_than_are_updated_are_ignored_as_in_flax():
    def train(nnx):
        model = nnx.LoRALinear(2, 3, lora_rank=1, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.LoRAParam)
        for _ in range(3):
            optimizer.update(model, nnx.grad(lambda m, x: (m(x) ** 2).sum())(model, jnp.ones((4, 2))))
        return jax.tree.leaves(nnx.state(model, nnx.Param))

    ours, theirs = train(liftnn), train(flax.nnx)
    assert len(ours) == len(theirs) == 4
    assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))


def test_a_gradient_for_what_the_model_does_not_have_is_an_error():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1))
    grads = liftnn.grad(loss)(model, X)
    grads["other"] = liftnn.Param(jnp.ones(2))
    with raises(
        errors.StructureError,
        "The gradients do not cover the Variables that the optimizer updates:\nunexpected:\n  other\n"
        + NAME_BOTH,
    ):
        optimizer.update(model, grads)


@pytest.mark.parametrize("grads, name", [(3.0, "a float"), (None, "a NoneType"), ({}, "a dict")])
def test_gradients_that_are_no_state_are_an_error(grads, name):
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1))
    with raises(
        errors.StructureError,
        f"The gradients must be a State, not {name}.\nPass the gradient that liftnn.grad returns for the model.",
    ):
        optimizer.update(model, grads)


def test_gradients_may_be_nested_dicts_of_arrays():
    model, params = make_model(), make_dict()
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1))
    grads = jax.grad(dict_loss)(params, X)
    optimizer.update(model, {"layers": {i: grads[f"l{i}"] for i in range(2)}})
    assert_same_params(model, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads))


def test_gradients_before_the_model_are_an_error():
    model = make_model()
    optimizer, grads = liftnn.Optimizer(model, optax.sgd(0.1)), liftnn.grad(loss)(model, X)
    for first, second in ((grads, model), ((grads, grads), (model, model))):
        with raises(
            errors.ArgumentTypeError,
            "Optimizer.update got the gradients first.\nWrite optimizer.update(model, grads).",
        ):
            optimizer.update(first, second)


def test_gradients_of_another_shape_are_an_error_and_change_nothing():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    grads = liftnn.grad(loss)(model, X)
    grads.layers[0].b = jnp.ones(1)
    with raises(
        errors.StructureError,
        "The gradients do not have the shapes of the model:\n"
        "  layers[0].b: (1,) in the gradients, (2,) in the model\n"
        "Pass the gradient that liftnn.grad returns for this model.",
    ):
        optimizer.update(model, grads)
    assert int(optimizer.step) == 0
    assert int(optimizer.opt_state[0].count) == 0
    assert_same_params(model, make_dict())


@pytest.mark.parametrize(
    "grads, found",
    [
        ({"a": jnp.ones(2), "c": (jnp.ones(1),)}, "dict(a: (2,), c[0]: (1,))"),
        ([jnp.ones(2), jnp.ones(1)], "list([0]: (2,), [1]: (1,))"),
        (jnp.ones(2), "(2,)"),
    ],
    ids=["keys", "list", "array"],
)
def test_gradients_of_a_tree_of_another_structure_are_an_error_and_change_nothing(grads, found):
    model = Node(w=liftnn.Param({"a": jnp.ones(2), "b": (jnp.ones(1),)}))
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    with raises(
        errors.StructureError,
        "The gradients do not have the shapes of the model:\n"
        f"  w: {found} in the gradients, dict(a: (2,), b[0]: (1,)) in the model\n"
        "Pass the gradient that liftnn.grad returns for this model.",
    ):
        optimizer.update(model, liftnn.State({"w": liftnn.Param(grads)}))
    assert int(optimizer.step) == 0


def test_a_state_for_a_tree_of_another_structure_is_an_error_by_path():
    model = Node(w=liftnn.Param({"a": jnp.ones(2)}))
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1, momentum=0.9))
    model.w.value = {"b": jnp.ones(2)}
    with raises(
        errors.StructureError,
        "The state of the optimizer does not fit the model:\n"
        "  opt_state[0].trace.w: dict(a: (2,)), but w is dict(b: (2,))\n"
        "Create a new Optimizer for the changed model.",
    ):
        optimizer.update(model, liftnn.grad(lambda m: m.w.value["b"].sum())(model))
    assert int(optimizer.step) == 0


def test_an_abstract_model_is_an_error_by_path_and_changes_nothing():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    with raises(
        errors.ArgumentTypeError,
        "layers[0].b is abstract: it has a shape and a dtype, but no value, so an Optimizer cannot update it.\n"
        "Create the model without `eval_shape`, or set all its Variables first, for example by "
        "`update(model, state)`.",
    ):
        optimizer.update(liftnn.eval_shape(make_model), liftnn.grad(loss)(model, X))
    assert int(optimizer.step) == 0


def test_a_transformation_that_needs_values_says_which_parameter_has_none():
    with raises(
        errors.ArgumentTypeError,
        "layers[0].b is abstract: it has a shape and a dtype, but no value, so the transformation of optax cannot "
        "create its state.\nCreate the model without `eval_shape`, or set all its Variables first, for example by "
        "`update(model, state)`.",
    ):
        liftnn.Optimizer(liftnn.eval_shape(make_model), optax.contrib.schedule_free_sgd(0.1))


def test_updates_of_another_shape_are_an_error_and_change_nothing():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1))
    grads = jax.tree.map(lambda g: jnp.stack([g, g]), liftnn.grad(loss)(model, X))  # as for two examples
    with pytest.raises(
        errors.StructureError, match=r"layers\[0\].b: \(2, 2\) in the updates, \(2,\) in the model"
    ):
        optimizer.update(model, grads)
    assert int(optimizer.step) == 0
    assert_same_params(model, make_dict())


@pytest.mark.parametrize(
    "tx", [optax.sgd(0.1), optax.adam(0.1), optax.set_to_zero()], ids=["sgd", "adam", "zero"]
)
def test_gradients_of_integers_are_an_error_by_path_and_change_nothing(tx):
    model = Node(
        a=liftnn.Param(jnp.arange(3)),
        b=liftnn.Param({"x": jnp.ones(3), "i": jnp.arange(3)}),
        c=liftnn.Param(jnp.ones(3)),
    )
    grads = liftnn.grad(lambda m: (m.b["x"] * m.c).sum(), allow_int=True)(model)
    optimizer = liftnn.Optimizer(model, tx)
    with raises(
        errors.ArgumentTypeError,
        "An Optimizer cannot update integers, whose gradients have dtype float0:\n  a\n  b\n"
        "Keep integers in Variables that `wrt` does not select, such as a `liftnn.Variable`.",
    ):
        optimizer.update(model, grads)
    assert int(optimizer.step) == 0
    assert model.c.value.tolist() == [1, 1, 1]


def test_integers_that_wrt_does_not_select_keep_their_values():
    model = Node(a=liftnn.Variable(jnp.arange(3)), c=liftnn.Param(jnp.ones(3)))
    grads = liftnn.grad(lambda m: m.c.sum(), wrt=liftnn.Variable, allow_int=True)(model)
    liftnn.Optimizer(model, optax.sgd(1.0)).update(model, grads)
    assert (model.a.value.tolist(), model.c.value.tolist()) == ([0, 1, 2], [0, 0, 0])


@pytest.mark.thorough
def test_moments_that_do_not_fit_the_model_any_more_are_an_error_by_path():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    model.layers[1].w = liftnn.Param(full((2, 3), 0.1))
    model.layers[1].b = liftnn.Param(full(3, 0.1))
    with raises(
        errors.StructureError,
        "The state of the optimizer does not fit the model:\n"
        "  opt_state[0].mu.layers[1].b: (2,), but layers[1].b is (3,)\n"
        "  opt_state[0].mu.layers[1].w: (2, 2), but layers[1].w is (2, 3)\n"
        "  opt_state[0].nu.layers[1].b: (2,), but layers[1].b is (3,)\n"
        "  opt_state[0].nu.layers[1].w: (2, 2), but layers[1].w is (2, 3)\n"
        "Create a new Optimizer for the changed model.",
    ):
        optimizer.update(model, liftnn.grad(loss)(model, X))
    assert int(optimizer.step) == 0


def test_a_model_with_other_variables_than_the_optimizer_was_made_for_is_an_error_and_changes_nothing():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    model.layers[0].scale = liftnn.Param(jnp.ones(2))
    del model.layers[1].b
    model.layers[1].b = jnp.zeros(2)
    with raises(
        errors.StructureError,
        "The model does not have the Variables that the optimizer was created for:\n"
        "missing:\n  layers[1].b\nunexpected:\n  layers[0].scale\n"
        "Create a new Optimizer for the changed model.",
    ):
        optimizer.update(model, liftnn.grad(loss)(model, X))
    assert int(optimizer.step) == 0


@pytest.mark.parametrize("returned, name", [(lambda g: dict(g), "a dict"), (lambda g: None, "a NoneType")])
def test_updates_that_are_no_state_are_an_error(returned, name):
    model = Node(w=liftnn.Param(jnp.ones(2)))
    tx = optax.GradientTransformation(lambda params: (), lambda g, s, p=None: (returned(g), s))
    optimizer = liftnn.Optimizer(model, tx)
    with pytest.raises(errors.ArgumentTypeError, match=f"returned {name} as updates, not a State"):
        optimizer.update(model, {"w": jnp.ones(2)})
    assert model.w.value.tolist() == [1, 1]
    assert int(optimizer.step.value) == 0


MASKED = {
    "masked": lambda mask: optax.masked(optax.sgd(0.5), mask(True, False)),
    "weight decay": lambda mask: optax.adamw(0.5, mask=mask(True, False)),
    "labels": lambda mask: optax.multi_transform(
        {"a": optax.sgd(0.5), "b": optax.set_to_zero()}, mask("a", "b")
    ),
    "a function": lambda mask: optax.masked(optax.sgd(0.5), lambda params: mask(True, False)),
}


@pytest.mark.parametrize("name", MASKED)
def test_a_mask_is_a_state_and_not_a_dict(name):
    def grads(model):
        return liftnn.grad(lambda m: m(jnp.ones(2)).sum())(model)

    model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    with pytest.raises(errors.ArgumentError, match=r"has a dict, such as a mask or labels"):
        liftnn.Optimizer(model, MASKED[name](lambda kernel, bias: {"kernel": kernel, "bias": bias}))
    tx = MASKED[name](lambda kernel, bias: liftnn.State({"kernel": kernel, "bias": bias}))
    liftnn.Optimizer(model, tx).update(model, grads(model))
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
    by_hand = MASKED[name](lambda kernel, bias: {"kernel": kernel, "bias": bias})
    updates, _ = by_hand.update(
        {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, by_hand.init(params), params
    )
    assert bool((model.bias != 0).any()) == bool((updates["bias"] != 0).any())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: tx,
        lambda tx: optax.chain(optax.clip(1.0), tx),
        lambda tx: optax.MultiSteps(tx, 2),
        lambda tx: optax.masked(tx, lambda params: jax.tree.map(lambda _: True, params)),
    ],
    ids=["alone", "chain", "MultiSteps", "masked"],
)
def test_lookahead_is_an_error_that_says_what_to_use(wrap):
    with raises(
        errors.ArgumentError,
        "optax.lookahead updates two sets of parameters, fast and slow ones, but a model has one.\n"
        "Pass the fast transformation to the Optimizer, and average the weights with liftnn.EMA; or keep "
        "`optax.LookaheadParams.init_synced(liftnn.state(model, liftnn.Param))` without an Optimizer.",
    ):
        liftnn.Optimizer(make_model(), wrap(optax.lookahead(optax.sgd(0.1), 2, 0.5)))


def test_lookahead_by_hand_trains_the_fast_and_the_slow_parameters():
    tx = optax.lookahead(optax.sgd(0.1), sync_period=2, slow_step_size=0.5)
    model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    params = optax.LookaheadParams.init_synced(liftnn.state(model, liftnn.Param))
    oracle = jax.tree.map(jnp.copy, params.fast.to_pure_dict())
    oracle = optax.LookaheadParams.init_synced(oracle)
    state, oracle_state = tx.init(params), tx.init(oracle)
    for _ in range(3):
        liftnn.update(model, params.fast)
        grads = liftnn.grad(lambda m: (m(jnp.ones(2)) ** 2).sum())(model)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        by_hand = jax.grad(lambda p: ((jnp.ones(2) @ p["kernel"] + p["bias"]) ** 2).sum())(oracle.fast)
        updates, oracle_state = tx.update(by_hand, oracle_state, oracle)
        oracle = optax.apply_updates(oracle, updates)
    for found, expected in zip(params, oracle, strict=True):
        for name in ("kernel", "bias"):
            assert jnp.allclose(found[name].value, expected[name])


def test_other_errors_of_init_are_the_users_own():
    def fails(params):
        raise ValueError("my own")

    with pytest.raises(ValueError, match=r"^my own$"):
        liftnn.Optimizer(make_model(), optax.GradientTransformation(fails, optax.sgd(0.1).update))
