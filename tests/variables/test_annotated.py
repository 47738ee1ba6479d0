"""with_metadata, as in Flax NNX."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn

pytestmark = pytest.mark.filterwarnings("ignore:Variable hooks are deprecated")


def test_an_initializer_gives_metadata_and_hooks_as_in_flax():
    def run(library):
        init = library.with_metadata(
            jax.nn.initializers.ones,
            tag="a",
            on_get_value=lambda v, x: x * 3,
            on_create_value=lambda v, x: x + 1,
        )
        kernel = library.Linear(2, 3, kernel_init=init, rngs=library.Rngs(0)).kernel
        return kernel.get_metadata("tag"), np.asarray(kernel.get_value()).tolist()

    assert run(liftnn) == run(nnx) == ("a", [[6.0] * 3] * 2)


def test_wrappers_can_be_nested_and_the_outer_one_wins():
    inner = liftnn.with_partitioning(liftnn.initializers.ones_init(), ("x",), tag="inner")
    made = liftnn.Param(liftnn.with_metadata(inner, tag="outer", more=1)(None, (2,)))
    assert (made.sharding, made.tag, made.more, made.value.tolist()) == (("x",), "outer", 1, [1, 1])
    assert liftnn.Param(liftnn.with_metadata(inner, tag="outer")(None, (2,)), tag="own").tag == "own"


def test_a_class_of_variables_gives_variables():
    make = liftnn.with_metadata(liftnn.BatchStat, tag="a", on_set_value=lambda v, x: x * 2)
    v = make(jnp.ones(2), tag="b", note=1)
    v.value = jnp.ones(2)
    assert (type(v), v.tag, v.note, v.raw_value.tolist()) == (liftnn.BatchStat, "b", 1, [2, 2])


def test_a_layer_with_such_an_initializer_is_pickled_and_keeps_its_structure():
    def make():
        init = liftnn.with_metadata(liftnn.initializers.ones_init(), tag="a")
        return liftnn.Linear(2, 3, kernel_init=init, rngs=liftnn.Rngs(0))

    assert pickle.loads(pickle.dumps(make())).kernel.tag == "a"
    assert liftnn.split(make())[-1] == liftnn.split(make())[-1]
