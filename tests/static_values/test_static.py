"""Keys of static values: equal exactly if the values are interchangeable."""

from __future__ import annotations

import collections
import enum
import fractions
import functools
import math
import pickle

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.raising import raises

import liftnn
from liftnn import errors
from liftnn._src.static_values.static import Snapshot, Static, static_key


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Size(int):
    pass


class ByContent:
    """Unhashable, and compares by content."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return isinstance(other, ByContent) and self.x == other.x


class ByIdentity:
    """Hashable, and compares by identity."""


def named(name):
    """A function that differs from others in its name alone."""

    def activation(x):
        return x

    activation.__name__ = name
    return activation


Point = collections.namedtuple("Point", "x y")
Other = collections.namedtuple("Other", "x y")
OBJECT = ByIdentity()

INTERCHANGEABLE = {
    "int": (10**20, 10**20),
    "str": ("a" * 50, "".join(["a"] * 50)),
    "float": (0.1, float("0.1")),
    "nan": (float("nan"), float("nan")),
    "complex nan": (complex(0, float("nan")), complex(0, float("nan"))),
    "tuple": ((1, ("a", None)), (1, ("a", None))),
    "frozenset": (frozenset([1, 2]), frozenset([2, 1])),
    "set": ({1, "a"}, {"a", 1}),
    "slice": (slice(1, None), slice(1, None)),
    "range": (range(3), range(3)),
    "bytearray": (bytearray(b"a"), bytearray(b"a")),
    "class": (int, int),
    "enum": (Color.RED, Color.RED),
    "dtype": (np.dtype("f4"), np.dtype(np.float32)),
    "numpy scalar": (np.float32(1), np.float32(1)),
    "numpy nan": (np.float32("nan"), np.float32("nan")),
    "partial": (functools.partial(max, 1, key=abs), functools.partial(max, 1, key=abs)),
    "builtin": (math.sqrt, math.sqrt),
    "jax function": (jnp.sin, jnp.sin),
    "fraction": (fractions.Fraction(1, 3), fractions.Fraction(1, 3)),
    "object": (OBJECT, OBJECT),
    "unhashable": (ByContent([1]), ByContent([1])),
    "namedtuple": (Point(1, 2), Point(1, 2)),
}


@pytest.mark.parametrize("a, b", INTERCHANGEABLE.values(), ids=INTERCHANGEABLE)
def test_interchangeable_values_have_equal_keys_and_hashes(a, b):
    assert Static(a) == Static(b)
    assert hash(Static(a)) == hash(Static(b))
    assert static_key(a) == static_key(b)


DIFFERENT = {
    "bool and int": (True, 1),
    "int and float": (1, 1.0),
    "float and complex": (1.0, 1 + 0j),
    "zeros": (0.0, -0.0),
    "complex zeros": (complex(0.0, 0.0), complex(0.0, -0.0)),
    "imaginary zeros": (complex(0.0, 1.0), complex(-0.0, 1.0)),
    "str and bytes": ("a", b"a"),
    "nested bool": ((1, (True,)), (1, (1,))),
    "nested zero": ((0.0,), (-0.0,)),
    "frozenset": (frozenset([1]), frozenset([True])),
    "set": ({1}, {True}),
    "set of zeros": ({0.0}, {-0.0}),
    "slice": (slice(0, 1), slice(0, True)),
    "set and frozenset": ({1}, frozenset([1])),
    "tuple and namedtuple": ((1, 2), Point(1, 2)),
    "namedtuples": (Point(1, 2), Other(1, 2)),
    "enum and value": (Level.LOW, 1),
    "int subclass": (Size(1), 1),
    "numpy and python": (np.float64(1), 1.0),
    "numpy dtypes": (np.float32(1), np.float64(1)),
    "numpy zeros": (np.float32(0), np.float32(-0.0)),
    "partial order": (functools.partial(max, 1, 2), functools.partial(max, 2, 1)),
    "partial bool": (functools.partial(max, 1), functools.partial(max, True)),
    "partial keywords": (functools.partial(max, a=1), functools.partial(max, b=1)),
    "classes": (int, bool),
    "objects": (ByIdentity(), ByIdentity()),
    "unhashable": (ByContent([1]), ByContent([2])),
    "methods": ([].append, [].append),
    "function names": (named("relu"), named("gelu")),
}


@pytest.mark.parametrize("a, b", DIFFERENT.values(), ids=DIFFERENT)
def test_different_values_have_different_keys(a, b):
    assert Static(a) != Static(b)
    assert static_key(a) != static_key(b)


# --- functions


def make_adder(n, times=1, /, *, scale=1):
    def add(x, y=n, *, z=scale):
        return x + n * times + y + z

    return add


def make_recursive(n):
    def down(x):
        return x if x < n else down(x - 1)

    return down


def make_mutual(n):
    def even(x):
        return x == n or odd(x - 1)

    def odd(x):
        return x != n and even(x - 1)

    return even


def make_wrapped(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


FUNCTIONS = {
    "closure": lambda: make_adder(1),
    "closure over a tuple": lambda: make_adder((1, "a")),
    "lambda": lambda: lambda x: x + 1,
    "closure over a function": lambda: make_adder(make_adder(2)),
    "recursive": lambda: make_recursive(3),
    "mutually recursive": lambda: make_mutual(3),
    "wrapped": lambda: make_wrapped(math.sqrt),
    "partial of a closure": lambda: functools.partial(make_adder(1), 2),
    "initializer": lambda: jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
    "jax.nn": lambda: jax.nn.relu,
    "sgd": lambda: optax.sgd(1e-3),
    "adam": lambda: optax.adam(1e-3),
    "adamw": lambda: optax.adamw(1e-3, weight_decay=1e-4),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
    "schedule": lambda: optax.adam(optax.cosine_decay_schedule(0.1, 100)),
}


@pytest.mark.parametrize("make", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_of_the_same_code_over_the_same_immutable_values_have_equal_keys(make):
    a, b = make(), make()
    assert Static(a) == Static(b)
    assert hash(Static(a)) == hash(Static(b))


class Callable:
    """Has state, and so has a closure over it."""

    def __init__(self):
        self.n = 0

    def __call__(self, x):
        return x + self.n


def make_reader(state):
    def read(x):
        return x, state

    return read


def unfilled():
    def read():
        return late

    yield read
    late = 1
    yield late


DIFFERENT_FUNCTIONS = {
    "closures": (make_adder(1), make_adder(2)),
    "closures over 1 and True": (make_adder(1), make_adder(True)),
    "closures over zeros": (make_adder(0.0), make_adder(-0.0)),
    "inner closures": (make_adder(make_adder(1)), make_adder(make_adder(2))),
    "keyword defaults": (make_adder(1, scale=1), make_adder(1, scale=2)),
    "recursive": (make_recursive(3), make_recursive(4)),
    "learning rates": (optax.adam(1e-3), optax.adam(1e-4)),
    "lambdas": (lambda x: x + 1, lambda x: x + 2),
    "lambdas of 1 and True": (lambda x: x + 1, lambda x: x + True),
    "lists": (make_reader([1]), make_reader([1])),
    "dicts": (make_reader({"a": 1}), make_reader({"a": 1})),
    "arrays": (make_reader(np.zeros(1)), make_reader(np.zeros(1))),
    "objects with state": (make_reader(Callable()), make_reader(Callable())),
    "lists further in": (make_adder(make_reader([1])), make_adder(make_reader([1]))),
    "lists in a tuple": (make_reader(([1],)), make_reader(([1],))),
    "lists as a default": (make_adder([1]), make_adder([1])),
    "unfilled cells": (next(unfilled()), next(unfilled())),
}


@pytest.mark.parametrize("a, b", DIFFERENT_FUNCTIONS.values(), ids=DIFFERENT_FUNCTIONS)
def test_functions_that_differ_or_could_come_to_differ_have_different_keys(a, b):
    assert Static(a) != Static(b)
    assert Static(a) == Static(a)
    assert hash(Static(a)) == hash(Static(a))


def test_one_closure_over_a_list_is_equal_to_itself():
    read = make_reader([1])
    assert Static(read) == Static(read)
    assert hash(Static(read)) == hash(Static(read))


def test_one_closure_is_seen_to_change_with_the_list_that_it_reads():
    for make in (
        make_reader,
        make_adder,
        lambda x: make_adder(make_reader(x)),
        lambda x: make_reader((x, x)),
    ):
        numbers = [1, [2]]
        read = make(numbers)
        before = Static(read)
        assert before == Static(read)
        assert before.value is read
        numbers[1].append(3)
        assert before != Static(read)
        numbers[1].pop()
        assert before == Static(read)
        numbers[0] = True
        assert before != Static(read)


def make_counter(n):
    def count():
        return n

    def rebind(x):
        nonlocal n
        n = x

    return count, rebind


def test_a_closure_is_seen_to_change_with_its_variables_defaults_and_attributes():
    count, rebind = make_counter(1)
    keys = [Static(count)]
    rebind(True)
    keys.append(Static(count))
    rebind([1])
    keys.append(Static(count))
    count.__defaults__ = (1,)
    keys.append(Static(count))
    count.__kwdefaults__ = {"k": 1}
    keys.append(Static(count))
    count.note = 1
    keys.append(Static(count))
    count.__code__ = make_counter(1)[1].__code__.replace(co_freevars=("n",), co_name="other")
    keys.append(Static(count))
    assert all(a != b for i, a in enumerate(keys) for b in keys[:i])


def share(n):
    """A closure that reaches its innermost function by 2**n paths."""
    f = make_adder(1)
    for _ in range(n):
        f = make_both(f, f)
    return f


def make_both(f, g):
    return lambda x: f(x) + g(x)


def test_closures_that_share_functions_are_keyed_in_linear_time():
    assert Static(share(200)) == Static(share(200))
    assert hash(Static(share(200))) == hash(Static(share(200)))
    assert Static(share(200)) != Static(share(199))


def test_a_chain_of_thousands_of_closures_has_a_key():
    def chain(n):
        f = math.sqrt
        for _ in range(n):
            f = make_wrapped(f)
            del f.__wrapped__
        return f

    assert Static(chain(3000)) == Static(chain(3000)) != Static(chain(3001))
    assert hash(Static(chain(3000))) == hash(Static(chain(3000)))


def test_functions_that_refer_to_each_other_in_different_ways_have_different_keys():
    def ring(*order):
        functions = [make_late() for _ in order]
        for (_, put), target in zip(functions, order, strict=True):
            put(functions[target][0])
        return functions[0][0]

    rings = [(0,), (1, 0), (1, 1), (1, 2, 0), (1, 2, 1), (1, 2, 2)]
    for i, one in enumerate(rings):
        for two in rings[:i]:
            assert Static(ring(*one)) != Static(ring(*two))
        assert Static(ring(*one)) == Static(ring(*one))


def make_late():
    target = None

    def call(x):
        return target(x)

    def put(f):
        nonlocal target
        target = f

    return call, put


def test_a_foreign_function_that_closes_over_something_mutable_is_compared_by_identity():
    schedules = [optax.constant_schedule(1.0), optax.cosine_decay_schedule(0.1, 100)]
    joined = optax.join_schedules(schedules, [2])
    before = Static(joined)
    assert before == Static(joined) != Static(optax.join_schedules(schedules, [2]))
    joined(3)  # makes a float of the integer 100 in a closure
    schedules.append(optax.constant_schedule(2.0))
    assert before == Static(joined)


def test_globals_that_are_gone_do_not_stand_for_others():
    code = compile("def f(): return n", "<test>", "exec")
    keys = []
    for n in range(50):
        space = {"n": n}
        exec(code, space)
        keys.append(static_key(space["f"]))
        del space
    assert len(set(keys)) == 50


def test_functions_of_the_same_code_and_other_globals_have_different_keys():
    code = compile("def f(): return n", "<test>", "exec")
    spaces = [{"n": 1}, {"n": 2}]
    for space in spaces:
        exec(code, space)
    assert Static(spaces[0]["f"]) != Static(spaces[1]["f"])


def test_functions_with_different_attributes_have_different_keys():
    a, b = make_adder(1), make_adder(1)
    a.rate = 1
    assert Static(a) != Static(b)
    b.rate = 1
    assert Static(a) == Static(b)
    b.rate = True
    assert Static(a) != Static(b)


# --- unhashable values


def test_an_unhashable_value_is_kept_as_a_copy():
    value = {1, 2}
    static = Static(value)
    value.add(3)
    assert static.value == {1, 2}
    assert static != Static(value)


def test_the_copy_of_an_unhashable_value_cannot_be_changed_through_what_it_gives():
    static = Static({1, 2})
    static.value.add(3)
    assert static.value == {1, 2}


class Config:
    """As a model of pydantic: compared by content, so not hashable."""

    def __init__(self, scale):
        self.scale = scale

    def __eq__(self, other):
        return vars(self) == vars(other)


class Scaled(liftnn.Module):
    def __init__(self, scale):
        self.config = Config(jnp.array(scale))
        self.weight = liftnn.Param(jnp.ones(2))

    def __call__(self, x):
        return x * self.config.scale * self.weight


def test_a_jax_array_in_an_unhashable_value_is_concrete_under_a_trace():
    """liftnn's copies and comparisons of it are not part of the trace."""
    model = Scaled(2.0)
    run = liftnn.jit(lambda model, x: model(x))
    for scale in (2.0, 3.0):
        model.config.scale = jnp.array(scale)
        assert run(model, 1.0).tolist() == [scale, scale]
    assert run(Scaled(3.0), 1.0).tolist() == [3.0, 3.0]
    assert run.n_traces == 2
    assert liftnn.vmap(Scaled.__call__, in_axes=(None, 0))(model, jnp.arange(2.0)).tolist() == [
        [0, 0],
        [3, 3],
    ]
    assert liftnn.grad(lambda model: model(1.0).sum())(model).weight.tolist() == [3.0, 3.0]


