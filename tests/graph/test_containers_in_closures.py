"""A module and a function of it may hold one container: both see every change, inside a transform and after it."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
import weakref

import jax
import jax.numpy as jnp
import pytest

import liftnn


@dataclasses.dataclass
class Notes:
    entries: dict
    size: int = 0


@jax.tree_util.register_pytree_node_class
class Pair:
    def __init__(self, a):
        self.a = a

    def tree_flatten(self):
        return (self.a,), None

    @classmethod
    def tree_unflatten(cls, static, children):
        return cls(*children)


class Items(list):
    pass


def set_attribute(x, k):
    x.size = k


def set_leaf(x, k):
    x.a = x.a + k


# for each container: how it is made, how it is changed, and what is read of it
CONTAINERS = {
    "list": (list, lambda x, k: x.append(k), len),
    "list subclass": (Items, lambda x, k: x.append(k), len),
    "dict": (dict, lambda x, k: x.update({str(k): k}), lambda x: sum(x.values())),
    "ordered dict": (collections.OrderedDict, lambda x, k: x.update({str(k): k}), lambda x: sum(x.values())),
    "set": (set, lambda x, k: x.add(k), sum),
    "deque": (collections.deque, lambda x, k: x.appendleft(k), lambda x: x[0] if x else 0),
    "namespace": (lambda: types.SimpleNamespace(size=0), set_attribute, lambda x: x.size),
    "dataclass": (lambda: Notes({}), set_attribute, lambda x: x.size),
    "dict in a dataclass": (
        lambda: Notes({}),
        lambda x, k: x.entries.update({k: k}),
        lambda x: sum(x.entries),
    ),
    "list in a tuple": (lambda: ([],), lambda x, k: x[0].append(k), lambda x: len(x[0])),
    "pytree": (lambda: Pair(jnp.ones(2)), set_leaf, lambda x: x.a.sum()),
}


def by_closure(x, read):
    return lambda: read(x)


def by_default(x, read):
    return lambda x=x: read(x)


def by_attribute(x, read):
    def f():
        return read(f.x)

    f.x = x
    return f


def by_function(x, read):
    def inner():
        return x

    return lambda: read(inner())


def by_partial(x, read):
    return functools.partial(lambda get: read(get()), lambda: x)


def by_weak_reference(x, read):
    reference = weakref.ref(x)
    return lambda r=reference: read(r())


def by_weak_attribute(x, read):
    reference = weakref.ref(x)
    return types.SimpleNamespace(call=lambda: read(reference())).call


HOLDS = (by_closure, by_default, by_attribute, by_function, by_partial, by_weak_reference, by_weak_attribute)
TRANSFORMS = {
    "jit": functools.partial(liftnn.jit, static_argnums=1),
    "jit of jit": lambda f: liftnn.jit(
        lambda m, k, x: liftnn.jit(f, static_argnums=1)(m, k, x), static_argnums=1
    ),
    "vmap": lambda f: lambda m, k, x: liftnn.vmap(lambda m, x: f(m, k, x), in_axes=(None, 0))(m, x[None])[0],
    "grad": lambda f: lambda m, k, x: liftnn.grad(lambda x, m: (x * 1.0, f(m, k, x)), has_aux=True)(x, m)[1],
    "remat": functools.partial(liftnn.remat, static_argnums=1),
}


class Model(liftnn.Module):
    def __init__(self, container, hold):
        make, self.change, read = CONTAINERS[container]
        self.held = make()
        self.size = hold(self.held, read)


def change_and_read(model, k, x):
    before = model.size() * x
    model.change(model.held, k)
    return before + 10 * model.size() * x


def refers_weakly(hold):
    return hold in (by_weak_reference, by_weak_attribute)


CASES = [
    pytest.param(container, hold, id=f"{container}-{hold.__name__}")
    for container, (make, _, _) in CONTAINERS.items()
    for hold in HOLDS
    if not refers_weakly(hold)
    or type(make()) not in (list, dict, tuple, types.SimpleNamespace)  # Python has no weak references to them
]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("container, hold", CASES)
@pytest.mark.sample(4)
def test_both_see_what_a_transform_changes_as_in_plain_python(container, hold, transform):
    model, plain = Model(container, hold), Model(container, hold)
    held = model.held
    call = TRANSFORMS[transform](change_and_read)
    for k in (2, 3):
        x = jnp.asarray(float(k))
        assert float(call(model, k, x)) == float(change_and_read(plain, k, x))
        assert float(model.size()) == float(plain.size())
    if container != "pytree":  # which is replaced, as JAX does
        assert model.held is held


@pytest.mark.parametrize("container, hold", CASES)
def test_a_change_between_calls_is_seen(container, hold):
    model, plain = Model(container, hold), Model(container, hold)
    call = liftnn.jit(lambda model, x: model.size() * x)
    for k in (2, 3, 3, 4):
        x = jnp.asarray(2.0)
        assert [float(call(model, x)) for _ in range(3)] == [float(plain.size() * x)] * 3
        for m in (model, plain):
            m.change(m.held, k)


class Registry(dict):
    """A dict with attributes, which cannot be a node."""

    def __init__(self):
        self.name = "registry"


class Table:
    """Compares elementwise, like a DataFrame, so it is not hashable and cannot be compared."""

    def __eq__(self, other):
        return [self is other]


REFUSED = {
    "dict with attributes": (Registry, lambda x: x.update(a=1), len),
    "set of modules": (set, lambda x: x.add(liftnn.Module()), len),
    "dict with a module as key": (dict, lambda x: x.update({liftnn.Module(): 1}), len),
    "table": (Table, lambda x: None, lambda x: 3),
    "bytes in memory": (lambda: memoryview(bytearray(2)), lambda x: None, len),
}


@pytest.mark.parametrize("hold", [by_closure, by_default, by_attribute, by_function, by_partial])
@pytest.mark.parametrize("which", REFUSED)
@pytest.mark.filterwarnings("ignore:.* which liftnn treats as static, but it holds:liftnn.StructureWarning")
def test_a_function_may_hold_what_a_module_may_not(which, hold):
    def build():
        container, items = make(), []
        model = liftnn.Module()
        model.size = hold([container, items], lambda both: read(both[0]) + 10 * len(both[1]))
        return model, container, items

    make, change, read = REFUSED[which]
    call = liftnn.jit(lambda model, x: model.size() * x)
    model, container, items = build()
    for _ in range(3):
        assert [float(call(model, 1.0)) for _ in range(3)] == [float(model.size())] * 3
        change(container)
        items.append(1)


@pytest.mark.parametrize("hold", [by_closure, by_default, by_function, by_partial])
def test_a_function_that_a_transform_adds_holds_the_callers_container(hold):
    def add(model, k, x):
        model.size = hold(model.held, len)
        return x

    model = Model("list", by_closure)
    liftnn.jit(add, static_argnums=1)(model, 1, 1.0)
    model.held.append(1)
    assert model.size() == 1


def test_two_models_with_equal_containers_share_a_program():
    call = liftnn.jit(lambda model: jnp.asarray(model.size()))
    for _ in range(3):
        assert int(call(Model("list", by_closure))) == 0
    assert call.n_traces == 1


def test_a_function_at_the_top_level_keeps_its_defaults():
    model = Model("list", by_closure)
    model.size = with_defaults
    assert liftnn.jit(lambda model: model.size is with_defaults and jnp.ones(()))(model) == 1


def with_defaults(values=[1, 2]):  # noqa: B006  # the case
    return len(values)
