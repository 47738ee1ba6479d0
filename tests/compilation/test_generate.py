"""The generated code of a fast path does what the same calls do in loops, whatever was changed in between."""

from __future__ import annotations

import collections
import functools
import time
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn._src.compilation import source
from liftnn._src.compilation.source import MISS, MOST
from tests.same import assert_same, has_tracer
from tests.strategies import arrays, build, mutate, recipes
from tests.user_modules import Affine, Holder

pytestmark = [
    pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning"),
    pytest.mark.filterwarnings("ignore:Some donated buffers were not usable"),
]

Two = collections.namedtuple("Two", "first second")
X = jnp.arange(3.0)


def path_of(f):
    """The newest fast path of a compiled function; None if there is none."""
    found = [r() for paths in f._fast_paths.by_module.values() for r in paths]
    found = [p for p in found if p is not None]
    return found[-1] if found else None


def answer(call, args, kwargs):
    """What a call gives: an output, a miss, or an error."""
    try:
        return call(args, kwargs)
    except Exception as error:
        return type(error), str(error)


def compare(generated, looped, one, other):
    """Both ways miss, or both give the same and do the same.

    Args:
      generated: The fast path whose generated code is called.
      looped: That of the other world, which is called in loops.
      one: The arguments of the first world.
      other: Those of the second one.

    Returns:
      Whether they were hits.
    """
    first, second = answer(generated.function, *one), answer(looped.call, *other)
    assert (first is MISS) == (second is MISS)
    if first is MISS:
        return False
    assert_same((first, objects_of(one)), (second, objects_of(other)))
    return True


def is_object(x):
    return isinstance(x, (liftnn.Module, liftnn.Variable))


def objects_of(args):
    """The modules and Variables among arguments; arrays may have been donated."""
    return [x for x in jax.tree.leaves(args, is_leaf=is_object) if is_object(x)]


# --- argument forms and options


def step(*args, **kwargs):
    """Writes to every module that it is given, and returns something of all arguments."""
    total = jnp.zeros(())
    leaves = jax.tree.leaves(
        (args, kwargs), is_leaf=lambda x: isinstance(x, (liftnn.Module, liftnn.Variable))
    )
    for x in leaves:
        if isinstance(x, Affine):
            x.calls.value = x.calls + 1
            x.b.value = x.b + x.w
            total = total + x.b.sum()
        elif isinstance(x, liftnn.Variable):
            x.value = x + 1
            total = total + jnp.sum(x.value)
        elif not isinstance(x, liftnn.Module):
            total = total + jnp.sum(jnp.asarray(x, jnp.float32))
    return total, [total * 2]


def grown(model):
    """A model with arrays as attributes, in a dict and in a list."""
    model.array = jnp.ones(3)
    model.options = {"rate": 0.5, "array": jnp.ones(2), "deep": [1, jnp.ones(1)]}
    return model


def set_arrays(model, x):
    model.array = model.array + x
    model.options["array"] = model.options["array"] * 2
    model.options["deep"][1] = model.options["deep"][1] + 1
    return model.array.sum()


def write_some(model, x):
    for i, v in enumerate(model.many):
        if i % 3 == 0:
            v.value = v + x
    return sum(v.value for v in model.many)


def replace_variable(model, x):
    model.w = liftnn.Param(model.w + x)
    return model.w.value


def return_module(model, x):
    model.calls.value = model.calls + 1
    return model, x * 2, "text"


def return_nothing(model, x):
    model.b.value = model.b + x


def only_read(model, x):
    return x * model.w


def pytree_value(model, x):
    model.b.value = {"a": x, "b": (x + 1, None)}
    return x


def many():
    return Holder(many=[liftnn.Param(jnp.float32(i)) for i in range(MOST + 36)], w=liftnn.Param(jnp.ones(3)))


def few():
    return Holder(many=[liftnn.Param(jnp.float32(i)) for i in range(MOST)])


