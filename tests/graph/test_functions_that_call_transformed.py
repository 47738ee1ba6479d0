"""A function of a module whose closure holds a module behind a transformed function, or an attribute of a partial.

Such a function is part of the model: copies have one of their own, and what a transform changes is seen.
"""

from __future__ import annotations

import functools
import pickle

import cloudpickle
import jax.numpy as jnp
import pytest

import liftnn


class Counter(liftnn.Module):
    def __init__(self):
        self.n = liftnn.Variable(jnp.zeros(()))

    def count(self, x):
        self.n.value = self.n.value + 1
        return 2 * x


class Model(liftnn.Module):
    def __init__(self, counter, f):
        self.f = f
        self.seen = [counter]


def by_a_partial(counter):
    partial = functools.partial(lambda p, x: p.counter.count(x))
    partial.counter = counter
    return lambda x: partial(partial, x)


def by_a_default(counter):
    step = liftnn.jit(counter.count)
    return lambda x, step=step: step(x)


def by_transformed(transform, wrap=lambda f: f):
    def make(counter):
        step = wrap(transform(counter.count))
        return lambda x: (step[0] if isinstance(step, tuple) else step)(x)

    return make


MAKERS = {
    "jit": by_transformed(liftnn.jit),
    "remat": by_transformed(liftnn.remat),
    "vmap": by_transformed(lambda f: liftnn.vmap(f, axis_size=1, in_axes=None, out_axes=None)),
    "jit of remat": by_transformed(lambda f: liftnn.jit(liftnn.remat(f))),
    "jit of a closure": by_transformed(lambda f: liftnn.jit(lambda x: f(x))),
    "in a tuple": by_transformed(liftnn.jit, lambda f: (f,)),
    "in a partial": by_transformed(liftnn.jit, lambda f: functools.partial(f)),
    "default": by_a_default,
    "attribute of a partial": by_a_partial,
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS.keys())
def make(request):
    def make_model():
        counter = Counter()
        return Model(counter, request.param(counter))

    return make_model


def counts(model):
    return float(model.seen[0].n.value)


def test_a_call_in_a_transform_changes_the_counter(make):
    model = make()
    call = liftnn.jit(lambda model, x: model.f(x))
    assert [float(call(model, 3.0)), float(call(model, 4.0))] == [6, 8]
    assert counts(model) == 2
    model.f(1.0)
    assert counts(model) == 3


@pytest.mark.parametrize(
    "copy",
    [
        liftnn.clone,
        lambda model: liftnn.merge(*liftnn.split(model)[::-1]),
        lambda model: liftnn.jit(lambda model: liftnn.clone(model))(model),
        lambda model: pickle.loads(cloudpickle.dumps(model)),
    ],
    ids=["clone", "merge", "in a transform", "pickle"],
)
def test_a_copy_acts_on_its_own_counter(make, copy):
    model = make()
    other = copy(model)
    other.f(1.0)
    liftnn.jit(lambda other: other.f(1.0))(other)
    assert (counts(model), counts(other)) == (0, 2)
    model.f(1.0)
    assert (counts(model), counts(other)) == (1, 2)


def test_an_exception_takes_the_count_back(make):
    model = make()

    @liftnn.jit
    def fail(model):
        model.f(1.0)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail(model)
    assert counts(model) == 0
