"""Assignments that have another effect than they seem to have are warned of by path; others are silent."""

from __future__ import annotations

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.raising import raises
from tests.user_modules import Affine, Holder

import liftnn

ARRAY = (
    "An array has replaced a Param, {0}: gradients and optimizers ignore it. Write `{1}.value = ...` to set the "
    "value, or `{1} = liftnn.Variable(...)` to leave it untrained."
)
METADATA = (
    "Setting {1!r} on {0} (a Param) adds metadata and leaves its value unchanged. {2} To add metadata, write "
    "`{0}.set_metadata({1}=...)`."
)


def texts(caught):
    """The texts of the warnings, which must all point to this file."""
    assert all(w.category is liftnn.AttributeWarning and w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


def test_an_array_in_place_of_a_param_is_named_by_path():
    model = Holder(layers=[Affine(), {"inner": Affine()}])
    with pytest.warns(liftnn.AttributeWarning) as caught:
        model.layers[1]["inner"].w = model.layers[1]["inner"].w * 2
    path = "model.layers[1].inner.w"
    assert texts(caught) == [ARRAY.format(path, path)]
    assert type(model.layers[1]["inner"].w) is not liftnn.Param


def test_an_array_in_place_of_a_param_inside_a_transform_is_warned_of():
    def step(model, grads):
        model.w = model.w - 0.1 * grads["w"].value

    model = Affine()
    grads = liftnn.grad(lambda model: model.w.sum())(model)
    with pytest.warns(liftnn.AttributeWarning) as caught:
        liftnn.jit(step)(model, grads)
    assert texts(caught) == [ARRAY.format("model.w", "model.w")]


def test_a_numpy_array_and_a_module_without_a_name():
    with pytest.warns(liftnn.AttributeWarning) as caught:
        setattr(Affine(), "w", np.zeros(3))  # noqa: B010
    assert texts(caught) == [ARRAY.format("the attribute 'w' of an Affine", "module.w")]


def test_the_default_filter_shows_it_once_for_each_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            model = Affine()
            model.w = jnp.zeros(3)
    assert len(caught) == 1


REMEDIES = {
    "vale": "Write `model.w.value = ...` to set it.",
    "values": "Write `model.w.value = ...` to set it.",
    "Value": "Write `model.w.value = ...` to set it.",
    "data": "Write `model.w.value = ...` to set it.",
    "grad": "Gradients are results: `grads = liftnn.grad(loss_fn)(model, x)`.",
}


@pytest.mark.parametrize("name", REMEDIES)
@pytest.mark.parametrize("value", [jnp.zeros(3), np.zeros(3), 0.5])
def test_an_attribute_of_a_variable_that_resembles_the_value_is_warned_of(name, value):
    model = Affine()
    with pytest.warns(liftnn.AttributeWarning) as caught:
        setattr(model.w, name, value)
    assert texts(caught) == [METADATA.format("model.w", name, REMEDIES[name])]
    assert model.w.get_metadata(name) is value
    assert model.w.value.tolist() == [1.0, 1.0, 1.0]


def test_requires_grad_says_how_to_freeze():
    model = Affine()
    with pytest.warns(liftnn.AttributeWarning) as caught:
        model.w.requires_grad = False
    remedy = "Select what is trained: `liftnn.Optimizer(model, optax.adam(1e-3), wrt=liftnn.PathContains('first'))`."
    assert texts(caught) == [METADATA.format("model.w", "requires_grad", remedy)]


@dataclasses.dataclass
class Fields(liftnn.Module):
    """A dataclass with a Param."""

    w: liftnn.Param


def replace_param(model):
    model.w = liftnn.Param(jnp.zeros(3))


def replace_by_variable(model):
    model.w = liftnn.Variable(model.w.value)


def write_values(model):
    model.w.value = jnp.zeros(3)
    model.w[...] = jnp.ones(3)
    model.w += 1.0
    model.w *= 2.0


def set_other_attributes(model):
    model.table = jnp.ones(3)
    model.table = jnp.zeros(3)
    model.calls = jnp.zeros((), jnp.int32)  # a Variable that is not a Param
    model.mode = "eval"
    model.w = None


def set_metadata(model):
    model.w.tag = "lora"
    model.w.sharding = ("x",)
    model.w.mask = jnp.ones(3)
    model.w.scale = 2.0
    model.w.trainable = False
    model.w.valid = True
    model.w.set_metadata(vale=1.0, data=np.ones(3))
    model.w.vale = 2.0  # an entry that is there
    model.w.data = np.zeros(3)


def run_transforms(model):
    optimizer = liftnn.Optimizer(model, optax.adam(1e-3))

    def step(model, optimizer, x):
        optimizer.update(model, liftnn.grad(lambda model: model.loss(x))(model))

    liftnn.jit(step)(model, optimizer, jnp.ones(3))
    liftnn.vmap(lambda w: Fields(liftnn.Param(w)))(jnp.ones((2, 3)))
    liftnn.update(model, liftnn.state(liftnn.clone(model)))
    liftnn.merge(*liftnn.split(model)[::-1])
    liftnn.recursive_map(lambda path, x: x, model)
    jax.block_until_ready(model)


@pytest.mark.parametrize(
    "program",
    [replace_param, replace_by_variable, write_values, set_other_attributes, set_metadata, run_transforms],
)
def test_legal_programs_are_silent(program):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program(Affine())


def test_a_learning_rate_that_is_set_on_an_optimizer_is_warned_of():
    optimizer = liftnn.Optimizer(Affine(), optax.sgd(0.1))
    with pytest.warns(liftnn.AttributeWarning) as caught:
        optimizer.lr = 0.01
    (text,) = texts(caught)
    assert text == (
        "Setting 'lr' on an Optimizer adds an attribute and leaves the learning rate unchanged. Make the optimizer "
        "with `optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)`, and write "
        "`optimizer.opt_state.hyperparams['learning_rate'] = ...`; or pass a schedule."
    )


@pytest.mark.parametrize("name", ["trainable", "requires_grad"])
def test_an_attribute_that_freezes_elsewhere_is_warned_of(name):
    model = Holder(first=liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
    with pytest.warns(liftnn.AttributeWarning) as caught:
        setattr(model.first, name, False)
    (text,) = texts(caught)
    assert text.startswith(
        f"Setting {name!r} on a Linear adds an attribute and freezes nothing. The filter `wrt` "
    )


def test_such_attributes_of_a_users_class_are_silent():
    class MyOptimizer(liftnn.Optimizer):
        def __init__(self, model, tx):
            super().__init__(model, tx)
            self.lr = 0.1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MyOptimizer(Affine(), optax.sgd(0.1))
        model = Holder(trainable=True)
        model.trainable = False


VERBS = {
    "state": liftnn.state,
    "split": liftnn.split,
    "clone": liftnn.clone,
    "pop": lambda x: liftnn.pop(x, liftnn.Param),
    "update": lambda x: liftnn.update(x, liftnn.State({})),
    "iter_graph": lambda x: list(liftnn.iter_graph(x)),
    "find_shared": liftnn.find_shared,
}


@pytest.mark.parametrize("cls", [liftnn.Linear, liftnn.Param])
@pytest.mark.parametrize("verb", VERBS)
def test_a_class_in_place_of_a_module_is_an_error(verb, cls):
    text = f"{cls.__name__} is a class, not a module.\nCreate the module: `{cls.__name__}(...)`."
    with raises(liftnn.ArgumentTypeError, text):
        VERBS[verb](cls)
