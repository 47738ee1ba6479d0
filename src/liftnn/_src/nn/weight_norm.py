"""Weight normalization: the weights of another layer are divided by their norm for each feature."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from liftnn._src.filters import Filter, PathContains, to_predicate
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import Axes, check_initializer, check_rngs, normalize_axes
from liftnn._src.nn.wrapped_weights import check_layer, divide_by_norm, new_weight_error, variables_by_path
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs
from liftnn._src.trees import Path
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Param

_WITHOUT_KEY = (initializers.ones, initializers.zeros)
"""Initializers of scales for which no key is drawn."""


class WeightNorm(Module):
    """Divide the weights of a layer by their Euclidean norm for each feature, multiply by a scale, then call the layer.

    Each call writes the normalized weights into the layer. So a step of an optimizer moves the weights away from norm
    one, and the next call projects them back, with gradients through the normalization.

    `scales` has the scales, which are Params, by path in the layer, such as `("kernel",)`, or is None without scales.

    Args:
      layer_instance: The layer.
      feature_axes: The axes of a weight along which the norms vary; the last one by default. With None, there is one
        norm for the whole weight.
      use_scale: Whether normalized weights are multiplied by a scale with one entry for each feature; True by default.
      scale_init: Initializer of the scales; ones by default. Other initializers, except zeros, draw one key for each
        weight from the stream `params`.
      epsilon: A small constant added to squared norms, for numerical stability; 1e-12 by default.
      dtype: Dtype of the normalized weights. The default, None, infers it from weight and scale.
      param_dtype: Has no effect, as in Flax NNX: scales are float32. The default is float32.
      variable_filter: A filter that selects the weights; by default those with `kernel` in their path.
      promote_dtype: Has no effect, as in Flax NNX; by default `dtypes.promote_dtype`.
      rngs: The random keys.

    Raises:
      ArgumentError: If a weight does not have the feature axes, or if `rngs` is not an `Rngs`.
      ArgumentTypeError: If `layer_instance` is not a layer.
      FilterError: If `variable_filter` is not a filter.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> rngs = liftnn.Rngs(0)
      >>> layer = liftnn.WeightNorm(liftnn.Linear(2, 3, rngs=rngs), rngs=rngs)
      >>> y = layer(jnp.ones((1, 2)))
      >>> jnp.linalg.norm(layer.layer_instance.kernel.value, axis=0).round(3)
      Array([1., 1., 1.], dtype=float32)

    References:
      Salimans and Kingma, Weight Normalization, https://arxiv.org/abs/1602.07868
    """

    def __init__(
        self,
        layer_instance: Module,
        *,
        feature_axes: Axes | None = -1,
        use_scale: bool = True,
        scale_init: initializers.Initializer = initializers.ones,
        epsilon: float = 1e-12,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        variable_filter: Filter = PathContains("kernel"),  # noqa: B008  # immutable
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        rngs: Rngs,
    ):
        check_rngs(rngs)
        check_layer("WeightNorm", layer_instance)
        self.layer_instance: Any = layer_instance
        self.feature_axes: Axes = () if feature_axes is None else feature_axes
        self.use_scale, self.scale_init, self.epsilon = use_scale, scale_init, epsilon
        self.dtype, self.param_dtype, self.promote_dtype = dtype, param_dtype, promote_dtype
        self.variable_filter = to_predicate(variable_filter)
        self.scales: dict[Path, Param[jax.Array]] | None = None
        if use_scale:
            self.scales = {p: Param(self._new_scale(x.value, rngs)) for p, x in self._selected(Param)}

    def __call__(self, x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        """Normalize the weights of the layer and call it.

        Args:
          x: The input of the layer.
          *args: Other arguments of the layer.
          **kwargs: Keyword arguments of the layer.

        Returns:
          The output of the layer.

        Raises:
          StructureError: If the layer has a weight that it did not have when the WeightNorm was created.
        """
        for path, weight in self._selected(Variable):
            self._normalize(path, weight)
        return self.layer_instance(x, *args, **kwargs)

    def _selected(self, kind: type[Variable[Any]]) -> list[tuple[Path, Variable[jax.Array]]]:
        """Return the Variables of a type that the filter selects."""
        found = variables_by_path(self.layer_instance, kind)
        return [(path, x) for path, x in found if self.variable_filter(path, x)]

    def _new_scale(self, weight: jax.Array, rngs: Rngs) -> jax.Array:
        """Return the initial scale of a weight."""
        shape = tuple(weight.shape[axis] for axis in normalize_axes(weight.ndim, self.feature_axes))
        check_initializer(self.scale_init)
        key: Any = None if self.scale_init in _WITHOUT_KEY else rngs.params()
        return self.scale_init(key, shape, jnp.float32)

    def _normalize(self, path: Path, weight: Variable[jax.Array]) -> None:
        """Normalize one weight in place."""
        value = weight.value
        features = normalize_axes(value.ndim, self.feature_axes)
        others = [axis for axis in range(value.ndim) if axis not in features]
        normalized = divide_by_norm(value, others, self.epsilon)
        scale = None
        if self.scales is not None:
            if path not in self.scales:
                raise new_weight_error("WeightNorm", path)
            shape = [size if axis in features else 1 for axis, size in enumerate(value.shape)]
            scale = self.scales[path][...].reshape(shape)
            normalized = normalized * scale
        weight.value = jnp.asarray(normalized, dtypes.canonicalize_dtype(value, scale, dtype=self.dtype))


publish(WeightNorm)
