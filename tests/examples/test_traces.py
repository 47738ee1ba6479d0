"""The training steps of the examples are traced once, also with the schedules of their learning rates."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest

import liftnn
from tests.examples.example import imported

DIGITS = np.zeros((4, 28, 28, 1), np.uint8), np.zeros(4, np.int32)


def train_gpt(load):
    sizes = {"layers": 1, "features": 8, "heads": 2, "dropout": 0.0, "dtype": "float32", "seed": 0}
    rates = {"steps": 9, "learning_rate": 1e-3, "weight_decay": 0.1, "clip": 1.0}
    train = load("train")
    modules = train.make(Namespace(**sizes, **rates))
    for _ in range(3):
        train.train_step(*modules, np.zeros((1, 2, 9), np.int32))
    return train.train_step


def ensemble(load):
    train = load("train")
    models, optimizers, _ = train.create_all(Namespace(members=2, seed=0, learning_rates=(1e-3, 1e-2)), 9)
    for _ in range(3):
        train.train_step(models, optimizers, *DIGITS)
    return train.train_step


def vae(load):
    train = load("train")
    model = load("model").Vae(8, 2, rngs=liftnn.Rngs(0, codes=1, pixels=2))
    options = Namespace(epochs=1, batch_size=2, learning_rate=1e-3, seed=0)
    train.train(model, np.zeros((6, 784), np.uint8), [np.zeros((2, 784), np.float32)], options)
    return train.train_step


@pytest.mark.parametrize("run", [vae, train_gpt, ensemble])
@pytest.mark.sample(3)
def test_the_step_of_an_example_is_traced_once(run):
    with imported(run.__name__) as load:
        assert run(load).n_traces == 1
