"""Embedding: a table of vectors, looked up by integers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.foreign_names.attributes import answer
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import as_input, check_features, new_param, shape_of_input, without_none
from liftnn._src.nn.explicit_axes import automatic, distinct, entries_of, product_sharding
from liftnn._src.nn.sizes import check_sizes
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs

default_embed_init = initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)


class Embed(Module):
    """Map each integer to a row of a table of weights.

    Args:
      num_embeddings: Number of rows, the size of the vocabulary.
      features: Size of a row.
      dtype: Dtype of the result. The default, None, means the dtype of the table.
      param_dtype: Dtype of the table; float32 by default.
      embedding_init: Initializer of the table of shape `(num_embeddings, features)`; normal with the variance
        `1 / features` by default.
      promote_dtype: A function that casts `(embedding,)`, or `(query, embedding)` in `attend`, to a common dtype; by
        default `dtypes.promote_dtype`.
      rngs: The random keys: the table draws one from the stream `params`.
      embedding_metadata: Metadata of the table's Param; none by default.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.Embed(num_embeddings=5, features=3, rngs=liftnn.Rngs(0))
      >>> layer(jnp.array([[0, 1], [4, -1]])).shape
      (2, 2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        embedding_init: initializers.Initializer = default_embed_init,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        rngs: Rngs,
        embedding_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_sizes(self, num_embeddings=num_embeddings, features=features)
        shape = (num_embeddings, features)
        self.embedding = new_param(rngs, embedding_init, shape, param_dtype, embedding_metadata)
        self.num_embeddings, self.features = num_embeddings, features
        self.dtype, self.param_dtype = dtype or self.embedding.value.dtype, param_dtype
        self.promote_dtype = promote_dtype

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Look up a row for each integer.

        Args:
          inputs: Integer array of any shape. Negative integers count from the end; integers out of bounds give NaN.
            With a single row, every integer gives that row.
          out_sharding: Sharding of the result, for meshes with explicit axes. The default, None, leaves it to JAX.

        Returns:
          Array of shape `(*inputs.shape, features)` and dtype `dtype`.

        Raises:
          ArgumentError: If the inputs are not integers.
        """
        inputs = as_input("Embed", inputs)
        if not jnp.issubdtype(inputs.dtype, jnp.integer):
            raise errors.ArgumentError(
                f"Embed looks up integers, but its inputs have dtype {inputs.dtype.name}.",
                "Convert them with inputs.astype(int).",
            )
        (table,) = self.promote_dtype((dtypes.value_of(self.embedding),), dtype=self.dtype, inexact=False)
        if len(table) == 1:
            return jnp.broadcast_to(table, (*inputs.shape, table.shape[1]))
        if out_sharding is not None:
            return jax.sharding.auto_axes(out_sharding=out_sharding)(_take)(table, inputs)
        rows, columns = entries_of(inputs) or (None,) * inputs.ndim, entries_of(table) or (None, None)
        return automatic(_take, PartitionSpec(*distinct((*rows, columns[1]))), table, inputs)

    def attend(self, query: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Compute logits over the vocabulary: the inner product of each query with each row of the table.

        Args:
          query: Array of shape `(..., features)`.
          out_sharding: Sharding of the result, for meshes with explicit axes. The default, None, leaves it to JAX.

        Returns:
          Array of shape `(..., num_embeddings)` and dtype `dtype`.

        Raises:
          ArgumentError: If the last axis of the query does not have the size of a row.

        References:
          Press and Wolf, Using the Output Embedding to Improve Language Models, https://arxiv.org/abs/1608.05859
        """
        check_features("Embed", shape_of_input("Embed", query), -1, dtypes.value_of(self.embedding).shape[1])
        query, table = self.promote_dtype((query, dtypes.value_of(self.embedding)), dtype=self.dtype)
        if out_sharding is None:
            out_sharding = product_sharding(query, table, (((query.ndim - 1,), (1,)), ((), ())))
        return jnp.dot(query, table.T, **without_none(out_sharding=out_sharding))


def _take(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Return rows of a table; NaN for integers out of bounds."""
    if rows.dtype.itemsize < 4:  # JAX adds the number of rows to negative ones in their own dtype
        rows = rows.astype(jnp.int32)
    return jnp.take(table, rows, axis=0)


answer(Embed)
publish(Embed)
