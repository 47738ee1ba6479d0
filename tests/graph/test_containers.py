"""Sets, namespaces, weak references and subclasses of containers go through transforms as in plain Python."""

from __future__ import annotations

import array
import collections
import gc
import types
import weakref

import jax.numpy as jnp
import numpy as np
import pytest
from tests.alike import find_difference
from tests.raising import raises
from tests.strategies import Node

import liftnn
from liftnn import errors

TRANSFORMS = {
    "jit": liftnn.jit,
    "remat": liftnn.remat,
    "vmap": lambda f: liftnn.vmap(f, in_axes=None, axis_size=2, out_axes=None),
}
transforms = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)


def same_as_plain(transform, make, change, times=3):
    """Calls a function that changes a model, transformed and plainly; gives both models."""
    ours, plain = make(), make()
    f = transform(change)
    for _ in range(times):
        f(ours)
        change(plain)
        assert find_difference(ours, plain) is None
    return ours, plain


# --- sets


@transforms
def test_a_set_is_changed_in_place_and_stays_the_same_set(transform):
    made = []

    def make():
        shared = {1, "a"}
        made.append(shared)
        return Node(a=shared, b=[shared], n=liftnn.Variable(jnp.zeros(())))

    def change(model):
        model.a.add(len(model.b[0]))
        model.a.discard(1)
        model.b[0].add((2, 0.5))
        model.n.value = model.n + len(model.a)

    ours, _ = same_as_plain(transform, make, change)
    assert ours.a is ours.b[0] is made[0]


@transforms
def test_a_new_set_stays_shared(transform):
    def change(model):
        model.a = {1.0}
        model.b = (model.a, jnp.ones(1))

    ours, _ = same_as_plain(transform, Node, change, times=1)
    assert ours.a is ours.b[0]


@pytest.mark.parametrize(
    "old, new", [(1, True), (True, 1.0), (0.0, -0.0), (-0.0, 0), ((1,), (True,)), ("a", "b")]
)
def test_a_set_whose_element_is_another_one_is_traced_again(old, new):
    model = Node(s={old}, n=liftnn.Variable(jnp.zeros(())))
    traces = []
    f = liftnn.jit(lambda model: traces.append(*model.s))
    f(model), f(model)
    model.s.clear()
    model.s.add(new)
    f(model), f(model)
    assert list(map(repr, traces)) == [repr(old), repr(new)]


def test_the_order_of_insertion_into_a_set_is_no_structure():
    one, two = Node(s={1, 8, 16}), Node(s={16, 8, 1})
    two.s.add(32)
    two.s.discard(32)
    assert liftnn.split(one)[-1] == liftnn.split(two)[-1]


def test_a_captured_set_is_rolled_back():
    model = Node(seen=set(), n=liftnn.Variable(jnp.zeros(())))

    def f(x):
        model.seen.add(1)
        raise KeyError

    with pytest.raises(KeyError):
        liftnn.jit(f)(1.0)
    assert model.seen == set()


# --- namespaces


@transforms
def test_a_namespace_holds_state(transform):
    def make():
        box = types.SimpleNamespace(v=liftnn.Variable(jnp.zeros(())), x=jnp.ones(2), k=1)
        return Node(box=box, again=[box])

    def change(model):
        model.box.v.value = model.box.v + 1
        model.box.x = model.again[0].x * 2
        model.box.k += 1
        model.again[0].new = [model.box]

    ours, _ = same_as_plain(transform, make, change)
    assert ours.box is ours.again[0] is ours.box.new[0]


def test_a_namespace_may_be_an_argument():
    box = types.SimpleNamespace(v=liftnn.Param(2.0), n=3)

    def loss(box):
        box.n += 1
        return box.v.value**2

    assert float(liftnn.grad(loss)(box)["v"].raw_value) == 4
    assert box.n == 4


# --- weak references


def make_family():
    parent = Node(n=liftnn.Variable(jnp.zeros(())))
    parent.child = Node(parent=weakref.ref(parent), own=weakref.ref(parent.n))
    return parent


@transforms
def test_a_weak_reference_leads_to_the_copy_inside_and_to_the_original_outside(transform):
    def change(model):
        model.child.parent().n.value = model.n + 1
        model.child.own().value = model.n * 2
        model.child.again = weakref.ref(model)
        model.other = weakref.ref(model.child)

    ours, plain = same_as_plain(transform, make_family, change)
    assert ours.child.parent() is ours.child.again() is ours
    assert ours.child.own() is ours.n
    assert ours.other() is ours.child
    assert float(ours.n.value) == float(plain.n.value) == 14


def test_a_clone_refers_to_the_clone():
    family = make_family()
    clone = liftnn.clone(family)
    assert clone.child.parent() is clone
    assert clone.child.own() is clone.n


def test_a_module_that_is_only_weakly_referred_to_is_state():
    family = make_family()

    def f(child):
        child.parent().n.value = child.own().value + 1

    for _ in range(3):
        liftnn.jit(f)(family.child)
    assert float(family.n.value) == 3


def test_a_clone_of_the_child_alone_has_no_parent():
    assert liftnn.clone(make_family().child).parent() is None


