"""pop, clone, iter_graph, find_shared and replace_all on live modules."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import pytest
from tests.alike import find_difference
from tests.modules.test_update import HOLDERS
from tests.raising import raises
from tests.strategies import Frozen, Node, Point

import liftnn
from liftnn import errors

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
