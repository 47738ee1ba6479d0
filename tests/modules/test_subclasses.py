"""What records the calls of a module runs its methods as they are now, and no hook of its class."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import pytest

import liftnn

X = jnp.ones((2, 3))


def shape_by_tabulate(model):
    (shape,) = liftnn.tabulate(model, X).rows[0].outputs
    return shape.removeprefix("f32")


def shape_by_capture(model):
    out, state = liftnn.capture(model, liftnn.Intermediate, method_outputs=liftnn.Intermediate)(X)
    (recorded,) = state["__call__"].value
    assert recorded.shape == out.shape
    return str([*out.shape]).replace(" ", "")


RECORDINGS = pytest.mark.parametrize("shape_of", [shape_by_tabulate, shape_by_capture])


class Model(liftnn.Module):
    def __init__(self):
        self.linear = liftnn.Linear(3, 3, rngs=liftnn.Rngs(0))

    def __call__(self, x):
        return self.linear(x)


@RECORDINGS
def test_a_replaced_method_is_called(shape_of, monkeypatch):
    model = Model()
    assert shape_of(model) == "[2,3]"
    monkeypatch.setattr(Model, "__call__", lambda self, x: self.linear(x)[:1])
    assert shape_of(model) == "[1,3]"
    monkeypatch.setattr(liftnn.Linear, "__call__", lambda self, x: x[:, :1])
    assert shape_of(model) == "[1,1]"


class Registered(liftnn.Module):
    subclasses: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls, *, key, **options):
        super().__init_subclass__(**options)
        assert key not in Registered.subclasses
        Registered.subclasses[key] = cls


class RegisteredModel(Model, Registered, key="model"):
    pass


@RECORDINGS
def test_hooks_of_subclasses_are_not_called(shape_of):
    model = RegisteredModel()
    assert shape_of(model) == "[2,3]"
    assert Registered.subclasses == {"model": RegisteredModel}
    assert type(model) is RegisteredModel
