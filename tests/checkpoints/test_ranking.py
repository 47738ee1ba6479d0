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


def test_old_checkpoints_are_removed_whoever_has_saved_them(tmp_path):
    one, other = (liftnn.Checkpoints(tmp_path, max_to_keep=1) for _ in range(2))
    with one, other:
        one.save(1, Affine(1))
        liftnn.save(tmp_path, 2, Affine(2))
        one.save(3, Affine(3))
        assert one.steps() == [3]
        for step, each in enumerate([other, one, other, one], 4):
            each.save(step, Affine(step))
    assert one.steps() == [7]


def test_checkpoints_without_the_metric_are_removed_first_and_count(tmp_path):
    for step in range(3):
        liftnn.save(tmp_path, step, Affine(step))
    with liftnn.Checkpoints(tmp_path, max_to_keep=3, best="loss", best_mode="min") as checkpoints:
        kept = []
        for step, loss in enumerate([1.0, float("nan"), 3.0, 2.0], 3):
            checkpoints.save(step, Affine(step), metrics={"loss": loss})
            kept.append(checkpoints.steps())
    assert kept == [[1, 2, 3], [2, 3, 4], [3, 4, 5], [3, 5, 6]]
