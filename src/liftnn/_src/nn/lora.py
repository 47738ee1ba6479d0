"""Low-rank adaptation (LoRA) of linear layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import check_features, new_variable, shape_of_input
from liftnn._src.nn.linear import Linear
from liftnn._src.nn.sizes import check_sizes
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import LoRAParam

default_a_initializer = initializers.he_uniform()
default_b_initializer = initializers.zeros


class LoRA(Module):
    """Apply a linear transformation of low rank, and add it to the output of another module: `x @ a @ b + base(x)`.

    `b` is zero at first, so the output is at first that of the other module.

    Args:
      in_features: Number of input features, the size of the input's last axis.
      lora_rank: The rank: number of columns of `lora_a` and of rows of `lora_b`.
      out_features: Number of output features.
      base_module: The module whose output is added. The default, None, means none.
      dtype: Dtype of the computation. The default, None, infers it from input and weights.
      param_dtype: Dtype of the weights; float32 by default.
      a_initializer: Initializer of `lora_a`, of shape `(in_features, lora_rank)`; He uniform by default.
      b_initializer: Initializer of `lora_b`, of shape `(lora_rank, out_features)`; zeros by default.
      lora_param_type: The type of the two Variables; `LoRAParam` by default.
      promote_dtype: A function that casts `(inputs, lora_a, lora_b)` to a common dtype; by default
        `dtypes.promote_dtype`.
      rngs: The random keys: each weight draws one from the stream `params`.
      a_metadata: Metadata of `lora_a`; none by default.
      b_metadata: Metadata of `lora_b`; none by default.

    Raises:
      ArgumentError: If `base_module` is not callable, or if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> linear = liftnn.Linear(3, 4, rngs=liftnn.Rngs(0))
      >>> adapted = liftnn.LoRA(3, 2, 4, base_module=linear, rngs=liftnn.Rngs(1))
      >>> grads = liftnn.grad(lambda model: adapted(jnp.ones((1, 3))).sum(), wrt=liftnn.LoRAParam)(adapted)
      >>> list(grads)
      ['lora_a', 'lora_b']

    References:
      Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, https://arxiv.org/abs/2106.09685
    """

    def __init__(
        self,
        in_features: int,
        lora_rank: int,
        out_features: int,
        *,
        base_module: Callable[..., jax.Array] | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        a_initializer: initializers.Initializer = default_a_initializer,
        b_initializer: initializers.Initializer = default_b_initializer,
        lora_param_type: type[Variable[Any]] = LoRAParam,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        rngs: Rngs,
        a_metadata: Mapping[str, Any] = MappingProxyType({}),
        b_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        if base_module is not None and not callable(base_module):
            raise errors.ArgumentError(
                f"LoRA adds the output of base_module, which is not callable, but of type "
                f"{type(base_module).__qualname__}.",
                "Pass a module with a method __call__.",
            )
        check_sizes(self, in_features=in_features, lora_rank=lora_rank, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.dtype, self.param_dtype = dtype, param_dtype
        self.lora_param_type, self.base_module, self.promote_dtype = (
            lora_param_type,
            base_module,
            promote_dtype,
        )
        a, b = (in_features, lora_rank), (lora_rank, out_features)
        self.lora_a = new_variable(lora_param_type, rngs, a_initializer, a, param_dtype, a_metadata)
        self.lora_b = new_variable(lora_param_type, rngs, b_initializer, b, param_dtype, b_metadata)

    def __call__(self, x: jax.Array, **kwargs: Any) -> jax.Array:
        """Multiply the last axis of the input by both weights, and add the output of the other module.

        Args:
          x: Array of shape `(..., in_features)`.
          **kwargs: Keyword arguments of the other module.

        Returns:
          Array of shape `(..., out_features)`.

        Raises:
          ArgumentError: If the last axis of the input does not have the size `in_features`.
        """
        check_features("LoRA", shape_of_input("LoRA", x), -1, self.in_features)
        inputs, a, b = self.promote_dtype(
            (x, dtypes.value_of(self.lora_a), dtypes.value_of(self.lora_b)), dtype=self.dtype
        )
        y = inputs @ a @ b
        return y if self.base_module is None else y + self.base_module(inputs, **kwargs)


class LoRALinear(Linear):
    """Linear layer with an adaptation of low rank: `y = x @ kernel + bias + x @ a @ b`.

    `kernel` and `bias` have the names and the initial values of those of a `Linear`; the adaptation is the submodule
    `lora`. `b` is zero at first, so the output is at first that of the `Linear`.

    Args:
      in_features: Number of input features, the size of the input's last axis.
      out_features: Number of output features.
      lora_rank: The rank: number of columns of `lora.lora_a` and of rows of `lora.lora_b`.
      lora_dtype: Dtype in which the adaptation is computed. The default, None, infers it from input and weights.
      lora_param_dtype: Dtype of the adaptation's weights; float32 by default.
      a_initializer: Initializer of `lora_a`, of shape `(in_features, lora_rank)`; He uniform by default.
      b_initializer: Initializer of `lora_b`, of shape `(lora_rank, out_features)`; zeros by default.
      lora_param_type: The type of the two Variables; `LoRAParam` by default.
      lora_promote_dtype: A function that casts `(inputs, lora_a, lora_b)` to a common dtype; by default
        `dtypes.promote_dtype`.
      rngs: The random keys: each weight draws one from the stream `params`, those of the adaptation last.
      a_metadata: Metadata of `lora_a`; none by default.
      b_metadata: Metadata of `lora_b`; none by default.
      **kwargs: Further arguments of `Linear`.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> linear = liftnn.Linear(3, 4, rngs=liftnn.Rngs(0))
      >>> adapted = liftnn.LoRALinear(3, 4, lora_rank=2, rngs=liftnn.Rngs(1))
      >>> liftnn.update(adapted, liftnn.state(linear))
      >>> bool((adapted(jnp.ones((1, 3))) == linear(jnp.ones((1, 3)))).all())
      True

    References:
      Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, https://arxiv.org/abs/2106.09685
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        lora_rank: int,
        lora_dtype: DTypeLike | None = None,
        lora_param_dtype: DTypeLike = jnp.float32,
        a_initializer: initializers.Initializer = default_a_initializer,
        b_initializer: initializers.Initializer = default_b_initializer,
        lora_param_type: type[Variable[Any]] = LoRAParam,
        lora_promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        rngs: Rngs,
        a_metadata: Mapping[str, Any] = MappingProxyType({}),
        b_metadata: Mapping[str, Any] = MappingProxyType({}),
        **kwargs: Any,
    ):
        check_sizes(self, lora_rank=lora_rank)
        super().__init__(in_features, out_features, rngs=rngs, **kwargs)
        self.lora = LoRA(
            in_features,
            lora_rank,
            out_features,
            dtype=lora_dtype,
            param_dtype=lora_param_dtype,
            a_initializer=a_initializer,
            b_initializer=b_initializer,
            lora_param_type=lora_param_type,
            promote_dtype=lora_promote_dtype,
            rngs=rngs,
            a_metadata=a_metadata,
            b_metadata=b_metadata,
        )

    def __call__(self, x: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Apply the linear layer, and add the adaptation.

        Args:
          x: Array of shape `(..., in_features)`.
          out_sharding: Sharding of the linear layer's result, for meshes with explicit axes. The default, None, leaves
            it to JAX.

        Returns:
          Array of shape `(..., out_features)`.

        Raises:
          ArgumentError: If the last axis of the input does not have the size `in_features`.
        """
        return super().__call__(x, out_sharding=out_sharding) + self.lora(x)


publish(LoRA, LoRALinear)
