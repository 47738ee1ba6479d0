"""A warm call sees every change that was made between calls, in whatever kind of object it was made."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.same import assert_same
from tests.strategies import Node, Record


@jax.tree_util.register_pytree_node_class
class Registered:
    """A pytree that can be changed in place."""

    def __init__(self, x, name):
        self.x, self.name = x, name

    def tree_flatten(self):
        return (self.x,), self.name

    @classmethod
    def tree_unflatten(cls, name, children):
        return cls(*children, name)


class Equal(Node):
    """Claims to be equal to anything."""

    def __eq__(self, other):
        return True

    __hash__ = object.__hash__


class Hooked(Node):
    def hook(self, variable, x):
        return x * self.scale


def make_hooked():
    model = Hooked(scale=jnp.float32(2))
    model.w = liftnn.Param(jnp.float32(3), get_value_hooks=model.hook)
    return model


def move(table):
    table.move_to_end("a")


# name: the model, what is read of it, and the changes
CHANGES = {
    "Variable in a pytree": (
        lambda: Node(r=Registered(liftnn.Param(jnp.float32(1)), "a")),
        lambda m: m.r.x.value,
        [lambda m: setattr(m.r, "x", liftnn.Param(jnp.float32(5)))],
    ),
    "array in a pytree": (
        lambda: Node(r=Registered(jnp.float32(1), "a")),
        lambda m: m.r.x,
        [lambda m: setattr(m.r, "x", jnp.float32(5))],
    ),
    "static data of a pytree": (
        lambda: Node(r=Registered(liftnn.Param(jnp.float32(1)), "a")),
        lambda m: m.r.x.value * len(m.r.name),
        [lambda m: setattr(m.r, "name", "abc"), lambda m: setattr(m.r, "name", "ab")],
    ),
    "set": (
        lambda: Node(s={1}),
        lambda m: jnp.float32(sum(type(x) is bool for x in m.s)),
        [lambda m: m.s.add(2), lambda m: (m.s.clear(), m.s.add(True))],
    ),
    "metadata": (
        lambda: Node(w=liftnn.Param(jnp.float32(1), axes=[1], table={"k": 1})),
        lambda m: m.w * sum(m.w.axes) * m.w.table["k"],
        [lambda m: m.w.axes.append(3), lambda m: m.w.table.update(k=7), lambda m: m.w.set_metadata(axes=[2])],
    ),
    "array in metadata": (
        lambda: Node(w=liftnn.Param(jnp.ones(2), mask=jnp.array([1.0, 0.0]))),
        lambda m: (m.w * m.w.mask).sum(),
        [lambda m: setattr(m.w, "mask", jnp.ones(2))],
    ),
    "method as a hook": (make_hooked, lambda m: m.w.value, [lambda m: setattr(m, "scale", jnp.float32(5))]),
    "deque": (
        lambda: Node(d=collections.deque([1])),
        lambda m: jnp.float32(sum(m.d)),
        [lambda m: m.d.append(2), lambda m: m.d.rotate(1)],
    ),
    "OrderedDict": (
        lambda: Node(d=collections.OrderedDict(a=1, b=2)),
        lambda m: jnp.float32(next(iter(m.d.values()))),
        [lambda m: m.d.move_to_end("a"), lambda m: m.d.update(b=9)],
    ),
    "neighbouring lists": (
        lambda: Node(a=[1, 2], b=[3], c=[]),
        lambda m: jnp.float32(sum(m.a) + 10 * sum(m.b) + 100 * sum(m.c)),
        [
            lambda m: m.b.insert(0, m.a.pop()),
            lambda m: m.c.append(m.b.pop()),
            lambda m: (m.a.extend(m.b), m.b.clear()),
            lambda m: m.c.clear(),
        ],
    ),
    "neighbouring dicts": (
        lambda: Node(a={"k": 1, "l": 2}, b={}),
        lambda m: jnp.float32(
            m.a.get("k", 5) + 10 * m.a.get("l", 5) + 100 * m.b.get("l", 5) + 1000 * len(m.b)
        ),
        [
            lambda m: m.b.update(l=m.a.pop("l")),
            lambda m: m.a.update(l=m.a.pop("k")),
            lambda m: (m.a.update(k=3), m.a.update(l=m.a["k"], k=m.a["l"])),
            lambda m: m.b.clear(),
        ],
    ),
    "order and types of keys": (
        lambda: Node(a={"k": 1, "l": 1, 1: 1}),
        lambda m: jnp.float32(list(m.a).index("k") + 10 * sum(type(k) is bool for k in m.a)),
        [lambda m: m.a.update(k=m.a.pop("k")), lambda m: (m.a.pop(1), m.a.update({True: 1}))],
    ),
    "defaultdict": (
        lambda: Node(d=collections.defaultdict(int, a=1)),
        lambda m: jnp.float32(sum(m.d.values()) + m.d.default_factory()),
        [lambda m: m.d.update(b=2), lambda m: setattr(m.d, "default_factory", lambda: 7)],
    ),
    "element that equals everything": (
        lambda: Node(a=[Node(x=1)]),
        lambda m: jnp.float32(m.a[0].x),
        [lambda m: m.a.__setitem__(0, Equal(x=2))],
    ),
    "dataclass": (
        lambda: Node(r=Record(1, liftnn.Param(jnp.float32(2)))),
        lambda m: m.r.a * m.r.b.value,
        [lambda m: setattr(m.r, "a", 3), lambda m: setattr(m.r, "b", liftnn.Param(jnp.float32(5)))],
    ),
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("make, read, changes", CHANGES.values(), ids=CHANGES)
def test_a_change_between_calls_is_seen_by_the_next_call(make, read, changes):
    model = make()
    step = liftnn.jit(read)
    for change in [lambda m: None, lambda m: None, *changes, lambda m: None]:
        change(model)
        assert step(model) == read(model)


class Noting(liftnn.Module):
    """Notes its input in a Variable that it replaces at each call."""

    __slots__ = ("y",)

    def __init__(self):
        self.y = liftnn.Intermediate(jnp.float32(0))

    def __call__(self, x):
        self.y = liftnn.Intermediate(x)
        return x


def test_a_variable_in_a_slot_is_replaced_at_each_call():
    model = Noting()
    step = liftnn.jit(lambda m, x: m(x))
    for i in range(5):
        step(model, jnp.float32(i))
        assert model.y == i
        assert vars(model) == {}


@pytest.mark.parametrize("raw", [jax.jit, jax.grad, lambda f: lambda x: jax.vmap(f)(x[None])])
def test_a_pytree_written_by_a_fast_call_under_a_raw_transform_is_refused(raw):
    model = Node(w=liftnn.Variable({"a": jnp.float32(1)}))
    step = liftnn.jit(
        lambda m, x: m.w.raw_value["a"] * x + (setattr(m.w, "value", {"a": m.w.value["a"] * x}) or 0)
    )
    for _ in range(2):
        step(model, jnp.float32(1))
    before = model.w.value
    with pytest.raises(liftnn.TraceContextError, match="this code runs under a raw JAX transform"):
        raw(lambda x: step(model, x))(jnp.float32(2))
    assert model.w.value is before


@pytest.mark.parametrize("options", [{"donate_argnums": 0}, {"donate_written": True}])
def test_arrays_that_come_to_be_shared_between_calls_are_not_donated_twice(options):
    model = Node(v=liftnn.Variable(jnp.ones(2)), w=liftnn.Variable(jnp.ones(2)), t=liftnn.Variable({}))

    def f(m, x):
        m.v.value, m.w.value = m.v + x, m.w * 2
        m.t.value = jax.tree.map(lambda y: y + x, m.t.value)
        return m.v.value + m.w.value

    step, x = liftnn.jit(f, **options), jnp.full(2, 3.0)
    changes = [
        lambda m: None,
        lambda m: setattr(m.v, "value", m.w.value),
        lambda m: setattr(m.w, "value", x),
        lambda m: setattr(m.t, "value", {"a": x, "b": m.v.value}),
        lambda m: setattr(m.t, "value", {"a": m.w.value, "b": m.w.value}),
        lambda m: None,
    ]
    reference = liftnn.clone(model)
    for change in changes:
        for m in (model, reference):
            change(m)
        assert step(model, x).tolist() == f(reference, x).tolist()
        assert_same(model, reference)
        assert x.tolist() == [3.0, 3.0]
