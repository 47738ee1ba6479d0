"""Ways to a captured module through objects and classes, with changes of what leads to it."""

from __future__ import annotations

import abc
import argparse
import contextvars
import functools
import itertools
import math
import sys
import threading
import types
from typing import ClassVar

import jax.numpy as jnp

import liftnn
from tests.captures.captures import both, case, k
from tests.user_modules import Holder

CONTEXT = contextvars.ContextVar("model", default=None)


@case
def context_variable():
    CONTEXT.set(k(2))
    return lambda x: x * both(CONTEXT.get()), [lambda: CONTEXT.set(k(9)), lambda: CONTEXT.set(k(3))]


def _attribute_that_comes_later(holder):
    def f(x):
        return x * both(holder.model) if hasattr(holder, "model") else x

    return f, [lambda: setattr(holder, "model", k(9)), lambda: delattr(holder, "model")]


@case
def later_attribute_of_an_object():
    return _attribute_that_comes_later(type("T", (), {})())


@case
def later_attribute_of_a_namespace():
    return _attribute_that_comes_later(types.SimpleNamespace())


@case
def later_attribute_of_parsed_arguments():
    return _attribute_that_comes_later(argparse.Namespace())


@case
def later_attribute_of_a_thread():
    return _attribute_that_comes_later(threading.local())


LOCAL = threading.local()


@case
def attribute_of_a_thread():
    LOCAL.model = k(2)
    return lambda x: x * both(LOCAL.model), [
        lambda: setattr(LOCAL, "model", k(9)),
        lambda: setattr(LOCAL, "model", k(3)),
    ]


class Trainer:
    """An object of the user's."""

    model = None

    def __init__(self, model):
        self.model = model

    def __call__(self, x):
        return x * both(self.model)

    def step(self, x):
        return self(x)

    @property
    def net(self):
        return self.model


@case
def callable_object():
    t = Trainer(k(2))
    return t, [lambda: setattr(t, "model", k(9)), lambda: vars(t).update(model=k(3))]


@case
def bound_method():
    t = Trainer(k(2))
    return t.step, [lambda: setattr(t, "model", k(9))]


@case
def behind_a_property():
    t = Trainer(k(2))
    return lambda x: x * both(t.net), [lambda: setattr(t, "model", k(9))]


@case
def class_attribute():
    class T:
        model = k(2)

    return lambda x: x * both(T.model), [lambda: setattr(T, "model", k(9))]


@case
def inherited_class_attribute():
    class T:
        model = k(2)

    class U(T):
        pass

    return lambda x: x * both(U.model), [
        lambda: setattr(T, "model", k(9)),
        lambda: setattr(U, "model", k(4)),
        lambda: delattr(U, "model"),
    ]


@case
def instance_that_shadows_its_class():
    class T:
        model = k(2)

    t = T()
    return lambda x: x * both(t.model), [lambda: setattr(t, "model", k(9)), lambda: delattr(t, "model")]


@case
def instance_that_hides_the_module_of_its_class():
    class T:
        model = k(2)

    t = T()
    return (
        lambda x: x * (7 if t.model is None else both(t.model)),
        [lambda: setattr(t, "model", None), lambda: delattr(t, "model")],
    )


@case
def subclass_that_hides_the_module_of_its_base():
    class T:
        model = k(2)

    class Sub(T):
        pass

    t = Sub()
    return (
        lambda x: x * (7 if t.model is None else both(t.model)),
        [lambda: setattr(Sub, "model", None), lambda: delattr(Sub, "model")],
    )


@case
def class_of_an_instance():
    class T:
        model = k(2)

    class U:
        model = k(9)

    t = T()
    return lambda x: x * both(t.model), [lambda: setattr(t, "__class__", U)]


@case
def slot():
    class T:
        __slots__ = ("model",)

    t = T()

    def f(x):
        return x * both(t.model) if hasattr(t, "model") else x

    return f, [
        lambda: setattr(t, "model", k(2)),
        lambda: setattr(t, "model", k(9)),
        lambda: delattr(t, "model"),
    ]


