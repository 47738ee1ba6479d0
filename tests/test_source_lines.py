"""Operations, messages and warnings point to the user's line, as with JAX's own transforms."""

from __future__ import annotations

import os
import re
import warnings

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.array_programs import JAX, LIFTNN, programs
from tests.transform_table import TRANSFORMS

X = jnp.arange(1.0, 5.0)
OWN_FOLDER = os.path.dirname(liftnn.__file__)
NAMES = list(programs(JAX))


def lines_of_equations(program):
    """The source line of each equation, as JAX prints it beside the equation."""
    jax.clear_caches()  # an equation has the line of the first trace
    jaxpr = jax.make_jaxpr(program)(X).jaxpr
    return re.findall(r"# (\S+:\d+:?\d* \(.*\))", jaxpr.pretty_print(source_info=True, use_color=False))


def lines_of_program(program):
    """Every line to which a lowered program refers, with its columns."""
    jax.clear_caches()
    text = jax.jit(program).lower(X).as_text(debug_info=True)
    return re.findall(r'"([^"]*\.py)":(\S+)', text)


def test_there_is_a_program_for_each_transform():
    assert TRANSFORMS.keys() - {"lift"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.sample(8)
def test_equations_have_the_lines_that_jax_gives_them(name):
    expected, actual = [lines_of_equations(programs(of)[name]) for of in (JAX, LIFTNN)]
    assert expected
    assert actual == expected


@pytest.mark.parametrize("name", [name for name in NAMES if name != "export"])
@pytest.mark.sample(6)
def test_operations_of_programs_have_the_lines_that_jax_gives_them(name):
    expected, actual = [lines_of_program(programs(of)[name]) for of in (JAX, LIFTNN)]
    assert expected
    assert actual == expected


def test_operations_of_layers_have_the_line_that_calls_the_layer():
    layer = liftnn.Linear(4, 2, rngs=liftnn.Rngs(0))
    lines = lines_of_equations(lambda x: jax.nn.relu(layer(x)))
    assert lines
    assert not any(OWN_FOLDER in line for line in lines)


def test_only_the_installed_folder_is_left_out():
    code = "def run(f, x):\n    return f(x)\n"
    for folder in (OWN_FOLDER + "_extras", os.path.join("elsewhere", "liftnn")):
        found = {}
        exec(compile(code, os.path.join(folder, "user.py"), "exec"), found)
        (line,) = lines_of_equations(lambda x, run=found["run"]: run(jnp.sin, x))
        assert line.startswith(os.path.join(folder, "user.py:2"))


def warned(act):
    """The file, line and category of each warning."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        act()
    return [(w.filename, w.lineno, w.category) for w in found]


@pytest.mark.parametrize("first", [(), (liftnn.Param(X),)])
def test_a_retrace_warning_points_to_the_line_of_the_call(first):
    compiled = liftnn.jit(lambda *args: args[-1] * 2)

    def call():
        for n in range(1, 8):
            compiled(*first, jnp.ones(n))

    assert warned(call) == [(__file__, call.__code__.co_firstlineno + 2, liftnn.RetraceWarning)]


def test_the_warning_about_deprecated_options_of_jit_points_to_the_line_of_jit():
    def wrap(of):
        return of.jit(lambda x: x + 1, backend="cpu")

    (expected,) = warned(lambda: wrap(JAX))
    compiled = []
    assert warned(lambda: compiled.append(wrap(LIFTNN))) == [expected]
    assert warned(lambda: compiled[0](X)) == []
    assert warned(lambda: compiled[0](liftnn.Param(X))) == []


@pytest.mark.filterwarnings("ignore:backend and device argument")
@pytest.mark.parametrize(
    "options",
    [
        {"device": 0, "backend": "cpu"},
        {"backend": "cpu", "in_shardings": jax.P()},
        {"backend": "cpu", "out_shardings": jax.P()},
    ],
)
def test_deprecated_options_are_checked_when_the_function_is_wrapped(options):
    with pytest.raises(ValueError, match="device") as expected:
        jax.jit(lambda x: x, **options)
    text = str(expected.value).partition("\n")[0]
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        liftnn.jit(lambda x: x, **options)
