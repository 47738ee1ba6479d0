"""A compiled function does not keep a module alive that it captures through a weak reference."""

from __future__ import annotations

import gc
import weakref

import pytest

import liftnn
from tests.user_modules import Affine

HOLDERS = {
    "set": lambda models: weakref.WeakSet(models),
    "list of references": lambda models: [weakref.ref(m) for m in models],
    "mapping of values": lambda models: weakref.WeakValueDictionary(enumerate(models)),
    "mapping of keys": lambda models: weakref.WeakKeyDictionary(dict.fromkeys(models, 1)),
    "plain object": lambda models: [Observer(m) for m in models],
}


class Observer:
    def __init__(self, model):
        self.model = weakref.ref(model)

    def __call__(self):
        return self.model()


def living(holder):
    """The models that a holder still refers to."""
    if isinstance(holder, list):
        return [m for reference in holder if (m := reference()) is not None]
    return list(holder.values()) if isinstance(holder, weakref.WeakValueDictionary) else list(holder)


@pytest.mark.parametrize("count, number", [(1, 0), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize("kept", [None, "captured", "passed"])
@pytest.mark.parametrize("name", HOLDERS)
def test_one_that_dies_is_gone_in_the_next_call(name, kept, count, number):
    models = [Affine(w, size=()) for w in (2.0, 3.0, 5.0)[:count]]
    other = Affine(7.0, size=())
    holder = HOLDERS[name](models)

    def total(x, *passed):
        found = sum(m(x) for m in living(holder))
        return found + (other(x) if kept == "captured" else 0.0) + sum(m(x) for m in passed)

    passed = (other,) if kept == "passed" else ()
    compiled = liftnn.jit(total)
    for _ in range(4):
        assert float(compiled(1.0, *passed)) == float(total(1.0, *passed))
    reference = weakref.ref(models.pop(number))
    gc.collect()
    assert reference() is None
    for _ in range(4):
        assert float(compiled(1.0, *passed)) == float(total(1.0, *passed))
