"""Programs in the style of public NNX code: under both imports every result is equal, bit for bit."""

import pathlib

import pytest
from tests.compat.oracle import find_difference, run_file, to_plain
from tests.quick import quick

PROGRAMS = {p.stem: p for p in sorted((pathlib.Path(__file__).parent / "programs").glob("*.py"))}
FIRST = ("lora",)


@pytest.mark.parametrize("name", quick([*FIRST, *(n for n in PROGRAMS if n not in FIRST)], most=len(FIRST)))
def test_a_program_for_flax_computes_the_same_with_liftnn(name):
    expected, actual = (to_plain(run_file(PROGRAMS[name], library)) for library in ("flax", "liftnn"))
    assert find_difference(expected, actual) is None
