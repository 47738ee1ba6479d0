"""What an optimizer keeps for a parameter in another shape declares the sharding that follows from the parameter's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import liftnn
from liftnn._src.optim.derived_sharding import derive_sharding

MESHES = [
    jax.make_mesh((4, 2), ("data", "model"), axis_types=(t,) * 2) for t in (AxisType.Auto, AxisType.Explicit)
]


@pytest.mark.parametrize(
    "parameter, shape, rank, expected",
    [
        ((8, 4), (8, 4), None, ("a", "b")),
        ((8, 4), (3, 8, 4), None, (None, "a", "b")),
        ((8, 4), (8, 1), None, ("a", None)),
        ((8, 4), (4,), None, ("b",)),
        ((8, 4), (8,), -2, ("a",)),
        ((8, 8), (8,), -1, ("a",)),
        ((8, 8), (8,), -2, ("b",)),
        ((8, 8), (8,), None, None),
        ((8, 4), (5,), None, None),
        ((8, 4), (4, 8), None, None),
        ((8, 4), (), None, ()),
        ((0, 4), (0,), None, ("a",)),
    ],
)
def test_the_sharding_of_what_is_left_of_the_axes(parameter, shape, rank, expected):
    assert derive_sharding(("a", "b"), parameter, shape, rank) == expected


class Layer(liftnn.Module):
    """A matrix, a square one, a stack of matrices, and a bias."""

    def __init__(self):
        declared = {"wide": ((256, 128), ("model", "data")), "square": ((128, 128), ("data", "model"))}
        declared |= {"stack": ((4, 256, 128), ("data", None, "model")), "bias": ((8,), ("model",))}
        for name, (shape, names) in declared.items():
            setattr(self, name, liftnn.Param(jnp.ones(shape), sharding=names))


FACTORS = {
    ("v_row", "wide"): P("data"),
    ("v_col", "wide"): P("model"),
    ("v_row", "square"): P("data"),
    ("v_col", "square"): P("model"),
    ("v_row", "stack"): P("data", "model"),
    ("v_col", "stack"): P("data", None),
    ("v", "bias"): P("model"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.sample(2)
def test_the_factors_of_adafactor_are_where_the_axes_of_their_parameters_are(mesh):
    def make():
        model = Layer()
        return model, liftnn.Optimizer(model, optax.adafactor(0.1))

    model, optimizer = liftnn.make_sharded(make, mesh)
    plain = make()
    grads = jax.tree.map(jnp.ones_like, liftnn.state(plain[0]))
    with jax.set_mesh(mesh):
        placed = jax.device_put(grads, liftnn.get_named_sharding(model, mesh))
        liftnn.jit(lambda o, m, g: o.update(m, g))(optimizer, model, placed)
    plain[1].update(plain[0], grads)
    for (field, name), spec in FACTORS.items():
        x = getattr(optimizer.opt_state[0], field)[name]
        shardings = liftnn.get_named_sharding(x, mesh).value, NamedSharding(mesh, spec)
        assert shardings[0].is_equivalent_to(shardings[1], x.ndim), (field, name)
        np.testing.assert_allclose(x.value, getattr(plain[1].opt_state[0], field)[name].value, rtol=1e-5)
    np.testing.assert_allclose(model.wide.value, plain[0].wide.value, rtol=1e-5)


def test_the_memories_of_lbfgs_are_sharded_like_their_parameters_behind_a_new_axis():
    optimizer = liftnn.Optimizer(Layer(), optax.lbfgs(memory_size=3))
    memory = optimizer.opt_state[0].diff_params_memory
    assert memory["wide"].sharding == (None, "model", "data")


def test_the_sharding_of_the_optimizer_counts_for_factors_too():
    model = Layer()
    model.wide.set_metadata(optimizer_sharding=("data", None))
    state = liftnn.Optimizer(model, optax.adafactor(0.1)).opt_state[0]
    assert (state.v_col["wide"].out_sharding, state.v_row["wide"].out_sharding) == (("data",), (None,))
