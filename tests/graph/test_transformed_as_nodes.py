"""A transformed function in an attribute is a part of the model, as the plain function would be.

The oracle is the same model with the plain function, which runs the same programs.
"""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn


class Scale(liftnn.Module):
    def __init__(self, w=2.0):
        self.w = liftnn.Param(jnp.asarray(w))

    def __call__(self, x):
        return self.w * x


def plain(f):
    return f


def through_lift(f):
    return liftnn.lift(f, bind=bind_remat)


def bind_remat(plan, pure):
    return jax.checkpoint(pure)


def with_vjp(f):
    made = liftnn.custom_vjp(f)
    made.defvjp(functools.partial(forward, f), backward)
    return made


def forward(f, *args):
    return f(*args), args


def backward(args, cotangent):
    return tuple([7 * jnp.ones_like(x) for x in args])


TRANSFORMS = {
    "jit": liftnn.jit,
    "jit with options": functools.partial(liftnn.jit, donate_argnums=(), inline=True),
    "remat": liftnn.remat,
    "jit of remat": lambda f: liftnn.jit(liftnn.remat(f)),
    "lift": through_lift,
    "trace_once": liftnn.trace_once,
    "vmap": functools.partial(liftnn.vmap, in_axes=None, axis_size=1, out_axes=None),
}


class Model(liftnn.Module):
    """Holds a transformed function in one of several ways."""

    def __init__(self, transform, form, start=0.0):
        self.n = liftnn.Variable(jnp.asarray(start))
        self.step = FORMS[form](self, transform)

    def count(self, x):
        self.n.value = self.n.value + x
        return self.n.value

    def count_by(self, factor, x):
        return self.count(factor * x)

    def count_by_metadata(self, x):
        return self.held.get_metadata("count")(x)


def of_a_module_in_a_closure(model, transform):
    scale = Scale()
    return transform(lambda x: scale(x) + model.n)


def in_a_closure(model, transform):
    count = transform(model.count)
    return lambda x: count(x)


def in_a_default(model, transform):
    count = transform(model.count)
    return lambda x, count=count: count(x)


def in_metadata(model, transform):
    model.held = liftnn.Variable(jnp.zeros(()), count=transform(model.count))
    return model.count_by_metadata


FORMS = {
    "a method": lambda model, transform: transform(model.count),
    "a module": lambda model, transform: transform(Scale()),
    "a partial": lambda model, transform: transform(functools.partial(model.count_by, 2.0)),
    "a partial of a module": lambda model, transform: transform(functools.partial(apply, Scale())),
    "a closure": of_a_module_in_a_closure,
    "in a closure": in_a_closure,
    "in a default": in_a_default,
    "in metadata": in_metadata,
}


def apply(f, x):
    return f(x)


def in_jit(model):
    f = liftnn.jit(lambda model, x: model.step(x))
    return f(model, 1.0), f(model, 2.0), model


def captured(model):
    f = liftnn.jit(lambda x: model.step(x))
    return f(1.0), f(2.0), model


def in_grad(model):
    grads = liftnn.grad(lambda model, x: model.step(x) ** 2, argnums=1)(model, 3.0)
    return grads, model


def in_scan(model):
    def body(model, x):
        return model, model.step(x)

    return liftnn.scan(body)(model, jnp.arange(3.0))


def in_a_clone(model):
    other = liftnn.clone(model)
    return other.step(1.0), other, model


def in_a_deepcopy(model):
    other = copy.deepcopy(model)
    return other.step(1.0), other, model


def merged(model):
    state, graphdef = liftnn.split(model)
    other = liftnn.merge(graphdef, state)
    return other.step(1.0), other, model


def returned(model):
    other = liftnn.jit(lambda model: liftnn.clone(model))(model)
    return other.step(1.0), other, model


def replaced(model):
    other = Model(plain, "a method", 5.0)

    @liftnn.jit
    def exchange(model, other):
        model.step, other.step = other.step, model.step

    exchange(model, other)
    return model.step(1.0), other.step(1.0), model, other


def changed_outside(model):
    f = liftnn.jit(lambda model, x: model.step(x))
    first = f(model, 1.0)
    for _, variable in liftnn.iter_graph(model):
        if isinstance(variable, liftnn.Variable):
            variable.value = variable.value + 1.0
    return first, f(model, 1.0), model


PROGRAMS = [
    in_jit,
    captured,
    in_grad,
    in_scan,
    in_a_clone,
    in_a_deepcopy,
    merged,
    returned,
    replaced,
    changed_outside,
]


