"""A mistake in one process of two: both raise, with the paths and what each process has, and none hangs."""

from __future__ import annotations

import pytest
from tests import processes

SAME = {
    "same": "P(None, 'model')",
    "same_under_set_mesh": "P(None, 'model')",
    "sets_in_any_order": "the same",
}
SHARDED = "layers[0].kernel: process 0 has Param float32[8,8] sharded by P(None, 'model') with "
DIFFERENT = {
    "other_spec": "layers[1].kernel.sharding: process 0 has (None, 'hidden'), process 1 has ('hidden', None)",
    "other_rules": SHARDED,
    "other_mesh": "mesh: process 0 has Mesh('data': 2, 'model': 2, axis_types=(Auto, Auto)) of the devices ",
    "other_seed": SHARDED,
    "other_seed_and_no_stream": SHARDED,
    "other_captured_key": "<root>: process 0 has Param float32[4] sharded by P() computed by program ",
    "other_depth": "layers[2]: process 0 has missing, process 1 has Linear",
    "other_static_value": "dropout.rate: process 0 has 0.1, process 1 has 0.2",
}
RAISED = {
    "missing_axis": (
        "ShardingError",
        "layers[1].kernel (a Param of shape (8, 8)), (None, 'nowhere'): 'nowhere' is not",
    ),
    "not_divisible": (
        "ShardingError",
        "layers[0].kernel (a Param of shape (8, 7)), (None, 'hidden') -> P(None, 'model')",
    ),
    "missing_rule": (
        "ShardingError",
        "layers[0].kernel (a Param of shape (8, 8)), (None, 'hidden'): 'hidden' is not",
    ),
    "no_mesh": ("ArgumentError", "make_sharded needs a mesh, but there is no current one."),
    "make_raises": ("StructureError", "RuntimeError: no such file: config.json"),
}
REMEDY = "Create the modules in the same way in each process, with the same seeds; only the data may differ."


@pytest.fixture(scope="module")
def found():
    calls = [*SAME, "same_for_one_process", *DIFFERENT, *RAISED, "other_function", "same"]
    return processes.run("tests.sharding.mistakes", calls)


@pytest.mark.thorough
@pytest.mark.parametrize("claim", SAME)
def test_processes_that_create_the_same_go_on(found, claim):
    assert found[claim] == [SAME[claim]] * 2


def test_processes_without_devices_in_the_mesh_take_no_part(found):
    assert found["same_for_one_process"] == ["nothing", "P(None, 'model')"]


@pytest.mark.parametrize("claim", DIFFERENT)
def test_what_differs_is_told_by_path_in_both_processes(found, claim):
    assert found[claim][0] == found[claim][1]
    first, *lines, remedy = found[claim][0].splitlines()
    assert first == "StructureError: The processes do not create the same modules:"
    assert any(line.strip().startswith(DIFFERENT[claim]) for line in lines), lines
    assert remedy == REMEDY


@pytest.mark.parametrize("claim", RAISED)
def test_an_error_of_one_process_is_raised_in_the_other_one_with_its_text(found, claim):
    other, own = found[claim]
    kind, text = RAISED[claim]
    first, where, *_, remedy = other.splitlines()
    assert first == f"{kind}: make_sharded succeeded here, but failed in another process:"
    assert where.startswith(f"  process 1: {own.partition(':')[0]}: ")
    assert text in other
    assert remedy == REMEDY
    assert text in own
    assert "process" not in own


def test_processes_that_call_different_functions_raise(found):
    text = (
        "StructureError: The processes have called different functions: process 0 has make_sharded, process 1 has "
        "check_replicas.\nCall the functions of liftnn that create, save, restore or compare modules in the same "
        "order in each process."
    )
    assert found["other_function"] == [text, text]
