"""Modules: attributes, views, sow, perturb, train and eval, iteration, and all ways to define a class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from tests.alike import find_difference
from tests.raising import raises
from tests.strategies import Node, Sub

import liftnn
from liftnn import errors
from liftnn._src.trees import an


def make_linear():
    return Node(kernel=liftnn.Param(jnp.ones((2, 3))), bias=liftnn.Param(jnp.zeros(3)), use_bias=True)


# --- variables


def test_variables_names_the_variables_in_attribute_order():
    model = Node(n=1, w=liftnn.Param(1.0), sub=Node(v=liftnn.Param(2.0)), b=liftnn.BatchStat(3.0))
    assert list(model.variables) == ["w", "b"]
    assert dir(model.variables) == ["b", "w"]
    assert model.variables.w is model.w
    assert model.variables["b"] is model.b


@pytest.mark.parametrize("by", ["attribute", "item"])
def test_assigning_a_variable_ties_it(by):
    a, b = make_linear(), make_linear()
    if by == "attribute":
        a.variables.kernel = b.variables.kernel
    else:
        a.variables["kernel"] = b.variables["kernel"]
    assert a.kernel is b.kernel
    a.kernel.value = jnp.zeros((2, 3))
    assert b.kernel.value.sum() == 0
    assert list(liftnn.state(Node(a=a, b=b)).flat()) == [("a", "kernel"), ("a", "bias"), ("b", "bias")]


def test_variables_refuses_a_name_that_is_no_variable():
    model = make_linear()
    for name in ("use_bias", "missing"):
        with raises(
            errors.AttributeNameError, f"A Node has no Variable {name!r}.\nIts Variables: kernel, bias."
        ):
            getattr(model.variables, name)
    with raises(errors.AttributeNameError, "A Node has no Variable 'w'.\nIts Variables: none."):
        Node().variables.w  # noqa: B018


def test_variables_takes_nothing_but_variables():
    with raises(
        errors.ArgumentError,
        "`variables.kernel` takes a Variable, not a float.\nTo set the value, write `module.kernel.value = ...`.",
    ):
        make_linear().variables.kernel = 1.0


def test_variables_prints_each_by_name():
    model = Node(n=1, w=liftnn.Param(1.0))
    assert repr(model.variables) == "Variables(\n  w=Param(\n    raw_value=1.0\n  )\n)"


# --- sow


def test_sow_appends_to_a_tuple():
    model = Node()
    assert model.sow(liftnn.Intermediate, "y", 1.0) is True
    first = model.y
    model.sow(liftnn.Intermediate, "y", 2.0)
    assert model.y is first
    assert (type(model.y), model.y.value) == (liftnn.Intermediate, (1.0, 2.0))


def test_sow_reduces_as_it_is_told():
    model = Node()
    for x in (3, 4):
        model.sow(liftnn.Intermediate, "total", x, reduce_fn=lambda old, new: old + new, init_fn=lambda: 10)
    assert model.total.value == 17


def test_sow_starts_anew_after_pop():
    model = Node()
    model.sow(liftnn.Intermediate, "y", 1.0)
    y = model.y
    assert liftnn.pop(model, liftnn.Intermediate)["y"].value == (1.0,)
    model.sow(liftnn.Intermediate, "y", 2.0)
    assert model.y is y
    assert y.value == (2.0,)


@pytest.mark.parametrize("attribute", [lambda: liftnn.Param(1.0), lambda: 3])
def test_sow_into_something_else_is_an_error(attribute):
    model = Node(y=attribute())
    with raises(
        errors.ArgumentError,
        f"The attribute 'y' of a Node is {an(type(model.y))}, not an Intermediate.\nPass a name "
        f"that no other attribute has, or one that holds an Intermediate.",
    ):
        model.sow(liftnn.Intermediate, "y", 1.0)


@pytest.mark.parametrize("call", [lambda model: model(), lambda model: liftnn.capture(model, liftnn.Param)()])
def test_sow_does_not_take_an_array_for_a_tuple(call):
    class Sowing(liftnn.Module):
        def __init__(self):
            self.w = liftnn.Param(jnp.ones(2))

        def __call__(self):
            self.sow(liftnn.Param, "x", jnp.ones(2), lambda old, new: new)
            self.sow(liftnn.Param, "x", jnp.ones(2))

    model, text = (
        Sowing(),
        r"^sow appends to a tuple, but the attribute '{}' of a Sowing holds something else\.",
    )
    with pytest.raises(errors.ArgumentError, match=text.format("x")):
        call(model)
    with pytest.raises(errors.ArgumentError, match=text.format("w")):
        model.sow(liftnn.Param, "w", 1.0)
    assert model.w.value.tolist() == [1, 1]


# --- perturb


def test_perturb_adds_a_zero_whose_gradient_is_that_of_the_value():
    class Model(Node):
        def __call__(self, x):
            return (self.perturb("hidden", x * 2) ** 2).sum()

    model, x = Model(), jnp.array([1.0, 3.0])
    assert model(x) == ((2 * x) ** 2).sum()
    assert (type(model.hidden), model.hidden.value.tolist()) == (liftnn.Perturbation, [0, 0])
    grads = liftnn.grad(lambda m, x: m(x), wrt=liftnn.Perturbation)(model, x)
    assert grads["hidden"].value.tolist() == jax.grad(lambda h: (h**2).sum())(2 * x).tolist()


def test_perturb_takes_a_pytree():
    model = Node()
    out = model.perturb("h", {"a": jnp.ones(2), "b": (jnp.zeros(1),)})
    assert jax.tree.map(jnp.shape, out) == jax.tree.map(jnp.shape, model.h.value) == {"a": (2,), "b": ((1,),)}


def test_perturb_makes_the_zero_anew_after_pop():
    model = Node()
    model.perturb("h", jnp.ones(2))
    liftnn.pop(model, liftnn.Perturbation)
    assert model.perturb("h", jnp.ones(3)).tolist() == [1, 1, 1]
    assert model.h.value.shape == (3,)


def test_perturb_of_something_else_is_an_error():
    with raises(
        errors.ArgumentError,
        "The attribute 'h' of a Node is a Param, not a Perturbation.\nPass a name that no other attribute "
        "has, or one that holds a Perturbation.",
    ):
        Node(h=liftnn.Param(1.0)).perturb("h", 1.0)


# --- train, eval, set_attributes


def make_nested():
    shared = Node(deterministic=None, rate=0.5)
    return Node(
        a=Sub(use_running_average=None, s=shared), items=[shared, {"k": Node(deterministic=None)}], n=1
    )


def test_train_and_eval_switch_every_submodule_that_has_the_attribute():
    model = make_nested()
    model.eval()
    assert (model.a.use_running_average, model.a.s.deterministic, model.items[1]["k"].deterministic) == (
        True,
    ) * 3
    model.train()
    assert (model.a.use_running_average, model.a.s.deterministic, model.items[1]["k"].deterministic) == (
        False,
    ) * 3
    assert not hasattr(model, "deterministic")


def test_train_and_eval_set_further_attributes_where_they_are():
    model = make_nested()
    model.eval(rate=0.0, missing=3)
    assert model.a.s.rate == 0.0
    assert find_difference(model, liftnn.clone(model)) is None
    assert not any(hasattr(m, "missing") for _, m in model.iter_modules())


def test_train_and_eval_leave_random_streams_alone():
    model = Node(rngs=liftnn.Rngs(0, dropout=1), dropout=Node(deterministic=None))
    before = liftnn.split(model.rngs)[-1]
    model.eval()
    assert liftnn.split(model.rngs)[-1] == before
    assert model.dropout.deterministic is True


def test_set_attributes_goes_by_filter():
    model = make_nested()
    model.set_attributes(liftnn.PathContains("items"), deterministic="set")
    assert model.items[1]["k"].deterministic == "set"
    assert model.a.s.deterministic is None
    model.set_attributes(Sub, use_running_average="sub")
    assert model.a.use_running_average == "sub"


def test_set_attributes_finds_class_attributes_properties_and_slots():
    class Layer(liftnn.Module):
        __slots__ = ("rate",)
        mode = "train"

        def __init__(self):
            self.rate = 0.1
            self.stored = 1

        @property
        def doubled(self):
            return 2 * self.stored

        @doubled.setter
        def doubled(self, value):
            self.stored = value / 2

    layer = Layer()
    layer.set_attributes(mode="eval", rate=0.5, doubled=8)
    assert (layer.mode, layer.rate, layer.stored, vars(layer)) == (
        "eval",
        0.5,
        4,
        {"stored": 4, "mode": "eval"},
    )
    assert Layer.mode == "train"


def test_set_attributes_that_no_module_has_is_an_error():
    model = make_nested()
    with raises(
        errors.ArgumentError,
        "No matching module of this Node has an attribute named dropout or lr.\n"
        "Check the spelling, or pass raise_if_not_found=False.",
    ):
        model.set_attributes(rate=0.1, lr=1, dropout=2)
    model.set_attributes(dropout=2, raise_if_not_found=False)


# --- iteration


def test_iter_modules_gives_each_module_once_with_its_first_path():
    model = make_nested()
    model.a.up = model
    assert [(path, type(m)) for path, m in model.iter_modules()] == [
        ((), Node), (("a",), Sub), (("a", "s"), Node), (("items", 1, "k"), Node),
    ]  # fmt: skip


def test_iter_children_gives_the_modules_among_the_attributes():
    model = make_nested()
    model.b = model.a
    assert [(name, child is model.a) for name, child in model.iter_children()] == [("a", True), ("b", True)]


# --- methods that are functions


def test_methods_do_what_the_functions_do():
    model = Node(w=liftnn.Param(jnp.ones(2)), y=liftnn.Intermediate(jnp.zeros(1)), n=1)
    assert model.split()[-1] == liftnn.split(model)[-1]
    params, rest, _ = model.split(liftnn.Param, ...)
    assert (list(params), list(rest)) == (["w"], ["y"])
    assert list(model.state(liftnn.Param)) == ["w"]
    assert find_difference(model, model.clone()) is None
    model.update(jax.tree.map(lambda x: x + 1, model.state()))
    assert model.w.value.tolist() == [2, 2]
    assert list(model.pop(liftnn.Intermediate)) == ["y"]


def test_setting_an_attribute_under_a_raw_jax_transform_is_an_error_and_changes_nothing():
    model = Node(n=1)

    def f(x):
        for change in (
            lambda: setattr(model, "n", x),
            lambda: setattr(model, "new", x),
            lambda: delattr(model, "n"),
        ):
            with pytest.raises(
                errors.TraceContextError, match=r"^Cannot change the attribute '(n|new)' of a Node here"
            ):
                change()
        return x

    jax.jit(f)(1.0)
    jax.grad(f)(1.0)
    assert vars(model) == {"n": 1}


def test_a_module_made_under_a_raw_jax_transform_can_be_changed_there():
    def f(x):
        model = Node(x=x)
        model.y = model.x * 2
        del model.x
        return model.y

    assert jax.jit(f)(2.0) == 4.0


def test_setting_an_unknown_array_attribute_replaces_the_variable_as_in_plain_python():
    model = make_linear()
    with pytest.warns(liftnn.AttributeWarning):
        model.kernel = jnp.ones(2)
    assert [type(x).__name__ for x in liftnn.state(model).flat().values()] == ["ArrayImpl", "Param"]


def test_train_and_eval_return_the_module():
    model = liftnn.Sequential(liftnn.Dropout(0.5))
    assert model.eval() is model
    assert model.train() is model
    assert liftnn.jit(lambda model: model.eval())(model) is model
    assert model[0].deterministic


def test_arguments_are_passed_to_the_init_of_any_base():
    class Base(liftnn.Module):
        def __init__(self, n):
            self.n = n

    class Derived(Base):
        pass

    class Made(liftnn.Module):
        def __new__(cls, n):
            made = super().__new__(cls)
            made.n = n
            return made

    assert (Derived(3).n, Made(4).n) == (3, 4)


def test_an_attribute_may_have_the_name_of_the_view_of_variables():
    class Named(liftnn.Module):
        def __init__(self):
            self.variables = liftnn.Param(jnp.ones(2))

    model = Named()
    assert [*liftnn.state(model)] == ["variables"]
    assert liftnn.jit(lambda m: m.variables.value.sum())(model) == 2
    del model.variables
    assert list(model.variables) == []


def test_a_parameter_of_a_constructor_may_be_named_cls():
    class Layer(liftnn.Module):
        def __init__(self, *, cls):
            self.weight = cls(1.0)

    assert type(Layer(cls=liftnn.BatchStat).weight) is liftnn.BatchStat
