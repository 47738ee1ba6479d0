"""Find a name in the packages that programs use beside liftnn: arrays and their functions, initializers, optimizers."""

from __future__ import annotations

import importlib
import types

_PACKAGES = {
    "jax": "JAX", "jax.nn": "JAX", "jax.numpy": "JAX", "jax.lax": "JAX", "liftnn.initializers": "",
    "jax.tree_util": "JAX", "jax.random": "JAX",
    "jax.numpy.linalg": "JAX", "jax.numpy.fft": "JAX", "jax.ops": "JAX", "optax": "optax",
}  # fmt: skip
"""Whose package it is, by name; nobody's for one of liftnn. The first one that has the name applies."""


def find_elsewhere(name: str) -> tuple[str, str] | None:
    """Find a public function, class or constant of a package, which is loaded for that.

    Args:
      name: The name.

    Returns:
      The library, and the name with that of its package; None if no package has it.
    """
    for package, library in _PACKAGES.items():
        # no deprecated names, which a lookup would warn of
        found = vars(importlib.import_module(package)).get(name)
        if found is not None and not isinstance(found, types.ModuleType):
            return library, f"{package}.{name}"
    return None
