"""Attribute paths in words, plain keys of JAX's key paths, and prefixes of trees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn._src import trees
from tests.strategies import Node, Point


@pytest.mark.parametrize(
    "path, root, text",
    [
        ((), "", "<root>"),
        ((), "args[0]", "args[0]"),
        (("encoder", "layers", 3, "w"), "args[0]", "args[0].encoder.layers[3].w"),
        (("a", "b"), "", "a.b"),
        ((0, "a"), "", "[0].a"),
        (("not an identifier", "0", ""), "m", "m['not an identifier']['0']['']"),
        (((1, "x"), None, True, -1), "m", "m[(1, 'x')][None][True][-1]"),
    ],
)
def test_a_path_is_written_as_one_would_type_it(path, root, text):
    assert trees.format_path(path, root) == text


def test_the_keys_of_a_jax_path_are_plain():
    tree = {"k": [Point(1, 2)], 3: (liftnn.State({"a": {0: liftnn.Param(4)}}),)}
    paths = [
        tuple(map(trees.key_of, path))
        for path, _ in jax.tree_util.tree_flatten_with_path({"t": tree["k"]})[0]
    ]
    assert paths == [("t", 0, "x"), ("t", 0, "y")]
    paths = [tuple(map(trees.key_of, path)) for path, _ in jax.tree_util.tree_flatten_with_path(tree[3])[0]]
    assert paths == [(0, "a", 0, "value")]
    assert trees.key_of("plain") == "plain"


def test_a_state_in_a_tree_or_a_module_has_paths_of_plain_keys():
    state = liftnn.State({"a": {0: liftnn.Param(jnp.ones(1))}})
    assert list(liftnn.state((state, Node(s=state))).flat()) == [
        (0, "a", 0)
    ]  # one Variable, by its first path
    other = liftnn.State({"a": {0: liftnn.Param(jnp.ones(1))}})
    assert list(liftnn.state((state, Node(s=other))).flat()) == [(0, "a", 0), (1, "s", "a", 0)]


@pytest.mark.parametrize(
    "x, array, argument",
    [
        (jnp.ones(1), True, True),
        (np.ones(1), True, True),
        (jax.ShapeDtypeStruct((1,), jnp.float32), True, True),
        (np.float32(1), False, True),
        (1, False, True),
        (True, False, True),
        (1.5, False, True),
        (2j, False, True),
        (liftnn.Param(1.0), False, True),
        ("text", False, False),
        (None, False, False),
        ([1], False, False),
        (jnp.float32, False, False),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_is_an_array_and_what_jax_takes_as_one(x, array, argument):
    assert trees.is_array(x) == array
    assert trees.is_argument_array(x) == argument


def test_a_tracer_is_an_array():
    assert (
        jax.eval_shape(lambda x: jnp.array(trees.is_array(x) and trees.is_argument_array(x)) * x, 1.0).shape
        == ()
    )
    assert jax.jit(lambda x: x if trees.is_array(x) else None)(1.0) == 1.0


def test_a_long_list_of_paths_ends_with_a_count():
    assert trees.list_paths(["a", "b"]) == "  a\n  b"
    assert trees.list_paths("abcd", most=2) == "  a\n  b\n  ... and 2 more"


def spread(prefix, treedef, is_prefix_leaf):
    """One leaf of a prefix for each leaf of a tree."""
    return [
        x for x, part in trees.pair_prefix(prefix, treedef, is_prefix_leaf) for _ in range(part.num_leaves)
    ]


@pytest.mark.parametrize(
    "prefix, tree, expected",
    [
        (0, {"a": 1, "b": [2, 3]}, [0, 0, 0]),
        (None, (1, 2), [None, None]),
        ({"a": 0, "b": None}, {"a": 1, "b": [2, 3]}, [0, None, None]),
        ((0, [1, "x"]), ((1, 2), [3, (4, 5)]), [0, 0, 1, "x", "x"]),
        ((0, 1), ((), (1,)), [1]),
        ((), (), []),
    ],
)
def test_a_prefix_is_spread_over_the_leaves_in_jax_order(prefix, tree, expected):
    assert spread(prefix, jax.tree.structure(tree), lambda x: isinstance(x, str)) == expected


def test_leaves_of_the_tree_and_of_the_prefix_are_what_the_caller_says():
    module = Node()
    prefix = (jax.sharding.PartitionSpec("x"), 1)
    treedef = jax.tree.structure((module, [1, 2]), is_leaf=lambda x: x is module)
    entries = spread(prefix, treedef, lambda x: isinstance(x, jax.sharding.PartitionSpec))
    assert entries == [prefix[0], 1, 1]


def test_what_is_no_prefix_is_an_error():
    with pytest.raises(ValueError, match="is not a prefix of"):
        spread((0, 1), jax.tree.structure((1, 2, 3)), lambda x: False)


ARTICLES = [
    "a Param", "an Affine", "an Embed", "an Intermediate", "an Optimizer", "a UNet", "a Unit", "a User", "an Updater",
    "an RMSNorm", "an MLP", "an LSTMCell", "an RNN", "an Rngs", "a Linear", "a GRUCell", "a list", "an int", "an array",
    "a BatchNorm", "a Ünit", "an M", "a T",
]  # fmt: skip


@pytest.mark.parametrize("text", ARTICLES)
def test_a_class_has_the_article_that_it_is_spoken_with(text):
    assert trees.an(text.split()[1]) == text
    assert trees.at_start(trees.an(text.split()[1])) == text[0].upper() + text[1:]
    assert trees.an(type(text.split()[1], (), {})) == text
