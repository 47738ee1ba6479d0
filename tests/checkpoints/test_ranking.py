"""The best checkpoints are those that are in the folder now."""

from __future__ import annotations

import shutil

from tests.user_modules import Affine

import liftnn


def save_with_losses(folder, *losses):
    checkpoints = liftnn.Checkpoints(folder, best="loss", best_mode="min")
    for step, loss in enumerate(losses):
        checkpoints.save(step, Affine(loss), metrics={"loss": loss})
    return checkpoints


def test_the_metrics_of_a_run_that_was_removed_are_forgotten(tmp_path):
    checkpoints = save_with_losses(tmp_path, 3, 1, 2)
    assert checkpoints.best_step() == 1
    shutil.rmtree(tmp_path)
    assert checkpoints.best_step() is None
    save_with_losses(tmp_path, 3, 2, 1)
    assert checkpoints.best_step() == 2


def test_a_step_that_the_user_has_removed_is_saved_again(tmp_path):
    with liftnn.Checkpoints(tmp_path, best="loss", best_mode="min") as checkpoints:
        for step, loss in enumerate([1, 2]):
            checkpoints.save(step, Affine(loss), metrics={"loss": loss})
        checkpoints.wait()
        shutil.rmtree(tmp_path / "0")
        checkpoints.save(0, Affine(5.0), metrics={"loss": 5})
        assert checkpoints.best_step() == 1
    model = Affine()
    checkpoints.restore(model, step=0)
    assert model.w.value.tolist() == Affine(5.0).w.value.tolist()
