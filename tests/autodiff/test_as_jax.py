"""On functions of arrays, custom rules and `checkpoint` do as JAX does in less usual uses; the oracle is JAX itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.alike import find_difference

import liftnn

X = jnp.arange(1.0, 4.0)
BUILTINS = (TypeError, ValueError, AttributeError, NotImplementedError)


def with_vjp(lib: Any, fwd: Any = None, bwd: Any = None, f: Any = jnp.sin, **options: Any) -> Any:
    rule = lib.custom_vjp(f, **options)
    rule.defvjp(fwd or (lambda x: (jnp.sin(x), x)), bwd or (lambda x, ct: (2 * ct * x,)))
    return rule


def with_jvp(lib: Any, jvp: Any, f: Any = jnp.sin, **options: Any) -> Any:
    rule = lib.custom_jvp(f, **options)
    rule.defjvp(jvp)
    return rule


def backward(lib: Any, f: Any) -> Any:
    return lib.grad(lambda x: f(x).sum())(X)


class Unhashable:
    """A static argument that is not hashable."""

    __hash__ = None  # pyright: ignore[reportAssignmentType]
    factor = 2.0


def below(lib: Any) -> Any:
    """A rule for `vmap`, defined through a function with a rule for derivatives."""
    f = with_vjp(lib, f=jax.custom_batching.custom_vmap(jnp.sin))
    f.def_vmap(lambda size, batched, x: (jnp.cos(x), True))
    return lib.vmap(f)(X)


def defvjps(lib: Any, *rules: Any) -> Any:
    f = lib.custom_jvp(lambda x, y: x * y)
    f.defjvps(*rules)
    return lib.jvp(f, (X, X), (X, X))


def attributes(lib: Any) -> Any:
    first, second = with_vjp(lib), with_jvp(lib, lambda p, t: (jnp.sin(p[0]), t[0]))
    before = lib.custom_vjp(jnp.sin), lib.custom_jvp(jnp.sin)
    plain = [f.fun is jnp.sin for f in (first, second)]
    options = [f.symbolic_zeros for f in (first, second)], first.optimize_remat
    rules = [callable(x) for x in (first.fwd, first.bwd, second.jvp)]
    return plain, options, rules, before[0].fwd, before[0].bwd, before[1].jvp


def nondiff(lib: Any, nums: Any) -> Any:
    f = with_vjp(
        lib, lambda n, x: (x**n, x), lambda n, x, ct: (n * ct * x,), lambda n, x: x**n, nondiff_argnums=nums
    )
    return tuple(map(int, f.nondiff_argnums)), lib.grad(lambda x: f(2, x).sum())(X)


def scaled(x: Any, by: Any) -> Any:
    return jnp.sin(x) * by.factor


def linear(lib: Any) -> Any:
    push = lib.linearize(jnp.sin, X)[1]
    assert isinstance(push, jax.tree_util.Partial)
    again = jax.tree.map(lambda x: x, push)
    return push(X), again(X), jax.jit(lambda push, x: push(x))(push, X), len(jax.tree.leaves(push))


USES: dict[str, Callable[[Any], Any]] = {
    "attributes of the functions": attributes,
    "methods of the function below": below,
    "numpy integers as nondiff_argnums": lambda lib: nondiff(lib, (np.int64(0),)),
    "an array of numpy as nondiff_argnums": lambda lib: nondiff(lib, np.array([0]).tolist()),
    "a rule that is None": lambda lib: defvjps(lib, lambda t, out, x, y: t * y, None),
    "a linear function": linear,
    "checkpoint: a static argument that is not hashable": lambda lib: lib.checkpoint(
        scaled, static_argnums=1
    )(X, Unhashable()),
    "checkpoint: its gradient": lambda lib: lib.grad(
        lambda x: lib.checkpoint(scaled, static_argnums=1)(x, Unhashable()).sum()
    )(X),
    "checkpoint: an array as static argument": lambda lib: lib.checkpoint(
        lambda x, flag: jnp.sin(x) if flag else x, static_argnums=1
    )(X, jnp.array(True)),
}


@pytest.mark.parametrize("name", USES)
def test_a_use_gives_what_it_gives_in_jax(name):
    assert find_difference(USES[name](liftnn), USES[name](jax)) is None


FAULTS: dict[str, Callable[[Any], Any]] = {
    "fewer rules than arguments": lambda lib: defvjps(lib, lambda t, out, x, y: t * y),
    "no VJP rule": lambda lib: lib.custom_vjp(jnp.sin)(X),
    "no JVP rule": lambda lib: lib.custom_jvp(jnp.sin)(X),
    "VJP rules that are None": lambda lib: (
        with_vjp(lib, f=jnp.sin).defvjp(None, None) or lib.custom_vjp(jnp.sin)(X)
    ),
    "gradient without a rule": lambda lib: backward(lib, lib.custom_vjp(jnp.sin)),
    "bwd returns text": lambda lib: backward(lib, with_vjp(lib, bwd=lambda x, ct: ("a",))),
    "bwd returns too much": lambda lib: backward(lib, with_vjp(lib, bwd=lambda x, ct: (ct, ct))),
    "bwd returns another shape": lambda lib: backward(lib, with_vjp(lib, bwd=lambda x, ct: (ct[:1],))),
    "bwd returns text below jit": lambda lib: backward(lib, lib.jit(with_vjp(lib, bwd=lambda x, ct: ("a",)))),
    "fwd returns no pair": lambda lib: backward(lib, with_vjp(lib, lambda x: x)),
    "fwd raises": lambda lib: backward(lib, with_vjp(lib, lambda x: jnp.ones(2) + jnp.ones(3))),
    "text as a residual": lambda lib: backward(lib, with_vjp(lib, lambda x: (jnp.sin(x), "abc"))),
    "the rule returns text below jit": lambda lib: backward(
        lib, lib.jit(with_jvp(lib, lambda p, t: ("a", t[0])))
    ),
    "a tangent of another shape": lambda lib: backward(lib, with_jvp(lib, lambda p, t: (p[0], t[0][:1]))),
    "the rule returns no pair": lambda lib: backward(lib, with_jvp(lib, lambda p, t: {})),
    "symbolic zeros with optimize_remat": lambda lib: with_vjp(lib).defvjp(
        lambda x: (x, None), lambda _, ct: (ct,), True, True
    ),
    "an option that JAX does not have": lambda lib: with_vjp(lib).defvjp(
        lambda x: (x, None), lambda _, ct: (ct,), no_option=True
    ),
    "defjvps with nondiff_argnums": lambda lib: lib.custom_jvp(jnp.sin, nondiff_argnums=(0,)).defjvps(None),
    "an unknown attribute": lambda lib: with_vjp(lib).no_attribute,
    "an unknown method of the function below": lambda lib: with_vjp(lib).def_nothing,
    "jvp: fewer tangents": lambda lib: lib.jvp(lambda x, y: x * y, (X, X), (X,)),
    "jvp: a tangent of another dtype": lambda lib: lib.jvp(jnp.sin, (X,), (X.astype(jnp.float16),)),
    "jvp: a tangent of another structure": lambda lib: lib.jvp(jnp.sin, (X,), ([X],)),
    "grad: argnums out of range": lambda lib: lib.grad(lambda x: x, argnums=3)(1.0),
    "grad: arguments by name only": lambda lib: lib.grad(lambda x: x)(x=1.0),
}


def builtins_of(error: Exception) -> set[type]:
    return {cls for cls in BUILTINS if isinstance(error, cls)}


@pytest.mark.parametrize("name", FAULTS)
def test_an_except_clause_for_jax_catches_the_same(name):
    with pytest.raises(BUILTINS) as theirs:
        FAULTS[name](jax)
    with pytest.raises(BUILTINS) as ours:
        FAULTS[name](liftnn)
    assert builtins_of(theirs.value) <= builtins_of(ours.value)


def test_options_of_defvjp_are_checked_when_the_rule_is_defined_also_for_modules():
    f = liftnn.custom_vjp(functools.partial(lambda k, x: k * x, 2.0))
    with pytest.raises(NotImplementedError):
        f.defvjp(lambda x: (x, None), lambda _, ct: (ct,), symbolic_zeros=True, optimize_remat=True)
