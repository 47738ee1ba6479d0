"""Metadata: an immutable mapping, equal by content, that knows whether it could change."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.raising import raises
from tests.strategies import Node

import liftnn
from liftnn import errors
from liftnn._src.variables.metadata import EMPTY, HOOK_NAMES, Metadata


def double(variable, x):
    return 2 * x


def test_the_five_hook_kinds_are_always_there():
    assert dict(Metadata({})) == dict.fromkeys(HOOK_NAMES, ())
    assert len(Metadata({})) == 5


def test_items_come_after_the_hooks_in_the_order_given():
    metadata = Metadata({"b": 1, "set_value_hooks": double, "a": 2})
    assert list(metadata) == [*HOOK_NAMES, "b", "a"]
    assert len(metadata) == 7
    assert metadata["set_value_hooks"] == (double,)


def test_a_name_that_was_not_given_is_a_key_error():
    with pytest.raises(KeyError, match="tag"):
        Metadata({})["tag"]


def test_entries_leave_out_empty_hooks_and_are_a_copy():
    metadata = Metadata({"a": 1, "get_value_hooks": ()})
    entries = metadata.entries
    assert entries == {"a": 1}
    entries["a"] = 2
    assert metadata["a"] == 1


def test_no_items_share_one_object():
    assert Metadata.of({}) is EMPTY
    assert Metadata.of({"a": 1}) is not EMPTY


def test_printing_shows_a_dict():
    assert repr(Metadata({"a": 1})) == repr({**dict.fromkeys(HOOK_NAMES, ()), "a": 1})


def test_a_hook_that_is_no_callable_is_an_error():
    with raises(
        errors.ArgumentError,
        "get_value_hooks must be a callable or a sequence of callables, not 3.\nPass get_value_hooks=f, or "
        "get_value_hooks=(f, g) to call f first and then g.",
    ):
        Metadata({"get_value_hooks": 3})


@pytest.mark.parametrize(
    "items",
    [
        {"a": 1, "b": ("x", None)},
        {"a": float("nan")},
        {"a": double, "get_value_hooks": (double,)},
        {"a": [1, {"b": (2, [3])}]},
        {"a": np.arange(3)},
        {"a": jnp.arange(3)},
        {"a": {1, 2}},
    ],
    ids=["fixed", "nan", "function", "list", "numpy", "jax", "set"],
)
def test_metadata_of_equal_content_are_equal_and_hash_alike(items):
    one, two = Metadata(items), Metadata(copy.deepcopy(items))
    three = pickle.loads(pickle.dumps(Metadata(items)))
    assert one == two == three
    assert hash(one) == hash(two) == hash(three)


@pytest.mark.parametrize(
    "a, b",
    [
        (1, True),
        (0.0, -0.0),
        ([1], [True]),
        ([0.0], [-0.0]),
        ({"x": 1}, {"x": True}),
        ({1: 2}, {True: 2}),
        ([1], (1,)),
        ([1], [1, 2]),
        (np.arange(3), np.arange(4)),
        (np.arange(3), np.arange(3.0)),
        (jnp.zeros(2), jnp.ones(2)),
        ({1}, {True}),
        (Node(), Node()),
        (liftnn.Param(1.0), liftnn.Param(1.0)),
    ],
    ids=str,
)
def test_metadata_of_different_content_differ(a, b):
    assert Metadata({"a": a}) != Metadata({"a": b})
    assert Metadata({"a": a}) != Metadata({"b": a})
    assert Metadata({"a": a}) != Metadata({"a": a, "b": b})
    assert Metadata({"a": a}) == Metadata({"a": a})


def test_arrays_that_are_traced_compare_by_identity():
    def f(x, y):
        assert Metadata({"a": x}) == Metadata({"a": x})
        assert Metadata({"a": x}) != Metadata({"a": y})
        return x

    assert jax.jit(f)(1.0, 1.0) == 1.0


def test_metadata_and_a_dict_are_not_equal():
    assert Metadata({"a": 1}) != {"a": 1}


class Hooked(liftnn.Module):
    scale = 1

    def hook(self, variable, x):
        return self.scale * x


KEPT = Node()


@dataclasses.dataclass
class Layout:
    axes: tuple = ()


@pytest.mark.parametrize(
    "value",
    [
        [1],
        {"a": 1},
        np.arange(2),
        Node(),
        liftnn.Param(1.0),
        Layout(),
        ([1],),
        (Node(),),
        Hooked().hook,
        functools.partial(double, Node()),
        functools.partial(double, variable=Hooked().hook),
        (functools.partial(functools.partial(double, Node()), 1),),
        double,
        (double,),
        functools.partial(double, 1),
        jax.nn.initializers.variance_scaling(double, "fan_in", "normal"),
        functools.wraps(jnp.sin)(lambda x: jnp.sin(x)),
        weakref.ref(KEPT),
        types.SimpleNamespace(a=1),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_value_that_could_change_leaves_metadata_without_a_key(value):
    assert Metadata({"a": value}).key is None


@pytest.mark.parametrize(
    "value",
    [
        1,
        0.5,
        "a",
        None,
        ("x", (1,)),
        jax.nn.initializers.ones,
        functools.partial(max, 1),
        max,
        jnp.float32,
        jax.nn.relu,
    ],
)
def test_immutable_values_have_a_key(value):
    assert Metadata({"a": value}).key is not None


def make_scale(factor):
    def scale(variable, x):
        return x * factor

    def change(new):
        nonlocal factor
        factor = new

    return scale, change


def test_a_hook_whose_closure_is_rebound_is_seen():
    scale, change = make_scale(2.0)
    model = Node(w=liftnn.Param(jnp.ones(()), get_value_hooks=scale))
    before = liftnn.split(model)[-1]
    assert before == liftnn.split(model)[-1]
    change(3.0)
    assert before != liftnn.split(model)[-1]
    assert liftnn.grad(lambda model: model.w.value)(model)["w"].raw_value == 3.0


def test_pickle_keeps_content():
    metadata = Metadata({"get_value_hooks": double, "a": [1]})
    assert dict(pickle.loads(pickle.dumps(metadata))) == dict(metadata)
    assert pickle.loads(pickle.dumps(EMPTY)) is EMPTY


def test_states_of_equal_models_map_together_whatever_their_metadata():
    def make():
        return liftnn.state(Node(w=liftnn.Param(jnp.ones(2), mask=np.arange(2), axes=[1], scale=jnp.ones(1))))

    total = jax.tree.map(jnp.add, make(), make())
    assert total["w"].value.tolist() == [2, 2]


@pytest.mark.parametrize("value", [1, [1]], ids=["immutable", "mutable"])
def test_the_order_of_metadata_does_not_matter(value):
    """As in Flax NNX and in a dict."""
    one, two = nnx.Param(jnp.ones(2), a=1, b=2), nnx.Param(jnp.ones(2), b=2, a=1)
    assert jax.tree.map(jnp.add, one, two)[...].tolist() == [2, 2]
    one, two = liftnn.Param(jnp.ones(2), a=value, b=2), liftnn.Param(jnp.ones(2), b=2, a=value)
    assert jax.tree.map(jnp.add, one, two)[...].tolist() == [2, 2]
    assert one._metadata == two._metadata
    assert hash(one._metadata) == hash(two._metadata)
    assert list(two.get_metadata()) == ["b", "a"]


def test_branches_may_set_metadata_in_another_order():
    def first(variable):
        variable.a = 1
        variable.b = 2

    def second(variable):
        variable.set_metadata(b=2, a=1)

    variable = liftnn.Param(1.0)
    liftnn.jit(lambda v, p: liftnn.cond(p, first, second, v))(variable, True)
    assert variable.get_metadata() == {"a": 1, "b": 2}


@pytest.mark.parametrize("wrap", [lambda hook: hook, lambda hook: functools.partial(functools.partial(hook))])
def test_a_hook_that_is_a_method_of_a_module_is_the_clone_s_method_in_a_clone(wrap):
    model = Hooked()
    model.scale = 2
    model.w = liftnn.Param(3.0, get_value_hooks=wrap(model.hook))
    clone = liftnn.clone(model)
    clone.scale = 5
    assert (model.w.value, clone.w.value) == (6.0, 15.0)


@pytest.mark.parametrize("slots", [False, True])
def test_a_dataclass_is_taken_over_as_a_copy(slots):
    options = dataclasses.make_dataclass("Options", ["gain"], slots=slots)
    mine, other = liftnn.Module(), liftnn.Module()
    mine.v = liftnn.Variable(jnp.zeros(()), options=options(1.0))
    other.v = liftnn.Variable(jnp.ones(()), options=options(2.0))
    liftnn.update(mine, liftnn.state(other))
    assert (float(mine.v.value), mine.v.options.gain) == (1.0, 2.0)
    other.v.options.gain = 3.0
    assert mine.v.options.gain == 2.0
