"""Every option of `jax.jit`, with each way to give `jit` a function and a module: all act like the plain call."""

from __future__ import annotations

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import liftnn
from tests.same import assert_same
from tests.user_modules import Affine, Holder

X = jnp.arange(8.0)
MESH = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
ROWS, WHOLE = NamedSharding(MESH, P("x")), NamedSharding(MESH, P())
BY_NAME = liftnn.StateSharding({liftnn.PathContains("w"): ROWS, ...: WHOLE})


def work(model, x, k=2, *, mode="add"):
    """Writes, attaches and returns; a static number and a static string decide what."""
    model.w.value = model.w + x if mode == "add" else model.w * x
    model.note = Holder(v=liftnn.Param(x * k))
    return {"y": model(x, k), "model": model}


class Net(Affine):
    """An Affine with the same work as a method and as its call."""

    def work(self, x, k=2, *, mode="add"):
        return work(self, x, k, mode=mode)

    def __call__(self, x, k=2, *, mode=None):
        return work(self, x, k, mode=mode) if mode else super().__call__(x, k)


def by_function(jit, model):
    return jit(work), (model, X), {}


def by_method(jit, model):
    return jit(model.work), (X,), {}


def by_module(jit, model):
    return jit(model), (X,), {"mode": "add"}


def by_partial(jit, model):
    return jit(functools.partial(work, model)), (X,), {}


def by_keyword(jit, model):
    return jit(work), (), {"model": model, "x": X}


def in_a_tree(jit, model):
    return (
        jit(lambda tree, x, k=2, *, mode="add": work(tree["models"][0], x, k, mode=mode)),
        (
            {"models": [model]},
            X,
        ),
        {},
    )


WAYS = [by_function, by_method, by_module, by_partial, by_keyword, in_a_tree]
STATIC = {"static_argnames": ("k", "mode")}
OPTIONS = {
    "none": {},
    "static by number": {"static_argnums": 2},
    "donated by number": {"donate_argnums": 0},
    "donated by name": {"donate_argnames": "model"},
    "all donated": {"donate_argnums": (0, 1)},
    "donate_written": {"donate_written": True},
    "device": {"device": jax.devices()[1]},
    "backend": {"backend": "cpu"},
    "keep_unused": {"keep_unused": True},
    "inline": {"inline": True},
    "compiler_options": {"compiler_options": {"xla_cpu_enable_fast_math": False}},
    "in_shardings": {"in_shardings": (BY_NAME, ROWS)},
    "out_shardings": {"out_shardings": {"y": ROWS, "model": None}},
    "shardings and donated": {"in_shardings": (BY_NAME, ROWS), "donate_argnums": 0},
}
NOT_FOR = {  # where an option means an argument that this way does not have by position, or at all
    "static by number": ["by_partial", "by_keyword"],
    "donated by name": ["by_partial", "in_a_tree"],
    "all donated": ["by_partial", "by_keyword"],
    "in_shardings": ["by_partial", "by_keyword", "in_a_tree"],
    "shardings and donated": ["by_partial", "by_keyword", "in_a_tree"],
    "donated by number": ["by_partial"],
}
CASES = [
    (option, way)
    for option, way in itertools.product(OPTIONS, WAYS)
    if way.__name__ not in NOT_FOR.get(option, [])
]


def same_call(options, way, model):
    """The function, jitted, and its arguments; donated arrays are fresh."""
    names = [n for n in STATIC["static_argnames"] if n != "k" or "static_argnums" not in options]
    options = {**options, "static_argnames": names}
    if way in (by_method, by_module) and "donate_argnames" in options:
        options["donate_argnames"] = "self"
    call, args, kwargs = way(lambda f: liftnn.jit(f, **options), model)
    return call, tuple([jnp.array(x) if x is X else x for x in args]), kwargs


@pytest.mark.filterwarnings("ignore:backend and device argument on jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
@pytest.mark.parametrize("option, way", CASES)
@pytest.mark.parametrize("compiled", [False, True], ids=["called", "compiled"])
@pytest.mark.sample(24)
def test_it_acts_like_the_plain_call(option, way, compiled):
    model, reference = Net(2.0, size=8), Net(2.0, size=8)
    k = () if way is by_keyword else (3,)
    named = {"k": 3} if way is by_keyword else {}
    call, args, kwargs = same_call(OPTIONS[option], way, model)
    expected = work(reference, X, 3)
    if compiled:
        ahead = call.lower(*args, *k, **named, **kwargs).compile()
        dynamic = {n: x for n, x in kwargs.items() if n != "mode"}
        out = ahead(*args, **dynamic)
    else:
        out = call(*args, *k, **named, **kwargs)
    assert out["model"] is model
    np.testing.assert_allclose(out["y"], expected["y"], rtol=1e-6)
    assert_same(model, reference)


@pytest.mark.parametrize("way", [by_function, by_keyword, in_a_tree])
def test_a_second_module_of_the_same_structure_is_not_traced_again(way):
    call, args, kwargs = same_call({}, way, Net(2.0, size=8))
    call(*args, **kwargs)
    _, args, kwargs = same_call({}, way, Net(3.0, size=8))
    call(*args, **kwargs)
    assert call.n_traces == 1


def test_every_option_of_jax_jit_is_taken_with_its_default():
    ours, theirs = (inspect.signature(jit).parameters for jit in (liftnn.jit, jax.jit))
    assert theirs.keys() - ours.keys() == {"fun"}
    for name in theirs.keys() & ours.keys() - {"in_shardings", "out_shardings"}:
        assert ours[name].default == theirs[name].default, name
        assert ours[name].kind == theirs[name].kind, name


def test_static_arguments_may_stand_between_sharded_ones():
    def f(k, model, flag, x):
        assert type(k) is int
        assert flag == "on"
        return model(x) * k

    options = {"static_argnums": (0, 2), "in_shardings": (BY_NAME, ROWS), "out_shardings": ROWS}
    model = Affine(2.0, size=8)
    call = liftnn.jit(f, **options)
    assert call(3, model, "on", X).tolist() == (X * 6).tolist()
    assert call.lower(3, model, "on", X).compile()(model, X).tolist() == (X * 6).tolist()
    assert int(model.calls.value) == 2
