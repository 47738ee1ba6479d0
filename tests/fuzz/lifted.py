"""The transforms of a program of tests/fuzz by liftnn, each with the signature `(module, module, array)`."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import liftnn

Function = Callable[..., tuple[jax.Array, list[Any]]]


def donating_jit(f: Function) -> Function:
    return liftnn.jit(f, donate_argnums=0)


def grad(f: Function) -> Function:
    both = liftnn.value_and_grad(f, has_aux=True)

    def call(a: Any, b: Any, x: jax.Array) -> Any:
        params = param_paths(a)
        (y, outs), grads = both(a, b, x)
        found = grads.flat()
        # A path that is missing is a wrong result, unless the call around this one is refused in the end.
        return y, [*outs, *(next((found[p].raw_value for p in ps if p in found), jnp.nan) for ps in params)]

    return call


def param_paths(root: Any) -> list[list[tuple[Any, ...]]]:
    """The paths of each Param that a module reaches, in the order in which a walk meets the Params."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    seen: set[int] = set()

    def look(x: Any, path: tuple[Any, ...]) -> None:
        if isinstance(x, liftnn.Param):
            found.setdefault(id(x), []).append(path)
        if id(x) in seen or not isinstance(x, (liftnn.Module, list, dict, types.FunctionType)):
            return
        seen.add(id(x))
        if isinstance(x, types.FunctionType):
            for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
                look(cell.cell_contents, (*path, name, "cell"))
            return
        items = enumerate(x) if isinstance(x, list) else (x if isinstance(x, dict) else vars(x)).items()
        for key, part in items:
            look(part, (*path, key))

    look(root, ())
    return list(found.values())


def vmap(f: Function) -> Function:
    lanes = liftnn.vmap(lambda a, b, x: f(a, b, x)[0], in_axes=(None, None, 0), out_axes=0)
    return lambda a, b, x: (jnp.sum(lanes(a, b, jnp.sum(x) + jnp.arange(2.0))), [])


def scan(f: Function, length: int = 2) -> Function:
    steps = liftnn.scan(lambda a, b, x: f(a, b, x)[0], in_axes=(None, None, 0), out_axes=0)
    return lambda a, b, x: (jnp.sum(steps(a, b, jnp.sum(x) + jnp.arange(float(length)))), [])


def scan_one(f: Function) -> Function:
    return scan(f, 1)


def fori(f: Function) -> Function:
    def body(i: Any, carry: Any) -> Any:
        a, b, x = carry
        return a, b, f(a, b, x)[0]

    def call(a: Any, b: Any, x: jax.Array) -> Any:
        a, b, x = liftnn.fori_loop(0, 2, body, (a, b, jnp.sum(x)))
        return x, [a, b]

    return call


def repeat_while(f: Function, max_steps: int | None = None) -> Function:
    def body(carry: Any) -> Any:
        i, a, b, x = carry
        return i + 1, a, b, f(a, b, x)[0]

    def call(a: Any, b: Any, x: jax.Array) -> Any:
        start = (jnp.int32(0), a, b, jnp.sum(x))
        _, a, b, x = liftnn.while_loop(lambda c: c[0] < 2, body, start, max_steps=max_steps)
        return x, [a, b]

    return call


def bounded_while(f: Function) -> Function:
    return repeat_while(f, max_steps=3)


def cond(f: Function) -> Function:
    return lambda a, b, x: liftnn.cond(jnp.sum(x) > 3, f, f, a, b, x)


def either(f: Function, g: Function) -> Function:
    def call(a: Any, b: Any, x: jax.Array) -> Any:
        branches = [lambda *args: f(*args)[0], lambda *args: g(*args)[0]]
        return liftnn.cond(jnp.sum(x) > 3, *branches, a, b, x), []

    return call


def pick(f: Function) -> Function:
    return lambda a, b, x: liftnn.switch(jnp.int32(jnp.sum(x)) % 3, [f, f, f], a, b, x)


def carry(f: Function) -> Function:
    def body(carry: Any, i: jax.Array) -> Any:
        a, b, x = carry
        return (a, b, f(a, b, x + i)[0]), None

    def call(a: Any, b: Any, x: jax.Array) -> Any:
        (a, b, x), _ = liftnn.scan(body)((a, b, jnp.sum(x)), jnp.arange(2.0))
        return x, [a, b]

    return call


def each(f: Function) -> Function:
    def call(a: Any, b: Any, x: jax.Array) -> Any:
        return jnp.sum(liftnn.map(lambda t: f(a, b, t)[0], jnp.sum(x) + jnp.arange(2.0))), []

    return call


