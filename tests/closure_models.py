"""Modules that hold functions over modules, and what tests do to them."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import liftnn


class Counter(liftnn.Module):
    """A number in a Variable and a static one."""

    def __init__(self, n=1.0, k=2):
        self.n = liftnn.Param(jnp.array(n))
        self.k = k
        self.deterministic = False


TWO = jnp.array(2.0)


@dataclasses.dataclass
class Box:
    f: Any


def self_capturing():
    m = Counter()
    m.act = lambda x: x * m.k * m.n + (0 if m.deterministic else 1)
    return m


def over_another():
    m, other = Counter(), Counter(3.0, 5)
    m.act = lambda x: x * other.n * other.k
    m.other = other
    return m


def in_a_list():
    m, other = Counter(), Counter(3.0, 5)
    m.layers = [lambda x: x * other.n, {"f": lambda x: x + other.k}, Box(lambda x: x - other.n)]
    m.act = lambda x: m.layers[0](x) + m.layers[1]["f"](x) + m.layers[2].f(x)
    m.other = other
    return m


def by_default():
    m, other = Counter(), Counter(3.0, 5)

    def act(x, o=other, *, factor=other.n, s=TWO):
        return x * o.k * factor * s

    m.act = act
    m.other = other
    return m


def by_attribute():
    m, other = Counter(), Counter(3.0, 5)

    def act(x):
        return x * act.other.n * act.other.k

    act.other = other
    m.act, m.other = act, other
    return m


def by_function():
    m, other = Counter(), Counter(3.0, 5)
    inner = lambda x: x * other.n  # noqa: E731
    method = types.MethodType(lambda self, x: self.n * x, other)
    partial = functools.partial(lambda o, x: o.k * x, other)
    m.act = lambda x: inner(x) + method(x) + partial(x)
    m.other = other
    return m


def recursive():
    m = Counter(3.0)

    def power(x, i):
        return m.n * x if i == 0 else power(x, i - 1) * m.k

    m.power = power
    m.act = lambda x: m.power(x, 3)
    return m


def by_hook():
    m, other = Counter(), Counter(3.0, 5)
    m.n = liftnn.Param(jnp.array(2.0), get_value_hooks=lambda v, x: x * other.n + other.k)
    m.act = lambda x: m.n * x
    m.other = other
    return m


BUILDS = (
    self_capturing, over_another, in_a_list, by_default, by_attribute, by_function, recursive, by_hook
)  # fmt: skip


def do_nothing(m):
    pass


def set_values(m):
    for x in liftnn_modules(m):
        x.n.value = x.n.raw_value + 1


def set_statics(m):
    for x in liftnn_modules(m):
        x.k = 3


def switch_mode(m):
    m.eval()
    m.deterministic = True


def add_attribute(m):
    for x in liftnn_modules(m):
        x.new = 4


def replace_variable(m):
    m.other_n = getattr(m, "other", m).n
    getattr(m, "other", m).n = liftnn.Param(jnp.array(7.0))


def attach(m):
    first = m.act
    m.act = lambda x: first(x) + m.k


EFFECTS = (do_nothing, set_values, set_statics, switch_mode, add_attribute, replace_variable)


def liftnn_modules(m):
    return [m, m.other] if hasattr(m, "other") else [m]


def counting(m):
    count = 0

    def tick(x):
        nonlocal count
        count += 1
        return m.n * x * count

    m.tick, m.count = tick, lambda: (count, m.k)[0]
    return m


def read(m):
    """What can be seen of a model."""
    return [(x.k, x.deterministic, float(x.n.value), sorted(vars(x))) for x in liftnn_modules(m)], m.act(2.0)


def close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a == b if isinstance(a, str) else np.allclose(a, b, rtol=1e-5), (actual, expected)
