"""Checkpoints of several processes: the same bits on other devices, and what fails in one process raises in all."""

from __future__ import annotations

import pytest
from tests import processes

MODULE = "tests.checkpoints.topologies"
TOPOLOGIES = {"1 x 4": [(1, 8), (1, 2)], "2 x 2": [(1, 8), (4, 1)], "1 x 8": [(2, 2)], "4 x 1": [(2, 2)]}
REMEDY = "Create the modules in the same way in each process, with the same seeds; only the data may differ."


@pytest.mark.thorough
@pytest.mark.parametrize("saved", TOPOLOGIES)
def test_a_run_is_restored_with_the_same_bits_on_other_devices(tmp_path, saved):
    n, devices = map(int, saved.split(" x "))
    found = processes.run(MODULE, [("save", str(tmp_path))], processes=n, devices=devices, timeout=120)
    assert found == {"save": ["[1]"] * n}
    for n, devices in TOPOLOGIES[saved]:
        calls = [("restore", str(tmp_path)), ("restore_abstract", str(tmp_path))]
        found = processes.run(MODULE, calls, processes=n, devices=devices, timeout=120)
        assert found == {"restore": ["[]"] * n, "restore_abstract": ["[]"] * n}


KEPT = {
    "keep_the_latest": "[5, 6]",
    "keep_the_best": "[1, 2, 5] 1",
    "values_of_process_0": "{'rank': 0, 'array': array([0, 1, 2])} [0. 0. 0. 0. 0. 0.] 7 True",
}
IN_SAVE = {
    0: ("DonatedError", "The buffer of modules[0] was donated earlier and is gone."),
    1: ("ArgumentError", "The step is -1, not a non-negative integer."),
    4: ("ArgumentTypeError", "values.x is an object, which a checkpoint cannot hold."),
}
IN_RESTORE = {
    0: ("CheckpointError", "modules[0].kernel: float32[2,3] in the checkpoint, float32[2,4] in the module"),
    3: ("CheckpointError", "has no checkpoint of step 3; it has: 1, 2."),
    4: ("ArgumentTypeError", "restore takes modules, Variables and States, but modules[0] is a str."),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("run"))
    names = ("mistakes_in_save", "mistakes_in_restore", "writes_that_fail", *KEPT)
    calls = [(name, folder) for name in names]
    return processes.run(MODULE, calls, devices=1, timeout=120)


@pytest.mark.thorough
@pytest.mark.parametrize("claim", KEPT)
def test_process_0_decides_what_is_kept_and_written(found, claim):
    assert found[claim] == [KEPT[claim]] * 2


@pytest.mark.parametrize(
    "function, i", [*(("save", i) for i in IN_SAVE), *(("restore", i) for i in IN_RESTORE)]
)
def test_an_error_of_one_process_is_raised_in_the_other_one_with_its_text(found, function, i):
    other, own = (text.split("\n\n")[i] for text in found[f"mistakes_in_{function}"])
    kind, text = (IN_SAVE if function == "save" else IN_RESTORE)[i]
    first, where, *_, remedy = other.splitlines()
    assert first == f"{kind}: {function} succeeded here, but failed in another process:"
    assert where.startswith(f"  process 1: {kind}: ")
    assert text in other
    assert text in own
    assert own.startswith(f"{kind}: ")
    assert remedy == REMEDY


@pytest.mark.parametrize(
    "function, i, lines",
    [
        ("save", 2, ["  step: process 0 has 1, process 1 has 2"]),
        ("save", 3, ["  modules[0]: process 0 has float32[2], process 1 has float32[3]"]),
        (
            "restore",
            1,
            [
                "  modules[0].kernel: process 0 has float32[2,3], process 1 has missing",
                "  modules[0].bias: process 0 has float32[3], process 1 has missing",
            ],
        ),
        ("restore", 2, ["  step: process 0 has 1, process 1 has 2"]),
    ],
)
def test_what_differs_is_told_by_path_in_both_processes(found, function, i, lines):
    title = f"StructureError: The processes do not {function} the same modules:"
    for text in found[f"mistakes_in_{function}"]:
        assert text.split("\n\n")[i].splitlines() == [title, *lines, REMEDY]


def test_after_the_mistakes_a_step_is_saved_once(found):
    for text in found["mistakes_in_save"]:
        saved, again = text.split("\n\n")[5:]
        assert saved == "returned None"
        assert again.startswith("ArgumentError: The folder ")
        assert " already has a checkpoint of step 1." in again


@pytest.mark.parametrize(
    "i, error", [(0, "OSError: the disk is full"), (1, "PermissionError: no permission")]
)
def test_a_background_write_that_fails_in_one_process_raises_soon_in_all(found, i, error):
    other, own = (text.split("\n\n")[i] for text in found["writes_that_fail"])
    assert own == error
    assert other.splitlines() == [
        "CheckpointError: The checkpoint was written here, but not in another process:",
        f"  process 1: {error}",
        "The last complete checkpoint is intact. Fix the cause, such as a full disk, and save again.",
    ]


def test_after_failed_writes_the_same_steps_are_saved(found):
    for text in found["writes_that_fail"]:
        assert text.split("\n\n")[2:] == ["returned None", "[1, 2]", "['1', '2']"]


@pytest.mark.thorough
def test_saved_in_the_background_are_the_values_at_the_time_of_the_save(tmp_path):
    found = processes.run(MODULE, [("save_while_training", str(tmp_path))], timeout=120)
    assert found == {"save_while_training": ["[]", "[]"]}