FORMS = {
    "module": (step, {}, lambda: ((Affine(), X), {})),
    "no array": (step, {}, lambda: ((Affine(),), {})),
    "array first": (step, {}, lambda: ((X, Affine()), {})),
    "arrays alone": (step, {}, lambda: ((X, {"a": X, "b": [X]}), {"k": X})),
    "Variable": (step, {}, lambda: ((liftnn.Param(X), X), {})),
    "two modules": (step, {}, lambda: ((Affine(), Affine(2.0), X), {})),
    "tuple": (step, {}, lambda: (((Affine(), X, (Affine(2.0),)), X), {})),
    "list": (step, {}, lambda: (([Affine(), Affine(2.0)], [X]), {})),
    "dict": (step, {}, lambda: (({"b": Affine(), "a": X, "c": {"d": Affine(2.0)}},), {})),
    "namedtuple": (step, {}, lambda: ((Two(Affine(), X), X), {})),
    "ordered dict": (step, {}, lambda: ((collections.OrderedDict(b=Affine(), a=X), X), {})),
    "keywords": (step, {}, lambda: ((), {"z": Affine(), "a": X, "m": [Affine(2.0)]})),
    "numbers": (step, {}, lambda: ((Affine(), 1.0, 2, True, np.float32(3)), {})),
    "numpy": (step, {}, lambda: ((Affine(), np.ones(3, np.float32)), {})),
    "None": (step, {}, lambda: ((Affine(), None, (None, X)), {})),
    "static": (step, {"static_argnums": 1}, lambda: ((Affine(), 3, X), {})),
    "static by name": (step, {"static_argnames": "k"}, lambda: ((Affine(), X), {"k": 4})),
    "donated": (step, {"donate_argnums": 0}, lambda: ((Affine(), X), {})),
    "donated array": (step, {"donate_argnums": 1}, lambda: ((Affine(), jnp.arange(3.0)), {})),
    "donated both": (step, {"donate_argnums": (0, 1)}, lambda: ((Affine(), jnp.arange(3.0)), {})),
    "donated what is written": (step, {"donate_written": True}, lambda: ((Affine(), X), {})),
    "arrays as attributes": (set_arrays, {}, lambda: ((grown(Affine()), X), {})),
    "more Variables than are written out": (write_some, {}, lambda: ((many(), jnp.float32(2)), {})),
    "as many Variables as are written out": (write_some, {}, lambda: ((few(), jnp.float32(2)), {})),
    "more than are written out, donated": (
        write_some,
        {"donate_argnums": 0},
        lambda: ((many(), jnp.float32(2)), {}),
    ),
    "more than are written out, donated what is written": (
        write_some,
        {"donate_written": True},
        lambda: ((many(), jnp.float32(2)), {}),
    ),
    "replaced Variable": (replace_variable, {}, lambda: ((Affine(), X), {})),
    "returned module": (return_module, {}, lambda: ((Affine(), X), {})),
    "no output": (return_nothing, {}, lambda: ((Affine(), X), {})),
    "read only": (only_read, {}, lambda: ((Affine(), X), {})),
    "value that is a tree": (pytree_value, {}, lambda: ((Affine(), X), {})),
}


@functools.cache
def two_devices():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("x"))


def sharded_in():
    return {"in_shardings": two_devices()}


def sharded_out():
    return {"in_shardings": two_devices(), "out_shardings": two_devices()[0]}


SHARDED = {"in_shardings": sharded_in, "out_shardings": sharded_out}


def check_form(function, options, make):
    one, other = make(), make()
    plain = make()
    f, g = liftnn.jit(function, **options), liftnn.jit(function, **options)
    fresh = 1 in np.atleast_1d(options.get("donate_argnums", ()))
    first = f(*one[0], **one[1]), g(*other[0], **other[1])
    assert_same(*first)
    if not fresh:
        assert_same((first[0], one), (function(*plain[0], **plain[1]), plain))
    for _ in range(3):
        if fresh:
            one, other = ((a[0][0], jnp.arange(3.0)) for a in (one, other))
            one, other = (one, {}), (other, {})
        if not any(map(is_object, jax.tree.leaves((one, other), is_leaf=is_object))):
            f(*one[0], **one[1]), g(*other[0], **other[1])  # who wraps a function again has none at once
        paths = path_of(f), path_of(g)
        assert (paths[0] is None) == (paths[1] is None)
        if paths[0] is None:
            return False
        compare(*paths, one, other)
        assert not has_tracer(one)
    return True


@pytest.mark.sample(4)
@pytest.mark.parametrize("form", FORMS)
def test_for_arguments_of_every_form_both_ways_give_the_same(form):
    function, options, make = FORMS[form]
    assert check_form(function, options, make)


@pytest.mark.parametrize("donated", [{}, {"donate_argnums": 0}, {"donate_written": True}], ids=str)
@pytest.mark.parametrize("make", [lambda: Affine(size=4), lambda: even(5), lambda: even(MOST)])
@pytest.mark.parametrize("options", SHARDED)
@pytest.mark.sample(5)
def test_over_two_devices_both_ways_give_the_same(options, make, donated):
    function = only_write if isinstance(make(), Affine) else write_some
    assert check_form(function, SHARDED[options]() | donated, lambda: ((make(), jnp.arange(4.0)), {}))


def even(n):
    return Holder(many=[liftnn.Param(jnp.full((4,), i, jnp.float32)) for i in range(n)])


def only_write(model, x):
    model.b.value = model.b + x
    model.calls.value = model.calls + 1
    return model.b.sum()


HAND = ("bound", "callable module", "partial", "captured", "captured in a list", "captured alone")