def checked(f: Function) -> Function:
    return lambda a, b, x: liftnn.checkify(f)(a, b, x)[1]


def undone(f: Function) -> Function:
    def call(a: Any, b: Any, x: jax.Array) -> Any:
        with jax.disable_jit():
            return liftnn.jit(f)(a, b, x)

    return call


def vjp(f: Function) -> Function:
    def call(a: Any, b: Any, x: jax.Array) -> Any:
        y, pull, outs = liftnn.vjp(f, a, b, jnp.sum(x), argnums=2, has_aux=True)
        return y, [*outs, pull(jnp.float32(1))[-1]]

    return call


def linearize(f: Function) -> Function:
    def call(a: Any, b: Any, x: jax.Array) -> Any:
        y, push, outs = liftnn.linearize(f, a, b, jnp.sum(x), argnums=2, has_aux=True)
        return y, [*outs, push(jnp.float32(1))]

    return call


def jvp(f: Function) -> Function:
    def call(a: Any, b: Any, x: jax.Array) -> Any:
        y, dy, outs = liftnn.jvp(lambda x: f(a, b, x), (jnp.sum(x),), (jnp.float32(1),), has_aux=True)
        return y, [*outs, dy]

    return call


def jacfwd(f: Function) -> Function:
    def call(a: Any, b: Any, x: jax.Array) -> Any:
        dy, outs = liftnn.jacfwd(f, argnums=2, has_aux=True)(a, b, jnp.sum(x))
        return dy, outs

    return call


def hessian(f: Function) -> Function:
    def call(a: Any, b: Any, x: jax.Array) -> Any:
        dy, outs = liftnn.hessian(f, argnums=2, has_aux=True)(a, b, jnp.sum(x))
        return dy, outs

    return call


def vmap_new(f: Function) -> Function:
    return _over_new(f, liftnn.vmap)


def scan_new(f: Function) -> Function:
    return _over_new(f, liftnn.scan)


def _over_new(f: Function, transform: Any) -> Function:
    """Call a function with each of two new modules."""
    each = transform(lambda e, b, x: f(e, b, x)[0], in_axes=(0, None, 0), out_axes=0)

    def call(a: Any, b: Any, x: jax.Array) -> Any:
        xs = jnp.sum(x) + jnp.arange(2.0)
        new = liftnn.vmap(type(a))(xs)
        ys = each(new, b, xs)
        return jnp.sum(ys), [jnp.sum(new.v.value), jnp.sum(new.w.value)]

    return call


def vmap_part(f: Function) -> Function:
    return _over_part(f, liftnn.vmap)


def scan_part(f: Function) -> Function:
    return _over_part(f, liftnn.scan)


def _over_part(f: Function, transform: Any) -> Function:
    """Call a function with each slice of a part of its second module, which it captures."""

    def call(a: Any, b: Any, x: jax.Array) -> Any:
        xs = jnp.sum(x) + jnp.arange(2.0)
        b.part = liftnn.vmap(type(a))(xs)
        try:
            ys = transform(lambda e, x: f(e, b, x)[0], in_axes=(0, 0), out_axes=0)(b.part, xs)
            values = b.part.v.value, b.part.w.value
        finally:
            del b.part
        return jnp.sum(ys), [*map(jnp.sum, values)]

    return call


def rebuild(module: Any) -> Any:
    return liftnn.merge(*reversed(liftnn.split(module)))


def pop(module: Any, kind: type) -> int:
    return len(liftnn.pop(module, kind).flat())


NAMESPACE: dict[str, Any] = {
    "jit": liftnn.jit,
    "donating_jit": donating_jit,
    "remat": liftnn.remat,
    "grad": grad,
    "vmap": vmap,
    "scan": scan,
    "scan_one": scan_one,
    "fori": fori,
    "repeat_while": repeat_while,
    "bounded_while": bounded_while,
    "cond": cond,
    "either": either,
    "pick": pick,
    "carry": carry,
    "each": each,
    "checked": checked,
    "undone": undone,
    "vjp": vjp,
    "linearize": linearize,
    "jvp": jvp,
    "jacfwd": jacfwd,
    "hessian": hessian,
    "vmap_new": vmap_new,
    "scan_new": scan_new,
    "vmap_part": vmap_part,
    "scan_part": scan_part,
    "rebuild": rebuild,
    "pop": pop,
    "clone": liftnn.clone,
    "state": lambda module: liftnn.state(module, liftnn.Variable),
    "update": liftnn.update,
}
