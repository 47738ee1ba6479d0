"""Checkpoints saved on some processes and devices and restored on others: the same bits, with the shardings there."""

from __future__ import annotations

import pytest
from tests import processes

MODULE = "tests.checkpoints.topologies"
TOPOLOGIES = {"1 x 4": [(1, 8), (1, 2)], "2 x 2": [(1, 8), (4, 1)], "1 x 8": [(2, 2)], "4 x 1": [(2, 2)]}


@pytest.mark.thorough
@pytest.mark.parametrize("saved", TOPOLOGIES)
def test_a_run_is_restored_with_the_same_bits_on_other_devices(tmp_path, saved):
    n, devices = map(int, saved.split(" x "))
    assert processes.run(MODULE, [("save", str(tmp_path))], processes=n, devices=devices) == {
        "save": ["[1]"] * n
    }
    for n, devices in TOPOLOGIES[saved]:
        calls = [("restore", str(tmp_path)), ("restore_abstract", str(tmp_path))]
        found = processes.run(MODULE, calls, processes=n, devices=devices)
        assert found == {"restore": ["[]"] * n, "restore_abstract": ["[]"] * n}
