"""`update` and `pop` are complete or have changed nothing, also if an exception comes in between."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from tests.alike import find_difference
from tests.interrupted import interruptions
from tests.modules.test_update import doubled
from tests.strategies import Frozen, Node

import liftnn


def of_many_kinds():
    return Node(
        w=liftnn.Param(jnp.ones(2), tag="old"),
        n=liftnn.BatchStat(jnp.ones(())),
        array=jnp.ones(3),
        frozen=Frozen(jnp.ones(2)),
        cache=[liftnn.Intermediate(jnp.ones(4)), liftnn.Intermediate(jnp.ones(4))],
    )


WRITING = (
    "modules/update.py",
    "modules/verbs.py",
    "graph/merge.py",
    "graph/undo.py",
    "variables/variable.py",
    "variables/storage.py",
)


def test_an_interrupted_update_has_set_everything_or_nothing():
    old, new, models = of_many_kinds(), of_many_kinds(), []
    liftnn.update(new, doubled(liftnn.state(new)))

    def make():
        model = of_many_kinds()
        models.append(model)
        return lambda: liftnn.update(model, doubled(liftnn.state(model)))

    found = set()
    for at in interruptions(make, *WRITING):
        is_old, is_new = (find_difference(models[-1], x) is None for x in (old, new))
        assert is_old or is_new, f"line event {at}"
        found.add(is_new)
    assert found == {False, True}


def test_an_interrupted_pop_leaves_the_values():
    models = []

    def make():
        model = of_many_kinds()
        models.append(model)
        return lambda: liftnn.pop(model, liftnn.Intermediate)

    for at in interruptions(make, *WRITING):
        assert find_difference(models[-1], of_many_kinds()) is None, f"line event {at}"


def test_an_update_of_an_array_that_a_class_refuses_changes_nothing():
    class Fixed(Node):
        def __setattr__(self, name, value):
            if name == "array" and hasattr(self, "array"):
                raise AttributeError("array is fixed")
            super().__setattr__(name, value)

    model = Fixed(w=liftnn.Param(jnp.ones(2)), other=jnp.ones(2), array=jnp.ones(3))
    with pytest.raises(AttributeError, match="array is fixed"):
        liftnn.update(model, doubled(liftnn.state(model)))
    assert model.w.value.tolist() == model.other.tolist() == [1, 1]
