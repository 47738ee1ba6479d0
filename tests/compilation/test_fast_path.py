"""Warm calls: nothing is walked that need not be, nothing is kept alive, and every change is seen."""

from __future__ import annotations

import collections
import gc
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn._src.lifting import lift


class Model(liftnn.Module):
    """A small model with containers."""

    def __init__(self):
        self.w = liftnn.Param(jnp.ones(2))
        self.layers = [liftnn.Linear(2, 2, rngs=liftnn.Rngs(0)), liftnn.Linear(2, 2, rngs=liftnn.Rngs(1))]
        self.options = {"scale": 2, "deep": [1, {"k": 3}]}
        self.table = jnp.arange(2.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x * self.w * self.options["scale"] + self.table


def infer(model: Model, x: jax.Array) -> jax.Array:
    return model(x)


def train(model: Model, x: jax.Array) -> jax.Array:
    grads = liftnn.grad(lambda m: m(x).sum())(model)
    model.w.value = model.w - grads["w"].value
    model.table = model.table + 1
    return model.w.value.sum()


def replace(model: Model, x: jax.Array) -> jax.Array:
    model.w = liftnn.Param(model.w + x)
    model.seen = liftnn.Intermediate(x)
    return model.w.value.sum()


X = jnp.ones(2)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts how often arguments were walked since it was asked last."""
    count = 0
    opened = lift.Lifted._flatten_call

    def counted(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        return opened(self, *args)

    monkeypatch.setattr(lift.Lifted, "_flatten_call", counted)

    def since() -> int:
        nonlocal count
        result, count = count, 0
        return result

    return since


@pytest.mark.parametrize("function", [infer, train, replace])
def test_a_repeated_call_walks_no_graph(function: Callable[..., Any], walks: Callable[[], int]) -> None:
    model, call = Model(), liftnn.jit(function)
    for _ in range(3):  # an attribute that the first call adds, the second call meets
        call(model, X)
    walks()
    for _ in range(5):
        call(model, X)
    assert walks() == 0


def test_two_functions_alternating_on_one_model_walk_no_graph(walks: Callable[[], int]) -> None:
    model, calls = Model(), (liftnn.jit(train), liftnn.jit(infer), liftnn.jit(replace))
    for _ in range(3):
        for call in calls:
            call(model, X)
    walks()
    for _ in range(3):
        for call in calls:
            call(model, X)
    assert walks() == 0


def test_four_models_alternating_on_one_function_walk_no_graph(walks: Callable[[], int]) -> None:
    models, call = [Model() for _ in range(4)], liftnn.jit(train)
    for model in models:
        call(model, X)
    walks()
    for model in models * 2:
        call(model, X)
    assert walks() == 0
    assert call.n_traces == 1


def test_setting_a_value_or_an_array_walks_no_graph(walks: Callable[[], int]) -> None:
    model, call = Model(), liftnn.jit(infer)
    call(model, X)
    walks()
    model.w.value = jnp.full(
        2, 3.0, jnp.float32
    )  # of no weak type, for which the program would be traced again
    model.table = jnp.zeros(2)
    assert call(model, X).tolist() == infer(model, X).tolist()
    assert walks() == 0


CHANGES: dict[str, Callable[[Model], Any]] = {
    "list element": lambda m: m.layers.reverse(),
    "list growth": lambda m: m.layers.append(m.layers[0]),
    "dict value": lambda m: m.options.update(scale=3),
    "deep dict value": lambda m: m.options["deep"][1].update(k=4),
    "attribute": lambda m: setattr(m, "note", 1),
    "attribute None": lambda m: setattr(m, "note", None),
    "Variable": lambda m: setattr(m, "w", liftnn.Param(jnp.full(2, 5.0))),
    "submodule attribute": lambda m: setattr(m.layers[0], "bias", None),
    "tie": lambda m: setattr(m.layers[0], "kernel", m.layers[1].kernel),
    "metadata": lambda m: setattr(m.w, "note", "new"),
    "array to static": lambda m: setattr(m, "table", 0.5),
    "deleted": lambda m: (
        delattr(m.layers[1], "dot_general") or setattr(m.layers[1], "dot_general", jax.lax.dot_general)
    ),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_between_calls_is_seen(change: Callable[[Model], Any], walks: Callable[[], int]) -> None:
    model, call = Model(), liftnn.jit(infer)
    call(model, X)
    walks()
    change(model)
    assert jnp.allclose(call(model, X), infer(model, X))
    assert walks() == 1


def test_an_element_that_takes_the_address_of_a_dead_one_is_seen() -> None:
    model, call = Model(), liftnn.jit(infer)
    for seed in range(30):
        model.layers.pop()
        model.layers.append(liftnn.Linear(2, 2, rngs=liftnn.Rngs(seed)))
        assert jnp.allclose(call(model, X), infer(model, X), atol=1e-6)


@pytest.mark.parametrize("function", [infer, train, replace])
def test_a_dead_model_is_freed_at_once(function: Callable[..., Any]) -> None:
    call = liftnn.jit(function)
    model = Model()
    for _ in range(3):
        call(model, X)
    gone = [weakref.ref(model), weakref.ref(model.w), weakref.ref(model.layers[0])]
    gc.disable()
    try:
        del model
        assert [g() for g in gone] == [None] * 3
    finally:
        gc.enable()


def test_a_variable_passed_by_itself_is_freed() -> None:
    call = liftnn.jit(lambda v: setattr(v, "value", v + 1) or v.sum())
    variable = liftnn.Param(jnp.ones(2))
    for n in range(3):
        assert float(call(variable)) == 2.0 * (n + 2)
    gone = weakref.ref(variable)
    del variable
    assert gone() is None


@pytest.mark.thorough
def test_fresh_models_leave_nothing_behind() -> None:
    call, other = liftnn.jit(train), Model()
    both = liftnn.jit(lambda kept, fresh: kept.w.sum() + fresh.w.sum())
    for _ in range(50):
        call(Model(), X)
        both(other, Model())
    gc.collect()
    assert call.n_traces == both.n_traces == 1
    assert len(call._fast_paths.by_module) == 0
    assert len(both._fast_paths.by_module) == 0
    assert len(other._fast_paths) <= 1
    assert sum(isinstance(x, Model) for x in gc.get_objects()) == 1


@pytest.mark.sample(2)
@pytest.mark.parametrize("function", [train, replace])
def test_calls_with_fresh_models_leave_memory_flat(function: Callable[..., Any]) -> None:
    call = liftnn.jit(function)

    def alive(n: int) -> int:
        for _ in range(n):
            model = Small()
            for _ in range(3):
                call(model, X)
            del model
        gc.collect()
        return len(gc.get_objects())

    class Small(liftnn.Module):
        def __init__(self) -> None:
            self.w, self.table = liftnn.Param(jnp.ones(2)), jnp.zeros(2)
            self.options = {"scale": [1]}

        def __call__(self, x: jax.Array) -> jax.Array:
            return x * self.w

    alive(20)
    before = alive(5)
    assert alive(150) - before < 20


def test_functions_made_in_a_loop_do_not_pile_up_on_a_model() -> None:
    model = Model()
    for _ in range(20):
        liftnn.jit(lambda m: m.w.sum())(model)
    assert model._fast_paths == ()  # a function that is dropped takes its fast path along
    call = liftnn.jit(lambda m: m.w.sum())
    call(model)
    assert len(model._fast_paths) == 1
    liftnn.jit(lambda m: m.w.sum())(model)
    assert len(model._watches) <= 2


def test_a_fast_call_makes_a_constant_number_of_containers() -> None:
    def new_containers(depth: int) -> int:
        model = liftnn.Sequential(*[liftnn.Linear(2, 2, rngs=liftnn.Rngs(0)) for _ in range(depth)])
        call = liftnn.jit(lambda m, x: m(x))
        call(model, X)
        call(model, X)
        gc.collect()
        gc.disable()
        try:
            before = gc.get_count()[0]
            results = [call(model, X) for _ in range(10)]
            return gc.get_count()[0] - before - len(results)
        finally:
            gc.enable()

    assert new_containers(40) <= new_containers(2) + 10


def test_modules_in_any_tree_have_a_fast_path(walks: Callable[[], int]) -> None:
    Pair = collections.namedtuple("Pair", "first second")
    model, other = Model(), Model()
    call = liftnn.jit(lambda tree, *, scale: tree["pair"].first(X) * scale + tree["list"][0](X))
    expected = model(X) * 2.0 + other(X)
    for _ in range(3):
        out = call({"pair": Pair(model, 1.0), "list": [other]}, scale=2.0)
        assert jnp.allclose(out, expected)
    assert walks() == 1


def test_an_argument_that_is_a_tree_of_one_array_is_a_tree() -> None:
    model = Model()
    call = liftnn.jit(lambda m, batch: m(batch["x"]))
    for _ in range(3):
        assert jnp.allclose(call(model, {"x": X}), model(X))
    doubled = liftnn.jit(lambda m, x: m(x[0] if isinstance(x, list) else x) * 2)
    for x in (X, [X], X, [X]):
        assert jnp.allclose(doubled(model, x), model(X) * 2)


@pytest.mark.parametrize(
    "raw", [jax.jit, lambda f: lambda x: jax.vmap(f)(x[None]), lambda f: jax.grad(lambda x: f(x))]
)
@pytest.mark.parametrize("constant", [True, False])
def test_a_fast_call_under_a_raw_transform_loses_no_write(raw: Callable[..., Any], constant: bool) -> None:
    model, call = Model(), liftnn.jit(train)
    for _ in range(2):
        call(model, X)
    before = model.w.value, model.table
    with pytest.raises(liftnn.TraceContextError, match="this code runs under a raw JAX transform"):
        raw(lambda x: call(model, X if constant else x).sum())(X)
    assert (model.w.value, model.table) == before


def test_modules_that_change_places_are_told_apart() -> None:
    one, other = Model(), Model()
    other.w.value = jnp.full(2, 7.0)
    call = liftnn.jit(lambda a, b: a.w.value - b.w.value)
    for a, b in ((one, other), (other, one), (one, one), (X, X), (one, other)):
        if a is X:
            with pytest.raises(AttributeError, match="has no attribute w"):
                call(a, b)
        else:
            assert call(a, b).tolist() == (a.w.value - b.w.value).tolist()
