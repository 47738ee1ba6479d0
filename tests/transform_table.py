"""Every transform as a way to call `f(model, x)` once: the columns of the conformance table.

Each entry takes such a function and returns one with the same arguments, result and effects, which runs it under
the transform. A new transform is one more line here.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import liftnn

Function = Callable[[Any, jax.Array], Any]


def _scalar(f: Function) -> Function:
    """The function with a scalar in front, for differentiation."""

    def pair(model: Any, x: jax.Array) -> Any:
        out = f(model, x)
        return sum((jnp.sum(model.first.w.value), jnp.sum(x)), start=jnp.zeros(())), out

    return pair


def _grad(f: Function) -> Function:
    return lambda model, x: liftnn.grad(_scalar(f), has_aux=True)(model, x)[1]


def _value_and_grad(f: Function) -> Function:
    both = liftnn.value_and_grad(_scalar(f), argnums=(0, 1), has_aux=True)
    return lambda model, x: both(model, x)[0][1]


def _vjp(f: Function) -> Function:
    def call(model: Any, x: jax.Array) -> Any:
        _, pull_back, out = liftnn.vjp(_scalar(f), model, x, has_aux=True)
        pull_back(jnp.ones(()))
        return out

    return call


def _fwd_and_bwd(f: Function) -> Function:
    fwd, bwd = liftnn.fwd_and_bwd(_scalar(f), argnums=(0, 1), has_aux=True)

    def call(model: Any, x: jax.Array) -> Any:
        _, residuals, out = fwd(model, x)
        bwd(residuals, jnp.ones(()))
        return out

    return call


def _jvp(f: Function) -> Function:
    def call(model: Any, x: jax.Array) -> Any:
        tangents = ({"first": {"w": jnp.ones((3, 3))}}, jnp.ones(3))
        return liftnn.jvp(_scalar(f), (model, x), tangents, has_aux=True)[2]

    return call


def _linearize(f: Function) -> Function:
    def call(model: Any, x: jax.Array) -> Any:
        _, push, out = liftnn.linearize(_scalar(f), model, x, has_aux=True)
        push(None, jnp.ones(3))
        return out

    return call


def _jacfwd(f: Function) -> Function:
    return lambda model, x: liftnn.jacfwd(_scalar(f), argnums=1, has_aux=True)(model, x)[1]


def _jacrev(f: Function) -> Function:
    return lambda model, x: liftnn.jacrev(_scalar(f), argnums=(0, 1), has_aux=True)(model, x)[1]


def _hessian(f: Function) -> Function:
    return lambda model, x: liftnn.hessian(_scalar(f), argnums=1, has_aux=True)(model, x)[1]


def _custom_vjp(f: Function) -> Function:
    """A function with a rule, differentiated where the table's function is not."""
    with_rule = liftnn.custom_vjp(_scalar(f))
    with_rule.defvjp(lambda model, x: (with_rule(model, x), x), lambda x, ct: (None, ct[0] * x))
    return lambda model, x: liftnn.grad(with_rule, argnums=1, has_aux=True)(model, x)[1]


def _custom_jvp(f: Function) -> Function:
    with_rule = liftnn.custom_jvp(_scalar(f))
    with_rule.defjvp(lambda primals, tangents: (with_rule(*primals), (tangents[1].sum(), None)))
    return lambda model, x: liftnn.jvp(with_rule, (model, x), (None, x), has_aux=True)[2]


def _vmap(f: Function) -> Function:
    one_lane = liftnn.vmap(f, in_axes=(None, None), out_axes=None, axis_size=1, split_rngs=False)
    return lambda model, x: one_lane(model, x)


def _pmap(f: Function) -> Function:
    options = {"in_axes": (None, None), "out_axes": None, "axis_size": 1, "split_rngs": False}
    one_lane = liftnn.pmap(f, **options)
    return lambda model, x: one_lane(model, x)


def _map(f: Function) -> Function:
    def one_element(model: Any, x: jax.Array) -> Any:
        _change_arrays(model, lambda a: a[None])
        out: Any = None
        try:
            out = liftnn.map(lambda pair: f(*pair), (model, x[None]))
        finally:
            leaves, treedef = jax.tree.flatten(out, is_leaf=_is_object)
            _change_arrays(([model], [x for x in leaves if _is_object(x)]), lambda a: a[0])
        return treedef.unflatten([x[0] if isinstance(x, jax.Array) else x for x in leaves])

    return one_element


