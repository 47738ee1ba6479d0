"""The network of each member: images of shape (n, 28, 28, 1), uint8, to logits of shape (n, 10)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import liftnn as nnx

Array = jax.Array | np.ndarray  # numpy's as images are loaded, JAX's inside a compiled function


class Mlp(nnx.Module):
    """A hidden layer with dropout."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.Sequential(
            nnx.Linear(28 * 28, 128, rngs=rngs),
            nnx.relu,
            nnx.Dropout(0.1, rngs=rngs),
            nnx.Linear(128, 10, rngs=rngs),
        )

    def __call__(self, images: Array) -> jax.Array:
        return self.layers(jnp.asarray(images, jnp.float32).reshape(len(images), -1) / 255)


def create(seed: Array | int, learning_rate: Array | float, steps: Any) -> tuple[Mlp, nnx.Optimizer]:
    """Returns a network and its optimizer: adam, whose learning rate falls from a peak to zero in so many steps.

    Args:
      seed: decides the first weights and the dropout.
      learning_rate: the peak. It is in the optimizer's state, as an array, so that each member has its own.
      steps: of the whole training, as a float: of an int, optax makes a float, and the step is traced twice.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 10, steps)

    @optax.inject_hyperparams
    def adam(peak: float) -> optax.GradientTransformation:
        return optax.adam(lambda step: peak * schedule(step))

    model = Mlp(rngs=nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, adam(1.0), wrt=nnx.Param)
    optimizer.opt_state.hyperparams["peak"] = learning_rate
    return model, optimizer
