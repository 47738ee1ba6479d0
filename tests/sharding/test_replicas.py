"""`check_replicas` in two processes: what differs is told by path in both, within a time limit."""

from __future__ import annotations

import pytest
from tests import processes

import liftnn

FINDINGS = {
    "replicas_of_other_seed": "layers[0].kernel: process 0 has Param float32[8,8] of content ",
    "replicas_of_other_spec": "layers[0].kernel.sharding: process 0 has (None, 'hidden'), process 1 has ('hidden'",
    "replicas_of_other_depth": "layers[2]: process 0 has missing, process 1 has Linear",
    "replicas_of_other_static_value": "dropout.rate: process 0 has 0.1, process 1 has 0.2",
    "replicas_of_other_sharding": "<root>: process 0 has Param float32[8] on several processes of content ",
    "replicas_of_no_module": "<root>: process 0 has Model, process 1 has set",
}
SAME = ("check_replicas", "replicas_with_sharded_arrays")


@pytest.fixture(scope="module")
def found():
    return processes.run("tests.sharding.mistakes", [*SAME, *FINDINGS, "check_replicas"])


@pytest.mark.thorough
@pytest.mark.parametrize("claim", SAME)
def test_equal_modules_pass_and_so_do_arrays_that_are_sharded_over_processes(found, claim):
    assert found[claim] == ["the same"] * 2


@pytest.mark.thorough
@pytest.mark.parametrize("claim", FINDINGS)
def test_what_differs_is_told_by_path_in_both_processes(found, claim):
    assert found[claim][0] == found[claim][1]
    first, *lines, remedy = found[claim][0].splitlines()
    assert first == "StructureError: The processes do not hold the same modules:"
    assert any(line.strip().startswith(FINDINGS[claim]) for line in lines), lines
    assert remedy == (
        "Create the modules in the same way in each process, with the same seeds; only the data may differ."
    )


def test_one_process_has_nothing_to_compare():
    assert liftnn.check_replicas(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))) is None