@case
def name_in_a_string():
    t = Trainer(k(2))
    return lambda x: x * both(getattr(t, "model")), [lambda: setattr(t, "model", k(9))]  # noqa: B009


@case
def python_module():
    python = types.ModuleType("user_settings")
    python.model = k(2)
    return lambda x: x * both(python.model), [lambda: setattr(python, "model", k(9))]


# More than 256 of them: Python has one object for each smaller number, so a size that is compared by identity would
# hold for those only.
NAMES = tuple([f"name_{i}" for i in range(300)])


@case
def class_with_many_names():
    base = type("T", (), {**dict.fromkeys(NAMES), "model": k(2)})
    derived = type("U", (base,), dict.fromkeys(NAMES))
    return lambda x: x * both(derived.model), [
        lambda: setattr(base, "model", k(9)),
        lambda: setattr(derived, "model", k(4)),
    ]


@case
def object_with_many_names():
    t = Trainer(k(2))
    vars(t).update(dict.fromkeys(NAMES))
    return t, [lambda: setattr(t, "model", k(9))]


@case
def python_module_with_many_names():
    python = types.ModuleType("user_tables")
    vars(python).update(dict.fromkeys(NAMES), model=k(2))
    return lambda x: x * both(python.model), [lambda: setattr(python, "model", k(9))]


@case
def long_list():
    models = [*range(300), k(2)]
    return lambda x: x * both(models[-1]), [lambda: models.append(k(9)), lambda: models.pop()]


@case
def long_dict():
    models = {**dict.fromkeys(NAMES, 1), "model": k(2)}
    return lambda x: x * both(models["model"]), [lambda: models.update(model=k(9))]


@case
def wrapped_function():
    ms = [k(2)]

    def f(x):
        return x * both(ms[0])

    @functools.wraps(f)
    def g(x):
        return f(x)

    return g, [lambda: ms.__setitem__(0, k(9))]


@case
def cached_function():
    ms = [k(2)]

    @functools.lru_cache
    def get():
        return ms

    return lambda x: x * both(get()[0]), [lambda: ms.__setitem__(0, k(9))]


@case
def a_transformed_function():
    ms = [k(2)]
    inner = liftnn.remat(lambda x: x * both(ms[0]))
    return lambda x: inner(x), [lambda: ms.__setitem__(0, k(9)), lambda: ms.append(k(1))]


@case
def registry_of_an_abstract_class():
    class Base(metaclass=abc.ABCMeta):  # noqa: B024
        registry = {}  # noqa: RUF012

    return lambda x: x * sum((both(m) for m in Base.registry.values()), start=1), [
        lambda: Base.registry.update(a=k(2)),
        lambda: Base.registry.update(a=k(9)),
    ]


# --- functions that a module holds


def of_attribute(make):
    """A case in which a function is the attribute of the module that is passed."""
    act, changes = make()
    m = Holder(act=act)
    return functools.partial(lambda m, x: m.act(x), m), changes


@case
def closure_cell_of_an_attribute():
    s = 1.0

    def put():
        nonlocal s
        s = 5.0

    return of_attribute(lambda: (lambda x: x * s, [put]))


@case
def static_of_what_an_attribute_captures():
    other = k(2)
    return of_attribute(lambda: (lambda x: x * both(other), [lambda: setattr(other, "k", 9)]))


@case
def class_attribute_that_becomes_a_module():
    class Teachers:
        teacher = None

    def f(x):
        return x if Teachers.teacher is None else x * both(Teachers.teacher)

    changes = [lambda: setattr(Teachers, "teacher", k(9)), lambda: setattr(Teachers, "teacher", k(3))]
    return f, [*changes, lambda: setattr(Teachers, "teacher", None)]


@case
def class_attribute_that_is_made_later():
    class Base:
        pass

    class Teachers(Base):
        pass

    def f(x):
        return x * both(Teachers.teacher) if hasattr(Teachers, "teacher") else x

    return f, [lambda: setattr(Base, "teacher", k(2)), lambda: setattr(Teachers, "teacher", k(9))]


@case
def keyword_of_a_partial():
    act = functools.partial(lambda x, m: x * both(m), m=k(2))
    return lambda x: act(x), [lambda: act.keywords.update(m=k(9)), lambda: act.keywords.update(m=k(3))]


