"""Writes text with a trained model: one compiled program, with a cache of keys and values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import data
import liftnn as nnx
from model import Gpt


@functools.partial(nnx.jit, static_argnames=("length", "temperature"))
def generate(model: Gpt, prompt: jax.Array, key: jax.Array, *, length: int, temperature: float) -> jax.Array:
    """Continues a prompt, one character after the other.

    The model is not changed: the caches belong to a view of it that is made here and ends here.

    Args:
      model: The model.
      prompt: The first characters, int32[rows, characters].
      key: A random key.
      length: The number of characters in all, the prompt included.
      temperature: Divides the logits; 0 takes the likeliest character.

    Returns:
      int32[rows, length].
    """
    rows, given = prompt.shape
    decoder = nnx.view(model, deterministic=True, decode=True, batch_size=rows, max_length=length)
    text = jnp.zeros((rows, length), jnp.int32).at[:, :given].set(prompt)

    def write(decoder: Gpt, text: jax.Array, place: jax.Array) -> jax.Array:
        """Reads the character at a place, and writes the next one if it is not part of the prompt."""
        logits = decoder(jax.lax.dynamic_slice_in_dim(text, place, 1, axis=1))[:, 0]
        drawn = pick(logits, jax.random.fold_in(key, place), temperature)
        return text.at[:, place + 1].set(jnp.where(place + 1 < given, text[:, place + 1], drawn))

    step = nnx.scan(write, in_axes=(None, nnx.Carry, 0), out_axes=nnx.Carry)
    return step(decoder, text, jnp.arange(length - 1))


def pick(logits: jax.Array, key: jax.Array, temperature: float) -> jax.Array:
    """Draws a character for each row of logits, [rows, vocabulary]."""
    if temperature == 0:
        return logits.argmax(axis=-1)
    return jax.random.categorical(key, logits / temperature)


def write_text(model: Gpt, prompt: str, length: int, seed: tuple[int, int], temperature: float) -> str:
    """Returns a prompt and what the model writes after it."""
    tokens = jnp.asarray(data.encode(prompt)[None], jnp.int32)
    key = jax.random.fold_in(jax.random.key(seed[0]), seed[1])
    text = generate(model, tokens, key, length=length, temperature=temperature)
    return data.decode(np.asarray(text[0]))
