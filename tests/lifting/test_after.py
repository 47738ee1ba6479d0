"""The leaves of a result by slot: taking apart and putting together are inverse, and names are attribute paths."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import liftnn
from liftnn._src.graph.slots import OUTPUT, Slot
from liftnn._src.lifting.after import differing_types, names_after
from liftnn._src.lifting.contract import result_of
from tests.effects import Model, everything

X = jnp.ones(3)


def checking(check):
    """A transform that does nothing but look at its pure function."""

    def bind(plan, pure):
        def call(leaves):
            result = pure(leaves)
            check(plan, leaves, result)
            return result

        return call

    return lambda f: liftnn.lift(f, bind=bind, name="checking")


def test_leaves_by_slot_and_in_order_are_inverse():
    def check(plan, leaves, result):
        by_slot = plan.by_slot(leaves)
        assert len(by_slot) == len(leaves)
        assert list(map(id, plan.in_order(by_slot))) == list(map(id, leaves))
        again = result_of(result.change, result.by_slot)
        assert again.change == result.change
        assert list(map(id, again.leaves)) == list(map(id, result.leaves))
        assert len(set(result.slots)) == len(result.leaves)

    checking(check)(everything)(Model(), X)


def test_a_variable_that_was_not_written_can_be_written_in_the_result():
    model = Model().first

    def bind(plan, pure):
        written = next(slot for slot in plan.slots if plan.name(slot).endswith(".w"))
        return lambda leaves: pure(leaves).write({written: X})

    call = liftnn.lift(lambda model: model.b.value, bind=bind, name="writing")
    before = model.b.value
    assert call(model) is before
    assert model.w.value is X


def test_every_leaf_has_a_path():
    def check(plan, leaves, result):
        names = names_after(plan, result.change)
        assert {*plan.slots, *result.slots} <= names.keys()
        assert names[Slot(OUTPUT, 0)] == "the output[0]"
        assert "args[0].w (a Param)" in names.values()
        assert "args[0].note" in names.values()

    def f(model, x):
        model.note = x
        model.b.value = x
        return x, model

    checking(check)(f)(Model().first, X)


def test_types_differ_by_tree_shape_and_dtype_but_not_by_weakness():
    a = jnp.ones(3)
    types = {
        Slot(OUTPUT, 0): (a, jax.ShapeDtypeStruct((3,), jnp.float32)),
        Slot(OUTPUT, 1): (1.0, jnp.float32(1)),
        Slot(OUTPUT, 2): (a, jnp.ones(2)),
        Slot(OUTPUT, 3): ({"x": a}, {"x": a.astype(int)}),
        Slot(0): (a, (a, None)),
    }

    def check(plan, leaves, result):
        pairs = [(slot, x, y) for slot, (x, y) in types.items()]
        assert differing_types(plan, result.change, pairs) == [
            "the output[2]: float32[3] -> float32[2]",
            "the output[3]: {'x': float32[3]} -> {'x': int32[3]}",
            "args[0] (a Param): float32[3] -> (float32[3], None)",
        ]

    checking(check)(lambda v, x: (x, x, x, x))(liftnn.Param(X), X)
