"""Captured modules that the search misses, and those that cannot be found at all."""

from __future__ import annotations

import functools
import gc
import itertools
import warnings
import weakref

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.captures.captures import both, k
from tests.user_modules import Affine


def test_a_module_from_an_iterator_is_warned_of_once():
    models = itertools.cycle([Affine(2.0, size=1)])

    @liftnn.jit
    def f(x):
        return next(models)(x)

    message = (
        r"^liftnn.jit of .*f uses an Affine that it reaches in a way that liftnn cannot follow, such as "
    )
    with pytest.warns(liftnn.CaptureWarning, match=message) as caught:
        f(jnp.ones(3))
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (3, 5):
            f(jnp.ones(size))


MODELS = [Affine(2.0), Affine(3.0)]
IN_TURN = itertools.cycle(MODELS)


def test_a_module_that_a_global_holds_as_well_is_warned_of():
    def f(x):
        return next(IN_TURN)(x)

    with pytest.warns(liftnn.CaptureWarning, match="an Affine"):
        liftnn.jit(f)(jnp.ones(3))


def test_a_module_with_its_variables_is_warned_of_as_one():
    models = itertools.cycle([Affine(2.0)])

    @liftnn.jit
    def f(x):
        m = next(models)
        return x * m.w

    with pytest.warns(liftnn.CaptureWarning, match="an Affine") as caught:
        f(jnp.ones(3))
    assert len(caught) == 1


def test_the_function_of_a_loop_is_named():
    models = itertools.cycle([Affine(2.0)])

    def step(i, x):
        return next(models)(x)

    with pytest.warns(liftnn.CaptureWarning, match=r"^liftnn.fori_loop of \S*step uses an Affine"):
        liftnn.fori_loop(0, 2, step, jnp.ones(3))


def test_a_callable_of_an_extension_leads_to_the_function_that_it_calls():
    """As a wrapper of the package wrapt, `f.__call__` is an object without attributes that a search could read."""
    model = Affine(2.0)

    def f(x):
        return model(x)

    step, x = liftnn.jit(f.__call__), jnp.ones(3)
    np.testing.assert_array_equal(step(x), model(x))
    model.w.value = 7 * model.w.value
    np.testing.assert_array_equal(step(x), model(x))
    model = Affine(5.0)
    np.testing.assert_array_equal(step(x), model(x))
    assert step.n_traces == 1


