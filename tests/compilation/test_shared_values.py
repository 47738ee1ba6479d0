"""Two Variables come to hold one container between calls: the next call is an error, as the first would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

import liftnn
from tests.raising import raises
from tests.user_modules import Holder


def one() -> Any:
    return jnp.ones(())


def put_value(model: Any) -> None:
    model.b.value = model.a.value


def put_raw_value(model: Any) -> None:
    model.b.set_raw_value(model.a.value)


def put_inner(model: Any) -> None:
    model.b.value["k"] = model.a.value["k"]


def put_part(model: Any) -> None:
    model.b["k"] = model.a.value["k"]


def put_new_in_both(model: Any) -> None:
    model.a.value = model.b.value = [one()]


KEY = ".value.k"
CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any], Callable[[Any], None], str]] = {
    "a list": (lambda: [one()], lambda: [one()], put_value, ".value"),
    "past hooks": (lambda: [one()], lambda: [one()], put_raw_value, ".value"),
    "in a dict": (lambda: {"k": [one()]}, lambda: {"k": [one()]}, put_inner, KEY),
    "as a part": (lambda: {"k": [one()]}, lambda: {"k": [one()]}, put_part, KEY),
    "in a tuple": (lambda: ([one()],), lambda: ([one()],), put_value, ".value[0]"),
    "in place of an array": (lambda: [one()], one, put_value, ".value"),
    "in place of two arrays": (one, one, put_new_in_both, ".value"),
}
"""The values at first, what happens, and the path of the list from each Variable."""


@pytest.mark.parametrize("first, second, share, path", CASES.values(), ids=CASES)
@pytest.mark.parametrize("calls", [1, 3])
def test_the_next_call_is_an_error(first, second, share, path, calls):
    model = Holder(a=liftnn.Variable(first()), b=liftnn.Variable(second()), n=liftnn.Variable(0))

    @liftnn.jit
    def count(model):
        model.n.value = model.n + 1

    for _ in range(calls):
        count(model)
    share(model)
    text = (
        f"args[0].b{path} and args[0].a{path} are the same list. Each Variable has its own list inside a transform, "
        "so a change through one would not be visible through the other.\n"
        "Share the Variable instead of the list, or copy the list for one of them."
    )
    with raises(liftnn.StructureError, text):
        count(model)
    assert int(model.n.value) == calls


def test_containers_that_are_not_shared_stay_on_the_fast_path(monkeypatch):
    model = Holder(a=liftnn.Variable([one()]), b=liftnn.Variable([one()]))
    add = liftnn.jit(lambda model: setattr(model.a, "value", [model.a.value[0] + 1]))
    add(model), add(model)
    monkeypatch.setattr(type(add), "_first_call", None)
    for x in (5, 7):
        model.b.value = [jnp.float32(x)]
        model.a.value = [jnp.float32(x)]
        add(model)
        assert float(model.a.value[0]) == x + 1
