"""State: order, filters, mapping, flat and pure dicts, and what JAX does with it."""

from __future__ import annotations

import copy
import pickle

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.alike import find_difference
from tests.raising import raises
from tests.strategies import Node

import liftnn
from liftnn import errors


def make_model():
    model = Node(
        z=liftnn.Param(jnp.ones(2), tag="t"),
        a=liftnn.BatchStat(jnp.zeros(1)),
        layers=[Node(w=liftnn.Param(jnp.full(1, float(i)))) for i in range(12)],
        n=1,
        x=jnp.arange(3.0),
    )
    model.tied = model.z
    return model


def make_state():
    return liftnn.state(make_model())


PATHS = [("z",), ("a",), *[("layers", i, "w") for i in range(12)], ("x",)]


# --- order


def test_a_state_is_in_attribute_order_and_lists_in_numeric_order():
    state = make_state()
    assert list(state.flat()) == PATHS
    assert list(state) == ["z", "a", "layers", "x"]
    assert list(state["layers"]) == list(range(12))


def test_dict_keys_keep_their_order_and_type():
    state = liftnn.state(Node(d={"b": liftnn.Param(1.0), 2: liftnn.Param(2.0), (1, "t"): liftnn.Param(3.0)}))
    assert list(state["d"]) == ["b", 2, (1, "t")]


def test_a_state_is_a_mapping():
    state = make_state()
    assert len(state) == 4
    assert "layers" in state
    assert "missing" not in state
    assert [list(x) if isinstance(x, liftnn.State) else type(x) for x in state.values()][:2] == [
        liftnn.Param,
        liftnn.BatchStat,
    ]
    assert [key for key, _ in state.items()] == ["z", "a", "layers", "x"]
    assert state.get("missing") is None
    assert isinstance(state["z"], liftnn.Param)
    assert isinstance(state["layers"], liftnn.State)
    assert state["layers"][3]["w"].value == 3.0


def test_a_missing_key_is_a_key_error_that_says_what_there_is():
    with pytest.raises(KeyError) as error:
        make_state()["kernel"]
    assert error.value.args == ("'kernel' is not in this State; it has 'z', 'a', 'layers', 'x'",)
    with pytest.raises(KeyError) as error:
        liftnn.State()["kernel"]
    assert error.value.args == ("'kernel' is not in this State; it has nothing",)


def test_a_state_holds_copies_and_its_variables_can_be_written():
    model = make_model()
    state = liftnn.state(model)
    state["z"].value = jnp.zeros(2)
    state["layers"][0]["w"].value = jnp.ones(1)
    assert model.z.value.tolist() == [1, 1]
    assert state["z"].value.tolist() == [0, 0]
    assert state["layers"][0]["w"].value == 1


def test_a_state_is_made_from_nested_mappings():
    w, x = liftnn.Param(1.0), jnp.ones(1)
    state = liftnn.State({"a": {"b": {0: w}}, "x": x, "s": liftnn.State({"y": x})})
    assert list(state.flat().items()) == [(("a", "b", 0), w), (("x",), x), (("s", "y"), x)]


@pytest.mark.parametrize(
    "pairs", [list, iter, lambda pairs: dict(pairs).items()], ids=["list", "iterator", "items"]
)
def test_a_state_is_made_from_pairs_as_a_dict_is(pairs):
    w, x = liftnn.Param(1.0), jnp.ones(1)
    state = liftnn.State(pairs([("a", {"b": w}), ("x", x)]))
    assert list(state.flat().items()) == [(("a", "b"), w), (("x",), x)]
    assert liftnn.State(liftnn.State({"a": {"b": w}}).items()).a.b is w


def test_flat_and_from_flat_are_inverse():
    state = make_state()
    assert liftnn.State.from_flat(state.flat()).flat() == state.flat()
    assert liftnn.State.from_flat(state.flat().items()).flat() == state.flat()
    state.flat().clear()
    assert list(state.flat()) == PATHS


