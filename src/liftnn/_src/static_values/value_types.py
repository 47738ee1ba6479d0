"""The types of static values with known content, and how their values are flattened into own data and parts."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import inspect
import ipaddress
import operator
import pathlib
import re
import struct
import sys
import types
import uuid
from collections.abc import Callable, Sequence, ValuesView
from typing import Any, NamedTuple

import jax
import numpy as np

SIMPLE_TYPES: frozenset[type] = frozenset(
    [int, bool, str, bytes, type(None), type, type(...), type(NotImplemented)]
)
"""Types of immutable values that are equal exactly if their types are the same and `==` returns True."""

FOREIGN_PACKAGES: frozenset[str] = frozenset(sys.stdlib_module_names) | {
    "jax",
    "jaxlib",
    "numpy",
    "optax",
    "flax",
    "equinox",
    "liftnn",
}
"""Packages with functions that are assumed not to change and not to hold objects of the user."""


@functools.lru_cache(maxsize=4096)
def is_foreign(module_name: str | None) -> bool:
    """Return whether a Python module belongs to the standard library or to a package that liftnn knows.

    Args:
      module_name: The dotted name of the module; None counts as foreign.

    Returns:
      True if it is foreign.
    """
    return module_name is None or module_name.partition(".")[0] in FOREIGN_PACKAGES


def is_users_function(x: Any) -> bool:
    """Return whether `x` is a user's function, by its globals, since `functools.wraps` copies `__module__`."""
    return type(x) is types.FunctionType and not is_foreign(x.__globals__.get("__name__"))


