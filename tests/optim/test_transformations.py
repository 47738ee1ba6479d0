"""What can be the transformation of an Optimizer, how it is compared, and how it is pickled."""

from __future__ import annotations

import pickle

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.raising import raises
from tests.strategies import Node

import liftnn
from liftnn import errors


def make_model():
    return Node(w=liftnn.Param(jnp.array([1.0, 2.0])))


def gradients(model):
    return liftnn.grad(lambda m: (m.w**2).sum())(model)


def init(params):
    return ()


def halve(updates, state, params=None):
    return jax.tree.map(lambda g: -g / 2, updates), state


@pytest.mark.parametrize(
    "tx, text",
    [
        (1e-3, "not a float.\nPass one, such as Optimizer(model, optax.adam(0.001))."),
        (None, "not a NoneType.\nPass one, such as Optimizer(model, optax.adam(1e-3))."),
        ((optax.adam(0.1),), "not a tuple.\nPass one, such as Optimizer(model, optax.adam(1e-3))."),
        ({}, "not a dict.\nPass one, such as Optimizer(model, optax.adam(1e-3))."),
    ],
)
def test_something_else_is_an_error(tx, text):
    with raises(errors.ArgumentTypeError, "tx must be a gradient transformation of optax, " + text):
        liftnn.Optimizer(make_model(), tx)


@pytest.mark.parametrize(
    "tx, name, call",
    [
        (optax.adam, "adam", "optax.adam(1e-3)"),
        (optax.lbfgs, "lbfgs", "optax.lbfgs(1e-3)"),
        (optax.MultiSteps, "MultiSteps", "optax.MultiSteps(...)"),
        (optax.centralize, "centralize", "optax.centralize()"),
        (halve, "halve", "halve(...)"),
    ],
)
def test_a_factory_that_was_not_called_is_an_error(tx, name, call):
    with raises(
        errors.ArgumentTypeError,
        f"tx is the function {name}, which returns a transformation when it is called.\n"
        f"Call it: Optimizer(model, {call}).",
    ):
        liftnn.Optimizer(make_model(), tx)


def test_the_transformation_before_the_model_is_an_error():
    with raises(
        errors.ArgumentTypeError,
        "Optimizer got the transformation first.\nWrite Optimizer(model, tx): the model comes first.",
    ):
        liftnn.Optimizer(optax.adam(1e-3), make_model())


def test_extra_arguments_are_for_those_that_take_them():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.GradientTransformation(init, halve))
    optimizer.update(model, gradients(model), value=1.0)
    assert model.w.value.tolist() == [0, 0]


@pytest.mark.parametrize(
    "tx, needed, step",
    [
        (
            optax.lbfgs(),
            "value, grad and value_fn",
            "value=loss, grad=grads, value_fn=value_fn)`; value_fn maps a State of parameters to the loss.",
        ),
        (
            optax.chain(optax.sgd(0.5), optax.contrib.reduce_on_plateau()),
            "value",
            "value=loss)`.",
        ),
        (
            optax.GradientTransformationExtraArgs(init, lambda: None),
            None,
            "<lambda>() takes 0 positional arguments but 3 were given",
        ),
    ],
    ids=["lbfgs", "plateau", "another error"],
)
def test_an_extra_argument_that_is_missing_is_named(tx, needed, step):
    model = make_model()
    optimizer = liftnn.Optimizer(model, tx)
    text = f"The transformation of optax needs {needed} in addition to the gradients.\n"
    text = f"{text}Write `optimizer.update(model, grads, {step}" if needed else step
    for update in (optimizer.update, liftnn.jit(optimizer.update)):
        with raises(errors.ArgumentTypeError if needed else TypeError, text):
            update(model, gradients(model))
    assert (model.w.value.tolist(), int(optimizer.step)) == ([1, 2], 0)


