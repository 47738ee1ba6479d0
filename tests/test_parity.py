"""On functions of arrays each transform is JAX's: every option, by position and by name, by values and by traces.

The oracle is JAX itself. A new option of a newer JAX makes the first test fail.
"""

from __future__ import annotations

import gc
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import liftnn
from liftnn._src.autodiff.custom_jvp import CustomJvp
from liftnn._src.autodiff.custom_vjp import CustomVjp
from tests.alike import find_difference

X = jnp.arange(1.0, 5.0)
W = jnp.arange(1.0, 9.0).reshape(2, 4)


class Counted:
    """Makes functions that count how often they run."""

    def __init__(self):
        self.counts = {}

    def __call__(self, f):
        def counted(*args, **kwargs):
            self.counts[f.__name__] = self.counts.get(f.__name__, 0) + 1
            return f(*args, **kwargs)

        counted.__name__ = f.__name__
        counted.__signature__ = inspect.signature(f)
        return counted


def double(x):
    return x * 2


def halve(x):
    return x / 2


def add(x, y=1.0):
    return x + y


def scalar(x, y=1.0):
    return jnp.sum(x**2 * y)


def pair(x, y=1.0):
    return jnp.sum(x * y), {"aux": x}


def lane(x):
    return x - jax.lax.pmean(x, "lanes")


def step(c, x):
    return c + x, c * 2


def square(x):
    return jnp.sum(x) ** 2 + 0j


def mesh():
    return jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))


def shards(spec="x"):
    return jax.NamedSharding(mesh(), jax.P(spec))


def saveable(primitive, *_, **__):
    return primitive.name == "sin"


def wavy(x, y=1.0):
    return jnp.sin(jnp.sin(x)) * y


def gradient_of(f):
    return jax.grad(lambda x: f(x).sum())(X)


Case = Callable[[Any, Counted], Any]

