"""A process that saves the weights of a model again and again, and is killed at one of its file operations."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

import jax.numpy as jnp

import liftnn
from tests import forked


def save_steps(reports: Connection, file: str, first: int, operations: int, size: int) -> None:
    """Save 1000 steps; report `ready`, and each step that is complete.

    Args:
      reports: Where to report.
      file: The file of the weights.
      first: The first step.
      operations: The number of the file operation at which the process dies; 0 for never.
      size: The size of a file in bytes from which on there are several; 0 for one file. If it is negative, one file and
        several take turns.
    """
    begin = forked.die_at(operations, os.path.dirname(file))
    model = [liftnn.Param(jnp.zeros(30_000)) for _ in range(5)]
    reports.send("ready")
    begin()
    for step in range(first, first + 1000):
        for part in model:
            part.value = jnp.full(30_000, float(step))
        liftnn.save_weights(file, model, max_shard_size=None if size < 0 and step % 2 else abs(size) or None)
        reports.send(step)
