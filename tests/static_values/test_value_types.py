"""Keys of values of the standard library's types: a fresh equal value keeps the key, any other one changes it."""

from __future__ import annotations

import array
import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import inspect
import ipaddress
import operator
import pathlib
import re
import struct
import time
import types
import typing
import uuid
import weakref
import zoneinfo

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn._src.static_values.static import Snapshot, Static, is_foreign, static_key


class Text(str):
    """A str with attributes."""


class Raw(bytes):
    """A subclass of bytes."""


class Whole(int):
    """An int with attributes."""


class Real(float):
    """A subclass of float."""


class Complex(complex):
    """A subclass of complex."""


class Exact(decimal.Decimal):
    """A subclass of Decimal."""


class Slotted(str):
    """A str with a slot."""

    __slots__ = ("note",)


class Flags(enum.Flag):
    A = 1
    B = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Names(list):
    """A subclass of list."""


@dataclasses.dataclass(frozen=True)
class Config:
    rate: object
    size: object = 1


def with_note(cls, value, note):
    made = cls(value)
    made.note = note
    return made


def partial_with_note(note):
    made = functools.partial(max, 1)
    made.note = note
    return made


def signature(default):
    return inspect.Signature([inspect.Parameter("x", inspect.Parameter.POSITIONAL_ONLY, default=default)])


UTC, CET = dt.UTC, dt.timezone(dt.timedelta(hours=1))
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=UTC)

