"""Trees with fixed entries: an assignment sets the value of a Variable, and the structure stays."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.raising import raises

import liftnn
from liftnn import errors
from liftnn._src.optim.fixed_entries import FixedDict, FixedState, with_fixed_entries

REMEDY = "\nSet values only, or assign a whole new tree, such as `optimizer.opt_state = tree`."


def make():
    return with_fixed_entries(
        liftnn.State(
            {
                "a": liftnn.OptState(jnp.zeros(2)),
                "n": liftnn.OptState(jnp.array(3)),
                "b": {"c": liftnn.OptState(jnp.ones(1))},
            }
        )
    )


def make_dict():
    return FixedDict(rate=liftnn.OptState(jnp.float32(0.5)), n=liftnn.OptState(jnp.array(3)))


@pytest.mark.parametrize(
    "value", [[1.0, 2.0], np.array([1.0, 2.0]), jnp.array([1, 2]), liftnn.Param(jnp.array([1.0, 2.0]))]
)
def test_an_array_that_is_assigned_becomes_the_value_of_the_variable(value):
    tree = make()
    variable = tree["a"]
    if isinstance(value, list):
        with pytest.raises(errors.StructureError, match="takes one array, not a list"):
            tree["a"] = value
        return
    tree["a"] = value
    assert tree["a"] is variable
    assert tree.a is variable
    assert variable.value.tolist() == [1, 2]
    assert variable.dtype == jnp.float32


def test_attributes_and_update_set_values_too():
    tree = make()
    tree.a = jnp.ones(2)
    tree.update(n=4, b={"c": jnp.zeros(1)})
    assert tree.a.value.tolist() == [1, 1]
    assert int(tree.n) == 4
    assert tree.b.c.value.tolist() == [0]


def test_a_number_keeps_the_dtype():
    tree = make_dict()
    tree["rate"] = 1
    tree.update(n=np.int64(7))
    assert (tree["rate"].value.dtype, tree["rate"].value.weak_type) == (jnp.float32, False)
    assert (int(tree["n"]), tree["n"].dtype) == (7, jnp.int32)
    tree["rate"] *= 2
    assert float(tree["rate"]) == 2


@pytest.mark.parametrize(
    "key, value, text",
    [
        ("a", jnp.ones(3), "a is float32[2] and cannot be set to float32[3]."),
        ("a", 1.0, "a is float32[2] and cannot be set to float32[]."),
        ("n", 0.5, "n is int32[] and cannot be set to float32[]."),
        ("b", liftnn.State({"c": jnp.ones(2)}), "b.c is float32[1] and cannot be set to float32[2]."),
    ],
)
def test_a_value_that_does_not_fit_is_an_error(key, value, text):
    tree = make()
    with raises(
        errors.StructureError,
        text + "\nConvert it, or set the `value` of the Variable, which takes any array.",
    ):
        tree[key] = value
    jax.tree.map(np.testing.assert_array_equal, tree, make())


@pytest.mark.parametrize("made", [make, make_dict])
def test_entries_cannot_be_added_or_removed(made):
    tree, key = made(), next(iter(made()))
    for change in (
        lambda: tree.__setitem__("new", jnp.ones(1)),
        lambda: tree.setdefault("new", jnp.ones(1)),
        lambda: tree.update({key: tree[key].value + 1, "new": 1}),
        lambda: tree.__delitem__(key),
        lambda: tree.pop(key),
        tree.popitem,
        tree.clear,
    ):
        with pytest.raises(errors.StructureError, match="fixed"):
            change()
    assert tree.setdefault(key) is tree[key]
    jax.tree.map(np.testing.assert_array_equal, tree, made())


def test_a_subtree_takes_a_tree_of_the_same_structure():
    tree = make()
    with raises(errors.StructureError, "b takes the tree that a FixedState is here, not a dict." + REMEDY):
        tree["b"] = {"d": jnp.ones(1)}
    tree["b"] = liftnn.State({"c": jnp.full(1, 5.0)})
    assert tree.b.c.value.tolist() == [5]


@pytest.mark.parametrize("made", [make, make_dict])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_it_is_copied_and_pickled(made, copied):
    tree = made()
    new = copied(tree)
    assert type(new) is type(tree)
    assert list(new) == list(tree)
    jax.tree.map(np.testing.assert_array_equal, new, tree)
    key = next(iter(tree))
    assert new[key] is not tree[key]


@pytest.mark.parametrize("made", [make, make_dict])
def test_it_is_a_pytree_with_the_paths_of_a_dict(made):
    tree = made()
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    plain = jax.tree.map(lambda x: x, {**tree}) if made is make_dict else tree.to_pure_dict()
    expected = [path for path, _ in jax.tree_util.tree_flatten_with_path(plain)[0]]
    assert [p[: len(q)] for p, q in zip(paths, expected, strict=True)] == expected
    assert type(jax.tree.map(lambda x: 2 * x, tree)) is type(tree)
    assert list(jax.tree.map(lambda x: 2 * x, tree)) == list(tree)


def test_values_from_plain_dicts_are_set_in_the_variables():
    tree = make()
    variables = tree.flat()
    tree.replace_by_pure_dict({"a": jnp.ones(2), "b": {"c": np.full(1, 7.0)}})
    assert tree.to_pure_dict()["a"].tolist() == [1, 1]
    assert {path: x is variables[path] for path, x in tree.flat().items()} == dict.fromkeys(variables, True)
    assert [x.tolist() for x in tree.to_pure_dict()["b"].values()] == [[7]]
    with pytest.raises(errors.StructureError, match="cannot be set to"):
        tree.replace_by_pure_dict({"a": jnp.zeros(2), "n": jnp.zeros(3)})
    assert tree.a.value.tolist() == [1, 1]
    arrays = jax.tree.map(lambda v: v.value, tree, is_leaf=lambda x: isinstance(x, liftnn.Variable))
    arrays.replace_by_pure_dict({"a": jnp.zeros(2), "b": {"c": jnp.ones(1)}})
    assert (arrays["a"].tolist(), arrays["b"]["c"].tolist()) == ([0, 0], [1])


def test_values_from_plain_dicts_are_seen_by_a_compiled_step():
    def trained(transform):
        model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
        optimizer = liftnn.Optimizer(model, optax.adam(0.1))

        @transform
        def step(model, optimizer):
            optimizer.update(model, liftnn.grad(lambda m: (m(jnp.ones((4, 2))) ** 2).mean())(model))

        for _ in range(3):
            step(model, optimizer)
        optimizer.opt_state[0].mu.replace_by_pure_dict({"kernel": jnp.full((2, 3), 10.0)})
        for _ in range(3):
            step(model, optimizer)
        return model.kernel.value

    np.testing.assert_allclose(trained(liftnn.jit), trained(lambda f: f), rtol=1e-5)


def test_an_assignment_is_seen_by_a_compiled_function():
    model = liftnn.Module()
    model.tree = {"x": make()}
    f = liftnn.jit(lambda model: model.tree["x"].a.sum() + model.tree["x"].b.c.sum())
    assert float(f(model)) == 1
    model.tree["x"].a = jnp.ones(2)
    assert float(f(model)) == 3
    model.tree["x"]["b"] = {"c": jnp.full(1, 7.0)}
    assert (float(f(model)), f.n_traces) == (9, 1)


def test_arrays_in_a_tree_that_jax_has_made_can_be_replaced():
    tree = jax.tree.map(lambda v: v.value, make(), is_leaf=lambda x: isinstance(x, liftnn.Variable))
    model = liftnn.Module()
    model.tree = tree
    f = liftnn.jit(lambda model: model.tree["a"].sum())
    assert float(f(model)) == 0
    tree["a"] = jnp.ones(2)
    assert float(f(model)) == 2


def test_a_key_of_a_stream_takes_keys_only():
    tree = FixedDict(key=liftnn.OptState(jax.random.key(0)))
    tree["key"] = jax.random.key(1)
    assert tree["key"].value == jax.random.key(1)
    with pytest.raises(errors.StructureError, match="cannot be set to"):
        tree["key"] = 3


def test_a_value_goes_where_the_old_one_was():
    device = jax.devices()[0]
    tree = FixedDict(rate=liftnn.OptState(jax.device_put(jnp.float32(1), device)))
    tree["rate"] = 2.0
    assert tree["rate"].value.committed
    assert tree["rate"].value.devices() == {device}


def test_a_state_with_fixed_entries_is_a_state():
    tree = make()
    assert isinstance(tree, liftnn.State)
    assert isinstance(tree, FixedState)
    assert list(tree.flat()) == [("a",), ("n",), ("b", "c")]
    assert type(tree.map(lambda path, x: x)) is liftnn.State
    assert list(tree.filter(lambda path, x: x.ndim == 0)) == ["n"]


def test_the_other_way_in_optax_to_set_a_hyperparameter_works():
    model = liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))
    optimizer = liftnn.Optimizer(model, optax.inject_hyperparams(optax.adam)(learning_rate=0.1))
    variable = optimizer.opt_state.hyperparams["learning_rate"]
    assert optax.tree.get(optimizer.opt_state, "learning_rate") is variable
    optimizer.opt_state = optax.tree.set(optimizer.opt_state, learning_rate=0.25)
    assert optimizer.opt_state.hyperparams["learning_rate"] is variable
    assert float(variable) == 0.25
    optimizer.opt_state = optimizer.opt_state._replace(
        hyperparams={**optimizer.opt_state.hyperparams, "b1": 0.5}
    )
    assert float(optimizer.opt_state.hyperparams["b1"]) == 0.5
