"""Names that JAX, optax or `liftnn.initializers` has: the answer is where, and it is the object of that name."""

from __future__ import annotations

import importlib
import types

import jax
import jax.numpy as jnp
import optax
import pytest

import liftnn
from liftnn._src.foreign_names.elsewhere import find_elsewhere
from liftnn._src.foreign_names.table import by_name

PACKAGES = (
    "jax", "jax.nn", "jax.numpy", "jax.lax", "liftnn.initializers", "jax.tree_util", "jax.random", "jax.numpy.linalg",
    "jax.numpy.fft", "jax.ops", "optax",
)  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES)
def test_each_name_of_a_package_is_answered(package):
    for name, value in vars(importlib.import_module(package)).items():
        if name.startswith("_") or isinstance(value, types.ModuleType) or value is None:
            continue
        if name in liftnn.__all__ or ("liftnn", name) in by_name():
            continue
        _, place = find_elsewhere(name)
        home, _, last = place.rpartition(".")
        assert (home in PACKAGES, last) == (True, name)
        with pytest.raises(AttributeError, match=rf"Write `{place}`"):
            getattr(liftnn, name)


@pytest.mark.parametrize(
    "name, found",
    [
        ("zeros", jnp.zeros),
        ("stop_gradient", jax.lax.stop_gradient),
        ("ShapeDtypeStruct", jax.ShapeDtypeStruct),
        ("mish", jax.nn.mish),
        ("truncated_normal", liftnn.initializers.truncated_normal),
        ("permutation", jax.random.permutation),
        ("adam", optax.adam),
    ],
)
def test_the_place_has_the_object(name, found):
    names = {"jax": jax, "optax": optax, "liftnn": liftnn}
    assert eval(find_elsewhere(name)[1], names) is found


@pytest.mark.parametrize("name", ["qqq", "core", "_src"])
def test_submodules_and_unknown_names_are_not_found(name):
    assert find_elsewhere(name) is None
