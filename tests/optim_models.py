"""A small model as modules and as nested dicts, and transformations for both: what the tests of Optimizer share."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax

import liftnn
from tests.strategies import Node

X = jnp.array([[1.0, 2.0], [0.5, -1.0]])


def full(shape, value):
    return jnp.full(shape, value, jnp.float32)


class Model(Node):
    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(x @ layer.w + layer.b)
        return x


def make_model(**metadata):
    layers = [
        Node(b=liftnn.Param(full(2, 0.1 * i)), w=liftnn.Param(full((2, 2), 0.3 * i + 0.1), **metadata))
        for i in range(2)
    ]
    return Model(layers=layers, seen=liftnn.BatchStat(jnp.zeros(2)))


def loss(model, x):
    return (model(x) ** 2).mean()


def make_dict():
    return {f"l{i}": {"w": full((2, 2), 0.3 * i + 0.1), "b": full(2, 0.1 * i)} for i in range(2)}


def dict_loss(params, x):
    for layer in params.values():
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return (x**2).mean()


def assert_same_params(model, params):
    for layer, bare in zip(model.layers, params.values(), strict=True):
        np.testing.assert_allclose(layer.w.value, bare["w"], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(layer.b.value, bare["b"], rtol=1e-5, atol=1e-7)


def is_kernel(path, x):
    return path[-1] == "w"


def dict_mask():
    return {f"l{i}": {"w": True, "b": False} for i in range(2)}


def dict_labels():
    return {f"l{i}": {"w": "fast", "b": "none"} for i in range(2)}


PARTS = {"fast": optax.adam(0.1), "none": optax.set_to_zero()}

# name: the transformation for a model, and that for dicts
TRANSFORMATIONS = {
    "sgd": lambda model: (optax.sgd(0.1),) * 2,
    "momentum": lambda model: (optax.sgd(0.1, momentum=0.9, nesterov=True),) * 2,
    "adam": lambda model: (optax.adam(0.1),) * 2,
    "adamw on a schedule": lambda model: (
        (optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 6), weight_decay=0.1),) * 2
    ),
    "chain with clipping": lambda model: (optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.1)),) * 2,
    "lion": lambda model: (optax.lion(0.01),) * 2,
    "lamb": lambda model: (optax.lamb(0.1),) * 2,
    "adafactor": lambda model: (optax.adafactor(0.1),) * 2,
    "mask": lambda model: (
        optax.adamw(0.1, weight_decay=0.5, mask=liftnn.state(model, liftnn.Param).map(is_kernel)),
        optax.adamw(0.1, weight_decay=0.5, mask=dict_mask()),
    ),
    "mask of a function": lambda model: (
        optax.masked(optax.sgd(0.1), lambda params: params.map(is_kernel)),
        optax.masked(optax.sgd(0.1), dict_mask()),
    ),
    "multi_transform": lambda model: (
        optax.multi_transform(
            PARTS,
            liftnn.state(model, liftnn.Param).map(lambda path, x: "fast" if is_kernel(path, x) else "none"),
        ),
        optax.multi_transform(PARTS, dict_labels()),
    ),
    "inject_hyperparams": lambda model: (optax.inject_hyperparams(optax.adam)(learning_rate=0.1),) * 2,
    "MultiSteps": lambda model: (optax.MultiSteps(optax.adam(0.1), every_k_schedule=2),) * 2,
    "apply_if_finite": lambda model: (optax.apply_if_finite(optax.adam(0.1), max_consecutive_errors=2),) * 2,
    "ema": lambda model: (optax.chain(optax.sgd(0.1), optax.ema(0.9)),) * 2,
    "noise": lambda model: (optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.1)),) * 2,
}
