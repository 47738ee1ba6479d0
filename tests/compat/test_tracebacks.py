"""Importing the stand-in replaces methods of liftnn's classes; errors stay the same and end in the user's line."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from tests import test_messages, test_tracebacks
from tests.messages.registry import MESSAGES
from tests.raising import OURS, caught, entries, has
from tests.user_modules import Affine

from liftnn.compat import nnx


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_of_liftnn_stays_the_same(name):
    test_messages.test_the_text_is_this_and_the_traceback_ends_in_the_users_line(name)


@pytest.mark.parametrize("change", test_tracebacks.WRITES)
def test_a_write_under_a_raw_transform_raises_at_its_line(change):
    test_tracebacks.test_a_write_under_a_raw_transform_raises_at_its_line(change)


def sow_a_value_that_cannot_be_joined(model):
    model.sow(nnx.Intermediate, "y", 1.0, reduce_fn=lambda xs, x: xs[x])


def sow_by_name(model):
    model.sow(name="y", value=1.0, variable_type=nnx.Intermediate, unknown=2)


def differ(model):
    return nnx.state(model) - 1


def replace_by_names(model):
    nnx.state(model).replace_by_pure_dict({"w": jnp.ones(3)}, 1)


def flatten(model):
    return nnx.State.from_flat_path(3)


def copy(model):
    return model.w.copy(1, 2)


def make(model):
    return nnx.Param.from_metadata(jnp.ones(3), {"ref": True})


def differentiate(model):
    return nnx.grad(f=differ)(model)


@pytest.mark.parametrize(
    "action",
    [
        sow_a_value_that_cannot_be_joined,
        sow_by_name,
        differ,
        replace_by_names,
        flatten,
        copy,
        make,
        differentiate,
    ],
)
def test_an_error_of_an_added_method_ends_in_the_users_line(action):
    error = caught(action, Affine())
    assert entries(error)[-1][0] == __file__
    assert not has(error, OURS)
    notes = getattr(error, "__notes__", [])
    assert len(notes) == len(set(notes))
