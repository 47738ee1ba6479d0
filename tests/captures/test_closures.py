"""What a function captures is read and written under every transform as if it had been an argument."""

from __future__ import annotations

import functools
import gc
import types
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.effects import (
    Effect,
    Model,
    draw_randomness,
    read_only,
    set_other_kinds_of_value,
    set_shared_value,
    set_value,
    write_back_and_forth,
)
from tests.same import assert_same, has_tracer
from tests.transform_table import PAIRS, TRANSFORMS, WRITING, some

X = jnp.linspace(-1.0, 1.0, 3)
VALUE_EFFECTS = (
    read_only,
    set_value,
    set_shared_value,
    write_back_and_forth,
    set_other_kinds_of_value,
    draw_randomness,
)
SAMPLE = some([p for p in PAIRS if "export" not in p], "LIFTNN_CLOSURE_PAIRS", 25)
SHARED = Model()


def all_values(model: Model, x: jax.Array) -> Any:
    """Every effect on values, and the output of the model."""
    outputs = [
        effect(model, x) for effect in (set_value, set_shared_value, draw_randomness, write_back_and_forth)
    ]
    return outputs, model(x)


class Trainer:
    """An object of the user's that is no module."""

    label = "class attribute"

    def __init__(self, model: Model, effect: Effect):
        self.model = model
        self.effect = effect
        self.other = {"unused": Model()}

    def step(self, x: jax.Array) -> Any:
        return self.helper(x)

    def helper(self, x: jax.Array) -> Any:
        return self.effect(self.model, x)


def from_a_cell(model: Model, effect: Effect) -> Callable[..., Any]:
    return lambda x: effect(model, x)


def from_a_global(model: Model, effect: Effect) -> Callable[..., Any]:
    scope = {"model": model, "effect": effect, "__name__": "users"}
    exec("def f(x):\n  return effect(model, x)", scope)
    return scope["f"]


def from_a_python_module(model: Model, effect: Effect) -> Callable[..., Any]:
    outside = types.ModuleType("settings")
    outside.model = model  # type: ignore[attr-defined]
    return lambda x: effect(outside.model, x)


def from_a_default(model: Model, effect: Effect) -> Callable[..., Any]:
    def f(x: jax.Array, m: Model = model, *, again: Model = model) -> Any:
        assert m is again
        return effect(m, x)

    return f


def from_a_helper(model: Model, effect: Effect) -> Callable[..., Any]:
    def helper(x: jax.Array) -> Any:
        return effect(model, x)

    return lambda x: helper(x)


def from_a_partial(model: Model, effect: Effect) -> Callable[..., Any]:
    bound = functools.partial(effect, model)
    return lambda x: bound(x)


def from_a_bound_method(model: Model, effect: Effect) -> Callable[..., Any]:
    class Holder(liftnn.Module):
        def apply(self, x: jax.Array) -> Any:
            return effect(self.model, x)

    holder = Holder()
    holder.model = model
    method = holder.apply
    return lambda x: method(x)


def from_a_list(model: Model, effect: Effect) -> Callable[..., Any]:
    models = [Model(), model]
    return lambda x: effect(models[1], x)


def from_a_dict(model: Model, effect: Effect) -> Callable[..., Any]:
    models = {"first": {"second": model}}
    return lambda x: effect(models["first"]["second"], x)


def from_a_trainer(model: Model, effect: Effect) -> Callable[..., Any]:
    return Trainer(model, effect).step


def from_a_class(model: Model, effect: Effect) -> Callable[..., Any]:
    class Settings:
        used = model

    return lambda x: effect(Settings.used, x)