@pytest.mark.sample(2)
@pytest.mark.parametrize("how", HAND)
def test_for_modules_that_come_with_the_function_both_ways_give_the_same(how):
    def make():
        model = Affine()
        models = [model, Affine(2.0)]
        return {
            "bound": (model.__call__, (X,)),
            "callable module": (model, (X,)),
            "partial": (functools.partial(step, model, k=models[1]), (X,)),
            "captured": (lambda other, x: (model(x), other(x)), (Affine(3.0), X)),
            "captured in a list": (lambda x: [m(x) for m in models], (X,)),
            "captured alone": (lambda x: model(x), (X,)),
        }[how], models

    (function, args), models = make()
    (other_function, other_args), other_models = make()
    f, g = liftnn.jit(function), liftnn.jit(other_function)
    assert_same(f(*args), g(*other_args))
    leading, other_leading = f._leading, g._leading
    for _ in range(3):
        compare(path_of(f), path_of(g), ((*leading, *args), {}), ((*other_leading, *other_args), {}))
        assert_same(models, other_models)


def hits(form):
    """How many of two more calls are hits of the fast path."""
    function, options, make = FORMS[form]
    args, kwargs = make()
    f = liftnn.jit(function, **options)
    f(*args, **kwargs)
    if path_of(f) is None:  # a function that was wrapped before has none at once
        f(*args, **kwargs)
    return sum(path_of(f).function(args, kwargs) is not MISS for _ in range(2))


ONCE = {"donated array", "donated both", "value that is a tree", "replaced Variable"}


@pytest.mark.parametrize("form", [name for name in FORMS if name not in ONCE])
@pytest.mark.sample(2)
def test_a_call_like_the_last_one_is_a_hit(form):
    assert hits(form) == 2


OTHERS = {
    "another module": lambda args: (Affine(), *args[1:]),
    "another shape": lambda args: (args[0], jnp.arange(4.0).reshape(2, 2)),
    "another dtype": lambda args: (args[0], jnp.arange(3)),
    "a tree": lambda args: (args[0], [X]),
    "numpy": lambda args: (args[0], np.arange(3.0)),
    "a number": lambda args: (args[0], 1.5),
    "one more": lambda args: (*args, X),
    "one less": lambda args: args[:1],
    "none": lambda args: (),
    "a module in place of an array": lambda args: (args[0], Affine()),
    "a string": lambda args: (args[0], "text"),
    "an array in place of the module": lambda args: (X, X),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("options", [{}, {"donate_argnums": 0}, {"donate_written": True}], ids=str)
def test_for_other_arguments_both_ways_miss_or_give_the_same(options, other):
    one, two = Affine(), Affine()
    f, g = liftnn.jit(step, **options), liftnn.jit(step, **options)
    f(one, X), g(two, X)
    compare(path_of(f), path_of(g), (OTHERS[other]((one, X)), {}), (OTHERS[other]((two, X)), {}))
    assert_same(one, two)


# --- random graphs, changed at random


def use(model, x):
    """Writes all Variables with numbers in them, and reads everything."""
    total = x
    for path, y in liftnn.iter_graph(model):
        total = total + len(path)
        if isinstance(y, liftnn.Variable) and jnp.issubdtype(y.value.dtype, jnp.number):
            y.value = y.value + jnp.asarray(1, y.value.dtype)
            total = total + jnp.sum(y.value).astype(jnp.float32)
        elif isinstance(y, (bool, int, str)):
            total = total + len(str(y))
    return total


OPTIONS = st.sampled_from([{}, {"donate_argnums": 0}, {"donate_written": True}])


class Copies:
    """Arrays by name, each time another one: what is donated is gone."""

    def __getitem__(self, name):
        return arrays()[name].copy()


@mock.patch("tests.strategies.arrays", Copies)
@hypothesis.given(recipes(max_nodes=3, max_variables=3), st.data(), OPTIONS)
def test_after_random_changes_of_random_graphs_both_ways_miss_or_give_the_same(recipe, data, options):
    one, other = build(recipe), build(recipe)
    x = jnp.float32(1)
    f, g = liftnn.jit(use, **options), liftnn.jit(use, **options)
    try:
        f(one, x)
    except Exception as error:
        with pytest.raises(type(error)):
            g(other, x)
        return
    g(other, x)
    for _ in range(3):
        if not any(map(is_object, jax.tree.leaves((one, other), is_leaf=is_object))):
            f(*one[0], **one[1]), g(*other[0], **other[1])  # who wraps a function again has none at once
        paths = path_of(f), path_of(g)
        assert (paths[0] is None) == (paths[1] is None)
        if paths[0] is None:
            return
        choices = []

        def choose(n, choices=choices):
            choices.append(data.draw(st.integers(0, n - 1)))
            return choices[-1]

        mutate(one, choose)
        again = iter(choices)
        mutate(other, lambda n, again=again: next(again))
        compare(*paths, ((one, x), {}), ((other, x), {}))
        assert_same(one, other)
        if not (paths[0].watch.valid and paths[1].watch.valid):
            return


def test_c_code_that_a_generated_function_calls_can_import_modules():
    call = source.build("text", ["return parse(text, '%Y')"], {"parse": time.strptime})  # imports in C
    assert call("2020") == time.strptime("2020", "%Y")
