"""Modules, Variables and transforms in plain Python: what a program of tests/fuzz means.

Nothing here knows liftnn. A transform runs its function as Python does, and puts everything back if it raises.
"""

from __future__ import annotations

import collections
import copy
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

Function = Callable[..., tuple[jax.Array, list[Any]]]


EMPTY = "what a Variable holds whose value was popped"


CONTAINERS = (list, dict, collections.deque)


class World:
    """Everything that a program has made, so that it can be put back."""

    def __init__(self):
        self.made: list[Any] = []
        self.roots: Callable[[], dict[str, Any]] = dict

    def containers(self) -> Iterator[Any]:
        """All objects that the program has made and that can change."""
        seen: set[int] = set()
        todo = [*self.made, self.roots()]
        while todo:
            x = todo.pop()
            if id(x) in seen or not (isinstance(x, (*CONTAINERS, tuple)) or hasattr(x, "__dict__")):
                continue
            seen.add(id(x))
            if isinstance(x, (type, Callable)):
                continue
            yield x
            todo += parts(x)

    def save(self) -> Callable[[], None]:
        """A function that puts everything back as it is now."""
        saved = []
        for x in self.containers():
            if isinstance(x, CONTAINERS):
                saved.append((x, copy.copy(x)))
            elif not isinstance(x, tuple):
                saved.append((vars(x), dict(vars(x))))

        def put_back() -> None:
            for x, content in saved:
                x.clear()
                x.update(content) if isinstance(x, dict) else x.extend(content)

        return put_back


def parts(x: Any) -> list[Any]:
    """What a container or an object holds."""
    if isinstance(x, dict):
        return list(x.values())
    return list(x) if isinstance(x, (*CONTAINERS, tuple)) else list(vars(x).values())


class Module:
    """An object with attributes."""

    world: World

    def __new__(cls, *args: Any) -> Any:
        self = super().__new__(cls)
        cls.world.made.append(self)
        return self


class Variable:
    """A box for a value."""

    world: World

    def __new__(cls, *args: Any, **metadata: Any) -> Any:
        self = super().__new__(cls)
        cls.world.made.append(self)
        return self

    def __init__(self, value: Any, **metadata: Any):
        self.value = value
        vars(self).update(metadata)

    def __iadd__(self, other: Any) -> Variable:
        self.value = self.value + other
        return self


def reached(x: Any, kind: type) -> list[Any]:
    """The objects of a kind that a module reaches, in the order in which a walk meets them."""
    found: dict[int, Any] = {}
    seen: set[int] = set()

    def look(x: Any) -> None:
        if id(x) in seen or not isinstance(x, (Module, Variable, list, dict, tuple, types.FunctionType)):
            return
        seen.add(id(x))
        if isinstance(x, kind):
            found[id(x)] = x
        is_function = isinstance(x, types.FunctionType)
        for part in [cell.cell_contents for cell in x.__closure__ or ()] if is_function else parts(x):
            look(part)

    look(x)
    return list(found.values())


def clone(module: Module) -> Any:
    """A copy of a module and of all that it reaches; also of what the closures of its functions hold."""
    table: dict[type, Any] = copy._deepcopy_dispatch  # type: ignore[attr-defined]
    atomic: set[type] = getattr(
        copy, "_atomic_types", set()
    )  # from Python 3.14 on, functions are in this set
    before, was_atomic = table.get(types.FunctionType), types.FunctionType in atomic
    table[types.FunctionType] = copy_function
    atomic.discard(types.FunctionType)
    try:
        return copy.deepcopy(module)
    finally:
        if was_atomic:
            atomic.add(types.FunctionType)
            del table[types.FunctionType]
        else:
            table[types.FunctionType] = before


def copy_function(f: types.FunctionType, memo: dict[int, Any]) -> types.FunctionType:
    """A function with cells of its own."""
    if not f.__closure__:
        return f
    new = [c for c in f.__closure__ if id(c) not in memo]
    cells = tuple([memo.setdefault(id(c), types.CellType()) for c in f.__closure__])
    made = memo[id(f)] = types.FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, cells)
    for cell in new:
        memo[id(cell)].cell_contents = copy.deepcopy(cell.cell_contents, memo)
    return made


def state(module: Module) -> list[tuple[Variable, Any]]:
    return [(v, copy.deepcopy(v.value, {})) for v in reached(module, Variable)]


def update(module: Module, values: list[tuple[Variable, Any]]) -> None:
    for variable, value in values:
        variable.value = dict(value) if isinstance(value, dict) else value


def pop(module: Module, kind: type) -> int:
    """Empties the Variables of a kind; gives how many there were."""
    full = [v for v in reached(module, kind) if v.value is not EMPTY]
    for variable in full:
        variable.value = EMPTY
    return len(full)


