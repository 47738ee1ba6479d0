"""Whatever line raises inside a traced function, every module is as it was before the call, and the next call works."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from liftnn.graph.graphdef import walk_tree
from tests import effects
from tests.effects import EFFECTS, Effect, Model, everything
from tests.same import assert_same, has_tracer
from tests.transform_table import IN_PLACE, PAIRS, TRANSFORMS, some

pytestmark = pytest.mark.thorough

X = jnp.linspace(-1.0, 1.0, 3)
SAMPLE = some([pair for pair in PAIRS if {*pair} <= {*IN_PLACE}], "LIFTNN_FAULT_PAIRS", 16)
LINES_OF_A_PAIR = 4


class FaultError(Exception):
    """What is raised."""


class Line:
    """Raises at one line event of the code in `tests/effects.py`; counts them.

    Args:
      at: Which event; None for none.
    """

    def __init__(self, at: int | None):
        self.at = at
        self.count = 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename != effects.__file__:
            return None
        if event == "line":
            self.count += 1
            if self.count - 1 == self.at:
                raise FaultError
        return self

    def run(self, effect: Effect) -> Effect:
        """The effect, watched."""

        def watched(model: Model, x: jax.Array) -> Any:
            self.count = 0
            before = sys.gettrace()
            sys.settrace(self)
            try:
                return effect(model, x)
            finally:
                sys.settrace(before)

        return watched


def picture(model: Model) -> tuple[Any, ...]:
    """Structure, objects and arrays of a model, to be compared by identity."""
    graphdef, walk, arrays = walk_tree(model)
    values = [id(x._value) if hasattr(x, "_value") else 0 for x in walk.objects]
    bare = [id(a) for found in (arrays, *walk.arrays) for a in found]
    return graphdef, list(map(id, walk.objects)), values, bare


def count_lines(effect: Effect) -> int:
    """How many line events an effect has in the plain call."""
    line = Line(None)
    line.run(effect)(Model(), X)
    return line.count


LINES = {effect: count_lines(effect) for effect in (*EFFECTS, everything)}


def assert_nothing_is_lost(transform: Callable[[Effect], Effect], effect: Effect, lines: list[int]) -> None:
    model = Model()
    before = picture(model)
    for at in lines:
        line = Line(at)
        with pytest.raises(FaultError):
            transform(line.run(effect))(model, X)
        assert picture(model) == before, f"line event {at}"
    assert not has_tracer(model)


def assert_the_next_call_works(
    transform: Callable[[Effect], Effect], effect: Effect, lines: list[int]
) -> None:
    model, reference = Model(), Model()
    for at in (*lines, None):
        try:
            out = transform(Line(at).run(effect))(model, X)
        except FaultError:
            continue
    assert_same((out, model), (effect(reference, X), reference))


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", IN_PLACE)
def test_a_fault_at_any_line_changes_nothing(name: str, effect: Effect) -> None:
    assert_nothing_is_lost(TRANSFORMS[name], effect, list(range(LINES[effect])))


@pytest.mark.parametrize("outer, inner", SAMPLE)
def test_a_fault_at_any_line_under_two_transforms_changes_nothing(outer: str, inner: str) -> None:
    lines = sorted(random.Random(outer + inner).sample(range(LINES[everything]), LINES_OF_A_PAIR))
    assert_nothing_is_lost(lambda f: TRANSFORMS[outer](TRANSFORMS[inner](f)), everything, lines)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_call_after_a_fault_works(name: str) -> None:
    last = LINES[everything] - 1
    assert_the_next_call_works(TRANSFORMS[name], everything, [0, last // 2, last])


def test_there_are_as_many_cases_as_is_claimed() -> None:
    single = len(IN_PLACE) * sum(LINES[effect] for effect in EFFECTS)
    assert single + len(SAMPLE) * LINES_OF_A_PAIR >= 5_000
