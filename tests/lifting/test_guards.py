"""Whatever leads to a captured module is seen when it changes, and nothing is searched while it does not."""

from __future__ import annotations

import pytest

import liftnn
import tests.lifting.object_captures  # noqa: F401
from liftnn.lifting import arguments
from tests.lifting.captures import CASES
from tests.transforms.modules import Affine, Holder

pytestmark = pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_seen_by_the_next_call_of_an_attribute(name):
    f, changes = CASES[name]()
    m = Holder(act=f)
    call = liftnn.jit(lambda m, x: m.act(x))
    assert float(call(m, 2.0)) == float(f(2.0))
    for change in changes:
        change()
        assert float(call(m, 2.0)) == float(f(2.0))
        assert float(call(m, 2.0)) == float(f(2.0))


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_seen_by_the_next_call(name):
    f, changes = CASES[name]()
    call = liftnn.jit(f)
    assert float(call(2.0)) == float(f(2.0))
    for change in changes:
        change()
        assert float(call(2.0)) == float(f(2.0))
        assert float(call(2.0)) == float(f(2.0))


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_searched_while_the_guards_hold(name, monkeypatch):
    f, _ = CASES[name]()
    call = liftnn.jit(f)
    call(2.0)
    searches = []
    find = arguments.find_captured
    monkeypatch.setattr(arguments, "find_captured", lambda *a: searches.append(a) or find(*a))
    for _ in range(3):
        call(2.0)
    assert searches == []
    assert call.n_traces == 1


def test_a_number_that_changes_between_calls_is_a_constant_as_in_jax(monkeypatch):
    m, factor = Affine(), 2.0
    call = liftnn.jit(lambda x: m(x) * factor)
    first = call(1.0)
    factor = 3.0
    searches = []
    monkeypatch.setattr(arguments, "find_captured", lambda *a: searches.append(a))
    assert call(1.0).tolist() == first.tolist()
    assert searches == []
