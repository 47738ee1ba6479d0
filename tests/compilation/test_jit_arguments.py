"""`jit` takes arguments and options as `jax.jit` does: each case is run through both."""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors
from tests.raising import caught, raises
from tests.user_modules import Affine


def f(x, y, n=2, *, scale=1.0, mode="a"):
    return {"product": x * y * n * scale, "mode": jnp.zeros(()) if mode == "a" else jnp.ones(())}


def g(x, /, n, *args, k=1, **others):
    return x * n * k + sum(args) + sum(others.values())


def spread(*args):
    return sum(args)


def named(*, k):
    return k * 2.0


CALLS = {
    "by position": (f, {}, [((1.0, 2.0), {}), ((1.0, 2.0, 3), {})]),
    "by keyword": (f, {}, [((1.0,), {"y": 2.0}), ((), {"x": 1.0, "y": 2.0, "n": 5, "scale": 3.0})]),
    "static by number": (f, {"static_argnums": 2}, [((1.0, 2.0, 3), {}), ((1.0, 2.0), {})]),
    "static name inferred": (f, {"static_argnums": 2}, [((1.0, 2.0), {"n": 4})]),
    "static by negative number": (f, {"static_argnums": -1}, [((1.0, 2.0, 3), {})]),
    "static by several numbers": (f, {"static_argnums": (1, 2)}, [((1.0, 2, 3), {}), ((1.0, 2), {})]),
    "static number twice": (f, {"static_argnums": (2, -1, 2)}, [((1.0, 2.0, 3), {})]),
    "no static numbers": (f, {"static_argnums": []}, [((1.0, 2.0, 3), {})]),
    "static by name": (f, {"static_argnames": "mode"}, [((1.0, 2.0), {"mode": "b"}), ((1.0, 2.0), {})]),
    "static number inferred": (f, {"static_argnames": ["n", "mode"]}, [((1.0, 2.0, 3), {"mode": "b"})]),
    "static by both": (
        f,
        {"static_argnums": 2, "static_argnames": "mode"},
        [((1.0, 2.0, 3), {"mode": "b"}), ((1.0, 2.0), {"n": 3, "mode": "b"})],
    ),
    "static among *args": (g, {"static_argnums": (1, 3)}, [((1.0, 2, 3.0, 4.0), {}), ((1.0, 2), {})]),
    "static number beyond *args": (g, {"static_argnums": 10}, [((1.0, 2, 3, 4), {})]),
    "static by negative number among *args": (g, {"static_argnums": -1}, [((1.0, 2, 3, 4), {})]),
    "static among **others": (g, {"static_argnames": ("q", "k")}, [((1.0, 2), {"q": 3, "k": 2})]),
    "only *args": (spread, {"static_argnums": (0,)}, [((1, 2.0), {}), ((), {})]),
    "only keywords": (named, {"static_argnames": "k"}, [((), {"k": 2})]),
    "a function of JAX's": (jnp.sum, {"static_argnames": "axis"}, [((jnp.ones((2, 3)),), {"axis": 0})]),
    "donated by number": (f, {"donate_argnums": 0}, [((1.0, 2.0), {})]),
    "donated by name": (f, {"donate_argnames": "x"}, [((1.0, 2.0), {}), ((), {"x": 1.0, "y": 2.0})]),
    "partial": (functools.partial(f, n=3), {}, [((1.0, 2.0), {}), ((1.0, 2.0), {"n": 4})]),
    "partial with static name": (functools.partial(f, 1.0), {"static_argnames": "n"}, [((2.0, 3), {})]),
    "partial with static number": (functools.partial(f, 1.0), {"static_argnums": 1}, [((2.0, 3), {})]),
    "partial with negative number": (functools.partial(f, 1.0), {"static_argnums": -1}, [((2.0, 3), {})]),
    "partial with static string": (functools.partial(f, 1.0, mode="b"), {}, [((2.0,), {})]),
    "keep_unused": (f, {"keep_unused": True}, [((1.0, 2.0), {})]),
    "inline": (f, {"inline": True}, [((1.0, 2.0), {})]),
    "compiler_options": (
        f,
        {"compiler_options": {"xla_cpu_enable_fast_math": False}},
        [((1.0, 2.0), {})],
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.sample(4)
def test_calls_return_what_jax_jit_returns(name):
    function, options, calls = CALLS[name]
    ours, theirs = liftnn.jit(function, **options), jax.jit(function, **options)
    for args, kwargs in calls:
        jax.tree.map(np.testing.assert_array_equal, ours(*args, **kwargs), theirs(*args, **kwargs))


@pytest.mark.parametrize("name", [name for name in CALLS if "static" in name])
def test_as_many_arguments_are_dynamic_as_under_jax_jit(name):
    function, options, calls = CALLS[name]
    options = {**options, "keep_unused": True}
    for args, kwargs in calls:
        ours, theirs = (jit(function, **options).trace(*args, **kwargs) for jit in (liftnn.jit, jax.jit))
        assert len(ours.jaxpr.in_avals) == len(theirs.jaxpr.in_avals)


ERRORS = {
    "a string": (f, {}, ((1.0, 2.0), {"mode": "b"})),
    "an unhashable static argument": (f, {"static_argnums": 2}, ((1.0, 2.0, [1]), {})),
    "an unhashable static keyword": (f, {"static_argnames": "mode"}, ((1.0, 2.0), {"mode": ["b"]})),
    "an unhashable keyword of a static number": (f, {"static_argnums": 2}, ((1.0, 2.0), {"n": [1]})),
    "too many arguments": (f, {}, ((1.0, 2.0, 3, 4), {})),
    "a number out of range": (f, {"static_argnums": 3}, ((1.0, 2.0, 3), {})),
    "a negative number out of range": (f, {"static_argnums": -4}, ((1.0, 2.0, 3), {})),
    "a number for keywords": (named, {"static_argnums": 0}, ((), {"k": 2})),
    "an unknown name": (f, {"static_argnames": "nope"}, ((1.0, 2.0), {})),
    "a positional-only name": (g, {"static_argnames": "x"}, ((1.0, 2), {})),
    "a number of a partial out of range": (
        functools.partial(f, 1.0),
        {"static_argnums": 2},
        ((2.0, 3), {}),
    ),
    "a name as number": (f, {"static_argnums": "n"}, ((1.0, 2.0), {})),
    "a number as name": (f, {"static_argnames": 2}, ((1.0, 2.0), {})),
    "a float as number": (f, {"static_argnums": 2.5}, ((1.0, 2.0), {})),
    "a donated number out of range": (f, {"donate_argnums": 7}, ((1.0, 2.0), {})),
    "an unknown donated name": (f, {"donate_argnames": "zz"}, ((1.0, 2.0), {})),
    "static and donated": (f, {"static_argnums": 2, "donate_argnums": 2}, ((1.0, 2.0, 3), {})),
    "static and donated by name": (f, {"static_argnums": 2, "donate_argnames": "n"}, ((1.0, 2.0, 3), {})),
    "no function": (None, {}, ((), {})),
    "an unknown compiler option": (f, {"compiler_options": {"nope": 1}}, ((1.0, 2.0), {})),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_jax_jit_refuses_is_refused_with_the_same_builtin_error(name):
    function, options, (args, kwargs) = ERRORS[name]
    raised = []
    for jit in (jax.jit, liftnn.jit):
        with pytest.raises((ValueError, TypeError, RuntimeError)) as caught:
            jit(function, **options)(*args, **kwargs)
        raised.append(caught.value)
    builtin = next(c for c in (ValueError, TypeError, RuntimeError) if isinstance(raised[0], c))
    assert isinstance(raised[1], builtin)


def test_a_static_argument_is_a_python_value_inside():
    seen = []
    call = liftnn.jit(lambda x, n: seen.append(n) or x * n, static_argnums=1)
    assert float(call(2.0, 3)) == 6.0
    assert seen == [3]


def test_equal_static_arguments_are_traced_once_and_others_anew():
    call = liftnn.jit(lambda x, n: x * len(n), static_argnames="n")
    for n in ("ab", "cd", "ab", ("a", 1), ("a", 1)):
        call(2.0, n=n)
    assert call.n_traces == 3


@pytest.mark.parametrize("values", [(1, True), (1, 1.0), (0.0, -0.0)])
def test_static_arguments_that_are_equal_but_not_interchangeable_are_told_apart(values):
    call = liftnn.jit(lambda n: repr(n), static_argnums=0)
    assert [call(n) for n in (*values, *values)] == [*map(repr, values)] * 2


def test_a_module_cannot_be_static():
    model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    call = liftnn.jit(lambda m, x: m(x), static_argnums=0)
    with raises(
        errors.ArgumentError,
        "args[0] is a Linear, so it cannot be static: later changes to the module would not be seen.\n"
        "Remove it from static_argnums and static_argnames; static attributes of modules are part of the cache key "
        "anyway.",
    ):
        call(model, jnp.ones((1, 2)))


@pytest.mark.filterwarnings("ignore:backend and device argument on jit:DeprecationWarning")
@pytest.mark.parametrize(
    "options", [{"backend": "cpu"}, {"device": jax.devices()[1]}], ids=["backend", "device"]
)
def test_device_and_backend_place_the_result_as_under_jax_jit(options):
    ours, theirs = (jit(lambda x: x + 1, **options)(jnp.ones(2)) for jit in (liftnn.jit, jax.jit))
    assert ours.devices() == theirs.devices()


def test_a_negative_number_counts_from_the_last_parameter_also_if_that_is_not_passed():
    call = liftnn.jit(f, static_argnums=-1)  # jax.jit counts what is passed, and makes y static here
    call(1.0, 2.0)
    call(1.0, 3.0)
    assert call.n_traces == 1


def test_a_parameter_may_be_called_self():
    assert float(liftnn.jit(lambda self: self * 2)(self=3.0)) == 6.0
    assert float(liftnn.grad(lambda x, self: x * self)(3.0, self=4.0)) == 4.0


MESH = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
LATE = {
    "a string as sharding": {"in_shardings": "x"},
    "a string below": {"in_shardings": ({"a": "x"},)},
    "a sharding without a constraint": {"in_shardings": lambda: sharding(jax.P(jax.P.UNCONSTRAINED, "x"))},
    "an output sharding of another type": {"out_shardings": 1},
    "device and backend": {"device": jax.devices()[0], "backend": "cpu"},
    "backend and shardings": {"in_shardings": ONE, "backend": "cpu"},
    "backend and output shardings": {"out_shardings": ONE, "backend": "cpu"},
    "device and shardings": {"in_shardings": ONE, "device": jax.devices()[0]},
}


def sharding(spec):
    return jax.sharding.NamedSharding(MESH, spec)


@pytest.mark.filterwarnings("ignore:backend and device argument on jit:DeprecationWarning")
@pytest.mark.parametrize("name", LATE)
@pytest.mark.parametrize("function", [f, functools.partial(f, 1.0), Affine(1.0), Affine.loss])
def test_options_are_refused_when_jax_refuses_them(name, function):
    options = {name: x() if callable(x) else x for name, x in LATE[name].items()}
    theirs = caught(lambda: jax.jit(f, **options))
    ours = caught(lambda: liftnn.jit(function, **options))
    assert (type(ours), str(ours)) == (type(theirs), str(theirs))


def test_a_sharding_for_some_variables_is_checked_too():
    wrong = liftnn.StateSharding({liftnn.Param: "x", ...: None})
    theirs = caught(lambda: jax.jit(f, in_shardings=("x",)))
    ours = caught(lambda: liftnn.jit(Affine.loss, in_shardings=(wrong, None)))
    assert type(ours) is type(theirs)


@pytest.mark.parametrize("call", [lambda jit: jit(spread), lambda jit: jit(spread, keep_unused=True)])
def test_the_number_of_cached_programs_is_that_of_jax(call):
    ours, theirs = call(liftnn.jit), call(jax.jit)
    sizes = []
    for jitted in (ours, theirs):
        sizes.append([jitted._cache_size()])
        for args in ((1.0,), (1.0,), (2, 3.0), (jnp.ones(3),), (jnp.zeros(3),), (np.ones(3),)):
            jitted(*args)
            sizes[-1].append(jitted._cache_size())
        jitted.clear_cache()
        sizes[-1].append(jitted._cache_size())
    assert sizes[0] == sizes[1]


def test_the_number_of_cached_programs_counts_calls_with_modules():
    jitted = liftnn.jit(Affine.loss)
    model = Affine(1.0)
    for x, expected in ((1.0, 1), (2.0, 1), (jnp.ones(3), 2)):
        jitted(model, x)
        assert jitted._cache_size() == expected


def test_a_compiled_function_is_one_for_jax_and_has_the_names_of_its_function():
    def f(x: int, *, y: int = 1) -> int:
        """Adds."""
        return x + y

    ours, theirs = liftnn.jit(f), jax.jit(f)
    assert isinstance(ours, jax.stages.Wrapped)
    for name in ("__wrapped__", "__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    for name in ("lower", "trace", "eval_shape", "clear_cache", "_cache_size"):
        assert callable(getattr(ours, name))
