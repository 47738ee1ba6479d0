"""A captured module of a transform that has returned is named by every transform that would use it."""

from __future__ import annotations

import queue

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn import errors

X = jnp.ones((3, 2))

TRANSFORMS = {
    "jit": lambda f: liftnn.jit(f)(X),
    "grad": lambda f: liftnn.grad(lambda x: f(x).sum())(X),
    "vjp": lambda f: liftnn.vjp(f, X),
    "jvp": lambda f: liftnn.jvp(f, (X,), (X,)),
    "remat": lambda f: liftnn.remat(f)(X),
    "vmap": lambda f: liftnn.vmap(f)(X),
    "scan": lambda f: liftnn.scan(lambda carry, x: (carry, f(x)))(0.0, X),
    "cond": lambda f: liftnn.cond(jnp.array(True), f, f, X),
    "jit of grad": lambda f: liftnn.jit(liftnn.grad(lambda x: f(x).sum()))(X),
}


@pytest.fixture(params=[jax.jit, liftnn.jit], ids=["jax", "liftnn"])
def model(request):
    box = queue.SimpleQueue()  # liftnn does not look into it

    @request.param
    def make():
        box.put(liftnn.Linear(2, 2, rngs=liftnn.Rngs(0)))
        return 0

    make()
    return box.get()


@pytest.mark.sample(2)
@pytest.mark.parametrize("call", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_captured_module_that_leaked_is_named(call, model):
    with pytest.raises(errors.TraceContextError, match=r"model\b.*\(leaked\)"):
        call(lambda x: model(x))


@pytest.mark.parametrize("model", [liftnn.jit], ids=["liftnn"], indirect=True)
@pytest.mark.parametrize("call", TRANSFORMS.values(), ids=TRANSFORMS)
def test_one_that_is_captured_and_not_used_does_no_harm(call, model):
    call(lambda x: x if model is not None else model)
