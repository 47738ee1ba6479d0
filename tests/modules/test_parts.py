"""`train()` and `eval()` reach every module that plain Python would reach, whatever was changed since the last time."""

from __future__ import annotations

import collections
import dataclasses
import gc
import types
import weakref

import pytest
from tests.user_modules import Holder

import liftnn
from liftnn._src.modules import parts


class Leaf(liftnn.Module):
    """A module with a mode."""

    def __init__(self):
        self.deterministic = False


def reached(x, seen=None):
    """All modules that an object reaches, by plain recursion."""
    seen = {} if seen is None else seen
    if id(x) in seen:
        return []
    if isinstance(x, liftnn.Module):
        seen[id(x)] = x
        children = [y for _, y in liftnn.iter_graph(x) if y is not x]
        return [x, *(m for y in children for m in reached(y, seen))]
    return []


def leaves_of(model):
    return [m for m in reached(model) if isinstance(m, Leaf)]


def make():
    """A model with leaves in every kind of container."""
    return Holder(
        child=Leaf(),
        items=[Leaf(), [Leaf()]],
        options={"a": Leaf()},
        pair=(Leaf(), 1),
        queue=collections.deque([Leaf()]),
        record=Record(Leaf()),
        space=types.SimpleNamespace(leaf=Leaf()),
        inner=Holder(leaf=Leaf(), items=[]),
    )


@dataclasses.dataclass
class Record:
    """A dataclass."""

    leaf: object


def no_change(m):
    pass


def expose(m):
    vars(m)["late"] = Leaf()


def replace_dict(m):
    m.__dict__ = {**m.__dict__, "late": Leaf()}


def cycle(m):
    m.inner.me = m
    m.inner.late = Leaf()


