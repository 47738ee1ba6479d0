"""Filters by path select the same Variables in derivatives as in `state`: paths start at the argument."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from tests.raising import raises

import liftnn
from liftnn import errors


class Part(liftnn.Module):
    """A module with an attribute that has the name of a key of the trees."""

    def __init__(self, seed):
        self.head = liftnn.Linear(2, 2, rngs=liftnn.Rngs(seed))
        self.w = liftnn.Param(jnp.ones(2))


class Pair(NamedTuple):
    head: Part
    body: Part


TREES = {
    "module": lambda: Part(0),
    "dict": lambda: {"head": Part(0), "body": Part(1)},
    "list": lambda: [Part(0), Part(1)],
    "named tuple": lambda: Pair(Part(0), Part(1)),
    "nested": lambda: {"head": [Part(0), {"body": Part(1)}], "w": Part(2)},
    "Variables": lambda: {"head": liftnn.Param(jnp.ones(2)), "w": liftnn.Param(jnp.ones(2))},
}
FILTERS = {
    "a name": liftnn.PathContains("head"),
    "a leaf's name": liftnn.PathContains("kernel"),
    "an index": liftnn.PathContains(0),
    "the first key": lambda path, x: path[:1] in (("head",), (1,)),
    "the whole path": lambda path, x: path in {("head", "w"), (1, "head", "bias"), ("w", "w"), ("w",)},
    "the length": lambda path, x: len(path) > 2,
    "of two": (liftnn.PathContains("body"), lambda path, x: path[-2:] == ("head", "kernel")),
}
DERIVATIVES = {
    "grad": lambda f, tree, wrt: liftnn.grad(f, wrt=wrt)(tree),
    "value_and_grad": lambda f, tree, wrt: liftnn.value_and_grad(f, wrt=wrt)(tree)[1],
    "DiffState": lambda f, tree, wrt: liftnn.grad(f, argnums=liftnn.DiffState(0, wrt))(tree),
    "jacrev": lambda f, tree, wrt: liftnn.jacrev(f, wrt=wrt)(tree),
    "jacfwd": lambda f, tree, wrt: liftnn.jacfwd(f, wrt=wrt)(tree),
    "vjp": lambda f, tree, wrt: liftnn.vjp(f, tree, wrt=wrt)[1](jnp.float32(1))[0],
    "inside jit": lambda f, tree, wrt: liftnn.jit(lambda tree: liftnn.grad(f, wrt=wrt)(tree))(tree),
}


def total(tree):
    return sum((x.value**2).sum() for x in liftnn.state(tree).flat().values())


def flat_of(tree):
    """The entries of a tree of States and gradients of Variables, by path."""
    found = {}
    entries, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda x: isinstance(x, (liftnn.State, liftnn.Variable))
    )
    for keys, x in entries:
        root = tuple(map(name_of, keys))
        found |= {(*root, *p): y for p, y in x.flat().items()} if isinstance(x, liftnn.State) else {root: x}
    return found


def name_of(key):
    return next(getattr(key, name) for name in ("key", "idx", "name") if hasattr(key, name))


@pytest.mark.parametrize("derive", DERIVATIVES.values(), ids=DERIVATIVES)
@pytest.mark.parametrize("wrt", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_a_filter_selects_what_it_selects_in_state(make, wrt, derive):
    tree = make()
    expected = liftnn.state(tree, wrt).flat()
    if not expected:
        with pytest.raises(errors.FilterError, match=r"no (floating point )?Variable of args\[0\]"):
            derive(total, tree, wrt)
        return
    found = flat_of(derive(total, tree, wrt))
    assert found.keys() == expected.keys()
    for path, x in expected.items():
        assert found[path].value.tolist() == (2 * x.value).tolist()


@pytest.mark.parametrize("wrt", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_an_optimizer_with_the_same_filter_takes_the_gradients(make, wrt):
    tree = make()
    if not liftnn.state(tree, wrt).flat():
        return
    optimizer = liftnn.Optimizer(tree, optax.sgd(0.5), wrt=wrt)
    optimizer.update(tree, liftnn.grad(total, wrt=wrt)(tree))
    assert all((x.value == 0).all() for x in liftnn.state(tree, wrt).flat().values())


def test_the_error_names_the_argument_that_has_no_match():
    with raises(
        errors.FilterError,
        "Nothing to differentiate: no Variable of args[0] matches PathContains(key='tail').\nPass a filter as `wrt` "
        "that matches Variables of the module, such as liftnn.Param, or leave the argument out of `argnums`.",
    ):
        liftnn.grad(total, wrt=liftnn.PathContains("tail"))({"head": Part(0), "body": Part(1)})
