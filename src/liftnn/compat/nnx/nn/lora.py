"""Low-rank adaptation, as `flax.nnx.nn.lora`."""

from liftnn._src.compat.modules import Module
from liftnn._src.nn.linear import Linear
from liftnn._src.nn.lora import LoRA, LoRALinear, default_a_initializer, default_b_initializer
from liftnn._src.variables.variable_types import LoRAParam

__all__ = [
    "Linear",
    "LoRA",
    "LoRALinear",
    "LoRAParam",
    "Module",
    "default_a_initializer",
    "default_b_initializer",
]
