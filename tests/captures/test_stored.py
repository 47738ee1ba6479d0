"""A module that a trace stores in a captured object that held none does not stay there: it is undone, and an error."""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import functools
import types
import weakref
from typing import ClassVar

import jax.numpy as jnp
import pytest

import liftnn
from tests.raising import raises
from tests.user_modules import Affine

X = jnp.ones(2)


def make():
    return Affine(2.0, size=2)


def stored(path, transform="jit", what="an Affine created"):
    return (
        f"{path}, which the function captures, was set to {what} inside liftnn.{transform}. It would leak: its arrays "
        "exist only in that trace.\n"
        "Create the module before the call, or make it an attribute of a module, and pass that module as an argument "
        f"to the function given to liftnn.{transform}."
    )


class Trainer:
    shared = None

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def step(self, x):
        self.model = make()
        return self.model(x)

    @functools.cached_property
    def lazy(self):
        return make()


class Slotted:
    __slots__ = ("model",)


class SlottedWithNone(Slotted):
    __slots__ = ()

    def __init__(self):
        self.model = None


@dataclasses.dataclass
class Record:
    model: object = None


def set_attribute(holder):
    holder.model = make()
    return holder.model


def set_inner_attribute(holder):
    return set_attribute(holder.inner)


def set_any_attribute(holder):
    setattr(holder, "mod" + "el", model := make())
    return model


def set_shared(holder):
    type(holder).shared = make()
    return holder.shared


def set_new_of_class(holder):
    type(holder).model = make()
    return holder.model


def set_item(holder):
    if "a" not in holder:
        holder["a"] = make()
    return holder["a"]


def set_inner(holder):
    holder.setdefault("inner", {})["a"] = make()
    return holder["inner"]["a"]


def append(holder):
    holder.append(make())
    return holder[-1]


def append_left(holder):
    holder.appendleft(make())
    return holder[0]


def append_to_item(holder):
    holder["a"].append(make())
    return holder["a"][0]


def add(holder):
    holder.add(model := make())
    return model


def fill_slice(holder):
    holder[:] = [make()]
    return holder[0]


def set_first(holder):
    holder[0] = make()
    return holder[0]


def set_record(holder):
    holder["a"] = Record(make())
    return holder["a"].model


def set_method(holder):
    holder["a"] = make().__call__
    return holder["a"]


class WithMissing(dict):
    def __missing__(self, key):
        self[key] = make()
        return self[key]


class Single:
    kept = None

    def __new__(cls):
        if cls.kept is None:
            cls.kept = super().__new__(cls)
            cls.kept.model = make()
        return cls.kept


class Kept(type):
    instances: ClassVar = {}

    def __call__(cls):
        if cls not in Kept.instances:
            Kept.instances[cls] = super().__call__()
        return Kept.instances[cls]


class SingleByMetaclass(metaclass=Kept):
    def __init__(self):
        self.model = make()


HOLDERS = {
    "defaultdict that creates": (
        lambda: collections.defaultdict(make),
        lambda holder: holder["a"],
        "holder['a']",
    ),
    "dict that creates": (WithMissing, lambda holder: holder["a"], "holder['a']"),
    "class that keeps its instance": (lambda: Single, lambda holder: holder().model, "holder.kept.model"),
    "metaclass that keeps instances": (lambda: SingleByMetaclass, lambda holder: holder().model, None),
    "dict": (dict, set_item, "holder['a']"),
    "ordered dict": (collections.OrderedDict, set_item, "holder['a']"),
    "dict in a dict": (lambda: {"inner": {}}, set_inner, "holder['inner']['a']"),
    "new dict in a dict": (dict, set_inner, "holder['inner']['a']"),
    "defaultdict": (lambda: collections.defaultdict(list), append_to_item, "holder['a'][0]"),
    "UserDict": (collections.UserDict, set_item, "holder.data['a']"),
    "dict of records": (dict, set_record, "holder['a'].model"),
    "dict of methods": (dict, set_method, None),
    "long dict": (lambda: dict.fromkeys(range(100)), set_item, "holder['a']"),
    "list": (list, append, "holder[0]"),
    "long list": (lambda: [0.0] * 100, append, "holder[100]"),
    "list of None": (lambda: [None], set_first, "holder[0]"),
    "filled list": (list, fill_slice, "holder[0]"),
    "deque": (collections.deque, append_left, "holder[0]"),
    "set": (set, add, "holder[0]"),
    "Trainer": (Trainer, set_attribute, "holder.model"),
    "Trainer with None": (lambda: Trainer(model=None), set_attribute, "holder.model"),
    "Trainer with a number": (lambda: Trainer(model=3.0), set_attribute, "holder.model"),
    "Trainer, by any name": (Trainer, set_any_attribute, None),
    "Trainer in a Trainer": (lambda: Trainer(inner=Trainer()), set_inner_attribute, "holder.inner.model"),
    "class": (Trainer, set_shared, "holder.shared"),
    "new attribute of the class": (Trainer, set_new_of_class, "holder.model"),
    "cached property": (Trainer, lambda holder: holder.lazy, "holder.lazy"),
    "slot": (Slotted, set_attribute, "holder.model"),
    "slot with None": (SlottedWithNone, set_attribute, "holder.model"),
    "dataclass": (Record, set_attribute, "holder.model"),
    "SimpleNamespace": (types.SimpleNamespace, set_attribute, "holder.model"),
}

