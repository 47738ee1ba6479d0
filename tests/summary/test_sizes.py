"""`count_params` counts elements, shared ones once, of live and abstract modules."""

import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx as flax_nnx
from tests.strategies import Node

import liftnn
from liftnn._src.summary.sizes import bytes_text


def model():
    rngs = liftnn.Rngs(0)
    shared = liftnn.Linear(3, 3, rngs=rngs)
    return Node(
        a=shared,
        b=[shared, liftnn.BatchNorm(3, rngs=rngs)],
        c=liftnn.LoRALinear(3, 4, lora_rank=2, rngs=rngs),
    )


def test_the_count_is_that_of_flax():
    rngs = flax_nnx.Rngs(0)
    shared = flax_nnx.Linear(3, 3, rngs=rngs)
    parts = [
        shared,
        shared,
        flax_nnx.BatchNorm(3, rngs=rngs),
        flax_nnx.LoRALinear(3, 4, lora_rank=2, rngs=rngs),
    ]
    for ours, theirs in [
        ((), flax_nnx.Param),
        ((liftnn.BatchStat,), flax_nnx.BatchStat),
        ((liftnn.LoRAParam,), flax_nnx.LoRAParam),
        ((liftnn.BatchStat, liftnn.Param), (flax_nnx.BatchStat, flax_nnx.Param)),
    ]:
        state = flax_nnx.state(flax_nnx.List(parts), theirs)
        expected = sum(math.prod(x.shape) for x in jax.tree.leaves(state))
        assert liftnn.count_params(model(), *ours) == expected


def test_nothing_is_allocated_for_an_abstract_model():
    big = liftnn.eval_shape(lambda: liftnn.Linear(10**6, 10**6, rngs=liftnn.Rngs(0)))
    assert liftnn.count_params(big) == 10**12 + 10**6


@pytest.mark.parametrize("tree", [model(), [model()], liftnn.state(model())])
def test_modules_trees_and_states_are_counted(tree):
    assert liftnn.count_params(tree) == 12 + 6 + 16 + 14


def test_gradients_are_counted():
    grads = liftnn.grad(lambda m: m.a.kernel.sum())(model())
    assert liftnn.count_params(grads) == liftnn.count_params(model())


def test_a_call_under_jit_counts_the_same():
    assert liftnn.jit(lambda m: jnp.int32(liftnn.count_params(m)))(model()) == liftnn.count_params(model())


def test_an_empty_module_has_no_parameters():
    assert liftnn.count_params(liftnn.Module()) == 0


@pytest.mark.parametrize(
    "size, text",
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (2_500_000, "2.5 MB"), (7 * 10**12, "7.0 TB")],
)
def test_bytes_have_the_largest_unit_that_fits(size, text):
    assert bytes_text(size) == text
