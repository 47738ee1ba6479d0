"""Text of objects: nested blocks, one entry a line."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors
from liftnn._src.printing import array_summary, block, call, indent, mapping
from tests.strategies import Node, Point, Sub


def test_a_block_has_an_entry_a_line():
    assert block("[", ["1", "2"], "]") == "[\n  1,\n  2\n]"
    assert block("[", [], "]") == "[]"


def test_nested_blocks_are_indented():
    assert call("f", [("x", mapping([("'a'", "1")])), ("y", "2")]) == "f(\n  x={\n    'a': 1\n  },\n  y=2\n)"
    assert indent("a\nb") == "  a\n  b"


@pytest.mark.parametrize(
    "x, text",
    [
        (lambda: jnp.ones((2, 3)), "Array(float32[2, 3])"),
        (lambda: jnp.ones((), jnp.bfloat16), "Array(bfloat16[])"),
        (lambda: np.zeros((0, 2), np.int8), "ndarray(int8[0, 2])"),
        (lambda: jax.random.key(0), "Array(key<fry>[])"),
        (lambda: jax.ShapeDtypeStruct((4,), jnp.float32), "ShapeDtypeStruct(float32[4])"),
    ],
)
def test_an_array_is_summed_up_by_dtype_and_shape(x, text):
    assert array_summary(x()) == text


def test_a_module_prints_statics_arrays_and_modules_but_no_variables():
    model = Node(n=1, w=liftnn.Param(1.0), x=jnp.ones(2), s=Sub(name="a"), _hidden=3, empty=Sub())
    assert (
        str(model) == "Node(\n  n=1,\n  x=Array(float32[2]),\n  s=Sub(\n    name='a'\n  ),\n  empty=Sub()\n)"
    )


def test_containers_of_modules_print_an_entry_a_line():
    model = Node(a=[Sub(), 1], d={"k": Sub(n=1)}, t=(Sub(), liftnn.Param(1.0)), plain=[1, "x"], p=Point(1, 2))
    assert str(model) == (
        "Node(\n"
        "  a=[\n    Sub(),\n    1\n  ],\n"
        "  d={\n    'k': Sub(\n      n=1\n    )\n  },\n"
        "  t=(\n    Sub(),\n    Param(...)\n  ),\n"
        "  plain=[1, 'x'],\n"
        "  p=Point(x=1, y=2)\n"
        ")"
    )


def test_cycles_are_cut_short():
    model = Node()
    model.me, model.items = model, []
    model.items.append([model.items, model])
    assert (
        str(model) == "Node(\n  me=Node(...),\n  items=[\n    [\n      [...],\n      Node(...)\n    ]\n  ]\n)"
    )


def test_the_same_module_prints_in_full_wherever_it_stands_side_by_side():
    shared = Sub(n=1)
    assert str(Node(a=shared, b=shared)) == "Node(\n  a=Sub(\n    n=1\n  ),\n  b=Sub(\n    n=1\n  )\n)"


class Mute:
    """A hashable object whose repr raises."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return type(other) is Mute and self.number == other.number

    def __hash__(self):
        return self.number

    def __repr__(self):
        raise KeyError("repr")


def _mute(number):
    return lambda m: setattr(m, "value", Mute(number))


def _change_each_step(m):
    def step(state):
        state[1].value = Mute(1)
        return state[0] + 1, state[1]

    liftnn.while_loop(lambda state: state[0] < 1, step, (0, m))


def _trace_twice(m):
    f = liftnn.jit(lambda m: None, max_traces=1)
    f(m)
    m.value = Mute(1)
    f(m)


@pytest.mark.parametrize(
    "fail",
    [
        _change_each_step,
        _trace_twice,
        lambda m: liftnn.cond(True, _mute(1), _mute(2), m),
        lambda m: liftnn.jit(lambda m, x: None)(m, Mute(0)),
    ],
)
def test_an_error_shows_the_class_of_a_value_whose_repr_raises(fail):
    m = Node()
    m.value = Mute(0)
    with pytest.raises(errors.LiftError, match="<Mute>"):
        fail(m)


@pytest.mark.parametrize("value, text", [(Mute(0), "<Mute>"), (10**5000, "<int>")], ids=["object", "number"])
@pytest.mark.parametrize("show", [str, repr, lambda m: repr(liftnn.split(m)[-1]), liftnn.state])
def test_a_module_shows_the_class_of_a_value_that_has_no_text(show, value, text):
    m = Node(v=liftnn.Variable(1.0, note=value))
    m.value, m.values = value, [value, Node()]
    assert text in str(show(m))
