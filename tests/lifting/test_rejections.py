"""Calls of functions of arrays that JAX rejects: the same error, of JAX's class, at the first call and at later ones.

Oracle: the class and text of bare JAX's error, and the number of calls of the user's function.
"""

import collections
import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import liftnn

X = jnp.arange(3.0)


def scan(of, f, init, xs=None, **options):
    if of is jax:
        return jax.lax.scan(f, init, xs, **options)
    return liftnn.scan(f, **options)(init, xs)


def of_lax(name):
    def call(of, *args, **kwargs):
        return getattr(jax.lax if of is jax else liftnn, name)(*args, **kwargs)

    return call


cond, switch, while_loop, fori_loop, map_, associative_scan = map(
    of_lax, ["cond", "switch", "while_loop", "fori_loop", "map", "associative_scan"]
)


# --- an error that JAX raises after it has traced the function

WRONG = {
    "scan: a carry of another shape": lambda of, g: scan(of, g(lambda c, x: (jnp.zeros(3) + x, x)), 0.0, X),
    "scan: a carry of another dtype": lambda of, g: scan(of, g(lambda c, x: (c.astype(int), x)), 0.0, X),
    "scan: no pair": lambda of, g: scan(of, g(lambda c, x: np.float32(0)), 0.0, X),
    "scan: another structure": lambda of, g: scan(of, g(lambda c, x: ((c, c), x)), 0.0, X),
    "fori_loop: another shape": lambda of, g: fori_loop(of, 0, 3, g(lambda i, c: jnp.zeros(3) + i), 0.0),
    "fori_loop: another structure": lambda of, g: fori_loop(of, 0, 3, g(lambda i, c: (c, c)), 0.0),
    "while_loop: a condition of another type": lambda of, g: while_loop(
        of, g(lambda c: c), g(lambda c: c), 0.0
    ),
    "while_loop: another structure": lambda of, g: while_loop(
        of, g(lambda c: c < 3), g(lambda c: (c, c)), 0.0
    ),
    "cond: two shapes": lambda of, g: cond(of, True, g(lambda: 1.0), g(lambda: jnp.ones(2))),
    "cond: two structures": lambda of, g: cond(of, True, g(lambda x: x), g(lambda x: (x, x)), 1.0),
    "switch: two shapes": lambda of, g: switch(of, 0, [g(lambda: 1.0), g(lambda: jnp.ones(2))]),
    "grad: no scalar": lambda of, g: of.grad(g(lambda x: x * jnp.ones(2)))(1.0),
    "grad: a number of another type": lambda of, g: of.grad(g(lambda x: 1))(1.0),
    "checkpoint: an error of the function": lambda of, g: of.checkpoint(g(lambda x: x + jnp.ones(7)))(X),
    "jit: shapes that do not fit": lambda of, g: of.jit(g(lambda x: x @ jnp.ones(7)))(X),
}


def outcome(call):
    """The class and text of the error that a call raises, without the places of objects and lines."""
    try:
        return "value", jax.tree.map(np.asarray, call())
    except Exception as error:
        kind = next(k for k in (TypeError, ValueError, AttributeError, Exception) if isinstance(error, k))
        return kind, str(error), isinstance(error, liftnn.LiftError)


def without_places(result):
    return tuple(re.sub(r"0x[0-9a-f]+", "0x", x) if isinstance(x, str) else x for x in result)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_that_is_repeated_raises_the_same_error(name):
    def run(of):
        calls = collections.Counter()
        made = {}

        def g(f):  # the same function in each call
            code = f.__code__
            if code not in made:

                @functools.wraps(f)
                def counted(*args):
                    calls["n"] += 1
                    return f(*args)

                made[code] = counted
            return made[code]

        return [without_places(outcome(lambda: WRONG[name](of, g))) for _ in range(3)]

    assert run(liftnn) == run(jax)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_under_jit_that_is_repeated_raises_the_same_error(name):
    def run(of):
        made = {}

        def g(f):
            return made.setdefault(f.__code__, f)

        call = of.jit(lambda: WRONG[name](of, g))
        return [without_places(outcome(call)) for _ in range(3)]

    assert run(liftnn) == run(jax)


def test_a_wrong_sharding_of_the_output_raises_the_same_error_again():
    def run(of):
        sharding = NamedSharding(jax.make_mesh((8,), ("x",)), PartitionSpec("x"))
        call = of.jit(lambda x: x.sum(), out_shardings=sharding)
        return [without_places(outcome(lambda: call(jnp.arange(8.0)))) for _ in range(3)]

    assert run(liftnn) == run(jax)


