"""Multi-head attention, with a cache of keys and values for decoding step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import check_divides, shape_of_input
from liftnn._src.nn.dot_product_attention import check_mask, dot_product_attention
from liftnn._src.nn.dropout import as_rate, draw_key, fork_stream, is_deterministic
from liftnn._src.nn.key_value_cache import append, fitting, input_shape_of, positions_of, write
from liftnn._src.nn.linear import default_bias_init, default_kernel_init
from liftnn._src.nn.linear_general import LinearGeneral
from liftnn._src.nn.normalization import LayerNorm
from liftnn._src.nn.sizes import check_size_tuples, check_sizes
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.variables.variable_types import Cache

DotGeneral = Callable[..., jax.Array]


class MultiHeadAttention(Module):
    """Apply multi-head attention: in each head, queries attend to all keys; then project the averaged values.

    Queries, keys and values are linear functions of the inputs, the submodules `query`, `key` and `value`; the result
    is one of all heads, the submodule `out`. With one input this is self-attention. For decoding, `init_cache` creates
    the Cache Variables `cached_key`, `cached_value` and `cache_index`; each call then takes the next positions, one or
    a whole prompt, appends their keys and values to the cache, and each position attends to those so far. The results
    are those of one causal call.

    Args:
      num_heads: Number of heads of the queries.
      in_features: Number of input features of the queries.
      qkv_features: Number of features of the queries in all heads, a multiple of `num_heads`. The default, None, means
        `in_features`.
      out_features: Number of output features. The default, None, means `in_features`.
      num_kv_heads: Number of heads of keys and values, a divisor of `num_heads`; each is used by
        `num_heads / num_kv_heads` query heads (grouped-query attention). The default, None, means `num_heads`.
      in_kv_features: Number of input features of keys and values. The default, None, means `in_features`.
      dtype: Dtype of the computation. The default, None, infers it from input and weights.
      param_dtype: Dtype of the weights; float32 by default.
      broadcast_dropout: Whether dropout sets the same weights to zero in all batch elements and heads; True by
        default.
      dropout_rate: The probability that an attention weight is set to zero; 0.0 by default.
      deterministic: Whether dropout is disabled, set by `train()` and `eval()`. With the default, None, one of these or
        each call must set it if `dropout_rate` is not 0.
      precision: Precision of the products, as in `jax.lax.dot_general`, except for those of attention without dropout:
        `jax.nn.dot_product_attention` takes none. The default, None, means the backend's default.
      kernel_init: Initializer of the four kernels; LeCun normal by default.
      out_kernel_init: Initializer of the kernel of `out`. The default, None, means `kernel_init`.
      bias_init: Initializer of the four biases; zeros by default.
      out_bias_init: Initializer of the bias of `out`. The default, None, means `bias_init`.
      use_bias: Whether the four linear functions add biases; True by default.
      attention_fn: A function with the arguments of `dot_product_attention`, which is the default. It is called with
        query, key and value, and by keyword with `mask`, `dropout_rng`, `dropout_rate`, `broadcast_dropout`,
        `deterministic`, `dtype`, `precision`, `module` and `is_causal`, and with `input_positions` if a call has them.
      decode: Whether calls use the cache. The default, None, means False.
      normalize_qk: Whether queries and keys are normalized by a LayerNorm each, `query_ln` and `key_ln`, which
        stabilizes training with high learning rates; False by default.
      qkv_promote_dtype: A function that casts `(inputs, kernel, bias)` of `query`, `key` and `value` to a common dtype;
        by default `dtypes.promote_dtype`.
      out_promote_dtype: The same for `out`.
      ln_promote_dtype: A function that casts `(inputs, scale, bias)` of the LayerNorms; by default
        `dtypes.promote_dtype`.
      qkv_dot_general: The function that computes the products of `query`, `key` and `value`. The default, None, means
        `jax.lax.dot_general`.
      out_dot_general: The same for `out`.
      qkv_dot_general_cls: A function without arguments that creates a new product function for each call of `query`,
        `key` and `value`; it takes precedence over `qkv_dot_general`. The default is None.
      out_dot_general_cls: The same for `out`.
      rngs: The random keys: each weight draws one from the stream `params`, in the order query, key, value,
        normalization, out. If `dropout_rate` is not 0, the stream `dropout` seeds the layer's own stream.
      keep_rngs: Whether the layer has its own stream for dropout; True by default. Otherwise each call must pass
        `rngs`.
      kernel_metadata: Metadata of the kernels' Params; none by default.
      out_kernel_metadata: Metadata of the Param of the kernel of `out`; if it is empty, the default,
        `kernel_metadata`.
      bias_metadata: Metadata of the biases' Params; none by default.
      out_bias_metadata: Metadata of the Param of the bias of `out`; if it is empty, the default, `bias_metadata`.
      query_ln_scale_metadata: Metadata of the Param of the scale of `query_ln`; none by default.
      key_ln_scale_metadata: Metadata of the Param of the scale of `key_ln`; none by default.
      rotary_embedding: A function `(x, positions) -> x`, such as `liftnn.rotary_embedding`, that is applied to queries
        and keys of shape `(*batch, length, heads, depth)` and their positions of shape `(length,)`. The default, None,
        means none.

    Raises:
      ArgumentError: If `num_heads` is not a multiple of `num_kv_heads` or `qkv_features` not one of `num_heads`, if
        `dropout_rate` is not a probability, or if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> layer = liftnn.MultiHeadAttention(num_heads=2, in_features=8, num_kv_heads=1, rngs=liftnn.Rngs(0))
      >>> x = jnp.ones((4, 3, 8))
      >>> layer(x, is_causal=True).shape
      (4, 3, 8)
      >>> layer.init_cache(x.shape)
      >>> [layer(part, decode=True).shape for part in (x[:, :2], x[:, 2:])]
      [(4, 2, 8), (4, 1, 8)]

    References:
      Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762
      Ainslie et al., Training Generalized Multi-Query Transformer Models, https://arxiv.org/abs/2305.13245
      Dehghani et al., Scaling Vision Transformers to 22 Billion Parameters, https://arxiv.org/abs/2302.05442
    """

    # A class default: a layer has this attribute only if it has another value.
    rotary_embedding: Callable[[jax.Array, jax.Array], jax.Array] | None = None

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        qkv_features: int | None = None,
        out_features: int | None = None,
        num_kv_heads: int | None = None,
        in_kv_features: int | None = None,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        broadcast_dropout: bool = True,
        dropout_rate: float = 0.0,
        deterministic: bool | None = None,
        precision: lax.PrecisionLike = None,
        kernel_init: initializers.Initializer = default_kernel_init,
        out_kernel_init: initializers.Initializer | None = None,
        bias_init: initializers.Initializer = default_bias_init,
        out_bias_init: initializers.Initializer | None = None,
        use_bias: bool = True,
        attention_fn: Callable[..., jax.Array] = dot_product_attention,
        decode: bool | None = None,
        normalize_qk: bool = False,
        qkv_promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        out_promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        ln_promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        qkv_dot_general: DotGeneral | None = None,
        out_dot_general: DotGeneral | None = None,
        qkv_dot_general_cls: Callable[[], DotGeneral] | None = None,
        out_dot_general_cls: Callable[[], DotGeneral] | None = None,
        rngs: Rngs,
        keep_rngs: bool = True,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        out_kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        out_bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        query_ln_scale_metadata: Mapping[str, Any] = MappingProxyType({}),
        key_ln_scale_metadata: Mapping[str, Any] = MappingProxyType({}),
        rotary_embedding: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    ):
        self.num_heads, self.in_features = num_heads, in_features
        self.qkv_features = in_features if qkv_features is None else qkv_features
        self.out_features = in_features if out_features is None else out_features
        self.in_kv_features = in_features if in_kv_features is None else in_kv_features
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        check_sizes(self, num_heads=num_heads, num_kv_heads=self.num_kv_heads, qkv_features=self.qkv_features)
        check_size_tuples(
            self, in_features=in_features, out_features=self.out_features, in_kv_features=self.in_kv_features
        )
        check_divides(self, "num_heads", num_heads, "num_kv_heads", self.num_kv_heads)
        check_divides(self, "qkv_features", self.qkv_features, "num_heads", num_heads)
        self.dropout_rate = as_rate("The dropout_rate of a MultiHeadAttention", dropout_rate)
        self.dtype, self.param_dtype = dtype, param_dtype
        self.broadcast_dropout = broadcast_dropout
        self.deterministic = deterministic
        self.precision, self.use_bias, self.attention_fn = precision, use_bias, attention_fn
        self.decode, self.normalize_qk = decode, normalize_qk
        self.qkv_promote_dtype, self.out_promote_dtype = qkv_promote_dtype, out_promote_dtype
        self.ln_promote_dtype = ln_promote_dtype
        self.qkv_dot_general, self.out_dot_general = qkv_dot_general, out_dot_general
        self.qkv_dot_general_cls, self.out_dot_general_cls = qkv_dot_general_cls, out_dot_general_cls
        self.head_dim = self.qkv_features // num_heads
        if rotary_embedding is not None:
            self.rotary_embedding = rotary_embedding

        linear = functools.partial(
            LinearGeneral,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            precision=precision,
            rngs=rngs,
        )
        project = functools.partial(
            linear, kernel_init=kernel_init, bias_init=bias_init, promote_dtype=qkv_promote_dtype,
            dot_general=qkv_dot_general, dot_general_cls=qkv_dot_general_cls, kernel_metadata=kernel_metadata,
            bias_metadata=bias_metadata,
        )  # fmt: skip
        heads, kv_heads = (num_heads, self.head_dim), (self.num_kv_heads, self.head_dim)
        self.query = project(in_features, heads)
        self.key, self.value = (project(self.in_kv_features, kv_heads) for _ in range(2))
        self.query_ln, self.key_ln = (
            LayerNorm(
                self.head_dim, use_bias=False, dtype=dtype, param_dtype=param_dtype, promote_dtype=ln_promote_dtype,
                rngs=rngs, scale_metadata=metadata,
            ) if normalize_qk else None
            for metadata in (query_ln_scale_metadata, key_ln_scale_metadata)
        )  # fmt: skip
        self.out = linear(
            heads, self.out_features, axis=(-2, -1), kernel_init=out_kernel_init or kernel_init,
            bias_init=out_bias_init or bias_init, promote_dtype=out_promote_dtype, dot_general=out_dot_general,
            dot_general_cls=out_dot_general_cls, kernel_metadata=out_kernel_metadata or kernel_metadata,
            bias_metadata=out_bias_metadata or bias_metadata,
        )  # fmt: skip
        self.rngs = fork_stream(rngs, "dropout") if keep_rngs and self.dropout_rate > 0 else None
        self.cached_key: Cache[jax.Array] | None = None
        self.cached_value: Cache[jax.Array] | None = None
        self.cache_index: Cache[jax.Array] | None = None

    def __call__(
        self,
        inputs_q: jax.Array,
        inputs_k: jax.Array | None = None,
        inputs_v: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        deterministic: bool | None = None,
        rngs: Rngs | RngStream | jax.Array | None = None,
        sow_weights: bool = False,
        decode: bool | None = None,
        is_causal: bool = False,
        out_sharding: Any = None,
        qkv_sharding: Any = None,
        input_positions: jax.Array | None = None,
    ) -> jax.Array:
        """Attend from each query to all keys.

        Args:
          inputs_q: Array of shape `(*batch, query_length, in_features)`.
          inputs_k: Array of shape `(*batch, key_length, in_kv_features)`. The default, None, means `inputs_q`.
          inputs_v: Array of shape `(*batch, key_length, in_kv_features)`. The default, None, means `inputs_k`.
          mask: Array that broadcasts to `(*batch, num_heads, query_length, key_length)`; a query ignores keys with an
            entry of False or zero. In decoding, `key_length` is the length of the cache. The default, None, means that
            each query attends to all keys.
          deterministic: Whether dropout is disabled. The default, None, uses the layer's setting.
          rngs: An `Rngs`, a stream or a PRNG key for dropout. The default, None, uses the layer's own stream.
          sow_weights: Whether the attention weights are recorded in the Intermediate `attention_weights`; False by
            default.
          decode: Whether the call uses the cache; then the inputs are the next positions, one or several. The default,
            None, uses the layer's setting.
          is_causal: Whether query `i` ignores the keys after key `i`; False by default. Decoding always is causal.
          out_sharding: Sharding of the result, for meshes with explicit axes. The default, None, leaves it to JAX.
          qkv_sharding: Sharding of queries, keys and values, likewise.
          input_positions: Positions of queries and keys, an array that broadcasts to `(*batch, query_length)`, for
            `rotary_embedding` or else to `attention_fn`. The default, None, means 0, 1, ... or, with a cache, the next.

        Returns:
          Array of shape `(*batch, query_length, out_features)`, of the dtype of the computation. Under a transform, a
          call with positions after the end of the cache gives NaN.

        Raises:
          ArgumentError: If the shapes do not fit, if `inputs_v` is given without `inputs_k`, if dropout is enabled
            without `rngs` or `deterministic` is not set, if there is nothing that takes `input_positions`, or in
            decoding if the cache does not exist, is too short or has another shape or dtype.
        """
        positions = self._positions(input_positions)
        query, key, value = self._project(inputs_q, inputs_k, inputs_v, qkv_sharding)
        decode = self.decode if decode is None else decode
        variables = self.cached_key, self.cached_value, self.cache_index
        cache = fitting(variables, query, key, value) if decode else None
        if self.rotary_embedding is not None:
            at = [
                positions_of(x, cache) if input_positions is None else input_positions for x in (query, key)
            ]
            query, key = map(self.rotary_embedding, (query, key), at)
        stored = key, value
        if cache is not None:
            check_mask(mask, query.shape, cache[0].value.shape)
            stored, (key, value), mask = append(cache, key, value, mask)
        x = self.attention_fn(
            query,
            key,
            value,
            mask=mask,
            dropout_rate=self.dropout_rate,
            broadcast_dropout=self.broadcast_dropout,
            dtype=self.dtype,
            precision=self.precision,
            module=self if sow_weights else None,
            is_causal=is_causal and not decode,
            **self._dropout(deterministic, rngs),
            **positions,
        )
        if cache is not None:  # only now, so that a failing call leaves the cache as it was
            x = write(cache, stored, x)
        return self.out(x, out_sharding=out_sharding)

    def init_cache(self, input_shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> None:
        """Create an empty cache for decoding, or reset the existing one.

        If the weights are stacked along leading axes, as in a `Stack` or in models made under `vmap`, so is the cache.
        On a mesh with explicit axes a cache stays as it is sharded: to divide it, place it by `liftnn.device_put`.

        Args:
          input_shape: Shape `(*batch, length, features)` of the inputs of all calls together: `length` is the largest
            number of positions. The number of features does not matter.
          dtype: Dtype of the cache, which must be that of keys and values; float32 by default.

        Example:
          >>> import jax.numpy as jnp, liftnn
          >>> layer = liftnn.MultiHeadAttention(2, 8, dtype=jnp.bfloat16, decode=True, rngs=liftnn.Rngs(0))
          >>> layer.init_cache((4, 10, 8), dtype=jnp.bfloat16)
          >>> layer(jnp.ones((4, 1, 8))).shape, layer.cached_key.shape, int(layer.cache_index)
          ((4, 1, 8), (4, 10, 2, 4), 1)
        """
        stacked = _stacked_axes(self.key)
        shape = (*stacked, *input_shape[:-1], self.num_kv_heads, self.head_dim)
        self.cached_key, self.cached_value = Cache(jnp.zeros(shape, dtype)), Cache(jnp.zeros(shape, dtype))
        self.cache_index = Cache(jnp.zeros(stacked, jnp.int32))

    def set_view(
        self,
        deterministic: bool | None = None,
        decode: bool | None = None,
        batch_size: int | Sequence[int] | None = None,
        max_length: int | None = None,
    ) -> None:
        """Set the mode of a copy, for `liftnn.view`; `decode=True` creates a cache if there is none.

        Args:
          deterministic: Whether dropout is disabled. None, the default, changes nothing.
          decode: Whether the layer decodes with a cache. None, the default, changes nothing.
          batch_size: The size of the batch in the cache, or its shape.
          max_length: The largest number of positions in the cache.
        """
        self.deterministic = self.deterministic if deterministic is None else deterministic
        if decode and self.cached_key is None:
            self.init_cache(input_shape_of(batch_size, max_length), self.dtype or jnp.float32)
        self.decode = self.decode if decode is None else decode

    def _project(
        self, inputs_q: jax.Array, inputs_k: jax.Array | None, inputs_v: jax.Array | None, sharding: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return queries, keys and values of shape `(*batch, length, heads, head_dim)`, normalized if wanted."""
        if inputs_k is None and inputs_v is not None:
            raise errors.ArgumentError(
                "MultiHeadAttention got inputs_v, but inputs_k is None.",
                "Pass inputs_k alone for keys and values from one array, or both.",
            )
        inputs_k = inputs_q if inputs_k is None else inputs_k
        inputs_v = inputs_k if inputs_v is None else inputs_v
        _check_features("queries", inputs_q, self.in_features)
        _check_features("keys", inputs_k, self.in_kv_features)
        _check_features("values", inputs_v, self.in_kv_features)
        query = self.query(inputs_q, out_sharding=sharding)
        key = self.key(inputs_k, out_sharding=sharding)
        value = self.value(inputs_v, out_sharding=sharding)
        if self.query_ln is not None and self.key_ln is not None:
            query, key = self.query_ln(query), self.key_ln(key)
        return query, key, value

    def _positions(self, positions: jax.Array | None) -> dict[str, Any]:
        """Return the arguments of the attention function that pass positions on."""
        if positions is None or self.rotary_embedding is not None:
            return {}
        if self.attention_fn is dot_product_attention:
            raise errors.ArgumentError(
                "MultiHeadAttention got input_positions, but it has nothing that depends on positions.",
                "Create the layer with rotary_embedding=liftnn.rotary_embedding, or with an attention_fn that takes "
                "input_positions.",
            )
        return {"input_positions": positions}

    def _dropout(
        self, deterministic: bool | None, rngs: Rngs | RngStream | jax.Array | None
    ) -> dict[str, Any]:
        """Return the arguments of the attention function that enable or disable dropout."""
        subject = "The dropout of MultiHeadAttention"
        rate = as_rate("The dropout_rate of a MultiHeadAttention", self.dropout_rate)  # it may have been set
        off = rate == 0.0 or is_deterministic(subject, self.deterministic, deterministic)
        key = None if off else draw_key(subject, self.rngs if rngs is None else rngs, "dropout")
        return {"deterministic": off, "dropout_rng": key}


def _stacked_axes(project: Any) -> tuple[int, ...]:
    """Return the sizes of the axes along which the weights of several layers or models are stacked, mostly none."""
    return getattr(getattr(project, "kernel", None), "shape", ())[:-3]


def _check_features(inputs: str, x: Any, expected: int) -> None:
    """Raise an error if inputs are not an array, or do not have the layer's number of features."""
    shape = shape_of_input("MultiHeadAttention", x)
    if len(shape) < 2 or shape[-1] != expected:
        raise errors.ArgumentError(
            f"This MultiHeadAttention computes {inputs} from inputs of shape (*batch, length, {expected}), but got "
            f"shape {shape}.",
            "Create the layer with the input's number of features, or change the input.",
        )


publish(MultiHeadAttention)