class Identity:
    """A wrapper that compares a value by identity, since its content could change.

    Args:
      value: The value; it is kept alive, so that no other value gets its id.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


DataAndParts = tuple[Any, Sequence[Any]]
"""The own data of a value (hashable, exact under `==`), and its parts."""


class ValueKind(NamedTuple):
    """The flattening of values of a type and of its subclasses.

    Args:
      flatten: Returns the own data of a value, and its parts.
      base: The type; subclasses may add attributes to it. None if attributes are ignored.
      is_leaf: Whether there are never parts.
      is_mutable: Whether values can change in place.
      is_unordered: Whether the order of the parts is arbitrary.
    """

    flatten: Callable[[Any], DataAndParts]
    base: type | None = None
    is_leaf: bool = False
    is_mutable: bool = False
    is_unordered: bool = False


_JITTED = type(jax.jit(lambda: None))
_BY_IDENTITY: tuple[type, ...] = (
    type, types.ModuleType, enum.Enum, _JITTED, jax.custom_jvp, jax.custom_vjp, np.ufunc,
)  # fmt: skip
"""Types of immutable values that exist only once for each content."""
_BY_EQUALITY: tuple[type, ...] = (
    types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType, types.CodeType,
    ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network,
)  # fmt: skip
"""Types of immutable values with an exact `==`."""

_bits = struct.Struct("<d").pack  # distinguishes 0.0 from -0.0, but not nan from nan

_LEAF_VALUES: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    bytes: lambda x: bytes.__getitem__(x, slice(None)),
    int: int.__int__,
    float: lambda x: _bits(float.__float__(x)),
    complex: lambda x: (_bits(complex.__complex__(x).real), _bits(complex.__complex__(x).imag)),
    decimal.Decimal: decimal.Decimal.as_tuple,
    dt.timedelta: lambda x: (x.days, x.seconds, x.microseconds),
    dt.date: lambda x: (x.year, x.month, x.day),
    uuid.UUID: lambda x: (x.int, x.is_safe),
    pathlib.PurePath: pathlib.PurePath.__str__,
    struct.Struct: lambda x: x.format,
    re.Pattern: lambda x: (type(x.pattern), x.pattern, x.flags),
}
_MUTABLE_LEAF_VALUES: dict[type, Callable[[Any], Any]] = {
    array.array: lambda x: (x.typecode, array.array.tobytes(x)),
    bytearray: lambda x: bytes(bytearray.__getitem__(x, slice(None))),
}


def _time(x: Any) -> DataAndParts:
    return (x.hour, x.minute, x.second, x.microsecond, x.fold), (x.tzinfo,)


def _datetime(x: Any) -> DataAndParts:
    time, zone = _time(x)
    return (x.year, x.month, x.day, time), zone


def _partial(x: functools.partial[Any]) -> DataAndParts:
    names = (len(x.args), tuple(x.keywords), tuple(x.__dict__))
    return names, (x.func, *x.args, *x.keywords.values(), *x.__dict__.values())


def _method(x: types.MethodType) -> DataAndParts:
    """Flatten a bound method; an object other than a function is compared by identity."""
    receiver = x.__self__
    return None, (x.__func__, receiver if isinstance(receiver, _FUNCTIONS) else Identity(receiver))


def _transformed(x: Any) -> DataAndParts:
    """Flatten a function that a transform of liftnn has returned into how it was made, and the functions."""
    if x.__recipe__ is None:
        return Identity(x), ()
    return x.__recipe__, (x.__wrapped__, *x._others)


_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)


def _function(x: types.FunctionType) -> DataAndParts:
    """Flatten a function into code, globals, names, defaults, attributes and closure."""
    defaults, named = x.__defaults__ or (), x.__kwdefaults__ or {}
    cells = [_cell_content(cell) for cell in x.__closure__ or ()]
    names = (x.__name__, x.__qualname__, tuple(named), tuple(x.__dict__))
    extra = (x.__code__, Identity(x.__globals__), len(defaults), *names)
    return extra, (*defaults, *named.values(), *x.__dict__.values(), *cells)


def _cell_content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return Identity(cell)


def _dict(x: Any) -> DataAndParts:
    base: Any = collections.OrderedDict if isinstance(x, collections.OrderedDict) else dict
    return None, [y for pair in base.items(x) for y in pair]


def _defaultdict(x: Any) -> DataAndParts:
    return None, [x.default_factory, *_dict(x)[1]]


def _parameter(x: inspect.Parameter) -> DataAndParts:
    return (x.name, x.kind), (x.default, x.annotation)


def _dtype(x: Any) -> DataAndParts:
    return (x, x.isalignedstruct), tuple(x.metadata.items()) if x.metadata else ()


def _array_scalar(x: Any) -> DataAndParts:
    return (x.dtype, x.tobytes()), ()


def _dataclass(x: Any) -> DataAndParts:
    """Flatten a dataclass into its fields, also those that its `==` ignores, and its other attributes."""
    attributes = {f.name: getattr(x, f.name) for f in dataclasses.fields(x) if hasattr(x, f.name)}
    attributes |= getattr(x, "__dict__", {})
    return tuple(attributes), tuple(attributes.values())


_COMPOUND: dict[Any, Callable[..., DataAndParts]] = {
    tuple: lambda x: (None, tuple(tuple.__iter__(x))),
    slice: lambda x: (None, (x.start, x.stop, x.step)),
    range: lambda x: (None, (x.start, x.stop, x.step)),
    functools.partial: _partial,
    dt.time: _time,
    dt.datetime: _datetime,
    dt.timezone: lambda x: (None, x.__getinitargs__()),
    types.GenericAlias: lambda x: (x.__unpacked__, (x.__origin__, *x.__args__)),
    types.UnionType: lambda x: (None, x.__args__),
    types.MethodType: _method,
    inspect.Signature: lambda x: (None, (*x.parameters.values(), x.return_annotation)),
    inspect.Parameter: _parameter,
    operator.itemgetter: lambda x: (None, x.__reduce__()[1:]),
    operator.attrgetter: lambda x: (None, x.__reduce__()[1:]),
    operator.methodcaller: lambda x: (None, x.__reduce__()),
    np.dtype: _dtype,
}
_MUTABLE: dict[Any, Callable[..., DataAndParts]] = {
    list: lambda x: (None, tuple(list.__iter__(x))),
    collections.deque: lambda x: (x.maxlen, tuple(collections.deque.__iter__(x))),
    dict: _dict,
    collections.defaultdict: _defaultdict,
    types.SimpleNamespace: lambda x: (tuple(vars(x)), tuple(vars(x).values())),
}
_KIND_BY_TYPE: dict[type, ValueKind] = {
    **{t: ValueKind(lambda x, f=f: (f(x), ()), t, is_leaf=True) for t, f in _LEAF_VALUES.items()},
    **{t: ValueKind(lambda x, f=f: (f(x), ()), t, is_mutable=True) for t, f in _MUTABLE_LEAF_VALUES.items()},
    **{t: ValueKind(f, t) for t, f in _COMPOUND.items()},
    **{t: ValueKind(f, t, is_mutable=True) for t, f in _MUTABLE.items()},
    types.FunctionType: ValueKind(_function),
    frozenset: ValueKind(lambda x: (None, tuple(frozenset.__iter__(x))), frozenset, is_unordered=True),
    set: ValueKind(lambda x: (None, tuple(set.__iter__(x))), set, is_mutable=True, is_unordered=True),
    types.SimpleNamespace: ValueKind(_MUTABLE[types.SimpleNamespace], is_mutable=True),
}
_IDENTICAL = ValueKind(lambda x: (Identity(x), ()), is_leaf=True)
_EQUAL = ValueKind(lambda x: (x, ()), is_leaf=True)
_SCALAR = ValueKind(_array_scalar, is_leaf=True)
_RECORD = ValueKind(_array_scalar, is_mutable=True)
_TRANSFORMED = ValueKind(_transformed)
_SEQUENCE_WITH_NAMES = ValueKind(lambda x: (None, x.__reduce__()[1:]))
FROZEN_DATACLASS_VALUE = ValueKind(_dataclass)
MUTABLE_DATACLASS_VALUE = ValueKind(_dataclass, is_mutable=True)
_BY_NAME: dict[tuple[str, str], ValueKind] = {
    ("fractions", "Fraction"): ValueKind(lambda x: ((x.numerator, x.denominator), ()), is_leaf=True),
    ("optax", "MultiSteps"): ValueKind(lambda x: (tuple(vars(x)), tuple(vars(x).values()))),
    ("zoneinfo", "ZoneInfo"): _IDENTICAL,
    ("flax.ids", "FlaxId"): ValueKind(lambda x: (None, ()), is_leaf=True),  # each Linen module has another
}
"""Types by the module that has them, and their name there: `import liftnn` does not load these modules."""


def is_frozen_dataclass(cls: type) -> bool:
    """Return whether a class is a dataclass with attributes that cannot be assigned."""
    parameters: Any = getattr(cls, "__dataclass_params__", None)
    return parameters is not None and parameters.frozen


@functools.lru_cache(maxsize=4096)
def find_parts(cls: type) -> ValueKind | None:
    """Return how values of a class are flattened; None if their content is unknown."""
    if issubclass(cls, _BY_IDENTITY):
        return _IDENTICAL
    if issubclass(cls, _BY_EQUALITY):
        return _EQUAL
    if hasattr(cls, "__recipe__"):
        return _TRANSFORMED
    if issubclass(cls, np.generic):
        return _RECORD if issubclass(cls, np.void) else _SCALAR
    if issubclass(cls, tuple) and hasattr(cls, "n_unnamed_fields"):  # time.struct_time
        return _SEQUENCE_WITH_NAMES
    for base in cls.__mro__:
        if base in _KIND_BY_TYPE:
            return _KIND_BY_TYPE[base]
        for (module, name), parts in _BY_NAME.items():
            if getattr(sys.modules.get(module), name, None) is base:
                return parts if parts is _IDENTICAL else parts._replace(base=base)
    if not dataclasses.is_dataclass(cls) or hasattr(cls, "__graph_node__"):
        return None
    if not is_frozen_dataclass(cls):
        return MUTABLE_DATACLASS_VALUE
    return None if cls.__eq__ is object.__eq__ else FROZEN_DATACLASS_VALUE


def is_hashable(x: Any) -> bool:
    """Return whether a value has a hash that stays right.

    The values of a dict have that of their identity, but show the changes of the dict.
    """
    try:
        hash(x)
    except Exception:  # not always a TypeError: a memoryview raises a ValueError
        return False
    return not isinstance(x, ValuesView)


def attributes_before(x: Any, base: type) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Return the attributes of an instance that its class adds to a base.

    Args:
      x: The instance; its class derives from the base.
      base: The base; its own slots are excluded.

    Returns:
      Their names and values.
    """
    bases, found = type(x).__mro__, dict[str, Any]()
    for above in bases[: bases.index(base)]:
        found |= read_slots(x, own_slots(above))
    found |= getattr(x, "__dict__", {})
    return tuple(found), tuple(found.values())


