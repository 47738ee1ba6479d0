"""What is remembered between calls stays bounded, and dead models leave nothing behind."""

from __future__ import annotations

import functools
import gc
import weakref

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.user_modules import Affine, Holder

pytestmark = pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")

X = jnp.ones(3)


def sizes(f, model):
    """How much a function and a model remember."""
    found = {
        "programs": len(f._lifted._bound),
        "by first module": len(f._fast_paths.by_module),
        "of one module": max(map(len, f._fast_paths.by_module.values()), default=0),
        "owned by the function": sum(map(len, f._fast_paths._owned.values())),
        "arguments": len(f._fast_paths._arguments),
        "locations": len(f._fast_paths.locations),
    }
    if model is not None:
        found["owned by the model"] = len(model._fast_paths)
        watched = [x for _, x in liftnn.iter_graph(model) if isinstance(x, (liftnn.Module, liftnn.Variable))]
        found["watches"] = max(len(x._watches) for x in watched)
    return found


LIMITS = {
    "programs": 512, "by first module": 3, "of one module": 33, "owned by the function": 33,
    "arguments": 3, "locations": 3, "owned by the model": 40, "watches": 80,
}  # fmt: skip


def assert_bounded(f, model):
    found = sizes(f, model)
    assert all(count <= LIMITS[name] for name, count in found.items()), found


def static_values_that_never_repeat(model):
    f = liftnn.jit(lambda m, i, x: x * m.w, static_argnums=1, max_traces=None)
    return f, lambda i: f(model, i, X)


def static_attributes_that_never_repeat(model):
    f = liftnn.jit(lambda m, x: x * m.w, max_traces=None)

    def call(i):
        model.mode = i
        f(model, X)

    return f, call


def lists_that_never_repeat(model):
    f = liftnn.jit(lambda m, x: x * m.w, max_traces=None)
    model.items = []

    def call(i):
        model.items[:] = [i]
        f(model, X)

    return f, call


def variables_that_are_replaced(model):
    f = liftnn.jit(lambda m, x: x * m.w, max_traces=None)

    def call(i):
        model.w = liftnn.Param(jnp.ones(3))
        f(model, X)

    return f, call


def other_second_modules(model):
    f = liftnn.jit(lambda m, other, x: x * m.w * other.w, max_traces=None)
    return f, lambda i: f(model, Affine(), X)


def captured_modules_that_are_replaced(model):
    held = {}
    f = liftnn.jit(lambda m, x: x * m.w * held["other"].w, max_traces=None)

    def call(i):
        held["other"] = Affine()
        f(model, X)

    return f, call


def captured_alone(model):
    held = {}
    f = liftnn.jit(lambda x: x * held["model"].w, max_traces=None)

    def call(i):
        held["model"] = Affine()
        f(X)

    return f, call


def modes_in_turn(model):
    f = liftnn.jit(lambda m, x: x * m.w, max_traces=None)

    def call(i):
        model.mode = i % 3
        f(model, X)

    return f, call


def shapes_that_never_repeat(model):
    f = liftnn.jit(lambda m, x: x.sum() * m.w, max_traces=None)
    return f, lambda i: f(model, jnp.ones((1 + i % 7, 3)))


WAYS = (
    static_values_that_never_repeat,
    pytest.param(static_attributes_that_never_repeat, marks=pytest.mark.thorough),
    pytest.param(lists_that_never_repeat, marks=pytest.mark.thorough),
    variables_that_are_replaced,
    other_second_modules,
    captured_modules_that_are_replaced,
    captured_alone,
    modes_in_turn,
    shapes_that_never_repeat,
)


@pytest.mark.sample(14)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_remembered_is_bounded(way):
    model = Affine()
    f, call = way(model)
    for i in range(60):
        call(i)
    gc.collect()
    assert_bounded(f, model)
    before = sizes(f, model)
    for i in range(60, 80):
        call(i)
    gc.collect()
    after = sizes(f, model)
    assert all(after[n] <= before[n] or n == "programs" for n in after), (before, after)


@pytest.mark.thorough
def test_programs_are_bounded():
    model = Affine()
    f, call = static_values_that_never_repeat(model)
    for i in range(600):
        call(i)
    assert_bounded(f, model)