LEAVES_ABOVE_OTHERS = {
    "first": [(("a",), 1), (("a", "c"), 2)],
    "last": [(("a", "c"), 2), (("a",), 1)],
    "deep": [(("a", 0, "c", "d"), 2), (("b",), 0), (("a",), 1)],
    "array": [(("a",), jnp.ones(1)), (("a", 0), jnp.ones(1))],
    "None": [(("a",), None), (("a", "c"), 2)],
}


@pytest.mark.parametrize("order", LEAVES_ABOVE_OTHERS)
def test_a_leaf_above_others_is_an_error_and_not_lost(order):
    with pytest.raises(errors.StructureError, match=r"^a cannot be a leaf of a State: other paths lead"):
        liftnn.State.from_flat(LEAVES_ABOVE_OTHERS[order])


@pytest.mark.parametrize("order", [1, -1])
def test_a_variable_is_above_the_leaves_in_its_metadata(order):
    leaves = {("a",): liftnn.Param(1.0), ("a", "c"): 2}
    assert liftnn.State.from_flat(list(leaves.items())[::order]).flat() == leaves


def test_the_state_of_a_variable_has_the_empty_path():
    state = liftnn.state(liftnn.Param(1.0))
    assert list(state.flat()) == [()]
    assert state.to_pure_dict() == 1.0
    state.replace_by_pure_dict(2.0)
    assert state.flat()[()].value == 2.0


# --- filter, split, merge


def test_filter_takes_what_matches_and_the_first_match_wins():
    state = make_state()
    assert list(state.filter(liftnn.BatchStat).flat()) == [("a",)]
    tagged, params = state.filter("t", liftnn.Param)
    assert list(tagged.flat()) == [("z",)]
    assert list(params.flat()) == PATHS[2:-1]
    assert state.filter(liftnn.BatchStat)["a"] is state["a"]


def test_split_divides_everything():
    params, rest = make_state().split(liftnn.Param, ...)
    assert list(params.flat()) == [PATHS[0], *PATHS[2:-1]]
    assert list(rest.flat()) == [PATHS[1], PATHS[-1]]
    assert list(make_state().split(...).flat()) == PATHS


def test_split_with_something_left_over_lists_it():
    with raises(
        errors.FilterError,
        "These Variables match none of the filters:\n"
        "  a\n"
        "  x\n"
        "Add `...` as the last filter to match the remaining Variables, or change a filter to match them.",
    ):
        make_state().split(liftnn.Param)


def test_a_long_list_of_paths_is_cut_short():
    with raises(
        errors.FilterError,
        "These Variables match none of the filters:\n  z\n"
        + "".join(f"  layers[{i}].w\n" for i in range(7))
        + "  ... and 5 more\n"
        "Add `...` as the last filter to match the remaining Variables, or change a filter to match them.",
    ):
        make_state().split(liftnn.BatchStat, liftnn.OfType(jax.Array))


def test_a_filter_after_everything_is_an_error():
    with raises(
        errors.FilterError,
        "Filter 0 of 2 matches everything, so later filters never match.\nPut `...` last.",
    ):
        make_state().filter(..., liftnn.Param)


def test_merge_puts_states_together_and_the_last_wins():
    params, rest = make_state().split(liftnn.Param, ...)
    assert set(params.merge(rest).flat()) == set(PATHS)
    new = liftnn.State({"z": liftnn.Param(9.0)})
    assert (params | rest | new)["z"] is new["z"]
    assert (new | params)["z"] is params["z"]
    assert (params | {"z": new["z"]})["z"] is new["z"]
    assert (liftnn.State({"a": {"b": 1}, "c": 2}) | {"a": 3}).flat() == {("a",): 3, ("c",): 2}
    assert (liftnn.State({"a": 3, "c": 2}) | {"a": {"b": 1}}).flat() == {("a", "b"): 1, ("c",): 2}
    with pytest.raises(TypeError, match=r"unsupported operand .*: 'State' and 'list'"):
        params | [1]


