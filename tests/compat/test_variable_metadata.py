"""`VariableMetadata` carries metadata to the Variable that holds its value, as in Flax NNX."""

import pytest
from tests.compat.oracle import assert_equal_in_both

import liftnn
from liftnn.compat import nnx

TEXTS = {
    "metadata": """
        value = nnx.VariableMetadata(jnp.ones((2, 3)), metadata={"out_sharding": None, "tag": "lora"})
        v = nnx.LoRAParam(value)
        result = [v, v.tag, v.has_metadata("out_sharding"), isinstance(value, nnx.VariableMetadata)]
        """,
    "fields": """
        hook = lambda v, x: x
        value = nnx.VariableMetadata(jnp.ones(2), on_get_value=(hook,), metadata={"tag": 1})
        result = [value.raw_value, value.on_get_value == (hook,), value.on_set_value, value.on_create_value,
                  value.on_add_axis, value.on_remove_axis, value.metadata["tag"]]
        """,
    "hooks": """
        v = nnx.Param(nnx.VariableMetadata(jnp.ones(2), on_create_value=(lambda v, x: 2 * x,),
                                           on_get_value=(lambda v, x: x + 1,)))
        result = [v.get_raw_value(), v[...]]
        """,
    "initializers": """
        made = nnx.with_metadata(nnx.initializers.ones, tag="frozen")(jax.random.key(0), (2,))
        result = [isinstance(made, nnx.VariableMetadata), isinstance(jnp.ones(2), nnx.VariableMetadata),
                  made.raw_value, made.metadata["tag"]]
        """,
    "a leaf of pytrees": """
        value = nnx.VariableMetadata(jnp.ones(2), metadata={"tag": "a"})
        result = jax.tree.map(lambda x: x.raw_value, [value, value])
        """,
    "without metadata": """
        result = [nnx.Param(nnx.VariableMetadata(jnp.ones(2))), nnx.VariableMetadata(3).on_get_value]
        """,
    "in an initializer of a layer": """
        init = lambda key, shape, dtype: nnx.VariableMetadata(jnp.ones(shape, dtype), metadata={"tag": "a"})
        layer = nnx.Linear(2, 3, kernel_init=init, rngs=nnx.Rngs(0))
        result = [layer.kernel, layer.kernel.tag]
        """,
    "with the kinds of Variables that there are": """
        v = nnx.Param(nnx.VariableMetadata(jnp.ones(2), metadata={"hijax": False, "ref": False, "tag": 3}))
        result = [v, v.tag]
        """,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_value_with_metadata_acts_as_in_flax(text):
    assert_equal_in_both(text)


def test_a_kind_of_variable_that_liftnn_lacks_is_an_error():
    with pytest.raises(liftnn.ArgumentError, match="liftnn has no Variables with `ref=True`"):
        nnx.VariableMetadata(1.0, metadata={"ref": True})
