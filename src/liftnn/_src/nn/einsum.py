"""A layer for any Einstein summation of its input with a kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import as_tuple, new_param, shape_of_input, without_none
from liftnn._src.nn.explicit_axes import sharded_like_batch, sharding_of_result
from liftnn._src.nn.linear import default_bias_init, default_kernel_init
from liftnn._src.nn.sizes import check_size_tuples
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs


class Einsum(Module):
    """Apply an Einstein summation to the input and a kernel, and add a bias.

    Args:
      einsum_str: The equation `"input,kernel->result"`, such as `"nta,hab->nthb"`. Spaces are ignored.
      kernel_shape: Shape of the kernel.
      bias_shape: Shape of the bias: the sizes of the kernel axes that are in the result, in the order of the
        result. The default, None, means no bias.
      dtype: Dtype of the computation. The default, None, infers it from input and weights.
      param_dtype: Dtype of the weights; float32 by default.
      precision: Precision of the product, as in `jax.numpy.einsum`. The default, None, means the backend's default.
      kernel_init: Initializer of the kernel; LeCun normal by default.
      bias_init: Initializer of the bias; zeros by default.
      promote_dtype: A function that casts `(inputs, kernel, bias)` to a common dtype; by default
        `dtypes.promote_dtype`.
      einsum_op: The function that computes the sum, `jax.numpy.einsum` by default.
      preferred_element_type: Dtype in which the product is accumulated and returned. The default, None, means the
        dtype of the operands.
      rngs: The random keys: each weight draws one from the stream `params`.
      kernel_metadata: Metadata of the kernel's Param; none by default.
      bias_metadata: Metadata of the bias's Param; none by default.

    Raises:
      ArgumentError: If the equation does not have two operands and a `->`, if the kernel does not have one axis for
        each of its letters, or if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.Einsum("nta,hab->nthb", (8, 2, 4), (8, 4), rngs=liftnn.Rngs(0))
      >>> layer(jnp.ones((16, 11, 2))).shape
      (16, 11, 8, 4)
    """

    def __init__(
        self,
        einsum_str: str,
        kernel_shape: tuple[int, ...],
        bias_shape: tuple[int, ...] | None = None,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: initializers.Initializer = default_kernel_init,
        bias_init: initializers.Initializer = default_bias_init,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        einsum_op: Callable[..., jax.Array] = jnp.einsum,
        preferred_element_type: DTypeLike | None = None,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.einsum_str = _checked(einsum_str)
        check_size_tuples(
            self, kernel_shape=kernel_shape, bias_shape=() if bias_shape is None else bias_shape
        )
        _check_axes(self.einsum_str, as_tuple(kernel_shape))
        self.kernel = new_param(rngs, kernel_init, kernel_shape, param_dtype, kernel_metadata)
        self.bias = None
        if bias_shape is not None:
            self.bias = new_param(rngs, bias_init, bias_shape, param_dtype, bias_metadata)
        self.kernel_shape, self.bias_shape = kernel_shape, bias_shape
        self.dtype, self.param_dtype, self.precision = dtype, param_dtype, precision
        self.promote_dtype, self.einsum_op = promote_dtype, einsum_op
        self.preferred_element_type = preferred_element_type

    def __call__(
        self, inputs: jax.Array, einsum_str: str | None = None, out_sharding: Any = None
    ) -> jax.Array:
        """Apply the summation to the inputs and the kernel, and add the bias.

        Args:
          inputs: Array with the axes of the first operand.
          einsum_str: An equation for this call. The default, None, uses the layer's equation.
          out_sharding: Sharding of the result, for meshes with explicit axes. The default, None, leaves it to JAX.

        Returns:
          Array with the axes of the result, of the dtype of the computation.

        Raises:
          ArgumentError: If the equation does not have two operands and a `->`, or if the shape of the inputs or that of
            the bias does not fit it.
        """
        equation = self.einsum_str if einsum_str is None else _checked(einsum_str)
        _check_input(equation, shape_of_input("Einsum", inputs), dtypes.value_of(self.kernel).shape)
        inputs, kernel, bias = self.promote_dtype(
            (inputs, dtypes.value_of(self.kernel), dtypes.value_of(self.bias)), dtype=self.dtype
        )
        if self.einsum_op is jnp.einsum:
            axes = _sources(equation, inputs.ndim, kernel.ndim)
            batch = [(j, i) for i, j in axes if None not in (i, j) and kernel.shape[j] == inputs.shape[i]]
            kernel = sharded_like_batch(kernel, inputs, batch)
            out_sharding = out_sharding or sharding_of_result(inputs, kernel, axes)
        options = without_none(out_sharding=out_sharding, preferred_element_type=self.preferred_element_type)
        y = self.einsum_op(equation, inputs, kernel, precision=self.precision, **options)
        return y if bias is None else y + _spread_bias(bias, equation, kernel.shape, y.ndim)


def _checked(equation: str) -> str:
    """Return the equation without spaces; raise ArgumentError if it does not have two operands and a result."""
    equation = equation.replace(" ", "")
    if equation.count(",") != 1 or equation.count("->") != 1:
        raise errors.ArgumentError(
            f"An Einsum layer needs two operands and an explicit result, but its equation is {equation!r}.",
            'Write it as "input,kernel->result", for example "nta,hab->nthb".',
        )
    operands, result = equation.split("->")
    unknown = sorted(set(result) - set(operands) - {"."})
    if unknown:
        raise errors.ArgumentError(
            f"The result of the equation {equation!r} has {unknown[0]!r}, which neither the input nor the kernel has.",
            "Use letters of the input and of the kernel in the result.",
        )
    return equation


def _check_axes(equation: str, shape: tuple[int, ...]) -> None:
    """Raise ArgumentError if a kernel does not have one axis for each letter."""
    operand = equation.split("->")[0].split(",")[1]
    if not _has_axes(operand, shape):
        raise errors.ArgumentError(
            f"The kernel of an Einsum of {equation!r} has the axes {operand!r}, but its shape is {shape}.",
            "Pass a kernel_shape with one size for each letter; `...` in the equation stands for any further axes.",
        )


def _check_input(equation: str, shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> None:
    """Raise ArgumentError if an input does not have the axes of the equation, or other sizes than the kernel."""
    operand, kernel = equation.split("->")[0].split(",")
    if not _has_axes(operand, shape):
        raise errors.ArgumentError(
            f"This Einsum of {equation!r} expects an input with the axes {operand!r}, but its shape is {tuple(shape)}.",
            "Pass an input with one axis for each letter; `...` in the equation stands for any further axes.",
        )
    _check_axes(equation, kernel_shape)
    sizes = dict(zip(_labels(kernel, len(kernel_shape)), kernel_shape, strict=True))
    for axis, label in enumerate(_labels(operand, len(shape))):
        wanted = sizes.get(label, 1)
        if shape[axis] != wanted and 1 not in (shape[axis], wanted):
            named = f"{label!r}" if isinstance(label, str) else "one of `...`"
            raise errors.ArgumentError(
                f"This Einsum of {equation!r} expects the size {wanted} of its kernel along axis {axis}, {named}, but "
                f"its input of shape {tuple(shape)} has {shape[axis]}.",
                "Create the layer with the input's sizes, or change the input.",
            )


def _has_axes(operand: str, shape: tuple[int, ...]) -> bool:
    """Return whether a shape has one axis for each letter of an operand, and any number for `...`."""
    letters = len(operand.replace("...", ""))
    return len(shape) == letters or ("..." in operand and len(shape) > letters)


def _labels(operand: str, rank: int) -> list[str | int]:
    """Return the label of each axis of an operand: a letter, or for `...` numbers from the last axis, as they match."""
    before, dots, after = operand.partition("...")
    n_dots = rank - len(before) - len(after) if dots else 0
    return [*before, *range(-n_dots, 0), *after]


def _sources(equation: str, *ranks: int) -> list[Any]:
    """Return the axis of each operand, or None, that each axis of the result comes from."""
    operands, result = equation.split("->")
    labels = [_labels(operand, rank) for operand, rank in zip(operands.split(","), ranks, strict=True)]
    before, dots, after = result.partition("...")
    n_dots = max(sum(isinstance(label, int) for label in each) for each in labels) if dots else 0
    wanted = [*before, *range(-n_dots, 0), *after]
    return [tuple([each.index(label) if label in each else None for each in labels]) for label in wanted]


def _spread_bias(bias: jax.Array, equation: str, kernel_shape: tuple[int, ...], ndim: int) -> jax.Array:
    """Return the bias in the shape in which it is added; raise ArgumentError if it does not have the kernel's sizes."""
    wanted = _bias_shape(equation, kernel_shape, ndim)
    if math.prod(wanted) != math.prod(bias.shape):
        raise errors.ArgumentError(
            f"The bias of this Einsum of {equation!r} has the shape {bias.shape}, but it is added to a result with the "
            f"kernel's sizes {wanted}.",
            "Pass as bias_shape the sizes of the kernel's axes that are in the result, in the order of the result.",
        )
    return bias.reshape(wanted)


def _bias_shape(equation: str, kernel_shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Return the bias shape for the result: the kernel's size for each axis of the kernel, and 1 for the others."""
    operands, result = equation.split("->")
    named, spread = _kernel_sizes(operands.split(",")[1], kernel_shape)
    before, _, after = result.partition("...")
    others = (1,) * (ndim - len(before) - len(after) - len(spread))
    if "..." not in result:
        spread = ()
    return (*[named.get(c, 1) for c in before], *others, *spread, *[named.get(c, 1) for c in after])


def _kernel_sizes(operand: str, shape: tuple[int, ...]) -> tuple[dict[str, int], tuple[int, ...]]:
    """Return the sizes of the kernel's axes: by letter, and those of the axes that `...` stands for."""
    before, dots, after = operand.partition("...")
    end = len(shape) - len(after)
    sizes = {**dict(zip(before, shape, strict=False)), **dict(zip(after, shape[end:], strict=True))}
    return sizes, shape[len(before) : end] if dots else ()


publish(Einsum)
