"""A layer with a weak reference to its parent: a compiled function does not keep the parent alive."""

from __future__ import annotations

import gc
import weakref

import jax.numpy as jnp
import pytest

import liftnn


class Child(liftnn.Module):
    def __init__(self, parent):
        self.parent = weakref.ref(parent)
        self.w = liftnn.Param(jnp.ones(()))

    def __call__(self, x):
        parent = self.parent()
        if parent is None:
            return self.w * x
        parent.calls.value = parent.calls.value + 1
        return self.w * x * parent.scale.value + parent.shift


class Parent(liftnn.Module):
    def __init__(self):
        self.scale, self.calls = liftnn.Variable(jnp.full((), 3.0)), liftnn.Variable(jnp.zeros(()))
        self.shift, self.others = jnp.zeros(()), [liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))]
        self.child = Child(self)


CALLS = {
    "passed": lambda child: liftnn.jit(lambda child, x: child(x)),
    "in a tuple": lambda child: liftnn.jit(lambda held, x: held[0](x)),
    "captured": lambda child: liftnn.jit(lambda x: child(x)),
    "a method": lambda child: liftnn.jit(child.__call__),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_parent_is_seen_while_it_lives_and_dies_when_nothing_else_holds_it(name):
    """Oracle: the call without `jit`."""
    parent = Parent()
    child = parent.child
    f = CALLS[name](child)

    def call():
        args = {"passed": (child,), "in a tuple": ((child,),)}.get(name, ())
        expected = float(child(2.0))
        assert float(f(*args, 2.0)) == expected
        return expected

    assert [call() for _ in range(4)] == [6] * 4
    assert float(parent.calls.value) == 8
    assert f.n_traces == 1
    parent.scale.value, parent.shift = jnp.full((), 4.0), jnp.ones(())
    assert [call() for _ in range(3)] == [9] * 3
    alive = [weakref.ref(x) for x in (parent, parent.scale, parent.others[0])]
    del parent
    gc.collect()
    assert [r() for r in alive] == [None] * 3
    assert [call() for _ in range(3)] == [2] * 3


def test_a_parent_that_something_strong_reaches_too_stays():
    parent = Parent()
    child = parent.child
    child.other = [parent]
    f = liftnn.jit(lambda child, x: child(x))
    reference = weakref.ref(parent)
    del parent
    for _ in range(4):
        assert float(f(child, 2.0)) == 6
    gc.collect()
    assert reference() is not None
