"""What optax gets: States where a function of the user could look, else lists, with the same results."""

from __future__ import annotations

import functools
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.optim.test_all_of_optax import FACTORIES, make, state_like
from tests.optim_models import full
from tests.strategies import Node

import liftnn
from liftnn._src.optim.transformations import sees_leaves_only

USERS = {
    "conditionally_mask",
    "conditionally_transform",
    "freeze",
    "masked",
    "multi_transform",
    "partition",
    "selective_transform",
    "snapshot",
    "stateless",
    "stateless_with_tree_map",
}
"""The transformations that are made with a function of the user or a State in `test_all_of_optax`."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", FACTORIES)
def test_all_of_optax_gets_lists_unless_it_is_made_with_a_function_of_the_user(name):
    assert sees_leaves_only(make(name, state_like)) == (name not in USERS)


SCHEDULE = optax.join_schedules(
    [optax.linear_schedule(0.0, 0.1, 2), optax.cosine_decay_schedule(0.1, 5)], boundaries=[2]
)


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(SCHEDULE, weight_decay=0.1)),
        optax.inject_hyperparams(optax.adamw)(SCHEDULE),
        optax.MultiSteps(optax.adam(optax.warmup_cosine_decay_schedule(0.0, 0.1, 1.0, 5.0)), 2),
        optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), 3),
        optax.adam(0.1, mu_dtype=jnp.bfloat16),
        optax.sgd(np.float32(0.1)),
    ],
)
def test_the_usual_transformations_get_lists(tx):
    assert sees_leaves_only(tx)


class Seen:
    """The trees that a function of the user was called with."""

    def __init__(self):
        self.types = set()

    def mask(self, tree):
        self.types.add(type(tree))
        return jax.tree.map(lambda x: True, tree)

    def __call__(self, tree):
        return self.mask(tree)


class UsersAdam(NamedTuple):
    """A transformation of a class of its own."""

    seen: Seen

    def init(self, params):
        self.seen.mask(params)
        return optax.adam(0.1).init(params)

    def update(self, updates, state, params=None):
        self.seen.mask(updates)
        return optax.adam(0.1).update(updates, state, params)


class UsersSteps(optax.MultiSteps):
    """A class that inherits from one of optax."""

    seen: Seen

    def update(self, updates, state, params=None, **extra):
        self.seen.mask(updates)
        return super().update(updates, state, params, **extra)


def users_steps(seen):
    tx = UsersSteps(optax.adam(0.1), 1)
    tx.seen = seen
    return tx


def wrapped(seen):
    tx = optax.adam(0.1)

    @functools.wraps(tx.update)  # it takes the name of optax's module over
    def update(updates, state, params=None):
        seen.mask(updates)
        return tx.update(updates, state, params)

    return optax.GradientTransformation(tx.init, update)


def by_lambda(seen):
    return optax.adamw(0.1, mask=lambda tree: seen.mask(tree))


MADE = {
    "a lambda": by_lambda,
    "a bound method": lambda seen: optax.adamw(0.1, mask=seen.mask),
    "an object with __call__": lambda seen: optax.adamw(0.1, mask=seen),
    "a partial": lambda seen: optax.adamw(0.1, mask=functools.partial(Seen.mask, seen)),
    "a cached function": lambda seen: optax.adamw(
        0.1, mask=functools.wraps(seen.mask)(lambda t: seen.mask(t))
    ),
    "jax.jit": lambda seen: optax.adamw(0.1, mask=jax.jit(lambda tree: seen.mask(tree))),
    "labels": lambda seen: optax.partition(
        {"a": optax.adam(0.1)}, lambda tree: jax.tree.map(lambda x: "a", seen.mask(tree))
    ),
    "in a chain": lambda seen: optax.chain(optax.clip(1.0), by_lambda(seen)),
    "in MultiSteps": lambda seen: optax.MultiSteps(by_lambda(seen), 1),
    "in inject_hyperparams": lambda seen: optax.inject_hyperparams(optax.adamw, static_args="mask")(
        0.1, mask=seen.mask
    ),
    "a function of the user": wrapped,
    "a class of the user": UsersAdam,
    "a class that inherits from optax": users_steps,
    "with_extra_args_support": lambda seen: optax.with_extra_args_support(wrapped(seen)),
}


@pytest.mark.parametrize("name", MADE)
def test_functions_of_the_user_see_states(name):
    seen = Seen()
    model = Node(w=liftnn.Param(full(2, 1.0)), b=liftnn.Param(full(1, 1.0)))
    optimizer = liftnn.Optimizer(model, MADE[name](seen))
    optimizer.update(model, liftnn.grad(lambda m: (m.w * m.b).sum())(model))
    assert seen.types in ({liftnn.State}, {liftnn.State, optax.MaskedNode})


@pytest.mark.parametrize("mask", [[True, False], (True, False), {"b": True, "w": False}])
def test_a_mask_of_another_structure_is_an_error(mask):
    model = Node(w=liftnn.Param(full(2, 1.0)), b=liftnn.Param(full(1, 1.0)))
    tx = optax.chain(optax.adam(0.1), optax.masked(optax.clip(0.1), mask))
    with pytest.raises(ValueError, match=r"liftnn\.State|got State|are a State"):
        liftnn.Optimizer(model, tx)


def deep_model():
    """Attributes not in alphabetical order, lists of more than ten layers, arrays, None, a value that is a dict."""
    layers = [Node(w=liftnn.Param(full(3, 0.1 * i)), b=liftnn.Param(full(1, 0.2 * i))) for i in range(12)]
    return Node(
        z=liftnn.Param(full(2, 0.5)), layers=layers, none=liftnn.Param(None), a=liftnn.Param(full(1, 2.0))
    )


def deep_params():
    layers = {i: {"w": full(3, 0.1 * i), "b": full(1, 0.2 * i)} for i in range(12)}
    return {"z": full(2, 0.5), "layers": layers, "a": full(1, 2.0)}


def deep_loss(m):
    return sum((jnp.sin(x.w).sum() * x.b.sum() for x in m.layers), (m.z**2).sum() * m.a.sum())


def deep_loss_by_hand(p):
    start = (p["z"] ** 2).sum() * p["a"].sum()
    return sum((jnp.sin(x["w"]).sum() * x["b"].sum() for x in p["layers"].values()), start)


@pytest.mark.parametrize(
    "tx",
    [
        optax.adam(0.1),
        optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.1)),
        optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.1, momentum=0.9)),
        optax.sm3(0.1),
        optax.adafactor(0.1, min_dim_size_to_factor=1),
        optax.contrib.muon(0.1),
    ],
    ids=["adam", "global norm", "noise", "sm3", "adafactor", "muon"],
)
@pytest.mark.parametrize("jitted", [False, True])
def test_leaves_have_the_order_of_nested_dicts(tx, jitted):
    assert sees_leaves_only(tx)
    model, params = deep_model(), deep_params()
    optimizer, opt_state = liftnn.Optimizer(model, tx), tx.init(params)

    def step(model, optimizer):
        return optimizer.update(model, liftnn.grad(deep_loss)(model))

    def step_by_hand(params, opt_state):
        updates, opt_state = tx.update(jax.grad(deep_loss_by_hand)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state, updates

    if jitted:
        step, step_by_hand = liftnn.jit(step), jax.jit(step_by_hand)
    for _ in range(3):
        updates = step(model, optimizer)
        params, opt_state, expected = step_by_hand(params, opt_state)
        same(liftnn.state(model, liftnn.Param), params)
        same(updates, expected)
        same(optimizer.opt_state, opt_state)


def same(ours, theirs):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert len(ours) == len(theirs)
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(*map(bits, (x, y)))


def bits(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


@pytest.mark.parametrize(
    "make, params",
    [
        (lambda: liftnn.Param(full(2, 1.0)), full(2, 1.0)),
        (lambda: [liftnn.Param(full(2, 1.0)), liftnn.Param(full(3, 2.0))], [full(2, 1.0), full(3, 2.0)]),
        (
            lambda: {"b": liftnn.Param(full(2, 1.0)), "a": Node(w=liftnn.Param(full((), 2.0)))},
            [full((), 2.0), full(2, 1.0)],
        ),
        (lambda: Node(w=liftnn.Param({"x": full(2, 1.0), "y": full(1, 2.0)})), [full(2, 1.0), full(1, 2.0)]),
        (lambda: Node(w=liftnn.Param(full((0, 2), 1.0))), full((0, 2), 1.0)),
    ],
    ids=["a Variable", "a list", "a dict", "a value that is a dict", "zero-size"],
)  # fmt: skip
def test_models_of_any_form(make, params):
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))

    def loss(tree):
        return sum((x**2).sum() for x in jax.tree.leaves(tree))

    model = make()
    optimizer, opt_state = liftnn.Optimizer(model, tx), tx.init(params)
    ours = liftnn.grad(lambda m: loss(liftnn.state(m)))
    for _ in range(2):
        optimizer.update(model, ours(model))
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        params = optax.apply_updates(params, updates)
        same(liftnn.state(model), params)


def test_a_state_that_gets_another_structure_keeps_its_paths():
    def update(updates, state, params=None):
        return updates, (*state, updates)

    as_of_optax = types.FunctionType(update.__code__, {"__name__": "optax.made"}, argdefs=(None,))
    init = types.FunctionType((lambda params: ()).__code__, {"__name__": "optax.made"})
    tx = optax.GradientTransformation(init, as_of_optax)
    assert sees_leaves_only(tx)
    model = Node(w=liftnn.Param(full(2, 1.0)), b=liftnn.Param(full(1, 1.0)))
    optimizer = liftnn.Optimizer(model, tx)
    for n in range(1, 3):
        optimizer.update(model, liftnn.grad(lambda m: (m.w * m.b).sum())(model))
        assert len(optimizer.opt_state) == n
        assert isinstance(optimizer.opt_state[-1], liftnn.State)
        assert optimizer.opt_state[-1].w.value.shape == (2,)


def test_updates_have_the_types_and_metadata_of_the_parameters():
    class LoRA(liftnn.Param):
        pass

    model = Node(b=LoRA(full(1, 1.0), note="x"), w=liftnn.Param(full(2, 1.0)))
    optimizer = liftnn.Optimizer(model, optax.sgd(0.5))
    updates = optimizer.update(model, liftnn.grad(lambda m: (m.w * m.b).sum())(model))
    assert type(updates) is liftnn.State
    assert {name: type(x) for name, x in updates.items()} == {"b": LoRA, "w": liftnn.Param}
    assert updates.b.note == "x"
    assert updates.b.value.tolist() == [-1.0]
