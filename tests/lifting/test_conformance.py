"""Every transform, and every ordered pair of transforms, acts on modules like the plain call."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.alike import find_difference
from tests.effects import EFFECTS, Effect, Model, everything
from tests.same import assert_same, has_tracer
from tests.transform_table import FIRST, IMPOSSIBLE, LOOPS, PAIRS, TRANSFORMS, some

X = jnp.linspace(-1.0, 1.0, 3)
ROWS = [pytest.param(name, marks=() if name in FIRST else pytest.mark.thorough) for name in TRANSFORMS]
TRIPLES = some(
    [x for x in itertools.product(TRANSFORMS, repeat=3) if not IMPOSSIBLE & {x[:2], x[1:], (x[0], x[2])}],
    "LIFTNN_TRIPLES",
    10,
)


def assert_acts_like_the_plain_call(transformed: Effect, effect: Effect, calls: int = 2) -> None:
    model, reference = Model(), Model()
    for _ in range(calls):
        out, expected = transformed(model, X), effect(reference, X)
        assert_same((out, model), (expected, reference))
    assert not has_tracer(model)


@pytest.mark.sample(12)
@pytest.mark.part(2)
@pytest.mark.parametrize("effect", EFFECTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ROWS)
def test_a_transform_acts_like_the_plain_call(name: str, effect: Effect) -> None:
    repeatable = effect.__name__ not in ("delete_attribute", "edit_dicts")
    assert_acts_like_the_plain_call(TRANSFORMS[name](effect), effect, calls=2 if repeatable else 1)


@pytest.mark.thorough
@pytest.mark.parametrize("effect", EFFECTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_acts_like_the_python_loop_or_says_what_structure_changed(name: str, effect: Effect) -> None:
    model, before, after = Model(), Model(), Model()
    steps = 1 if effect.__name__ in ("delete_attribute", "edit_dicts") else 3
    for _ in range(steps - 1):
        effect(before, X)
    for _ in range(steps):
        effect(after, X)
    call = LOOPS[name](effect, steps)
    first = (
        Model() if "while" in name else before
    )  # elsewhere the first step may change what the others leave
    if (steps == 1 and "while" not in name) or find_difference(after, first, values=False) is None:
        assert call(model, X) is model
        assert_same(model, after)
    else:
        with pytest.raises(liftnn.StructureError, match="changes structure, shapes or dtypes"):
            call(model, X)
        assert_same(model, Model())
    assert not has_tracer(model)


def first_lane(f: Any) -> Any:
    """The function under `jax.vmap`, with two lanes of which the first one gets the argument as it is."""
    return lambda state, x: jax.tree.map(lambda a: a[0], jax.vmap(f, (None, 0))(state, jnp.stack([x, -x])))


def beside_its_gradient(f: Any) -> Any:
    """The function as what `jax.grad` returns beside the gradient."""

    def loss(x: jax.Array, state: Any) -> Any:
        out, state = f(state, x)
        return out.sum(), (out, state)

    return lambda state, x: jax.grad(loss, has_aux=True)(x, state)[1]


def in_one_step(f: Any) -> Any:
    """The function as the only step of a `jax.lax.scan`."""

    def step(carry: Any, x: jax.Array) -> Any:
        return carry, f(carry, x)

    return lambda state, x: jax.tree.map(lambda a: a[0], jax.lax.scan(step, state, x[None])[1])


RAW = {
    "jit": jax.jit,
    "vmap": first_lane,
    "grad": beside_its_gradient,
    "scan": in_one_step,
    "checkpoint": jax.checkpoint,
}


@pytest.mark.thorough
@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_in_a_raw_transform_of_split_state_acts_like_the_plain_call(name: str, raw: str) -> None:
    if (raw, name) == ("vmap", "export"):
        pytest.skip("JAX has no batching rule for what was exported")

    def effect(model: Model, x: jax.Array) -> jax.Array:
        model.first.b.value = model.first.b + x
        model.first.scale = model.first.scale * 2
        return model(x) + jax.random.normal(model.rngs.dropout(), (3,))

    def pure(state: Any, x: jax.Array) -> Any:
        merged = liftnn.merge(graphdef, state)
        out = TRANSFORMS[name](effect)(merged, x)
        return out, liftnn.state(merged)

    model, reference = Model(), Model()
    state, graphdef = liftnn.split(model)
    out, state = RAW[raw](pure)(state, X)
    liftnn.update(model, state)
    assert_same((out, model), (effect(reference, X), reference))


@pytest.mark.thorough
@pytest.mark.part(3)
@pytest.mark.parametrize("outer, inner", PAIRS)
def test_nested_transforms_act_like_the_plain_call(outer: str, inner: str) -> None:
    transformed = TRANSFORMS[outer](TRANSFORMS[inner](everything))
    assert_acts_like_the_plain_call(transformed, everything, calls=1)


@pytest.mark.thorough
@pytest.mark.part(3)
@pytest.mark.parametrize("outer, inner", PAIRS)
def test_an_exception_under_nested_transforms_leaves_the_model_as_it_was(outer: str, inner: str) -> None:
    def fails(model: Model, x: jax.Array) -> None:
        everything(model, x)
        raise KeyError("half way")

    model = Model()
    kept = list(model.layers), dict(model.options), vars(model).copy()
    with pytest.raises(KeyError, match="half way"):
        TRANSFORMS[outer](TRANSFORMS[inner](fails))(model, X)
    assert_same(model, Model())
    assert (list(model.layers), dict(model.options), vars(model)) == kept


@pytest.mark.thorough
@pytest.mark.parametrize("first, second, third", TRIPLES)
def test_three_nested_transforms_act_like_the_plain_call(first: str, second: str, third: str) -> None:
    transformed = TRANSFORMS[first](TRANSFORMS[second](TRANSFORMS[third](everything)))
    assert_acts_like_the_plain_call(transformed, everything, calls=1)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.sample(4)
def test_a_returned_input_is_the_input(name: str) -> None:
    model = Model()
    call = TRANSFORMS[name](lambda m, x: (m, m.layers[0], m.first.w, {"again": m}))
    whole, block, w, again = call(model, X)
    assert whole is model
    assert block is model.layers[0]
    assert w is model.first.w
    assert again["again"] is model


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_written_keeps_its_identity(name: str) -> None:
    model = Model()
    before = [model.layers, model.options, model.first, model.first.b, model.first.w, *model.layers]

    def write(m: Model, x: jax.Array) -> None:
        m.first.b.value = m.first.b + 1
        m.first.w.axis = "changed"
        m.layers.append(m.first)
        m.options["new"] = 1
        m.note = "new"

    TRANSFORMS[name](write)(model, X)
    after = [model.layers, model.options, model.first, model.first.b, model.first.w, *model.layers[:2]]
    assert all(a is b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_same_object_passed_twice_is_one_object_inside(name: str) -> None:
    model = Model()

    def check(m: Model, x: jax.Array) -> None:
        again = m.options["inner"]["block"]
        assert again is m.layers[0]
        assert m.owner is m
        assert m.second.w is m.first.w

    TRANSFORMS[name](check)(model, X)


@pytest.mark.thorough
@pytest.mark.parametrize("name", TRANSFORMS)
def test_no_tracer_leaks(name: str) -> None:
    def some(
        model: Model, x: jax.Array
    ) -> Any:  # JAX looks at all of memory for each trace: seconds for `everything`
        model.made = liftnn.Param(model.first.w @ x)
        model.layers.append(model.first)
        model.first.b.value = model.first.b + jax.random.normal(model.rngs.dropout(), (3,))
        return x * model.first.b, model.layers[0]

    with jax.checking_leaks():
        TRANSFORMS[name](some)(Model(), X)


@pytest.mark.parametrize("name", ["jit", "donating jit"])
def test_equal_structure_is_traced_once(name: str) -> None:
    traces = 0

    def f(model: Model, x: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return model(x)

    call = TRANSFORMS[name](f)
    for _ in range(3):
        call(Model(), X)
    assert traces == 1
