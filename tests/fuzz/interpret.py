"""Runs a random program twice, with liftnn's transforms and plainly, and says where the two first differ."""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import liftnn
from tests.alike import find_difference
from tests.fuzz import lifted, plain
from tests.fuzz.programs import TRANSFORMS, Program, may_raise, tags_of, write


class Boom(Exception):  # noqa: N818
    """What a program raises half-way."""


class Trainer:
    """An object that is no module and holds one."""

    def __init__(self, model: Any):
        self.model = model

    def run(self, a: Any, b: Any, x: jax.Array) -> Any:
        self.model.w.value = wrap(self.model.w.value + a.v.value)
        return wrap(total(x) + self.model.k + self.model.w.value), [self.model]

    __call__ = run

    def step(self, y: jax.Array) -> jax.Array:
        return wrap(self.model.v.value + y * self.model.k)


class Options:
    """A plain object in a module; copies of the module share it, as static values."""

    def __init__(self, rate: int, inner: Any = None):
        self.rate = rate
        self.sizes = [1]
        self.inner = inner

    def total_rate(self) -> int:
        return self.rate + (0 if self.inner is None else self.inner.rate)

    def __deepcopy__(self, memo: Any) -> Options:
        return self


DEFAULT = Options(1, Options(2))
"""The options of modules that a function creates: branches must create equal modules. They do not change."""


def arr(*numbers: float) -> jax.Array:
    return jnp.array(numbers[0] if len(numbers) == 1 else numbers, jnp.float32)


def total(x: jax.Array) -> jax.Array:
    return wrap(jnp.sum(x))


def wrap(x: jax.Array) -> jax.Array:
    """A number of at most two digits, so that float32 is exact."""
    return jax.lax.rem(x, jnp.full_like(x, 64.0))


def twice(y: jax.Array) -> jax.Array:
    return wrap(y * 2)


def make_act(other: Any) -> Callable[..., jax.Array]:
    def act(y: jax.Array) -> jax.Array:
        return wrap(y * other.k + other.v.value)

    return act


def make_size(items: list[Any]) -> Callable[[], int]:
    """A function that shares a list with a module, perhaps."""
    return lambda: len(items)


def make_peek(entries: dict[str, Any]) -> Callable[[], Any]:
    return lambda: entries["n"]


def helper(module: Any, y: jax.Array) -> jax.Array:
    return wrap(y + module.w.value * module.k)


def node_class(module: type, param: type, stat: type, variable: type) -> type:
    """A module with a part of each kind."""

    class Node(module):
        def __init__(self, value: jax.Array):
            self.v = param(value, scale=1)
            self.w = stat(value + 1)
            self.dv = variable({"a": value + 2})
            self.k = 2
            self.d = {"n": 1}
            self.items = []
            self.arr = value + 3
            self.buf = np.ones(2, np.float32)
            self.act = twice
            self.size = make_size(self.items)
            self.peek = make_peek(self.d)
            self.training = True
            self.options = DEFAULT
            self.sub = self

        def double(self, y: jax.Array) -> jax.Array:
            return wrap(y * 2 + self.k + self.v.value)

        def forward(self, a: Any, b: Any, x: jax.Array) -> Any:
            self.v.value = wrap(self.v.value + b.k)
            return wrap(total(x) * self.k + self.v.value + self.sub.w.value), [self, b.v]

        def train(self) -> None:
            self.training = True

        def eval(self) -> None:
            self.training = False

    return Node


COMMON = {
    **{
        f.__name__: f
        for f in (arr, total, wrap, twice, make_act, make_size, make_peek, helper, Boom, Trainer, Options)
    },
    **{module.__name__: module for module in (collections, copy, functools, types)},
    "np": np,
    "__name__": "program",
}


def lifted_namespace() -> dict[str, Any]:
    """What a program finds when it runs with liftnn."""
    node = node_class(liftnn.Module, liftnn.Param, liftnn.BatchStat, liftnn.Variable)
    classes = {"Node": node, "Param": liftnn.Param, "Intermediate": liftnn.Intermediate}
    return {**COMMON, **lifted.NAMESPACE, **classes}


def plain_namespace(world: plain.World) -> dict[str, Any]:
    """What a program finds when it runs plainly."""
    module = type("Module", (plain.Module,), {"world": world})
    variable = type("Variable", (plain.Variable,), {"world": world})
    param, stat, seen = (type(name, (variable,), {}) for name in ("Param", "BatchStat", "Intermediate"))
    node = node_class(module, param, stat, variable)
    transforms = plain.Transforms(world)
    return {
        **COMMON,
        **{name: getattr(transforms, name) for name in TRANSFORMS if name != "grad"},
        "grad": lambda f: transforms.grad(f, param),
        "rebuild": plain.clone,
        "clone": plain.clone,
        "pop": plain.pop,
        "state": plain.state,
        "update": plain.update,
        "Node": node,
        "Param": param,
        "Intermediate": seen,
    }


