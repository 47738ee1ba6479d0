"""Random programs do with liftnn's transforms what they do in plain Python, or raise as the limits say.

`LIFTNN_PROGRAMS` is the number of programs, as for `make slow`, or first and last seed (`1000:1500`);
`LIFTNN_PROGRAM_SEED` tries one seed only and
`LIFTNN_PROGRAM_LEVEL` says what programs may contain (see tests/fuzz/programs.py).
"""

from __future__ import annotations

import collections
import os

import jax
import pytest

from tests.fuzz.generate import generate
from tests.fuzz.interpret import run
from tests.fuzz.programs import TOP_LEVEL, Program, may_raise, write
from tests.fuzz.shrink import shrink
from tests.quick import quick

FIRST, _, LAST = os.environ.get("LIFTNN_PROGRAMS", "0:80").rpartition(":")
LEVEL = int(os.environ.get("LIFTNN_PROGRAM_LEVEL", TOP_LEVEL))
SEED = os.environ.get("LIFTNN_PROGRAM_SEED")
PART = 10
PARTS = (
    [range(i, i + PART) for i in range(int(FIRST or 0), int(LAST), PART)] if SEED is None else [[int(SEED)]]
)


def explain(program: Program, seed: int) -> str:
    """The smallest program that fails like this one, and how."""
    kind = run(program).kind
    smallest = shrink(program, lambda p: run_or_none(p) == kind)
    verdict = run(smallest)
    return f"seed {seed}, level {LEVEL}: {verdict.kind}\n{verdict.text}\n\n{write(smallest)}"


def run_or_none(program: Program) -> str | None:
    """The kind of a verdict; None for a program that Python refuses, such as one whose names have no values."""
    try:
        return run(program).kind
    except Exception:
        return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seeds", quick(PARTS), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_programs_act_like_plain_python(seeds: range) -> None:
    jax.clear_caches()
    kinds = collections.Counter()
    for seed in seeds:
        program = generate(seed, LEVEL)
        kind = run(program).kind
        kinds[kind] += 1
        if kind not in ("held", "invalid"):
            pytest.fail(explain(program, seed), pytrace=False)
    assert kinds["invalid"] <= len(seeds) // 4 + 1


def test_a_seed_gives_one_program() -> None:
    assert write(generate(5)) == write(generate(5))
    assert len({write(generate(seed)) for seed in range(20)}) == 20


def test_an_error_is_accepted_for_what_the_limits_name_only() -> None:
    assert not may_raise(frozenset({"write", "captured", "loop", "branch", "fails", "returns"}))
    assert not may_raise(frozenset({"structure", "write"}))
    assert len(may_raise(frozenset({"structure", "captured", "loop"}))) == 2