# Each line holds values of which no two are interchangeable, most of them equal under `==`.
KINDS = {
    "range": lambda: [range(0, 3, 2), range(0, 4, 2), range(0), range(1, 1), range(1)],
    "str": lambda: [
        "a",
        Text("a"),
        with_note(Text, "a", 1),
        with_note(Text, "a", True),
        with_note(Slotted, "a", 1),
    ],
    "bytes": lambda: [b"a", Raw(b"a"), Raw(b"b"), bytearray(b"a"), bytearray(b"b"), array.array("B", b"a")],
    "int": lambda: [
        1,
        True,
        Whole(1),
        with_note(Whole, 1, 0.0),
        with_note(Whole, 1, -0.0),
        Level.LOW,
        Flags.A,
        np.int8(1),
    ],
    "float": lambda: [
        0.0,
        -0.0,
        Real(0.0),
        Real(-0.0),
        float("nan"),
        Real("nan"),
        0,
        False,
        0j,
        np.float64(0),
    ],
    "complex": lambda: [
        0j,
        complex(0.0, -0.0),
        complex(-0.0, 0.0),
        complex(-0.0, -0.0),
        Complex(0j),
        Complex(complex(-0.0, 0.0)),
    ],
    "decimal": lambda: [
        *map(decimal.Decimal, ("1.0", "1.00", "0", "-0", "NaN", "-NaN", "sNaN", "NaN1", "inf")),
        Exact("1.0"),
        1.0,
    ],
    "fraction": lambda: [fractions.Fraction(1), fractions.Fraction(1, 2), 1, 0.5],
    "date": lambda: [dt.date(2026, 1, 1), dt.date(2026, 1, 2), dt.datetime(2026, 1, 1)],
    "datetime": lambda: [
        NOON,
        NOON.astimezone(CET),
        NOON.replace(tzinfo=None),
        NOON.replace(fold=1),
        NOON.replace(tzinfo=zoneinfo.ZoneInfo("UTC")),
    ],
    "time": lambda: [dt.time(12), dt.time(12, fold=1), dt.time(12, tzinfo=UTC), dt.time(13, tzinfo=CET)],
    "timedelta": lambda: [dt.timedelta(1), dt.timedelta(2), dt.timedelta(0, 86401)],
    "timezone": lambda: [dt.timezone(dt.timedelta(0)), dt.timezone(dt.timedelta(0), "Z"), CET],
    "array": lambda: [
        array.array("i", [1]),
        array.array("f", [1]),
        array.array("d", [0.0]),
        array.array("d", [-0.0]),
    ],
    "uuid": lambda: [uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe)],
    "path": lambda: [
        pathlib.PurePosixPath("a"),
        pathlib.PureWindowsPath("a"),
        pathlib.PureWindowsPath("A"),
        pathlib.Path("a"),
        "a",
    ],
    "address": lambda: [
        ipaddress.ip_address("::1"),
        ipaddress.ip_address("::1%2"),
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_interface("127.0.0.1/8"),
        ipaddress.ip_interface("127.0.0.1/9"),
        ipaddress.ip_network("127.0.0.0/8"),
    ],
    "enum": lambda: [Level.LOW, Level.HIGH, Flags.A, Flags.B, Flags.A | Flags.B, Flags(0)],
    "alias": lambda: [list[int], list[bool], tuple[1], tuple[True], typing.List[int], int | str, str | int],  # noqa: UP006
    "literal": lambda: [typing.Literal[1], typing.Literal[True], typing.Literal["1"]],
    "pattern": lambda: [re.compile("a"), re.compile("a", re.IGNORECASE), re.compile(b"a"), re.compile("b")],
    "struct": lambda: [struct.Struct("<i"), struct.Struct(">i")],
    "getter": lambda: [
        operator.itemgetter(1),
        operator.itemgetter(True),
        operator.itemgetter(1, 2),
        operator.attrgetter("a"),
        operator.attrgetter("a", "b"),
        operator.methodcaller("a"),
        operator.methodcaller("a", 1),
        operator.methodcaller("a", True),
        operator.methodcaller("a", x=1),
        operator.methodcaller("a", x=True),
    ],
    "partial": lambda: [
        functools.partial(max, 1),
        functools.partial(max, True),
        partial_with_note(1),
        partial_with_note(2),
    ],
    "slice": lambda: [slice(1), slice(True), slice(0, 1), slice(0, 1, 1)],
    "struct_time": lambda: (
        [time.struct_time((*range(9), zone, 0)) for zone in ("UTC", "CET")] + [tuple(range(9))]
    ),
    "signature": lambda: [
        signature(1),
        signature(True),
        signature(inspect.Parameter.empty),
        inspect.signature(with_note),
    ],
    "dtype": lambda: [
        np.dtype("f4"),
        np.dtype(">f4"),
        np.dtype("f4", metadata={"a": 1}),
        np.dtype("f4", metadata={"a": True}),
        np.dtype([("a", "i1"), ("b", "i4")]),
        np.dtype([("a", "i1"), ("b", "i4")], align=True),
        jnp.float32,
        jnp.bfloat16,
    ],
    "numpy": lambda: [
        np.float32(0),
        np.float32(-0.0),
        np.float64(0),
        np.str_("a"),
        np.bytes_(b"a"),
        np.datetime64("2026", "Y"),
        np.datetime64("2026-01", "M"),
        np.timedelta64(1, "D"),
        np.timedelta64(24, "h"),
        np.void(b"a"),
        np.bool_(True),
    ],
    "record": lambda: [np.array([(x,)], [("a", "f8")])[0] for x in (0.0, -0.0, 1.0)],
    "namespace": lambda: [types.SimpleNamespace(a=x) for x in (1, True, 1.0, [1], [True])],
    "list": lambda: [
        [],
        [0.0],
        [-0.0],
        [1],
        [True],
        [[1]],
        [(1,)],
        Names([1]),
        (1,),
        with_note(Names, [1], 2),
    ],
    "dict": lambda: [
        {},
        {1: 2},
        {True: 2},
        {1: True},
        {0.0: 1},
        {-0.0: 1},
        {(1,): 2},
        {(True,): 2},
        {1: 2, 3: 4},
        {3: 4, 1: 2},
        collections.OrderedDict({1: 2}),
        collections.defaultdict(None, {1: 2}),
        collections.defaultdict(int, {1: 2}),
        collections.Counter({1: 2}),
    ],
    "deque": lambda: [collections.deque([1]), collections.deque([True]), collections.deque([1], 3)],
    "set": lambda: [
        set(),
        {1},
        {True},
        {0.0},
        {-0.0},
        {(1,)},
        {(True,)},
        frozenset([1]),
        {frozenset([1])},
        {frozenset([True])},
    ],
    "frozenset": lambda: [
        frozenset(x) for x in ([], [1], [True], [(0.0,)], [(-0.0,)], [frozenset([1])], [frozenset([True])])
    ],
    "tuple": lambda: [
        (1, (x,)) for x in (1, True, 1.0, decimal.Decimal("1"), range(1), [1], Config(1), Config(True))
    ],
    "beside a value of an unknown type": lambda: [(UNKNOWN, x) for x in (0.0, -0.0, 0)],
    "dataclass": lambda: [
        Config(1),
        Config(True),
        Config(1, 1.0),
        Config([1]),
        Config([True]),
        Config({1: 2}),
    ],
    "method": lambda: [Config(1).__hash__, "a".join, "b".join, str.join, [].append],
    "code": lambda: [
        (lambda: 1).__code__,
        (lambda: True).__code__,
        (lambda: 0.0).__code__,
        (lambda: -0.0).__code__,
    ],
    "weakref": lambda: [weakref.ref(UNKNOWN), weakref.ref(np.ones(1)), weakref.ref(np.ones(1))],
}


class Unknown:
    """Hashable, and compared by identity."""


UNKNOWN = Unknown()
BY_IDENTITY = (types.BuiltinMethodType, types.MethodType, types.CodeType, weakref.ref)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_no_two_values_that_can_be_told_apart_have_one_key(make):
    values = make()
    keys = [static_key(x) for x in values]
    same = [(a, b) for i, a in enumerate(keys) for b in keys[:i] if a == b]
    assert same == []


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_fresh_value_of_the_same_content_has_the_same_key(make):
    for a, b in zip(make(), make(), strict=True):
        if a is not b and not isinstance(a, BY_IDENTITY):
            assert static_key(a) == static_key(b)
            assert hash(static_key(a)) == hash(static_key(b))


