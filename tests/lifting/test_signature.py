"""Which arguments `static_argnums`, `donate_argnames` and the like mean, for every kind of parameter."""

from __future__ import annotations

import functools

import pytest

from liftnn import errors
from liftnn._src.lifting.signature import Selected, select
from tests.raising import raises


def f(a, b, /, c, d=0, *, e=0):
    """Positional-only, ordinary and keyword-only parameters."""


def g(a, *rest, e=0, **others):
    """Variadic parameters."""


SELECTED = {
    "nothing": (f, None, None, (), ()),
    "empty": (f, (), [], (), ()),
    "a number gives the name": (f, 2, None, (2,), ("c",)),
    "a name gives the number": (f, None, "d", (3,), ("d",)),
    "negative": (f, -1, None, (3,), ("d",)),
    "several": (f, [2, -1], None, (2, 3), ("c", "d")),
    "positional-only has no name": (f, (0, 2), None, (0, 2), ("c",)),
    "keyword-only has no number": (f, None, ["e", "c"], (2,), ("e", "c")),
    "both": (f, 3, "e", (3,), ("e",)),
    "both disagree, as in jax": (f, 2, "d", (2,), ("d",)),
    "beyond *rest": (g, (0, 5), None, (0, 5), ("a",)),
    "negative with *rest": (g, -1, None, (-1,), ()),
    "any name with **others": (g, None, ("a", "z"), (0,), ("a", "z")),
    "partial": (functools.partial(f, 0, 0), None, "c", (0,), ("c",)),
    "partial with keyword": (functools.partial(f, c=1), (0, 1), None, (0, 1), ()),
    "no signature": (type, 1, "x", (1,), ("x",)),
}


@pytest.mark.parametrize("name", SELECTED)
def test_numbers_and_names_complete_each_other(name):
    function, argnums, argnames, nums, names = SELECTED[name]
    assert select(function, argnums, argnames, "static") == Selected(nums, names)


@pytest.mark.parametrize(
    "nums, count, expected",
    [
        ((0, 2), 3, {0, 2}),
        ((2,), 2, set()),
        ((-1,), 3, {2}),
        ((-4,), 3, set()),
        ((), 2, set()),
        ((0, -3), 3, {0}),
    ],
)
def test_positions_are_those_that_were_passed(nums, count, expected):
    assert Selected(nums, ()).positions(count) == expected


@pytest.mark.parametrize("nums, names, expected", [((), (), False), ((0,), (), True), ((), ("a",), True)])
def test_an_empty_selection_is_false(nums, names, expected):
    assert bool(Selected(nums, names)) is expected


ERRORS = {
    "too big": (
        4,
        None,
        (
            "static_argnums contains 4, but the function has 4 positional arguments.\n"
            "Count positions from 0; the positional arguments are: a, b, c, d."
        ),
    ),
    "too small": (
        -5,
        None,
        (
            "static_argnums contains -5, but the function has 4 positional arguments.\n"
            "Count positions from 0; the positional arguments are: a, b, c, d."
        ),
    ),
    "unknown": (
        None,
        "z",
        (
            "static_argnames contains 'z', but the function has no argument of that name.\n"
            "Check the spelling; the arguments are: a, b, c, d, e."
        ),
    ),
    "positional-only": (
        None,
        "a",
        (
            "static_argnames contains 'a', which is a positional-only argument.\n"
            "Pass its position in static_argnums instead."
        ),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_arguments_that_the_function_does_not_have_are_refused(name):
    argnums, argnames, text = ERRORS[name]
    with raises(errors.ArgumentError, text):
        select(f, argnums, argnames, "static")


def test_a_positional_only_name_is_refused_with_variadic_keywords_too():
    with raises(
        errors.ArgumentError,
        "donate_argnames contains 'a', which is a positional-only argument.\n"
        "Pass its position in donate_argnums instead.",
    ):
        select(lambda a, /, **others: None, None, "a", "donate")


@pytest.mark.parametrize("value", ["a", 1.5, (0, "a"), object])
def test_numbers_of_another_type_are_refused(value):
    with raises(
        errors.ArgumentTypeError,
        f"static_argnums must be an int or a sequence of ints, not {value!r}.\n"
        "Pass one position, such as `static_argnums=0`, or a tuple of positions.",
    ):
        select(f, value, None, "static")


@pytest.mark.parametrize("value", [1, ("c", 1), None.__class__])
def test_names_of_another_type_are_refused(value):
    with raises(
        errors.ArgumentTypeError,
        f"static_argnames must be a string or a sequence of strings, not {value!r}.\n"
        "Pass one name, such as `static_argnames='mode'`, or a tuple of names.",
    ):
        select(f, None, value, "static")
