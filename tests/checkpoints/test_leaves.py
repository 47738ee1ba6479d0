"""Arrays with the same path: none of them is lost in silence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from tests.user_modules import Holder

import liftnn

ATTRIBUTE, KEY = jax.tree_util.GetAttrKey("a"), jax.tree_util.DictKey("a")


@jax.tree_util.register_pytree_with_keys_class
class Twins:
    """A pytree whose two children have the same key."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def tree_flatten_with_keys(self):
        return ((ATTRIBUTE, self.x), (KEY, self.y)), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


class Key:
    """A key with the same text as all others."""

    def __init__(self, n):
        self.n = n

    def __repr__(self):
        return "Key"

    def __lt__(self, other):
        return self.n < other.n


KEYS = Key(0), Key(1)
MODULES = {
    "keys": lambda x, y: Holder(d=dict(zip(KEYS, (liftnn.Variable(x), liftnn.Variable(y)), strict=True))),
    "keys of a value": lambda x, y: Holder(v=liftnn.Variable(dict(zip(KEYS, (x, y), strict=True)))),
    "a value": lambda x, y: Holder(v=liftnn.Variable(Twins(x, y))),
}


@pytest.mark.parametrize("kind", MODULES)
def test_two_arrays_of_one_path_are_not_saved(tmp_path, kind):
    with pytest.raises(liftnn.ArgumentError, match="a checkpoint can hold only one under each path"):
        liftnn.save(tmp_path, 1, MODULES[kind](jnp.ones(2), 2 * jnp.ones(2)))
    assert not list(tmp_path.iterdir())


def test_two_arrays_of_one_path_are_not_filled(tmp_path):
    liftnn.save(tmp_path, 1, Holder(v=liftnn.Variable({"a": jnp.ones(2)})))
    other = Holder(v=liftnn.Variable(Twins(jnp.zeros(2), jnp.zeros(2))))
    with pytest.raises(liftnn.ArgumentError, match="a checkpoint can hold only one under each path"):
        liftnn.restore(tmp_path, other)
    assert not other.v.value.x.any()
