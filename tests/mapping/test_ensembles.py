"""An ensemble made by `vmap(init)` and trained under `vmap` equals as many separate runs: all of the training state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest
from tests.same import assert_same

import liftnn

KEYS = jax.random.split(jax.random.key(0), 3)
X = jax.random.normal(jax.random.key(1), (2, 4, 2))
Y = jax.random.normal(jax.random.key(2), (2, 4, 1))


class Net(liftnn.Module):
    """A layer of each sort: weights, running statistics, noise."""

    def __init__(self, rngs):
        self.inp = liftnn.Linear(
            2, 4, use_bias=False, rngs=rngs
        )  # the norm would leave a bias without gradient
        self.norm = liftnn.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.drop = liftnn.Dropout(0.5, rngs=rngs)
        self.out = liftnn.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(liftnn.relu(self.norm(self.inp(x)))))


def make(key):
    """A model with its optimizer, which share the weights."""
    model = Net(liftnn.Rngs(key))
    return model, liftnn.Optimizer(model, optax.adam(0.1))


def train(model, optimizer, x, y):
    """One step; returns the loss and the gradient."""
    loss, grads = liftnn.value_and_grad(lambda model: ((model(x) - y) ** 2).mean())(model)
    optimizer.update(model, grads)
    return loss, grads


alone = liftnn.jit(train)


def stack(trees):
    """Arrays and States, each stacked along axis 0."""
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def stacked_state(modules):
    return stack(map(liftnn.state, modules))


def test_mapped_training_equals_separate_loops():
    ensemble, members = liftnn.vmap(make)(KEYS), [make(key) for key in KEYS]
    assert_same(liftnn.state(ensemble), stacked_state(members))
    step = liftnn.jit(liftnn.vmap(train, in_axes=(0, 0, None, None)))
    for x, y in zip(X, Y, strict=True):
        loss, grads = step(*ensemble, x, y)
        assert_same((loss, grads), stack([alone(*member, x, y) for member in members]))
        assert_same(liftnn.state(ensemble), stacked_state(members))


def test_the_members_draw_different_noise():
    ensemble = liftnn.vmap(make)(KEYS)[0]
    out = liftnn.vmap(lambda model: model.drop(jnp.ones(64)))(ensemble)
    assert len({tuple(row) for row in out.tolist()}) == 3


def test_a_shared_rngs_gives_each_member_noise_of_its_own_in_every_call():
    model, rngs = liftnn.vmap(make)(KEYS)[0], liftnn.Rngs(7)
    call = liftnn.jit(
        liftnn.vmap(lambda m, rngs: jax.random.bits(rngs()) + 0 * m.out.bias.value.size, in_axes=(0, None))
    )
    assert len({*call(model, rngs).tolist(), *call(model, rngs).tolist()}) == 6
    assert int(rngs.default.count) == 2


def test_an_equal_ensemble_is_not_traced_again():
    step = liftnn.jit(liftnn.vmap(train, in_axes=(0, 0, None, None)))
    for _ in range(2):
        ensemble = liftnn.vmap(make)(KEYS)
        for x, y in zip(X, Y, strict=True):
            step(*ensemble, x, y)
    assert step.n_traces == 1


def test_a_member_can_be_taken_out():
    ensemble, member = liftnn.vmap(make)(KEYS), make(KEYS[1])
    state, graphdef = liftnn.split(ensemble)
    assert_same(liftnn.merge(graphdef, jax.tree.map(lambda x: x[1], state)), member)


@pytest.mark.sample(2)
@pytest.mark.parametrize("batch_size", [None, 2])
def test_map_trains_an_ensemble_with_the_memory_of_one(batch_size):
    ensemble, members = liftnn.vmap(make)(KEYS), [make(key) for key in KEYS]
    step = liftnn.jit(
        lambda ensemble: liftnn.map(lambda m: train(*m, X[0], Y[0])[0], ensemble, batch_size=batch_size)
    )
    for _ in range(2):
        losses = step(ensemble)
        assert_same(losses, stack([alone(*member, X[0], Y[0])[0] for member in members]))
        assert_same(liftnn.state(ensemble), stacked_state(members))