NESTS = (
    lambda x: (0, x), lambda x: slice(x), lambda x: functools.partial(max, x), lambda x: make_reader(x),
    lambda x: Config(x),
)  # fmt: skip


def make_reader(x):
    return lambda: x


COPIED = [x for x in KINDS if x not in ("struct", "method", "beside a value of an unknown type")]


@pytest.mark.parametrize("make", [KINDS[x] for x in COPIED], ids=COPIED)
def test_nested_in_lists_and_dicts_they_are_told_apart_as_well(make):
    values, fresh = make(), make()
    keys = [static_key([{"k": x}]) for x in values]
    assert all(a != b for i, a in enumerate(keys) for b in keys[:i])
    for key, x in zip(keys, fresh, strict=True):
        if not isinstance(x, BY_IDENTITY):
            assert key == static_key([{"k": x}])


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_nested_in_a_tuple_a_slice_or_a_partial_they_are_told_apart_as_well(make):
    for nest in NESTS:
        values, fresh = make(), make()
        keys = [static_key(nest(x)) for x in values]
        assert all(a != b for i, a in enumerate(keys) for b in keys[:i])
        for key, x in zip(keys, fresh, strict=True):
            if not isinstance(x, BY_IDENTITY) and not (nest is NESTS[3] and can_change(x)):
                assert key == static_key(nest(x))


def can_change(x):
    """Whether closures over two equal values can come to differ."""
    return isinstance(static_key(x), Snapshot)


def test_a_subclass_with_an_equality_of_its_own_is_equal_by_content_and_by_that():
    class Never(float):
        def __eq__(self, other):
            return self is other

        __hash__ = float.__hash__

    one = Never(1)
    assert static_key(one) == static_key(one)
    assert static_key(one) != static_key(Never(1))


@pytest.mark.parametrize(
    "elements", [(1, 8, 16), (-1, -2), ("a", "b", (1, 2), (2, 1)), (0.5, None, frozenset([1]))]
)
def test_the_order_of_a_set_does_not_count(elements):
    for cls in (set, frozenset):
        one, two = cls(), cls()
        for x in elements:
            one |= {x}
        for x in reversed(elements):
            two |= {x}
        assert static_key(one) == static_key(two)


def test_a_value_that_can_change_is_seen_to_change():
    changes = {
        "bytearray": (bytearray(b"a"), lambda x: x.append(1)),
        "array": (array.array("i", [1]), lambda x: x.append(1)),
        "list in a tuple": (([1],), lambda x: x[0].append(2)),
        "attribute": (with_note(Text, "a", 0), lambda x: setattr(x, "note", 1)),
        "namespace": (types.SimpleNamespace(a=1), lambda x: setattr(x, "a", True)),
        "record": (np.array([(1.0,)], [("a", "f8")])[0], lambda x: x.__setitem__("a", 2.0)),
    }
    for name, (value, change) in changes.items():
        before, copied = Static(value), static_key(copy.deepcopy(value))
        change(value)
        assert before != Static(value), name
        assert static_key(before.value) == copied, name


def test_a_tuple_that_shares_its_parts_many_times_over_takes_no_time():
    def nested(n):
        x = (1,)
        for _ in range(n):
            x = (x, x)
        return x

    assert static_key(nested(200)) == static_key(nested(200)) != static_key(nested(201))


def test_the_fast_path_for_flat_tuples_gives_the_same_key():
    for flat in ((), (1, "a", None, True)):
        assert static_key(flat) == static_key((flat,))[:1]


def test_tuples_nested_ever_so_deep_have_keys():
    one, two = (), ()
    for _ in range(5000):
        one, two = (one, 1), (two, 1)
    assert static_key(one) == static_key(two) != static_key((one, 1))
    assert hash(static_key(one)) == hash(static_key(two))


@pytest.mark.parametrize(
    "name", [None, "jax", "jax.numpy", "optax._src", "functools", "liftnn.nn", "numpy.linalg"]
)
def test_the_standard_library_and_known_packages_are_foreign(name):
    assert is_foreign(name)


@pytest.mark.parametrize("name", ["__main__", "jaxter", "tests.strategies", "optax2.x"])
def test_all_else_is_the_users(name):
    assert not is_foreign(name)


def test_a_range_of_other_bounds_and_the_same_elements_is_traced_again():
    model = liftnn.Module()
    model.s = range(0, 3, 2)
    f = liftnn.jit(lambda model, x: x * model.s.stop)
    assert f(model, 1.0) == 3
    model.s = range(0, 4, 2)
    assert f(model, 1.0) == 4
