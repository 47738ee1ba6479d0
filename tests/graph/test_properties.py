"""Random graphs with sharing, cycles and nested containers keep what they are through every verb."""

from __future__ import annotations

import copy
import pickle
import types

import hypothesis.strategies as st
import jax
import pytest
from hypothesis import given
from tests.alike import find_difference, is_static, open_object
from tests.strategies import build, graphs, mutations, recipes

import liftnn


@given(graphs())
def test_merge_is_the_inverse_of_split(model):
    assert find_difference(model, liftnn.merge(*reversed(liftnn.split(model)))) is None


@given(graphs(), st.permutations([liftnn.Param, liftnn.BatchStat, liftnn.Intermediate]))
def test_merge_is_the_inverse_of_split_by_filters(model, filters):
    *states, graphdef = liftnn.split(model, *filters, ...)
    assert find_difference(model, graphdef.merge(*reversed(states))) is None


@given(graphs())
def test_a_clone_is_alike(model):
    assert find_difference(model, liftnn.clone(model)) is None


@given(graphs(weak=False))  # which pickle cannot write, and deepcopy does not copy
def test_deepcopy_and_pickle_give_the_like(model):
    for new in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert find_difference(model, new) is None


@pytest.mark.thorough
@given(st.lists(graphs(weak=False), max_size=2), graphs(weak=False))
def test_a_tree_of_models_keeps_what_they_share(models, last):
    tree = (*models, {"all": [*models, last]}, last)
    assert find_difference(tree, liftnn.merge(*reversed(liftnn.split(tree)))) is None
    assert find_difference(tree, liftnn.clone(tree)) is None
    assert find_difference(tree, pickle.loads(pickle.dumps(tree))) is None


@given(graphs())
def test_a_copy_has_nothing_that_can_change_in_common_with_the_original(model):
    for new in (liftnn.clone(model), liftnn.merge(*reversed(liftnn.split(model)))):
        ours = {id(x) for _, x in liftnn.iter_graph(model) if is_mutable(x)}
        assert not ours & {id(x) for _, x in liftnn.iter_graph(new) if is_mutable(x)}


def is_mutable(x):
    return isinstance(x, (liftnn.Module, liftnn.Variable, list, dict, set, types.SimpleNamespace))


@given(recipes())
def test_the_same_graph_built_twice_has_equal_graphdefs(recipe):
    one, two = (liftnn.split(build(recipe))[-1] for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one.diff(two) == ""
    assert repr(one) == repr(two)


@given(recipes(), st.data())
def test_graphdefs_are_equal_exactly_if_the_graphs_are_alike(recipe, data):
    model, other = build(recipe), build(recipe)
    what = data.draw(mutations(other))
    alike = find_difference(model, other, values=False) is None
    one, two = liftnn.split(model)[-1], liftnn.split(other)[-1]
    assert (one == two) == alike, what
    assert bool(one.diff(two)) == (not alike), what
    assert not alike or hash(one) == hash(two)


@pytest.mark.thorough
@given(recipes(), recipes())
def test_graphdefs_of_any_two_graphs_are_equal_exactly_if_the_graphs_are_alike(one, two):
    one, two = build(one), build(two)
    assert (liftnn.split(one)[-1] == liftnn.split(two)[-1]) == (
        find_difference(one, two, values=False) is None
    )


@given(graphs())
def test_the_order_of_a_state_is_the_order_of_the_attributes(model):
    found = [path for path, x in liftnn.iter_graph(model) if is_leaf(x)]
    assert list(liftnn.state(model).flat()) == found


def is_leaf(x):
    return isinstance(x, (liftnn.Variable, jax.Array)) or type(x).__name__ == "ndarray"


@given(graphs())
def test_every_path_of_a_state_leads_to_what_it_names(model):
    state = liftnn.state(model)
    for path, x in state.flat().items():
        found = follow(model, path)
        if isinstance(found, liftnn.Variable):
            assert type(found) is type(x)
            assert found.raw_value is x.raw_value
        else:
            assert found is x


def follow(x, path):
    for key in path:
        by_name = isinstance(key, str) and not isinstance(x, dict)
        x = getattr(x, key) if by_name else x[key]
    return x


@given(recipes())
def test_update_makes_a_model_like_the_one_whose_state_it_is_given(recipe):
    model, other = build(recipe), build(recipe)
    state = liftnn.state(model).map(change_value)
    liftnn.update(model, state)
    assert find_difference(other, model, values=False) is None
    liftnn.update(other, liftnn.state(model))
    assert find_difference(model, other) is None
    liftnn.update(liftnn.clone(model), liftnn.state(other))


def change_value(path, x):
    value = x.raw_value if isinstance(x, liftnn.Variable) else x
    return value if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key) else 1 - value


@given(graphs())
def test_states_go_through_flat_pure_dicts_and_jax_trees_unchanged(model):
    state = liftnn.state(model)
    leaves, treedef = jax.tree.flatten(state)
    same = [liftnn.State.from_flat(state.flat()), treedef.unflatten(leaves), liftnn.State(state)]
    params, rest = state.split(liftnn.Param, ...)
    assert set((params | rest).flat()) == set(state.flat())
    for new in same:
        assert find_difference(list(state.flat().items()), list(new.flat().items())) is None
    state.replace_by_pure_dict(state.to_pure_dict())
    assert find_difference(list(state.flat().items()), list(same[0].flat().items())) is None


@given(graphs())
def test_find_shared_lists_exactly_the_paths_that_lead_to_one_object(model):
    paths, todo = {}, [((), model)]
    while todo:
        path, x = todo.pop()
        children = None if is_static(x) else open_object(x)
        if children is not None:
            paths.setdefault(id(x), []).append(path)
            if len(paths[id(x)]) == 1:
                todo += [((*path, k), child) for k, child in children if k != "raw_value"][::-1]
    assert liftnn.find_shared(model) == {first: others for first, *others in paths.values() if others}


@given(graphs(), st.sampled_from([liftnn.Param, liftnn.Intermediate, ...]))
def test_pop_takes_values_and_leaves_the_structure(model, which):
    before, clone = liftnn.split(model)[-1], liftnn.clone(model)
    popped = liftnn.pop(model, which)
    assert liftnn.split(model)[-1] == before
    assert all(isinstance(x, liftnn.Variable) for x in popped.flat().values())
    liftnn.update(model, popped)
    assert find_difference(clone, model) is None


@given(graphs())
def test_objects_print(model):
    for x in (model, *liftnn.split(model)):
        assert repr(x)
