"""The search for captured modules runs no code of the user's, needs no recursion, and does not read what is large."""

from __future__ import annotations

import collections
import collections.abc
import functools
import sys
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn._src.captures.search import find_captured
from tests.user_modules import Affine, Holder

X = jnp.ones(3)


# --- deep


def chain_of_functions(depth, last):
    scope = {"__name__": "user", f"f{depth}": last}
    exec("\n".join(f"def f{i}(x): return f{i + 1}(x)" for i in range(depth)), scope)
    return scope["f0"]


def chain_of_closures(depth, f):
    for _ in range(depth):
        f = (lambda inner: lambda x: inner(x))(f)
    return f


def chain_of_partials(depth, f):
    for _ in range(depth):
        f = functools.partial(lambda inner, x: inner(x), f)
    return f


def chain_of_lists(depth, f):
    nested = [f]
    for _ in range(depth):
        nested = [nested]

    def call(x):
        inner = nested
        while isinstance(inner, list):
            inner = inner[0]
        return inner(x)

    return call


def chain_of_objects(depth, f):
    class Link:
        def __init__(self, next):
            self.next = next

    link = Link(f)
    for _ in range(depth):
        link = Link(link)

    def call(x):
        inner = link
        while isinstance(inner, Link):
            inner = inner.next
        return inner(x)

    return call


def chain_of_wrappers(depth, f):
    for _ in range(depth):
        f = functools.wraps(f)((lambda inner: lambda x: inner(x))(f))
    return f


DEPTHS = {
    chain_of_functions: 250,
    chain_of_closures: 250,
    chain_of_partials: 100,
    chain_of_lists: 3000,
    chain_of_objects: 3000,
    chain_of_wrappers: 150,
}


@pytest.mark.sample(6)
@pytest.mark.parametrize("chain", DEPTHS)
def test_what_stands_at_the_end_of_a_long_chain_is_found(chain):
    model, plain = Affine(2.0), Affine(2.0)
    f = chain(DEPTHS[chain], lambda x: model(x))
    assert list(find_captured([f]).roots.values()) == [model]
    call = liftnn.jit(f)
    for _ in range(3):
        assert call(X).tolist() == plain(X).tolist()
    assert int(model.calls.value) == int(plain.calls.value) == 3


@pytest.mark.sample(6)
@pytest.mark.parametrize("chain", DEPTHS)
def test_a_chain_that_is_deeper_than_the_stack_is_searched(chain):
    if chain is chain_of_wrappers:
        pytest.skip("functools.wraps copies the attributes of each")
    model = Affine()
    f = chain(3 * sys.getrecursionlimit(), model)
    found = find_captured([f])
    assert list(found.roots.values()) == [model]
    assert found.guards.hold()
    hash(found.shape)


def test_functions_that_share_are_searched_once_each():
    def both(f, g):
        return lambda x: f(x) + g(x)

    model = Affine()
    f = model.__call__
    for _ in range(200):
        f = both(f, f)
    start = time.perf_counter()
    assert list(find_captured([f]).roots.values()) == [model]
    assert time.perf_counter() - start < 2


# --- no code of the user's


class CodeWasRun(BaseException):  # not an error of the call
    """Raised by code of the user's that nobody called."""


def raise_it(*_args, **_kwargs):
    raise CodeWasRun


HOOKS = (
    "__getattr__",
    "__getattribute__",
    "__getitem__",
    "__iter__",
    "__len__",
    "__eq__",
    "__hash__",
    "__bool__",
    "__contains__",
    "__repr__",
    "__call__",
    "__get__",
    "__dir__",
    "__instancecheck__",
    "__index__",
    "__array__",
    "__jax_array__",
    "__copy__",
    "__reduce_ex__",
    "keys",
    "values",
    "items",
)


def hooked(base, hook):
    """An instance of a class with one method that raises."""
    namespace = {hook: raise_it}
    if hook == "__hash__" or base in (dict, list, set, collections.deque):
        namespace.setdefault("__hash__", object.__hash__)
    return type("Hooked", (base,), namespace)


BASES = (
    object,
    list,
    tuple,
    dict,
    set,
    collections.deque,
    collections.OrderedDict,
    types.SimpleNamespace,
    str,
    int,
)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.sample(5)
def test_a_captured_object_is_found_without_running_its_methods(hook, base):
    x = hooked(base, hook)()

    def f(y):
        if y is None:
            x.attribute  # noqa: B018  # so that the search looks at it
        return y * 2

    call = liftnn.jit(f)
    for _ in range(3):
        assert call(X).tolist() == [2.0, 2.0, 2.0]


def test_a_property_for_the_class_or_the_attributes_is_not_asked():
    class Proxy:
        __class__ = property(raise_it)
        __dict__ = property(raise_it)
        __wrapped__ = property(raise_it)
        attribute = property(raise_it)

    proxy = Proxy()

    def f(x):
        if x is None:
            proxy.attribute  # noqa: B018
        return x * 2

    call = liftnn.jit(f)
    for _ in range(3):
        assert call(X).tolist() == [2.0, 2.0, 2.0]


def test_the_metaclass_of_a_captured_class_is_not_asked():
    class Meta(type):
        __getattr__ = __iter__ = __len__ = __bool__ = __instancecheck__ = __subclasscheck__ = raise_it

    class Model(metaclass=Meta):
        limit = 2

    call = liftnn.jit(lambda x: x * Model.limit)
    for _ in range(3):
        assert call(X).tolist() == [2.0, 2.0, 2.0]


