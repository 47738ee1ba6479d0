"""The loop of the examples: a line for each step, then the collectives of the compiled step."""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import collectives


def run(
    train_step: Any,
    model: Any,
    optimizer: Any,
    draw_batch: Callable[[np.random.Generator], Any],
    sharding: jax.sharding.Sharding,
    options: argparse.Namespace,
) -> None:
    """Trains on batches that are put where the sharding says, as many steps as the options say."""
    rng = np.random.default_rng(options.seed)

    def next_batch() -> Any:
        return jax.device_put(draw_batch(rng), sharding)

    for i in range(options.steps):
        loss = train_step(model, optimizer, *next_batch())
        print(f"step {i + 1}/{options.steps}: loss {loss:.4f}", flush=True)
    collectives.print_table(train_step.lower(model, optimizer, *next_batch()).compile())