class Run:
    """One of the two runs of a program."""

    def __init__(self, source: str, namespace: dict[str, Any]):
        self.skip = False
        namespace = {**namespace, "attempt": self.attempt}
        exec(compile(source, "<program>", "exec"), namespace)
        self.steps: Iterator[Any] = namespace["program"]()
        self.roots = next(self.steps)

    def attempt(self, f: Callable[..., Any], *args: Any) -> Any:
        if self.skip:
            return None
        try:
            return f(*args)
        except Exception as error:
            return error

    def next(self) -> Any:
        """Makes the next step; gives what came of a call, or the error of a call or a change."""
        try:
            return next(self.steps)
        except Exception as error:
            return error


@dataclasses.dataclass
class Verdict:
    """What came of a program: a kind ("held", "invalid", or what is wrong), and the whole of it."""

    kind: str
    text: str = ""
    accepted: tuple[str, ...] = ()
    """The reasons of the errors that are as they should be."""


def run(program: Program) -> Verdict:
    """Runs a program both ways, step by step."""
    source = write(program)
    world = plain.World()
    ours = Run(source, lifted_namespace())
    theirs = Run(source, plain_namespace(world))
    world.roots = theirs.roots
    accepted: list[str] = []
    for i, step in enumerate(program.steps):
        where = f"step {i + 1}: {step.text}"
        out = ours.next()
        reasons = (
            may_raise(tags_of(program, step.calls))
            if isinstance(out, liftnn.LiftError) and step.calls
            else []
        )
        theirs.skip = bool(reasons)
        wanted = theirs.next()
        if reasons:
            accepted += reasons[:1]
            out = None
        kind, text = judge(out, wanted)
        if not kind:
            kind, text = compare((out, ours.roots()), (wanted, theirs.roots()))
        if kind:
            after = " after an error" if reasons else ""
            return Verdict(kind + after, f"{where}\n{text}", tuple(accepted))
    return Verdict("held", accepted=tuple(accepted))


def judge(out: Any, wanted: Any) -> tuple[str, str]:
    """Whether both calls raised, or neither."""
    if isinstance(wanted, Exception) and not isinstance(wanted, Boom):
        return "invalid", repr(wanted)
    if isinstance(out, ValueError) and "Reverse-mode differentiation does not work" in str(out):
        return "invalid", "a derivative of a while_loop"
    if isinstance(out, Exception) and type(out) is not type(wanted):
        return f"{type(out).__name__}", f"{type(out).__name__}: {out}"
    if isinstance(wanted, Exception) and not isinstance(out, Exception):
        return "no error", f"plain Python raises {wanted!r}"
    return "", ""


def compare(ours: Any, theirs: Any) -> tuple[str, str]:
    """Whether results and everything that the program names are alike."""
    a, b = Neutral()(ours), Neutral()(theirs)
    difference = find_difference(a, b)
    if difference is None:
        return "", ""
    path, x, y = difference
    kind = "tracer" if "tracer" in str(x) else "result" if path[1:2] == (0,) else "world"
    return kind, f"{'.'.join(map(str, path[1:]))}: {x} with liftnn, {y} in plain Python"


class Neutral:
    """Writes a graph as lists and dicts, so that liftnn's modules and plain ones look alike."""

    def __init__(self):
        self.known: dict[int, tuple[Any, Any]] = {}

    def __call__(self, x: Any) -> Any:
        if isinstance(x, jax.core.Tracer):
            return "a tracer"
        if isinstance(x, (jax.Array, np.ndarray)):
            return neutral_array(x)
        if x is liftnn.Empty or x is plain.EMPTY:
            return "Empty"
        if isinstance(x, (type(None), bool, int, float, str, type)):
            return x
        if isinstance(x, Exception):
            return type(x).__name__
        if isinstance(x, tuple):
            return tuple(self(part) for part in x)
        if id(x) not in self.known:
            made: Any = [] if isinstance(x, (list, collections.deque)) else {}
            self.known[id(x)] = x, made
            if isinstance(made, list):
                made += [self(part) for part in x]
            else:
                made.update({key: self(part) for key, part in named_parts(x)})
        return self.known[id(x)][1]


def named_parts(x: Any) -> list[tuple[Any, Any]]:
    """The names and parts of anything that is no list."""
    if isinstance(x, dict):
        return list(x.items())
    if isinstance(x, liftnn.Variable):
        return [("class", type(x).__name__), ("value", x.raw_value), *x.get_metadata().items()]
    if isinstance(x, functools.partial):
        return [("partial", x.func.__name__), ("args", x.args)]
    if isinstance(x, types.MethodType):
        return [("method", x.__name__), ("of", x.__self__)]
    if isinstance(x, types.FunctionType):
        cells = [cell.cell_contents for cell in x.__closure__ or ()]
        return [("function", x.__name__), *enumerate(cells)]
    if isinstance(x, types.ModuleType) or not hasattr(x, "__dict__"):
        return [("class", type(x).__name__), ("text", repr(x))]
    return [("class", type(x).__name__), *vars(x).items()]


def neutral_array(x: Any) -> Any:
    """An array with one zero, and of five digits, which is exact for what `wrap` leaves."""
    if isinstance(x, jax.Array) and x.is_deleted():
        return "a deleted array"
    numbers = np.asarray(x, np.float64) + 0.0
    with np.errstate(all="ignore"):
        digits = np.where(numbers == 0, 1, 10.0 ** (4 - np.floor(np.log10(np.abs(numbers)))))
        return np.where(np.isfinite(numbers), np.round(numbers * digits) / digits, numbers)
