"""The names of a transformed function are those that JAX gives to the same transform of the function."""

from __future__ import annotations

import functools
import inspect
import operator
import re

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.array_programs import JAX, LIFTNN, MESH


def scale(x, y=2.0):
    """Scales."""
    return x * y


scale.mark = "a mark"


@functools.wraps(scale)
def wrapped(*args):
    return scale(*args)


class Doubler:
    """Doubles."""

    def __init__(self):
        self.mark = "of an object"

    def __call__(self, x):
        return x * 2

    def method(self, x):
        """Doubles too."""
        return x * 2


FUNCTIONS = {
    "def": scale,
    "lambda": lambda x: x * 2,
    "callable object": Doubler(),
    "bound method": Doubler().method,
    "decorated": wrapped,
    "jitted by JAX": jax.jit(scale),
    "transformed by JAX": jax.checkpoint(scale),
    "builtin": operator.neg,
    "function of jax.numpy": jnp.sin,
    "partial": functools.partial(scale, y=3.0),
    "partial of a partial": functools.partial(functools.partial(scale), y=3.0),
    "partial of a callable object": functools.partial(Doubler()),
}

WITHOUT_OPTIONS = (
    *("jit", "vmap", "value_and_grad", "jacfwd", "jacrev", "hessian"),
    *("remat", "make_jaxpr", "pmap", "custom_jvp", "custom_vjp"),
)

TRANSFORMS = {
    **{name: lambda of, f, name=name: getattr(of, name)(f) for name in WITHOUT_OPTIONS},
    "grad": lambda of, f: of.grad(f, argnums=(0,)),
    "shard_map": lambda of, f: of.shard_map(f, mesh=MESH, in_specs=jax.P(), out_specs=jax.P()),
    "vmap with axes": lambda of, f: of.vmap(f, in_axes=0, out_axes=0),
    "donating jit": lambda of, f: of.jit(f, donate_argnums=0),
    "jit of grad": lambda of, f: of.jit(of.grad(f)),
    "make_jaxpr of vmap": lambda of, f: of.make_jaxpr(of.vmap(f)),
}

ATTRIBUTES = ("__name__", "__qualname__", "__doc__", "__module__", "mark")


def names(transformed):
    """The names of a transformed function; without those that it does not have."""
    found = {name: getattr(transformed, name) for name in ATTRIBUTES if hasattr(transformed, name)}
    return {**found, "signature": str(inspect.signature(transformed))}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_transformed_function_has_the_names_that_jax_gives_it(transform, function):
    f, apply = FUNCTIONS[function], TRANSFORMS[transform]
    expected, actual = apply(JAX, f), apply(LIFTNN, f)
    assert names(actual) == names(expected)
    assert inspect.unwrap(actual) is inspect.unwrap(expected)


def names_in_jaxpr(f, x):
    """The names in a jaxpr, and the functions and arguments from which its parts were traced."""
    closed = jax.make_jaxpr(f)(x)
    found = re.findall(r"\bname=(\S+)", str(closed))

    def visit(jaxpr):
        info = jaxpr.debug_info
        found.append((info.func_src_info, info.arg_names, info.result_paths))
        for equation in jaxpr.eqns:
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
            ):
                if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                    visit(getattr(inner, "jaxpr", inner))

    visit(closed.jaxpr)
    return found


PROGRAMS = {
    "jit": lambda of, f, x: of.jit(f)(x[0]),
    "nested jit": lambda of, f, x: of.jit(lambda y: of.jit(f)(y))(x[0]),
    "vmap of jit": lambda of, f, x: of.vmap(of.jit(f))(x),
    "jit of vmap": lambda of, f, x: of.jit(of.vmap(f))(x),
    "jit of grad": lambda of, f, x: of.jit(of.grad(f))(x[0]),
    "grad of jit": lambda of, f, x: of.grad(of.jit(f))(x[0]),
    "jacfwd": lambda of, f, x: of.jit(of.jacfwd(f))(x[0]),
    "remat": lambda of, f, x: of.remat(f)(x[0]),
    "pmap": lambda of, f, x: of.pmap(f)(x),
    "shard_map": lambda of, f, x: TRANSFORMS["shard_map"](of, f)(x),
    "custom_jvp": lambda of, f, x: with_jvp(of, f)(x[0]),
    "custom_vjp": lambda of, f, x: with_vjp(of, f)(x[0]),
    "cond": lambda of, f, x: of.cond(x[0] > 0, f, jnp.cos, x[0]),
    "switch": lambda of, f, x: of.switch(1, [f, jnp.cos], x[0]),
    "while_loop": lambda of, f, x: of.while_loop(lambda c: c < 9, f, x[0]),
    "map": lambda of, f, x: of.map(f, x),
}


def with_jvp(of, f):
    made = of.custom_jvp(f)
    made.defjvp(lambda primals, tangents: (f(primals[0]), tangents[0]))
    return made


def with_vjp(of, f):
    made = of.custom_vjp(f)
    made.defvjp(lambda x: (f(x), None), lambda saved, g: (g,))
    return made


RULES = ("custom_jvp", "custom_vjp")
"""Those that treat the arguments stored in a partial as arguments, so the rule belongs to the function in it."""

NAMED = [(f, p) for f in FUNCTIONS for p in PROGRAMS if not ("partial" in f and p in RULES)]


@pytest.mark.parametrize("function, program", NAMED)
@pytest.mark.sample(2)
def test_jaxprs_name_functions_and_arguments_as_with_jax(program, function):
    f, run = FUNCTIONS[function], PROGRAMS[program]
    x = jnp.ones(1)
    expected, actual = [names_in_jaxpr(lambda x, of=of: run(of, f, x), x) for of in (JAX, LIFTNN)]
    assert actual == expected


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("transform", ["jit", "donating jit", "jit of grad"])
def test_a_program_has_the_name_that_jax_gives_it(transform, function):
    f, apply = FUNCTIONS[function], TRANSFORMS[transform]
    expected, actual = [apply(of, f).lower(jnp.ones(())).as_text().split()[1] for of in (JAX, LIFTNN)]
    assert actual == expected


def test_a_transform_of_a_module_has_the_name_of_its_method_or_class():
    layer = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    assert liftnn.grad(layer.__call__).__name__ == "__call__"
    assert not hasattr(liftnn.grad(layer), "__name__")
    assert liftnn.grad(layer).__doc__ == liftnn.Linear.__doc__


def test_options_that_only_liftnn_accepts_keep_the_names_of_the_function():
    made = liftnn.vmap(scale, in_axes=(liftnn.StateAxes({...: 0}),))
    assert (made.__name__, made.__doc__) == ("scale", "Scales.")


def test_classes_of_transformed_functions_keep_their_docstrings():
    assert type(liftnn.grad(scale)).__doc__.startswith("A transformed function")
