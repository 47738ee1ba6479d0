"""Each way to write a State changes the module that the State was taken from exactly if it does so in Flax NNX."""

import itertools
import textwrap

import pytest
from tests.compat.oracle import assert_equal_in_both

TAKEN = {
    "state": "nnx.state(model)",
    "state of a filter": "nnx.state(model, nnx.Param)",
    "split": "nnx.split(model)[1]",
    "split_state": "nnx.split_state(nnx.state(model), nnx.Param)",
    "filter_state": "nnx.filter_state(nnx.state(model), nnx.Param)",
    "merge_state": "nnx.merge_state(nnx.state(model))",
    "from_flat_state": "nnx.from_flat_state(nnx.to_flat_state(nnx.state(model)))",
    "copy": "copy.copy(nnx.state(model))",
    "map": "jax.tree.map(lambda x: x, nnx.state(model))",
}
"""How a State is taken from a module."""

WRITES = {
    "a slice of a Variable": "state['kernel'][...] = 0.0",
    "the value of a Variable": "state['kernel'].value = zeros",
    "set_value": "state['kernel'].set_value(zeros)",
    "an item": "state['kernel'] = nnx.Param(zeros)",
    "an attribute": "state.kernel = nnx.Param(zeros)",
    "a replaced Variable": "state['kernel'] = state['kernel'].replace(zeros)",
    "a deleted item": "del state['kernel']",
    "update": "state.update({'kernel': nnx.Param(zeros)})",
    "the method replace_by_pure_dict": "state.replace_by_pure_dict({'kernel': zeros})",
    "the function replace_by_pure_dict": "nnx.replace_by_pure_dict(state, {'kernel': zeros})",
    "a pure dict": "nnx.to_pure_dict(state)['kernel'] = zeros",
}
"""How it is written."""


@pytest.mark.parametrize("taken, write", list(itertools.product(TAKEN, WRITES)))
@pytest.mark.sample(3)
def test_a_write_reaches_the_module_as_in_flax(taken, write):
    assert_equal_in_both(
        textwrap.dedent(
            f"""
            import copy
            model, zeros = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), jnp.zeros((2, 2))
            variables = [model.kernel, model.bias]
            state = {TAKEN[taken]}
            {WRITES[write]}
            result = [variables, state]
            """
        )
    )
