"""Spectral normalization: the weights of another layer are divided by their largest singular value."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import check_rngs
from liftnn._src.nn.explicit_axes import automatic, entries_of, in_place_of
from liftnn._src.nn.wrapped_weights import check_layer, divide_by_norm, new_weight_error, variables_by_path
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs
from liftnn._src.trees import Path, format_path
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import BatchStat, Param

default_u_init = initializers.normal()


class SpectralNorm(Module):
    """Divide each weight matrix of a layer by an estimate of its largest singular value, then call the layer.

    Each call takes `n_steps` steps of power iteration from the vector `u` that the last training call has stored, and
    writes the normalized weights into the layer. Weights of more than two axes are matrices of shape
    `(product of the other axes, last axis)`; weights of fewer axes are left as they are. After `eval()` on the
    layer, or on a module that contains it, calls do not store `u` and `sigma`; `train()` reverts this.

    `batch_stats` has the statistics, as BatchStats by path in the layer. For a weight at `("kernel",)` they are
    `("kernel", "u")`, of shape `(1, last axis)`, and `("kernel", "sigma")`, the singular value, of shape `()`.

    Args:
      layer_instance: The layer.
      n_steps: Number of steps of power iteration in each call; 1 by default. With 0, the layer is not normalized.
      epsilon: A small constant added to squared norms, for numerical stability; 1e-12 by default.
      dtype: Dtype to which the normalized weights are rounded. The default, None, infers it from weight and statistics.
        The weights keep their own dtype.
      param_dtype: Dtype of the statistics `u` and `sigma`; float32 by default.
      error_on_non_matrix: Whether a weight of more than two axes is an error. False by default.
      update_stats: Whether a call stores its `u` and `sigma`; True by default.
      rngs: The random keys: the `u` of each matrix draws one from the stream `params`, in the order of their paths.

    Raises:
      ArgumentError: If `error_on_non_matrix` is True and a weight has more than two axes, or if `rngs` is not an
        `Rngs`.
      ArgumentTypeError: If `layer_instance` is not a layer.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> rngs = liftnn.Rngs(0)
      >>> layer = liftnn.SpectralNorm(liftnn.Linear(2, 3, rngs=rngs), n_steps=20, rngs=rngs)
      >>> y = layer(jnp.ones((1, 2)))
      >>> jnp.linalg.svd(layer.layer_instance.kernel.value, compute_uv=False).max().round(3)
      Array(1., dtype=float32)

    References:
      Miyato et al., Spectral Normalization for Generative Adversarial Networks, https://arxiv.org/abs/1802.05957
    """

    def __init__(
        self,
        layer_instance: Module,
        *,
        n_steps: int = 1,
        epsilon: float = 1e-12,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        error_on_non_matrix: bool = False,
        update_stats: bool = True,
        rngs: Rngs,
    ):
        check_rngs(rngs)
        check_layer("SpectralNorm", layer_instance)
        self.layer_instance: Any = layer_instance
        self.n_steps, self.epsilon = n_steps, epsilon
        self.dtype, self.param_dtype = dtype, param_dtype
        self.error_on_non_matrix = error_on_non_matrix
        self.use_running_average = not update_stats  # the attribute that train() and eval() set
        self.batch_stats: dict[Path, BatchStat[jax.Array]] = {}
        for path, weight in self._matrices():
            key, last = rngs.params(), weight.value.shape[-1]
            self.batch_stats[(*path, "u")] = BatchStat(default_u_init(key, (1, last), param_dtype))
            self.batch_stats[(*path, "sigma")] = BatchStat(jnp.ones((), param_dtype))

    def __call__(self, x: jax.Array, update_stats: bool | None = None) -> jax.Array:
        """Normalize the weights of the layer and call it.

        Args:
          x: The input of the layer.
          update_stats: Whether this call stores its `u` and `sigma`. The default, None, uses the layer's setting.

        Returns:
          The output of the layer.

        Raises:
          ArgumentError: If `error_on_non_matrix` is True and a weight has more than two axes.
          StructureError: If the layer has a weight that it did not have when the SpectralNorm was created.
        """
        update = not self.use_running_average if update_stats is None else update_stats
        for path, weight in self._matrices():
            self._normalize(path, weight, update)
        return self.layer_instance(x)

    def _matrices(self) -> list[tuple[Path, Variable[jax.Array]]]:
        """Return the weights to normalize; raise ArgumentError if one has more axes than is allowed."""
        if self.n_steps < 1:
            return []
        weights = [(path, x) for path, x in variables_by_path(self.layer_instance, Param) if x.value.ndim > 1]
        for path, weight in weights:
            if self.error_on_non_matrix and weight.value.ndim > 2:
                raise errors.ArgumentError(
                    f"SpectralNorm with error_on_non_matrix=True needs matrices, but the shape of "
                    f"layer_instance.{format_path(path)} is {weight.value.shape}.",
                    "Pass error_on_non_matrix=False to normalize it as a matrix of shape (..., last axis).",
                )
        return weights

    def _normalize(self, path: Path, weight: Variable[jax.Array], update: bool) -> None:
        """Normalize one weight in place; store its statistics if `update`."""
        stats = self.batch_stats.get((*path, "u")), self.batch_stats.get((*path, "sigma"))
        if stats[0] is None or stats[1] is None:
            raise new_weight_error("SpectralNorm", path)
        replicated = PartitionSpec()
        weight_spec = PartitionSpec(*(entries_of(weight.value) or ()))
        u, v, sigma, normalized = automatic(
            self._iterate, (replicated, replicated, replicated, weight_spec), stats[0].value, weight.value
        )
        if update:
            for stat, new in ((stats[0], u), (stats[1], sigma)):
                stat.value = in_place_of(stat.value, new.astype(stat.value.dtype))
        dtype = dtypes.canonicalize_dtype(normalized, u, v, sigma, dtype=self.dtype)
        weight.value = normalized.astype(dtype).astype(weight.value.dtype)

    def _iterate(self, u: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Return the singular vectors (which gradients do not go through) and value, and the normalized weight."""
        matrix = weight.reshape(-1, weight.shape[-1])
        v = u
        for _ in range(self.n_steps):
            v = divide_by_norm(jnp.matmul(u, matrix.T), None, self.epsilon)
            u = divide_by_norm(jnp.matmul(v, matrix), None, self.epsilon)
        u, v = lax.stop_gradient(u), lax.stop_gradient(v)
        sigma = jnp.matmul(jnp.matmul(v, matrix), u.T)[0, 0]
        return u, v, sigma, (matrix / jnp.where(sigma != 0, sigma, 1)).reshape(weight.shape)


publish(SpectralNorm)
