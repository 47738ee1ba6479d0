"""update, pop, clone, iter_graph, find_shared and replace_all on live modules."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any
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
from liftnn._src.modules import verbs


def doubled(state):
    return jax.tree.map(lambda x: 2 * x, state)


# --- update


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
        mock.patch.object(verbs, "find_all_paths", side_effect=AssertionError),
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


def test_update_of_an_array_that_is_a_leaf_of_the_tree_is_an_error_and_changes_nothing():
    tree = {"m": Node(w=liftnn.Param(1.0)), "x": jnp.ones(1)}
    with raises(
        errors.StructureError,
        "x cannot be set in place: no module, list or dict holds it.\n"
        "Store it as an attribute of a Module, or take the new value from the State.",
    ):
        liftnn.update(tree, doubled(liftnn.state(tree)))
    assert tree["m"].w.value == 1.0


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


# --- pop


def test_pop_takes_the_values_and_leaves_empty_variables():
    model = Node(w=liftnn.Param(1.0), y=liftnn.Intermediate(2.0), sub=Node(z=liftnn.Intermediate(3.0)))
    y = model.y
    popped = liftnn.pop(model, liftnn.Intermediate)
    assert {path: v.value for path, v in popped.flat().items()} == {("y",): 2.0, ("sub", "z"): 3.0}
    assert model.y is y
    assert y.value is model.sub.z.value is liftnn.Empty
    assert model.w.value == 1.0


def test_a_popped_variable_is_not_the_one_in_the_module():
    model = Node(y=liftnn.Intermediate(2.0))
    assert liftnn.pop(model, liftnn.Intermediate)["y"] is not model.y


def test_pop_leaves_out_what_is_empty_already():
    model = Node(y=liftnn.Intermediate(2.0))
    liftnn.pop(model, liftnn.Intermediate)
    assert liftnn.pop(model, liftnn.Intermediate).flat() == {}


def test_pop_leaves_the_structure_as_it_was():
    model = Node(y=liftnn.Intermediate(2.0))
    before = liftnn.split(model)[-1]
    liftnn.pop(model, liftnn.Intermediate)
    assert liftnn.split(model)[-1] == before


def test_pop_with_several_filters_gives_a_state_for_each_and_the_first_match_wins():
    model = Node(
        w=liftnn.Param(1.0), y=liftnn.Intermediate(2.0), p=liftnn.Perturbation(3.0), s=liftnn.BatchStat(4.0)
    )
    states = liftnn.pop(model, liftnn.Perturbation, liftnn.Intermediate)
    assert [list(state) for state in states] == [["p"], ["y"]]
    assert (model.w.value, model.s.value) == (1.0, 4.0)


def test_pop_takes_a_shared_variable_once():
    y = liftnn.Intermediate(2.0)
    model = Node(a=y, b=[y])
    assert list(liftnn.pop(model, liftnn.Intermediate).flat()) == [("a",)]
    assert y.value is liftnn.Empty


def test_pop_without_a_filter_is_an_error():
    with raises(
        errors.FilterError,
        "pop needs at least one filter.\nPass one, such as pop(model, liftnn.Intermediate).",
    ):
        liftnn.pop(Node())


def test_pop_under_a_raw_jax_transform_is_an_error_and_changes_nothing():
    model = Node(a=liftnn.Intermediate(1.0), b=liftnn.Intermediate(2.0))
    with pytest.raises(errors.TraceContextError, match=r"^Cannot change the value of an Intermediate here"):
        jax.jit(lambda x: liftnn.pop(model, liftnn.Intermediate) and x)(1.0)
    assert (model.a.value, model.b.value) == (1.0, 2.0)


# --- clone


def test_a_clone_is_independent_and_has_buffers_of_its_own():
    model = Node(w=liftnn.Param(jnp.ones(2), tag="a"), x=jnp.ones(1), items=[1])
    clone = liftnn.clone(model)
    assert clone.w.value.unsafe_buffer_pointer() != model.w.value.unsafe_buffer_pointer()
    assert clone.x.unsafe_buffer_pointer() != model.x.unsafe_buffer_pointer()
    assert (clone.w.value.tolist(), clone.x.tolist()) == ([1, 1], [1])
    clone.w.value, clone.w.tag = jnp.zeros(2), "b"
    clone.items.append(2)
    assert (model.w.value.tolist(), model.w.tag, model.items) == ([1, 1], "a", [1])


def test_a_clone_of_a_value_that_is_a_container_has_its_own():
    model = Node(v=liftnn.Variable({"a": [1]}))
    clone = liftnn.clone(model)
    clone.v.value["a"].append(2)
    assert model.v.value == {"a": [1]}


@pytest.mark.parametrize(
    "make", [lambda: {1}, lambda: collections.deque([1]), lambda: collections.Counter([1])]
)
def test_a_clone_of_a_value_that_is_or_holds_another_container_has_its_own(make):
    model = Node(v=liftnn.Variable(make()), w=liftnn.Variable([make()]))
    clone = liftnn.clone(model)
    for value in (clone.v.value, clone.w.value[0]):
        value.clear()
    assert (model.v.value, model.w.value) == (make(), [make()])


def test_a_clone_of_a_tree_keeps_what_its_parts_share():
    w = liftnn.Param(1.0)
    one, two = liftnn.clone((Node(w=w), {"k": Node(w=w)}))
    assert one.w is two["k"].w
    assert one.w is not w


def test_a_clone_keeps_other_leaves_of_a_tree():
    tree = {"m": Node(), "x": jnp.ones(1), "n": 3, "s": "text"}
    clone = liftnn.clone(tree)
    assert clone["m"] is not tree["m"]
    assert (clone["x"], clone["n"], clone["s"]) == (tree["x"], 3, "text")


# --- iter_graph


def test_iter_graph_goes_depth_first_in_attribute_order():
    model = Node(a=Node(x=1, w=liftnn.Param(2.0)), n="text", items=[jnp.ones(1), {"k": None}], z=3)
    assert [path for path, _ in liftnn.iter_graph(model)] == [
        (), ("a",), ("a", "x"), ("a", "w"), ("n",), ("items",), ("items", 0), ("items", 1), ("items", 1, "k"), ("z",),
    ]  # fmt: skip


def test_iter_graph_gives_the_live_objects():
    model = Node(a=Node(f=Node, s=(1, 2)), w=liftnn.Param(2.0), x=jnp.ones(1), t=(Node(), {1}))
    found = dict(liftnn.iter_graph(model))
    assert found[()] is model
    assert found["a", "f"] is Node
    assert found["a", "s"] is model.a.s
    assert found["w",] is model.w
    assert found["x",] is model.x
    assert found["t", 0] is model.t[0]
    assert found["t", 1] is model.t[1]


def test_iter_graph_gives_each_object_once_at_its_first_path():
    shared = Node(w=liftnn.Param(1.0))
    model = Node(a=[shared], b=shared)
    model.c = model
    assert [path for path, _ in liftnn.iter_graph(model)] == [(), ("a",), ("a", 0), ("a", 0, "w")]


def test_iter_graph_of_a_tree_gives_its_leaves_by_path():
    tree = {"a": [jnp.ones(1), 2], "m": Node(n=3)}
    paths = [path for path, _ in liftnn.iter_graph(tree)]
    assert paths == [("a", 0), ("a", 1), ("m",), ("m", "n")]


# --- find_shared


def test_find_shared_lists_the_other_paths():
    w, items = liftnn.Param(1.0), [1]
    model = Node(a=Node(w=w), b=Node(w=w, items=items), c=[w, items])
    assert liftnn.find_shared(model) == {
        ("a", "w"): [("b", "w"), ("c", 0)],
        ("b", "items"): [("c", 1)],
    }


def test_find_shared_names_a_cycle():
    model = Node()
    model.me = model
    assert liftnn.find_shared(model) == {(): [("me",)]}


def test_find_shared_of_a_tree_without_sharing_is_empty():
    assert liftnn.find_shared([Node(w=liftnn.Param(1.0)), Node(w=liftnn.Param(1.0))]) == {}


# --- replace_all


REPLACED_IN = {
    name: HOLDERS[name]
    for name in ("attribute", "list", "dict", "deque", "dataclass", "property without a setter", "metadata")
}


@pytest.mark.parametrize("hold", REPLACED_IN.values(), ids=REPLACED_IN)
@pytest.mark.parametrize(
    "make", [lambda: liftnn.Param(1.0), Node, lambda: jnp.ones(1)], ids=["variable", "module", "array"]
)
def test_replace_all_replaces_every_reference(hold, make):
    old, new = make(), make()
    model = Node(a=old, sub=Node(h=hold(old)), n=1)
    assert liftnn.replace_all(model, old, new) == 2
    assert find_difference(model, Node(a=new, sub=Node(h=hold(new)), n=1)) is None
    assert all(x is not old for _, x in liftnn.iter_graph(model))


def test_replace_all_replaces_everything_or_nothing():
    class Closed(Node):
        def __setattr__(self, name, x):
            if hasattr(self, "w"):
                raise AttributeError("closed")
            super().__setattr__(name, x)

    old = liftnn.Param(1.0)
    model = Node(a=old, b=[old], closed=Closed(w=old))
    with pytest.raises(AttributeError, match="closed"):
        liftnn.replace_all(model, old, liftnn.Param(2.0))
    assert model.a is model.b[0] is model.closed.w is old


def test_replace_all_of_what_is_not_there_replaces_nothing():
    assert liftnn.replace_all(Node(a=liftnn.Param(1.0)), liftnn.Param(1.0), liftnn.Param(2.0)) == 0


def test_replace_all_of_the_tree_itself_is_an_error():
    model = Node()
    model.me = model
    with raises(
        errors.ArgumentError,
        "replace_all cannot replace the tree itself.\nUse the new object instead.",
    ):
        liftnn.replace_all(model, model, Node())


def test_replace_all_of_a_leaf_of_a_tree_is_an_error_and_replaces_nothing():
    old = liftnn.Param(1.0)
    model = Node(w=old)
    with raises(
        errors.ArgumentError,
        "replace_all cannot replace [1]: it is a leaf of the tree itself.\nBuild a new tree with the new "
        "object instead.",
    ):
        liftnn.replace_all([model, old], old, liftnn.Param(2.0))
    assert model.w is old


@pytest.mark.parametrize(
    "hold, name", [(lambda x: (x,), "tuple"), (Frozen, "Frozen"), (lambda x: Point(1, x), "Point")]
)
def test_replace_all_in_a_frozen_holder_is_an_error_and_replaces_nothing(hold, name):
    old = liftnn.Param(1.0)
    model = Node(a=old, b=hold(old))
    with raises(
        errors.ArgumentError,
        f"replace_all cannot replace an object in a {name}, which is immutable.\n"
        "Store the object in a list, a dict or an attribute of a Module instead.",
    ):
        liftnn.replace_all(model, old, liftnn.Param(2.0))
    assert model.a is old
