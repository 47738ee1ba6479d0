"""The parametric rectified linear unit."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes
from liftnn._src.nn.arguments import as_input
from liftnn._src.publish import publish
from liftnn._src.variables.variable_types import Param


class PReLU(Module):
    """Multiply negative entries by a learned slope: `y = x if x >= 0 else negative_slope * x`.

    Args:
      negative_slope_init: Initial value of the slope, a scalar; 0.01 by default.
      dtype: Dtype of the computation. The default, None, means the dtype of the input.
      param_dtype: Dtype of the slope; float32 by default.
      promote_dtype: A function that casts `(inputs, negative_slope)` to a common dtype if `dtype` is not None; by
        default `dtypes.promote_dtype`.
      negative_slope_metadata: Metadata of the slope's Param; none by default.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> liftnn.PReLU(0.5)(jnp.array([-2.0, 3.0]))
      Array([-1.,  3.], dtype=float32)

    References:
      He et al., Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852
    """

    def __init__(
        self,
        negative_slope_init: ArrayLike = 0.01,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        negative_slope_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.negative_slope = Param(jnp.asarray(negative_slope_init, param_dtype), **negative_slope_metadata)
        self.dtype, self.param_dtype, self.promote_dtype = dtype, param_dtype, promote_dtype

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Apply the function to each entry.

        Args:
          inputs: Array of any shape.

        Returns:
          Array of the shape of the inputs.
        """
        inputs, slope = as_input("PReLU", inputs), dtypes.value_of(self.negative_slope)
        if self.dtype is None:
            slope = jnp.asarray(slope, inputs.dtype)
        else:
            inputs, slope = self.promote_dtype((inputs, slope), dtype=self.dtype)
        return jnp.where(inputs >= 0, inputs, slope * inputs)


publish(PReLU)
