"""What else is in the folder of a run: it stays there, and is not taken for a step."""

from __future__ import annotations

import pytest
from tests.raising import raises
from tests.user_modules import Affine

import liftnn


@pytest.mark.parametrize("name", ["007", "00", "\u0663", "\u00b2", "1e3", "-1", "1.orbax", "x"])
def test_a_folder_that_is_not_named_by_a_step_is_none(tmp_path, name):
    (tmp_path / name).mkdir()
    assert liftnn.saved_steps(tmp_path) == []
    liftnn.save(tmp_path, 3, Affine(2.0), max_to_keep=1)
    liftnn.save(tmp_path, 8, Affine(2.0), max_to_keep=1)
    assert liftnn.saved_steps(tmp_path) == [8]
    assert liftnn.restore(tmp_path, Affine()).step == 8
    assert (tmp_path / name).is_dir()


@pytest.mark.parametrize("options", [{}, {"best": "loss"}], ids=["latest", "best"])
def test_a_folder_of_the_user_with_the_name_of_a_step_is_not_removed(tmp_path, options):
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "notes").write_text("mine")
    with liftnn.Checkpoints(tmp_path, max_to_keep=1, **options) as checkpoints:
        for step in (5, 6, 7):
            checkpoints.save(step, Affine(), metrics={"loss": step})
    assert (tmp_path / "3" / "notes").read_text() == "mine"
    assert liftnn.saved_steps(tmp_path) == [3, 7]


def test_a_file_of_the_user_with_the_name_of_a_step_is_not_replaced(tmp_path):
    file = tmp_path / "1"
    file.write_text("mine")
    text = (
        f"The folder {tmp_path} already has a file with the name 1.\nSave another step, or in another folder."
    )
    with raises(liftnn.ArgumentError, text):
        liftnn.save(tmp_path, 1, Affine())
    assert file.read_text() == "mine"