TRANSFORMS = {
    "jit": lambda f: liftnn.jit(f)(X),
    "remat": lambda f: liftnn.remat(f)(X),
    "grad": lambda f: liftnn.grad(lambda x: f(x).sum())(X),
    "vmap": lambda f: liftnn.vmap(f)(X),
    "scan": lambda f: liftnn.scan(lambda c, x: (c, f(x)))(0.0, X),
}


def content(x):
    """Return what an object holds, of objects their identity."""
    if isinstance(x, dict):
        return type(x), [(k, content(v)) for k, v in x.items()]
    if isinstance(x, (list, collections.deque, set)):
        return type(x), list(map(content, x))
    slots = [
        (n, getattr(x, n)) for cls in type(x).__mro__ for n in getattr(cls, "__slots__", ()) if hasattr(x, n)
    ]
    if slots or hasattr(x, "__dict__"):
        return slots, content(vars(x)) if hasattr(x, "__dict__") else None, dict(vars(type(x)))
    return x


@pytest.mark.parametrize("name", HOLDERS)
def test_it_is_undone_and_an_error(name):
    start, change, path = HOLDERS[name]
    holder = start()
    before = content(holder)
    pattern = None if path is None else stored(path)
    with raises(liftnn.TraceContextError, pattern) if pattern else pytest.raises(liftnn.TraceContextError):
        liftnn.jit(lambda x: change(holder)(x))(X)
    assert content(holder) == before


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_it_is_an_error_in_each_transform(transform):
    holder = {}
    with raises(liftnn.TraceContextError, stored("holder['a']", transform)):
        TRANSFORMS[transform](lambda x: set_item(holder)(x))
    assert holder == {}


def test_it_is_undone_if_the_function_raises():
    holder, trainer = {}, Trainer()

    def f(x):
        set_attribute(trainer)
        raise KeyError(set_item(holder))

    with pytest.raises(KeyError):
        liftnn.jit(f)(X)
    assert (holder, vars(trainer)) == ({}, {})


def test_it_is_undone_in_a_retrace():
    holder = {"b": 0}

    @liftnn.jit
    def f(x):
        return set_item(holder)(x) if x.ndim == 2 else x

    f(X)
    holder["b"] = 1
    with raises(liftnn.TraceContextError, stored("holder['a']")):
        f(jnp.ones((2, 2)))
    assert holder == {"b": 1}


def test_a_variable_of_an_enclosing_function_is_undone():
    model = None

    @liftnn.jit
    def f(x):
        nonlocal model
        model = make()
        return model(x)

    with raises(liftnn.TraceContextError, stored("model")):
        f(X)
    assert model is None


last = None


@pytest.mark.parametrize("is_read", [False, True])
def test_a_global_is_undone(is_read):
    def read_and_write(x):
        global last
        last = make() if last is None else last
        return last(x)

    def write(x):
        global last
        last = make()
        return x

    with raises(liftnn.TraceContextError, stored("last")):
        liftnn.jit(read_and_write if is_read else write)(X)
    assert last is None


def test_a_context_variable_is_undone():
    variable = contextvars.ContextVar("variable")
    variable.set(None)

    def f(x):
        variable.set(make())
        return variable.get()(x)

    with raises(liftnn.TraceContextError, stored("variable.get()")):
        liftnn.jit(f)(X)
    assert variable.get() is None


def test_the_object_of_a_method_is_undone():
    trainer = Trainer()
    with raises(liftnn.TraceContextError, stored("self.model")):
        liftnn.jit(trainer.step)(X)
    assert vars(trainer) == {}


