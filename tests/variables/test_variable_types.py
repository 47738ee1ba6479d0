"""The kinds of Variables that liftnn knows, and Empty."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import pytest

import liftnn

TYPES = (
    "Param", "BatchStat", "Cache", "Intermediate", "Perturbation", "RngState", "RngKey", "RngCount", "OptState",
    "MetricState", "LoRAParam",
)  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_every_kind_is_a_variable_without_a_dict(name):
    cls = getattr(liftnn, name)
    assert issubclass(cls, liftnn.Variable)
    assert not hasattr(cls(1.0), "__dict__")


def test_only_perturbations_random_state_and_adaptations_have_a_kind_above_them():
    pairs = {
        (a, b) for a in TYPES for b in TYPES if a != b and issubclass(getattr(liftnn, a), getattr(liftnn, b))
    }
    assert pairs == {
        ("Perturbation", "Intermediate"),
        ("RngKey", "RngState"),
        ("RngCount", "RngState"),
        ("LoRAParam", "Param"),
    }


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_there_is_one_empty(copied):
    assert copied(liftnn.Empty) is liftnn.Empty
    assert type(liftnn.Empty)() is not liftnn.Empty


def test_empty_is_false_and_a_pytree_without_leaves():
    assert not liftnn.Empty
    assert repr(liftnn.Empty) == "Empty"
    leaves, treedef = jax.tree.flatten(liftnn.Empty)
    assert leaves == []
    assert treedef.unflatten([]) is liftnn.Empty


def test_an_empty_variable_goes_through_jit():
    model = liftnn.Module()
    model.y = liftnn.Intermediate(liftnn.Empty)
    liftnn.jit(lambda m: m.sow(liftnn.Intermediate, "y", jnp.ones(2)))(model)
    assert [x.tolist() for x in model.y.value] == [[1, 1]]