@pytest.mark.thorough
def test_an_extra_argument_may_be_a_variable():
    tx = optax.chain(optax.sgd(0.5), optax.contrib.reduce_on_plateau(patience=1, cooldown=0))
    model, params = make_model(), {"w": jnp.array([1.0, 2.0])}
    optimizer, state = liftnn.Optimizer(model, tx), tx.init(params)
    for value in (1.0, 2.0, 3.0):
        grads = jax.tree.map(lambda w: 2 * w, params)
        updates, state = tx.update(grads, state, params, value=jnp.float32(value))
        params = optax.apply_updates(params, updates)
        optimizer.update(model, gradients(model), value=liftnn.Variable(jnp.float32(value)))
        np.testing.assert_array_equal(model.w.value, params["w"])


def test_multi_steps_compiles_once():
    traces = []

    @liftnn.jit
    def step(model, optimizer):
        traces.append(1)
        optimizer.update(model, gradients(model))

    for _ in range(3):  # epochs with new, equal objects
        model = make_model()
        optimizer = liftnn.Optimizer(model, optax.MultiSteps(optax.sgd(0.25), every_k_schedule=2))
        for i in range(1, 5):
            step(model, optimizer)
            assert model.w.value.tolist() == [0.5 ** (i // 2), 2 * 0.5 ** (i // 2)]
    assert len(traces) == 1
    step(model, liftnn.Optimizer(model, optax.MultiSteps(optax.sgd(0.25), every_k_schedule=3)))
    assert len(traces) == 2


def test_scaled_losses_give_the_same_steps():
    model, scale = make_model(), 1024.0
    optimizer = liftnn.Optimizer(model, optax.apply_if_finite(optax.sgd(0.25), 3))

    @liftnn.jit
    def step(model, optimizer, scale):
        grads = liftnn.grad(lambda m: scale * (m.w**2).sum())(model)
        optimizer.update(model, jax.tree.map(lambda g: g / scale, grads))

    step(model, optimizer, scale)
    assert model.w.value.tolist() == [0.5, 1]
    step(model, optimizer, jnp.inf)
    assert model.w.value.tolist() == [0.5, 1]
    assert not bool(optimizer.opt_state.last_finite)


# --- pickle


def test_an_optimizer_of_a_transformation_that_can_be_pickled_is_pickled():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.GradientTransformation(init, halve))
    new_model, new = pickle.loads(pickle.dumps((model, optimizer)))
    new.update(new_model, gradients(new_model))
    assert new_model.w.value.tolist() == [0, 0]
    assert int(new.step) == 1
    assert model.w.value.tolist() == [1, 2]
    assert int(optimizer.step) == 0


@pytest.mark.parametrize("hold", [lambda x: x, lambda x: Node(inner=Node(optimizer=x))])
@pytest.mark.parametrize("dumps", [pickle.dumps, lambda x: pickle._dumps(x)])
def test_another_transformation_is_an_error_that_says_how_to_save(hold, dumps):
    optimizer = liftnn.Optimizer(make_model(), optax.adam(1e-3))
    with pytest.raises(errors.ArgumentTypeError) as caught:
        dumps(hold(optimizer))
    cause, remedy = str(caught.value).split("\n")
    assert cause.startswith("The transformation of an Optimizer cannot be pickled: Can't")
    assert remedy == (
        "Save it with `liftnn.save(folder, step, model, optimizer)`, and load it with `liftnn.restore` into an "
        "Optimizer that you create again. The package cloudpickle can pickle the Optimizer itself."
    )


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "tx", [optax.adam(0.1), optax.MultiSteps(optax.adam(0.1), 2)], ids=["adam", "MultiSteps"]
)
def test_cloudpickle_takes_any_transformation(tx):
    model = make_model()
    optimizer = liftnn.Optimizer(model, tx)
    optimizer.update(model, gradients(model))
    new_model, new = cloudpickle.loads(cloudpickle.dumps((model, optimizer)))
    for m, o in ((model, optimizer), (new_model, new)):
        for _ in range(3):
            o.update(m, gradients(m))
    np.testing.assert_array_equal(model.w.value, new_model.w.value)
