"""What is kept with a function: traces as with JAX, for callables of every kind, only while the function lives.

Oracle: the number of calls of the user's function under bare JAX.
"""

import collections
import functools
import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn._src.compilation.jit import _jitted
from liftnn._src.compilation.programs import _compilations
from tests.same import assert_same
from tests.user_modules import Affine

X = jnp.arange(1.0, 4.0)


def counted(f):
    @functools.wraps(f)
    def call(*args, **kwargs):
        call.n += 1
        return f(*args, **kwargs)

    call.n = 0
    return call


# --- callables of every kind


class Doubling:
    """An object that can be called, and has a method; both count."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, x):
        self.calls["n"] += 1
        return x * 2

    def method(self, x):
        return self(x)

    @classmethod
    def of_class(cls, calls, x):
        return cls(calls)(x)


class Equal(Doubling):
    """All objects of this class are equal."""

    def __eq__(self, other):
        return type(other) is Equal

    def __hash__(self):
        return 0


def plain(calls):
    object_ = Doubling(calls)
    return lambda x: object_(x)


KINDS = {
    "a function": plain,
    "an object": Doubling,
    "an object equal to others": Equal,
    "a bound method": lambda calls: Doubling(calls).method,
    "a method of a class": lambda calls: functools.partial(Doubling.of_class, calls),
    "a partial": lambda calls: functools.partial(lambda k, x: Doubling(calls)(x), 2),
    "a partial of a method": lambda calls: functools.partial(Doubling(calls).method),
}


def summed(f):
    return lambda x: f(jnp.stack([x, x])).sum()


TRANSFORMED = {
    "jit": lambda of, f: of.jit(f),
    "grad": lambda of, f: of.grad(f),
    "vmap": lambda of, f: summed(of.vmap(f)),
    "checkpoint": lambda of, f: of.checkpoint(f),
}
USES = {
    "jit": lambda of, f: of.jit(f)(1.0),
    "cond": lambda of, f: of.cond(True, f, f, 1.0),
    "switch": lambda of, f: of.switch(0, [f, f], 1.0),
    "while_loop": lambda of, f: of.while_loop(LOW, f, 1.0),
    "fori_loop": lambda of, f: of.fori_loop(0, 2, INDEXED[f], 1.0),
    "scan": lambda of, f: scan_of(of)(PAIRED[f], X),
    "map": lambda of, f: of.map(f, X),
    "checkpoint": lambda of, f: of.checkpoint(f)(1.0),
    "eval_shape": lambda of, f: of.eval_shape(f, 1.0),
    "make_jaxpr": lambda of, f: of.make_jaxpr(f)(1.0),
    "pmap": lambda of, f: of.pmap(f)(X[None]),
    "vmap": lambda of, f: of.vmap(f)(X),
    "grad": lambda of, f: of.grad(f)(1.0),
}


def LOW(x):  # noqa: N802
    return x < 3


def scan_of(of):
    if of is liftnn:
        return lambda f, xs: liftnn.scan(f)(1.0, xs)
    return lambda f, xs: jax.lax.scan(f, 1.0, xs)


class ByFunction:
    """Functions that are made of a function once."""

    def __init__(self, make):
        self.make = make
        self.made = {}

    def __getitem__(self, f):
        if id(f) not in self.made:
            self.made[id(f)] = f, self.make(f)
        return self.made[id(f)][1]


INDEXED = ByFunction(lambda f: functools.partial(lambda g, i, x: g(x), f))
PAIRED = ByFunction(lambda f: functools.partial(lambda g, c, x: (g(c), None), f))


def jax_with_control_flow():
    names = {name: getattr(jax, name) for name in USES if hasattr(jax, name)}
    names |= {name: getattr(jax.lax, name) for name in USES if name not in names}
    return type("of", (), {**{k: staticmethod(v) for k, v in names.items()}})


def count(of, kind, use, times=3):
    """How often the user's code runs when a callable is used again and again."""
    calls = collections.Counter()
    f = KINDS[kind](calls)
    for _ in range(times):
        USES[use](of, f)
    return calls["n"]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sample(16)
def test_a_callable_that_is_used_again_is_traced_as_often_as_with_jax(kind, use):
    assert count(liftnn, kind, use) == count(jax_with_control_flow(), kind, use)


@pytest.mark.sample(4)
@pytest.mark.parametrize("outer", ["jit", "scan", "cond", "eval_shape", "checkpoint"])
@pytest.mark.parametrize("inner", TRANSFORMED)
def test_a_transformed_function_that_is_used_again_is_traced_as_often_as_with_jax(inner, outer):
    def count(of):
        calls = collections.Counter()
        f = TRANSFORMED[inner](of, plain(calls))
        for _ in range(3):
            USES[outer](of, f)
        return calls["n"]

    assert count(liftnn) == count(jax_with_control_flow())