class Lazy(collections.abc.Mapping):
    """A mapping that reads a record when it is asked for it."""

    def __init__(self, size):
        self.size = size
        self.reads = []

    def __getitem__(self, key):
        self.reads.append(key)
        if key == "bad":
            raise CodeWasRun
        return 2.0

    def __iter__(self):
        raise CodeWasRun

    def __len__(self):
        return self.size


@pytest.mark.parametrize(
    "transform", [liftnn.jit, liftnn.grad, liftnn.remat, lambda f: liftnn.vmap(f, axis_size=1)]
)
def test_of_a_lazy_mapping_only_that_is_read_what_the_function_reads(transform):
    data = Lazy(5000)
    transform(lambda x: (x * data[3]).sum())(jnp.ones(1)[0] if transform is liftnn.grad else jnp.ones(1))
    assert data.reads == [3]


# --- large


LARGE = {
    "list of numbers": lambda: list(range(200_000)),
    "list of tuples": lambda: [(i, (i,)) for i in range(50_000)],
    "dict": lambda: {i: [i] for i in range(50_000)},
    "set": lambda: set(range(200_000)),
    "numpy array of objects": lambda: np.array([[object()] * 100] * 100, dtype=object),
    "objects": lambda: [types.SimpleNamespace(i=i, l=[i]) for i in range(20_000)],
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", LARGE)
def test_large_data_does_not_slow_down_a_call(kind):
    data = LARGE[kind]()
    model = Affine()
    call = liftnn.jit(lambda x: model(x) * len(data))
    call(X)
    start = time.perf_counter()
    for _ in range(20):
        call(X)
    assert (time.perf_counter() - start) / 20 < 0.1
    start = time.perf_counter()
    find_captured([call])
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize("position", [0, 500, 30_000])
def test_a_module_in_a_large_list_acts_like_in_the_plain_call_wherever_it_stands(position):
    data = list(range(40_000))
    model, plain = Affine(2.0), Affine(2.0)
    data[position] = model
    call = liftnn.jit(lambda x: data[position](x))
    for _ in range(3):
        assert call(X).tolist() == plain(X).tolist()
    assert int(model.calls.value) == int(plain.calls.value)


@pytest.mark.parametrize("position", [0, 500, 30_000])
def test_a_module_that_takes_another_ones_place_in_a_large_list_is_seen(position):
    data = list(range(40_000))
    data[position] = Affine(2.0)
    call = liftnn.jit(lambda x: data[position](x))
    call(X)
    call(X)
    data[position] = Affine(5.0)
    assert call(X).tolist() == Affine(5.0)(X).tolist()


@pytest.mark.sample(2)
@pytest.mark.parametrize("size", [10, 63, 64, 65, 2000])
@pytest.mark.parametrize("kind", [list, dict, set])
def test_a_container_of_any_size_that_gets_its_first_module_is_seen(size, kind):
    data = kind.fromkeys(range(size)) if kind is dict else kind(range(size))
    put = (
        data.append
        if kind is list
        else data.add
        if kind is set
        else functools.partial(data.__setitem__, "model")
    )

    def f(x):
        modules = [m for m in (data.values() if kind is dict else data) if isinstance(m, Holder)]
        return x * sum((m.k for m in modules), start=1)

    call = liftnn.jit(f)
    assert call(X).tolist() == f(X).tolist()
    put(Holder(k=3, v=liftnn.Variable(0.0)))
    assert call(X).tolist() == f(X).tolist()


class OfC:
    """A class whose module is a descriptor, as some classes of C's have it."""

    __module__ = property(lambda self: "c")


def test_a_function_with_hundreds_of_names_may_import():
    names = "".join(f"  name{i}\n" for i in range(300))
    scope = {"__name__": "user", **{f"name{i}": i for i in range(300)}}
    exec(f"def f(model, x):\n{names}  from os import path\n  return model(x)", scope)
    f, model = liftnn.jit(scope["f"]), Affine(2.0)
    assert f(model, X).tolist() == f(model, X).tolist() == model(X).tolist()


def test_a_class_whose_module_is_a_descriptor_disturbs_no_search():
    odd, model = OfC(), Affine()
    f = lambda x: model(x) if odd else x  # noqa: E731
    assert liftnn.jit(f)(X).tolist() == f(X).tolist()


class LazyModule(types.ModuleType):
    """A Python module that loads its content when an attribute is read."""

    def __getattribute__(self, name):
        loaded.append(name)
        return super().__getattribute__(name)


loaded = []


def test_a_lazy_python_module_is_searched_without_loading_it():
    lazy, settings, model = LazyModule("user_lazy"), types.ModuleType("user_settings"), Affine(2.0)
    vars(settings).update(lazy=lazy, part=types.SimpleNamespace())
    settings.part.first = model
    f = liftnn.jit(lambda x: getattr(settings.part, "fir" + "st")(x) if settings.lazy is not None else x)
    loaded.clear()
    assert f(X).tolist() == model(X).tolist()
    assert loaded == []


def test_an_attribute_that_a_python_module_gets_later_is_seen():
    settings = types.ModuleType("user_settings")
    f = liftnn.jit(lambda x: settings.model(x) if hasattr(settings, "model") else x)
    assert f(X).tolist() == X.tolist()
    settings.model = Affine(2.0)
    assert f(X).tolist() == settings.model(X).tolist()
