"""No key is used twice, in every transform and every loop: by JAX's own check of keys, and by comparing the keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.quick import quick
from tests.transform_table import LOOPS, TRANSFORMS
from tests.user_modules import Holder

X = jnp.arange(3.0)
CALLS = 10


def model_of():
    """A model with streams of its own and Dropout, and room for the keys that are drawn."""
    rngs = liftnn.Rngs(0, named=1)
    return Holder(
        first=Holder(w=liftnn.Param(jnp.ones((3, 3)))),
        rngs=rngs,
        dropout=liftnn.Dropout(0.5, rngs=rngs),
        calls=liftnn.Variable(jnp.zeros((), jnp.int32)),
        drawn=liftnn.Variable(jnp.zeros((CALLS, 4, 2), jnp.uint32)),
    )


def draw(model, x):
    """Draw numbers with samplers, layers and forks, and record keys of every stream."""
    y = x + model.rngs.normal((3,)) + model.rngs.named.uniform((3,)) + model.dropout(x)
    fork = model.rngs.fork()
    y = y + fork.named.normal((3,)) + fork.lecun_normal()((3, 3)).sum(0)
    keys = [model.rngs(), model.rngs.named(), model.dropout.rngs(), model.rngs.fork()()]
    rows = jnp.stack([jax.random.key_data(key) for key in keys])
    model.drawn.value = model.drawn.value.at[model.calls.value].set(rows)
    model.calls.value = model.calls.value + 1
    return y


def assert_no_key_twice(model, calls):
    """All keys that were drawn in so many calls differ."""
    assert int(model.calls.value) == calls
    keys = np.asarray(model.drawn.value)[:calls].reshape(-1, 2)
    assert len(np.unique(keys, axis=0)) == 4 * calls


@pytest.fixture
def key_check():
    """JAX's check: a key that is consumed twice raises KeyReuseError."""
    with jax.debug_key_reuse(True):
        yield


def test_the_check_finds_a_key_that_is_used_twice(key_check):
    key = jax.random.key(0)
    jax.random.normal(key)
    with pytest.raises(jax.errors.KeyReuseError):
        jax.random.normal(key)


def test_jax_takes_every_key_that_an_exported_function_gets_as_used(key_check):
    exported = jax.export.export(jax.jit(lambda key: jax.random.fold_in(key, 0)))(jax.random.key(0))
    key = jax.random.key(0)
    exported.call(key)
    with pytest.raises(jax.errors.KeyReuseError):
        exported.call(key)


QUICK = ("jit", "vmap", "scan", "shard_map")


@pytest.mark.thorough
@pytest.mark.parametrize("name", quick(sorted(TRANSFORMS, key=lambda name: name not in QUICK), len(QUICK)))
def test_no_key_is_used_twice(name):
    model, call = model_of(), TRANSFORMS[name](draw)
    with jax.debug_key_reuse(name != "export"):
        outputs = [call(model, X), liftnn.jit(call)(model, X), draw(model, X), call(model, X)]
    assert_no_key_twice(model, 4)
    assert len(np.unique(np.stack(outputs), axis=0)) == 4


@pytest.mark.thorough
@pytest.mark.parametrize("name", LOOPS)
def test_no_key_is_drawn_twice_in_a_loop(name, key_check):
    model, loop = model_of(), LOOPS[name](draw, 3)
    for call in (loop, draw, liftnn.jit(loop), loop):
        call(model, X)
    assert_no_key_twice(model, 10)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", ["split", "broadcast", "fork"])
def test_no_key_is_used_twice_in_streams_made_for_a_vmap(name, key_check):
    rngs = liftnn.Rngs(0, named=1)
    new = rngs.fork(split=3) if name == "fork" else getattr(rngs, name)(3)
    run = liftnn.vmap(lambda rngs: (rngs.normal((2,)), rngs.named.normal((2,))))
    numbers = np.concatenate([np.concatenate(run(new)) for _ in range(2)] + [[rngs.normal((2,))]])
    assert len(np.unique(numbers, axis=0)) == (5 if name == "broadcast" else 13)


def test_no_key_is_used_twice_by_layers_that_are_created_together(key_check):
    rngs = liftnn.Rngs(0)
    layers = [liftnn.Linear(3, 3, rngs=rngs) for _ in range(2)]
    stacked = liftnn.vmap(lambda rngs: liftnn.Linear(3, 3, rngs=rngs))(rngs.split(2))
    kernels = np.stack([*(layer.kernel.value for layer in layers), *stacked.kernel.value])
    assert len(np.unique(kernels, axis=0)) == 4