def from_a_decorated_function(model: Model, effect: Effect) -> Callable[..., Any]:
    def decorator(f: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(f)
        def wrapper(x: jax.Array) -> Any:
            return f(x)

        return wrapper

    return decorator(lambda x: effect(model, x))


def from_nowhere_to_be_seen(model: Model, effect: Effect) -> Callable[..., Any]:
    reference = weakref.ref(model)
    return lambda x: effect(reference(), x)  # type: ignore[arg-type]


def from_a_weak_method(model: Model, effect: Effect) -> Callable[..., Any]:
    reference = weakref.WeakMethod(model.train)
    return lambda x: effect(reference().__self__, x)  # type: ignore[union-attr]


WAYS = (
    from_a_cell,
    from_a_global,
    from_a_python_module,
    from_a_default,
    from_a_helper,
    from_a_partial,
    from_a_bound_method,
    from_a_list,
    from_a_dict,
    from_a_trainer,
    from_a_class,
    from_a_decorated_function,
    from_nowhere_to_be_seen,
    from_a_weak_method,
)


def run(name: str, f: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a function of an array under a transform of the table."""
    transformed = TRANSFORMS[name](lambda dummy, x: f(x))
    return lambda x: transformed(Model(), x)


@pytest.mark.thorough
@pytest.mark.part(2)
@pytest.mark.parametrize("effect", VALUE_EFFECTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", WRITING)
def test_a_captured_model_is_used_as_in_the_plain_call(name: str, effect: Effect) -> None:
    model, reference = Model(), Model()
    call = run(name, from_a_cell(model, effect))
    for _ in range(3):
        assert_same((call(X), model), (effect(reference, X), reference))
    assert not has_tracer(model)


@pytest.mark.parametrize("name", ["jit", "grad"])
@pytest.mark.parametrize("way", WAYS, ids=lambda f: f.__name__)
@pytest.mark.sample(32)
def test_every_way_to_capture_acts_like_the_plain_call(way: Any, name: str) -> None:
    model, reference = Model(), Model()
    call = run(name, way(model, all_values))
    for _ in range(3):
        assert_same((call(X), model), (all_values(reference, X), reference))
    assert not has_tracer(model)


@pytest.mark.thorough
@pytest.mark.parametrize("outer, inner", SAMPLE)
def test_what_is_captured_two_deep_acts_like_the_plain_call(outer: str, inner: str) -> None:
    model, reference = Model(), Model()

    def between(x: jax.Array) -> Any:
        model.first.b.value = model.first.b + 1
        return run(inner, lambda y: all_values(model, y))(x), model.first.b + 0

    for _ in range(2):
        out = run(outer, between)(X)
        reference.first.b.value = reference.first.b + 1
        assert_same((out, model), ((all_values(reference, X), reference.first.b + 0), reference))


@pytest.mark.sample(2)
@pytest.mark.parametrize("way", [from_a_cell, from_nowhere_to_be_seen], ids=lambda f: f.__name__)
def test_what_is_captured_three_deep_acts_like_the_plain_call(way: Any) -> None:
    model, reference = Model(), Model()
    inner = way(model, all_values)
    middle = liftnn.jit(
        lambda x: liftnn.vmap(inner, axis_size=1, in_axes=None, out_axes=None, split_rngs=False)(x)
    )
    outer = liftnn.jit(lambda x: run("grad", middle)(x))
    for _ in range(3):
        assert_same((outer(X), model), (all_values(reference, X), reference))
    assert outer.n_traces == 1


@pytest.mark.thorough
@pytest.mark.parametrize("outer", TRANSFORMS)
def test_a_model_that_belongs_to_an_outer_transform_is_captured_by_an_inner_one(outer: str) -> None:
    def f(model: Model, x: jax.Array) -> Any:
        return run("grad", lambda y: all_values(model, y))(x)

    model, reference = Model(), Model()
    call = TRANSFORMS[outer](f)
    for _ in range(2):
        assert_same((call(model, X), model), (all_values(reference, X), reference))


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.sample(6)
def test_a_model_that_is_captured_and_passed_is_one_model(name: str) -> None:
    model, reference = Model(), Model()

    def f(m: Model, x: jax.Array) -> Any:
        m.first.b.value = m.first.b + 1
        model.first.b.value = model.first.b * 3
        return m.first.b + 0, model.first.b + 0

    def plain(m: Model, x: jax.Array) -> Any:
        m.first.b.value = (m.first.b + 1) * 3
        return m.first.b + 0, m.first.b + 0

    for _ in range(2):
        assert_same((TRANSFORMS[name](f)(model, X), model), (plain(reference, X), reference))


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", WRITING)
def test_a_captured_model_may_be_returned_and_attached(name: str) -> None:
    model, holder = Model(), Model()

    def f(m: Model, x: jax.Array) -> Any:
        m.kept = [model.first, model]
        return model, model.layers[0]

    whole, layer = TRANSFORMS[name](f)(holder, X)
    assert whole is model
    assert layer is model.layers[0]
    assert holder.kept[0] is model.first
    assert holder.kept[1] is model


def test_a_new_weight_is_used_by_the_next_call_without_a_retrace():
    model = Model()
    call = liftnn.jit(lambda x: x @ model.first.w)
    for i in range(3):
        model.first.w.value = jnp.full((3, 3), float(i))
        assert call(X).tolist() == (X @ model.first.w.value).tolist()
    assert call.n_traces == 1


CHANGES: dict[str, Callable[[Model], Any]] = {
    "a static value": lambda m: setattr(m, "factor", m.factor + 1),
    "an array leaf": lambda m: setattr(m.first, "scale", m.first.scale * 2),
    "a Variable replaced": lambda m: setattr(m.first, "b", liftnn.Param(m.first.b + 1)),
    "a module replaced": lambda m: setattr(m, "first", Model().second),
    "a list grown": lambda m: m.layers.append(m.layers[0]),
    "a dict changed": lambda m: m.options.update(rate=m.options["rate"] + 1),
    "metadata": lambda m: setattr(m.first.b, "times", m.first.b.times + 1),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_a_captured_module_is_seen_by_the_next_call(change: Callable[[Model], Any]) -> None:
    model = Model()
    model.factor = 1
    model.first.b.set_metadata(times=1)
    model.second.b.set_metadata(times=1)

    def f(x: jax.Array) -> Any:
        x = sum((layer.b.value for layer in model.layers), start=model.first(x) * model.factor)
        return x * model.options["rate"] * model.first.b.get_metadata("times", 1)

    call = liftnn.jit(f)
    for _ in range(2):
        assert_same(call(X), f(X))
    for _ in range(2):
        change(model)
        for _ in range(2):
            assert_same(call(X), f(X))


def test_a_name_bound_anew_is_seen_by_the_next_call():
    scope: dict[str, Any] = {"model": Model(), "__name__": "users"}
    exec("def f(x):\n  return x @ model.first.w", scope)
    call = liftnn.jit(scope["f"])
    call(X)
    scope["model"] = Model()
    scope["model"].first.w.value *= 2
    assert_same(call(X), X @ scope["model"].first.w)
    layer = liftnn.Linear(3, 2, rngs=liftnn.Rngs(0))
    held = [layer]
    by_cell, by_list = liftnn.jit(lambda x: layer(x)), liftnn.jit(lambda x: held[0](x))
    for i in range(3):
        assert_same((by_cell(X), by_list(X)), (layer(X), layer(X)))
        layer = liftnn.Linear(3, 2, rngs=liftnn.Rngs(i + 1))
        held[0] = layer
    assert by_cell.n_traces == by_list.n_traces == 1


def test_two_models_captured_in_turn_by_equal_functions_do_not_mix():
    def make(model: Model) -> Callable[..., Any]:
        return liftnn.jit(lambda x: (x @ model.first.w, set_value(model, x)))

    models = [Model(), Model()]
    models[1].first.w.value *= 2
    references = [Model(), Model()]
    references[1].first.w.value *= 2
    calls = [make(m) for m in models]
    for _ in range(3):
        for call, model, reference in zip(calls, models, references, strict=True):
            assert_same((call(X), model), ((X @ reference.first.w, set_value(reference, X)), reference))


def test_an_exception_leaves_a_captured_model_as_it_was():
    model = Model()

    def fails(x: jax.Array) -> None:
        all_values(model, x)
        raise KeyError("half way")

    for name in TRANSFORMS:
        with pytest.raises(KeyError, match="half way"):
            run(name, fails)(X)
        assert_same(model, Model())
        with pytest.raises(KeyError, match="half way"):
            run("jit", lambda x, name=name: run(name, fails)(x))(X)
        assert_same(model, Model())


@pytest.mark.thorough
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_captured_list_or_dict_that_is_changed_is_an_error_that_leaves_it_as_it_was(name: str) -> None:
    model = Model()

    def grow(x: jax.Array) -> None:
        model.layers.append(model.first)

    def edit(x: jax.Array) -> None:
        model.options["inner"]["new"] = x

    for change in (grow, edit):
        with pytest.raises(
            liftnn.TraceContextError, match="only the values of captured Variables can be changed"
        ):
            run(name, change)(X)
        assert_same(model, Model())


def test_a_captured_stream_of_keys_never_repeats_a_key():
    rngs = liftnn.Rngs(0)
    draw = liftnn.jit(lambda: [jax.random.key_data(rngs()) for _ in range(2)])
    keys = [tuple(map(int, k)) for k in (*draw(), *draw(), jax.random.key_data(rngs()))]
    keys += [tuple(map(int, k)) for k in liftnn.vmap(lambda x: jax.random.key_data(rngs()))(jnp.arange(3))]
    assert len(set(keys)) == len(keys)


def test_a_dead_function_frees_what_it_captured():
    model = Model()
    gone = weakref.ref(model.first.w)
    call = liftnn.jit(lambda x: set_value(model, x))
    call(X), call(X)
    call = model = None
    gc.collect()
    assert gone() is None
