"""Whatever leads to a captured module is seen when it changes, and nothing is searched while it does not."""

from __future__ import annotations

import collections
import dataclasses
import functools
import gc
import weakref

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
import tests.captures.dynamic_captures
import tests.captures.long_captures
import tests.captures.object_captures  # noqa: F401
from liftnn._src.lifting import arguments
from tests.captures.captures import CASES, both
from tests.user_modules import Affine, Holder

pytestmark = pytest.mark.filterwarnings(
    "ignore::liftnn.RetraceWarning", "ignore::liftnn.StructureWarning", "ignore::liftnn.CaptureWarning"
)


@pytest.mark.sample(12)
@pytest.mark.parametrize("name", CASES)
def test_a_change_is_seen_by_the_next_call_of_an_attribute(name):
    f, changes = CASES[name]()
    m = Holder(act=f)
    call = liftnn.jit(lambda m, x: m.act(x))
    assert float(call(m, 2.0)) == float(f(2.0))
    for change in changes:
        change()
        assert float(call(m, 2.0)) == float(f(2.0))
        assert float(call(m, 2.0)) == float(f(2.0))


@pytest.mark.parametrize("kept", [False, True], ids=["", "while the old modules live"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(16)
def test_a_change_is_seen_by_the_next_call(name, kept):
    f, changes = CASES[name]()
    call = liftnn.jit(f)
    assert float(call(2.0)) == float(f(2.0))
    alive = [x for x in gc.get_objects() if isinstance(x, liftnn.Module)] if kept else []
    for change in changes:
        change()
        assert float(call(2.0)) == float(f(2.0))
        assert float(call(2.0)) == float(f(2.0))
    del alive


STORED = {
    "list": (lambda xs, x: xs[0] * x, lambda: [2.0], lambda xs: xs.__setitem__(0, 5.0)),
    "longer list": (lambda xs, x: len(xs) * x, lambda: [2.0], lambda xs: xs.append(1.0)),
    "arrays": (
        lambda xs, x: xs[0] * x,
        lambda: [jnp.array(2.0)],
        lambda xs: xs.__setitem__(0, jnp.array(5.0)),
    ),
    "dict": (lambda d, x: d["a"] * x, lambda: {"a": 2.0}, lambda d: d.update(a=5.0)),
    "another key": (lambda d, x: x * ("b" in d), lambda: {"a": 2.0}, lambda d: d.update(b=5.0)),
    "deep": (lambda t, x: t[0]["a"][0] * x, lambda: ({"a": [2.0]},), lambda t: t[0]["a"].__setitem__(0, 5.0)),
    "ordered dict": (
        lambda d, x: d["a"] * x,
        lambda: collections.OrderedDict(a=2.0),
        lambda d: d.update(a=5.0),
    ),
    "numpy": (lambda a, x: a[0] * x, lambda: np.ones(2), lambda a: a.__setitem__(0, 5.0)),
    "text": (lambda xs, x: x * len(xs[0]), lambda: ["a"], lambda xs: xs.__setitem__(0, "abc")),
    "a module": (lambda xs, x: xs[0].b * x, lambda: [Affine(2.0)], lambda xs: xs.__setitem__(0, Affine(3.0))),
}


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a module"])
@pytest.mark.parametrize("name", STORED)
@pytest.mark.sample(6)
def test_a_change_of_what_a_partial_stores_is_seen(name, beside, by_name):
    function, make, change = STORED[name]
    stored, model = make(), Affine(2.0)
    old = list(stored) if isinstance(stored, list) else None
    if by_name:
        f = functools.partial(lambda x, m=None, s=None: function(s, x), s=stored, m=model if beside else None)
    else:
        f = functools.partial(lambda m, s, x: function(s, x), model if beside else None, stored)
    call = liftnn.jit(f)
    for _ in range(3):
        np.testing.assert_array_equal(call(3.0), f(3.0))
    change(stored)
    for _ in range(3):
        np.testing.assert_array_equal(call(3.0), f(3.0))
    del old


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(2)
def test_nothing_is_searched_while_the_guards_hold(name, monkeypatch):
    f, _ = CASES[name]()
    call = liftnn.jit(f)
    call(2.0)
    searches = []
    find = arguments.find_captured
    monkeypatch.setattr(arguments, "find_captured", lambda *a: searches.append(a) or find(*a))
    for _ in range(3):
        call(2.0)
    assert searches == []
    assert call.n_traces == 1


def test_a_number_that_changes_between_calls_is_a_constant_as_in_jax(monkeypatch):
    m, factor = Affine(), 2.0
    call = liftnn.jit(lambda x: m(x) * factor)
    first = call(1.0)
    factor = 3.0
    searches = []
    monkeypatch.setattr(arguments, "find_captured", lambda *a: searches.append(a))
    assert call(1.0).tolist() == first.tolist()
    assert searches == []


def test_arrays_that_cannot_be_compared_may_replace_each_other():
    m, arrays = Affine(), [jnp.ones(2)]
    call = liftnn.jit(lambda x: m(x) * len(arrays))
    for shape in (2, 3, (3, 2)):
        arrays[0] = jnp.ones(shape)
        for _ in range(3):
            np.testing.assert_array_equal(call(2.0), m(2.0))


# --- numpy arrays that are changed in place: JAX caches a numpy constant by identity


model_of_closure = Holder(w=liftnn.Param(1.0))


@dataclasses.dataclass
class Record:
    a: object


NUMPY_HOLDERS = {
    "attribute": (lambda a: Holder(a=a), lambda m: m.a),
    "list": (lambda a: Holder(items=[a]), lambda m: m.items[0]),
    "dict": (lambda a: Holder(items={"a": a}), lambda m: m.items["a"]),
    "dataclass": (lambda a: Holder(record=Record(a)), lambda m: m.record.a),
    "closure": (lambda a: Holder(f=lambda: (a, model_of_closure)), lambda m: m.f()[0]),
    "inner module": (lambda a: Holder(inner=Holder(a=a)), lambda m: m.inner.a),
}
WHOLE = {
    "jit": liftnn.jit,
    "grad": lambda f: liftnn.grad(lambda x: f(x).sum() * x),
    "vmap": lambda f: lambda x: liftnn.vmap(f)(jnp.full(2, x)),
    "remat": liftnn.remat,
    "jit of grad": lambda f: liftnn.jit(liftnn.grad(lambda x: f(x).sum() * x)),
}


@pytest.mark.parametrize("name", NUMPY_HOLDERS)
@pytest.mark.parametrize("transform", WHOLE.values(), ids=WHOLE)
@pytest.mark.sample(8)
def test_a_numpy_array_that_is_used_whole_may_be_changed_in_place(name, transform):
    make, get = NUMPY_HOLDERS[name]
    array = np.ones(2, np.float32)
    model = make(array)
    model.w = liftnn.Param(jnp.ones(2))

    def f(x):
        return model.w * x + get(model)

    call = transform(f)
    for first in (1.0, 7.0, 7.0, 3.0):
        array[0] = first
        now = jnp.array(array)
        expected = transform(functools.partial(lambda now, x: model.w * x + now, now))(2.0)
        np.testing.assert_array_equal(call(2.0), expected)
        assert get(model) is array


def test_a_captured_numpy_array_that_the_function_changes_is_an_error_and_as_before():
    array = np.ones(2)
    model = Holder(w=liftnn.Param(1.0), a=array)

    @liftnn.jit
    def f(x):
        model.a[0] = 5.0
        return model.w * x

    with pytest.raises(
        liftnn.TraceContextError, match="A numpy array that a captured module holds was changed"
    ):
        f(1.0)
    assert model.a is array
    assert array.tolist() == [1.0, 1.0]


def of_proxy(m):
    proxy = weakref.proxy(m)
    return lambda x: x * proxy()


def of_array(m):
    array = np.array([m, None], object)
    return lambda x: x * both(array[0])


@pytest.mark.parametrize("make", [of_proxy, of_array])
def test_a_change_of_a_module_that_no_search_finds_is_seen(make):
    class Called(Holder):
        def __call__(self):
            return both(self)

    m = Called(k=2, v=liftnn.Variable(jnp.float32(2.0)))
    call, f = liftnn.jit(make(m)), make(m)
    for value in (2, 9, 9, 3):
        m.k = value
        assert float(call(2.0)) == float(f(2.0))
