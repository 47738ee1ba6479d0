"""Ways to a captured module through functions and containers, with changes of what leads to it."""

from __future__ import annotations

import collections
import functools
import types
import weakref

import jax.numpy as jnp

import liftnn
from tests.user_modules import Holder

CASES = {}


def case(make):
    """A case gives a function and changes of what it refers to; the plain function is the oracle."""
    CASES[make.__name__] = make
    return make


def k(value):
    """A module with a static attribute."""
    return Holder(k=value, v=liftnn.Variable(jnp.float32(value)))


def both(m):
    """A number that depends on the static attribute and on the value."""
    return m.k + m.v.value


@case
def cell():
    m = k(2)

    def swap():
        nonlocal m
        m = k(9)

    return lambda x: x * both(m), [swap]


@case
def empty_cell():
    def f(x):
        try:
            return x * both(m)
        except NameError:
            return x

    def fill():
        nonlocal m
        m = k(9)

    def empty():
        nonlocal m
        del m

    if False:
        m = None
    return f, [fill, empty, fill]


@case
def cell_that_holds_none():
    m = None

    def swap(to):
        nonlocal m
        m = to

    return lambda x: x if m is None else x * both(m), [
        lambda: swap(k(9)),
        lambda: swap(None),
        lambda: swap(k(3)),
    ]


SCOPE = {"__name__": "user", "m": None}
exec("def use(x):\n  return x if m is None else x * (m.k + m.v.value)", SCOPE)
exec("def use_missing(x):\n  try:\n    return x * late.k\n  except NameError:\n    return x", SCOPE)
exec("def use_builtin_name(x):\n  return x * (len.k if hasattr(len, 'k') else 1)", SCOPE)


@case
def name_of_a_global():
    SCOPE["m"] = None
    return SCOPE["use"], [
        lambda: SCOPE.update(m=k(2)),
        lambda: SCOPE.update(m=k(9)),
        lambda: SCOPE.update(m=None),
    ]


@case
def missing_global():
    SCOPE.pop("late", None)
    return SCOPE["use_missing"], [
        lambda: SCOPE.update(late=k(2)),
        lambda: SCOPE.pop("late"),
        lambda: SCOPE.update(late=k(3)),
    ]


@case
def positional_default():
    first = k(2)

    def f(x, m=first):
        return x * both(m)

    return lambda x: f(x), [lambda: setattr(f, "__defaults__", (k(9),))]


@case
def keyword_default():
    first = k(2)

    def f(x, *, m=first):
        return x * both(m)

    return lambda x: f(x), [lambda: f.__kwdefaults__.update(m=k(9))]


@case
def attribute_of_a_function():
    def f(x):
        return x * both(f.m)

    f.m = k(2)
    return lambda x: f(x), [lambda: setattr(f, "m", k(9))]


@case
def attribute_that_a_function_gets_later():
    def f(x):
        return x * both(f.m) if hasattr(f, "m") else x

    return lambda x: f(x), [lambda: setattr(f, "m", k(9)), lambda: delattr(f, "m")]


def of_container(make, *changes, read=lambda ms: sum(both(m) for m in ms)):
    """A case of a container, which starts as `make` gives it."""
    ms = make()
    return lambda x: x * read(ms), [functools.partial(change, ms) for change in changes]


@case
def list_of_modules():
    return of_container(
        lambda: [k(1), k(2)],
        lambda ms: ms.append(k(3)),
        lambda ms: ms.reverse(),
        lambda ms: ms.__setitem__(0, k(7)),
        lambda ms: ms.clear(),
        lambda ms: ms.append(k(5)),
        read=lambda ms: sum((i + 1) * both(m) for i, m in enumerate(ms)),
    )


@case
def empty_list():
    return of_container(list, lambda ms: ms.append(k(9)), list.clear)


@case
def nested_empty_lists():
    return of_container(
        lambda: [[], [[]]],
        lambda ms: ms[1][0].append(k(9)),
        lambda ms: ms[0].append(k(2)),
        read=lambda ms: sum(both(m) for m in (*ms[0], *ms[1][0])),
    )


@case
def dict_of_modules():
    return of_container(
        lambda: {"a": k(2)},
        lambda ms: ms.update(b=k(7)),
        lambda ms: ms.update(a=ms.pop("a")),
        lambda ms: ms.pop("b"),
        lambda ms: ms.update(a=k(4)),
        read=lambda ms: sum((i + 1) * both(m) + len(n) for i, (n, m) in enumerate(ms.items())),
    )


@case
def ordered_dict():
    return of_container(
        lambda: collections.OrderedDict(a=k(2), b=k(3)),
        lambda ms: ms.move_to_end("a"),
        lambda ms: ms.popitem(),
        read=lambda ms: both(next(iter(ms.values()))),
    )


@case
def default_dict():
    return of_container(
        lambda: collections.defaultdict(list, a=[k(1)]),
        lambda ms: ms["b"].append(k(2)),
        lambda ms: ms["a"].clear(),
        read=lambda ms: sum(both(m) for n in sorted(ms) for m in ms[n]),
    )


@case
def set_of_modules():
    return of_container(lambda: {k(1)}, lambda ms: ms.add(k(2)), lambda ms: ms.clear())


@case
def deque_of_modules():
    return of_container(
        lambda: collections.deque([k(1)], maxlen=2),
        lambda ms: ms.append(k(2)),
        lambda ms: ms.append(k(3)),
        lambda ms: ms.rotate(),
        read=lambda ms: both(ms[0]) + 10 * both(ms[-1]),
    )


@case
def chain_map():
    return of_container(
        lambda: collections.ChainMap({}, {"a": k(2)}),
        lambda ms: ms.update(a=k(9)),
        lambda ms: ms.maps[1].update(b=k(3)),
        read=lambda ms: sum(both(ms[n]) for n in sorted(ms)),
    )


@case
def simple_namespace():
    return of_container(
        lambda: types.SimpleNamespace(m=k(2)),
        lambda ns: setattr(ns, "m", k(9)),
        lambda ns: setattr(ns, "other", k(3)),
        read=lambda ns: sum(both(m) for m in vars(ns).values()),
    )


def of_a_view(cls, view, model_of):
    models = cls(a=k(2))
    entries = view(models)
    changes = [
        lambda: models.update(a=k(9)),
        lambda: models.update(b=k(3)),
        lambda: models.pop("a"),
        lambda: setattr(models["b"], "k", 4),
    ]
    return lambda x: sum(x * both(model_of(entry)) for entry in entries), changes


@case
def values_of_a_dict():
    return of_a_view(dict, dict.values, lambda model: model)


@case
def items_of_a_dict():
    return of_a_view(collections.OrderedDict, collections.OrderedDict.items, lambda item: item[1])


@case
def partial_over_a_list():
    ms = [k(2)]
    return functools.partial(lambda ms, x: x * both(ms[0]), ms), [lambda: ms.__setitem__(0, k(9))]


@case
def weak_reference():
    m = k(2)
    kept = [m]
    reference = weakref.ref(m)
    del m

    def f(x):
        return x if reference() is None else x * both(reference())

    return f, [kept.clear]


@case
def weak_dict():
    kept = [k(2)]
    ms = weakref.WeakValueDictionary(a=kept[0])

    def f(x):
        return x * sum((both(m) for m in list(ms.values())), start=1)

    def put():
        kept.append(k(9))
        ms["b"] = kept[-1]

    return f, [put, lambda: kept.pop()]
