"""A subclass of TrainState is a dataclass, declared in each of the ways that Flax NNX takes."""

import pytest
from tests.compat.oracle import assert_equal_in_both

DECLARATIONS = {
    "class": """
class TrainState(nnx.TrainState):
    stats: nnx.State
    note: str = flax.struct.field(pytree_node=False, default='n')
""",
    "options": """
class TrainState(nnx.TrainState, kw_only=True):
    note: str = flax.struct.field(pytree_node=False, default='n')
    stats: nnx.State
""",
    "decorated by flax.struct": """
@flax.struct.dataclass
class TrainState(nnx.TrainState):
    stats: nnx.State
    note: str = flax.struct.field(pytree_node=False, default='n')
""",
    "a subclass of a decorated class": """
@flax.struct.dataclass
class First(nnx.TrainState):
    stats: nnx.State
class TrainState(First):
    note: str = flax.struct.field(pytree_node=False, default='n')
""",
}


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_a_train_state_is_declared_as_in_flax(declaration):
    assert_equal_in_both(f"""
import dataclasses, flax
{DECLARATIONS[declaration]}
graphdef, params, stats = nnx.split(nnx.BatchNorm(2, rngs=nnx.Rngs(0)), nnx.Param, ...)
state = TrainState.create(graphdef, params=params, tx=optax.sgd(0.1), stats=stats)
state = jax.jit(lambda state: state.apply_gradients(state.params))(state.replace(note='m'))
fields = [f.name for f in dataclasses.fields(state)]
result = [state.params, state.stats, state.step, state.note, fields, len(jax.tree.leaves(state))]
""")
