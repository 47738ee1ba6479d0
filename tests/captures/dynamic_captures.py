"""Ways to a captured module that the code does not name, or only in parts, with changes of what leads to it."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import operator
import queue

import jax.numpy as jnp

from tests.captures.captures import both, case, k
from tests.captures.object_captures import Trainer


@case
def name_that_is_computed():
    t, name = Trainer(k(2)), "mod"
    return lambda x: x * both(getattr(t, name + "el")), [
        lambda: setattr(t, "model", k(9)),
        lambda: setattr(t, "model", k(3)),
    ]


@case
def all_attributes():
    t = Trainer(k(2))
    return lambda x: x * sum(map(both, vars(t).values())), [
        lambda: setattr(t, "model", k(9)),
        lambda: setattr(t, "other", k(3)),
    ]


@case
def first_of_all_attributes():
    t = type("T", (), {})()
    return lambda x: x * sum(map(both, t.__dict__.values())), [
        lambda: setattr(t, "model", k(9)),
        lambda: setattr(t, "other", k(3)),
    ]


@case
def method_by_name():
    t = Trainer(k(2))
    call = operator.methodcaller("step", jnp.float32(1.0))
    return lambda x: x * call(t), [lambda: setattr(t, "model", k(9)), lambda: setattr(t, "model", k(3))]


@case
def method_with_stored_arguments():
    class T(Trainer):
        def scaled(self, scale, x):
            return scale * self(x)

        twice = functools.partialmethod(scaled, 2.0)

    t = T(k(2))
    return lambda x: t.twice(x), [lambda: setattr(t, "model", k(9))]


@case
def method_chosen_by_type():
    class T(Trainer):
        @functools.singledispatchmethod
        def apply(self, x):
            return self.model.k * x

        @apply.register
        def _(self, x: float):
            return both(self.model) * x

    t, one = T(k(2)), jnp.float32(1.0)
    t.apply(one), t.apply(2.0)  # fill the cache of the dispatch
    return lambda x: x * (t.apply(one) + t.apply(2.0)), [lambda: setattr(t, "model", k(9))]


@case
def attribute_of_a_metaclass():
    class Meta(type):
        model = k(2)

    class T(metaclass=Meta):
        pass

    return lambda x: x * both(T.model), [lambda: setattr(Meta, "model", k(9))]


@case
def global_by_name():
    scope = {"__name__": "user", "both": both, "model": k(2)}
    exec("def f(x): return x * both(globals()['mod' + 'el'])", scope)
    return scope["f"], [lambda: scope.update(model=k(9)), lambda: scope.update(model=k(3))]


@case
def subclass_of_a_user_dict():
    class Models(collections.UserDict):
        pass

    models = Models(a=k(2))
    return lambda x: x * both(models["a"]), [lambda: models.update(a=k(9)), lambda: models.update(a=k(3))]


@case
def element_of_a_queue():
    waiting = queue.Queue()
    waiting.put(k(2))
    return lambda x: x * both(waiting.queue[0]), [
        lambda: waiting.queue.appendleft(k(9)),
        lambda: waiting.get(),
    ]


@case
def result_of_a_future():
    future = concurrent.futures.Future()
    future.set_result(k(2))
    return lambda x: x * both(future.result()), [lambda: vars(future).update(_result=k(9))]


@case
def key_of_a_dict():
    d = {k(2): "a"}
    return lambda x: x * both(next(iter(d))), [lambda: (d.clear(), d.update({k(9): "a"}))]
