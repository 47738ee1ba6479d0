"""Low-rank adaptation, as `flax.nnx.nn.lora`."""

from liftnn._src.nn.lora import LoRA, LoRALinear
from liftnn._src.variables.variable_types import LoRAParam

__all__ = [
    "LoRA",
    "LoRALinear",
    "LoRAParam",
]
