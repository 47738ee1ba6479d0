"""Scaled dot-product attention, with as many heads for keys and values as for queries, or fewer."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes
from liftnn._src.nn.arguments import with_axes
from liftnn._src.nn.dropout import as_rate
from liftnn._src.nn.explicit_axes import mesh_of, whole_along
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import is_tracer
from liftnn._src.variables.variable_types import Intermediate


@boundary
def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: jax.Array | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype: DTypeLike | None = None,
    precision: lax.PrecisionLike = None,
    module: Module | None = None,
    promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
    is_causal: bool = False,
) -> jax.Array:
    """Average the values with weights that compare queries with keys: `softmax(query @ key / sqrt(depth)) @ value`.

    With `dropout_rate=0.0` and `module=None` this is `jax.nn.dot_product_attention`, which needs less memory and takes
    the softmax in float32. Otherwise the weights are computed by `dot_product_attention_weights`.

    Args:
      query: Array of shape `(*batch, query_length, heads, depth)`.
      key: Array of shape `(*batch, key_length, key_heads, depth)`. The number of heads must be a multiple of
        `key_heads`; each key head is used by `heads / key_heads` consecutive query heads.
      value: Array of shape `(*batch, key_length, value_heads, value_depth)`.
      bias: Array that broadcasts to `(*batch, heads, query_length, key_length)` and is added before the softmax. The
        default, None, means no bias.
      mask: Array that broadcasts to the same shape; a query ignores keys with an entry of False or zero. The default,
        None, means that each query attends to all keys.
      broadcast_dropout: Whether dropout sets the same weights to zero in all batch elements and heads; True by
        default.
      dropout_rng: The key for dropout. The default, None, suffices where dropout is disabled.
      dropout_rate: The probability that a weight is set to zero; 0.0 by default.
      deterministic: Whether dropout is disabled; False by default.
      dtype: Dtype of the computation. The default, None, infers it from query, key and value.
      precision: Precision of the products, as in `jax.lax.dot_general`, where the weights are computed separately. The
        default, None, means the backend's default.
      module: A module that records the weights in its Intermediate `attention_weights`. The default, None, means that
        they are not recorded.
      promote_dtype: A function that casts `(query, key, value)` to a common dtype; by default `dtypes.promote_dtype`.
      is_causal: Whether query `i` ignores the keys after key `i`; False by default.

    Returns:
      Array of shape `(*batch, query_length, heads, value_depth)`, of the dtype of the computation.

    Raises:
      ArgumentError: If the shapes do not fit together, if `dropout_rate` is not a probability, or if dropout is enabled
        and `dropout_rng` is None.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> query, key = jnp.ones((2, 5, 4, 8)), jnp.ones((2, 7, 2, 8))
      >>> liftnn.dot_product_attention(query, key, value=key).shape
      (2, 5, 4, 8)

    References:
      Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762
      Ainslie et al., Training Generalized Multi-Query Transformer Models, https://arxiv.org/abs/2305.13245
    """
    query, key, value = promote_dtype((query, key, value), dtype=dtype)
    key, value = (whole_along(x, (x.ndim - 3,)) for x in (key, value))
    _check_queries_and_keys(query.shape, key.shape)
    _check_values(query.shape, key.shape, value.shape)
    _check_weight_shape("bias", bias, query.shape, key.shape)
    check_mask(mask, query.shape, key.shape)
    dropout_rate = as_rate("The dropout_rate of attention", dropout_rate)
    if dropout_rate == 0.0 and module is None and key.shape == value.shape:
        return _fused_attention(query, key, value, bias, mask, is_causal)
    weights = dot_product_attention_weights(
        query, key, bias, mask, broadcast_dropout, dropout_rng, dropout_rate, deterministic, query.dtype, precision,
        module, promote_dtype, is_causal,
    )  # fmt: skip
    if value.shape[-2] == query.shape[-2]:
        return jnp.einsum("...hqk,...khd->...qhd", weights, value, precision=precision)
    weights = _group_heads(weights, value.shape[-2], axis=-3)
    y = jnp.einsum("...hgqk,...khd->...qhgd", weights, value, precision=precision)
    return y.reshape((*query.shape[:-1], value.shape[-1]))


@boundary
def dot_product_attention_weights(
    query: jax.Array,
    key: jax.Array,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: jax.Array | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype: DTypeLike | None = None,
    precision: lax.PrecisionLike = None,
    module: Module | None = None,
    promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
    is_causal: bool = False,
) -> jax.Array:
    """Compute the weights of dot-product attention: `softmax(query @ key / sqrt(depth))`.

    Args:
      query: Array of shape `(*batch, query_length, heads, depth)`.
      key: Array of shape `(*batch, key_length, key_heads, depth)`. The number of heads must be a multiple of
        `key_heads`.
      bias: Array that broadcasts to `(*batch, heads, query_length, key_length)` and is added before the softmax. The
        default, None, means no bias.
      mask: Array that broadcasts to the same shape; a query ignores keys with an entry of False or zero. The default,
        None, means that each query attends to all keys.
      broadcast_dropout: Whether dropout sets the same weights to zero in all batch elements and heads; True by
        default.
      dropout_rng: The key for dropout. The default, None, suffices where dropout is disabled.
      dropout_rate: The probability that a weight is set to zero; 0.0 by default.
      deterministic: Whether dropout is disabled; False by default.
      dtype: Dtype of the computation. The default, None, infers it from query and key.
      precision: Precision of the product, as in `jax.lax.dot_general`. The default, None, means the backend's default.
      module: A module that records the weights, before dropout, in its Intermediate `attention_weights`. The default,
        None, means that they are not recorded.
      promote_dtype: A function that casts `(query, key)` to a common dtype; by default `dtypes.promote_dtype`.
      is_causal: Whether query `i` ignores the keys after key `i`; False by default.

    Returns:
      Array of shape `(*batch, heads, query_length, key_length)`, of the dtype of the computation.

    Raises:
      ArgumentError: If the shapes do not fit together, if `dropout_rate` is not a probability, or if dropout is enabled
        and `dropout_rng` is None.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> x = jnp.ones((2, 1, 4))
      >>> liftnn.dot_product_attention_weights(x, x, is_causal=True)[0].tolist()
      [[1.0, 0.0], [0.5, 0.5]]

    References:
      Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762
    """
    query, key = promote_dtype((query, key), dtype=dtype)
    key, dtype = whole_along(key, (key.ndim - 3,)), query.dtype
    _check_queries_and_keys(query.shape, key.shape)
    _check_weight_shape("bias", bias, query.shape, key.shape)
    check_mask(mask, query.shape, key.shape)
    logits = _logits(query / jnp.sqrt(query.shape[-1]).astype(dtype), key, precision)
    if bias is not None:
        logits = logits + with_axes(jnp.asarray(bias), logits.ndim)
    if mask is not None:
        mask = with_axes(jnp.asarray(mask), logits.ndim)
    if is_causal:
        causal = with_axes(jnp.tril(jnp.ones(logits.shape[-2:], bool)), logits.ndim)
        mask = causal if mask is None else jnp.logical_and(mask, causal)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(dtype).min)
    weights = jax.nn.softmax(logits).astype(dtype)
    if module is not None:
        module.sow(Intermediate, "attention_weights", weights)
    dropout_rate = as_rate("The dropout_rate of attention", dropout_rate)
    if deterministic or dropout_rate == 0.0:
        return weights
    return _drop(weights, broadcast_dropout, dropout_rng, dropout_rate)


def _fused_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: Any, mask: Any, is_causal: bool
) -> jax.Array:
    """Compute attention by `jax.nn.dot_product_attention`, which takes at most one batch axis."""
    batch = query.shape[:-3]
    bias, mask = (None if x is None else with_axes(jnp.asarray(x), query.ndim) for x in (bias, mask))
    if len(batch) > 1:
        query, key, value = (x.reshape((math.prod(batch), *x.shape[-3:])) for x in (query, key, value))
        bias, mask = (None if x is None else _fold_batch(x, batch) for x in (bias, mask))
    mask = None if mask is None else mask.astype(bool)
    attend = jax.nn.dot_product_attention if mesh_of(query, key, value) is None else _in_one_program
    y = attend(query, key, value, bias, mask, is_causal=is_causal)
    return y.reshape((*batch, *y.shape[-3:])) if len(batch) > 1 else y


_in_one_program = jax.jit(jax.nn.dot_product_attention, inline=True, static_argnames=("is_causal",))
"""The function for an eager call on a mesh with explicit axes, where JAX cannot broadcast a mask on its own."""


def _logits(query: jax.Array, key: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    """Multiply each query by all keys: an array of the shape of the weights."""
    if query.shape[-2] == key.shape[-2]:
        return jnp.einsum("...qhd,...khd->...hqk", query, key, precision=precision)
    groups = _group_heads(query, key.shape[-2], axis=-2)
    logits = jnp.einsum("...qhgd,...khd->...hgqk", groups, key, precision=precision)
    return logits.reshape(_weight_shape(query.shape, key.shape))


def _fold_batch(x: jax.Array, batch: tuple[int, ...]) -> jax.Array:
    """Reshape the batch axes of a bias or mask to one, which has size 1 if all of them have."""
    if math.prod(x.shape[:-3]) == 1:
        return x.reshape((1, *x.shape[-3:]))
    return jnp.broadcast_to(x, (*batch, *x.shape[-3:])).reshape((math.prod(batch), *x.shape[-3:]))


def _drop(weights: jax.Array, broadcast: bool, key: jax.Array | None, rate: float) -> jax.Array:
    """Set random weights to zero, and divide the others by `1 - rate`."""
    if key is None:
        raise errors.ArgumentError(
            f"Attention with dropout_rate={rate} needs a key, but dropout_rng is None.",
            "Pass dropout_rng=jax.random.key(0), or disable dropout with deterministic=True.",
        )
    if rate == 1.0:  # dividing by 1 - rate would give NaN
        return jnp.zeros_like(weights)
    kept = 1.0 - rate
    shape = (1,) * (weights.ndim - 2) + weights.shape[-2:] if broadcast else weights.shape
    mask = jax.random.bernoulli(key, kept, shape)
    return weights * (mask.astype(weights.dtype) / jnp.asarray(kept, weights.dtype))


def _group_heads(x: jax.Array, groups: int, axis: int) -> jax.Array:
    """Divide the axis of heads into `(groups, heads / groups)`."""
    axis += x.ndim
    return x.reshape((*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :]))


def _weight_shape(query: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the weights, `(*batch, heads, query_length, key_length)`."""
    return (*query[:-3], query[-2], query[-3], key[-3])