def plain(model):
    return model


def with_itself(model):
    model.me = model
    return model


def with_a_child_that_knows_its_parent(model):
    model.child = Holder(parent=model, w=model.w)
    return model


def with_a_closure(model):
    model.act = lambda x: x + len(model.mode)
    return model


SHAPES = (
    plain,
    with_itself,
    with_a_child_that_knows_its_parent,
    with_a_closure,
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.sample(4)
def test_a_dead_model_leaves_nothing_in_the_function(shape):
    f = liftnn.jit(lambda m, x: x * m.w, max_traces=None)
    alive = []
    for i in range(8):
        model = shape(Affine(float(i)))
        f(model, X)
        f(model, X)
        model.mode = "eval"
        f(model, X)
        alive.append(weakref.ref(model))
        del model
        gc.collect()
    assert [r() for r in alive] == [None] * 8
    found = sizes(f, None)
    assert f._fast_paths.last() is None
    assert found["by first module"] == found["arguments"] == found["owned by the function"] == 0


@pytest.mark.parametrize("position", [1, "k"])
def test_a_dead_second_module_leaves_nothing(position):
    model = Affine()
    f = liftnn.jit(lambda m, other=None, *, k=None: m.w * (other or k).w, max_traces=None)
    alive = []
    for _ in range(8):
        other = Affine()
        other.me = other
        f(model, other) if position == 1 else f(model, k=other)
        alive.append(weakref.ref(other))
        del other
        gc.collect()
    assert [r() for r in alive] == [None] * 8
    f(model, model)
    assert_bounded(f, model)
    assert sizes(f, model)["arguments"] <= 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.sample(2)
def test_a_dead_function_leaves_nothing_in_the_model(shape):
    model = shape(Affine())
    before = len(model._fast_paths)
    for _ in range(6):
        liftnn.jit(lambda m, x: x * m.w)(model, X)
        gc.collect()
    watched = [x for _, x in liftnn.iter_graph(model) if isinstance(x, liftnn.Variable)]
    assert len(model._fast_paths) <= before + 2
    assert max(len(x._watches) for x in watched) <= before + 4


def test_a_captured_model_dies_with_the_function():
    def make():
        model = Affine()
        model.me = model
        f = liftnn.jit(lambda x: x * model.w)
        f(X)
        f(X)
        return f, weakref.ref(model)

    f, alive = make()
    gc.collect()
    assert alive() is not None
    del f
    gc.collect()
    assert alive() is None


class Trainer:
    """A plain object that holds a model."""


STAYS = Affine()

WITH_CAPTURED = {
    "alone": lambda trainer: liftnn.jit(lambda x: x * trainer.model.w),
    "with a passed module": lambda trainer: functools.partial(
        liftnn.jit(lambda m, x: x * m.w * trainer.model.w), Affine()
    ),
    "with one that stays": lambda trainer: liftnn.jit(lambda x: x * STAYS.w * trainer.model.w),
    "by a computed name": lambda trainer: liftnn.jit(lambda x: x * getattr(trainer, "mo" + "del").w),
}


@pytest.mark.parametrize("make", WITH_CAPTURED.values(), ids=WITH_CAPTURED)
@pytest.mark.parametrize("shape", SHAPES)
def test_captured_models_that_were_replaced_die(make, shape):
    trainer, alive = Trainer(), []
    f = make(trainer)
    for value in range(6):
        trainer.model = shape(Affine(float(value)))
        alive.append(weakref.ref(trainer.model))
        for _ in range(3):
            np.testing.assert_array_equal(f(X), X * value)
    gc.collect()
    assert [r() for r in alive] == [None] * 5 + [trainer.model]


def test_train_and_eval_in_turn_remember_two_modes():
    model = liftnn.Sequential(*[liftnn.Dropout(0.5, rngs=liftnn.Rngs(0)) for _ in range(3)])
    f = liftnn.jit(lambda m, x: m(x))
    for i in range(40):
        model.train() if i % 2 else model.eval()
        f(model, X)
    assert f.n_traces == 2
    assert len(model._fast_paths) <= 4
    assert_bounded(f, model)
