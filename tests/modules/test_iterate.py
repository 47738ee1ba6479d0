"""iter_modules and iter_children, as in Flax NNX, on live objects."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from tests.strategies import Node

import liftnn


def build(library):
    class Block(library.Module):
        def __init__(self):
            rngs = library.Rngs(0)
            self.w, self.n, self.array = library.Param(jnp.ones(2)), 3, jnp.ones(2)
            self.first = library.Linear(2, 2, rngs=rngs)
            self.again = self.first
            self.layers = library.List([library.Dropout(0.5)]) if library is nnx else [library.Dropout(0.5)]

    return Block()


def test_iter_modules_gives_the_modules_of_flax():
    """But for the list, which is a module in Flax, and the order, which is that of the attributes here."""
    theirs = {
        (path, type(x).__name__) for path, x in nnx.iter_modules(build(nnx)) if not isinstance(x, nnx.List)
    }
    ours = [(path, type(x).__name__) for path, x in liftnn.iter_modules(build(liftnn))]
    assert len(ours) == len(set(ours)) == len(theirs)
    assert {name for _, name in ours} == {name for _, name in theirs}
    assert ours == [((), "Block"), (("first",), "Linear"), (("layers", 0), "Dropout")]


def test_iter_modules_takes_trees_cycles_and_empty_modules():
    node = Node(w=liftnn.Param(1.0))
    node.me = node
    assert [path for path, _ in liftnn.iter_modules({"a": [node], "b": Node()})] == [("a", 0), ("b",)]
    assert list(liftnn.iter_modules([])) == []


def test_iter_children_gives_the_children_of_flax():
    """Flax gives them by name; containers and Variables count, arrays and static values do not."""
    theirs = sorted(key for key, _ in nnx.iter_children(build(nnx)))
    model = build(liftnn)
    assert sorted(key for key, _ in liftnn.iter_children(model)) == theirs
    assert dict(liftnn.iter_children(model))["first"] is model.first
    assert [(key, type(x).__name__) for key, x in liftnn.iter_children(model.layers)] == [(0, "Dropout")]
    assert list(liftnn.iter_children({"a": 1, "b": model})) == [("b", model)]
    assert list(liftnn.iter_children(Node())) == []