def _check_queries_and_keys(query: tuple[int, ...], key: tuple[int, ...]) -> None:
    """Raise ArgumentError if queries and keys do not fit together."""
    if len(query) < 3 or len(query) != len(key) or query[:-3] != key[:-3]:
        raise errors.ArgumentError(
            f"Attention needs arrays of shape (*batch, length, heads, depth) with the same batch axes, but the query "
            f"has shape {query} and the key {key}.",
            "Pass arrays with these axes; add an axis of one head with x[..., None, :].",
        )
    if query[-1] != key[-1]:
        raise errors.ArgumentError(
            f"Attention compares queries and keys of one depth, but the query has depth {query[-1]} and the key "
            f"{key[-1]}.",
            "Project both to the same number of features per head.",
        )
    _check_heads("key", query[-2], key[-2])


def _check_values(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...]) -> None:
    """Raise ArgumentError if values do not fit queries and keys."""
    if value[:-2] != key[:-2] or len(value) != len(key):
        raise errors.ArgumentError(
            f"Attention needs one value for each key, but the key has shape {key} and the value {value}.",
            "Pass keys and values with the same batch axes and length.",
        )
    _check_heads("value", query[-2], value[-2])


def _check_heads(name: str, heads: int, groups: int) -> None:
    """Raise ArgumentError if the query heads cannot be divided evenly among the heads of keys or values."""
    if not groups or heads % groups:
        raise errors.ArgumentError(
            f"The {heads} query heads cannot be divided evenly among {groups} {name} heads.",
            "Use a number of query heads that is a multiple of it.",
        )