def _is_object(x: Any) -> bool:
    return isinstance(x, (liftnn.Module, liftnn.Variable))


def _change_arrays(tree: Any, change: Callable[[jax.Array], jax.Array]) -> None:
    """Puts other arrays into everything that a tree of modules reaches."""

    def changed(value: Any) -> Any:
        return jax.tree.map(lambda a: change(jnp.asarray(a)) if not isinstance(a, str) else a, value)

    def put(x: Any, path: tuple[Any, ...]) -> Any:
        """Return an object with another array at a path: itself, or a new tuple."""
        if not path:
            if not isinstance(x, liftnn.Variable):
                return changed(x)
            x.raw_value = changed(x.raw_value)
            return x
        key = path[0]
        is_attribute = isinstance(key, str) and not isinstance(x, dict)
        child = getattr(x, key) if is_attribute else x[key]
        new = put(child, path[1:])
        if new is child:
            return x
        if isinstance(x, tuple):
            return (*x[:key], new, *x[key + 1 :])
        if is_attribute:
            setattr(x, key, new)
        else:
            x[key] = new
        return x

    for path in liftnn.state(tree).flat():
        put(tree, path)


DEVICE = jax.make_mesh((1, 1), ("outer", "inner"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def _shard_map(f: Function) -> Function:
    def call(model: Any, x: jax.Array) -> Any:
        around = jax.sharding.get_abstract_mesh()
        mesh, axis = (None, "inner") if around.manual_axes else (DEVICE, "outer")
        specs = {"in_specs": (jax.P(), jax.P()), "out_specs": jax.P()}
        sharded = liftnn.shard_map(f, mesh=mesh, axis_names={axis}, split_rngs=False, **specs)
        return liftnn.jit(sharded)(model, x)  # each operation by itself would be compiled otherwise

    return call


def _third_party(f: Function) -> Function:
    return liftnn.lift(f, bind=lambda plan, pure: jax.checkpoint(pure), name="remat")


def _cond(f: Function) -> Function:
    return lambda model, x: liftnn.cond(jnp.array(True), f, f, model, x)


def _switch(f: Function) -> Function:
    return lambda model, x: liftnn.switch(jnp.array(1), [f, f], model, x)


def _scan(f: Function) -> Function:
    one_step = liftnn.scan(f, length=1, in_axes=(None, liftnn.Carry), out_axes=liftnn.Carry)
    return lambda model, x: one_step(model, x)


def _fori_loop(f: Function) -> Function:
    return lambda model, x: liftnn.fori_loop(0, 1, lambda i, args: f(*args), (model, x))


def _checkify(f: Function) -> Function:
    checked = liftnn.checkify(f)
    return lambda model, x: checked(model, x)[1]


def _export(f: Function) -> Function:
    def call(model: Any, x: jax.Array) -> Any:
        exported = liftnn.export(liftnn.jit(f))(model, x)
        if importlib.util.find_spec("flatbuffers"):  # which JAX needs to write it
            exported = liftnn.deserialize(exported.serialize(vjp_order=1))
        return exported.call(model, x)

    return call


def _make_jaxpr(f: Function) -> Function:
    def call(model: Any, x: jax.Array) -> Any:
        liftnn.make_jaxpr(f)(model, x)
        return f(model, x)  # what was done to the copies is not done twice

    return call


def _eval_shape(f: Function) -> Function:
    def call(model: Any, x: jax.Array) -> Any:
        liftnn.eval_shape(f, model, x)
        return f(model, x)

    return call


TRANSFORMS: dict[str, Callable[[Function], Function]] = {
    "jit": liftnn.jit,
    "donating jit": liftnn.jit(donate_argnums=0),
    "grad": _grad,
    "value_and_grad": _value_and_grad,
    "vjp": _vjp,
    "fwd_and_bwd": _fwd_and_bwd,
    "jvp": _jvp,
    "linearize": _linearize,
    "jacfwd": _jacfwd,
    "jacrev": _jacrev,
    "hessian": _hessian,
    "custom_vjp": _custom_vjp,
    "custom_jvp": _custom_jvp,
    "vmap": _vmap,
    "pmap": _pmap,
    "map": _map,
    "shard_map": _shard_map,
    "lift": _third_party,
    "cond": _cond,
    "switch": _switch,
    "scan": _scan,
    "fori_loop": _fori_loop,
    "remat": liftnn.remat,
    "checkify": _checkify,
    "export": _export,
    "make_jaxpr": _make_jaxpr,
    "eval_shape": _eval_shape,
}
"""All but `associative_scan`: its function takes two elements, is called as often as the algorithm likes, and may not
write."""


IN_PLACE = [name for name in TRANSFORMS if name != "map"]
"""Those that pass the model as it is: the line of `map` stacks its arrays first, and unstacks them afterwards."""

WRITING = [name for name in IN_PLACE if name != "export"]
"""Those whose function may write to what it captures: what an exported one captures is a constant."""

FIRST = ("jit", "donating jit", "grad", "value_and_grad", "vmap", "scan", "cond")
"""Those whose rows are not left to the thorough run."""

FORWARD = ("jvp", "linearize", "jacfwd", "hessian")
IMPOSSIBLE = {
    *itertools.product(FORWARD, ("custom_vjp", "export")),  # a rule for reverse mode only has no forward mode
    ("jacrev", "export"),  # and JAX has no batching rule for what was exported
    *(("pmap", "pmap"), ("pmap", "shard_map"), ("shard_map", "pmap")),  # where all axes of a mesh are taken
}
"""Pairs that JAX refuses."""

PAIRED = [name for name in TRANSFORMS if name != "eval_shape"]
"""Those of which all pairs are tried; what holds for `make_jaxpr` holds for the other one that only looks."""

PAIRS = [pair for pair in itertools.product(PAIRED, repeat=2) if pair not in IMPOSSIBLE]


def some(cases: Sequence[Any], variable: str, count: int) -> list[Any]:
    """Some cases, always the same ones.

    Args:
      cases: All cases.
      variable: The environment variable that says how many; it may be more than there are.
      count: How many if it is not set.

    Returns:
      The cases.
    """
    count = min(len(cases), int(os.environ.get(variable, str(count))))
    return random.Random(0).sample(list(cases), count)


# --- loops of several steps, which a function that changes structure cannot take

Repeat = Callable[[Function, int], Callable[[Any, jax.Array], Any]]


def _repeat_while(f: Function, steps: int, **options: Any) -> Function:
    def body(state: Any) -> Any:
        count, model, x = state
        f(model, x)
        return count + 1, model, x

    return lambda model, x: liftnn.while_loop(lambda s: s[0] < steps, body, (0, model, x), **options)[1]


def _repeat_while_bounded(f: Function, steps: int) -> Function:
    return _repeat_while(f, steps, max_steps=steps + 3)


def _repeat_fori(f: Function, steps: int) -> Function:
    def body(i: Any, model: Any, x: jax.Array) -> Any:
        f(model, x)
        return model

    return lambda model, x: liftnn.fori_loop(0, steps, lambda i, m: body(i, m, x), model)


def _repeat_scan(f: Function, steps: int) -> Function:
    def body(model: Any, x: jax.Array) -> Any:
        f(model, x)
        return model

    many = liftnn.scan(body, length=steps, in_axes=(liftnn.Carry, None), out_axes=liftnn.Carry)
    return lambda model, x: many(model, x)


def _repeat_scan_shared(f: Function, steps: int) -> Function:
    def body(model: Any, x: jax.Array) -> None:
        f(model, x)

    many = liftnn.scan(body, in_axes=(None, 0), out_axes=0)
    return lambda model, x: (many(model, jnp.stack([x] * steps)), model)[1]


LOOPS: dict[str, Repeat] = {
    "while_loop": _repeat_while,
    "bounded while_loop": _repeat_while_bounded,
    "fori_loop": _repeat_fori,
    "scan": _repeat_scan,
    "scan over a shared model": _repeat_scan_shared,
}
"""Each takes a function and a number of steps; what it returns calls it so often, and returns the model."""
