"""`update` sets values, metadata and arrays in place: all of them, or none."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from tests.alike import find_difference
from tests.raising import raises
from tests.strategies import Frozen, Node, Point, Record
from tests.user_modules import ReadOnly, Twice, WithDescriptor, WithProperty

import liftnn
from liftnn import errors


def doubled(state):
    return jax.tree.map(lambda x: 2 * x, state)


class Named(NamedTuple):
    first: object
    second: object


def test_update_sets_values_in_place():
    model = Node(w=liftnn.Param(jnp.ones(2)), sub=Node(n=liftnn.BatchStat(3.0)))
    w, sub = model.w, model.sub
    liftnn.update(model, doubled(liftnn.state(model)))
    assert model.w is w
    assert model.sub is sub
    assert (w.value.tolist(), sub.n.value) == ([2, 2], 6.0)


def test_update_with_a_part_leaves_the_rest():
    model = Node(a=liftnn.Param(1.0), b=liftnn.BatchStat(1.0))
    liftnn.update(model, doubled(liftnn.state(model, liftnn.Param)))
    assert (model.a.value, model.b.value) == (2.0, 1.0)


def test_update_takes_several_states_of_which_the_last_wins():
    model = Node(a=liftnn.Param(1.0), b=liftnn.Param(1.0))
    state = liftnn.state(model)
    liftnn.update(model, doubled(state), doubled(doubled(state)).filter(liftnn.PathContains("b")))
    assert (model.a.value, model.b.value) == (2.0, 4.0)


def test_update_sets_metadata():
    model = Node(a=liftnn.Param(1.0, tag="x"))
    state = liftnn.state(model)
    state["a"].tag = "y"
    liftnn.update(model, state)
    assert model.a.tag == "y"


def test_update_runs_no_hooks():
    model = Node(a=liftnn.Param(1.0, get_value_hooks=lambda v, x: 1 / 0, set_value_hooks=lambda v, x: 1 / 0))
    liftnn.update(model, liftnn.state(model).map(lambda path, v: 5.0))
    assert model.a.raw_value == 5.0


def test_update_finds_a_shared_variable_under_each_of_its_paths():
    w = liftnn.Param(1.0)
    model = Node(a=Node(w=w), b=Node(w=w))
    liftnn.update(model, liftnn.State({"b": {"w": liftnn.Param(7.0)}}))
    assert w.value == 7.0


def test_update_of_its_own_state_promotes_no_dtypes_and_looks_for_no_second_path():
    model = Node(a=liftnn.Param(jnp.ones(2)), b=liftnn.Param(jnp.ones(3)))
    state = jax.tree.map(lambda x: 2 * x, liftnn.state(model))
    with (
        mock.patch("liftnn._src.modules.update.find_all_paths", side_effect=AssertionError),
        mock.patch.object(jnp, "result_type", side_effect=AssertionError),
    ):
        liftnn.update(model, state)
    assert [float(model.a.sum()), float(model.b.sum())] == [4.0, 6.0]


class ListTwice(list):
    def __setitem__(self, at, x):
        list.__setitem__(self, at, x * 2)


class DictTwice(dict):
    def __setitem__(self, key, x):
        dict.__setitem__(self, key, x * 2)


@dataclasses.dataclass
class RecordWithDescriptor:
    x: Any = Twice()  # noqa: RUF009  # a descriptor, not a default


HOLDERS = {
    "attribute": lambda x: x,
    "list": lambda x: [0, x],
    "dict": lambda x: {"k": x},
    "deque": lambda x: collections.deque([x, 1]),
    "tuple": lambda x: (1, x),
    "nested tuples": lambda x: ((x, 2), [(3, x)]),
    "namedtuple": lambda x: Point(1, x),
    "dataclass": lambda x: Record(x),
    "frozen dataclass": lambda x: Frozen(x, (x, x)),
    "pytree": lambda x: jax.tree_util.Partial(jnp.add, x),
    "list that writes other values": lambda x: ListTwice([x]),
    "dict that writes other values": lambda x: DictTwice(k=x),
    "descriptor": WithDescriptor,
    "descriptor of a dataclass": RecordWithDescriptor,
    "property": WithProperty,
    "property without a setter": ReadOnly,
    "metadata": lambda x: liftnn.Variable(0, note=x),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_update_sets_array_leaves_wherever_they_stand(hold):
    model, doubled_model = Node(h=hold(jnp.ones(2)), n=1), Node(h=hold(2 * jnp.ones(2)), n=1)
    liftnn.update(model, doubled(liftnn.state(model)))
    assert find_difference(model, doubled_model) is None


def scaling(scale):
    """A function with an array in its closure."""
    return lambda x: scale * x


def test_update_and_replace_all_set_an_array_in_a_closure():
    model = Node(f=scaling(jnp.ones(2)))
    liftnn.update(model, doubled(liftnn.state(model)))
    assert model.f(3.0).tolist() == [6, 6]
    (old,) = liftnn.state(model).flat().values()
    assert liftnn.replace_all(model, old, jnp.zeros(2)) == 1
    assert model.f(3.0).tolist() == [0, 0]


def test_update_of_a_shared_tuple_keeps_it_shared_and_everything_else_itself():
    shared, inner = (jnp.ones(2), Node()), [1]
    model = Node(a=shared, b={"k": shared}, c=(inner, 2))
    b, c = model.b, model.c
    liftnn.update(model, doubled(liftnn.state(model)))
    assert model.a is model.b["k"]
    assert model.a[0].tolist() == [2, 2]
    assert model.a[1] is shared[1]
    assert model.b is b
    assert model.c is c


def test_update_with_a_path_that_is_not_there_is_an_error_and_changes_nothing():
    model = Node(a=liftnn.Param(1.0), t=(jnp.ones(1),))
    bad = liftnn.State({"a": liftnn.Param(2.0), "t": {0: jnp.zeros(1)}, "b": {"c": liftnn.Param(3.0)}})
    with raises(
        errors.StructureError,
        "The State does not fit the module:\n"
        "unexpected:\n"
        "  b.c\n"
        "Compare the paths above with those of the module: both sides must have the same Variables.",
    ):
        liftnn.update(model, bad)
    assert (model.a.value, model.t[0].tolist()) == (1.0, [1])


def test_update_of_an_array_in_a_frozen_tree_is_an_error_and_changes_nothing():
    tree = [Frozen(jnp.ones(2)), Node(w=liftnn.Param(1.0))]
    with raises(
        errors.StructureError,
        "[0].a cannot be set in place: no module, list or dict holds it.\n"
        "Store it as an attribute of a Module, or take the new value from the State.",
    ):
        liftnn.update(tree, doubled(liftnn.state(tree)))
    assert (tree[0].a.tolist(), tree[1].w.value) == ([1, 1], 1.0)


TREES = {
    "dict": lambda x, w: {"m": Node(w=w), "x": x},
    "list": lambda x, w: [x, Node(w=w)],
    "in a tuple": lambda x, w: ({"x": [x]}, Node(w=w)),
    "State": lambda x, w: liftnn.State({"x": x, "w": w}),
    "in a namedtuple": lambda x, w: Named([x], Node(w=w)),
    "OrderedDict": lambda x, w: {"x": collections.OrderedDict(a=x), "n": Node(w=w)},
}


def containers_in(tree):
    """The lists and dicts of a tree, outside of modules."""
    nodes: list[Any] = []
    jax.tree.leaves(tree, is_leaf=lambda x: nodes.append(x) or isinstance(x, liftnn.Module))
    return [x for x in nodes if isinstance(x, (list, dict))]


@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_update_replaces_arrays_in_the_lists_and_dicts_of_the_tree(make):
    tree, expected = make(jnp.ones(1), liftnn.Param(1.0)), make(2 * jnp.ones(1), liftnn.Param(2.0))
    containers = containers_in(tree)
    liftnn.update(tree, doubled(liftnn.state(tree)))
    assert list(map(id, containers_in(tree))) == list(map(id, containers))
    assert find_difference(tree, expected) is None


@pytest.mark.parametrize(
    "tree",
    [(jnp.ones(1), Node()), jnp.ones(1), Named(jnp.ones(1), None)],
    ids=["tuple", "array", "namedtuple"],
)
def test_update_of_an_array_that_no_list_or_dict_holds_is_an_error(tree):
    with pytest.raises(
        errors.StructureError, match="cannot be set in place: no module, list or dict holds it"
    ):
        liftnn.update(tree, doubled(liftnn.state(tree)))


def test_update_that_fails_leaves_the_lists_and_dicts_of_the_tree_as_they_were():
    class Guarded(liftnn.Module):
        def __init__(self):
            self.x = jnp.ones(1)
            self.ready = True

        def __setattr__(self, name, value):
            if name == "x" and getattr(self, "ready", False):
                raise RuntimeError("guarded")
            super().__setattr__(name, value)

    tree = {"a": jnp.ones(1), "m": Guarded()}
    with pytest.raises(RuntimeError, match="guarded"):
        liftnn.update(tree, doubled(liftnn.state(tree)))
    assert (tree["a"].tolist(), tree["m"].x.tolist()) == ([1], [1])


def test_update_of_a_container_that_a_function_gets_as_an_argument_is_not_lost_silently():
    tree = {"m": Node(w=liftnn.Param(1.0)), "x": jnp.ones(1)}
    with pytest.raises(errors.StructureError, match="was changed inside the function"):
        liftnn.jit(lambda tree: liftnn.update(tree, {"x": jnp.zeros(1)}))(tree)
    new = liftnn.jit(lambda tree: liftnn.update(tree, {"x": jnp.zeros(1)}) or tree)(tree)
    assert (new["x"].tolist(), new["m"] is tree["m"]) == ([0], True)


def test_update_under_a_raw_jax_transform_is_an_error_and_changes_nothing():
    model = Node(a=liftnn.Param(jnp.ones(1)), x=jnp.ones(1))

    def f(x):
        for path in ("a", "x"):
            with pytest.raises(
                errors.TraceContextError,
                match=r"^Cannot change the (value of a Param|attribute 'x' of a Node) here",
            ):
                liftnn.update(model, liftnn.State({path: x}))
        return x

    jax.jit(f)(jnp.zeros(1))
    assert (model.a.value.tolist(), model.x.tolist()) == ([1], [1])


def test_update_of_a_tree_of_modules():
    tree = {"g": Node(w=liftnn.Param(1.0)), "d": [Node(w=liftnn.Param(2.0))]}
    liftnn.update(tree, doubled(liftnn.state(tree)))
    assert (tree["g"].w.value, tree["d"][0].w.value) == (2.0, 4.0)


def test_a_module_in_metadata_stays_its_own_when_it_is_updated_from_another():
    one, two = Node(), Node()
    for model, value in ((one, 1.0), (two, 2.0)):
        model.w = liftnn.Param(value, owner=model, axes=[value])
    liftnn.update(one, liftnn.state(two))
    assert one.w.value == 2.0
    assert one.w.owner is one
