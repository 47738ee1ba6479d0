"""States as other tools see them: pytrees of nested dicts, mutable mappings, trees that checkpoints are made of.

Oracles: Flax NNX for key paths and checkpoints, plain nested dicts for the mapping, plain dicts of arrays for optax.
"""

import copy
import operator
import os
import pickle

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.same import assert_same

import liftnn

MAKERS = {
    "a layer": lambda of: of.Linear(2, 3, rngs=of.Rngs(0)),
    "layers": lambda of: of.Sequential(
        of.Linear(2, 3, rngs=of.Rngs(0)), of.relu, of.BatchNorm(3, rngs=of.Rngs(0))
    ),
    "more than ten layers": lambda of: of.Sequential(*[of.Linear(2, 2, rngs=of.Rngs(i)) for i in range(12)]),
    "random streams": lambda of: of.Dropout(0.5, rngs=of.Rngs(0)),
}


def both(name):
    return liftnn.state(MAKERS[name](liftnn)), nnx.state(MAKERS[name](nnx))


def texts(tree, **options):
    return [
        jax.tree_util.keystr(path, **options) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def assert_same_dicts(actual, expected):
    """Two nested dicts are equal, in any order."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    assert_same(jax.tree.leaves(actual), jax.tree.leaves(expected))


def is_variable(x):
    return isinstance(x, (liftnn.Variable, nnx.Variable))


# --- as a pytree


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", [name for name in MAKERS if name != "random streams"])
@pytest.mark.parametrize("options", [{}, {"simple": True, "separator": "/"}])
def test_key_paths_are_those_of_flax(options, name):
    ours, theirs = both(name)
    assert texts(ours, **options) == texts(theirs, **options)


@pytest.mark.parametrize("name", MAKERS)
def test_leaves_may_be_the_variables(name):
    ours, _ = both(name)
    variables = jax.tree.leaves(ours, is_leaf=is_variable)
    assert all(map(is_variable, variables))
    assert {id(v) for v in variables} == {id(v) for v in ours.flat().values()}
    names = jax.tree.map(lambda v: type(v).__name__, ours, is_leaf=is_variable)
    assert names.flat() == {path: type(v).__name__ for path, v in ours.flat().items()}


@pytest.mark.parametrize("name", MAKERS)
def test_the_tree_of_a_state_is_that_of_plain_dicts_of_its_values(name):
    ours, _ = both(name)
    plain = jax.tree.leaves(ours.to_pure_dict())
    assert all(a is b for a, b in zip(jax.tree.leaves(ours), plain, strict=True))
    rebuilt = jax.tree.unflatten(jax.tree.structure(ours), plain)
    assert list(rebuilt.flat()) == list(ours.flat())  # in the order of attributes


def test_the_order_of_keys_makes_no_other_tree():
    one = liftnn.State({"a": liftnn.Param(1.0), "b": liftnn.Param(2.0)})
    other = liftnn.State({"b": liftnn.Param(20.0), "a": liftnn.Param(10.0)})
    total = jax.tree.map(operator.add, one, other)
    assert (total.a.value, total.b.value) == (11.0, 22.0)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert hash(jax.tree.structure(one)) == hash(jax.tree.structure(other))


@pytest.mark.parametrize("other", [1, True, 1.0, np.int64(1)])
def test_keys_that_are_equal_but_of_other_types_make_another_tree(other):
    structure = jax.tree.structure(liftnn.State({1: 0.0}))
    assert (structure == jax.tree.structure(liftnn.State({other: 0.0}))) == (type(other) is int)


def test_a_state_is_no_leaf_of_jit_grad_vmap_and_scan():
    state = liftnn.State({"a": {0: liftnn.Param(jnp.ones(3))}, "b": jnp.arange(3.0)})
    doubled = jax.jit(lambda s: jax.tree.map(lambda x: 2 * x, s))(state)
    assert_same_dicts(doubled.to_pure_dict(), {"a": {0: 2 * jnp.ones(3)}, "b": 2 * jnp.arange(3.0)})
    grads = jax.grad(lambda s: (s.a[0].value * s.b).sum())(state)
    assert_same_dicts(grads.to_pure_dict(), {"a": {0: jnp.arange(3.0)}, "b": jnp.ones(3)})
    assert_same(jax.vmap(lambda s: s.a[0].value + s.b)(state), jnp.ones(3) + jnp.arange(3.0))
    carry, _ = jax.lax.scan(lambda s, _: (jax.tree.map(lambda x: x + 1, s), None), state, length=3)
    assert_same(carry.a[0].value, jnp.full(3, 4.0))


# --- optax


def test_optax_labels_by_path():
    params, _ = both("layers")
    params = params.filter(liftnn.Param)
    plain = params.to_pure_dict()
    grads = jax.tree.map(jnp.ones_like, params)

    def labels(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "trained" if "kernel" in jax.tree_util.keystr(path) else "frozen", tree
        )

    tx = optax.multi_transform({"trained": optax.sgd(0.1), "frozen": optax.set_to_zero()}, labels)
    updates, _ = tx.update(grads, tx.init(params), params)
    expected, _ = tx.update(jax.tree.map(jnp.ones_like, plain), tx.init(plain), plain)
    assert_same_dicts(updates.to_pure_dict(), expected)
    assert_same_dicts(
        optax.apply_updates(params, updates).to_pure_dict(), optax.apply_updates(plain, expected)
    )


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "tx", [optax.adamw(0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)), optax.lamb(0.1)]
)
def test_optax_takes_masks_and_norms_of_states(tx):
    params, _ = both("a layer")
    plain = params.to_pure_dict()
    for tree in (params, plain):
        tx.init(tree)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    expected, _ = tx.update(jax.tree.map(jnp.ones_like, plain), tx.init(plain), plain)
    assert_same_dicts(updates.to_pure_dict(), expected)


# --- Orbax


@pytest.fixture
def checkpointer():
    ocp = pytest.importorskip("orbax.checkpoint")
    with ocp.StandardCheckpointer() as made:
        yield made


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@pytest.mark.parametrize("name", ["a layer", "layers", "more than ten layers"])
def test_a_checkpoint_of_flax_is_read_into_a_state(name, checkpointer, tmp_path):
    ours, theirs = both(name)
    checkpointer.save(tmp_path / "flax", jax.tree.map(lambda x: x + 1, theirs))
    checkpointer.wait_until_finished()
    found = checkpointer.restore(tmp_path / "flax", abstract(ours))
    assert type(found) is liftnn.State
    expected = {path: np.asarray(v.get_value()) + 1 for path, v in nnx.to_flat_state(theirs)}
    assert_same({path: v.value for path, v in sorted(found.flat().items())}, dict(sorted(expected.items())))
    assert [type(v) for v in found.flat().values()] == [type(v) for v in ours.flat().values()]


@pytest.mark.parametrize("name", ["a layer", "layers"])
def test_flax_reads_a_checkpoint_of_a_state(name, checkpointer, tmp_path):
    ours, theirs = both(name)
    checkpointer.save(tmp_path / "ours", jax.tree.map(lambda x: x + 1, ours))
    checkpointer.wait_until_finished()
    found = checkpointer.restore(tmp_path / "ours", abstract(theirs))
    for path, v in nnx.to_flat_state(found):
        np.testing.assert_array_equal(v.get_value(), ours.flat()[path].value + 1)


def test_a_model_goes_through_a_checkpoint(checkpointer, tmp_path):
    model, new = MAKERS["layers"](liftnn), MAKERS["layers"](liftnn)
    model.layers[0].kernel.value += 1
    checkpointer.save(os.fspath(tmp_path / "model"), liftnn.state(model))
    checkpointer.wait_until_finished()
    liftnn.update(new, checkpointer.restore(os.fspath(tmp_path / "model"), abstract(liftnn.state(new))))
    assert_same(new, model)


# --- as a mapping

A, B, C = liftnn.Param(1.0), liftnn.Param(2.0), jnp.ones(1)


def start():
    return {"x": {"y": A, 0: B}, "z": C}


CHANGES = {
    "set": lambda d: d.__setitem__("n", A),
    "set below": lambda d: d["x"].__setitem__("n", A),
    "set a mapping": lambda d: d.__setitem__("n", {"m": {"k": A}}),
    "replace a mapping": lambda d: d.__setitem__("x", {"m": A}),
    "replace by a leaf": lambda d: d.__setitem__("x", A),
    "delete": lambda d: d.__delitem__("z"),
    "delete below": lambda d: d["x"].__delitem__(0),
    "delete nothing": lambda d: d.__delitem__("n"),
    "pop": lambda d: d.pop("z"),
    "pop nothing": lambda d: d.pop("n"),
    "pop with a default": lambda d: d.pop("n", 3),
    "popitem": lambda d: d.popitem(),
    "clear": lambda d: d.clear(),
    "setdefault that is there": lambda d: d.setdefault("z", A),
    "setdefault that is not there": lambda d: d.setdefault("n", A),
    "update": lambda d: d.update({"x": {"m": A}, "n": B}),
    "update by name": lambda d: d.update(n=A, z=B),
    "update by pairs": lambda d: d.update([("n", A)]),
    "get": lambda d: d.get("z"),
    "get nothing": lambda d: d.get("n", 5),
    "item that is not there": lambda d: d["n"],
    "in": lambda d: ("x" in d, "n" in d, 0 in d["x"]),
    "len": lambda d: (len(d), len(d["x"])),
    "keys": lambda d: (list(d), list(d["x"].keys())),
    "reversed": lambda d: list(reversed(d)),
}


def plain(x):
    """A State as plain dicts, anything else unchanged."""
    return {key: plain(child) for key, child in x.items()} if isinstance(x, dict) else x


def as_ids(x):
    """Nested dicts with the identities of their leaves, in order."""
    return [(key, as_ids(child)) for key, child in x.items()] if isinstance(x, dict) else id(x)


def run(change, d):
    try:
        out = change(d)
    except Exception as error:
        return type(error), None
    return (as_ids(plain(out)) if isinstance(out, dict) or is_variable(out) else repr(out)), None


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_of_a_state_do_what_they_do_to_a_dict(change):
    state, expected = liftnn.State(start()), start()
    assert run(change, state) == run(change, expected)
    assert as_ids(plain(state)) == as_ids(expected)
    assert all(type(x) is liftnn.State for x in below(state))


def below(state):
    """The State and all States in it."""
    yield state
    for x in state.values():
        if isinstance(x, dict):
            yield from below(x)


def test_attributes_are_entries():
    state = liftnn.State(start())
    assert state.x is state["x"]
    assert state.x.y is A
    state.x.n = B
    assert state["x"]["n"] is B
    del state.x.n
    assert "n" not in state.x
    assert {"x", "z"} <= set(dir(state))
    with pytest.raises(AttributeError, match="A State has no attribute or entry 'w'; its entries are: x, z"):
        state.w  # noqa: B018


def test_joins_of_states_join_what_is_below():
    one, other = {"x": {"y": A}, "z": C}, {"x": {"k": B}}
    expected = as_ids({"x": {"y": A, "k": B}, "z": C})
    for joined in (
        liftnn.State(one) | liftnn.State(other),
        liftnn.State(one) | other,
        one | liftnn.State(other),
        liftnn.State(one).merge(other),
        operator.ior(liftnn.State(one), other),
    ):
        assert type(joined) is liftnn.State
        assert as_ids(plain(joined)) == expected


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s)), liftnn.State.copy, liftnn.State],
)
def test_copies_have_dicts_of_their_own(copied):
    state = liftnn.State(start())
    new = copied(state)
    assert_same([v.value if is_variable(v) else v for v in new.flat().values()], [1.0, 2.0, C])
    new.x.n = B
    assert "n" not in state.x
    assert list(new.flat())[:3] == [*list(state.flat())[:2], ("x", "n")]


def test_lookups_do_not_depend_on_the_number_of_leaves():
    reads = []

    class Key(str):
        __slots__ = ()

        def __hash__(self):
            reads.append(1)
            return super().__hash__()

    def count(n):
        state = liftnn.State({str(i): {"w": liftnn.Param(0.0)} for i in range(n)})
        reads.clear()
        state[Key("3")]["w"]
        return len(reads)

    assert count(10) == count(1000)


# --- put into a module


def test_a_plain_dict_is_merged_and_updates():
    model = MAKERS["layers"](liftnn)
    _, graphdef = liftnn.split(model)
    plain_dict = jax.tree.map(lambda x: x + 1, liftnn.state(model).to_pure_dict())
    merged = liftnn.merge(graphdef, plain_dict)
    liftnn.update(model, plain_dict)
    assert_same_dicts(liftnn.state(merged).to_pure_dict(), plain_dict)
    assert_same_dicts(liftnn.state(model).to_pure_dict(), plain_dict)
    assert [type(v) for v in liftnn.state(model).flat().values()] == [
        type(v) for v in liftnn.state(MAKERS["layers"](liftnn)).flat().values()
    ]


@pytest.mark.parametrize(
    "lib, to_pure_dict",
    [(nnx, nnx.to_pure_dict), (liftnn, liftnn.State.to_pure_dict)],
    ids=["flax", "liftnn"],
)
def test_a_plain_dict_updates_variables_that_hold_dicts(lib, to_pure_dict):
    class Model(lib.Module):
        def __init__(self):
            self.cache = lib.Variable({"k": jnp.ones(2), "old": {1: jnp.ones(1)}})
            self.w = lib.Param(jnp.ones(2))

    model = Model()
    cache = model.cache
    plain_dict = jax.tree.map(lambda x: 2 * x, to_pure_dict(lib.state(model)))
    lib.update(model, plain_dict)
    assert model.cache is cache
    assert jax.tree.map(np.ndarray.tolist, jax.tree.map(np.asarray, cache.get_value())) == {
        "k": [2, 2],
        "old": {1: [2]},
    }
    lib.update(model, {"cache": {"new": jnp.zeros(1)}})
    assert list(cache.get_value()) == ["new"]
    assert model.w[...].tolist() == [2, 2]


def test_a_plain_dict_updates_a_shared_variable_that_holds_a_dict_by_any_path():
    model = liftnn.Module()
    model.a = model.b = liftnn.Variable({"k": 1.0})
    liftnn.update(model, {"b": {"k": 2.0}})
    assert model.a.value == {"k": 2.0}
    liftnn.update(model.a, {"k": 3.0})
    assert model.a.value == {"k": 3.0}


@pytest.mark.parametrize("wrong", [{"w": {"k": 1.0}}, {"cache": {"k": 2.0}, "x": {"k": 1.0}}])
def test_a_dict_for_a_variable_that_holds_no_dict_does_not_fit(wrong):
    model = liftnn.Module()
    model.cache, model.w = liftnn.Variable({"k": 1.0}), liftnn.Param(1.0)
    with pytest.raises(liftnn.StructureError, match="unexpected"):
        liftnn.update(model, wrong)
    assert (model.cache.value, model.w.value) == ({"k": 1.0}, 1.0)


def test_an_update_that_does_not_fit_lists_every_path_and_changes_nothing():
    model = MAKERS["layers"](liftnn)
    before = liftnn.state(model).to_pure_dict()
    wrong = {
        "layers": {0: {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(3, int)}, 2: {"scale": jnp.zeros(3)}}
    }
    with pytest.raises(liftnn.StructureError) as caught:
        liftnn.update(model, wrong)
    assert "layers[0].kernel: shape (3, 2) in the State, (2, 3) in the module" in str(caught.value)
    assert "layers[0].bias: int32[3] in the State, float32[3] in the module" in str(caught.value)
    assert_same_dicts(liftnn.state(model).to_pure_dict(), before)
    model.layers[0].kernel.value = jnp.ones((3, 2))  # an assignment is free
