"""How a GraphDef prints, and how two are compared in words."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises
from tests.strategies import Node, Point, Record, Sub

import liftnn
from liftnn._src.graph.views import describe_difference

HOOKS = """\
        'get_value_hooks': (),
        'set_value_hooks': (),
        'create_value_hooks': (),
        'add_axis_hooks': (),
        'remove_axis_hooks': ()"""


def graphdef_of(**attributes):
    return liftnn.split(Node(**attributes))[-1]


def test_a_module_prints_with_submodules_statics_and_variables_apart():
    graphdef = graphdef_of(n=2, w=liftnn.Param(1.0, tag="t"), sub=Sub(name="x"))
    assert (
        repr(graphdef)
        == f"""\
GraphDef(
  type=Node,
  index=0,
  attributes=('n', 'w', 'sub'),
  subgraphs={{
    'sub': GraphDef(
      type=Sub,
      index=2,
      attributes=('name',),
      subgraphs={{}},
      static_fields={{
        'name': 'x'
      }},
      variables={{}},
      metadata=<class 'tests.strategies.Sub'>
    )
  }},
  static_fields={{
    'n': 2
  }},
  variables={{
    'w': VariableDef(
      type=Param,
      index=1,
      metadata={{
{HOOKS},
        'tag': 't'
      }}
    )
  }},
  metadata=<class 'tests.strategies.Node'>
)"""
    )


def test_what_was_printed_prints_as_its_number_and_containers_as_they_look():
    shared = liftnn.Param(1.0)
    model = Node(a=[shared, {"k": Sub()}], r=Record(shared, jnp.ones(1)), p=Point(shared, "s"), x=jnp.ones(2))
    model.me = model
    text = repr(liftnn.split(model)[-1])
    for part in (
        "    'a': {\n      0: VariableDef(\n        type=Param,\n        index=2,",
        "      1: {\n        'k': GraphDef(\n          type=Sub,\n          index=4,",
        "    'r': Record(\n      a=2,\n      b=Array\n    ),",
        "    'p': Point(\n      x=2,\n      y='s'\n    ),",
        "    'x': Array,",
        "    'me': 0\n",
    ):
        assert part in text


def test_a_tree_prints_its_structure_and_leaves():
    assert repr(liftnn.split((jnp.ones(1), "text"))[-1]) == (
        "GraphDef(\n  tree=PyTreeDef((*, *)),\n  leaves={\n    0: Array,\n    1: 'text'\n  }\n)"
    )


HOOK_NAMES = ["get_value", "set_value", "create_value", "add_axis", "remove_axis"]
NODES_IN_METADATA = {
    "list": ({"axes": [1]}, "'axes': {\n          0: 1\n        }"),
    "array": ({"scale": jnp.ones(1)}, "'scale': Array"),
    "Variable": ({"other": liftnn.Param(2.0)}, "'other': VariableDef(\n          type=Param,"),
    **{f"built-in on_{name}": ({f"on_{name}": print}, f"'on_{name}': <built-in") for name in HOOK_NAMES},
    **{
        f"function on_{name}": ({f"on_{name}": raises}, f"'on_{name}': <function raises")
        for name in HOOK_NAMES
    },
    "static beside": ({"on_get_value": raises, "tag": "t"}, "'tag': 't'"),
}


@pytest.mark.parametrize("case", NODES_IN_METADATA)
def test_metadata_that_hold_nodes_print(case):
    metadata, text = NODES_IN_METADATA[case]
    assert text in repr(graphdef_of(w=liftnn.Param(1.0, **metadata)))


def test_a_chain_of_3000_modules_prints():
    model = last = Node()
    for _ in range(3000):
        last.next = Node()
        last = last.next
    assert "'next': Node(...)" in repr(liftnn.split(model)[-1])
    assert "next=Node(...)" in str(model)
    assert "next: Node(...)" in repr(model)
    assert len(repr(liftnn.state(Node(m=model, w=liftnn.Param(1.0))))) > 0


# --- differences

DIFFERENCES = {
    "nothing": ({"a": 1, "x": jnp.ones(1)}, {"a": 1, "x": jnp.zeros(2)}, ""),
    "static": ({"a": 1}, {"a": 2}, "a: 1 -> 2"),
    "static type": ({"a": 1}, {"a": True}, "a: 1 -> True"),
    "sign": ({"a": 0.0}, {"a": -0.0}, "a: 0.0 -> -0.0"),
    "added": ({}, {"a": 1}, "a: added, 1"),
    "removed": ({"a": liftnn.Param(1.0)}, {}, "a: removed, was Param"),
    "array": ({"a": 1}, {"a": jnp.ones(1)}, "a: 1 -> an array"),
    "Variable type": ({"a": liftnn.Param(1.0)}, {"a": liftnn.BatchStat(1.0)}, "a: Param -> BatchStat"),
    "class": ({"a": [Node()]}, {"a": [Sub()]}, "a[0]: Node -> Sub"),
    "container": ({"a": [1]}, {"a": (1, [2])}, "a: list -> tuple\na[1]: added, list\na[1][0]: added, 2"),
    "list grown": ({"a": [Node(n=1)]}, {"a": [Node(n=1), 2]}, "a[1]: added, 2"),
    "metadata": ({"w": liftnn.Param(1.0, tag="a")}, {"w": liftnn.Param(1.0, tag="b")}, "w.tag: 'a' -> 'b'"),
    "metadata added": ({"w": liftnn.Param(1.0)}, {"w": liftnn.Param(1.0, tag="b")}, "w.tag: added, 'b'"),
    "metadata that can change": (
        {"w": liftnn.Param(1.0, tag="a", axes=[1])},
        {"w": liftnn.Param(1.0, tag="a", axes=[2])},
        "w.axes[0]: 1 -> 2",
    ),
    "metadata list added": (
        {"w": liftnn.Param(1.0, tag="a")},
        {"w": liftnn.Param(1.0, tag="a", axes=[2])},
        "w.axes: added, list\nw.axes[0]: added, 2",
    ),
    "dict keys": ({"d": {1: 2}}, {"d": {True: 2}}, "d: dict -> dict with different content"),
    "deque": (
        {"d": collections.deque([1], maxlen=2)},
        {"d": collections.deque([1], maxlen=3)},
        "d: deque -> deque with different content",
    ),
    "order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "<root>: the order a, b -> b, a"),
    "order further in": ({"s": {"a": 1, "b": 2}}, {"s": {"b": 2, "a": 1}}, "s: the order a, b -> b, a"),
    "numpy": ({"a": np.float32(1)}, {"a": np.float32(2)}, "a: np.float32(1.0) -> np.float32(2.0)"),
    "long": ({"a": "x" * 100}, {"a": "y"}, f"a: '{'x' * 56}... -> 'y'"),
    "several lines": (
        {"a": Node(b=1).__class__},
        {"a": "1\n2"},
        "a: <class 'tests.strategies.Node'> -> '1\\n2'",
    ),
}


@pytest.mark.parametrize("old, new, lines", DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_difference_is_a_line_for_each_path(old, new, lines):
    assert graphdef_of(**old).diff(graphdef_of(**new)) == lines


def test_what_is_no_longer_shared_is_named_by_its_first_path():
    w = liftnn.Param(1.0)
    shared, apart = Node(a=Node(w=w), b=w), Node(a=Node(w=w), b=w.copy())
    one, two = liftnn.split(shared)[-1], liftnn.split(apart)[-1]
    assert one.diff(two) == "b: the same object as a.w -> Param"
    assert two.diff(one) == "b: Param -> the same object as a.w"


def test_trees_of_other_structure_differ():
    assert liftnn.split((1, 2))[-1].diff(liftnn.split([1, 2])[-1]) == "(*, *) -> [*, *]"
    assert liftnn.split((1, 2))[-1].diff(liftnn.split((1, 3))[-1]) == "[1]: 2 -> 3"


@pytest.mark.parametrize("more", [{"a": None}, {"z": None}, {"z": ()}, {"a": {}, "z": []}])
def test_entries_of_a_dict_without_leaves_differ_by_their_keys(more):
    one, two = (liftnn.split((1, x))[-1] for x in ({"k": 1}, {"k": 1, **more}))
    texts = "{'k': *}", str(jax.tree.structure({"k": 1, **more}))[len("PyTreeDef(") : -1]
    assert one.diff(two) == "[1]: {} -> {}".format(*texts)
    assert two.diff(one) == "[1]: {} -> {}".format(*texts[::-1])


def test_a_long_difference_is_cut_short():
    one, two = (liftnn.split(Node(**{f"a{i}": n for i in range(20)}))[-1] for n in (1, 2))
    lines = describe_difference(one, two, name=lambda path: f"model.{path[0]}", most=3).split("\n")
    assert lines == ["model.a0: 1 -> 2", "model.a1: 1 -> 2", "model.a2: 1 -> 2", "... and 17 more"]