def test_jit_eval_shape_and_make_jaxpr_share_a_trace():
    def count(of):
        calls = collections.Counter()
        f = plain(calls)
        of.eval_shape(f, X)
        of.jit(f)(X)
        of.make_jaxpr(f)(X)
        return calls["n"]

    assert count(liftnn) == count(jax)


def test_a_trace_outlives_many_other_wrappers_of_the_function():
    def count(of):
        calls = collections.Counter()
        g = Doubling(calls)

        def f(x, *rest):
            return g(x)

        for i in range(1, 90):
            of.jit(f, static_argnums=(i,))(X)
        of.jit(f)(X)
        return calls["n"]

    assert count(liftnn) == count(jax)


@pytest.mark.parametrize(
    "kind", [k if k == "a bound method" else pytest.param(k, marks=pytest.mark.thorough) for k in KINDS]
)
@pytest.mark.parametrize("use", [u for u in USES if u not in ("fori_loop", "scan")])
def test_a_dropped_callable_is_freed_at_once_if_jax_frees_it(kind, use):
    def is_freed(of):
        calls = Calls()
        f = KINDS[kind](calls)
        USES[use](of, f)
        alive = weakref.ref(calls)
        del f, calls
        return alive() is None

    gc.collect()
    gc.disable()
    try:
        assert is_freed(liftnn) >= is_freed(jax_with_control_flow())
    finally:
        gc.enable()


class Calls(collections.Counter):
    """A counter that can be referred to weakly."""


@pytest.mark.thorough
def test_an_object_at_the_address_of_a_dropped_one_finds_nothing_of_it():
    for k in range(12):
        f = functools.partial(lambda k, x: x * k, float(k))
        assert float(liftnn.jit(f)(1.0)) == float(liftnn.cond(True, f, f, 1.0)) == k
        del f


class WithSlots:
    """An object that cannot be referred to weakly."""

    __slots__ = ("calls",)

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, x):
        self.calls["n"] += 1
        return x * 2


@pytest.mark.parametrize("use", [u for u in USES if u != "make_jaxpr"])
def test_an_object_that_cannot_be_referred_to_weakly_can_be_used(use):
    def g(x):
        return x * 2

    assert_same(USES[use](liftnn, WithSlots(collections.Counter())), USES[use](jax_with_control_flow(), g))


# --- functions


def use_array(transform):
    """A transformed function that captures an array, and a weak reference to that."""
    x = jnp.ones(())
    f = transform(lambda y: x * y)
    for _ in range(3):
        f(jnp.ones(()))
    return f, weakref.ref(x)


def test_a_dropped_function_frees_what_it_captured_at_once():
    gc.disable()
    try:
        for use in (liftnn.jit, liftnn.grad, liftnn.checkpoint):
            f, alive = use_array(use)
            del f
            assert alive() is None, use.__name__
    finally:
        gc.enable()


def test_a_dropped_function_of_modules_is_freed():
    model = Affine()
    big = jnp.ones(1000)
    alive = weakref.ref(big)

    def make(big):
        return liftnn.jit(lambda model: model.w * big.sum())

    call = make(big)
    call(model)
    del call, big
    gc.collect()
    assert alive() is None


def test_a_function_that_is_wrapped_in_a_loop_is_traced_once():
    model, f = Affine(), counted(lambda m, x: m(x))
    for _ in range(4):
        liftnn.jit(f)(model, X)
    for _ in range(4):
        liftnn.jit(f, donate_argnums=0)(model, X)
    assert f.n == 2
    assert int(model.calls.value) == 8


def test_who_wraps_a_function_counts_the_traces_of_his_own():
    f = counted(lambda m, x: m(x))
    one, other = liftnn.jit(f), liftnn.jit(f)
    assert one(Affine(), X).shape == other(Affine(), X).shape
    assert one.n_traces == other.n_traces == 1


def test_a_limit_of_traces_counts_them_all():
    f = counted(lambda x: x * 2)
    for shape in (3, 4, 5):
        liftnn.jit(f)(jnp.ones(shape))
    limited = liftnn.jit(f, max_traces=2)
    for shape in (3, 4, 3):
        limited(jnp.ones(shape))
    with pytest.raises(liftnn.RetraceError, match=r"max_traces is 2"):
        limited(jnp.ones(5))
    assert limited.n_traces == 2


def test_threads_that_wrap_one_function_at_once():
    f = counted(lambda x: x * 2)
    liftnn.jit(f)(X)
    found, barrier = [], threading.Barrier(4)

    def run():
        barrier.wait()
        found.extend([liftnn.jit(f)(X) for _ in range(20)])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert f.n == 1
    assert_same(found, [2 * X] * 80)


def test_what_is_kept_with_a_function_is_bounded():
    def f(x):
        return x * 2

    for i in range(100):
        liftnn.jit(f, compiler_options=None, donate_argnames=("x",) * (i + 1))
        liftnn.pmap(f, axis_name=str(i))
        liftnn.jit(f, max_traces=i + 1)
    assert len(_compilations._of(f)) <= 64
    assert len(_jitted._of(f)) <= 64