@pytest.mark.parametrize("transform", [liftnn.vmap, liftnn.grad, liftnn.remat], ids=["vmap", "grad", "remat"])
def test_an_eager_function_takes_what_the_iterator_gives_and_does_not_warn(transform):
    first, second = Affine(2.0, size=()), Affine(3.0, size=())
    current = [first]
    models = iter(lambda: current[0], None)

    def f(x):
        return next(models)(x) * x

    call = transform(f)
    x = jnp.ones(2) if transform is liftnn.vmap else jnp.float32(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = call(x)
        current[0] = second
        two = call(x)
    assert one.tolist() != two.tolist()


def test_a_missed_module_that_was_replaced_is_no_longer_an_input():
    part = type("Part", (), {})()
    part.model = first = k(2)
    call = liftnn.jit(lambda x: x * both(getattr(part, "mo" + "del")))
    assert float(call(1.0)) == float(both(first))
    part.model = k(5)
    assert float(call(1.0)) == float(both(part.model))
    alive = weakref.ref(first)
    del first
    gc.collect()
    assert alive() is None


def test_a_missed_module_that_comes_back_is_seen():
    part, one, two = type("Part", (), {})(), k(2), k(3)
    call = liftnn.jit(lambda x: x * both(getattr(part, "mo" + "del")))
    for model in (one, two, one, one, two, two, one):
        part.model = model
        model.v[...] += 1.0
        assert float(call(1.0)) == float(both(model))


def test_a_variable_of_a_missed_module_is_followed_through_the_module():
    part = type("Part", (), {})()
    part.model = Affine(2.0)
    call = liftnn.jit(lambda x: x * vars(part)["mo" + "del"].w)
    call_of_value = liftnn.jit(lambda x: x * value_of(part))
    for model in (Affine(2.0), Affine(3.0), Affine(4.0)):
        part.model = model
        for _ in range(2):
            expected = jnp.ones(3) * model.w[...]
            assert call(jnp.ones(3)).tolist() == call_of_value(jnp.ones(3)).tolist() == expected.tolist()
        model.w = liftnn.Param(jnp.full(3, 7.0))
        assert call(jnp.ones(3)).tolist() == call_of_value(jnp.ones(3)).tolist() == [7.0] * 3


def value_of(part):
    """Reads a Variable without a variable that holds its module."""
    return getattr(part, "mo" + "del").w


class Chosen:
    """Its attribute of a computed name is a module."""

    def __init__(self, **models):
        vars(self).update(models)
        self.name = next(iter(models))

    @property
    def now(self):
        return getattr(self, self.name)


READS = {
    "itself": lambda chosen: chosen.now.v.value * chosen.now.k,
    "its part": lambda chosen: chosen.now.inner.v.value * chosen.now.k,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_the_attributes_of_a_module_that_led_to_a_missed_variable_are_compared(read):
    chosen = Chosen(first=k(2), second=k(4))
    chosen.first.inner = k(3)
    call = liftnn.jit(lambda x: x * read(chosen))
    for number, inner in [(2, 3), (5, 3), (5, 7), (2, 8)]:
        chosen.first.k = number
        chosen.first.inner.v.value = jnp.float32(inner)
        for _ in range(2):
            assert float(call(1.0)) == float(read(chosen))


NESTS = {
    "jit of jit": lambda f: liftnn.jit(liftnn.jit(f)),
    "jit in jit": lambda f: in_a_function(liftnn.jit, liftnn.jit(f)),
    "jit in grad": lambda f: lambda x: liftnn.grad(lambda y: y * inner_of(f)(x))(1.0),
    "jit in grad in jit": lambda f: liftnn.jit(lambda x: liftnn.grad(lambda y: y * inner_of(f)(x))(1.0)),
    "jit in scan": lambda f: lambda x: liftnn.scan(lambda _, x: (inner_of(f)(x), None))(x, x[None])[0],
}


def in_a_function(transform, f):
    return transform(lambda x: f(x))


@functools.cache
def inner_of(f):
    return liftnn.jit(f)


@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")
@pytest.mark.parametrize("is_used_before", [False, True])
@pytest.mark.parametrize("nest", NESTS)
def test_a_missed_module_of_a_nested_function_is_compared(nest, is_used_before):
    read = READS["its part"] if is_used_before else lambda chosen: both(chosen.now)
    chosen = Chosen(first=k(2), second=k(4))
    chosen.first.inner = k(3)

    def f(x):
        return x * read(chosen)

    call = NESTS[nest](f)
    if is_used_before:
        inner_of(f)(jnp.float32(1.0))
    for number, inner in [(2, 3), (5, 3), (5, 7)]:
        chosen.first.k = number
        chosen.first.inner.v.value = jnp.float32(inner)
        assert float(call(jnp.float32(1.0))) == float(read(chosen))
    chosen.first = k(9)
    chosen.first.inner = k(2)
    assert float(call(jnp.float32(1.0))) == float(read(chosen))


class Inner(liftnn.Module):
    """Its method uses a global object that holds a module."""

    def scaled(self, x):
        return x * both(GLOBAL.model)


class Outer(liftnn.Module):
    def __init__(self):
        self.parts = [Inner()]

    def __call__(self, x):
        return self.parts[0].scaled(x)


GLOBAL = type("Global", (), {})()


@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")
@pytest.mark.parametrize("is_passed", [True, False])
def test_a_module_that_a_method_of_a_passed_module_uses_is_followed(is_passed):
    model = Outer()
    call = liftnn.jit(lambda m, x: m(x)) if is_passed else liftnn.jit(lambda x: model(x))
    for value in (2, 3, 4, 2):
        GLOBAL.model = k(value)
        for _ in range(2):
            assert float(call(model, 1.0) if is_passed else call(1.0)) == float(both(GLOBAL.model))


def test_a_module_is_not_followed_through_the_fast_paths_of_another():
    passed, models = Affine(1.0), itertools.cycle([Affine(2.0)])
    for call in [liftnn.jit(lambda m, x: m(x) + next(models)(x)) for _ in range(3)]:
        with pytest.warns(liftnn.CaptureWarning, match="an Affine"):
            call(passed, jnp.ones(3))
        call(passed, jnp.ones(3))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["layer", "variable", "in a list", "in a module"])
def test_a_captured_view_of_a_layer_is_followed_to_the_stack(kind):
    stacks = [
        liftnn.Stack(2, lambda rngs: liftnn.Linear(3, 3, rngs=rngs), rngs=liftnn.Rngs(i)) for i in range(2)
    ]
    held = [None]

    def scaled(x):
        return x @ read(kind, held[0]).value

    call = liftnn.jit(scaled)
    for stack in (stacks[0], stacks[0], stacks[1], stacks[0]):
        held[0] = view_of(kind, stack[1])
        for _ in range(2):
            expected = jnp.ones((1, 3)) @ stack.layers.kernel[1]
            np.testing.assert_array_equal(call(jnp.ones((1, 3))), expected)
            stack.layers.kernel[...] += 1.0


def view_of(kind, layer):
    """Returns what a function captures."""
    match kind:
        case "variable":
            return layer.kernel
        case "in a list":
            return [layer]
        case "in a module":
            holder = liftnn.Module()
            holder.layer = layer
            return holder
    return layer


def read(kind, captured):
    """Returns the kernel of a captured layer."""
    match kind:
        case "variable":
            return captured
        case "in a list":
            return captured[0].kernel
        case "in a module":
            return captured.layer.kernel
    return captured.kernel


@pytest.mark.filterwarnings("error")
def test_a_captured_view_is_written_in_a_nest_of_transforms():
    stack = liftnn.Stack(2, lambda rngs: liftnn.Linear(3, 3, rngs=rngs), rngs=liftnn.Rngs(0))
    layer = stack[1]
    before = np.asarray(stack.layers.bias.value)

    @liftnn.jit
    def step(x):
        def loss(x):
            layer.bias[...] += 1.0
            return (layer(x) ** 2).sum()

        return liftnn.grad(loss)(x)

    for i in range(1, 4):
        step(jnp.ones((1, 3)))
        np.testing.assert_array_equal(stack.layers.bias.value, before + np.array([[0.0], [float(i)]]))


@pytest.mark.parametrize("nest", ["jit of jit", "jit in jit", "jit in grad"])
def test_a_missed_module_that_is_passed_as_well_may_be_replaced(nest):
    model, other = k(2), k(3)
    chosen = Chosen(first=model)
    call = NESTS_OF_TWO[nest](lambda m, x: x * both(chosen.now) + m.v.value)
    for held, passed in [(model, model), (other, model), (other, other), (model, other)]:
        chosen.first = held
        assert float(call(passed, jnp.float32(1.0))) == float(both(held) + passed.v.value)
    model.k = 9
    assert float(call(model, jnp.float32(1.0))) == float(both(model) + model.v.value)


NESTS_OF_TWO = {
    "jit of jit": lambda f: liftnn.jit(liftnn.jit(f)),
    "jit in jit": lambda f: (lambda inner: liftnn.jit(lambda m, x: inner(m, x)))(liftnn.jit(f)),
    "jit in grad": lambda f: (
        lambda inner: lambda m, x: liftnn.grad(lambda y: y * inner(m, x))(jnp.float32(1.0))
    )(liftnn.jit(f)),
}


def test_a_missed_module_that_is_passed_as_well_must_keep_its_structure():
    chosen = Chosen(first=k(2))

    @liftnn.jit
    def f(m):
        m.k += 1
        return chosen.now.v.value * chosen.now.k

    with pytest.raises(
        liftnn.TraceContextError, match=r"was changed in liftnn\.jit\. The function also captures it"
    ):
        f(chosen.first)
    assert chosen.first.k == 2
