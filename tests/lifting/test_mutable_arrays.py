"""A mutable array of JAX (`jax.new_ref`) is an argument of every transform beside modules, as in bare JAX."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import liftnn
from tests.user_modules import Affine

X = jnp.arange(1.0, 5.0)


def weight_of(w):
    return w.w.value if isinstance(w, Affine) else w


def f(w, ref, x):
    """Read and write a mutable array."""
    ref[...] = ref[...] * weight_of(w) + x
    return (ref[...] * weight_of(w)).sum()


def reads(w, ref, x):
    return (ref[...] * weight_of(w) * x).sum()


def step(w, slices):
    return w, f(w, *slices)


def changing_step(w, slices):
    """A step whose first call changes a structure, so the first iteration is peeled."""
    if isinstance(w, Affine) and not hasattr(w, "label"):
        w.label = "seen"
    return w, f(w, *slices)


def scans(step, n, jitted=False, **options):
    """A scan of the first n elements of a mutable array."""

    def call(t, w, ref):
        def run(w, ref):
            part = jax.new_ref(ref[:n])
            scan = (
                liftnn.scan(step, **options)
                if t is liftnn
                else functools.partial(jax.lax.scan, step, **options)
            )
            out = scan(w, (part, X[:n]))[1]
            ref[:n] = part[...]
            return out

        return t.jit(run)(w, ref) if jitted else run(w, ref)

    return call


def with_rule(t):
    g = t.custom_vjp(f)
    g.defvjp(lambda w, ref, x: (f(w, ref, x), None), lambda _, ct: (None, None, ct * X))
    return g


def lax(t):
    return liftnn if t is liftnn else jax.lax


USES = {
    "vmap": lambda t, w, ref: t.vmap(f, in_axes=(None, 0, 0))(w, ref, X),
    "vmap by keyword": lambda t, w, ref: t.vmap(lambda w, x, *, ref: f(w, ref, x), in_axes=(None, 0))(
        w, X, ref=ref
    ),
    "vmap without axis": lambda t, w, ref: t.vmap(reads, in_axes=(None, None, 0))(w, ref, X),
    "vmap of it alone": lambda t, w, ref: t.vmap(lambda w, ref: f(w, ref, 2.0), in_axes=(None, 0))(w, ref),
    "scan": scans(step, 4),
    "scan in jit": scans(step, 4, jitted=True),
    "reversed scan": scans(step, 4, reverse=True),
    "unrolled scan": scans(step, 4, unroll=2),
    "scan of one step": scans(step, 1),
    "scan of one step in jit": scans(step, 1, jitted=True),
    "peeled scan": scans(changing_step, 4),
    "peeled scan in jit": scans(changing_step, 4, jitted=True),
    "peeled reversed scan": scans(changing_step, 3, reverse=True),
    "map": lambda t, w, ref: lax(t).map(lambda slices: f(w, *slices), (ref, X)),
    "map in jit": lambda t, w, ref: t.jit(lambda w, ref: lax(t).map(lambda slices: f(w, *slices), (ref, X)))(
        w, ref
    ),
    "scan in vmap": lambda t, w, ref: t.vmap(lambda r: scans(step, 4)(t, w, r), in_axes=1)(
        jax.new_ref(jnp.ones((4, 3)))
    ),
    "cond": lambda t, w, ref: lax(t).cond(True, f, lambda *_: 0.0, w, ref, X),
    "fori_loop": lambda t, w, ref: lax(t).fori_loop(0, 3, lambda i, c: c + f(w, ref, X), 0.0),
    "grad": lambda t, w, ref: t.grad(reads, argnums=2)(w, ref, X),
    "vjp": lambda t, w, ref: t.vjp(lambda x: reads(w, ref, x), X)[1](1.0),
    "hessian": lambda t, w, ref: t.hessian(reads, argnums=2)(w, ref, X),
    "custom_vjp": lambda t, w, ref: t.grad(with_rule(t), argnums=2)(w, ref, X),
    "remat": lambda t, w, ref: (liftnn.remat if t is liftnn else jax.checkpoint)(f)(w, ref, X),
    "checkify": lambda t, w, ref: (liftnn if t is liftnn else checkify).checkify(f)(w, ref, X)[1],
}


@pytest.mark.parametrize("use", USES)
def test_it_is_read_and_written_as_in_jax(use):
    ours, theirs = jax.new_ref(jnp.arange(4.0)), jax.new_ref(jnp.arange(4.0))
    found = USES[use](liftnn, Affine(2.0, size=()), ours)
    expected = USES[use](jax, jnp.float32(2.0), theirs)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(ours[...], theirs[...])


def test_abstract_transforms_read_no_mutable_array():
    ref = jax.new_ref(jnp.arange(4.0))
    assert liftnn.eval_shape(f, Affine(2.0, size=()), ref, X).shape == ()
    assert "Ref{float32[4]}" in str(liftnn.make_jaxpr(f)(Affine(2.0, size=()), ref, X).in_avals)
    assert ref[...].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_loop_does_not_carry_one_as_in_jax():
    ref = jax.new_ref(jnp.arange(4.0))
    with pytest.raises(
        ValueError, match=r"a mutable array \(jax.Ref\), which liftnn.fori_loop cannot return"
    ):
        liftnn.fori_loop(0, 3, lambda i, carry: carry, (Affine(2.0), ref))
    with pytest.raises(ValueError, match="mutable array references cannot be returned"):
        jax.lax.fori_loop(0, 3, lambda i, carry: carry, (jnp.ones(2), ref))


def add(model, x):
    model.total[...] += x
    return x


NESTED = {
    "jit": lambda model, x: liftnn.jit(add)(model, x),
    "captured": lambda model, x: liftnn.jit(lambda x: add(model, x))(x),
    "scan": lambda model, x: liftnn.scan(lambda model, x, _: (add(model, x), None), in_axes=(None, liftnn.Carry, 0))(
        model, x, jnp.ones(1)
    ),
    "cond": lambda model, x: liftnn.cond(True, add, lambda model, x: x, model, x),
    "remat": lambda model, x: liftnn.remat(add)(model, x),
}  # fmt: skip


@pytest.mark.parametrize("after_arrays", [True, False])
@pytest.mark.parametrize("nested", NESTED)
def test_one_that_a_function_stores_in_a_module_is_shared_by_all_transforms_in_it(nested, after_arrays):
    """Its tracer has the class of those of arrays, so what is known of the class must not decide."""

    def total(model, x):
        if after_arrays:
            liftnn.jit(lambda x: x)(x)
        model.total = jax.new_ref(x)
        model.parts = [model.total]
        NESTED[nested](model, x)
        NESTED[nested](model, 2 * x)
        del model.total
        return model.parts.pop()[...]

    assert liftnn.jit(total)(Affine(2.0), jnp.ones(2)).tolist() == [4.0, 4.0]
    assert total(Affine(2.0), jnp.ones(2)).tolist() == [4.0, 4.0]