class Carrier:
    """An object without `__call__` that holds a module."""

    def __init__(self, model):
        self.model = model

    def apply(self, x):
        return x * both(self.model)


def stored_in_a_partial(arrange, apply):
    """A partial that stores plain objects, and changes of what they hold and of the containers between."""
    carrier, other = Carrier(k(2)), Carrier(k(5))
    stored = arrange(carrier)
    changes = [
        lambda: setattr(carrier.model, "k", 9),
        lambda: setattr(carrier, "model", k(3)),
        lambda: stored.__setitem__(0, other) if isinstance(stored, list) else None,
        lambda: setattr(other.model, "k", 7),
    ]
    return functools.partial(apply, stored), changes


@case
def object_in_a_partial():
    return stored_in_a_partial(lambda c: c, lambda c, x: c.apply(x))


@case
def object_in_a_list_in_a_partial():
    return stored_in_a_partial(lambda c: [c], lambda cs, x: cs[0].apply(x))


@case
def object_in_containers_in_a_partial():
    return stored_in_a_partial(lambda c: [{"a": (1, [c])}], lambda cs, x: apply_first(cs, x))


@case
def method_of_an_object_in_a_list_in_a_partial():
    return stored_in_a_partial(lambda c: [c.apply], lambda fs, x: apply_first(fs, x))


def apply_first(stored, x):
    first = stored[0]["a"][1][0] if isinstance(stored[0], dict) else stored[0]
    return first.apply(x) if isinstance(first, Carrier) else first(x)


# --- attribute dictionaries, containers with attributes, classes that create


@case
def attribute_dictionary_that_is_replaced():
    carrier, other = Carrier(k(2)), Carrier(k(5))
    held = Carrier(carrier)
    changes = [
        lambda: setattr(carrier, "__dict__", {"model": k(9)}),
        lambda: setattr(carrier, "__dict__", vars(other)),
        lambda: setattr(other, "model", k(7)),
        lambda: setattr(held, "__dict__", {"model": other}),
        lambda: setattr(other.model, "k", 3),
    ]
    return lambda x: held.model.apply(x), changes


@case
def attribute_dictionary_that_held_no_module():
    carrier = Carrier(None)
    changes = [
        lambda: setattr(carrier, "__dict__", {"model": k(9)}),
        lambda: setattr(carrier, "__dict__", {"model": None}),
    ]
    return lambda x: x if carrier.model is None else carrier.apply(x), changes


class Negative(Carrier):
    def apply(self, x):
        return -super().apply(x)


class Twice(Carrier):
    def apply(self, x):
        return 2 * super().apply(x)


@case
def class_of_an_object_that_is_assigned():
    carriers = [Carrier(k(2))]
    changes = [
        lambda: setattr(carriers[0], "__class__", Negative),
        lambda: setattr(carriers[0], "__class__", Twice),
        lambda: setattr(carriers[0], "__class__", Carrier),
    ]
    return lambda x: carriers[0].apply(x), changes


@case
def class_that_leads_to_a_module_and_is_assigned():
    model, other = k(2), k(3)

    class Same:
        def apply(self, x):
            return x

    class Scaled:
        def apply(self, x):
            return x * both(other)

    scale = Same()
    changes = [
        lambda: setattr(scale, "__class__", Scaled),
        lambda: setattr(other, "k", 5),
        lambda: setattr(scale, "__class__", Same),
    ]
    return lambda x: scale.apply(x * both(model)), changes


class ModelList(list):
    factor = None

    def apply(self, x):
        y = x * both(self.head) + sum(both(m) * x for m in self)
        return y if self.factor is None else y * both(self.factor)


@case
def list_with_attributes():
    models = ModelList([k(2)])
    models.head = k(3)
    changes = [
        lambda: setattr(models, "head", k(9)),
        lambda: setattr(models.head, "k", 4),
        lambda: models.append(models.head),
        lambda: setattr(models, "factor", k(2)),
        lambda: delattr(models, "factor"),
        lambda: setattr(ModelList, "factor", k(5)),
        lambda: setattr(ModelList, "factor", None),
    ]
    return lambda x: models.apply(x), changes


