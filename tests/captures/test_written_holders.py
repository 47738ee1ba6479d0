"""A plain object that holds a captured module is not changed by a transform: the change is undone, and an error."""

from __future__ import annotations

import collections
import dataclasses
import functools
import gc
import types
import weakref

import jax.numpy as jnp
import pytest

import liftnn
from tests.raising import raises
from tests.user_modules import Affine


class Trainer:
    """An object of the user's."""

    def __init__(self, model):
        self.model = model
        self.last = None
        self.count = 0


@dataclasses.dataclass
class Record:
    model: object
    last: object = None
    count: int = 0


def namespace(model):
    return types.SimpleNamespace(model=model, last=None, count=0)


def keep(holder, y):
    holder.last = y


def count(holder, y):
    holder.count += 1


def add(holder, y):
    holder.new = y


def remove(holder, y):
    del holder.last


class Slotted:
    __slots__ = ("count", "last", "model", "new")

    def __init__(self, model):
        self.model = model
        self.last = None
        self.count = 0


@dataclasses.dataclass(slots=True)
class SlottedRecord(Record):
    new: object = dataclasses.field(init=False)


def function(model):
    def f():
        pass

    vars(f).update(model=model, last=None, count=0)
    return f


HOLDERS = {
    "function": function,
    "Trainer": Trainer,
    "Record": Record,
    "SimpleNamespace": namespace,
    "Slotted": Slotted,
    "SlottedRecord": SlottedRecord,
}


def attributes(holder):
    slots = [n for cls in type(holder).__mro__ for n in getattr(cls, "__slots__", ()) if hasattr(holder, n)]
    return {n: getattr(holder, n) for n in slots} | getattr(holder, "__dict__", {})


TRANSFORMS = {
    "jit": lambda f: liftnn.jit(f)(2.0),
    "remat": lambda f: liftnn.remat(f)(2.0),
    "scan": lambda f: liftnn.scan(lambda c, x: (c, f(x)))(0.0, jnp.ones(2)),
    "grad": lambda f: liftnn.grad(f)(2.0),
}


