"""A container of a module that is passed, and that the function captures: right as in plain Python, or an error."""

from __future__ import annotations

import collections
import dataclasses
import types

import jax.numpy as jnp
import pytest

import liftnn


@dataclasses.dataclass
class Notes:
    size: int = 0


def set_size(x):
    x.size = x.size + 1


CONTAINERS = {
    "list": (list, lambda x: x.append(1), len),
    "dict": (dict, lambda x: x.update({len(x): 1}), len),
    "ordered dict": (collections.OrderedDict, lambda x: x.update({len(x): 1}), len),
    "set": (set, lambda x: x.add(len(x)), len),
    "deque": (collections.deque, lambda x: x.append(1), len),
    "namespace": (lambda: types.SimpleNamespace(size=0), set_size, lambda x: x.size),
    "dataclass": (Notes, set_size, lambda x: x.size),
}


def build(which):
    make, change, read = CONTAINERS[which]
    model = liftnn.Module()
    model.held, model.w = make(), liftnn.Param(jnp.ones(()))
    return model, change, read


def captured_as(how, held, read):
    """A function that reads the container that it captures."""
    if how == "closure":
        return lambda: read(held)
    if how == "function":
        inner = lambda: held  # noqa: E731
        return lambda: read(inner())
    box = types.SimpleNamespace(held=held)
    return lambda: read(box.held)


HOW = ("closure", "function", "object")


@pytest.mark.parametrize("transform", [liftnn.jit, liftnn.remat])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("which", CONTAINERS)
def test_a_change_that_the_captured_name_would_not_see_is_an_error(which, how, transform):
    model, change, read = build(which)
    look = captured_as(how, model.held, read)

    def step(model, x):
        change(model.held)
        return look() * x

    with pytest.raises(liftnn.TraceContextError, match=r"of args\[0\]\.held .*also captures it as"):
        transform(step)(model, 1.0)
    assert read(model.held) == 0


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("which", CONTAINERS)
def test_a_change_by_the_captured_name_is_undone_and_an_error(which, how):
    model, change, read = build(which)
    touch = captured_as(how, model.held, change)

    def step(model, x):
        touch()
        return read(model.held) * x

    with pytest.raises(liftnn.TraceContextError, match=r"args\[0\]\.held .* was changed"):
        liftnn.jit(step)(model, 1.0)
    assert read(model.held) == 0


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("which", CONTAINERS)
def test_reading_both_is_right_and_sees_changes_between_calls(which, how):
    model, change, read = build(which)
    look = captured_as(how, model.held, read)

    def step(model, x):
        model.w.value += 1
        return (look() + 10 * read(model.held)) * x

    call = liftnn.jit(step)
    for n in (0, 0, 1, 2, 2, 3):
        while read(model.held) < n:
            change(model.held)
        assert float(call(model, 1.0)) == 11 * n
    assert float(model.w.value) == 7.0
