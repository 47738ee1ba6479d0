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

    def write(decoder: Gpt, logits: jax.Array, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Writes the character after a place, reads it, and returns the logits of the next one."""
        character = pick(logits, jax.random.fold_in(key, place), temperature)
        return decoder(character[:, None])[:, 0], character

    write_all = nnx.scan(write, in_axes=(None, nnx.Carry, 0), out_axes=(nnx.Carry, 1))
    logits = decoder(prompt)[:, -1]  # the prompt is read in one pass
    _, text = write_all(decoder, logits, jnp.arange(given - 1, length - 1))
    return jnp.concatenate([prompt, text], axis=1)


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
