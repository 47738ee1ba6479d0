"""Modules in Linen modules, by `ToLinen`, and the rest of the bridge: Flax's own gives the same numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from tests.compat.linen_programs import X, pair, same
from tests.raising import raises

from liftnn import errors
from liftnn.compat import nnx


def block_of(library):
    """A class of modules of a library."""

    class Block(library.Module):
        def __init__(self, din, dout, *, rngs):
            self.linear = library.Linear(din, dout, rngs=rngs)
            self.norm = library.BatchNorm(dout, use_running_average=False, rngs=rngs)
            self.dropout = library.Dropout(0.5, deterministic=False, rngs=rngs)

        def __call__(self, x):
            return self.dropout(self.norm(self.linear(x)))

        def features(self, x):
            return self.linear(x)

    return Block


def test_a_module_in_linen_is_that_of_flax():
    def program(library):
        model = library.bridge.to_linen(block_of(library), 4, dout=3)
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        y, variables = model.init_with_output(keys, X)
        out, updates = model.apply(variables, X, rngs={"dropout": jax.random.key(2)}, mutable=["batch_stats"])
        features = model.apply(variables, X, nnx_method="features")
        return y, variables, out, updates, features

    same(*pair(program))


def test_a_module_within_a_linen_module_has_its_methods_and_its_gradient():
    def program(library):
        class Outer(linen.Module):
            def setup(self):
                self.block = library.bridge.to_linen(block_of(library), 4, 3)

            def __call__(self, x):
                return self.block.features(x).sum()

        model = Outer()
        variables = model.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X)
        params = variables.pop("params")
        return jax.grad(lambda p: model.apply({"params": p, **variables}, X))(params)

    same(*pair(program))


def test_transforms_of_linen_map_modules():
    class Outer(linen.Module):
        @linen.compact
        def __call__(self, x):
            axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            return linen.vmap(nnx.bridge.ToLinen, **axes)(nnx.Linear, args=(4, 3))(x)

    y, variables = Outer().init_with_output(jax.random.key(0), X)
    kernel = variables["params"]["VmapToLinen_0"]["kernel"]
    assert kernel.shape == (2, 4, 3)
    np.testing.assert_allclose(y, jnp.einsum("ab,abc->ac", X, kernel), rtol=1e-5)


def test_declared_shardings_are_in_boxes():
    init = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("in", "out"))
    model = nnx.bridge.to_linen(nnx.Linear, 4, 3, kernel_init=init)
    with jax.set_mesh(jax.make_mesh((1, 1), ("in", "out"), axis_types=(jax.sharding.AxisType.Auto,) * 2)):
        y, variables = model.init_with_output(jax.random.key(0), X)
    box = variables["params"]["kernel"]
    assert isinstance(box, nnx.bridge.NNXMeta)
    assert linen.get_partition_spec(variables)["params"]["kernel"] == jax.sharding.PartitionSpec("in", "out")
    np.testing.assert_allclose(y, X @ box.value, rtol=1e-5)
    same(model.apply(variables, X), y)
    plain = nnx.bridge.to_linen(nnx.Linear, 4, 3, kernel_init=init, metadata_fn=None)
    same(plain.init(jax.random.key(0), X)["params"]["kernel"], box.value)


def test_linen_in_a_module_in_linen():
    class Middle(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.bridge.ToNNX(linen.BatchNorm(use_running_average=False), rngs=rngs)
            self.scale = nnx.Param(jnp.ones(4))

        def __call__(self, x):
            return self.inner(x) * self.scale

    model = nnx.bridge.to_linen(Middle)
    variables = model.init(jax.random.key(0), X)
    direct = linen.BatchNorm(use_running_average=False)
    expected = direct.init(jax.random.key(0), X)
    same(variables["batch_stats"]["inner"], expected["batch_stats"])
    out, updates = model.apply(variables, X, mutable=["batch_stats"])
    expected_out, expected_updates = direct.apply(expected, X, mutable=["batch_stats"])
    same(out, expected_out)
    same(updates["batch_stats"]["inner"], expected_updates["batch_stats"])


def test_linen_prints_a_table_of_it():
    plain = {"force_terminal": False, "width": 200}
    table = nnx.bridge.to_linen(nnx.Linear, 4, 3).tabulate(jax.random.key(0), X, console_kwargs=plain)
    assert "kernel: float32[4,3]" in table
    assert "Total Parameters: 15" in table


def test_values_without_a_variable_are_named_in_a_warning():
    model = nnx.bridge.to_linen(nnx.Linear, 4, 3)
    variables = model.init(jax.random.key(0), X)
    variables["params"]["nothing"] = jnp.ones(3)
    with pytest.warns(UserWarning, match=r"no Variables for: nothing\. They are ignored"):
        y = model.apply(variables, X)
    same(y, X @ variables["params"]["kernel"] + variables["params"]["bias"])


def test_functional_has_init_and_apply():
    def program(library):
        functional = library.bridge.functional(library.Linear)(4, 3)
        state = functional.init(rngs=library.Rngs(0))
        return functional.apply(state)(X)[0]

    same(*pair(program))


def test_with_partitioning_of_the_bridge_gives_a_box_of_linen():
    init = nnx.bridge.with_partitioning(nnx.initializers.ones, ("in", None))
    model = nnx.bridge.to_linen(nnx.Linear, 4, 3, kernel_init=init)
    box = model.init(jax.random.key(0), X)["params"]["kernel"]
    assert isinstance(box, linen.Partitioned)
    assert box.names == ("in", None)


@pytest.mark.parametrize("name", ["ToNNX", "ToLinen", "NNXMeta", "Functional"])
def test_a_class_is_found_where_it_is_public(name):
    cls = getattr(nnx.bridge, name)
    assert cls.__module__ == "liftnn.compat.nnx.bridge"
    assert cls.__qualname__ == name


# --- errors

ERRORS = [
    (
        lambda: nnx.bridge.to_linen(nnx.Linear, 4, 3).init(jax.random.key(0), X, nnx_method="wrong"),
        errors.ArgumentTypeError,
        (
            "Linear.wrong is not defined, but `nnx_method` must name a method.\nPass the name of a method, or the "
            "method itself."
        ),
    ),
    (
        lambda: nnx.bridge.functional(nnx.Linear)(4, 3).apply(nnx.State({})),
        errors.ArgumentError,
        "This Functional of Linear has no structure yet.\nCall `init` first, which creates the module.",
    ),
]


@pytest.mark.parametrize("cause, cls, text", ERRORS)
def test_the_text_of_an_error_is_this(cause, cls, text):
    with raises(cls, text):
        cause()
