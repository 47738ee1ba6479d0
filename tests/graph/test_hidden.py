"""A module inside a static object is warned of, by path."""

from __future__ import annotations

import collections
import functools
import types
import warnings

import jax.numpy as jnp
import optax
import pytest
from tests.strategies import Node

import liftnn


class Old:
    """A class that liftnn does not look into."""

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def method(self):
        return self


TEXT = (
    "{} is {}, which liftnn treats as static, but it holds a Node. Its state is not part of the model: split, state, "
    "gradients and optimizers ignore it. Make the class {} a liftnn.Module or a dataclass, or store the Node in an "
    "attribute, a list or a dict."
)
HIDING = {
    "attribute": lambda x: Old(x=x),
    "list": lambda x: Old(x=[1, [x]]),
    "dict": lambda x: Old(x={"a": (x,)}),
    "object": lambda x: Old(x=Old(x=x)),
    "cycle": lambda x: cycle(x),
}
CALLS = {
    "split": liftnn.split,
    "state": liftnn.state,
    "clone": liftnn.clone,
    "jit": liftnn.jit(lambda model: None),
    "grad": liftnn.grad(lambda model: model.w * 1.0),
}


def cycle(x):
    one = Old(x=[])
    one.x += [one, x]
    return one


@pytest.mark.parametrize("case", HIDING)
def test_each_way_to_hide_a_module_is_warned_of(case):
    model = Node(w=liftnn.Param(1.0), layers=[{"old": HIDING[case](Node())}])
    with pytest.warns(liftnn.StructureWarning) as caught:
        liftnn.split(model)
    assert [str(w.message) for w in caught] == [TEXT.format("layers[0].old", "an Old", "Old")]
    assert caught[0].filename == __file__


@pytest.mark.parametrize("call", CALLS)
def test_each_verb_warns(call):
    with pytest.warns(liftnn.StructureWarning, match="old is an Old") as caught:
        CALLS[call](Node(w=liftnn.Param(1.0), old=Old(x=Node())))
    assert len(caught) == 1