def test_an_unhashable_value_with_an_array_from_outside_can_be_stored_under_a_trace():
    model, scale = Scaled(2.0), jnp.array(5.0)

    @liftnn.jit
    def replace(model):
        model.config = Config(scale)

    replace(model)
    assert model.config.scale == 5.0
    assert model(1.0).tolist() == [5.0, 5.0]


class TwoOfLinen(liftnn.Module):
    def __init__(self, features, seed):
        self.first, self.second = flax.linen.Dense(features), flax.linen.Dense(2)
        self.params = liftnn.Param(self.first.init(jax.random.key(seed), jnp.ones(3)))
        self.others = liftnn.Param(self.second.init(jax.random.key(seed + 1), jnp.ones(features)))

    def __call__(self, x):
        return self.second.apply(self.others.value, self.first.apply(self.params.value, x))


def test_equal_modules_of_linen_are_interchangeable():
    """Each has an id of its own, which is no part of its content."""
    run, x = liftnn.jit(lambda model, x: model(x)), jnp.ones(3)
    for features, seed in ((4, 0), (4, 2), (5, 4), (4, 6)):
        model = TwoOfLinen(features, seed)
        np.testing.assert_allclose(run(model, x), model(x), rtol=1e-6)
    assert run.n_traces == 2


def test_a_hashable_value_is_given_back_itself():
    assert Static(OBJECT).value is OBJECT