def own_slots(cls: type) -> list[str]:
    """Return the names of the slots that a class adds to those of its bases, as they are mangled."""
    slots = cls.__dict__.get("__slots__", ())
    names = [name for name in ([slots] if isinstance(slots, str) else slots) if name not in _NO_SLOTS]
    prefix = f"_{cls.__name__.lstrip('_')}"
    return [prefix + n if n.startswith("__") and not n.endswith("__") else n for n in names]


_NO_SLOTS = ("__dict__", "__weakref__")


def read_slots(x: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the slots of an instance that hold something, by name; past a `__getattr__`, which answers for the others.

    Args:
      x: The instance.
      names: The names of slots.
    """
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = object.__getattribute__(x, name)
        except AttributeError:
            continue
    return found


def rank(x: Any, depth: int = 3) -> str:
    """Return a text to sort the elements of a set by, equal for values of the same content.

    Args:
      x: The element.
      depth: How many levels of tuples to include. If two elements differ only below that, their order is arbitrary,
        and equal sets may have different keys; different sets never have equal keys.

    Returns:
      The text.
    """
    cls, text = type(x), ""
    parts = find_parts(cls) if depth else None
    if cls in SIMPLE_TYPES:
        text = repr(x)
    elif isinstance(x, types.FunctionType):
        text = f"{x.__qualname__} {hash(x.__code__)}"
    elif parts is not None:
        extra, children = parts.flatten(x)
        ranks = [rank(y, depth - 1) for y in children]
        text = f"{hash(extra)} {sorted(ranks) if parts.is_unordered else ranks}"
    elif parts is None and not hasattr(cls, "__graph_node__"):
        text = _hash_of(x)
    return f"{cls.__module__}.{cls.__qualname__} {text}"


def _hash_of(x: Any) -> str:
    try:
        return str(hash(x))
    except Exception:
        return ""