def _check_weight_shape(name: str, x: Any, query: tuple[int, ...], key: tuple[int, ...]) -> None:
    """Raise ArgumentError if a bias or mask does not broadcast to the shape of the weights."""
    shape, weights = () if x is None else np.shape(x), _weight_shape(query, key)
    if len(shape) > len(weights) or any(
        size not in (1, wanted) for size, wanted in zip(shape[::-1], weights[::-1], strict=False)
    ):
        raise errors.ArgumentError(
            f"The {name} of attention has shape {shape}, which does not broadcast to {weights}, the shape of the "
            "weights (*batch, heads, query_length, key_length).",
            f"Pass a {name} with these sizes, or 1, along each axis.",
        )


def check_mask(mask: Any, query: tuple[int, ...], key: tuple[int, ...]) -> None:
    """Raise an error for a mask of another shape, or with negative numbers, as PyTorch adds them to the logits.

    Args:
      mask: An array, or None. The numbers of a traced one are not known.
      query: Shape of the queries.
      key: Shape of the keys.

    Raises:
      ArgumentError: If it does not broadcast to the shape of the weights, or has negative numbers.
    """
    _check_weight_shape("mask", mask, query, key)
    if mask is None or is_tracer(mask):
        return
    with jax.ensure_compile_time_eval():  # also of a constant in a trace
        numbers = jnp.asarray(mask)
        is_added = jnp.issubdtype(numbers.dtype, jnp.floating) and bool((numbers < 0).any())
    if is_added:
        raise errors.ArgumentError(
            "The attention mask has negative numbers, like a mask that is added to the logits. Here False or zero "
            "masks a key out, so the keys that such a mask keeps would be masked out.",
            "Pass `mask == 0`, or the mask as `bias` of dot_product_attention.",
        )


publish(dot_product_attention, dot_product_attention_weights)
