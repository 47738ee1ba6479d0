"""Functions on live modules and a buffer that was donated: an error by path, and nothing is lost."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from tests.raising import raises
from tests.user_modules import Holder

import liftnn
from liftnn import errors


def trained():
    """A module after a donating step, and its State from before."""
    model = Holder(inner=Holder(w=liftnn.Param(jnp.ones(2))), n=liftnn.Variable(jnp.zeros(2)))
    before = liftnn.state(model)

    def step(model):
        model.inner.w.value += 1.0

    liftnn.jit(step, donate_argnums=0)(model)
    return model, before


def test_update_with_a_donated_array_changes_nothing():
    model, before = trained()
    with raises(
        errors.DonatedError,
        "The buffer of inner.w in the State was donated earlier and is gone.\n"
        "Keep the State of a copy, as in `liftnn.state(liftnn.clone(model))`: `state` shares its arrays with the "
        "module.",
    ):
        liftnn.update(model, before)
    assert model.inner.w.value.tolist() == [2.0, 2.0]


def test_clone_names_a_donated_array():
    model, before = trained()
    _, graphdef = liftnn.split(model)
    old = liftnn.merge(graphdef, before)
    with pytest.raises(
        errors.DonatedError, match=r"^The buffer of inner.w was donated earlier and is gone\."
    ):
        liftnn.clone(old)


def test_the_state_of_a_copy_survives_donation():
    model, _ = trained()
    best = liftnn.state(liftnn.clone(model))
    liftnn.jit(lambda model: setattr(model.inner.w, "value", -model.inner.w), donate_argnums=0)(model)
    liftnn.update(model, best)
    assert model.inner.w.value.tolist() == [2.0, 2.0]
