"""Low-rank adaptation, as `flax.nnx.nn.lora`."""

from liftnn._src.nn.lora import LoRA, LoRALinear, default_a_initializer, default_b_initializer
from liftnn._src.variables.variable_types import LoRAParam

__all__ = [
    "LoRA",
    "LoRALinear",
    "LoRAParam",
    "default_a_initializer",
    "default_b_initializer",
]
