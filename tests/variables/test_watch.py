"""Watches end with a change of structure, and with nothing else."""

from __future__ import annotations

import gc
import weakref

import jax.numpy as jnp
import pytest
from tests.same import assert_same
from tests.strategies import Node, Slotted

import liftnn
from liftnn._src.compilation import fast_path
from liftnn._src.variables.watch import changes, start_watch


class OtherSlotted(Slotted):
    """What a Slotted may become."""

    __slots__ = ()


def make_model():
    model = Node(w=liftnn.Param(jnp.ones(2), tag="a"), n=1, x=jnp.ones(2), sub=Slotted(a=1, c=2))
    return model, start_watch(model, [model, model.w, model.sub], changes.count)


STRUCTURAL = {
    "static value": lambda m: setattr(m, "n", 2),
    "attribute added": lambda m: setattr(m, "new", 1),
    "attribute deleted": lambda m: delattr(m, "n"),
    "Variable replaced": lambda m: setattr(m, "w", liftnn.Param(jnp.ones(2))),
    "array replaced by a number": lambda m: setattr(m, "x", 1.0),
    "number replaced by an array": lambda m: setattr(m, "n", jnp.ones(1)),
    "slot": lambda m: setattr(m.sub, "a", 2),
    "slot deleted": lambda m: delattr(m.sub, "a"),
    "class": lambda m: setattr(m.sub, "__class__", OtherSlotted),
    "class of a Variable": lambda m: setattr(m.w, "__class__", liftnn.BatchStat),
    "metadata": lambda m: setattr(m.w, "tag", "b"),
    "state of a module": lambda m: m.__setstate__({"n": 2}),
    "state of a Variable": lambda m: m.w.__setstate__(liftnn.Param(m.w, tag="b").__reduce__()[2]),
    "metadata deleted": lambda m: delattr(m.w, "tag"),
    "update with other metadata": lambda m: liftnn.update(
        m, liftnn.State({"w": m.w.replace(m.w.value, tag="b")})
    ),
    "replace_all": lambda m: liftnn.replace_all(m, m.w, liftnn.Param(1.0)),
    "set_attributes": lambda m: m.set_attributes(c=3),
    "jit": lambda m: liftnn.jit(lambda m: setattr(m.sub, "c", 3))(m),
}


@pytest.mark.parametrize("change", STRUCTURAL.values(), ids=STRUCTURAL)
def test_a_change_of_structure_ends_the_watch(change):
    model, watch = make_model()
    count = changes.count
    change(model)
    assert not watch.valid
    assert changes.count > count


HARMLESS = {
    "nothing": lambda m: None,
    "value": lambda m: setattr(m.w, "value", jnp.zeros(3)),
    "value by index": lambda m: m.w.__setitem__(0, 5.0),
    "array by array": lambda m: setattr(m, "x", jnp.zeros(3)),
    "the same value": lambda m: setattr(m, "n", m.n),
    "update": lambda m: liftnn.update(m, liftnn.state(m).map(lambda path, x: jnp.zeros_like(x))),
    "another object": lambda m: setattr(Node(n=1), "n", 2),
    "reading": lambda m: (m.w + 1, liftnn.split(m), liftnn.clone(m), repr(m)),
    "pop": lambda m: liftnn.pop(m, liftnn.Param),
    "train": lambda m: m.train(),
    "jit": lambda m: liftnn.jit(lambda m: setattr(m.w, "value", m.w * 2))(m),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_changes_no_structure_leaves_the_watch(change):
    model, watch = make_model()
    change(model)
    assert watch.valid


def test_a_change_since_the_walk_ends_the_watch_at_once():
    model, _ = make_model()
    since = changes.count
    model.n = 5
    assert not start_watch(model, [model], since).valid


def test_a_watch_stays_when_another_thread_starts_one_before_the_first_is_used(monkeypatch):
    def start_two(*args):
        watch = start_watch(*args)
        start_watch(*args)
        return watch

    monkeypatch.setattr(fast_path, "start_watch", start_two)
    model = Node(w=liftnn.Param(jnp.ones(2), scale=1))
    f = liftnn.jit(lambda model: model.w * model.w.scale)
    for scale in (1, 2, 3):
        model.w.scale = scale
        assert_same([f(model), f(model)], [jnp.ones(2) * scale] * 2)


def test_copies_are_not_watched():
    model, watch = make_model()
    for new in (liftnn.clone(model), liftnn.merge(*reversed(liftnn.split(model)))):
        new.n = 2
        new.w.tag = "b"
    assert watch.valid


def test_a_watch_keeps_no_object_alive():
    model, watch = make_model()
    references = [weakref.ref(x) for x in (model, model.w, model.sub)]
    del model
    gc.collect()
    assert [r() for r in references] == [None] * 3
    assert watch.valid
