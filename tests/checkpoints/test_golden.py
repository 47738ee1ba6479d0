"""Checkpoints of format 1, kept in `golden/`, which every later version must load.

They were written by `write` below, at liftnn 0.1.0 with Orbax 0.12.8, except that the files `commit_success.txt` are
left out: step 12 is compressed, and step 13 is not. They are never written again: a new format gets a new folder
beside them.
"""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.user_modules import Holder

import liftnn
from liftnn._src.checkpoints.index import FORMAT_VERSION

GOLDEN = pathlib.Path(__file__).parent / "golden"


def make(x):
    """One of everything, filled with a number."""
    shared = liftnn.Param(jnp.full((2, 3), x))
    model = Holder(
        first=shared,
        second=shared,
        layers=[liftnn.Param(jnp.full((), x + i, jnp.float16)) for i in range(11)],
        names={1: liftnn.Param(jnp.full(1, x)), "1": liftnn.Param(jnp.full(2, x))},
        low=liftnn.BatchStat(jnp.full(3, x, jnp.bfloat16)),
        tiny=liftnn.Variable(jnp.full(3, x, jnp.float8_e4m3fn)),
        four=liftnn.Variable(jnp.full(3, x, jnp.int4)),
        zero=liftnn.Variable(jnp.zeros((0, 2))),
        empty=liftnn.Variable(liftnn.Empty),
        tree=liftnn.Variable({"a": jnp.full(2, x), "n": x}),
        array=np.full(2, x),
    )
    affine = liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))
    affine.kernel.value = jnp.full((2, 2), x)
    return model, affine, liftnn.Optimizer(affine, optax.adam(0.1)), liftnn.Rngs(int(x), dropout=int(x) + 1)


def write(step, compress, folder=GOLDEN):
    values = {
        "epoch": 3,
        "nested": [(1, 2.5), {"a": None, 4: True}],
        "losses": np.arange(3.0),
        "key": jax.random.key(5),
    }
    liftnn.save(folder, step, *make(2.0), values=values, metrics={"loss": 0.25}, compress=compress)


def assert_equal(one, two):
    for x, y in zip(one, two, strict=True):
        assert jnp.result_type(x) == jnp.result_type(y)
        assert (x == y).all() if hasattr(x, "all") else x == y


@pytest.mark.parametrize("step", [12, 13], ids=["compressed", "not compressed"])
def test_a_checkpoint_of_format_1_is_loaded(step):
    restored, expected = make(5.0), make(2.0)
    found = liftnn.restore(GOLDEN, *restored, step=step)
    assert (found.step, found.metrics) == (step, {"loss": 0.25})
    assert found.values["losses"].tolist() == [0, 1, 2]
    assert (jax.random.key_data(found.values["key"]) == jax.random.key_data(jax.random.key(5))).all()
    assert {k: x for k, x in found.values.items() if k in ("epoch", "nested")} == {
        "epoch": 3,
        "nested": [(1, 2.5), {"a": None, 4: True}],
    }
    for one, two in zip(restored, expected, strict=True):
        a, b = liftnn.state(one).flat(), liftnn.state(two).flat()
        assert list(a) == list(b)
        for path in a:
            leaves = jax.tree.leaves(a[path]), jax.tree.leaves(b[path])
            assert all(
                x.dtype == y.dtype and (x == y).all()
                for x, y in zip(*leaves, strict=True)
                if hasattr(x, "dtype")
            )
    assert restored[0].tree.raw_value["n"] == 2.0
    assert restored[0].first is restored[0].second


@pytest.mark.parametrize("step", ["12", "13"])
def test_the_index_is_readable_without_liftnn(step):
    first, _, text = (GOLDEN / step / "state" / "liftnn_index").read_text().partition("\n")
    assert first.startswith("liftnn checkpoint 1 ")
    assert json.loads(text)["leaves"][0] == [
        [0, "first"],
        {"dtype": "float32", "shape": [2, 3], "kind": "jax", "weak": True, "name": "modules[0].first"},
    ]


def test_each_format_has_a_golden_checkpoint():
    assert FORMAT_VERSION == 1  # a new version: keep its checkpoint beside this one, and test both