CASES: dict[str, dict[str, list[Case]]] = {
    "jit": {
        "fun": [lambda t, c: t(c(double))(X)],
        "in_shardings": [lambda t, c: t(c(double), in_shardings=shards())(X)],
        "out_shardings": [lambda t, c: t(c(double), out_shardings=shards())(X)],
        "static_argnums": [lambda t, c: t(c(add), static_argnums=1)(X, 3)],
        "static_argnames": [lambda t, c: t(c(add), static_argnames="y")(X, y=3)],
        "donate_argnums": [lambda t, c: t(c(double), donate_argnums=0)(X + 0)],
        "donate_argnames": [lambda t, c: t(c(double), donate_argnames=("x",))(x=X + 0)],
        "keep_unused": [lambda t, c: t(c(lambda x, y: x), keep_unused=True)(X, W)],
        "device": [],
        "backend": [lambda t, c: t(c(double), backend="cpu")(X)],
        "inline": [lambda t, c: t(c(double), inline=True)(X)],
        "compiler_options": [
            lambda t, c: t(c(double), compiler_options={"xla_cpu_enable_fast_math": False})(X)
        ],
    },
    "vmap": {
        "fun": [lambda t, c: t(c(double))(X)],
        "in_axes": [lambda t, c: t(c(add), in_axes=(1, None))(W, 2.0), lambda t, c: t(c(add), (1, 0))(W, X)],
        "out_axes": [lambda t, c: t(c(double), out_axes=1)(W), lambda t, c: t(c(double), 1, 0)(W)],
        "axis_name": [
            lambda t, c: t(c(lane), axis_name="lanes")(X),
            lambda t, c: t(c(lane), 0, 0, "lanes")(X),
        ],
        "axis_size": [lambda t, c: t(c(double), in_axes=None, axis_size=3)(X)],
        "spmd_axis_name": [lambda t, c: t(c(double), spmd_axis_name="x")(X)],
        "sum_match": [lambda t, c: t(c(double), sum_match=True)(X)],
    },
    "grad": {
        "fun": [lambda t, c: t(c(scalar))(X)],
        "argnums": [lambda t, c: t(c(scalar), argnums=(0, 1))(X, 2.0), lambda t, c: t(c(scalar), 1)(X, 2.0)],
        "has_aux": [lambda t, c: t(c(pair), has_aux=True)(X), lambda t, c: t(c(pair), 0, True)(X)],
        "holomorphic": [lambda t, c: t(c(square), holomorphic=True)(X + 0j)],
        "allow_int": [lambda t, c: t(c(scalar), allow_int=True)(jnp.arange(3))],
        "reduce_axes": [lambda t, c: t(c(scalar), reduce_axes=())(X)],
    },
    "jvp": {
        "fun": [lambda t, c: t(c(add), (X, X), (X, X))],
        "primals": [lambda t, c: t(c(add), [X], [X])],
        "tangents": [lambda t, c: t(c(double), (X,), tangents=(X,))],
        "has_aux": [
            lambda t, c: t(c(pair), (X,), (X,), has_aux=True),
            lambda t, c: t(c(pair), (X,), (X,), True),
        ],
    },
    "vjp": {
        "fun": [lambda t, c: t(c(add), X, X)[1](W[0])],
        "has_aux": [
            lambda t, c: (lambda out, pull, aux: (out, pull(1.0), aux))(*t(c(pair), X, has_aux=True))
        ],
        "reduce_axes": [lambda t, c: t(c(double), X, reduce_axes=())[0]],
        "saveable_args": [lambda t, c: t(c(double), X, saveable_args=True)[1](X)],
        "in_nzs": [lambda t, c: t(c(double), X, in_nzs=None)[1](X)],
    },
    "fwd_and_bwd": {
        "fun": [lambda t, c: (lambda fwd, bwd: bwd(fwd(X)[1], X))(*t(c(double), 0))],
        "argnums": [
            lambda t, c: (lambda fwd, bwd: bwd(fwd(X, W[0])[1], X))(*t(c(add), argnums=(1, 0))),
            lambda t, c: (lambda fwd, bwd: bwd(fwd(X, W[0])[1], X))(*t(c(add), -1)),
        ],
        "has_aux": [lambda t, c: t(c(pair), 0, True)[0](X)[2]],
        "jitted": [lambda t, c: (lambda fwd, bwd: bwd(fwd(X)[1], X))(*t(c(double), 0, jitted=False))],
    },
    "linearize": {
        "fun": [lambda t, c: t(c(add), X, X)[1](X, X)],
        "has_aux": [lambda t, c: (lambda out, push, aux: (out, push(X), aux))(*t(c(pair), X, has_aux=True))],
        "in_nzs": [lambda t, c: t(c(double), X, in_nzs=None)[1](X)],
    },
    "jacfwd": {
        "fun": [lambda t, c: t(c(double))(X)],
        "argnums": [lambda t, c: t(c(add), (0, 1))(X, X), lambda t, c: t(c(add), argnums=1)(X, X)],
        "has_aux": [lambda t, c: t(c(pair), has_aux=True)(X), lambda t, c: t(c(pair), 0, True)(X)],
        "holomorphic": [lambda t, c: t(c(square), holomorphic=True)(X + 0j)],
    },
    "checkpoint": {
        "fun": [lambda t, c: gradient_of(t(c(wavy)))],
        "prevent_cse": [
            lambda t, c: gradient_of(t(c(wavy), prevent_cse=False)),
            lambda t, c: t(c(wavy), prevent_cse=(False, True))(X, X),
        ],
        "policy": [lambda t, c: gradient_of(t(c(wavy), policy=saveable))],
        "static_argnums": [lambda t, c: t(c(wavy), static_argnums=(1,))(X, 3)],
        "static_argnames": [lambda t, c: t(c(wavy), static_argnames="y")(X, y=3)],
    },
    "eval_shape": {"fun": [lambda t, c: t(c(add), X, y=X)]},
    "make_jaxpr": {
        "fun": [lambda t, c: str(t(c(add))(X, X))],
        "static_argnums": [
            lambda t, c: str(t(c(add), static_argnums=1)(X, 2)),
            lambda t, c: str(t(c(add), 1)(X, 2)),
        ],
        "axis_env": [lambda t, c: str(t(c(lane), axis_env=[("lanes", 2)])(X))],
        "return_shape": [lambda t, c: t(c(add), return_shape=True)(X, X)[1]],
    },
    "custom_jvp": {
        "fun": [lambda t, c: jax.grad(lambda x: with_tangents(t, c).sum() * x)(1.0)],
        "nondiff_argnums": [lambda t, c: with_tangents(t, c, nondiff_argnums=(0,))],
        "nondiff_argnames": [lambda t, c: with_tangents(t, c, nondiff_argnames=("power",))],
    },
    "custom_vjp": {
        "fun": [lambda t, c: with_cotangents(t, c)],
        "nondiff_argnums": [lambda t, c: with_cotangents(t, c, nondiff_argnums=(0,))],
        "nondiff_argnames": [lambda t, c: with_cotangents(t, c, nondiff_argnames=("power",))],
    },
    "shard_map": {
        "f": [lambda t, c: t(c(double), mesh=mesh(), in_specs=jax.P("x"), out_specs=jax.P("x"))(X)],
        "out_specs": [lambda t, c: t(c(double), mesh=mesh(), in_specs=jax.P(), out_specs=jax.P())(X)],
        "in_specs": [
            lambda t, c: t(c(add), mesh=mesh(), in_specs=(jax.P("x"), None), out_specs=jax.P("x"))(X, 3)
        ],
        "mesh": [],
        "axis_names": [
            lambda t, c: t(
                c(double), mesh=mesh(), in_specs=jax.P("x"), out_specs=jax.P("x"), axis_names={"x"}
            )(X)
        ],
        "check_vma": [
            lambda t, c: t(c(double), mesh=mesh(), in_specs=jax.P("x"), out_specs=jax.P(), check_vma=False)(X)
        ],
    },
    "pmap": {
        "fun": [lambda t, c: t(c(double))(W)],
        "axis_name": [lambda t, c: t(c(lane), axis_name="lanes")(W), lambda t, c: t(c(lane), "lanes")(W)],
        "in_axes": [lambda t, c: t(c(add), in_axes=(0, None))(W, 2.0)],
        "out_axes": [lambda t, c: t(c(double), out_axes=1)(W)],
        "static_broadcasted_argnums": [lambda t, c: t(c(add), static_broadcasted_argnums=1)(W, 3)],
        "devices": [lambda t, c: t(c(double), devices=jax.devices()[:2])(W)],
        "backend": [lambda t, c: t(c(double), backend="cpu")(W)],
        "axis_size": [lambda t, c: t(c(double), axis_size=2)(W)],
        "donate_argnums": [lambda t, c: t(c(double), donate_argnums=0)(W + 0)],
    },
    "map": {
        "f": [lambda t, c: t(c(double), X)],
        "xs": [lambda t, c: t(c(double), xs=X)],
        "batch_size": [lambda t, c: t(c(double), X, batch_size=3)],
    },
    "associative_scan": {
        "fn": [lambda t, c: t(c(add), X)],
        "elems": [lambda t, c: t(c(add), elems=X)],
        "reverse": [lambda t, c: t(c(add), X, True), lambda t, c: t(c(add), X, reverse=True)],
        "axis": [lambda t, c: t(c(add), W, False, 1), lambda t, c: t(c(add), W, axis=1)],
    },
    "cond": {
        "pred": [
            lambda t, c: t(np.True_, c(double), c(add), X),
            lambda t, c: t(X[0] > 3, c(double), c(add), X),
        ],
        "true_fun": [lambda t, c: (lambda f: t(True, f, f, X))(c(double))],
        "false_fun": [lambda t, c: t(False, c(double), c(add), X)],
        "operand": [lambda t, c: t(True, c(double), c(add), operand=X)],
    },
    "switch": {
        "index": [
            lambda t, c: t(5, [c(double), c(add)], X),
            lambda t, c: t(jnp.int32(0), [c(double), c(add)], X),
        ],
        "branches": [lambda t, c: t(1, (c(double), c(add)), X)],
        "operand": [lambda t, c: t(1, [c(double), c(add)], operand=X)],
    },
    "while_loop": {
        "cond_fun": [lambda t, c: t(c(lambda x: x[0] < 9), c(double), X)],
        "body_fun": [lambda t, c: t(c(lambda x: x[0] < 9), body_fun=c(double), init_val=np.arange(1, 3))],
        "init_val": [lambda t, c: t(c(lambda x: x < 9), c(double), 1)],
    },
    "fori_loop": {
        "lower": [lambda t, c: t(1, 4, c(step_of), X), lambda t, c: t(jnp.int32(1), 4, c(step_of), X)],
        "upper": [lambda t, c: t(0, 0, c(step_of), 1), lambda t, c: t(0, jnp.int32(3), c(step_of), X)],
        "body_fun": [lambda t, c: t(0, 3, body_fun=c(step_of), init_val=X)],
        "init_val": [lambda t, c: t(0, 3, c(step_of), 1)],
        "unroll": [lambda t, c: t(0, 4, c(step_of), X, unroll=2)],
    },
    "checkify": {
        "f": [lambda t, c: t(c(checked))(X)[1]],
        "errors": [lambda t, c: str(t(c(divides), errors=checkify.float_checks)(X)[0].get())[:20]],
    },
}
CASES["value_and_grad"] = CASES["grad"]
CASES["jacrev"] = {**CASES["jacfwd"], "allow_int": [lambda t, c: t(c(halve), allow_int=True)(jnp.arange(3))]}
CASES["hessian"] = CASES["jacfwd"]

