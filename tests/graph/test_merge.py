"""The merge: new objects own what they hold, and a result that cannot be put back changes nothing."""

from __future__ import annotations

import contextlib
import operator
import types
import weakref

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from tests.alike import find_difference
from tests.strategies import Frozen, Node, Record, build, mutate, mutated, recipes

import liftnn
from liftnn._src.graph import merge
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import KINDS
from liftnn._src.graph.merge import merge_all, own_value, set_frozen_arrays
from liftnn._src.variables import frames


@jax.tree_util.register_pytree_node_class
class Touchy:
    """A pytree that takes tracers, and no arrays."""

    def __init__(self, x):
        self.x = x

    def tree_flatten(self):
        return (self.x,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        if hasattr(children[0], "addressable_shards"):
            raise ValueError("not this")
        return cls(children[0])


def make_model():
    return Node(w=liftnn.Param(jnp.ones(2)), items=[1], n=1, t=None, sub=Node(k=1))


def change_everything(model, x):
    model.w.value = model.w.value + x
    model.w.tag = "new"
    model.items.append(2)
    model.n = 2
    del model.sub.k
    model.sub.new = liftnn.Param(x)
    model.t = Touchy(x)


def test_a_result_that_cannot_be_built_changes_nothing():
    model = make_model()
    with pytest.raises(ValueError, match="not this"):
        liftnn.jit(change_everything)(model, jnp.ones(2))
    assert find_difference(model, make_model()) is None


def test_new_objects_belong_to_the_owner_that_is_given():
    model = make_model()
    walked = walk_tree(model)
    with frames.push_frame("jit") as frame:
        new, merged = merge_all(walked.graphdef, [model.w.value, *walked.by_slot.values()], frame)
        new.n = 2
        new.w.value = jnp.zeros(2)
    assert merged.objects[0] is new
    assert (model.n, model.w.value.tolist()) == (1, [1, 1])


def test_an_array_is_given_as_it_is():
    for x in (jnp.ones(2), np.ones(2), 1.5):
        own, tree = own_value(x)
        assert own is x
        assert tree is None


@pytest.mark.parametrize("value", [{"a": [1]}, [[1], {"b": 2}], {"a": {}}], ids=repr)
def test_a_container_is_given_as_a_copy_all_the_way_down(value):
    before = repr(value)
    given, _ = own_value(value)
    assert repr(given) == before
    inner = given["a"] if isinstance(given, dict) else given[0]
    (inner.update(z=1) if isinstance(inner, dict) else inner.append(9))
    assert repr(value) == before


def test_arrays_in_frozen_nodes_are_set_by_building_them_anew():
    shared = (jnp.ones(1), "kept")
    model = Node(a=Frozen(shared, [shared]), b=shared, keep=[1])
    items, keep = model.a.b, model.keep
    graphdef, objects, _ = walk_tree(model)
    number = next(n for n, x in enumerate(objects) if x is shared)
    set_frozen_arrays(graphdef, objects, {number: {0: jnp.zeros(1)}}, frames.PLAIN)
    assert (model.b[0].tolist(), model.b[1]) == ([0], "kept")
    assert model.a.a is model.b
    assert model.a.b is items
    assert items[0] is model.b
    assert model.keep is keep
    assert shared[0].tolist() == [1]


# --- the commit is whole, whatever arrives in the middle of it


class Stop(BaseException):
    """What a signal handler raises."""


def make_mixed():
    model = Node(
        v=[liftnn.Variable(jnp.array(0.0)) for _ in range(3)], d={"a": 1, 0.0: 2}, s={1, 2}, record=Record(1, [2]),
        sub=Node(k=1), w=liftnn.Param(1.0, tag="old"), frozen=Frozen(1, [jnp.ones(1)]),
        space=types.SimpleNamespace(a=1),
    )  # fmt: skip
    model.parent = weakref.ref(model)
    return model


class Wide(Node):
    """What a Node becomes."""


def change_mixed(model):
    for v in model.v:
        v.value = v + 1
    model.v.append(liftnn.Variable(jnp.array(5.0)))
    model.d.pop("a")
    model.d[-0.0] = model.sub
    model.s.add(3)
    model.record.a = model.record.b
    model.record.b = 7
    del model.sub.k
    model.sub.new = weakref.ref(model.w)
    model.w.tag = "new"
    model.w.__class__ = liftnn.BatchStat
    model.frozen.b[0] = model.frozen.b[0] * 2
    model.frozen = Frozen(model.frozen, 2)
    model.space.b = model.space
    model.sub.__class__ = Wide


def changed():
    model = make_mixed()
    change_mixed(model)
    return model


@contextlib.contextmanager
def arriving(arrive, after=False):
    """Calls `arrive` at each step of the second half of a commit: before the step, or after it."""

    def stepped(action):
        def step(*args):
            if not after:
                arrive()
            action(*args)
            if after:
                arrive()

        return step

    mutable = {kind: kind.fill for kind in KINDS.values() if not kind.frozen}
    write = merge.set_value_past_hooks
    try:
        for kind, fill in mutable.items():
            object.__setattr__(kind, "fill", stepped(fill))
        merge.set_value_past_hooks = stepped(write)
        yield
    finally:
        for kind, fill in mutable.items():
            object.__setattr__(kind, "fill", fill)
        merge.set_value_past_hooks = write


def call_and_interrupt(model, points, after=False):
    """Commits the change, while Stop arrives at certain steps after the merge of the arguments."""
    steps = iter(range(10_000))

    def arrive():
        if next(steps) in points:
            raise Stop

    def finish_merge(plan, pure):
        def call(leaves):
            result = pure(leaves)
            watch.enter_context(arriving(arrive, after))
            return result

        return call

    with contextlib.ExitStack() as watch:
        liftnn.lift(change_mixed, bind=finish_merge)(model)
    return next(steps)


@pytest.mark.parametrize("after", [False, True], ids=["before a step", "after it"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_commit_that_is_interrupted_is_finished(times, after):
    count = call_and_interrupt(make_mixed(), ())
    assert count > 10
    for first in range(count):
        model = make_mixed()
        second = range(first + 1, first + 1 + 7 * (times - 1), 3)
        for again in second or (first,):
            model = make_mixed()
            with pytest.raises(Stop):
                call_and_interrupt(model, {first, again}, after)
            assert find_difference(model, changed()) is None, (first, again)


def test_a_commit_that_cannot_be_finished_is_undone():
    count = call_and_interrupt(make_mixed(), ())
    for first in range(count):
        model, steps = make_mixed(), iter(range(10_000))
        before = parts(model)

        def arrive(steps=steps, first=first, failed=[]):  # noqa: B006
            if len(failed) < 3 and next(steps) >= first:
                failed.append(1)
                raise Stop

        def bind(plan, pure, arrive=arrive):
            def call(leaves):
                result = pure(leaves)
                watch.enter_context(arriving(arrive))
                return result

            return call

        with contextlib.ExitStack() as watch, pytest.raises(Stop):
            liftnn.lift(change_mixed, bind=bind)(model)
        assert find_difference(model, make_mixed()) is None, first
        assert all(map(operator.is_, parts(model), before))


def parts(model):
    """The objects that a model is made of."""
    return [x for _, x in liftnn.iter_graph(model)]


# --- a commit with something to do at its end


def commit_with(finish, change, model):
    """What a call does to a model, with `finish` called at the end of the commit."""

    def bind(plan, pure):
        def call(leaves):
            taken.append(pure(leaves))
            raise Stop

        return call

    taken = []
    with pytest.raises(Stop):
        liftnn.lift(change, bind=bind)(model)
    objects = walk_tree(((model,), {})).objects
    return merge.commit(taken[0].change, list(objects), taken[0].leaves, frames.PLAIN, finish)


def test_what_finish_gives_is_the_result():
    model = make_mixed()
    assert commit_with(lambda out: (out, len(model.v)), change_mixed, model) == (None, 4)
    assert find_difference(model, changed()) is None


def test_a_finish_that_raises_undoes_the_commit():
    def finish(out):
        assert find_difference(model, changed()) is None
        raise KeyError("mine")

    model = make_mixed()
    before = parts(model)
    with pytest.raises(KeyError, match="mine"):
        commit_with(finish, change_mixed, model)
    assert find_difference(model, make_mixed()) is None
    assert all(map(operator.is_, parts(model), before))


@given(recipes(), st.data())
def test_any_change_of_any_graph_is_undone(recipe, data):
    def finish(out):
        assert find_difference(model, plain) is None
        raise KeyError

    model, plain = build(recipe), build(recipe)
    before = parts(model)
    _, choices = data.draw(mutated(plain))
    made = iter(choices)
    with pytest.raises(KeyError):
        commit_with(finish, lambda model: mutate(model, lambda n: next(made)) and None, model)
    assert find_difference(model, build(recipe)) is None
    assert all(map(operator.is_, parts(model), before))
