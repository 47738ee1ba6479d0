"""Whatever line raises inside a traced function, every module is as it was before the call, and the next call works."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn._src.graph.graphdef import walk_tree
from tests import effects
from tests.effects import (
    EFFECTS,
    Effect,
    Model,
    draw_randomness,
    everything,
    read_only,
    set_other_kinds_of_value,
    set_shared_value,
    set_value,
    write_back_and_forth,
)
from tests.same import assert_same, has_tracer
from tests.transform_table import IN_PLACE, PAIRS, TRANSFORMS, WRITING, some

pytestmark = [pytest.mark.thorough, pytest.mark.filterwarnings("ignore::liftnn.CaptureWarning")]

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
    graphdef, objects, by_slot = walk_tree(model)
    values = [id(x._value) if hasattr(x, "_value") else 0 for x in objects]
    return graphdef, list(map(id, objects)), values, {slot: id(a) for slot, a in by_slot.items()}


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


@pytest.mark.part(2)
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


# --- captured objects, and retraces of a compiled function that knows the arguments


OF_VALUES = (
    read_only,
    set_value,
    set_shared_value,
    write_back_and_forth,
    set_other_kinds_of_value,
    draw_randomness,
)


def closure(effect: Effect, model: Model) -> Effect:
    return lambda other, x: effect(model, x)


def found_when_used(effect: Effect, model: Model) -> Effect:
    models = itertools.repeat(model)
    return lambda other, x: effect(next(models), x)


def captured_and_passed(effect: Effect, model: Model) -> Effect:
    return lambda other, x: (effect(other, x), effect(model, x))


CAPTURES = (closure, found_when_used, captured_and_passed)


@pytest.mark.part(2)
@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("effect", OF_VALUES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", WRITING)
def test_a_fault_at_any_line_changes_nothing_captured(name: str, effect: Effect, capture: Any) -> None:
    model = Model()
    other = model if capture is captured_and_passed else Model()
    before = picture(model), picture(other)
    for at in range(LINES[effect]):
        with pytest.raises(FaultError):
            TRANSFORMS[name](capture(Line(at).run(effect), model))(other, X)
        assert (picture(model), picture(other)) == before, f"line event {at}"
    assert not has_tracer(model)


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("name", WRITING)
def test_the_call_after_a_fault_with_a_captured_module_works(name: str, capture: Any) -> None:
    (model, other), (reference, other_reference) = (Model(), Model()), (Model(), Model())
    if capture is captured_and_passed:
        other, other_reference = model, reference
    last = LINES[set_shared_value] - 1
    for at in (0, last, None):
        try:
            out = TRANSFORMS[name](capture(Line(at).run(set_shared_value), model))(other, X)
        except FaultError:
            continue
    expected = capture(set_shared_value, reference)(other_reference, X)
    assert_same((out, model), (expected, reference))


def direct(effect: Effect, model: Model) -> Effect:
    return effect


OPTIONS = ({}, {"donate_argnums": 0}, {"donate_written": True})


@pytest.mark.parametrize("capture", [direct, *CAPTURES])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("effect", OF_VALUES, ids=lambda f: f.__name__)
def test_a_fault_in_a_retrace_of_a_known_call_changes_nothing(
    effect: Effect, options: dict[str, Any], capture: Any
) -> None:
    if capture is captured_and_passed and "donate_argnums" in options:
        pytest.skip("what is captured cannot be donated")
    model, reference = Model(), Model()
    other, other_reference = Model(), Model()
    if capture in (direct, captured_and_passed):
        other, other_reference = model, reference
    line = Line(None)
    f = liftnn.jit(capture(line.run(effect), model), **options)
    plain = capture(effect, reference)

    def assert_call_works() -> None:
        assert_same((f(other, X), model), (plain(other_reference, X), reference))

    for _ in range(3):
        assert_call_works()
    before = picture(model), picture(other)
    with jax.default_matmul_precision("highest"):  # part of the key of JAX's cache
        for at in range(LINES[effect]):
            line.at = at
            with pytest.raises(FaultError):
                f(other, X)
            assert (picture(model), picture(other)) == before, f"line event {at}"
    assert not has_tracer(model)
    line.at = None
    assert_call_works()
    with jax.default_matmul_precision("highest"):
        assert_call_works()


def test_there_are_as_many_cases_as_is_claimed() -> None:
    single = len(IN_PLACE) * sum(LINES[effect] for effect in EFFECTS)
    assert single + len(SAMPLE) * LINES_OF_A_PAIR >= 5_000
