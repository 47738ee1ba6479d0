"""Ways to a captured module through long containers of every kind, and changes of their elements and order."""

from __future__ import annotations

import collections

from tests.captures.captures import both, case, k
from tests.user_modules import Holder

SIZE = 70


class ListOfOwn(list):
    """A list of the user's."""


class DictOfOwn(dict):
    """A dict of the user's."""


def put(holder, key):
    return lambda: holder.__setitem__(key, k(9))


def reorder(d):
    def change():
        key = next(iter(d))
        d[key] = d.pop(key)

    return change


def first(d):
    return next(iter(d.values()))


MAPPINGS = {
    "dict": dict,
    "ordered_dict": collections.OrderedDict,
    "own_dict": DictOfOwn,
    "default_dict": lambda items: collections.defaultdict(int, items),
}
KEYS = {
    "texts": str,
    "numbers": int,
    "tuples": lambda i: (i, "x"),
    "bytes": lambda i: bytes([i]),
    "floats": float,
    "objects": lambda i: (object, str, int)[i] if i < 3 else i,
}


def of_mapping(make, key):
    def build():
        keys = [key(i) for i in range(SIZE)]
        d = make((name, k(i + 1)) for i, name in enumerate(keys))
        return lambda x: x * both(d[keys[3]]) + both(first(d)), [put(d, keys[3]), reorder(d), put(d, keys[0])]

    return build


for kind, make in MAPPINGS.items():
    for name, key in KEYS.items():
        build = of_mapping(make, key)
        build.__name__ = f"long_{kind}_of_{name}"
        case(build)


@case
def long_list_of_own():
    ms = ListOfOwn(k(i + 1) for i in range(SIZE))
    return lambda x: x * both(ms[3]), [put(ms, 3), lambda: ms.reverse(), lambda: ms.append(k(1))]


@case
def long_deque_in_a_module_attribute():
    holder = Holder(ms=1)
    ms = collections.deque(k(i + 1) for i in range(SIZE))
    return lambda x: x * both(ms[3]) * holder.ms, [put(ms, 3), lambda: ms.rotate(1)]


@case
def very_long_list_of_own():
    ms = ListOfOwn([0.0] * 3000)
    ms[5] = k(2)
    return lambda x: x * both(ms[5]), [put(ms, 5)]


@case
def very_long_dict_with_tuples_as_keys():
    d = {(i, 0): 0.0 for i in range(3000)}
    d[5, 0] = k(2)
    return lambda x: x * both(d[5, 0]), [put(d, (5, 0))]
