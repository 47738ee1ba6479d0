"""Hypothesis strategies that all tests share: random module graphs, and an independent check that two are alike.

A graph is drawn as a *recipe*, which is plain data; `build` makes live objects from it. So the same graph can be built
twice, and a test can compare what liftnn makes of one with the other. Extend `LEAVES`, `VALUES` and `METADATA` when
liftnn learns a new kind of value.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import decimal
import functools
import types
import weakref
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

import liftnn
from tests.alike import attributes as attributes_of


class Node(liftnn.Module):
    """A module with the attributes that it is given."""

    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)


class Sub(Node):
    """Another class of modules."""


class Slotted(Node):
    """A module with two slots."""

    __slots__ = ("a", "b")


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Record:
    """A dataclass that is no pytree."""

    a: Any
    b: Any = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A frozen dataclass that is no pytree."""

    a: Any
    b: Any = 0


@functools.cache
def arrays():
    """Arrays of several shapes and dtypes, by name; made when first asked for."""
    return {
        "scalar": jnp.float32(1.5),
        "vector": jnp.arange(3.0),
        "empty": jnp.zeros((0, 3)),
        "bf16": jnp.ones((2, 2), jnp.bfloat16),
        "int": jnp.arange(4, dtype=jnp.int32),
        "bool": jnp.array([True, False]),
        "numpy": np.arange(6, dtype=np.float32).reshape(2, 3),
        "key": jax.random.key(3),
    }


ARRAY_NAMES = ("scalar", "vector", "empty", "bf16", "int", "bool", "numpy", "key")
MODULES = (Node, Sub, Slotted)
VARIABLES = (liftnn.Param, liftnn.BatchStat, liftnn.Intermediate, liftnn.Variable)
STATICS = (
    0, 1, True, 1.0, 0.0, -0.0, None, "text", b"raw", (1, "a"), 2j, float("nan"), jnp.float32, len, range(0, 3, 2),
    range(0, 4, 2), decimal.Decimal("1.0"), decimal.Decimal("1.00"),
)  # fmt: skip
METADATA = ({}, {"tag": "lora"}, {"sharding": ("x", None)}, {"axes": [1, 2]}, {"get_value_hooks": (max,)})
NAMES = ("a", "b", "c", "d")
KEYS = ("k", 0, 1, True, 0.0, -0.0, (1, 2), (True, 2), None)
SHARED = {
    "list": list, "dict": dict, "set": set, "record": lambda: Record(None), "namespace": types.SimpleNamespace,
}  # fmt: skip
"""Containers that can be shared, by name; made empty."""


# --- recipes: nested tuples whose first entry says what to make


_static = st.sampled_from(range(len(STATICS))).map(lambda i: ("static", i))
_array = st.sampled_from(ARRAY_NAMES).map(lambda name: ("array", name))


def _containers(children):
    lists = st.lists(children, max_size=3)
    return st.one_of(
        st.tuples(st.sampled_from(["list", "tuple", "deque"]), lists),
        st.tuples(
            st.sampled_from(["point", "record", "frozen", "namespace"]),
            st.lists(children, min_size=2, max_size=2),
        ),
        st.tuples(st.just("set"), st.lists(_static, max_size=3)),
        st.tuples(
            st.just("dict"),
            st.lists(st.tuples(st.sampled_from(range(len(KEYS))), children), max_size=3),
        ),
    )


@st.composite
def recipes(draw, max_nodes=5, max_variables=4, statics=True, weak=True):
    """Recipes of graphs with sharing, cycles and nested containers.

    Args:
      max_nodes: The most modules, and the most containers, that can be shared.
      max_variables: The most Variables that can be shared.
      statics: Whether there are static values.
      weak: Whether there are weak references to the root.
    """
    n_modules = draw(st.integers(1, max_nodes))
    n_variables = draw(st.integers(0, max_variables))
    shared = draw(st.lists(st.sampled_from(sorted(SHARED)), max_size=2))
    references = [st.integers(0, n_modules - 1).map(lambda i: ("module", i))]
    if n_variables:
        references.append(st.integers(0, n_variables - 1).map(lambda i: ("variable", i)))
    if shared:
        references.append(st.integers(0, len(shared) - 1).map(lambda i: ("shared", i)))
    if weak:
        references.append(st.just(("weak", 0)))
    leaves = [*references, _array, *([_static] if statics else [])]
    children = st.recursive(st.one_of(leaves), _containers, max_leaves=4)
    variables = [
        (
            draw(st.sampled_from(VARIABLES)),
            draw(st.sampled_from(ARRAY_NAMES)),
            draw(st.sampled_from(range(len(METADATA)))),
        )
        for _ in range(n_variables)
    ]
    modules = [
        (
            draw(st.sampled_from(MODULES)),
            draw(st.lists(st.tuples(st.sampled_from(NAMES), children), max_size=4)),
        )
        for _ in range(n_modules)
    ]
    contents = [
        draw(
            st.lists(
                _static if kind == "set" else children, min_size=2 if kind == "record" else 0, max_size=2
            )
        )
        for kind in shared
    ]
    return modules, variables, list(zip(shared, contents, strict=True))


