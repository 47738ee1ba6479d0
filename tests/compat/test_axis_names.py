"""The names of mapped axes in metadata are added and removed as by the functions of Flax NNX."""

import jax.numpy as jnp
import pytest
from tests.compat.oracle import assert_equal_in_both

import liftnn
from liftnn.compat import nnx

SETUP = """
metadata = {nnx.PARTITION_NAME: "layers", "names": "other"}
layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0), kernel_metadata={"out_sharding": ("in", "out"), "eager_sharding": False})
layer.kernel.set_metadata(names=("a", "b"))
"""
TREES = {
    "module": "layer",
    "state": "nnx.state(layer)",
    "variable": "layer.kernel",
    "dict": "{'a': layer.kernel}",
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
@pytest.mark.parametrize("index", [0, 1, 3])
def test_an_axis_is_added_and_removed(tree, index):
    assert_equal_in_both(f"""{SETUP}
tree = {tree}
nnx.spmd.add_axis(tree, {index}, metadata)
added = layer.kernel.out_sharding, layer.kernel.names, layer.bias.has_metadata("out_sharding")
nnx.spmd.remove_axis(tree, {index}, metadata)
result = [added, layer.kernel.out_sharding, layer.kernel.names, layer.kernel, layer.bias]
""")


def test_another_name_of_the_axis_is_an_error():
    v = nnx.Param(jnp.ones((2, 2)), out_sharding=("in", "out"))
    with pytest.raises(liftnn.ArgumentError, match="names the mapped axis 'layers', but axis 0 of"):
        nnx.spmd.remove_axis({"w": v}, 0, {nnx.PARTITION_NAME: "layers"})


@pytest.mark.parametrize("change", [nnx.spmd.add_axis, nnx.spmd.remove_axis])
def test_an_axis_without_a_name_is_an_error(change):
    with pytest.raises(liftnn.ArgumentError) as error:
        change(nnx.Param(jnp.ones(2)), 0, {"names": "x"})
    assert str(error.value) == (
        "`transform_metadata` {'names': 'x'} does not name the axis.\n"
        "Pass the name in a dict: {nnx.PARTITION_NAME: 'layers'}."
    )


def refuse(variable, index, name):
    raise RuntimeError("no axis")


@pytest.mark.parametrize(
    "change, metadata, error",
    [
        (nnx.spmd.remove_axis, {"out_sharding": ("other", "in")}, liftnn.ArgumentError),
        (nnx.spmd.remove_axis, {"on_remove_axis": refuse}, RuntimeError),
        (nnx.spmd.add_axis, {"on_add_axis": refuse}, RuntimeError),
    ],
)
def test_an_error_for_one_variable_changes_none(change, metadata, error):
    variables = [nnx.Param(jnp.ones((2, 2)), out_sharding=("layers", "in"), names=("layers", "a"))]
    variables += [nnx.Param(jnp.ones((2, 2)), **{"out_sharding": ("layers", "in"), **metadata})]
    before = [x.get_metadata() for x in variables]
    with pytest.raises(error):
        change(variables, 0, {nnx.PARTITION_NAME: "layers", "names": "layers"})
    assert [x.get_metadata() for x in variables] == before