CHANGES = {
    "nothing": no_change,
    "attribute set": lambda m: setattr(m, "late", Leaf()),
    "attribute replaced": lambda m: setattr(m, "child", Leaf()),
    "attribute deleted": lambda m: delattr(m, "child"),
    "in a submodule": lambda m: setattr(m.inner, "leaf", Leaf()),
    "appended": lambda m: m.items.append(Leaf()),
    "appended to an inner list": lambda m: m.items[1].append(Leaf()),
    "appended to an empty list": lambda m: m.inner.items.append(Leaf()),
    "list item replaced": lambda m: m.items.__setitem__(0, Leaf()),
    "popped": lambda m: m.items.pop(0),
    "dict entry": lambda m: m.options.update(b=Leaf()),
    "dict entry replaced": lambda m: m.options.update(a=Leaf()),
    "deque": lambda m: m.queue.append(Leaf()),
    "dataclass": lambda m: setattr(m.record, "leaf", Leaf()),
    "new in a dataclass": lambda m: setattr(m.record, "late", Leaf()),
    "namespace": lambda m: setattr(m.space, "late", Leaf()),
    "tuple": lambda m: setattr(m, "pair", (Leaf(), Leaf())),
    "by vars": expose,
    "by another __dict__": replace_dict,
    "cycle": cycle,
    "weak reference": lambda m: setattr(m.inner, "up", weakref.ref(m)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_every_module_is_reached_and_no_other(change):
    model = make()
    model.train()
    model.eval()
    before = leaves_of(model)
    CHANGES[change](model)
    after = leaves_of(model)
    model.train()
    assert [m.deterministic for m in after] == [False] * len(after)
    gone = [m for m in before if not any(m is x for x in after)]
    assert [m.deterministic for m in gone] == [True] * len(gone)
    model.eval()
    assert [m.deterministic for m in after] == [True] * len(after)


@pytest.mark.parametrize("change", CHANGES)
def test_a_module_that_gets_the_attribute_later_is_set(change):
    model = make()
    model.eval()
    CHANGES[change](model)
    model.inner.deterministic = False
    model.inner.leaf.use_running_average = False
    model.eval()
    assert model.inner.deterministic is True
    assert model.inner.leaf.use_running_average is True


@pytest.mark.parametrize("kind", ["value", "property"])
def test_a_module_whose_class_gets_the_attribute_later_is_set(kind):
    class Bare(liftnn.Module):
        pass

    model = Holder(bare=Bare(), leaf=Leaf())
    model.eval()
    if kind == "value":
        Bare.deterministic = False
    else:
        Bare.deterministic = property(
            lambda self: self.mode == "eval", lambda self, x: setattr(self, "mode", "eval")
        )
        model.bare.mode = "train"
    model.eval()
    assert model.bare.deterministic is True
    del Bare.deterministic
    vars(model.bare).clear()
    model.eval()
    assert not hasattr(model.bare, "deterministic")


def test_a_module_that_loses_the_attribute_does_not_get_it_back():
    model = make()
    model.eval()
    del model.inner.leaf.deterministic
    model.train()
    assert not hasattr(model.inner.leaf, "deterministic")


def test_nothing_is_walked_while_nothing_changes(monkeypatch):
    model = make()
    model.eval()
    monkeypatch.setattr(parts, "walk_tree", None)
    for _ in range(3):
        model.train()
        model.eval()
        model.set_attributes(deterministic=False)
    assert not any(m.deterministic for m in leaves_of(model))


# --- attributes that are more than entries of a dict


class OfTheClass(Leaf):
    """A module whose class has the attribute."""

    deterministic = False

    def __init__(self):
        pass


class WithProperty(Leaf):
    """A module with a property of that name."""

    def __init__(self):
        self.mode = "train"

    @property
    def deterministic(self):
        return self.mode == "eval"

    @deterministic.setter
    def deterministic(self, value):
        self.mode = "eval" if value else "train"


class WithSlot(Leaf):
    """A module with a slot of that name."""

    __slots__ = ("deterministic",)


class WithSetattr(Leaf):
    """A module that counts what is set."""

    count = 0

    def __setattr__(self, name, value):
        if name == "deterministic":
            object.__setattr__(self, "count", self.count + 1)
        super().__setattr__(name, value)


class WithDescriptor(Leaf):
    """A module with a descriptor of that name."""

    class Flag:
        def __get__(self, x, owner=None):
            return self if x is None else x.flag

        def __set__(self, x, value):
            x.flag = value

    deterministic = Flag()


class Exposed(Leaf):
    """A module whose dictionary was handed out."""

    def __init__(self):
        vars(self)["deterministic"] = False


class WithGetattr(Leaf):
    """A module that seems to have every attribute."""

    def __getattr__(self, name):
        return name


KINDS = (Leaf, OfTheClass, WithProperty, WithSlot, WithSetattr, WithDescriptor, Exposed, WithGetattr)


@pytest.mark.parametrize("cls", KINDS)
def test_an_attribute_of_any_kind_is_set(cls):
    model = Holder(items=[cls(), cls()])
    for _ in range(3):
        model.eval()
        assert [m.deterministic for m in model.items] == [True, True]
        model.train()
        assert [m.deterministic for m in model.items] == [False, False]


@pytest.mark.sample(2)
@pytest.mark.parametrize("cls", [cls for cls in KINDS if cls is not WithSetattr])
def test_a_compiled_function_sees_the_mode_of_any_kind(cls):
    model = Holder(items=[cls(), cls()])
    f = liftnn.jit(lambda m, x: x * sum(2 if i.deterministic else 3 for i in m.items))
    for _ in range(3):
        model.eval()
        assert f(model, 1.0) == 4
        model.train()
        assert f(model, 1.0) == 6
        model.items[0].deterministic = True
        assert f(model, 1.0) == 5
    assert f.n_traces == 3


def test_only_what_differs_is_set():
    model = Holder(items=[WithSetattr(), WithSetattr()])
    counts = [m.count for m in model.items]
    model.train()
    assert [m.count for m in model.items] == counts
    model.items[0].deterministic = True
    model.train()
    assert [m.count - c for m, c in zip(model.items, counts, strict=True)] == [2, 0]


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", ["deterministic", "training", "dtype"])
@pytest.mark.parametrize("value", [True, None, "text", 2, (1, 2), [1]])
def test_any_attribute_can_be_set_to_any_value(name, value):
    model = make()
    for leaf in leaves_of(model):
        setattr(leaf, name, 0)
    model.set_attributes(**{name: value})
    assert all(getattr(m, name) == value for m in leaves_of(model))
    f = liftnn.jit(lambda m, x: x * len(str(getattr(m.child, name))))
    assert f(model, 1.0) == len(str(value))
    model.set_attributes(**{name: "other"})
    assert f(model, 1.0) == len("other")


def test_a_value_that_is_not_a_number_replaces_one_everywhere():
    model = make()
    shared = Leaf()
    model.set_attributes(deterministic=shared)
    assert all(m.deterministic is shared for m in leaves_of(model) if m is not shared)


def test_inside_of_a_transform_the_copies_are_set_and_the_caller_sees_it():
    model = make()
    model.train()

    def f(m, x):
        m.eval()
        m.items.append(Leaf())
        m.train()
        m.eval()
        return x

    liftnn.jit(f)(model, 1.0)
    assert len(model.items) == 3
    assert all(m.deterministic for m in leaves_of(model))
    model.train()
    assert not any(m.deterministic for m in leaves_of(model))


def test_a_captured_module_cannot_be_switched():
    model = make()
    model.train()
    with pytest.raises(liftnn.TraceContextError, match="Cannot change the attribute 'deterministic'"):
        liftnn.jit(lambda x: model.eval())(1.0)
    assert not any(m.deterministic for m in leaves_of(model))


def test_what_is_remembered_keeps_no_module_alive():
    model = make()
    model.eval()
    alive = weakref.ref(model.child)
    del model.child
    gc.collect()
    assert alive() is None
    alive = weakref.ref(model)
    model.me = model
    model.train()
    del model
    gc.collect()
    assert alive() is None


def test_two_models_that_share_a_part_reach_it_both():
    leaf = Leaf()
    one, other = Holder(leaf=leaf), Holder(leaf=[leaf])
    one.eval()
    other.train()
    assert leaf.deterministic is False
    leaf.late = Leaf()
    one.eval()
    assert leaf.late.deterministic is True
    other.train()
    assert leaf.late.deterministic is False


def test_a_clone_remembers_nothing_of_the_original():
    model = make()
    model.eval()
    copy = liftnn.clone(model)
    copy.train()
    assert all(m.deterministic for m in leaves_of(model))
    assert not any(m.deterministic for m in leaves_of(copy))


def test_a_module_may_have_an_attribute_named_parts():
    model = liftnn.Module()
    model._parts = [liftnn.Dropout(0.5)]
    assert model.eval()._parts[0].deterministic


class Fixed(Leaf):
    """A module whose mode cannot be set."""

    def __setattr__(self, name, value):
        if name == "deterministic" and value is not False:
            raise RuntimeError("fixed")
        super().__setattr__(name, value)


class Logged(Leaf):
    """A module that notes its modes."""

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        super().__setattr__("log", (*vars(self).get("log", ()), value))


@pytest.mark.parametrize("filters", [(), (Leaf,)])
def test_an_error_sets_no_attribute_of_any_module(filters):
    model = Holder(a=Leaf(), b=[Logged()], c=Fixed(), d=Leaf())
    mode_of = liftnn.jit(lambda model: [x.deterministic for x in (model.a, model.b[0], model.d)])
    assert [bool(x) for x in mode_of(model)] == [False] * 3
    with pytest.raises(RuntimeError, match="fixed"):
        model.set_attributes(*filters, deterministic=True)
    assert [x.deterministic for x in leaves_of(model)] == [False] * 4
    assert model.b[0].log == (False,)
    assert [bool(x) for x in mode_of(model)] == [False] * 3
    with pytest.raises(liftnn.ArgumentError, match="other"):
        model.set_attributes(*filters, deterministic=False, log=(), other=1)
    assert model.b[0].log == (False,)
    del model.c
    model.set_attributes(*filters, deterministic=True)
    assert [bool(x) for x in mode_of(model)] == [True] * 3
    assert model.b[0].log == (False, True)


def test_an_error_in_a_trace_sets_no_attribute_of_any_module():
    captured = Leaf()

    @liftnn.jit
    def f():
        model = Holder(a=Leaf(), b=captured)
        with pytest.raises(liftnn.TraceContextError):
            model.eval()
        return model.a.deterministic

    assert not f()