INSIDE = {
    "method": lambda old: old.method,
    "closure": lambda old: lambda: old,
    "default": lambda old: lambda x=old: x,
    "tuple in a closure": lambda old: (lambda held: lambda: held)((1, old)),
    "function of a function": lambda old: (lambda f: lambda: f())(lambda: old),
    "partial in a closure": lambda old: (lambda f: lambda: f())(functools.partial(print, old)),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_function_or_method_with_such_an_object_is_warned_of(name):
    with pytest.warns(liftnn.StructureWarning) as caught:
        liftnn.split(Node(old=INSIDE[name](Old(x=Node()))))
    kind = "a method" if name == "method" else "a function"
    text = TEXT.replace("holds a Node.", "holds a Node in an Old.").format("old", kind, "Old")
    assert [str(w.message) for w in caught] == [text]


class Slotted:
    __slots__ = ("unset", "x")

    def __init__(self, x):
        self.x = x


OTHERS = {
    "slots": (Slotted, "a Slotted", "Make the class Slotted a liftnn.Module or a dataclass, or store"),
    "set": (lambda x: lambda held={x}: held, "a function", "Store"),
    "proxy": (lambda x: lambda held=types.MappingProxyType({"a": [x]}): held, "a function", "Store"),
    "UserDict": (lambda x: lambda held=collections.UserDict(x=x): held, "a function", "Store"),
    "cache": (lambda x: functools.lru_cache(lambda: x), "a _lru_cache_wrapper", "Store"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_holders_are_warned_of(name):
    make, kind, remedy = OTHERS[name]
    with pytest.warns(
        liftnn.StructureWarning, match=f"^old is {kind}.*{remedy} the Node in an attribute"
    ) as caught:
        liftnn.split(Node(old=make(Node())))
    assert len(caught) == 1


@pytest.mark.parametrize("name", INSIDE)
def test_one_with_an_object_without_modules_is_not(name):
    liftnn.split(Node(old=INSIDE[name](Old(x=1))))


@pytest.mark.parametrize(
    "value", [Old(x=1, y=[2], z=jnp.ones), optax.adam(1e-3), Old, len, Old().method, object()]
)
def test_other_static_objects_are_not(value):
    liftnn.split(Node(value=value))


class Trainer:
    """A plain object whose methods are functions of loops and branches: its model is captured."""

    def __init__(self):
        self.model = Node(w=liftnn.Param(2.0))

    def scaled(self, x):
        return x * self.model.w

    def scaled_in_step(self, i, x):
        return self.scaled(x)

    def is_small(self, x):
        return x < self.model.w

    __call__ = scaled


LOOPS = {
    "cond": lambda t, f: liftnn.cond(True, f, f, 1.0),
    "switch": lambda t, f: liftnn.switch(0, [f, f], 1.0),
    "while_loop": lambda t, f: liftnn.while_loop(t.is_small, f, 1.0),
    "fori_loop": lambda t, f: liftnn.fori_loop(0, 1, t.scaled_in_step, 1.0),
    "fori_loop of a partial": lambda t, f: liftnn.fori_loop(
        0, 1, functools.partial(Trainer.scaled_in_step, t), 1.0
    ),
}
FUNCTIONS = {
    "method": lambda t: t.scaled,
    "object": lambda t: t,
    "partial": lambda t: functools.partial(Trainer.scaled, t),
    "partial of a method": lambda t: functools.partial(t.scaled),
}


@pytest.mark.parametrize("outer", [lambda f: f, liftnn.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_function_of_a_loop_or_branch_captures_is_not_hidden(loop, function, outer):
    trainer = Trainer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call = outer(lambda: LOOPS[loop](trainer, FUNCTIONS[function](trainer)))
        assert float(call()) == 2.0


@pytest.mark.parametrize("loop", LOOPS)
def test_what_the_model_of_such_a_function_hides_is(loop):
    class Hiding(Trainer, liftnn.Module):
        pass

    model = Hiding()
    model.old = Old(x=Node())
    with pytest.warns(liftnn.StructureWarning, match="old is an Old"):
        LOOPS[loop](model, model.scaled)


@pytest.mark.parametrize(
    "call, path",
    [
        (lambda m: liftnn.jit(lambda m: liftnn.grad(lambda m: m.w * 1.0)(m))(m), "args[0]"),
        (lambda m: liftnn.jit(liftnn.remat(lambda m: liftnn.cond(True, one, one, m)))(m), "args[0]"),
        (lambda m: liftnn.cond(True, one, one, m), "operands[0]"),
        (lambda m: liftnn.cond(True, m.method, m.method), "true_fun.__self__"),
        (lambda m: liftnn.jit(lambda x: liftnn.cond(True, m.method, m.method))(1.0), "m"),
    ],
    ids=["grad in a jit", "cond in a remat in a jit", "cond", "methods", "methods in a jit"],
)
def test_one_object_is_warned_of_once_in_a_call(call, path):
    model = WithMethod(w=liftnn.Param(1.0), old=Old(x=Node()))
    for _ in range(2):
        model.old = Old(x=Node())
        with pytest.warns(liftnn.StructureWarning) as caught:
            call(model)
        assert [str(w.message) for w in caught] == [TEXT.format(f"{path}.old", "an Old", "Old")]


def test_one_that_only_an_inner_transform_gets_is_warned_of():
    def f(x):
        model = Node(w=liftnn.Param(x), old=Old(x=Node()))
        return liftnn.grad(lambda m: m.w * 1.0)(model)["w"]

    for _ in range(20):  # a new object may have the id of one that has been freed
        with pytest.warns(liftnn.StructureWarning, match=r"^args\[0\].old is an Old"):
            liftnn.jit(lambda x: f(x))(1.0)


class WithMethod(Node):
    def method(self):
        return self.w.value


def one(model):
    return model.w.value
