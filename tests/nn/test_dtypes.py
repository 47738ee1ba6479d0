from __future__ import annotations

import itertools

import jax.numpy as jnp
import pytest
from flax.nnx.nn import dtypes as flax_dtypes

from liftnn import errors
from liftnn._src.nn import dtypes

ARRAYS = [jnp.ones(2, d) for d in (jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32, bool)] + [1, 2.0, None]


@pytest.mark.parametrize("inexact", [True, False])
@pytest.mark.parametrize("arrays", list(itertools.combinations_with_replacement(ARRAYS, 2)))
def test_promotion_is_that_of_flax(arrays, inexact):
    if all(a is None for a in arrays):
        pytest.skip("nothing to infer from")
    ours = dtypes.promote_dtype(arrays, inexact=inexact)
    theirs = flax_dtypes.promote_dtype(arrays, inexact=inexact)
    assert [getattr(a, "dtype", None) for a in ours] == [getattr(a, "dtype", None) for a in theirs]


def test_a_given_dtype_is_used():
    x, none = dtypes.promote_dtype((jnp.ones(2), None), dtype=jnp.bfloat16)
    assert (x.dtype, none) == (jnp.bfloat16, None)


def test_a_given_integer_dtype_is_refused_unless_it_may_be_exact():
    with pytest.raises(errors.ArgumentError) as info:
        dtypes.promote_dtype((jnp.ones(2),), dtype=jnp.int8)
    assert str(info.value) == (
        "A layer cannot compute in dtype=int8: it needs a floating point or complex dtype.\n"
        "Pass a dtype such as jax.numpy.float32 or jax.numpy.bfloat16, or None to infer it."
    )
    assert dtypes.promote_dtype((jnp.ones(2),), dtype=jnp.int8, inexact=False)[0].dtype == jnp.int8