def changed(name, transform):
    return (
        f"A {name} that holds captured modules was changed in liftnn.{transform}. The function captures it, and only "
        "the values of captured Variables can be changed.\n"
        "Make it an attribute of a module if it is not one, and pass that module as an argument to the function given "
        f"to liftnn.{transform}."
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("change", [keep, count, add, remove])
@pytest.mark.parametrize("name", HOLDERS)
def test_a_change_is_undone_and_an_error(name, change, transform):
    holder = HOLDERS[name](Affine(2.0))
    before = attributes(holder)

    def f(x):
        y = holder.model(x)
        change(holder, y)
        return y

    with raises(liftnn.TraceContextError, changed(name, transform)):
        TRANSFORMS[transform](f)
    assert attributes(holder) == before
    assert list(attributes(holder)) == list(before)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_an_attribute_dictionary_that_is_replaced_is_restored(transform):
    holder = Trainer(Affine(2.0))
    before = vars(holder)

    def f(x):
        y = holder.model(x)
        holder.__dict__ = {**before, "last": y}
        return y

    with raises(liftnn.TraceContextError, changed("Trainer", transform)):
        TRANSFORMS[transform](f)
    assert vars(holder) is before


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_class_that_is_assigned_is_restored(transform):
    class Other(Trainer):
        pass

    holder = Trainer(Affine(2.0))

    def f(x):
        holder.__class__ = Other
        return holder.model(x)

    with raises(liftnn.TraceContextError, changed("Trainer", transform)):
        TRANSFORMS[transform](f)
    assert type(holder) is Trainer


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("change", [keep, count, add, remove])
def test_a_change_of_a_class_is_undone_and_an_error(change, transform):
    class Settings:
        model = Affine(2.0)
        last = None
        count = 0

    before = dict(vars(Settings))

    def f(x):
        y = Settings.model(x)
        change(Settings, y)
        return y

    text = changed("Trainer", transform).replace(
        "A Trainer that holds captured modules was", "The class Settings, which holds captured modules, was"
    )
    with raises(liftnn.TraceContextError, text):
        TRANSFORMS[transform](f)
    assert dict(vars(Settings)) == before


@pytest.mark.parametrize(
    "name", sorted(HOLDERS.keys() - {"function"})
)  # all attributes of a function are captured
def test_what_an_attribute_held_is_not_kept_alive(name):
    holder = HOLDERS[name](Affine(2.0))
    holder.last = Affine(3.0)
    call = liftnn.jit(lambda x: holder.model(x))
    call(1.0)
    reference = weakref.ref(holder.last)
    holder.last = None
    gc.collect()
    assert reference() is None


MODEL = Affine(2.0)


def apply(x):
    return MODEL(x)


def test_what_only_runs_code_that_names_a_module_may_be_written():
    class Helper:
        def __init__(self):
            self.count = 0

        def call(self, x):
            self.count += 1
            return MODEL(x)

    class Caller:
        count = 0

        def __init__(self):
            self.helper = Helper()
            self.apply = apply
            self.count = 0

        def call(self, x):
            Caller.count += 1
            self.count += 1
            step.count += 1
            return self.helper.call(x) + self.apply(x)

    caller, steps, calls = Caller(), [apply], collections.deque([apply])
    entries = {"apply": apply, "count": 0}

    def step(x):
        entries["count"] += 1
        steps.append(None)
        calls.append(None)
        return caller.call(x) + entries["apply"](x) + steps[0](x) + calls[0](x)

    step.count = 0
    assert liftnn.jit(step)(1.0).tolist() == [10.0, 10.0, 10.0]
    assert (caller.count, caller.helper.count, Caller.count, step.count) == (1, 1, 1, 1)
    assert (entries["count"], len(steps), len(calls)) == (1, 2, 2)


def test_a_cached_property_is_computed_again():
    class Cached(Trainer):
        @functools.cached_property
        def double(self):
            return 2 * self.model.w.value

    holder = Cached(Affine(2.0))
    call = liftnn.jit(lambda x: x * holder.double)
    for value in (2.0, 3.0):
        holder.model.w.value = jnp.float32(value)
        assert float(call(1.0)) == 2 * value
    assert "double" not in vars(holder)


def test_a_holder_that_is_not_changed_may_be_written_between_the_calls():
    holder = Trainer(Affine(2.0))
    call = liftnn.jit(lambda x: holder.model(x))
    for _ in range(4):
        holder.last = call(1.0)
        holder.count += 1
    assert call.n_traces == 1
    assert holder.count == 4


@pytest.mark.parametrize("name", HOLDERS)
def test_what_is_written_between_the_calls_stays_in_a_retrace(name):
    holder = HOLDERS[name](Affine(2.0))
    call = liftnn.jit(lambda x: holder.model(x))
    for x in (2.0, jnp.float32(2.0), jnp.ones(()), jnp.ones(3), jnp.ones((2, 3))):
        holder.last = call(x)
        holder.count += 1
    assert call.n_traces == 4
    assert holder.count == 5


@pytest.mark.parametrize("name", HOLDERS)
def test_a_change_in_a_retrace_leaves_what_was_written_between_the_calls(name):
    holder = HOLDERS[name](Affine(2.0))

    @liftnn.jit
    def call(x):
        if x.ndim == 2:
            holder.last = x
        return holder.model(x)

    call(jnp.ones(3))
    holder.count = 5
    before = attributes(holder)
    with raises(liftnn.TraceContextError, changed(name, "jit")):
        call(jnp.ones((2, 3)))
    assert attributes(holder) == before


CONTAINERS = {
    "list": (lambda model: [model, 0], 1),
    "dict": (lambda model: {"model": model, "count": 0}, "count"),
    "deque": (lambda model: collections.deque([model, 0]), 1),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    "change", [list.pop, list.reverse, lambda x: x.append(1), lambda x: x.__delitem__(0)]
)
def test_a_very_long_list_is_not_changed(change, transform):
    holder = [Affine(2.0), *[0.0] * 2000]
    before = holder.copy()

    def f(x):
        y = holder[0](x)
        change(holder)
        return y

    with raises(liftnn.TraceContextError, changed("list", transform)):
        TRANSFORMS[transform](f)
    assert holder == before


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", CONTAINERS)
def test_a_number_beside_a_module_is_not_changed(name, transform):
    make, key = CONTAINERS[name]
    holder = make(model := Affine(2.0))

    def f(x):
        holder[key] += 1
        return holder["model" if name == "dict" else 0](x)

    with raises(liftnn.TraceContextError, changed(name, transform)):
        TRANSFORMS[transform](f)
    assert holder == make(model)


def test_a_number_beside_a_module_that_is_written_between_the_calls_stays_in_a_retrace():
    holder = {"model": Affine(2.0), "count": 0}
    call = liftnn.jit(lambda x: holder["model"](x))
    for x in (2.0, jnp.ones(3), jnp.ones((2, 3))):
        call(x)
        holder["count"] += 1
    assert call.n_traces == 3
    assert holder["count"] == 3


def test_a_function_chosen_by_type_may_keep_which_one_it_was():
    one, other = Affine(2.0, size=()), Affine(3.0, size=())

    @functools.singledispatch
    def apply(x):
        return one(x)

    @apply.register
    def of_dict(x: dict):
        return {name: other(y) for name, y in x.items()}

    call = liftnn.jit(lambda x: apply(x))
    for value in (2.0, 4.0):
        one.w.value = other.w.value = jnp.float32(value)
        assert float(call(1.0)) == value
        assert float(call({"a": 1.0})["a"]) == value
    assert (int(one.calls.value), int(other.calls.value)) == (2, 2)

    @apply.register
    def of_dict_again(x: dict):
        return one(2.0)

    assert float(call({"a": 1.0})) == 8.0
