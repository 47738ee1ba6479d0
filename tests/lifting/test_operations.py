"""A transform with modules has the operations of the same by hand, in the same order: so its numbers are equal, too."""

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.user_modules import Holder

X = jnp.arange(3.0) + 1
XS = jnp.ones((4, 3))


def step(w, x):
    return jnp.tanh(w * x) * w


def of_model(model, x):
    return step(model.w, x)


def scanned(w, x):
    return jax.lax.scan(lambda c, y: (step(w, c) + y, c), x, XS)


def scan(model, x, change=lambda f: f):
    body = change(lambda model, c, y: (of_model(model, c) + y, c))
    axes = {"in_axes": (None, liftnn.Carry, 0), "out_axes": (liftnn.Carry, 0)}
    return liftnn.scan(body, **axes)(model, x, XS)


def total(out):
    return sum(jnp.sum(x) for x in jax.tree.leaves(out))


def gradient(f):
    """The gradient of a function of a model and an array."""
    return lambda model, x: liftnn.grad(lambda model, x: total(f(model, x)))(model, x)["w"].value


def gradient_by_hand(f):
    return jax.grad(lambda w, x: total(f(w, x)))


LOOPS = {
    "scan": (scan, scanned),
    "scan that captures": (
        lambda model, x: liftnn.scan(lambda c, y: (of_model(model, c) + y, c))(x, XS),
        scanned,
    ),
    "map": (
        lambda model, x: liftnn.map(lambda y: of_model(model, y), XS),
        lambda w, x: jax.lax.map(lambda y: step(w, y), XS),
    ),
    "cond": (
        lambda model, x: liftnn.cond(x[0] > 0, of_model, lambda model, x: model.w + x, model, x),
        lambda w, x: jax.lax.cond(x[0] > 0, step, lambda w, x: w + x, w, x),
    ),
    "switch": (
        lambda model, x: liftnn.switch(1, [of_model, lambda model, x: model.w + x], model, x),
        lambda w, x: jax.lax.switch(1, [step, lambda w, x: w + x], w, x),
    ),
    "scan of remat": (
        lambda model, x: scan(model, x, liftnn.remat),
        lambda w, x: jax.lax.scan(
            lambda c, y: jax.checkpoint(lambda w, c, y: (step(w, c) + y, c))(w, c, y), x, XS
        ),
    ),
}
OTHERS = {
    "fori_loop": (
        lambda model, x: liftnn.fori_loop(0, 3, lambda i, c: (c[0], of_model(*c)), (model, x))[1],
        lambda w, x: jax.lax.fori_loop(0, 3, lambda i, c: step(w, c), x),
    ),
    "while_loop": (
        lambda model, x: liftnn.while_loop(
            lambda c: c[1][0] < 9, lambda c: (c[0], of_model(*c) + 1), (model, x)
        )[1],
        lambda w, x: jax.lax.while_loop(lambda c: c[0] < 9, lambda c: step(w, c) + 1, x),
    ),
    "jit": (liftnn.jit(of_model), jax.jit(step)),
    "vmap": (
        lambda model, x: liftnn.vmap(of_model, in_axes=(None, 0))(model, XS),
        lambda w, x: jax.vmap(step, in_axes=(None, 0))(w, XS),
    ),
    "vmap of scan": (
        lambda model, x: liftnn.vmap(scan, in_axes=(None, 0))(model, XS),
        lambda w, x: jax.vmap(scanned, in_axes=(None, 0))(w, XS),
    ),
    "grad": (gradient(of_model), gradient_by_hand(step)),
    "grad of jit": (gradient(liftnn.jit(of_model)), gradient_by_hand(jax.jit(step))),
    "grad of remat": (gradient(liftnn.remat(of_model)), gradient_by_hand(jax.checkpoint(step))),
    "hessian": (
        lambda model, x: jax.tree.leaves(liftnn.hessian(lambda model, x: of_model(model, x).sum())(model, x)),
        lambda w, x: jax.hessian(lambda w, x: step(w, x).sum())(w, x),
    ),
    "jacrev": (
        lambda model, x: jax.tree.leaves(liftnn.jacrev(of_model)(model, x)),
        lambda w, x: jax.jacrev(step)(w, x),
    ),
    "jvp": (
        lambda model, x: liftnn.jvp(of_model, (model, x), ({"w": model.w.value}, x)),
        lambda w, x: jax.jvp(step, (w, x), (w, x)),
    ),
    "vjp": (
        lambda model, x: jax.tree.leaves(liftnn.vjp(of_model, model, x)[1](x)),
        lambda w, x: jax.vjp(step, w, x)[1](x),
    ),
    "linearize": (
        lambda model, x: liftnn.linearize(of_model, model, x)[1]({"w": model.w.value}, x),
        lambda w, x: jax.linearize(step, w, x)[1](w, x),
    ),
}
CASES = {
    **LOOPS,
    **OTHERS,
    **{
        f"grad of {name}": (gradient(ours), gradient_by_hand(theirs))
        for name, (ours, theirs) in LOOPS.items()
    },
}


def operations(jaxpr):
    """The primitives of a jaxpr, each with those of the functions in its parameters."""
    found = []
    for equation in jaxpr.eqns:
        inner = [
            getattr(p, "jaxpr", p)
            for value in equation.params.values()
            for p in (value if isinstance(value, (tuple, list)) else [value])
            if hasattr(p, "eqns") or hasattr(p, "jaxpr")
        ]
        found.append((str(equation.primitive), [operations(x) for x in inner]))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_transform_has_the_operations_of_hand_written_jax(name):
    ours, by_hand = CASES[name]
    w = jnp.float32(0.5)
    jaxpr = jax.make_jaxpr(lambda w, x: ours(Holder(w=liftnn.Param(w)), x))(w, X)
    assert operations(jaxpr.jaxpr) == operations(jax.make_jaxpr(by_hand)(w, X).jaxpr)


@pytest.mark.parametrize("name", LOOPS)
def test_the_gradient_of_a_loop_is_equal_to_the_last_digit(name):
    ours, by_hand = LOOPS[name]
    w = jnp.float32(0.3)

    def loss(w, x):
        return total(ours(Holder(w=liftnn.Param(w)), x))

    actual = jax.jit(jax.grad(loss, (0, 1)))(w, X)
    expected = jax.jit(jax.grad(lambda w, x: total(by_hand(w, x)), (0, 1)))(w, X)
    assert [x.tolist() for x in actual] == [x.tolist() for x in expected]
