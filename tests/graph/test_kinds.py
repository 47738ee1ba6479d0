"""Every kind of thing a module can hold comes back from split and merge as it was."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import types
import typing
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.alike import find_difference
from tests.strategies import Frozen, Node, Point, Record, Slotted, arrays

import liftnn


class Names(list):
    """A subclass of list."""


class Tally(dict):
    """A subclass of dict."""


class Pair(tuple):
    """A subclass of tuple."""


class Triple(typing.NamedTuple):
    a: object
    b: object = 1


@dataclasses.dataclass
class Config:
    rate: float
    derived: object = dataclasses.field(init=False, default=None)
    scale: dataclasses.InitVar[int] = 1

    def __post_init__(self, scale):
        self.derived = self.rate * scale


@dataclasses.dataclass(slots=True)
class Compact:
    a: object


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenCompact:
    a: object


@jax.tree_util.register_pytree_node_class
class Registered:
    """A pytree with static data, like flax.struct's dataclasses."""

    def __init__(self, x, name):
        self.x, self.name = x, name

    def tree_flatten(self):
        return (self.x,), self.name

    @classmethod
    def tree_unflatten(cls, name, children):
        return cls(*children, name)


@jax.tree_util.register_pytree_with_keys_class
class Twins:
    """A pytree whose two children have the same key."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def tree_flatten_with_keys(self):
        return ((jax.tree_util.GetAttrKey("a"), self.x), (jax.tree_util.DictKey("a"), self.y)), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["x"], meta_fields=["name"])
@dataclasses.dataclass
class RegisteredDataclass:
    x: object
    name: str


@jax.tree_util.register_pytree_node_class
class RegisteredTuple(tuple):
    """A tuple with something beside its elements, which JAX knows how to take apart."""

    def tree_flatten(self):
        return tuple(self), self.name

    @classmethod
    def tree_unflatten(cls, name, children):
        self = cls(children)
        self.name = name
        return self


def named_tuple_with_name():
    self = RegisteredTuple([jnp.ones(2)])
    self.name = "kept"
    return self


OTHER = Config(1.0)


def param():
    return liftnn.Param(jnp.arange(2.0), tag="t")


PLAIN = {
    "list": lambda: [param(), 1, [jnp.ones(2)]],
    "empty list": list,
    "list subclass": lambda: Names([param()]),
    "dict": lambda: {"b": param(), "a": {"c": jnp.ones(1)}},
    "empty dict": dict,
    "dict with other keys": lambda: {1: param(), "1": 2, (1, 2): param(), None: 3, 2.5: 4, True.real + 1: 5},
    "dict subclass": lambda: Tally(a=param()),
    "OrderedDict": lambda: collections.OrderedDict([("b", param()), ("a", 1)]),
    "defaultdict": lambda: collections.defaultdict(list, a=param()),
    "Counter": lambda: collections.Counter("aab"),
    "deque": lambda: collections.deque([param(), 1], maxlen=2),
    "unbounded deque": lambda: collections.deque([param(), 1, 2, 3]),
    "tuple": lambda: (param(), (jnp.ones(2), "static")),
    "empty tuple": tuple,
    "tuple subclass": lambda: Pair([param(), 1]),
    "static tuple": lambda: (1, ("a", None)),
    "namedtuple": lambda: Point(param(), 2),
    "NamedTuple": lambda: Triple(param()),
    "dataclass": lambda: Record(param(), jnp.ones(2)),
    "dataclass with more": lambda: Config(0.5, 4),
    "dataclass with slots": lambda: Compact(param()),
    "frozen dataclass": lambda: Frozen(param(), [1]),
    "frozen dataclass with slots": lambda: FrozenCompact(param()),
    "set": lambda: {1, "a"},
    "set of more": lambda: {1.5, (2, "a"), None, frozenset([1])},
    "frozenset": lambda: frozenset([1, "a"]),
    "namespace": lambda: types.SimpleNamespace(a=param(), b=[jnp.ones(2)], c=1),
    "weak reference to something else": lambda: weakref.ref(OTHER),
    "None": lambda: None,
    "module": lambda: Node(w=param()),
    "empty module": Node,
    "module with slots": lambda: Slotted(a=param(), c=1),
    "range": lambda: range(3),
    "dtype": lambda: np.dtype("f4"),
    "class": lambda: jnp.float32,
    "numpy scalar": lambda: np.float32(1.5),
}


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_what_a_module_holds_comes_back_from_split_and_merge(make):
    model = Node(first=param(), x=make(), last=1)
    assert find_difference(model, liftnn.merge(*reversed(liftnn.split(model)))) is None


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_what_a_module_holds_comes_back_in_a_clone(make):
    model = Node(first=param(), x=make(), last=1)
    clone = liftnn.clone(model)
    assert find_difference(model, clone) is None
    assert clone.first is not model.first


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_splitting_twice_gives_equal_structures(make):
    one, two = liftnn.split(Node(x=make()))[-1], liftnn.split(Node(x=make()))[-1]
    assert one == two
    assert hash(one) == hash(two)


@pytest.mark.parametrize("name", arrays())
def test_an_array_is_a_leaf_of_the_state(name):
    x = arrays()[name]
    model = Node(x=x, v=liftnn.Param(x), inside=[{"x": x}])
    state, graphdef = liftnn.split(model)
    assert list(state.flat()) == [("x",), ("v",), ("inside", 0, "x")]
    assert state["x"] is x
    assert find_difference(model, graphdef.merge(state)) is None


def test_arrays_of_other_values_and_shapes_do_not_change_the_structure():
    one, two = Node(x=jnp.ones(2), v=liftnn.Param(jnp.ones(2))), Node(x=np.zeros(3), v=liftnn.Param(1))
    assert liftnn.split(one)[-1] == liftnn.split(two)[-1]


PYTREES = {
    "registered class": lambda: Registered(param(), "kept"),
    "registered dataclass": lambda: RegisteredDataclass(param(), "kept"),
    "registered tuple": named_tuple_with_name,
    "arrays with one key": lambda: Twins(jnp.ones(2), jnp.zeros(2)),
    "Variables with one key": lambda: Twins(param(), liftnn.Variable(jnp.ones(2))),
    "Partial": lambda: jax.tree_util.Partial(jnp.add, jnp.ones(2)),
    "optax state": lambda: optax.adam(0.1).init({"w": jnp.ones(2)}),
    "State": lambda: liftnn.state(Node(w=param())),
    "ShapeDtypeStruct": lambda: jax.ShapeDtypeStruct((2,), jnp.float32),
}


@pytest.mark.parametrize("make", PYTREES.values(), ids=PYTREES)
def test_a_registered_pytree_comes_back_as_it_was(make):
    model = Node(x=make())
    for back in (liftnn.clone(model), liftnn.merge(*reversed(liftnn.split(model)))):
        assert type(back.x) is type(model.x)
        leaves, treedef = jax.tree.flatten(model.x, is_leaf=lambda x: isinstance(x, liftnn.Variable))
        new_leaves, new_treedef = jax.tree.flatten(back.x, is_leaf=lambda x: isinstance(x, liftnn.Variable))
        assert treedef == new_treedef
        assert find_difference(Node(x=leaves), Node(x=new_leaves)) is None


def test_the_static_data_of_a_registered_pytree_is_part_of_the_structure():
    structures = [liftnn.split(Node(x=Registered(jnp.ones(2), name)))[-1] for name in "aab"]
    assert structures[0] == structures[1]
    assert structures[0] != structures[2]


def test_paths_go_through_every_kind_of_container():
    model = Node(
        a=[param()], d={"k": param(), 3: param()}, p=Point(param(), 1), r=Record(param()), f=Frozen(param()),
        t=(jnp.ones(1), (param(),)), x=RegisteredDataclass(param(), "n"),
        q=functools.partial(max, param(), key=param()),
    )  # fmt: skip
    assert list(liftnn.state(model).flat()) == [
        ("a", 0), ("d", "k"), ("d", 3), ("p", "x"), ("r", "a"), ("f", "a"), ("t", 0), ("t", 1, 0), ("x", "x"),
        ("q", 0), ("q", "key"),
    ]  # fmt: skip


# --- what is called


class Layer(Node):
    def call(self, x):
        return self.scale * x


def test_a_bound_method_is_bound_to_the_copy():
    layer = Layer(scale=2)
    model = Node(layer=layer, f=layer.call, g={"h": layer.call})
    clone = liftnn.clone(model)
    clone.layer.scale = 5
    assert (clone.f(1), clone.g["h"](1), model.f(1)) == (5, 5, 2)


def test_a_method_of_the_module_itself_is_a_cycle():
    layer = Layer(scale=2)
    layer.f = layer.call
    clone = liftnn.merge(*reversed(liftnn.split(layer)))
    assert clone.f.__self__ is clone


def test_a_partial_holds_the_copies():
    layer = Layer(scale=2)
    model = Node(layer=layer, f=functools.partial(Layer.call, layer, x=jnp.ones(2)))
    clone = liftnn.clone(model)
    assert clone.f.args[0] is clone.layer
    assert list(liftnn.state(model).flat()) == [("f", "x")]
    assert clone.f().tolist() == [2, 2]


def test_a_function_and_a_method_of_a_static_object_are_static():
    config = Counting()
    model = Node(f=jnp.sin, g=config.count, h=len)
    clone = liftnn.clone(model)
    assert (clone.f, clone.g, clone.h) == (jnp.sin, config.count, len)


class Counting:
    def count(self):
        return 1


# --- sharing and cycles


SHARED = {
    "variable": param,
    "module": Node,
    "list": list,
    "dict": dict,
    "deque": lambda: collections.deque([1]),
    "set": set,
    "namespace": types.SimpleNamespace,
    "dataclass": lambda: Record(1),
    "frozen dataclass": lambda: Frozen(1),
    "tuple": lambda: (param(),),
    "pytree": lambda: Registered(jnp.ones(2), "n"),
    "partial": lambda: functools.partial(max, jnp.ones(1)),
}


@pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
def test_what_is_shared_stays_shared_and_what_is_not_does_not(make):
    x = make()
    model = Node(a=x, b=[x], c={"x": x}, other=make())
    for back in (liftnn.clone(model), liftnn.merge(*reversed(liftnn.split(model)))):
        assert back.a is back.b[0] is back.c["x"]
        assert back.a is not back.other
        assert back.a is not x


@pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
def test_sharing_is_part_of_the_structure(make):
    x = make()
    shared, apart = Node(a=x, b=x), Node(a=make(), b=make())
    assert liftnn.split(shared)[-1] != liftnn.split(apart)[-1]


def test_cycles_through_every_kind_of_container_stay_cycles():
    m = Node()
    m.list, m.dict, m.tuple, m.point = [m], {"m": m}, (m, (m,)), Point(m, 1)
    m.record, m.frozen, m.partial = Record(m), Frozen(m, [m]), functools.partial(max, m)
    m.pytree, m.namespace = Registered(m, "n"), types.SimpleNamespace(m=m)
    for back in (liftnn.clone(m), liftnn.merge(*reversed(liftnn.split(m))), copy.deepcopy(m)):
        assert back.list[0] is back.dict["m"] is back.tuple[0] is back.tuple[1][0] is back.point.x is back
        assert (
            back.record.a
            is back.frozen.a
            is back.frozen.b[0]
            is back.partial.args[0]
            is back.pytree.x
            is back.namespace.m
            is back
        )


def test_containers_may_hold_themselves():
    items, table = [1], {}
    items.append(items)
    table["self"] = (table, items)
    back = liftnn.clone(Node(items=items, table=table))
    assert back.items[1] is back.items
    assert back.table["self"][0] is back.table
    assert back.table["self"][1] is back.items


def test_a_frozen_dataclass_in_a_cycle_through_a_list_comes_back():
    items = []
    items.append(Frozen(items))
    back = liftnn.clone(Node(items=items))
    assert back.items[0].a is back.items


def test_private_slots_come_back():
    class Private(liftnn.Module):
        __slots__ = ("__secret",)

        def __init__(self):
            self.__secret = param()

        def read(self):
            return self.__secret

    model = Private()
    assert list(liftnn.state(model).flat()) == [("_Private__secret",)]
    assert liftnn.clone(model).read().value.tolist() == [0, 1]


@dataclasses.dataclass
class Body:
    legs: object


class Animal(Body, enum.Enum):
    DOG = 4


class Pairs(list, enum.Enum):
    ONE = ((1, 2),)


@dataclasses.dataclass
class Noted(int):
    note: object

    def __new__(cls, note):
        return super().__new__(cls, 3)


@dataclasses.dataclass
class ReasonError(Exception):
    reason: object


@pytest.mark.parametrize("member", [Animal.DOG, Pairs.ONE])
def test_a_member_of_an_enum_is_itself_also_if_it_is_a_dataclass_or_a_container(member):
    node = Node(x=member, w=liftnn.Param(jnp.ones(1)))
    inside = []
    for transform in (liftnn.jit, liftnn.remat):
        assert transform(lambda node: inside.append(node.x) or node.x)(node) is member
    assert liftnn.remat(lambda x, node: inside.append(x))(member, node) is None
    assert all(x is member for x in inside)
    assert liftnn.clone(node).x is member


@pytest.mark.parametrize("value", [Noted("a"), ReasonError("a")], ids=["int", "exception"])
def test_a_dataclass_that_is_a_number_or_an_exception_is_static(value):
    node = Node(x=value, w=liftnn.Param(jnp.ones(1)))
    liftnn.jit(lambda node: node.w.set_value(node.w * 2))(node)
    copied = liftnn.clone(node).x
    assert (node.x, copied, type(copied), vars(copied)) == (value, value, type(value), vars(value))


def test_many_classes_of_modules_do_not_fill_the_memory_of_kinds():
    for i in range(4200):
        cls = type(f"Made{i}", (Node,), {})
        assert type(liftnn.clone(cls(n=i))) is cls
    assert find_difference(Node(x=[1, {"a": param()}]), liftnn.clone(Node(x=[1, {"a": param()}]))) is None


@pytest.mark.parametrize(
    "hold", [lambda x: x, lambda x: [x], lambda x: lambda: x, lambda x: functools.partial(max, x)]
)
def test_a_plain_object_may_have_any_private_attributes(hold):
    class Cook:
        _recipe = "soup"
        _carried_functions = _others = None

    node = Node(x=hold(Cook()), w=liftnn.Param(jnp.ones(1)))
    liftnn.jit(lambda node: node.w.set_value(node.w * 2))(node)
    assert float(liftnn.clone(node).w[0]) == 2.0
