"""The walk after a call: what it passes by is what a full walk finds unchanged, number for number."""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from tests.raising import raises
from tests.strategies import Frozen, Node, graphs, mutations

import liftnn
from liftnn import errors
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.merge import merge_all
from liftnn._src.graph.rewalk import DiffWalk
from liftnn._src.variables import frames


def merged_copy(model):
    """A copy as the start of a call makes it, and what was merged."""
    walked = walk_tree(model)
    leaves = [
        x.raw_value if isinstance(x, liftnn.Variable) else x for x in map(walked.leaf, walked.graphdef.slots)
    ]
    return merge_all(walked.graphdef, leaves, frames.PLAIN)


def walked_again(merged, returned=None):
    """All that a walk after a call finds."""
    walk = DiffWalk(merged, frames.PLAIN, returned, lambda number: (f"object {number}", ()))
    walk.visit_known()
    return {
        "specs": walk.finished_specs(),
        "changed": walk.changed,
        "objects": list(map(id, walk.objects)),
        "arrays": [
            list(map(id, walk.arrays[n]))
            for n in [*sorted(walk.changed), *range(walk.known, len(walk.objects))]
        ],
        "frozen": walk.frozen,
    }


def outcome(merged):
    """The same, or what it says is wrong."""
    try:
        return walked_again(merged)
    except errors.StructureError as error:
        return str(error)


def without_short_cut(merged):
    """The same objects, with nothing noted by which a walk could pass them by."""
    full = copy.copy(merged)
    full.children = {}
    return full


@given(graphs(), st.data())
def test_passing_by_gives_what_a_full_walk_gives(model, data):
    root, merged = merged_copy(model)
    for _ in range(data.draw(st.integers(0, 3))):
        data.draw(mutations(root))
    assert outcome(merged) == outcome(without_short_cut(merged))


def test_nothing_is_found_where_nothing_was_done():
    root, merged = merged_copy(Node(items=[liftnn.Param(1.0), {"a": jnp.ones(2)}], sub=Node(f=len, t=(1, 2))))
    found = walked_again(merged)
    assert found["changed"] == set()
    assert found["specs"] == merged.specs
    assert root.sub.f is len


def count_opened(monkeypatch):
    """The Modules that a walk has taken apart and gone into."""
    opened = []
    before = DiffWalk._finish_node
    monkeypatch.setattr(
        DiffWalk, "_finish_node", lambda self, node: (opened.append(node.number), before(self, node))
    )
    return opened


def test_only_what_has_changed_is_gone_into(monkeypatch):
    model = Node(layers=[Node(w=liftnn.Param(float(i)), n=i) for i in range(5)])
    root, merged = merged_copy(model)
    root.layers[3].n = 7
    found = walked_again(merged)
    number = next(n for n, x in enumerate(merged.objects) if x is root.layers[3])
    assert found["changed"] == {number}
    opened = count_opened(monkeypatch)
    walked_again(without_short_cut(merged))
    full = len(opened)
    opened.clear()
    walked_again(merged)
    assert [n for n in opened if n == number] == [number]
    assert len(opened) < full


IN_PLACE = {
    "a set": lambda m: m.tags.add(3),
    "an unhashable value": lambda m: m.record["inner"].append(1),
    "the class": lambda m: setattr(m.sub, "__class__", Other),
    "the class of a Variable": lambda m: setattr(m.w, "__class__", liftnn.BatchStat),
    "metadata": lambda m: m.w.set_metadata(tag=1),
    "an attribute of a function": lambda m: setattr(m.function, "tag", 1),
    "the order of attributes": lambda m: m.__dict__.update(tags=m.__dict__.pop("tags")),
    "an equal tuple in place of another": lambda m: setattr(m, "pair", (1, 2.5)),
}


class Other(Node):
    """What a Node may become."""


@pytest.mark.parametrize("change", IN_PLACE.values(), ids=IN_PLACE)
def test_a_change_that_no_identity_shows_is_seen(change):
    def function(x):
        return x

    model = Node(
        tags={1}, record={"inner": []}, sub=Node(), w=liftnn.Param(1.0), function=function, pair=(1, 2.5)
    )
    root, merged = merged_copy(model)
    change(root)
    expected = walked_again(without_short_cut(merged))
    assert walked_again(merged) == expected


def test_what_cannot_be_part_of_a_module_is_named_from_where_the_object_was():
    root, merged = merged_copy(Node(sub=Node()))
    root.sub.bad = {Node()}
    with raises(
        errors.StructureError,
        "object 1.bad: A set holds modules or Variables. A set has no order, so its elements cannot be "
        "numbered.\nUse a list or "
        "a dict.",
    ):
        walked_again(merged)


HOLDERS = {
    "attribute": (lambda f: f, lambda x: x),
    "tuple": (lambda f: (f, jnp.ones(1)), lambda x: x[0]),
    "list": (lambda f: [f], lambda x: x[0]),
    "frozen dataclass": (lambda f: Frozen(f), lambda x: x.a),
    "partial": (lambda f: functools.partial(f), lambda x: x.func),
}


@pytest.mark.parametrize("hold, get", HOLDERS.values(), ids=HOLDERS)
def test_a_function_that_writes_into_a_list_it_closes_over_has_not_changed_itself(hold, get):
    log = []
    model = Node(held=hold(lambda: log.append(1)), n=liftnn.Param(1.0))
    before = model.held

    def write(model, x):
        get(model.held)()
        return x * model.n

    for _ in range(2):
        liftnn.grad(write, argnums=1)(model, 1.0)
    assert log == [1, 1]
    assert model.held is before


@dataclasses.dataclass(frozen=True)
class Pinned:
    pair: Any


@jax.tree_util.register_pytree_with_keys_class
class Pair:
    """A mutable pytree."""

    def __init__(self, a, b=0):
        self.a, self.b = a, b

    def tree_flatten_with_keys(self):
        return ((jax.tree_util.GetAttrKey("a"), self.a),), self.b

    @classmethod
    def tree_unflatten(cls, static, children):
        return cls(*children, static)


HOLDERS = {
    "attribute": (lambda p: p, lambda h: h),
    "tuple": (lambda p: (p, 1), lambda h: h[0]),
    "tuple in a tuple": (lambda p: (1, (p,)), lambda h: h[1][0]),
    "frozen dataclass": (Pinned, lambda h: h.pair),
    "partial": (lambda p: functools.partial(lambda p: p, p), lambda h: h()),
    "method": (lambda p: types.MethodType(lambda p: p, p), lambda h: h()),
    "function": (lambda p: lambda p=p: p, lambda h: h()),
    "pytree": (lambda p: Pair(p), lambda h: h.a),
    "list of a tuple": (lambda p: [(p,)], lambda h: h[0][0]),
}


@pytest.mark.parametrize("donate", [(), (0,)])
@pytest.mark.parametrize("which", HOLDERS)
def test_whatever_holds_a_pytree_holds_it_after_it_was_changed_in_place(which, donate):
    hold, read = HOLDERS[which]

    def build():
        model = liftnn.Module()
        model.pair = Pair(jnp.ones(2))
        model.holder = hold(model.pair)
        return model

    def change(model, x):
        pair = read(model.holder)
        pair.a, pair.b = pair.a + x, pair.b + 1
        return model.pair.a.sum() + model.pair.b

    model, plain = build(), build()
    call = liftnn.jit(change, donate_argnums=donate)
    for x in (1.0, 2.0):
        assert float(call(model, x)) == float(change(plain, x))
        assert model.pair is read(model.holder)
        assert model.pair.a.tolist() == plain.pair.a.tolist()
        assert model.pair.b == plain.pair.b