@case
def dict_with_attributes():
    class Models(dict):
        pass

    models = Models()
    models.head = k(3)
    changes = [lambda: setattr(models, "head", k(9)), lambda: setattr(models, "head", k(2))]
    return lambda x: x * both(models.head), changes


@case
def metaclass_that_keeps_the_instances():
    class Kept(type):
        instances: ClassVar = {}

        def __call__(cls):
            if cls not in Kept.instances:
                Kept.instances[cls] = super().__call__()
            return Kept.instances[cls]

    class Single(metaclass=Kept):
        def __init__(self):
            self.model = k(2)

    Single()
    changes = [lambda: setattr(Single(), "model", k(9)), lambda: Kept.instances.clear() or Single()]
    return lambda x: x * both(Single().model), changes


# --- other objects with the same modules


class Reverse(Carrier):
    """Another class with the same attributes."""

    def apply(self, x):
        return -x * both(self.model)


@case
def object_of_another_class():
    m = k(2)
    carriers = [Carrier(m)]
    changes = [lambda: carriers.__setitem__(0, Reverse(m)), lambda: carriers.__setitem__(0, Carrier(m))]
    return lambda x: carriers[0].apply(x), changes


@case
def container_of_another_class():
    class Sum(list):
        def apply(self, x):
            return x * sum(map(both, self))

    class Product(list):
        def apply(self, x):
            return x * math.prod(map(both, self))

    held = {"models": Sum([k(2), k(3)])}
    return lambda x: held["models"].apply(x), [lambda: held.update(models=Product(held["models"]))]


@case
def function_with_other_code():
    m = k(2)
    callbacks = [lambda x: x * both(m)]
    changes = [
        lambda: callbacks.__setitem__(0, lambda x: -x * both(m)),
        lambda: callbacks.__setitem__(0, functools.partial(lambda x: 3 * x * both(m))),
    ]
    return lambda x: callbacks[0](x), changes


@case
def another_method_of_an_object():
    carrier = Reverse(k(2))
    carrier.act = carrier.apply
    changes = [lambda: setattr(carrier, "act", super(Reverse, carrier).apply)]
    return lambda x: carrier.act(x), changes


@case
def another_class_that_holds_a_module():
    m = k(2)

    class One:
        model = m

        @classmethod
        def apply(cls, x):
            return x * both(cls.model)

    class Two:
        model = m

        @classmethod
        def apply(cls, x):
            return -x * both(cls.model)

    classes = {"chosen": One}
    return lambda x: classes["chosen"].apply(x), [lambda: classes.update(chosen=Two)]


# --- modules that no search finds


def missed(get, m):
    """Changes of the attributes of the same module, which the search misses."""
    changes = [
        lambda: setattr(m, "k", 9),
        lambda: setattr(m, "v", liftnn.Variable(jnp.float32(7.0))),
        lambda: setattr(m, "k", 3),
    ]
    return lambda x: x * both(get()), changes


@case
def missed_in_an_iterator():
    m = k(2)
    ms = itertools.cycle([m])
    return missed(lambda: next(ms), m)


@case
def missed_in_an_import():
    m = k(2)
    python_module = types.ModuleType("a_module_of_models")
    python_module.model = m
    sys.modules["a_module_of_models"] = python_module

    def get():
        from a_module_of_models import model

        return model

    return missed(get, m)


@case
def missed_in_a_dict_as_key():
    m = k(2)
    d = {m: 1}
    return missed(lambda: next(iter(d)), m)


@case
def missed_in_thread_locals():
    m = k(2)
    local = threading.local()
    local.model = m
    return missed(lambda: local.model, m)


class Reading(liftnn.Module):
    """Uses no Variable: only an attribute."""

    def __init__(self):
        self.k = 2

    def __call__(self):
        return self.k


@case
def missed_and_without_variables():
    m = Reading()
    ms = itertools.cycle([m])
    return lambda x: x * next(ms)(), [lambda: setattr(m, "k", 9), lambda: setattr(m, "k", 3)]