def test_map_keeps_types_and_metadata():
    state = make_state()
    new = state.map(lambda path, v: (len(path), path[-1]))
    assert [type(v) for v in new.flat().values()][:3] == [liftnn.Param, liftnn.BatchStat, liftnn.Param]
    assert (new["z"].value, new["z"].tag, new["layers"][2]["w"].value) == ((1, "z"), "t", (3, "w"))
    assert new["x"] == (1, "x")
    assert state["z"].value.tolist() == [1, 1]


def test_map_takes_a_variable_as_it_is():
    v = liftnn.BatchStat(1.0)
    assert make_state().map(lambda path, old: v)["z"] is v


# --- pure dicts


def test_a_pure_dict_has_the_values():
    pure = make_state().to_pure_dict()
    assert type(pure) is type(pure["layers"]) is dict
    assert [list(pure), list(pure["layers"])] == [["z", "a", "layers", "x"], list(range(12))]
    assert pure["z"].tolist() == [1, 1]
    assert pure["layers"][3]["w"].tolist() == [3]


def test_a_pure_dict_holds_dicts_of_its_own():
    v = liftnn.Variable({"k": [1]})
    liftnn.State({"v": v}).to_pure_dict()["v"]["k"].append(2)
    assert v.value == {"k": [1]}


def test_replace_by_pure_dict_is_the_inverse():
    state, new = make_state(), make_state().map(lambda path, v: v * 2 + 1)
    z = state["z"]
    state.replace_by_pure_dict(new.to_pure_dict())
    assert z.value.tolist() == [1, 1]
    assert type(state["z"]) is type(z)
    assert state["z"].get_metadata() == z.get_metadata()
    assert find_difference(list(state.flat().values()), list(new.flat().values())) is None


def test_replace_by_pure_dict_takes_integer_keys_as_strings():
    state = make_state()
    pure = jax.tree.map(lambda x: x + 1, state.to_pure_dict())
    pure["layers"] = {str(i): x for i, x in pure["layers"].items()}
    state.replace_by_pure_dict(pure)
    assert [float(state["layers"][i]["w"].value[0]) for i in range(12)] == [i + 1.0 for i in range(12)]


def test_replace_by_pure_dict_tells_an_integer_from_its_string_where_both_are_keys():
    state = liftnn.state(Node(d={1: liftnn.Param(1.0), "1": liftnn.Param(2.0)}))
    state.replace_by_pure_dict({"d": {"1": 20.0, 1: 10.0}})
    assert state.to_pure_dict() == {"d": {1: 10.0, "1": 20.0}}


def test_replace_by_pure_dict_takes_values_that_are_containers():
    state = liftnn.State({"a": liftnn.Variable({"k": 1, "m": [2]}), "b": liftnn.Variable(None)})
    state.replace_by_pure_dict({"a": {"k": 3, "other": 4}, "b": {}})
    assert (state["a"].value, state["b"].value) == ({"k": 3, "other": 4}, {})


WRONG = {
    "unknown": (
        {"z": 0, "a": 0, "x": 0, "b": {"c": 0}, "layers": {i: {"w": 0} for i in range(13)}},
        "unexpected:\n  b.c\n  layers[12].w\n",
    ),
    "another structure": ({"z": 0, "a": 0, "x": 0, "layers": [0]}, "unexpected:\n  layers\n"),
    "twice": (
        {"z": 0, "a": 0, "x": 0, "layers": {**{i: {"w": 0} for i in range(12)}, "3": {"w": 1}}},
        "unexpected:\n  layers['3'].w\n",
    ),
}