def numbers(result):
    """The numbers in a result: of arrays, and of the Variables of modules in order of their paths."""
    found = []
    for x in jax.tree.leaves(result, is_leaf=lambda x: isinstance(x, liftnn.Module)):
        if isinstance(x, liftnn.Module):
            found += [float(v.value) for _, v in liftnn.iter_graph(x) if isinstance(v, liftnn.Variable)]
        else:
            found += np.asarray(x).ravel().tolist()
    return found


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.sample(3)
def test_a_program_does_what_it_does_with_the_plain_function(transform, form, program):
    expected = numbers(program(Model(plain, form)))
    np.testing.assert_allclose(numbers(program(Model(TRANSFORMS[transform], form))), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_model_that_is_made_inside_a_transform_keeps_its_function(transform, form):
    make = liftnn.jit(lambda start: Model(TRANSFORMS[transform], form, start))
    expected = Model(plain, form, 3.0)
    made = make(3.0)
    np.testing.assert_allclose(made.step(2.0), expected.step(2.0))
    assert numbers(made) == numbers(expected)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_models_that_vmap_makes_have_functions_of_their_own(transform):
    models = liftnn.vmap(lambda start: Model(TRANSFORMS[transform], "a method", start))(jnp.arange(3.0))
    out = liftnn.vmap(lambda model, x: model.step(x), in_axes=(0, None))(models, 2.0)
    np.testing.assert_array_equal(out, [2.0, 3.0, 4.0])
    np.testing.assert_array_equal(models.n.value, [2.0, 3.0, 4.0])


def test_parameters_of_a_transformed_layer_are_trained():
    class Net(liftnn.Module):
        def __init__(self):
            self.first = liftnn.remat(Scale(3.0))
            self.second = Scale(5.0)

        def __call__(self, x):
            return self.second(self.first(x))

    model = Net()
    paths = set(liftnn.state(model, liftnn.Param).flat())
    assert paths == {("first", "__wrapped__", "w"), ("second", "w")}
    grads = liftnn.grad(lambda model: model(2.0))(model)
    assert float(grads["first"]["__wrapped__"]["w"].value) == 10.0
    assert float(grads["second"]["w"].value) == 6.0


def test_a_copy_repeats_its_own_step():
    class Trainer(liftnn.Module):
        def __init__(self):
            self.n = liftnn.Variable(jnp.asarray(0.0))
            self.run = liftnn.repeat(self.step, 3)

        def step(self, x):
            self.n.value = self.n.value + x
            return self.n.value

    model = Trainer()
    other = liftnn.clone(model)
    np.testing.assert_array_equal(other.run(jnp.arange(3.0)), [0.0, 1.0, 3.0])
    assert (float(model.n.value), float(other.n.value)) == (0.0, 3.0)


class Powers(Scale):
    def power(self, x, n):
        return (self.w * x) ** n * len(range(n))


def repeated(f, **options):
    return liftnn.repeat(f, 2, **options)


@pytest.mark.parametrize("transform", [liftnn.jit, liftnn.remat, repeated])
def test_a_copy_has_the_options_that_came_from_an_iterator(transform):
    def stored(static_argnames):
        model = Powers()
        model.f = transform(model.power, static_argnames=static_argnames)
        return liftnn.clone(model).f(jnp.array([3.0, 4.0]), 2)

    np.testing.assert_array_equal(stored(iter(("n",))), stored(("n",)))


def test_a_copy_has_the_gradients_by_positions_from_an_iterator():
    def stored(argnums):
        model = Scale()
        model.f = liftnn.grad(model.__call__, argnums=argnums)
        of_model, of_x = liftnn.clone(model).f(3.0)
        return float(of_model["w"]), float(of_x)

    assert stored(iter((0, 1))) == stored((0, 1)) == (3.0, 2.0)


def test_a_decorator_has_options_from_an_iterator_for_each_function():
    by_n = liftnn.jit(static_argnames=iter(("n",)))
    for f in (lambda x, n: x * len(range(n)), lambda x, n: x + len(range(n))):
        assert float(by_n(f)(3.0, n=2)) == f(3.0, 2)


def test_a_layer_that_is_held_twice_is_one():
    class Net(liftnn.Module):
        def __init__(self):
            self.layer = Scale(3.0)
            self.fast = liftnn.jit(self.layer)

    model = liftnn.clone(Net())
    model.layer.w.value = jnp.asarray(4.0)
    assert model.fast.__wrapped__ is model.layer
    assert float(model.fast(1.0)) == 4.0


# --- custom rules


class Ruled(liftnn.Module):
    def __init__(self, define):
        self.w = liftnn.Param(jnp.asarray(3.0))
        self.f = define(self)

    def product(self, x):
        return self.w * x

    def forward(self, x):
        return self.w * x, self.w.value

    def backward(self, w, cotangent):
        return (w * 100.0 * cotangent,)

    def rule(self, primals, tangents):
        return self.product(*primals), self.w * 100.0 * tangents[0]


def vjp_of_methods(model):
    f = liftnn.custom_vjp(lambda x: model.product(x))
    f.defvjp(model.forward, model.backward)
    return f


def jvp_of_methods(model):
    f = liftnn.custom_jvp(lambda x: model.product(x))
    f.defjvp(model.rule)
    return f


def jvps_of_methods(model):
    f = liftnn.custom_jvp(lambda x: model.product(x))
    f.defjvps(lambda tangent, out, x: model.w * 100.0 * tangent)
    return f


@pytest.mark.parametrize("define", [vjp_of_methods, jvp_of_methods, jvps_of_methods])
def test_a_copy_has_the_custom_rule_with_its_own_weights(define):
    model = Ruled(define)
    other = liftnn.clone(model)
    other.w.value = jnp.asarray(5.0)
    for m, w in ((model, 3.0), (other, 5.0)):
        assert float(m.f(2.0)) == 2 * w
        assert float(jax.grad(lambda x, m=m: m.f(x))(2.0)) == 100 * w
        assert float(liftnn.jit(liftnn.grad(lambda m, x: m.f(x), argnums=1))(m, 2.0)) == 100 * w


# --- what it costs, and what it keeps alive


class Traced(liftnn.Module):
    traces = 0

    def __init__(self, form, w=3.0):
        self.w = liftnn.Param(jnp.asarray(w))
        self.f = liftnn.jit(self.product if form == "a method" else functools.partial(self.product_by, 2.0))

    def product(self, x):
        Traced.traces += 1
        return self.w * x

    def product_by(self, factor, x):
        return factor * self.product(x)


@pytest.mark.parametrize("form", ["a method", "a partial"])
def test_copies_inside_eager_transforms_trace_nothing_again(form):
    models = [Traced(form), Traced(form)]
    grad = liftnn.grad(lambda model, x: model.f(x))
    for model in models:
        grad(model, 2.0)
        model.f(2.0)
        liftnn.clone(model).f(2.0)
    Traced.traces = 0
    for model in models:
        grad(model, 2.0)
        model.f(2.0)
        liftnn.clone(model).f(2.0)
    assert Traced.traces == 0


@pytest.mark.parametrize("form", ["a method", "a partial"])
def test_models_of_a_class_share_the_traces_of_their_methods(form):
    gc.collect()  # models of other tests
    Traced.traces = 0
    models = [Traced(form, float(i)) for i in range(3)]
    out = [float(m.f(2.0)) for m in models]
    assert out == ([0.0, 2.0, 4.0] if form == "a method" else [0.0, 4.0, 8.0])
    assert Traced.traces == 1


@pytest.mark.parametrize("form", ["a method", "a partial"])
def test_what_is_compiled_goes_with_the_last_model_that_uses_it(form):
    model = Traced(form)
    model.f(2.0)
    compiled = weakref.ref(next(iter(model.f._lifted._bound.values()))[1])
    del model
    gc.collect()
    assert compiled() is None


def test_options_are_part_of_the_structure():
    f = liftnn.jit(lambda model, x: model.step(x))

    def make(axis):
        return Model(functools.partial(liftnn.vmap, in_axes=0, out_axes=axis), "a module")

    assert liftnn.split(make(0))[-1] == liftnn.split(make(0))[-1]
    assert liftnn.split(make(0))[-1] != liftnn.split(make(1))[-1]
    x = jnp.arange(6.0).reshape(2, 3)
    assert f(make(0), x).shape == (2, 3)
    assert f(make(1), x).shape == (3, 2)


def test_a_model_is_freed_although_a_function_has_been_traced_with_it():
    f = liftnn.jit(lambda model, x: model.step(x))
    model = Model(liftnn.jit, "a method")
    f(model, 1.0)
    model.step(1.0)
    held = weakref.ref(model.n)
    del model
    gc.collect()
    assert held() is None


# --- pickle


def derivative(f):
    return liftnn.grad(f, argnums=1)


@pytest.mark.parametrize("transform", [liftnn.jit, liftnn.remat, derivative, through_lift, with_vjp])
def test_a_pickled_model_has_a_function_of_its_own(transform):
    model = Scaled(transform)
    other = pickle.loads(pickle.dumps(model))
    other.scale.w.value = jnp.asarray(5.0)
    assert float(model.f(1.0)) == 2.0
    assert float(other.f(1.0)) == 5.0
    assert pickle.loads(pickle.dumps(liftnn.split(model)[-1])) == liftnn.split(model)[-1]


class Scaled(liftnn.Module):
    def __init__(self, transform):
        self.scale = Scale()
        self.f = transform(self.product)

    def product(self, x):
        return self.scale(x)