def test_other_weak_references_are_static():
    array = np.ones(1)
    alive, called = weakref.ref(array), weakref.ref(KEPT, print)
    node = Node()
    dead = weakref.ref(node)
    del node
    gc.collect()
    model = Node(alive=alive, dead=dead, called=called)
    clone = liftnn.clone(model)
    assert (clone.alive, clone.dead, clone.called) == (alive, dead, called)
    assert liftnn.split(model)[-1] == liftnn.split(clone)[-1]


KEPT = Node()


# --- subclasses that run code of their own


def refuses(*_, **__):
    raise TypeError("immutable")


NAMES = (
    "__setitem__", "__getitem__", "__iter__", "__len__", "__init__", "__new__", "clear", "update", "extend", "append",
    "items", "keys", "values", "add", "__delitem__", "__reduce_ex__", "__copy__", "__contains__", "get",
)  # fmt: skip
CONTENTS = {
    list: [1, [2]],
    collections.deque: [1, 2],
    set: [1, 2],
    dict: {"a": 1, 2: 3},
    collections.OrderedDict: {"a": 1, 2: 3},
    collections.defaultdict: {"a": 1},
    collections.Counter: {"a": 2},
    tuple: [1, jnp.ones(1)],
}


def make_refusing(base, content):
    """An instance of a subclass of a container of which every method raises."""
    made = type("Refusing", (base,), {"__slots__": ()})()
    if issubclass(base, dict):
        dict.update(made, content)
        if issubclass(base, collections.OrderedDict):
            for key, x in content.items():
                collections.OrderedDict.__setitem__(made, key, x)
    elif base is tuple:
        made = tuple.__new__(type(made), content)
    else:
        (base.update if base is set else base.extend)(made, content)
    for name in NAMES:
        setattr(type(made), name, refuses)
    return made


def raw(x):
    """The content of a container whose methods all raise."""
    base = next(b for b in type(x).__mro__[1:] if b in CONTENTS and b is not collections.Counter)
    return sorted(base.__iter__(x), key=str), list(map(str, base.items(x))) if issubclass(
        base, dict
    ) else None


@pytest.mark.parametrize("base", CONTENTS, ids=lambda base: base.__name__)
def test_a_container_whose_methods_all_raise_comes_through(base):
    x = make_refusing(base, CONTENTS[base])
    before = raw(x)
    model = Node(x=x, n=liftnn.Variable(jnp.zeros(())))

    def f(model):
        assert str(raw(model.x)[1]) == str(before[1])
        model.k = 1
        model.n.value = model.n + 1

    for _ in range(2):
        liftnn.remat(f)(model)
    assert str(raw(model.x)) == str(before)
    assert (float(model.n.value), model.k) == (2, 1)


def test_an_ordered_dict_keeps_its_own_order():
    model = Node(d=collections.OrderedDict(a=1, b=2))
    model.d.move_to_end("a")
    liftnn.remat(lambda model: model.d.move_to_end("b"))(model)
    assert list(model.d) == ["a", "b"]
    assert list(liftnn.clone(model).d) == ["a", "b"]


# --- keys of dicts


KEYS = [
    0.0,
    -0.0,
    0,
    False,
    (1,),
    (True,),
    (1.0,),
    frozenset([1]),
    frozenset([True]),
    "a",
    None,
    range(1),
    range(0, 1, 2),
]


def test_dicts_whose_keys_can_be_told_apart_have_different_structures():
    for wrap in (dict, collections.OrderedDict, lambda d: collections.defaultdict(list, d)):
        structures = [liftnn.split(Node(d=wrap({k: 1})))[-1] for k in KEYS]
        assert all(a != b for i, a in enumerate(structures) for b in structures[:i])
        again = [liftnn.split(Node(d=wrap({k: 1})))[-1] for k in KEYS]
        assert structures == again


def test_a_key_that_is_replaced_by_an_equal_one_comes_out():
    for old, new in ((0.0, -0.0), (1, True), ((1,), (True,))):
        model = Node(d={old: 1})

        def change(model, new=new):
            model.d.clear()
            model.d[new] = 1

        liftnn.remat(change)(model)
        assert repr(model.d) == repr({new: 1})


# --- what cannot be keyed


@pytest.mark.parametrize(
    "value, kind",
    [
        (memoryview(bytearray(b"ab")), "memoryview"),
        (types.MappingProxyType({}), "mappingproxy"),
        (memoryview(array.array("i", [1])), "memoryview"),
    ],
    ids=["bytes", "proxy", "array"],
)
def test_what_can_neither_be_hashed_nor_copied_is_an_error_with_its_path(value, kind):
    remedy = (
        "Store a copy of it: `dict(x)`."
        if kind == "mappingproxy"
        else "Make it hashable, or store it outside the module."
    )
    with raises(
        errors.StructureError,
        f"args[0].deep[0]: A static value of type {kind} is not hashable and cannot be copied and compared "
        f"(TypeError), so liftnn cannot detect changes to it.\n{remedy}",
    ):
        liftnn.jit(lambda m: m)(Node(deep=[value]))