def build(recipe):
    """New objects from a recipe; the first module is the root."""
    modules, variables, shared = recipe
    made = {
        "module": [cls() for cls, _ in modules],
        "variable": [
            cls(arrays()[name], **{k: list(v) if isinstance(v, list) else v for k, v in METADATA[m].items()})
            for cls, name, m in variables
        ],
        "shared": [SHARED[kind]() for kind, _ in shared],
    }
    for module, (_, attributes) in zip(made["module"], modules, strict=True):
        for name, child in attributes:
            setattr(module, name, _make(child, made))
    for holder, (kind, contents) in zip(made["shared"], shared, strict=True):
        children = [_make(c, made) for c in contents]
        if kind == "list":
            holder.extend(children)
        elif kind == "dict":
            holder.update(enumerate(children))
        elif kind == "set":
            holder.update(children)
        elif kind == "namespace":
            vars(holder).update(zip("ab", children, strict=False))
        else:
            holder.a, holder.b = children
    return made["module"][0]


def _make(recipe, made):
    kind, content = recipe
    if kind in made:
        return made[kind][content]
    if kind == "weak":
        return weakref.ref(made["module"][0])
    if kind == "static":
        return STATICS[content]
    if kind == "array":
        return arrays()[content]
    if kind == "dict":
        return {KEYS[key]: _make(child, made) for key, child in content}
    children = [_make(child, made) for child in content]
    if kind in ("point", "record", "frozen"):
        return {"point": Point, "record": Record, "frozen": Frozen}[kind](*children)
    if kind == "namespace":
        return types.SimpleNamespace(a=children[0], b=children[1])
    return {"list": list, "tuple": tuple, "deque": collections.deque, "set": set}[kind](children)


def graphs(**options):
    """Live graphs, built from `recipes`."""
    return recipes(**options).map(build)


# --- mutations: one change of a live graph


def mutations(model):
    """Changes a live graph in one place, or not at all; gives the name of what was done."""
    return mutated(model).map(lambda done: done[0])


@st.composite
def mutated(draw, model):
    """Like `mutations`; gives the name and the choices that were made, with which `mutate` does the same again."""
    choices = []

    def choose(n):
        choices.append(draw(st.integers(0, n - 1)))
        return choices[-1]

    return mutate(model, choose), tuple(choices)


def mutate(model, choose):
    """Changes a live graph in one place, or not at all; gives the name of what was done.

    Args:
      model: The root of the graph.
      choose: Called with a number n; gives one of 0 to n - 1.
    """
    objects = [x for _, x in liftnn.iter_graph(model)]
    modules = [x for x in objects if isinstance(x, liftnn.Module)]
    variables = [x for x in objects if isinstance(x, liftnn.Variable)]
    lists = [x for x in objects if type(x) is list]
    sets = [x for x in objects if type(x) is set]
    places = [(holder, key) for holder in objects for key in keys_of(holder)]

    def pick(things):
        return things[choose(len(things))]

    changes = {"nothing": lambda: None, "new attribute": lambda: setattr(pick(modules), "new", 1)}
    if places:
        changes["delete"] = lambda: delete(*pick(places))
        if not any(
            type(x) is weakref.ref for x in objects
        ):  # a clone of a part would not keep the root alive
            changes["clone"] = lambda: replace(pick(places), lambda x: liftnn.clone(Node(x=x)).x)
        changes["redirect"] = lambda: put(*pick(places), pick(objects))
        changes["static"] = lambda: put(*pick(places), pick(STATICS))
        changes["array"] = lambda: put(*pick(places), arrays()[pick(ARRAY_NAMES)])
        changes["move to the end"] = lambda: move_to_the_end(*pick(places))
        changes["new variable"] = lambda: put(*pick(places), pick(VARIABLES)(arrays()[pick(ARRAY_NAMES)]))
    if variables:
        changes["metadata"] = lambda: pick(variables).set_metadata(**copy.deepcopy(pick(METADATA)))
        changes["value"] = lambda: setattr(pick(variables), "raw_value", arrays()[pick(ARRAY_NAMES)])
    if lists:
        changes["append"] = lambda: pick(lists).append(pick(STATICS))
    if sets:
        changes["add"] = lambda: pick(sets).add(pick(STATICS))
        changes["clear"] = lambda: pick(sets).clear()
    what = pick(sorted(changes))
    changes[what]()
    return what


def keys_of(holder):
    """The keys under which something can be put into a holder."""
    if isinstance(holder, Slotted):
        return [n for n in ("a", "b") if hasattr(holder, n)] + list(attributes_of(holder))
    if isinstance(holder, (liftnn.Module, Record)):
        return list(attributes_of(holder))
    if isinstance(holder, types.SimpleNamespace):
        return list(vars(holder))
    if isinstance(holder, (list, collections.deque)):
        return list(range(len(holder)))
    return list(holder) if isinstance(holder, dict) else []


def is_indexed(holder):
    return isinstance(holder, (list, dict, collections.deque))


def get(holder, key):
    return holder[key] if is_indexed(holder) else getattr(holder, key)


def replace(place, change):
    put(*place, change(get(*place)))


def put(holder, key, x):
    if is_indexed(holder):
        holder[key] = x
    else:
        setattr(holder, key, x)


def delete(holder, key):
    if is_indexed(holder):
        del holder[key]
    else:
        delattr(holder, key)


def move_to_the_end(holder, key):
    """Deletes an entry and puts it back."""
    x = get(holder, key)
    delete(holder, key)
    if isinstance(holder, (list, collections.deque)):
        holder.append(x)
    else:
        put(holder, key, x)
