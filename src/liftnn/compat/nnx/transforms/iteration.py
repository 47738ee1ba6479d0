"""Mapped axes and loops, as `flax.nnx.transforms.iteration`."""

from liftnn._src.compat.axis_names import transform_metadata
from liftnn._src.compat.modules import Module
from liftnn._src.compat.transforms import fori_loop, pmap, scan, vmap, while_loop
from liftnn._src.control_flow.loop_axes import Carry
from liftnn._src.prefixes.prefix import StateAxes
from liftnn._src.variables.state import State

__all__ = [
    "Carry",
    "Module",
    "State",
    "StateAxes",
    "fori_loop",
    "pmap",
    "scan",
    "transform_metadata",
    "vmap",
    "while_loop",
]
