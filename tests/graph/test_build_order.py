"""Registered pytrees that a function changes in place, and what they hold then: the plain call is the oracle."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from tests.same import assert_same

import liftnn


@jax.tree_util.register_pytree_with_keys_class
class Box:
    """A pytree whose content code can replace."""

    def __init__(self, content):
        self.content = content

    def tree_flatten_with_keys(self):
        return ((jax.tree_util.GetAttrKey("content"), self.content),), None

    @classmethod
    def tree_unflatten(cls, static, children):
        return cls(*children)


class Boxes(liftnn.Module):
    def __init__(self):
        self.first = Box(jnp.array(1.0))
        self.second = Box(jnp.array(2.0))
        self.outer = Box(Box(jnp.array(3.0)))
        self.pair = (self.second, liftnn.Variable(jnp.array(4.0)))


def replace(m):
    m.first.content = m.first.content + 1


def replace_in_a_tuple(m):
    m.pair[0].content = m.pair[0].content * 2


def hold_a_new_tuple(m):
    m.first.content = (liftnn.Variable(jnp.array(5.0)), jnp.array(6.0))


def hold_a_new_box(m):
    m.first.content = Box(m.first.content * 2)


def hold_a_later_box(m):
    m.first.content = m.second


def hold_a_later_box_that_changes(m):
    m.first.content = m.second
    m.second.content = m.second.content + 1


def be_held_by_a_new_box_in_an_earlier_one(m):
    m.first.content = Box(m.second)
    m.second.content = m.second.content + 1


def swap_inner_boxes(m):
    m.outer.content, m.spare = m.second, m.outer.content
    m.second.content = m.second.content + 1


EFFECTS = [
    replace,
    replace_in_a_tuple,
    hold_a_new_tuple,
    hold_a_new_box,
    hold_a_later_box,
    hold_a_later_box_that_changes,
    be_held_by_a_new_box_in_an_earlier_one,
    swap_inner_boxes,
]


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("transform", [liftnn.jit, liftnn.remat])
def test_a_changed_pytree_holds_what_the_function_put_there(transform, effect):
    model, plain = Boxes(), Boxes()
    transform(effect)(model)
    effect(plain)
    assert_same(model, plain)
    assert model.pair[0] is model.second


def double_first(m):
    m.first.content = m.first.content * 2


def double_inner(m):
    m.outer.content.content = m.outer.content.content * 2


@pytest.mark.parametrize("chosen", range(4))
@pytest.mark.parametrize("first", range(4))
def test_a_pytree_may_be_changed_by_some_branches_only(first, chosen):
    branches = [lambda m: None, double_first, double_inner, replace_in_a_tuple]
    branches = branches[first:] + branches[:first]
    model, plain = Boxes(), Boxes()
    liftnn.switch(jnp.array(chosen), branches, model)
    branches[chosen](plain)
    assert_same(model, plain)


@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("effect", [double_first, double_inner, replace_in_a_tuple])
def test_a_pytree_may_be_changed_by_any_number_of_steps(effect, steps):
    def step(m, *_):
        effect(m)
        return m, None

    model, counted, plain = Boxes(), Boxes(), Boxes()
    liftnn.scan(step, length=steps)(model, None)
    liftnn.fori_loop(0, steps, lambda i, m: step(m)[0], counted)
    for _ in range(steps):
        effect(plain)
    assert_same(model, plain)
    assert_same(counted, plain)
