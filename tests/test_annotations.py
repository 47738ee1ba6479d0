"""Annotations as users write them, without `from __future__ import annotations`: Python 3.14 evaluates them late."""

import dataclasses
import sys
import textwrap
import typing

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn.compat import nnx
from tests.raising import raises

LATE = sys.version_info >= (3, 14)


def define(source, is_text=False):
    """The names that a program defines, with annotations as text, or as this version of Python reads them."""
    header = "from __future__ import annotations\n" if is_text else ""
    names = {
        "__name__": __name__,
        "dataclasses": dataclasses,
        "jax": jax,
        "jnp": jnp,
        "liftnn": liftnn,
        "nnx": nnx,
    }
    exec(compile(header + textwrap.dedent(source), "<program>", "exec", dont_inherit=True), names)
    return names


FORMS = pytest.mark.parametrize("is_text", [False, True], ids=["as written", "as text"])
OF_X = {"grad": {"argnums": 1}, "vmap": {"in_axes": (None, 0)}}
UNDEFINED = pytest.mark.parametrize("is_text", [True, *([False] if LATE else [])])
"""Forms in which an annotation may name what does not exist."""


@FORMS
def test_a_field_of_a_dataclass_may_have_the_name_of_a_method_of_module(is_text):
    source = """
        @dataclasses.dataclass
        class Net(liftnn.Module):
            state: int
            split: jax.Array
            train: bool = True
        """
    cls = define(source, is_text)["Net"]
    net = cls(3, jnp.ones(2))
    assert (net.state, net.split.tolist(), net.train) == (3, [1.0, 1.0], True)
    with pytest.raises(TypeError, match="'state'"):
        cls(split=jnp.ones(2))


@FORMS
def test_a_class_with_annotations_but_no_init_is_told_of_dataclass(is_text):
    cls = define("class Net(liftnn.Module):\n    size: int", is_text)["Net"]
    with raises(
        liftnn.ArgumentTypeError,
        "Net takes no arguments: it has no `__init__`.\n"
        "Define `__init__`, or decorate the class with `@dataclasses.dataclass`.",
    ):
        cls(3)


@FORMS
def test_a_field_of_data_of_flax_is_data(is_text):
    source = """
        @nnx.dataclass
        class Counter(nnx.Pytree):
            step: nnx.Data[int]
            size: int = 2

        traces = []

        @nnx.jit
        def count(x):
            traces.append(1)
            x.step += x.size
        """
    names = define(source, is_text)
    counter = names["Counter"](1)
    for _ in range(3):
        names["count"](counter)
    assert (int(counter.step), len(names["traces"])) == (7, 1)


@UNDEFINED
@pytest.mark.parametrize("transform", ["jit", "grad", "vmap", "remat"])
def test_a_function_may_name_what_does_not_exist(transform, is_text):
    source = """
        class Net(liftnn.Module):
            part: Missing

            def __init__(self):
                self.w = liftnn.Param(jnp.float32(2.0))

            def __call__(self, x: Missing) -> Missing:
                return x * self.w

        net = Net()

        def f(x: Missing) -> "Missing":
            return net(x)
        """
    names = define(source, is_text)
    x = jnp.ones(3) if transform == "vmap" else 1.0
    assert jnp.all(getattr(liftnn, transform)(names["f"])(x) == 2.0)
    assert jnp.all(
        getattr(liftnn, transform)(lambda net, x: net(x), **OF_X.get(transform, {}))(names["net"], x) == 2.0
    )


@FORMS
def test_the_annotations_of_a_transformed_function_are_those_of_the_function(is_text):
    f = define("def f(x: jax.Array, size: int = 2) -> jax.Array: return x", is_text)["f"]
    for transformed in (liftnn.jit(f), liftnn.grad(f), liftnn.vmap(f)):
        assert transformed.__annotations__ == f.__annotations__
        assert typing.get_type_hints(transformed) == {"x": jax.Array, "size": int, "return": jax.Array}


READERS = {
    "static_argnames": lambda f, net: liftnn.jit(f, static_argnames="n")(net, 1.0, n=3),
    "donate_argnames": lambda f, net: liftnn.jit(f, donate_argnames="x")(net, jnp.float32(1.0), 3),
    "wrong number": lambda f, net: _message(lambda: liftnn.jit(f)(net)),
    "scan": lambda f, net: liftnn.scan(lambda c, _: (c, f(net, c)), length=2)(1.0, None),
    "cond": lambda f, net: liftnn.cond(True, f, f, net, 1.0),
    "fori_loop": lambda f, net: liftnn.fori_loop(0, 2, lambda i, x: f(net, x), 1.0),
    "tabulate": lambda f, net: liftnn.tabulate(net, 1.0),
    "sequential": lambda f, net: liftnn.Sequential(net, lambda x: f(net, x))(1.0),
    "custom_vjp": lambda f, net: _with_rule(f)(net, 1.0, n=3),
}


def _message(call):
    with pytest.raises(TypeError) as caught:
        call()
    return str(caught.value)


def _with_rule(f):
    rule = liftnn.custom_vjp(f, nondiff_argnums=2)
    rule.defvjp(lambda net, x, n: (f(net, x, n), None), lambda n, residuals, g: (None, g))
    return rule


@UNDEFINED
@pytest.mark.parametrize("reader", READERS)
def test_what_reads_the_parameters_of_a_function_takes_one_that_names_what_does_not_exist(reader, is_text):
    source = """
        class Net(liftnn.Module):
            def __init__(self):
                self.w = liftnn.Param(jnp.float32(2.0))

            def __call__(self, x: {name}) -> {name}:
                return x * self.w

        def f(net: {name}, x: {name}, n: {name} = 2) -> {name}:
            return net(x) * n
        """

    def result(name):
        names = define(source.format(name=name), is_text)
        return READERS[reader](names["f"], names["Net"]())

    assert str(result("Missing")).replace("Missing", "object") == str(result("object"))
