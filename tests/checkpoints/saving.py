"""A process that saves the steps of a model one after the other, and is killed at one of its file operations."""

from __future__ import annotations

from multiprocessing.connection import Connection

import jax.numpy as jnp
from tests import forked

import liftnn


def save_steps(reports: Connection, folder: str, first: int, operations: int, in_background: bool) -> None:
    """Save 200 steps; report `ready`, and each step that is complete.

    Args:
      reports: Where to report.
      folder: The folder of the checkpoints.
      first: The first step.
      operations: The number of the file operation at which the process dies; 0 for never.
      in_background: Whether to save in the background.
    """
    begin = forked.die_at(operations, folder)
    model = liftnn.Module()
    model.parts = [liftnn.Param(jnp.full(3000, first + 0.0)) for _ in range(5)]

    def fill(step: int) -> None:
        for part in model.parts:
            part.value = jnp.full(3000, step + 0.0)

    fill(first)
    reports.send("ready")
    if in_background:
        with liftnn.Checkpoints(folder, max_to_keep=2) as checkpoints:
            begin()
            for step in range(first, first + 200):
                fill(step)
                checkpoints.save(step, model, values={"step": step})
                if step > first:
                    reports.send(step - 1)
    else:
        begin()
        for step in range(first, first + 200):
            fill(step)
            liftnn.save(folder, step, model, values={"step": step}, max_to_keep=2)
            reports.send(step)
