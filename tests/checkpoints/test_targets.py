"""Arrays of weak type keep it, and the sharding of those that they replace, on every kind of mesh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from tests.user_modules import Holder

import liftnn

SPECS = [jax.P(), jax.P("a"), jax.P(None, "b"), jax.P("b", "a"), jax.P(("a", "b"))]


@pytest.mark.sample(4)
@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
@pytest.mark.parametrize("number", [1, 1.0, 1j, True])
@pytest.mark.parametrize("way", ["restore", "load_weights"])
def test_a_weak_array_keeps_type_and_sharding(tmp_path, way, number, kind, spec):
    axis = getattr(jax.sharding.AxisType, kind)
    sharding = jax.NamedSharding(jax.make_mesh((4, 2), ("a", "b"), axis_types=(axis, axis)), spec)
    saved = jnp.broadcast_to(jnp.asarray(number), (8, 8))
    model = Holder(w=liftnn.Variable(jax.device_put(saved * type(number)(0), sharding)))
    if way == "restore":
        liftnn.save(tmp_path, 1, Holder(w=liftnn.Variable(saved)))
        liftnn.restore(tmp_path, model)
    else:
        liftnn.save_weights(tmp_path / "w.safetensors", Holder(w=liftnn.Variable(saved)))
        liftnn.load_weights(tmp_path / "w.safetensors", model)
    assert model.w.value.weak_type == saved.weak_type
    assert model.w.value.sharding == sharding
    assert model.w.value.dtype == saved.dtype
    assert (model.w.value == saved).all()
