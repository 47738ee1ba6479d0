"""The devices of the examples: up to eight, which the CPU plays where there is no accelerator. Import it before JAX."""

import os

# What the user has set comes last and wins. Accelerators ignore the flag.
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_force_host_platform_device_count=8", os.environ.get("XLA_FLAGS", "")]
).strip()

import jax
from jax.sharding import AxisType, Mesh

MOST_DEVICES = 8


def make_mesh(*names: str) -> Mesh:
    """Returns a mesh of 8 devices, or of 4, 2 or 1 if there are fewer; the second of two axes has at most 4."""
    count = min(MOST_DEVICES, 1 << jax.device_count().bit_length() - 1)
    last = min(4, count) if len(names) > 1 else count
    shape = (count // last, last)[-len(names) :]
    return jax.make_mesh(shape, names, (AxisType.Auto,) * len(names), devices=jax.devices()[:count])