@pytest.mark.parametrize("values, lines", WRONG.values(), ids=WRONG)
def test_replace_by_a_pure_dict_that_does_not_fit_is_an_error_and_changes_nothing(values, lines):
    state = make_state()
    with raises(
        errors.StructureError,
        f"The values do not fit the State:\n{lines}"
        "Compare the paths above with those of the module: both sides must have the same Variables.",
    ):
        state.replace_by_pure_dict(values)
    assert find_difference(list(state.flat().values()), list(make_state().flat().values())) is None


def test_replace_by_a_part_of_a_pure_dict_leaves_the_rest():
    state, before = make_state(), make_state().to_pure_dict()
    state.replace_by_pure_dict({"layers": {"3": {"w": 7}}})
    assert state["layers"][3]["w"].value == 7
    before["layers"][3]["w"] = 7
    assert find_difference(state.to_pure_dict(), before) is None


def test_replace_by_a_value_that_no_variable_can_hold_changes_nothing():
    state = liftnn.State({"a": liftnn.Param(1.0), "b": liftnn.Param(2.0)})
    with raises(
        errors.ArgumentError,
        "A Variable holds arrays, not a Node.\nAssign it to an attribute of a Module instead.",
    ):
        state.replace_by_pure_dict({"a": 5.0, "b": Node()})
    assert state.to_pure_dict() == {"a": 1.0, "b": 2.0}


# --- JAX


def nested_values(x):
    """Plain nested dicts of the values, which JAX flattens by sorted keys: the oracle."""
    if isinstance(x, liftnn.State):
        return {key: nested_values(child) for key, child in x.items()}
    return x.value if isinstance(x, liftnn.Variable) else x


def test_a_state_is_a_pytree_of_its_values():
    state = make_state()
    values = nested_values(state)
    assert all(a is b for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(values), strict=True))
    assert len(jax.tree.leaves(state)) == len(PATHS)
    doubled = jax.tree.map(lambda x: 2 * x, state)
    assert list(doubled.flat()) == PATHS
    assert (type(doubled["z"]), doubled["z"].tag, doubled["z"].value.tolist()) == (liftnn.Param, "t", [2, 2])
    assert doubled["x"].tolist() == [0, 2, 4]


def test_a_value_that_is_a_pytree_is_a_subtree():
    state = liftnn.State(
        {"v": liftnn.Variable({"a": 1, "b": (2, 3)}), "e": liftnn.Intermediate(liftnn.Empty)}
    )
    assert jax.tree.leaves(state) == [1, 2, 3]
    new = jax.tree.map(lambda x: x * 10, state)
    assert new["v"].value == {"a": 10, "b": (20, 30)}
    assert new["e"].value is liftnn.Empty


def test_tree_functions_of_several_states_go_by_path():
    one, two = make_state(), make_state()
    total = jax.tree.map(jnp.add, one, jax.tree.map(lambda x: 3 * x, two))
    assert total["layers"][5]["w"].value == 20


def test_key_paths_name_the_attributes():
    state = liftnn.State({"a": {0: liftnn.Param({"k": 1.0})}, "b": jnp.ones(1)})
    names = jax.tree_util.tree_map_with_path(lambda path, x: jax.tree_util.keystr(path), state)
    assert names["a"][0].value == {"k": "['a'][0].value['k']"}
    assert names["b"] == "['b']"
    assert [repr(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]] == [
        "(DictKey(key='a'), DictKey(key=0), GetAttrKey(name='value'), DictKey(key='k'))", "(DictKey(key='b'),)",
    ]  # fmt: skip


def test_structures_of_states_are_equal_by_paths_types_and_metadata():
    def structure(**leaves):
        return jax.tree.structure(liftnn.State(leaves))

    base = structure(a=liftnn.Param(1.0, tag="t"))
    assert base == structure(a=liftnn.Param(2.0, tag="t"))
    assert hash(base) == hash(structure(a=liftnn.Param(2.0, tag="t")))
    for other in (
        structure(b=liftnn.Param(1.0, tag="t")),
        structure(a=liftnn.BatchStat(1.0, tag="t")),
        structure(a=liftnn.Param(1.0, tag="s")),
        structure(a=1.0),
    ):
        assert base != other