RULES = {
    "custom_vjp": (jax.custom_vjp.defvjp, CustomVjp.defvjp),
    "custom_jvp": (jax.custom_jvp.defjvp, CustomJvp.defjvp),
}

LAX = ("map", "associative_scan", "cond", "switch", "while_loop", "fori_loop")
LEFT_OUT = {"concrete", "operands", "primals", "args", "kwargs", "self", "_split_transpose"}
"""What is deprecated, private, or no option."""


def step_of(i, x):
    return x + i * 1.0


def checked(x):
    checkify.check(jnp.all(x > 0), "not positive")
    return x


def divides(x):
    return x / 0


def with_tangents(t, c, **options):
    def powers(power, x):
        return x**power

    f = t(c(powers), **options)
    if options:
        f.defjvp(lambda power, primals, tangents: (primals[0] ** power, 5.0 * tangents[0]))
    else:
        f.defjvp(lambda primals, tangents: (primals[1] ** primals[0], 5.0 * tangents[1]))
    return jax.grad(lambda x: f(2.0, x).sum())(X)


def with_cotangents(t, c, **options):
    def powers(power, x):
        return x**power

    f = t(c(powers), **options)
    if options:
        f.defvjp(lambda power, x: (x**power, x), lambda power, x, g: (7.0 * g,))
    else:
        f.defvjp(lambda power, x: (x**power, x), lambda x, g: (None, 7.0 * g))
    return jax.grad(lambda x: f(2.0, x).sum())(X)


