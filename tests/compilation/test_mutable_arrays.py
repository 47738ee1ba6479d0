"""A mutable array of JAX (`jax.new_ref`) is an argument beside modules, as in bare JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn import errors
from tests.raising import raises
from tests.user_modules import Affine


def body(w, vector, number, x):
    """Read and write two mutable arrays."""
    number[...] = number[...] + w
    vector[0] = number[...]
    return (vector[...] * w * x).sum()


def in_jit(inner):
    return lambda t, f: t.jit(lambda *args: inner(t, f)(*args))


def scanned(t, f):
    def call(w, vector, number, x):
        def step(c, x):
            return c + f(w, vector, number, x), number[...]

        return liftnn.scan(step)(x, jnp.ones(2)) if t is liftnn else jax.lax.scan(step, x, jnp.ones(2))

    return call


def branching(t, f):
    cond = liftnn.cond if t is liftnn else jax.lax.cond
    return lambda w, vector, number, x: cond(x > 0, f, lambda w, vector, number, x: x, w, vector, number, x)


def counted(t, f):
    loop = liftnn.fori_loop if t is liftnn else jax.lax.fori_loop
    return lambda w, vector, number, x: loop(0, 3, lambda i, c: c + f(w, vector, number, x), 0.0)


def by_keyword(t, f):
    call = t.jit(lambda w, x, *, refs: f(w, refs["vector"], refs["numbers"][0], x))
    return lambda w, vector, number, x: call(w, x, refs={"vector": vector, "numbers": [number]})


USES = {
    "jit": lambda t, f: t.jit(f),
    "jit in jit": in_jit(lambda t, f: t.jit(f)),
    "grad": in_jit(lambda t, f: t.grad(lambda w, v, n, x: n[...] * w * x, argnums=3)),
    "remat": in_jit(lambda t, f: (liftnn.remat if t is liftnn else jax.checkpoint)(f)),
    "vmap": in_jit(lambda t, f: t.vmap(lambda w, v, n, x: n[...] * w * x, in_axes=(None, None, None, 0))),
    "scan": in_jit(scanned),
    "cond": in_jit(branching),
    "fori_loop": in_jit(counted),
    "keyword": by_keyword,
}


def results(t, use, w, f):
    """The results of three calls, and what the mutable arrays hold then."""
    vector, number = jax.new_ref(jnp.arange(3.0)), jax.new_ref(jnp.float32(1.0))
    x = jnp.ones(2) if use == "vmap" else jnp.float32(3.0)
    call = USES[use](t, f)
    out = [jax.tree.map(jnp.asarray, call(w, vector, number, x)) for _ in range(3)]
    return str(out), str(vector), str(number)


@pytest.mark.parametrize("use", USES)
def test_it_is_read_and_written_as_in_jax_beside_a_module(use):
    expected = results(jax, use, jnp.float32(2.0), body)
    model = Affine(2.0, size=())

    def f(model, vector, number, x):
        model.calls.value += 1
        return body(model.w.value, vector, number, x)

    uses_w = {"grad", "vmap"}  # which multiply by the first argument themselves
    argument = jnp.float32(2.0) if use in uses_w else model
    assert results(liftnn, use, argument, f) == expected


@pytest.mark.parametrize("use", USES)
def test_it_is_read_and_written_as_in_jax_if_a_module_is_captured(use):
    expected = results(jax, use, jnp.float32(2.0), body)
    model = Affine(2.0, size=())
    found = results(liftnn, use, jnp.float32(2.0), lambda w, v, n, x: body(model.w.value, v, n, x))
    assert found == expected


def test_another_one_causes_no_trace():
    model = Affine(2.0, size=())

    @liftnn.jit
    def step(model, number, x):
        number[...] = number[...] + model.w * x
        return number[...]

    first, second = jax.new_ref(jnp.float32(0.0)), jax.new_ref(jnp.float32(5.0))
    for number in (first, first, second, first, second):
        step(model, number, 2.0)
    assert step.n_traces == 1
    assert (float(first[...]), float(second[...])) == (12.0, 13.0)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("is_nested", [True, False])
@pytest.mark.parametrize(
    "path, keep", [("the output", lambda m, r: r), ("args[0].r", lambda m, r: setattr(m, "r", r))]
)
def test_one_that_is_returned_or_stored_is_an_error(path, keep, is_nested, new):
    model = Affine(2.0, size=())
    before = dict(vars(model))
    f = liftnn.jit(lambda m, r: keep(m, jax.new_ref(r[...]) if new else r))
    with raises(
        errors.StructureError,
        f"{path} is a mutable array (jax.Ref), which liftnn.jit cannot return or store.\n"
        "Return or store what it holds, `ref[...]`. One that is an argument is changed in place.",
    ):
        (liftnn.jit(lambda m, r: f(m, r)) if is_nested else f)(model, jax.new_ref(jnp.float32(0.0)))
    assert dict(vars(model)) == before
