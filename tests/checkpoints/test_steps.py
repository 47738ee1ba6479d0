"""What else is in the folder of a run: it stays there, and is not taken for a step."""

from __future__ import annotations

import os
import threading

import jax.numpy as jnp
import pytest
from tests.raising import raises
from tests.user_modules import Affine, Holder

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
    text = f"The folder {tmp_path} already has a file named 1.\nSave another step, or in another folder."
    with raises(liftnn.ArgumentError, text):
        liftnn.save(tmp_path, 1, Affine())
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    ["a b", "a%20b", "a#b", "a?b", "a*", "ä", "a\nb", "a'b", 'a"b', "{a}", "a[b", "a]b", "~", "-x", ".a", "a:b"],
    ids=ascii,
)  # fmt: skip
def test_a_folder_may_have_an_odd_name(tmp_path, name):
    folder, model = tmp_path / name / "run", Affine()
    liftnn.save(folder, 1, Affine(2.0))
    liftnn.restore(folder, model)
    assert model.w.value.tolist() == [2] * 3


@pytest.mark.parametrize("name", ["[x]", "[!x]", "x[12]y", "a\\b", "\udcff"], ids=ascii)
def test_a_folder_that_orbax_takes_for_another_one_is_rejected(tmp_path, name):
    with pytest.raises(liftnn.CheckpointError, match="it misreads"):
        liftnn.save(tmp_path / name / "run", 1, Affine(2.0))
    assert not list(tmp_path.iterdir())


def test_threads_save_in_one_folder_one_after_the_other(tmp_path):
    def save(step):
        liftnn.save(tmp_path, step, Holder(w=liftnn.Variable(jnp.full(10**5, step))))

    threads = [threading.Thread(target=save, args=(step,)) for step in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert liftnn.saved_steps(tmp_path) == [0, 1, 2, 3]
    for step in range(4):
        model = Holder(w=liftnn.Variable(jnp.zeros(10**5, jnp.int32)))
        liftnn.restore(tmp_path, model, step=step)
        assert (model.w.value == step).all()


@pytest.mark.parametrize("way", ["link", "dots"])
def test_a_save_through_another_path_waits_for_what_is_being_saved(tmp_path, way):
    folder, other = tmp_path / "run", tmp_path / "link"
    folder.mkdir()
    if way == "link":
        os.symlink(folder, other)
    else:
        other = folder / ".." / "run"
    with liftnn.Checkpoints(folder) as checkpoints:
        checkpoints.save(1, Holder(w=liftnn.Variable(jnp.zeros(10**7))))
        assert liftnn.saved_steps(other) == [1]
        checkpoints.save(2, Holder(w=liftnn.Variable(jnp.zeros(10**7))))
        liftnn.save(other, 3, Affine())
    assert checkpoints.steps() == [1, 2, 3]