def of_jax(name):
    if name == "checkify":
        return checkify.checkify
    return getattr(jax.lax if name in LAX else jax, name)


def options_of(function):
    is_class = isinstance(function, type)
    return set(inspect.signature(function.__init__ if is_class else function).parameters) - LEFT_OUT


@pytest.mark.parametrize("name", CASES)
def test_every_option_of_jax_is_in_the_table(name):
    later = {
        "saveable_args",
        "in_nzs",
        "static_argnames",
        "sum_match",
    }  # not in each version that is supported
    missing = options_of(of_jax(name)) - CASES[name].keys()
    assert not missing, f"jax.{name} has options that liftnn's lacks: {missing}"
    assert CASES[name].keys() - options_of(of_jax(name)) - later - {"primals"} == set()


@pytest.mark.parametrize("name", RULES)
def test_rules_have_the_options_of_jax(name):
    theirs, ours = (inspect.signature(f).parameters for f in RULES[name])
    assert set(theirs) <= set(ours) or ours["options"].kind is inspect.Parameter.VAR_KEYWORD


def test_an_option_that_only_a_newer_jax_has_is_handed_on():
    if "generic_batching" not in inspect.signature(jax.custom_vjp.defvjp).parameters:
        pytest.skip("not in this version of JAX")
    f = liftnn.custom_vjp(double)
    f.defvjp(lambda x: (2 * x, None), lambda _, g: (3 * g,), generic_batching=True)
    assert jax.grad(lambda x: f(x).sum())(X).tolist() == [3.0] * 4