def test_the_copy_of_an_argument_is_named():
    holder = {}

    @liftnn.jit
    def f(model, x):
        holder["a"] = model
        return model(x)

    with raises(liftnn.TraceContextError, stored("holder['a']", what="the copy of args[0] (an Affine)")):
        f(make(), X)
    assert holder == {}


def test_a_variable_and_a_state_are_undone():
    holder = {}

    @liftnn.jit
    def f(model, x):
        holder["v"] = liftnn.Variable(x)
        holder["s"] = liftnn.state(liftnn.clone(model))
        return x

    with pytest.raises(liftnn.TraceContextError, match=r"holder\['v'\].*a Variable created inside"):
        f(make(), X)
    assert holder == {}


def test_a_plain_object_in_a_module_is_undone():
    class Net(liftnn.Module):
        def __init__(self):
            self.cache = Trainer(model=None)

        def __call__(self, x):
            return set_attribute(self.cache)(x)

    net = Net()
    with pytest.raises(liftnn.TraceContextError, match=r"'model'.*an Affine created inside"):
        liftnn.jit(net)(X)
    assert vars(net.cache) == {"model": None}


def test_one_that_is_removed_again_does_no_harm():
    holder, trainer = {}, Trainer(model=None)

    @liftnn.jit
    def f(x):
        y = set_item(holder)(x) + set_attribute(trainer)(x)
        holder.clear()
        trainer.model = None
        return y

    assert f(X).tolist() == [4.0, 4.0]
    assert (holder, vars(trainer)) == ({}, {"model": None})


def test_a_metaclass_that_keeps_instances_is_undone():
    with pytest.raises(
        liftnn.TraceContextError, match=r"instances\[\.\.\.\]\.model, .* an Affine created inside"
    ):
        liftnn.jit(lambda x: SingleByMetaclass().model(x))(X)
    assert Kept.instances == {}


def test_an_attribute_dictionary_that_is_replaced_is_undone():
    trainer = Trainer(count=0)
    before = vars(trainer)

    def f(x):
        trainer.__dict__ = {"model": make()}
        return trainer.model(x)

    with raises(liftnn.TraceContextError, stored("trainer.model")):
        liftnn.jit(f)(X)
    assert vars(trainer) is before
    assert before == {"count": 0}


def test_what_else_is_written_there_stays():
    holder, trainer = {}, Trainer()

    @liftnn.jit
    def f(x):
        holder["n"] = holder.get("n", 0) + 1
        trainer.note = "traced"
        return make()(x)

    f(X)
    assert (holder, vars(trainer)) == ({"n": 1}, {"note": "traced"})


def test_a_module_of_plain_python_may_be_stored():
    holder, model = {}, make()

    @liftnn.jit
    def f(x):
        holder["a"] = model
        return model(x)

    f(X)
    assert holder["a"] is model


def test_one_that_only_a_weak_reference_holds_does_no_harm():
    holder, dictionary = weakref.WeakSet(), weakref.WeakValueDictionary()

    @liftnn.jit
    def f(x):
        model = make()
        holder.add(model)
        dictionary["a"] = model
        return model

    assert f(X)(X).tolist() == [2.0, 2.0]


def test_it_is_undone_in_an_inner_transform():
    holder = {}

    @liftnn.jit
    def f(x):
        return liftnn.grad(lambda x: set_item(holder)(x).sum())(x)

    with raises(liftnn.TraceContextError, stored("holder['a']", "grad")):
        f(X)
    assert holder == {}


def test_one_that_is_made_before_the_call_is_captured():
    holder = {}
    set_item(holder)
    f = liftnn.jit(lambda x: set_item(holder)(x))
    assert f(X).tolist() == [2.0, 2.0]
    holder["a"].w.value = jnp.full(2, 3.0)
    assert f(X).tolist() == [3.0, 3.0]


@pytest.mark.parametrize("make_holder", [list, collections.deque, set])
def test_an_argument_may_be_collected_and_its_use_is_an_error(make_holder):
    holder = make_holder()
    collect = liftnn.jit(lambda model: holder.add(model) if make_holder is set else holder.append(model))
    collect(make())
    (kept,) = holder
    with pytest.raises(liftnn.TraceContextError, match="leaked"):
        kept.w.value = 0.0
    with pytest.raises(liftnn.StructureError, match="leaked"):
        liftnn.jit(lambda model: model.w.value)(kept)
