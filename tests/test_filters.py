"""Filters: what each matches, and in which order."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors
from liftnn._src import filters
from tests.raising import raises
from tests.user_modules import Holder

PARAM = liftnn.Param(jnp.ones(2), tag="lora")
STAT = liftnn.BatchStat(jnp.ones(2))
PERTURBATION = liftnn.Perturbation(jnp.ones(2))
ARRAY = jnp.ones(2)
PATH = ("encoder", "layers", 0, "w")

# filter, Variable or array, path, whether it matches
TABLE = [
    (liftnn.Param, PARAM, PATH, True),
    (liftnn.Param, STAT, PATH, False),
    (liftnn.Variable, STAT, PATH, True),
    (liftnn.Variable, ARRAY, PATH, False),
    (liftnn.Intermediate, PERTURBATION, PATH, True),
    (jax.Array, ARRAY, PATH, True),
    (jax.Array, PARAM, PATH, False),
    (np.ndarray, np.ones(1), PATH, True),
    (liftnn.OfType(liftnn.Param), PARAM, PATH, True),
    ("lora", PARAM, PATH, True),
    ("lora", STAT, PATH, False),
    ("lora", ARRAY, PATH, False),
    (liftnn.WithTag("other"), PARAM, PATH, False),
    (liftnn.PathContains("layers"), PARAM, PATH, True),
    (liftnn.PathContains("layer"), PARAM, PATH, False),
    (liftnn.PathContains(0), PARAM, PATH, True),
    (liftnn.PathContains("0"), PARAM, PATH, False),
    (liftnn.PathContains(False), PARAM, PATH, False),
    (lambda path, x: path[-1] == "w", PARAM, PATH, True),
    (lambda path, x: x.size > 2, PARAM, PATH, False),
    (..., ARRAY, (), True),
    (True, STAT, PATH, True),
    (None, PARAM, PATH, False),
    (False, PARAM, PATH, False),
    ([liftnn.BatchStat, "lora"], PARAM, PATH, True),
    ((liftnn.BatchStat, None), PARAM, PATH, False),
    ([], PARAM, PATH, False),
    (liftnn.Any(liftnn.BatchStat, liftnn.PathContains("w")), PARAM, PATH, True),
    (liftnn.Any(), PARAM, PATH, False),
    (liftnn.All(liftnn.Param, "lora"), PARAM, PATH, True),
    (liftnn.All(liftnn.Param, "other"), PARAM, PATH, False),
    (liftnn.All(), PARAM, PATH, True),
    (liftnn.Not(liftnn.Param), STAT, PATH, True),
    (liftnn.Not(...), STAT, PATH, False),
    (liftnn.All(liftnn.Not("lora"), [liftnn.Param, liftnn.BatchStat]), STAT, PATH, True),
]


@pytest.mark.parametrize("filter, x, path, matches", TABLE)
def test_a_filter_matches_what_it_says(filter, x, path, matches):
    assert bool(filters.to_predicate(filter)(path, x)) is matches


@pytest.mark.parametrize("filter, x, path, matches", TABLE)
def test_not_matches_the_rest(filter, x, path, matches):
    assert liftnn.Not(filter)(path, x) is not matches


@pytest.mark.parametrize("x", [3, 1.5, {"a": 1}, {liftnn.Param}])
def test_what_is_no_filter_is_an_error(x):
    with raises(
        errors.FilterError,
        f"{x!r} is not a filter.\n"
        "A filter is a type, a tag string, a predicate (path, variable), ..., None, or a list or tuple of filters.",
    ):
        filters.to_predicate(x)
    with pytest.raises(errors.FilterError, match=f"{re.escape(repr(x))} is not a filter"):
        liftnn.Any(liftnn.Param, x)


def test_the_first_match_wins():
    predicates = filters.to_predicates([liftnn.BatchStat, "lora", liftnn.Param, ...])
    assert [filters.first_match(predicates, PATH, x) for x in (PARAM, STAT, liftnn.Param(1.0), ARRAY)] == [
        1,
        0,
        2,
        3,
    ]
    assert filters.first_match(predicates[:1], PATH, PARAM) == -1


@pytest.mark.parametrize("everything", [..., True])
def test_a_filter_after_everything_is_an_error(everything):
    with raises(
        errors.FilterError,
        "Filter 1 of 3 matches everything, so later filters never match.\nPut `...` last.",
    ):
        filters.to_predicates([liftnn.Param, everything, liftnn.BatchStat])


@pytest.mark.parametrize(
    "make",
    [
        lambda: liftnn.OfType(liftnn.Param),
        lambda: liftnn.WithTag("a"),
        lambda: liftnn.PathContains(0),
        lambda: liftnn.Any(liftnn.Param, "a"),
        lambda: liftnn.All(liftnn.Param, "a"),
        lambda: liftnn.Not(liftnn.Param),
        lambda: filters.to_predicate(...),
        lambda: filters.to_predicate(None),
        lambda: filters.to_predicate([liftnn.Param, liftnn.Not("a")]),
    ],
)
def test_filters_are_equal_by_content(make):
    assert make() == make()
    assert hash(make()) == hash(make())


def test_filters_of_other_content_differ():
    different = [
        liftnn.OfType(liftnn.Param), liftnn.OfType(liftnn.BatchStat), liftnn.WithTag("a"), liftnn.PathContains("a"),
        liftnn.PathContains(1), liftnn.PathContains(True), liftnn.Any(liftnn.Param), liftnn.All(liftnn.Param),
        liftnn.Not(liftnn.Param), liftnn.Any(liftnn.Param, "a"), filters.to_predicate(...), filters.to_predicate(None),
    ]  # fmt: skip
    for i, one in enumerate(different):
        for j, two in enumerate(different):
            assert (one == two) == (i == j), (one, two)


def test_filters_print():
    assert repr(liftnn.Any(liftnn.Param, ..., None)) == f"Any({liftnn.OfType(liftnn.Param)!r}, ..., None)"
    assert repr(liftnn.Not("a")) == "Not(WithTag(tag='a'))"
    assert repr(liftnn.All()) == "All()"


# --- strings that match nothing


MODEL = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
SELECT = {
    "state": lambda f: liftnn.state(MODEL, f),
    "split": lambda f: liftnn.split(MODEL, f, ...),
    "pop": lambda f: liftnn.pop(MODEL, f),
    "State.filter": lambda f: liftnn.state(MODEL).filter(f),
    "State.split": lambda f: liftnn.state(MODEL).split(f, ...),
}


@pytest.mark.parametrize("verb", SELECT)
def test_a_name_is_not_a_tag(verb):
    with pytest.raises(
        errors.FilterError, match=r"^No Variable has the tag 'kernel'.*\n.*PathContains\('kernel'\)"
    ):
        SELECT[verb]("kernel")
    assert MODEL.kernel.value.shape == (2, 3)


def test_a_tag_that_is_the_name_of_its_variable_is_a_tag_beside_one_that_no_variable_has():
    model = Holder(kernel=liftnn.Param(1.0, tag="kernel"))
    with pytest.warns(liftnn.FilterWarning, match="No Variable has the tag 'lora'"):
        assert list(liftnn.state(model, ["kernel", "lora"])) == ["kernel"]


@pytest.mark.parametrize("verb", SELECT)
@pytest.mark.parametrize(
    "f", ["lora", liftnn.Any("lora", liftnn.BatchStat), ["lora"], liftnn.Not(liftnn.Not("lora"))]
)
def test_a_tag_that_no_variable_has_is_warned_of(verb, f):
    with pytest.warns(liftnn.FilterWarning) as caught:
        SELECT[verb](f)
    text = (
        "No Variable has the tag 'lora', so this filter selects nothing. A string selects the Variables with that tag, "
        "as in Param(value, tag='lora')."
    )
    assert [str(w.message) for w in caught] == [text]
    assert caught[0].filename == __file__


def test_a_tag_that_a_variable_has_is_not_warned_of():
    model = liftnn.Module()
    model.w, model.lora = liftnn.Param(1.0, tag="lora"), liftnn.Param(1.0)
    assert list(liftnn.state(model, "lora")) == ["w"]
    assert [list(s) for s in liftnn.state(model).split(liftnn.Param, ...)] == [["w", "lora"], []]
    first, second, _ = liftnn.split(
        model, liftnn.Param, ("lora", ...)
    )  # taken by the first filter: no mistake
    assert (list(first), list(second)) == (["w", "lora"], [])
    assert list(liftnn.state(liftnn.Module(), "lora")) == []


def test_a_tag_selects_streams_of_keys_and_no_rngs():
    rngs = liftnn.Rngs(0, dropout=1)
    model = liftnn.Sequential(liftnn.Dropout(0.5, rngs=rngs))
    model.rngs = rngs
    is_tagged = liftnn.WithTag("dropout")
    found = [path for path, x in liftnn.iter_graph(model) if is_tagged(path, x)]
    assert [path[-1] for path in found if path[-1] not in ("key", "count")] == ["rngs", "dropout"]
    assert liftnn.with_attributes(model, only="dropout", tag="noise")[0].rngs.tag == "noise"