def test_a_state_goes_through_jax_transforms():
    state = make_state()
    grads = jax.jit(jax.grad(lambda s: (s["z"].value ** 2).sum() + s["layers"][1]["w"].value[0]))(state)
    assert type(grads) is liftnn.State
    assert grads["z"].value.tolist() == [2, 2]
    assert grads["layers"][1]["w"].value.tolist() == [1]
    stacked = jax.vmap(lambda s: s)(jax.tree.map(lambda x: jnp.stack([x, x]), state))
    assert stacked["x"].shape == (2, 3)


@pytest.mark.thorough
def test_optax_takes_a_state_as_its_parameters():
    params = make_state().filter(liftnn.Param)
    bare = {str(path): v.value for path, v in params.flat().items()}
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    grads, bare_grads = (jax.tree.map(lambda x: x + 1, p) for p in (params, bare))
    updates, _ = tx.update(grads, tx.init(params), params)
    bare_updates, _ = tx.update(bare_grads, tx.init(bare), bare)
    new, bare_new = optax.apply_updates(params, updates), optax.apply_updates(bare, bare_updates)
    for path, v in new.flat().items():
        np.testing.assert_allclose(v.value, bare_new[str(path)], rtol=1e-6)


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda s: pickle.loads(pickle.dumps(s)),
        lambda s: cloudpickle.loads(cloudpickle.dumps(s)),
    ],
)
def test_a_state_is_copied_and_pickled(copied):
    state = make_state()
    new = copied(state)
    assert list(new.flat()) == PATHS
    assert find_difference(list(state.flat().values()), list(new.flat().values())) is None
    assert jax.tree.structure(new) == jax.tree.structure(state)


# --- metadata that hold arrays


def test_what_stands_in_metadata_is_neither_in_the_pure_dict_nor_printed_twice():
    state = liftnn.state(
        Node(w=liftnn.Param(1.0, mask=np.arange(2), more=[liftnn.Param(3.0)]), b=liftnn.Param(2.0))
    )
    assert state.to_pure_dict() == {"w": 1.0, "b": 2.0}
    state.replace_by_pure_dict({"w": 5.0, "b": 6.0})
    assert (state["w"].value, state["w"].mask.tolist()) == (5.0, [0, 1])
    assert repr(state).count("mask") == 1
    assert list(state) == ["w", "b"]


def update_new(state):
    new = liftnn.State()
    new.update(state)
    return new


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s)), liftnn.State, update_new]
)
def test_a_copy_has_what_stands_in_metadata(copied):
    model = Node(w=liftnn.Param(1.0, scale=liftnn.Variable(2.0)), b=liftnn.Param(3.0))
    state, graphdef = liftnn.split(model)
    new = copied(state)
    assert list(new.flat()) == list(state.flat()) == [("w",), ("w", "scale"), ("b",)]
    assert liftnn.merge(graphdef, new).w.scale.value == 2.0


def test_an_entry_that_update_replaces_has_no_other_metadata():
    state = liftnn.state(Node(w=liftnn.Param(1.0, scale=liftnn.Variable(2.0))))
    state.update(state)
    assert list(state.flat()) == [("w",), ("w", "scale")]
    new = liftnn.State()
    new.update(state, w=liftnn.Param(4.0))
    assert list(new.flat()) == [("w",)]


# --- printing and identity


def test_a_state_prints_as_nested_dicts():
    state = liftnn.State({"a": {0: liftnn.Param(1.0)}, "b": {}, "c": 2})
    assert repr(state) == (
        "State({\n  'a': {\n    0: Param(\n      raw_value=1.0\n    )\n  },\n  'b': {},\n  'c': 2\n})"
    )
    assert repr(liftnn.State()) == "State({})"


def test_states_are_equal_by_identity():
    state = make_state()
    assert state == state
    assert state != make_state()
    assert {state: 1}[state] == 1
