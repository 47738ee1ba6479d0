"""The flat description: numbers, edges, paths and leaves of a graph."""

from __future__ import annotations

import pickle

import jax.numpy as jnp
from tests.strategies import Node

import liftnn
from liftnn._src.graph.description import (
    KEEP,
    GraphSpec,
    find_all_paths,
    find_holders,
    keep_leaves,
    static_of,
)
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import MODULE, TUPLE
from liftnn._src.graph.slots import ARRAY, ROOT
from liftnn._src.static_values.static import Static


def make_model():
    w = liftnn.Param(jnp.ones(1))
    model = Node(sub=Node(w=w, x=jnp.ones(2)), t=(w, jnp.ones(1), jnp.zeros(1)), n=1, f=-0.0)
    model.me = model.sub
    return model


def test_nodes_are_numbered_as_they_are_met():
    description, objects, _ = walk_tree(make_model())
    assert [spec.type for spec in description.specs] == [Node, Node, liftnn.Param, tuple]
    assert [spec.kind for spec in description.specs][::3] == [MODULE, TUPLE]
    assert objects[1] is objects[0].me


def test_edges_are_numbers_arrays_and_statics():
    specs = walk_tree(make_model())[0].specs
    assert specs[0].keys == ("sub", "t", "n", "f", "me")
    assert specs[0].edges == (1, 3, (int, 1), Static(-0.0), 1)
    assert specs[1].edges == (2, ARRAY)
    assert specs[3].edges == (2, ARRAY, ARRAY)


def test_the_value_of_a_static_edge_is_what_was_there():
    edges = walk_tree(make_model())[0].specs[0].edges
    assert [str(static_of(edge)) for edge in edges[2:4]] == ["1", "-0.0"]


def test_leaves_are_in_attribute_order_at_their_first_paths():
    description = walk_tree(make_model())[0]
    leaves = {("sub", "w"): (2, None), ("sub", "x"): (1, "x"), ("t", 1): (3, 1), ("t", 2): (3, 2)}
    assert list(description.leaves.items()) == list(leaves.items())
    assert description.slots == ((2, None), (1, "x"), (3, 1), (3, 2))


def test_the_leaves_of_a_tree_come_after_the_values_and_before_those_of_nodes():
    description = walk_tree([jnp.ones(1), Node(w=liftnn.Param(1.0), x=jnp.ones(1)), 2.0])[0]
    assert description.slots == ((1, None), (ROOT, 0), (0, "x"))


def test_all_paths_of_a_node_are_found_without_going_into_it_twice():
    description = walk_tree(make_model())[0]
    assert find_all_paths(description) == {
        0: [()],
        1: [("sub",), ("me",)],
        2: [("sub", "w"), ("t", 0)],
        3: [("t",)],
    }


def test_root_paths_are_those_of_the_tree():
    assert list(walk_tree(Node())[0].paths) == [()]
    assert list(walk_tree({"b": [Node(), 1], "a": jnp.ones(1)})[0].paths) == [("a",), ("b", 0), ("b", 1)]


def test_holders_of_a_frozen_node_that_is_built_anew_are_found_up_to_what_can_change():
    shared = (jnp.ones(1),)
    model = Node(a=((shared, 1), Node()), b=Node(c=[shared]), d=Node())
    description, objects, _ = walk_tree(model)
    numbers = {id(x): number for number, x in enumerate(objects)}
    holders = find_holders(description.specs, {numbers[id(shared)]})
    assert {id(objects[i]) for i in holders} == {id(x) for x in (model.a[0], model.a, model, model.b.c)}
    assert find_holders(description.specs, {numbers[id(model.d)]}) == set()


def test_the_leaves_of_a_node_are_kept_and_its_references_are_not():
    spec = walk_tree(make_model())[0].specs[0]
    assert keep_leaves(spec).edges == (1, 3, KEEP, KEEP, 1)


def test_a_description_equals_only_its_like():
    graphdef = walk_tree(make_model())[0]
    same = GraphSpec(graphdef.treedef, graphdef.edges, graphdef.specs, graphdef.frozen, graphdef.paths)
    assert graphdef == same
    assert hash(graphdef) == hash(same)
    assert graphdef != GraphSpec(None, (ARRAY,), (), (), graphdef.paths)
    assert (graphdef == "text") is False


def test_the_sentinels_stay_themselves_when_they_are_pickled():
    assert pickle.loads(pickle.dumps((ARRAY, KEEP))) == (ARRAY, KEEP)
    assert pickle.loads(pickle.dumps(ARRAY)) is ARRAY
    assert (repr(ARRAY), repr(KEEP)) == ("ARRAY", "KEEP")
