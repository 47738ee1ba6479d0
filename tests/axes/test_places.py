"""The parts of a result by place: taking apart and putting together are inverse, and names are paths."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from tests.effects import Model, everything

import liftnn
from liftnn.axes.places import (
    close_arguments,
    close_result,
    differing_types,
    name_places,
    open_arguments,
    open_result,
)

X = jnp.ones(3)


def checking(check):
    """A transform that does nothing but look at its pure call."""

    def bind(plan, pure):
        def call(values, arrays):
            result = pure(values, arrays)
            check(plan, values, arrays, result)
            return result

        return call

    return lambda f: liftnn.lift(f, bind=bind, name="checking")


def test_opening_and_closing_are_inverse():
    def check(plan, values, arrays, result):
        parts = open_arguments(plan, values, arrays)
        assert len(parts) == len(values) + len(arrays)
        assert [list(map(id, x)) for x in close_arguments(plan, parts)] == [
            list(map(id, x)) for x in (values, arrays)
        ]
        again = close_result(plan, result.change, open_result(plan, result))
        assert again.change == result.change
        same = jax.tree.map(lambda a, b: a is b, again, result)
        assert all(jax.tree.leaves(same))

    checking(check)(everything)(Model(), X)


def test_every_part_has_a_path():
    def check(plan, values, arrays, result):
        names = name_places(plan, result.change)
        assert {*open_arguments(plan, values, arrays), *open_result(plan, result)} <= names.keys()
        assert names["output", 0] == "the output[0]"
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
        ("output", 0): (a, jax.ShapeDtypeStruct((3,), jnp.float32)),
        ("output", 1): (1.0, jnp.float32(1)),
        ("output", 2): (a, jnp.ones(2)),
        ("output", 3): ({"x": a}, {"x": a.astype(int)}),
        ("value", 0): (a, (a, None)),
    }

    def check(plan, values, arrays, result):
        pairs = [(place, x, y) for place, (x, y) in types.items()]
        assert differing_types(plan, result.change, pairs) == [
            "the output[2]: float32[3] -> float32[2]",
            "the output[3]: {'x': float32[3]} -> {'x': int32[3]}",
            "args[0] (a Param): float32[3] -> (float32[3], None)",
        ]

    checking(check)(lambda v, x: (x, x, x, x))(liftnn.Param(X), X)
