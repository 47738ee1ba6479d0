"""Adapters of low rank: put them beside the layers of a network, and fold them into the weights after training."""

from typing import Any, cast

import jax
import jax.numpy as jnp

import liftnn as nnx
from model import SileroVAD


class ConvLoRA(nnx.Module):
    """Adds a convolution of low rank, which is zero at first, to one over time; `nnx.LoRA` is that of linear layers.

    Args:
      base_module: the convolution, with as much padding as keeps the length.
      rank: the channels between both new kernels.
      rngs: the stream `params`.
    """

    def __init__(self, base_module: nnx.Conv, rank: int, *, rngs: nnx.Rngs) -> None:
        self.width, channels, features = base_module.kernel.shape
        self.base_module, self.strides = base_module, cast(int, base_module.strides)
        self.lora_a = nnx.LoRAParam(rngs.params.he_uniform()((self.width, channels, rank)))
        self.lora_b = nnx.LoRAParam(jnp.zeros((rank, features)))

    def __call__(self, x: jax.Array) -> jax.Array:
        padding = [(self.width // 2, self.width // 2)]
        low = jax.lax.conv_general_dilated(
            x, self.lora_a.value, (self.strides,), padding, dimension_numbers=("NWC", "WIO", "NWC")
        )
        return self.base_module(x) + low @ self.lora_b.value


def adapt(network: SileroVAD, rank: int, *, rngs: nnx.Rngs) -> SileroVAD:
    """Returns the network with adapters on the encoder and the LSTM; both networks share their weights."""

    def add(path: tuple[Any, ...], x: Any) -> Any:
        if isinstance(x, nnx.Conv) and path[0] == "encoder":
            return ConvLoRA(x, rank, rngs=rngs)
        if isinstance(x, nnx.Linear):
            return nnx.LoRA(x.in_features, rank, x.out_features, base_module=x, rngs=rngs)
        return x

    return nnx.recursive_map(add, network)


def fold(network: SileroVAD) -> SileroVAD:
    """Returns a copy in which the weights contain the adapters: it computes the same, as fast as the first network."""

    def remove(path: tuple[Any, ...], x: Any) -> Any:
        if not isinstance(x, ConvLoRA | nnx.LoRA):
            return x
        base = cast(nnx.Conv | nnx.Linear, x.base_module)
        base.kernel.value += x.lora_a.value @ x.lora_b.value
        return base

    return nnx.recursive_map(remove, nnx.clone(network))
