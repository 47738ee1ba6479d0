"""Prefixes spread over what the arguments reach; results are grouped by prefix and come back."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import pytest
from tests.raising import raises
from tests.user_modules import Affine, Holder, Pair

import liftnn
from liftnn import errors
from liftnn._src.prefixes.groups import distinct, group, ungroup
from liftnn._src.prefixes.prefix import StateAxes, broadcast_over
from liftnn._src.prefixes.spread import result_prefixes, spread_arguments


def plan_of(*args):
    """The plan of a call with these arguments, and its dynamic leaves."""
    seen = []

    def bind(plan, pure):
        def call(leaves):
            seen.append((plan, leaves))
            return pure(leaves)

        return call

    liftnn.lift(lambda *args: None, bind=bind)(*args)
    return seen[0]


def prefixes(axes, *args):
    """The prefix of each dynamic leaf, by path."""
    plan, leaves = plan_of(*args)
    given = broadcast_over(axes, plan.graph.treedef.children()[0], "the positional arguments")
    found = spread_arguments(plan, given).of_all(plan.slots, leaves)
    return dict(zip(map(plan.name, plan.slots), found, strict=True))


def test_one_prefix_holds_for_everything():
    model = Holder(w=liftnn.Param(1.0), inner=[Holder(v=liftnn.Variable(2.0), x=jnp.ones(1))])
    assert prefixes(7, model, 2.0) == {
        "args[0].w": 7,
        "args[0].inner[0].v": 7,
        "args[1]": 7,
        "args[0].inner[0].x": 7,
    }


def test_each_argument_and_each_part_of_a_tree_has_its_own():
    axes = (0, {"a": None, "b": (1, 2)})
    found = prefixes(axes, Holder(w=liftnn.Param(1.0)), {"a": Holder(v=liftnn.Param(1.0)), "b": (1.0, 2.0)})
    assert found == {"args[0].w": 0, "args[1].a.v": None, "args[1].b[0]": 1, "args[1].b[1]": 2}


def test_state_axes_are_a_mapping_of_filter_to_axis():
    filters = [liftnn.Param, liftnn.BatchStat]
    axes = StateAxes([(filters, 1), (..., None)])
    assert isinstance(axes, Mapping)
    assert (axes[filters], axes[...], len(axes), axes.get(liftnn.Param)) == (1, None, 2, None)
    with pytest.raises(KeyError):
        axes[liftnn.Param]


def test_state_axes_decide_by_the_first_filter_that_matches():
    axes = StateAxes([(liftnn.PathContains("inner"), 1), (liftnn.Param, 0), (..., None)])
    model = Holder(
        w=liftnn.Param(1.0), s=liftnn.BatchStat(1.0), inner=Holder(w=liftnn.Param(1.0)), x=jnp.ones(1)
    )
    assert prefixes((axes, 0), model, 1.0) == {
        "args[0].w": 0,
        "args[0].s": None,
        "args[0].inner.w": 1,
        "args[1]": 0,
        "args[0].x": None,
    }


def test_filters_see_type_metadata_and_value():
    axes = StateAxes(
        {
            "tagged": 0,
            (lambda path, x: isinstance(x, liftnn.Variable) and jnp.ndim(x.value) == 2): 1,
            ...: None,
        }
    )
    model = Holder(
        a=liftnn.Param(jnp.ones(1), tag="tagged"), b=liftnn.Param(jnp.ones((1, 1))), c=liftnn.Param(1.0)
    )
    assert prefixes((axes,), model) == {"args[0].a": 0, "args[0].b": 1, "args[0].c": None}


def test_filters_see_the_whole_path_of_a_variable_in_a_state():
    state = liftnn.State({"a": {"w": liftnn.Param(jnp.ones(2))}, "b": {"w": liftnn.Param(jnp.ones(2))}})
    axes = liftnn.StateAxes({lambda path, x: path == ("a", "w"): 1, ...: None})
    for tree, entry in [(state, axes), ({"x": [state]}, axes), ({"x": state}, {"x": axes})]:
        assert list(prefixes((entry,), tree).values()) == [1, None]


def test_state_axes_may_be_a_state():
    affine = Affine(2.0)
    axes = liftnn.StateAxes(liftnn.state(affine).map(lambda path, x: 1 if path == ("w",) else None))
    found = prefixes((axes,), affine)
    assert {name: x for name, x in found.items() if x is not None} == {"args[0].w": 1}
    assert len(found) > 1


def test_state_axes_are_equal_and_hashable_by_content():
    pairs = {liftnn.Param: 0, ...: None}
    assert StateAxes(pairs) == StateAxes(list(pairs.items()))
    assert hash(StateAxes(pairs)) == hash(StateAxes(pairs))
    assert StateAxes(pairs) != StateAxes({liftnn.Param: 1, ...: None})
    assert repr(StateAxes(pairs)) == "StateAxes({OfType(Param): 0, ...: None})"


def test_equal_prefixes_of_one_variable_are_no_conflict():
    model = Pair()
    one, two = StateAxes({liftnn.Param: 0, ...: None}), StateAxes({liftnn.PathContains("w"): 0, ...: None})
    assert prefixes((one, 0), Holder(w=model.first.w), model.first.w) == {"args[0].w": 0}
    assert prefixes((one, two), Holder(w=model.first.w), Holder(w=model.first.w)) == {"args[0].w": 0}


def test_a_container_without_arrays_may_be_reached_with_two_prefixes():
    shared = Holder(note="static", names=["a"])
    assert prefixes((0, None), Holder(s=shared, w=liftnn.Param(1.0)), Holder(s=shared)) == {"args[0].w": 0}


def test_array_leaves_reached_with_two_prefixes_are_an_error():
    shared = Holder(x=jnp.ones(1))
    with raises(
        errors.AliasingError,
        "args[0].s and args[1] are the same Holder, but they have different prefixes: 0 and None.\n"
        "Use the same prefix for both, or pass `liftnn.clone(module)` for one of them.",
    ):
        prefixes((0, None), Holder(s=shared), shared)


def test_a_wrong_filter_is_refused_at_once():
    with raises(
        errors.FilterError,
        "3 is not a filter.\n"
        "A filter is a type, a tag string, a predicate (path, variable), ..., None, or a list or tuple of filters.",
    ):
        StateAxes({3: 0})


TREES = {
    "None": (None, (1, {"a": 2}), [None, None]),
    "int": (5, (1, {"a": 2}), [5, 5]),
    "tuple": ((1, 2), (1, {"a": 2, "b": 3}), [1, 2, 2]),
    "None in a tuple": ((None, 2), ((1, 1), 2), [None, None, 2]),
    "dict": (({"a": 1, "b": (2, None)},), ({"a": 0, "b": (0, [0, 0])},), [1, 2, None, None]),
    "state axes": ((StateAxes({...: 1}), 2), (1, 2), [StateAxes({...: 1}), 2]),
    "no leaves": ((1, 2), ((), None), []),
}


@pytest.mark.parametrize("name", TREES)
def test_a_prefix_is_spread_over_a_tree_as_jax_does(name):
    prefix, tree, expected = TREES[name]
    assert broadcast_over(prefix, jax.tree.structure(tree), "the tree") == expected


@pytest.mark.parametrize("prefix", [(1,), (1, 2, 3), [1, 2], {"a": 1}, (1, (2,))])
def test_what_is_no_prefix_is_refused(prefix):
    with raises(
        errors.ArgumentError,
        f"{prefix!r} is not a tree prefix of the tree: (*, *).\n"
        "Give one entry for the whole tree, or one for each subtree. A module counts as one leaf; use StateAxes "
        "(or StateSharding) to give its Variables different entries.",
    ):
        broadcast_over(prefix, jax.tree.structure((1, 2)), "the tree")


def test_the_prefixes_that_can_occur_are_distinct_and_none_is_last():
    axes = StateAxes({liftnn.Param: 3, liftnn.BatchStat: 0, ...: None})
    assert distinct([0, None, 1, axes, 0]) == [0, 1, 3, None]
    assert distinct([]) == [None]


def test_a_result_comes_back_from_its_groups():
    def f(model, x):
        model.w.value = model.w * 2
        model.new = Holder(v=liftnn.Param(x), array=x)
        return {"a": x, "b": [model, Affine()]}

    seen = []

    def bind(plan, pure):
        def call(leaves):
            result = pure(leaves)
            spread = spread_arguments(plan, [0, 1])
            found = result_prefixes(plan, spread, [0] * len(leaves), result, {"a": 2, "b": 0})
            groups, layout = group(result, found, [0, 1, 2, None])
            seen.append((found, groups))
            return ungroup(groups, layout)

        return call

    model, x = Affine(), jnp.ones(2)
    out = liftnn.lift(f, bind=bind)(model, x)
    found, groups = seen[0]
    # the output; `w`; the array leaf in what was attached; `new.v`, and the Variables of the new Affine
    assert found == [2, 0, 0, 0, 0, 0, 0]
    assert [len(g) for g in groups] == [6, 0, 1, 0]
    assert out["b"][0] is model
    assert model.new.array is x
    assert model.w.value.tolist() == [2.0] * 3


def test_a_known_object_in_the_output_conflicts_unless_settled():
    seen = []

    def bind(plan, pure):
        def call(leaves):
            seen.append((plan, pure(leaves)))
            return seen[-1][1]

        return call

    def write(m):
        m.w.value = m.w * 2
        return m

    liftnn.lift(write, bind=bind)(Affine())
    plan, result = seen[0]
    spread = spread_arguments(plan, [0])
    for out_prefix, settled in ((0, False), (None, False), (1, True)):
        assert result_prefixes(plan, spread, [0, 0, 0], result, out_prefix, settled=settled) == [0]
    with raises(
        errors.AliasingError,
        "args[0].w and the output.w are the same Param, but they have different prefixes: 0 and 1.\n"
        "Use the same prefix for both, or pass `liftnn.clone(module)` for one of them.",
    ):
        result_prefixes(plan, spread, [0, 0, 0], result, 1)