TABLE = [
    pytest.param(name, option, i, id=f"{name}-{option}-{i}")
    for name, options in CASES.items()
    for option, cases in options.items()
    for i in range(len(cases))
]


def placed(x):
    """How an array is placed, and its type, in comparable form.

    JAX 0.10.0 gives each `pmap` an axis of its own, with its address as name, which is left out.
    """
    of_type = jax.typeof(x)
    shardings = [re.sub(r"<axis 0x\w+>", "<axis>", str(s)) for s in (x.sharding, of_type.sharding)]
    return shardings, x.devices(), of_type.str_short(), of_type.weak_type, of_type.memory_space


@pytest.mark.filterwarnings("ignore:.*donated buffers were not usable", "ignore:backend and device argument")
@pytest.mark.parametrize("name, option, i", TABLE)
@pytest.mark.sample(24)
def test_an_option_does_what_it_does_in_jax(name, option, i):
    if option not in options_of(of_jax(name)) | {"primals"}:
        pytest.skip("not in this version of JAX")
    case = CASES[name][option][i]
    ours, theirs = Counted(), Counted()
    expected = case(of_jax(name), theirs)
    found = case(getattr(liftnn, name), ours)
    assert find_difference(found, expected) is None
    assert [placed(x) for x in leaves(found)] == [placed(x) for x in leaves(expected)]
    assert ours.counts == theirs.counts


def leaves(tree):
    return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]


# --- traced and compiled once


KEPT = {
    "jit": lambda lib, f, x: lib.jit(f)(x),
    "jit with options": lambda lib, f, x: lib.jit(f, donate_argnums=0)(x + 0),
    "eval_shape": lambda lib, f, x: lib.eval_shape(f, x),
    "make_jaxpr": lambda lib, f, x: lib.make_jaxpr(f)(x),
    "checkpoint": lambda lib, f, x: lib.checkpoint(f)(x),
    "cond": lambda lib, f, x: lib.cond(True, f, f, x),
    "switch": lambda lib, f, x: lib.switch(0, [f, f], x),
    "map": lambda lib, f, x: lib.map(f, x),
    "fori_loop": lambda lib, f, x: lib.fori_loop(0, 3, f, x),
    "while_loop": lambda lib, f, x: lib.while_loop(f, f, x),
    "scan": lambda lib, f, x: lib.scan(f)(x, x) if lib is liftnn else jax.lax.scan(f, x, x),
    "jit in a jit": lambda lib, f, x: lib.jit(lambda x: lib.jit(f)(lib.jit(f)(x)))(x),
}
BODIES = {"scan": step, "fori_loop": step_of}


class Lax:
    """JAX's functions in one place."""

    def __getattr__(self, name):
        return getattr(jax.lax if name in LAX else jax, name)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", KEPT)
def test_what_jax_traces_once_is_traced_once(name):
    counts = []
    for lib in (Lax(), liftnn):
        counted = Counted()
        if name == "while_loop":
            condition, f = counted(lambda x: x[0] < 9), counted(double)
            for i in range(3):
                lib.while_loop(condition, f, X + i)
        else:
            f = counted(BODIES.get(name, double))
            for i in range(3):
                KEPT[name](lib, f, X + i)
        counts.append(counted.counts)
    assert counts[0] == counts[1]


def test_eager_loops_leave_nothing_behind():
    body = lambda c, x: (c + x, c)  # noqa: E731
    liftnn.scan(body)(jnp.zeros(()), X)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        liftnn.scan(body)(jnp.zeros(()), X)
    gc.collect()
    assert len(gc.get_objects()) - before < 50
