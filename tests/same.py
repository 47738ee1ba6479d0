"""Whether two results are the same: structure, sharing, static values, and numbers."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import liftnn


def assert_same(actual: Any, expected: Any) -> None:
    """Two trees of modules have equal structure (sharing and cycles included) and equal numbers.

    Args:
      actual: What came out.
      expected: What the plain call made.
    """
    state, graphdef = liftnn.split(actual)
    wanted, expected_graphdef = liftnn.split(expected)
    assert graphdef == expected_graphdef, expected_graphdef.diff(graphdef)
    assert list(state.flat()) == list(wanted.flat())
    for path, x in state.flat().items():
        assert type(x) is type(wanted.flat()[path]) or not isinstance(x, liftnn.Variable), path
    assert jax.tree.structure(state) == jax.tree.structure(wanted)
    for (path, x), (_, y) in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree_util.tree_leaves_with_path(wanted), strict=True
    ):
        if not hasattr(y, "dtype"):
            assert x == y, path
            continue
        assert x.dtype == y.dtype, path
        numbers, others = _numbers(x), _numbers(y)
        if not np.array_equal(numbers, others):  # 40 times quicker than the words for a difference
            np.testing.assert_allclose(numbers, others, rtol=1e-5, atol=1e-6, err_msg=str(path))


def _numbers(x: Any) -> np.ndarray:
    if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(x))
    return np.asarray(x)


def has_tracer(tree: Any) -> bool:
    """Whether a tree of modules holds a tracer anywhere."""
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(liftnn.state(tree)))