def test_devices_that_do_not_fit_are_named_by_the_functions_parameters():
    def run(of):
        first, second = (jax.device_put(jnp.ones(3), d) for d in jax.devices()[:2])
        call = of.jit(lambda weights, x: weights + x)
        call(jnp.ones(3), jnp.ones(3))  # is traced here
        return [without_places(outcome(lambda: call(first, second))) for _ in range(2)]

    assert run(liftnn) == run(jax)


# --- an error that JAX raises before it traces the function

REJECTED = {
    "scan: a traced length": lambda of: of.jit(lambda n, x: scan(of, lambda c, z: (c, z), x, None, length=n))(
        3, 1.0
    ),
    "vmap: a traced axis_size": lambda of: of.jit(lambda n, x: of.vmap(lambda x: x, axis_size=n)(x))(3, X),
    "vmap: sizes that differ": lambda of: of.vmap(lambda x, y: x)(jnp.ones(2), jnp.ones(3)),
    "vmap: no axis": lambda of: of.vmap(lambda x: x)(1.0),
    "vmap: a string": lambda of: of.vmap(lambda x: x)("abc"),
    "scan: a string": lambda of: scan(of, lambda c, x: (c, x), 0, "abc"),
    "scan: lengths that differ": lambda of: scan(of, lambda c, x: (c, x), 0, (jnp.ones(2), jnp.ones(3))),
    "map: a string": lambda of: map_(of, lambda x: x, "ab"),
    "map: a number": lambda of: map_(of, lambda x: x, 1.0),
    "associative_scan: a traced axis": lambda of: of.jit(
        lambda n, x: associative_scan(of, jnp.add, x, axis=n)
    )(0, X),
    "grad: no such argument": lambda of: of.grad(lambda x: x, argnums=1)(1.0),
    "grad: no positional argument": lambda of: of.grad(lambda x: x)(x=1.0),
    "grad: an integer": lambda of: of.grad(lambda x: x * 2.0)(1),
    "jvp: a string": lambda of: of.jvp(lambda x: x, ("a",), ("a",)),
    "jvp: a tangent of another dtype": lambda of: of.jvp(lambda x: x, (1.0,), (1,)),
    "jvp: too many tangents": lambda of: of.jvp(lambda x: x, (1.0,), (1.0, 2.0)),
    "cond: no scalar": lambda of: cond(of, jnp.ones(2), lambda: 1.0, lambda: 2.0),
    "switch: no integer": lambda of: switch(of, 0.5, [lambda: 1.0, lambda: 2.0]),
    "fori_loop: a bound that is no integer": lambda of: fori_loop(of, 0.5, 3, lambda i, c: c, 0.0),
    "jit: a missing argument": lambda of: of.jit(lambda x, y: x)(1.0),
    "jit: a set": lambda of: of.jit(lambda x: x)({1.0}),
    "jit: an array of objects": lambda of: of.jit(lambda x: x)(np.array([None])),
}


@pytest.mark.parametrize("name", REJECTED)
def test_a_rejected_call_raises_an_error_that_is_also_of_jaxs_class(name):
    for _ in range(2):
        kind, text, _ = outcome(lambda: REJECTED[name](jax))
        with pytest.raises(kind) as caught:
            REJECTED[name](liftnn)
        # liftnn's own errors name paths; others are JAX's, word for word
        is_own = isinstance(caught.value, liftnn.LiftError)
        assert is_own or without_places([str(caught.value)]) == without_places([text])


def test_an_error_of_two_classes_is_pickled_and_named_like_liftnns():
    with pytest.raises(liftnn.LiftError) as caught:
        liftnn.grad(lambda x: x, argnums=1)(1.0)
    with pytest.raises(Exception) as by_jax:  # noqa: PT011
        jax.grad(lambda x: x, argnums=1)(1.0)
    error = caught.value
    assert isinstance(error, by_jax.type)
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied)) == (type(error), str(error))
    assert type(error).__qualname__ in vars(liftnn)


def test_an_error_of_the_user_comes_through_if_only_liftnn_takes_the_arguments():
    def f(c, x):
        raise ZeroDivisionError("my own")

    with pytest.raises(ZeroDivisionError, match="my own"):
        liftnn.fori_loop(0, 3, lambda i, c: f(c, i), "a carry that JAX does not take")