class Uncopyable(ByContent):
    def __deepcopy__(self, memo):
        raise ValueError("no")


class Elementwise(ByContent):
    def __eq__(self, other):
        return [True]

    __hash__ = None


class NeverEqual(ByContent):
    def __eq__(self, other):
        return False

    __hash__ = None


class Unanswering(ByContent):
    def __eq__(self, other):
        raise ValueError("no")

    __hash__ = None


class Unhashable(ByContent):
    def __hash__(self):
        raise ValueError("no")


def test_a_hash_that_raises_anything_makes_a_value_unhashable():
    assert Static(Unhashable(1)) == Static(Unhashable(1)) != Static(Unhashable(2))


NOT_COPIED = (
    "A static value of type {} is not hashable and cannot be copied and compared (ValueError), so liftnn "
    "cannot detect changes to it.\n"
    "Make it hashable, or store it outside the module."
)
MESSAGES = {
    Uncopyable: NOT_COPIED.format("Uncopyable"),
    Unanswering: NOT_COPIED.format("Unanswering"),
    Elementwise: "A static value of type Elementwise is not hashable, and comparing it with == does not return True "
    "or False, so liftnn cannot detect changes to it.\n"
    "Make it hashable, or store the arrays in it as attributes or Variables.",
    NeverEqual: "A static value of type NeverEqual is not hashable, and a copy of it does not compare equal "
    "to it, so it would seem changed in every call.\n"
    "Make it hashable, or define an __eq__ that compares content. Store modules in a list, a dict or an "
    "attribute of a Module, where liftnn finds them.",
}


@pytest.mark.parametrize("cls", MESSAGES)
def test_an_unhashable_value_that_cannot_be_compared_is_an_error(cls):
    with raises(errors.StructureError, MESSAGES[cls]):
        Static(cls(1))


def test_snapshots_of_different_types_differ():
    class Twin(ByContent):
        __hash__ = None

    assert Snapshot(ByContent(1)) != Snapshot(Twin(1))


# --- the rest


def test_printing_shows_the_value():
    assert repr(Static((1, "a"))) == "(1, 'a')"
    assert repr(Static({1})) == "{1}"


@pytest.mark.parametrize("value", [1, (1, "a"), math.sqrt, functools.partial(max, 1), {1, 2}, Color.RED])
def test_a_static_value_is_pickled_by_value(value):
    assert pickle.loads(pickle.dumps(Static(value))) == Static(value)


def test_a_pickle_from_before_plain_objects_were_compared_loads():
    static = Static((1.5, "a"))
    old = static.__reduce_ex__(2)
    assert set(old[2][1]) == {"_value", "key"}  # as liftnn wrote it before
    new = pickle.loads(pickle.dumps(static))
    assert (new, new.value, new.content) == (static, (1.5, "a"), None)