class Transforms:
    """The transforms of a program: loops are loops, branches are branches, `jit` and `remat` do nothing."""

    def __init__(self, world: World):
        self.world = world

    def guarded(self, f: Function) -> Function:
        """The function, which puts everything back if it raises."""

        @functools.wraps(f)
        def call(*args: Any) -> Any:
            put_back = self.world.save()
            try:
                return f(*args)
            except Exception:
                put_back()
                raise

        return call

    def jit(self, f: Function) -> Function:
        return self.guarded(f)

    donating_jit = remat = checked = undone = jit

    def grad(self, f: Function, param: type) -> Function:
        """The function's result, and the derivatives by the first module's Params, as a replay finds them."""

        def call(a: Any, b: Any, x: jax.Array) -> Any:
            params = reached(a, param)

            def replay(values: list[jax.Array]) -> jax.Array:
                for p, value in zip(params, values, strict=True):
                    p.value = value
                return f(a, b, x)[0]

            put_back = self.world.save()
            try:
                grads = jax.grad(replay)([p.value for p in params])
            finally:
                put_back()
            y, outs = f(a, b, x)
            return y, [*outs, *grads]

        return self.guarded(call)

    def vmap(self, f: Function) -> Function:
        def call(a: Any, b: Any, x: jax.Array) -> Any:
            ys = []
            put_back = self.world.save()
            for i in range(2):
                put_back()
                ys.append(f(a, b, jnp.sum(x) + i)[0])
            return sum(ys), []

        return self.guarded(call)

    def scan(self, f: Function, length: int = 2) -> Function:
        def call(a: Any, b: Any, x: jax.Array) -> Any:
            return sum(f(a, b, jnp.sum(x) + i)[0] for i in range(length)), []

        return self.guarded(call)

    def scan_one(self, f: Function) -> Function:
        return self.scan(f, 1)

    def fori(self, f: Function) -> Function:
        def call(a: Any, b: Any, x: jax.Array) -> Any:
            x = jnp.sum(x)
            for _ in range(2):
                x = f(a, b, x)[0]
            return x, [a, b]

        return self.guarded(call)

    repeat_while = bounded_while = fori

    def carry(self, f: Function) -> Function:
        def call(a: Any, b: Any, x: jax.Array) -> Any:
            x = jnp.sum(x)
            for i in range(2):
                x = f(a, b, x + i)[0]
            return x, [a, b]

        return self.guarded(call)

    def each(self, f: Function) -> Function:
        return self.scan(f, 2)

    def vmap_new(self, f: Function) -> Function:
        def call(a: Any, b: Any, x: jax.Array) -> Any:
            new, ys, values = [], [], []
            put_back = self.world.save()
            for i in range(2):
                put_back()
                new = type(a)(jnp.sum(x) + i)
                ys.append(f(new, b, jnp.sum(x) + i)[0])
                values.append((new.v.value, new.w.value))
            return sum(ys), [sum(v) for v in zip(*values, strict=True)]

        return self.guarded(call)

    def scan_new(self, f: Function) -> Function:
        def call(a: Any, b: Any, x: jax.Array) -> Any:
            new = [type(a)(jnp.sum(x) + i) for i in range(2)]
            ys = [f(e, b, jnp.sum(x) + i)[0] for i, e in enumerate(new)]
            return sum(ys), [sum(e.v.value for e in new), sum(e.w.value for e in new)]

        return self.guarded(call)

    def vmap_part(self, f: Function) -> Function:
        return self._over_part(f, alone=True)

    def scan_part(self, f: Function) -> Function:
        return self._over_part(f, alone=False)

    def _over_part(self, f: Function, alone: bool) -> Function:
        def call(a: Any, b: Any, x: jax.Array) -> Any:
            xs = [jnp.sum(x) + i for i in range(2)]
            b.part = [type(a)(x) for x in xs]
            try:
                part, ys, values = b.part, [], []
                put_back = self.world.save()
                for e, x in zip(part, xs, strict=True):
                    if alone:
                        put_back()
                    ys.append(f(e, b, x)[0])
                    values.append((e.v.value, e.w.value))
            finally:
                del b.part
            return sum(ys), [sum(v) for v in zip(*values, strict=True)]

        return self.guarded(call)

    def _derivative(self, f: Function, derive: Callable[..., Any], a: Any, b: Any, x: jax.Array) -> Any:
        """The derivative of a function by its array, as a replay finds it."""
        put_back = self.world.save()
        try:
            return derive(lambda x: f(a, b, x)[0])(jnp.sum(x))
        finally:
            put_back()

    def vjp(self, f: Function) -> Function:
        return self._with_derivative(f, jax.grad)

    linearize = vjp

    def jvp(self, f: Function) -> Function:
        return self._with_derivative(f, jax.jacfwd)

    def _with_derivative(self, f: Function, derive: Callable[..., Any]) -> Function:
        def call(a: Any, b: Any, x: jax.Array) -> Any:
            dy = self._derivative(f, derive, a, b, x)
            y, outs = f(a, b, jnp.sum(x))
            return y, [*outs, dy]

        return self.guarded(call)

    def jacfwd(self, f: Function) -> Function:
        return self._jacobian(f, jax.jacfwd)

    def hessian(self, f: Function) -> Function:
        return self._jacobian(f, jax.hessian)

    def _jacobian(self, f: Function, derive: Callable[..., Any]) -> Function:
        def call(a: Any, b: Any, x: jax.Array) -> Any:
            dy = self._derivative(f, derive, a, b, x)
            return dy, f(a, b, jnp.sum(x))[1]

        return self.guarded(call)

    def cond(self, f: Function) -> Function:
        return self.guarded(f)

    pick = cond

    def either(self, f: Function, g: Function) -> Function:
        def call(a: Any, b: Any, x: jax.Array) -> Any:
            return (f if jnp.sum(x) > 3 else g)(a, b, x)[0], []

        return self.guarded(call)
