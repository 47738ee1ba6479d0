"""The walk: one pass over any graph, however deep, and paths in what it refuses."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.alike import find_difference
from tests.raising import raises
from tests.strategies import Node, Point

import liftnn
from liftnn import errors
from liftnn._src.graph.walk import Walk


def chain(n, link, shift=0.0):
    model = last = Node(i=0)
    for i in range(1, n):
        last.next = link(Node(i=i, w=liftnn.Param(i + shift)))
        last = last.next if isinstance(last.next, Node) else last.next[0]
    return model


@pytest.mark.thorough
@pytest.mark.parametrize(
    "link",
    [
        lambda m: m,
        lambda m: [m],
        *(pytest.param(link, marks=pytest.mark.thorough) for link in (lambda m: (m,), lambda m: Point(m, 1))),
    ],
)
def test_a_chain_of_1500_modules_is_split_merged_cloned_and_updated(link):
    model = chain(1500, link)
    state, graphdef = liftnn.split(model)
    assert len(state.flat()) == 1499
    for new in (graphdef.merge(state), liftnn.clone(model)):
        assert find_difference(model, new) is None
    liftnn.update(model, state.map(lambda path, v: v.value + 1))
    expected = chain(1500, link, shift=1.0)
    assert find_difference(model, expected) is None
    assert graphdef == liftnn.split(expected)[-1]


@pytest.mark.thorough
def test_chains_of_other_length_differ_at_their_end():
    one, two = (liftnn.split(chain(n, lambda m: m))[-1] for n in (1200, 1199))
    where = ".".join(["next"] * 1199)
    assert (
        one.diff(two)
        == f"{where}: removed, was Node\n{where}.i: removed, was 1199\n{where}.w: removed, was Param"
    )


def test_a_chain_of_1500_modules_goes_through_jit():
    model = chain(1500, lambda m: m)
    total = liftnn.jit(lambda m: setattr(m.next.w, "value", 10.0) or m.next.next.w + m.next.w)(model)
    assert total == 12.0
    assert model.next.w.value == 10.0


@pytest.mark.thorough
def test_deep_containers_are_split_and_merged():
    items = inner = []
    for _ in range(1500):
        inner.append([jnp.ones(1)])
        inner = inner[-1]
    model = Node(items=items)
    assert find_difference(model, liftnn.clone(model)) is None


@pytest.mark.sample(2)
@pytest.mark.parametrize("last", [(), (jnp.ones(1),)], ids=["static", "dynamic"])
def test_deep_tuples_are_split_and_merged(last):
    items = last
    for i in range(700):
        items = (items, i)
    new = liftnn.clone(Node(items=items)).items
    for i in reversed(range(700)):
        assert new[1] == i
        new = new[0]
    assert find_difference(new, last) is None


def test_the_path_of_an_error_starts_at_the_root_of_the_walk():
    with raises(
        errors.StructureError,
        "args[0].a.b[2].x: A set holds modules or Variables. A set has no order, so its elements cannot be "
        "numbered.\n"
        "Use a list or a dict.",
    ):
        Walk("args[0]").visit(Node(b=[1, 2, Node(x={Node()})]), ("a",))


def test_the_path_of_an_error_in_a_variable_s_metadata_goes_through_the_variable():
    with raises(
        errors.StructureError,
        "w.table: A dict has a Node as a key, but keys must be static.\nStore it as a value, under a "
        "string key.",
    ):
        liftnn.split(Node(w=liftnn.Param(1.0, table={Node(): 1})))


def test_a_nan_is_equal_to_another_nan():
    one, two = (liftnn.split(Node(a=float("nan"), t=(float("nan"),)))[-1] for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)


def test_zeros_of_other_sign_differ():
    assert liftnn.split(Node(a=0.0))[-1] != liftnn.split(Node(a=-0.0))[-1]
    assert str(liftnn.clone(Node(a=-0.0)).a) == "-0.0"


def test_a_static_container_edited_in_place_is_seen():
    model = Node(items=[1, {"k": [2]}], names={"a"}, array=np.arange(2))
    before = liftnn.split(model)[-1]
    for edit in (
        lambda: model.items[1]["k"].append(3),
        lambda: model.items[1].update(k=0),
        lambda: model.names.add("b"),
        lambda: model.items.clear(),
    ):
        edit()
        after = liftnn.split(model)[-1]
        assert after != before
        before = after


def test_a_split_is_a_snapshot():
    model = Node(items=[1, {"k": [2]}], names={"a"}, w=liftnn.Param(1.0, axes=[1]))
    state, graphdef = liftnn.split(model)
    model.items[1]["k"].append(3)
    model.names.add("b")
    model.w.axes.append(2)
    new = graphdef.merge(state)
    assert (new.items, new.names) == ([1, {"k": [2]}], {"a"})
    new.names.add("c")
    assert graphdef.merge(state).names == {"a"}
