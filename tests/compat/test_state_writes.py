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


MAPPINGS = {
    "map_state to dicts": "nnx.map_state(lambda path, x: {'q': 1}, nnx.State({'a': 2}))",
    "map_state to nested dicts": "nnx.map_state(lambda path, x: {'q': {'r': 1}}, nnx.State({'a': 2}))",
    "map_state to States": "nnx.map_state(lambda path, x: nnx.State({'q': 1}), nnx.State({'a': 2}))",
    "from_flat_state": "nnx.from_flat_state({('a',): {'q': 1}})",
    "from_flat_path": "nnx.State.from_flat_path({('a',): {'q': 1}})",
    "to_nested_state": "nnx.statelib.FlatState([(('a',), {'q': 1})], sort=False).to_nested_state()",
    "an item": "nnx.State({'a': {}}) | nnx.State({'a': {'q': 1}})",
}
"""States in which a value is a mapping."""


@pytest.mark.parametrize("made", MAPPINGS)
def test_a_mapping_in_a_state_is_a_state_as_in_flax(made):
    assert_equal_in_both(
        textwrap.dedent(
            f"""
            state = {MAPPINGS[made]}
            flat = [(list(path), x) for path, x in nnx.to_flat_state(state)]
            result = [flat, type(state['a']).__name__, type(state.a.q).__name__]
            """
        )
    )
