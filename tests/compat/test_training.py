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


@pytest.mark.parametrize(
    "tx",
    ["optax.adam(0.1)", "optax.inject_hyperparams(optax.adam)(learning_rate=0.1)", "optax.scale_by_lbfgs()"],
)
def test_an_optimizer_may_have_its_own_update(tx):
    assert_equal_in_both(f"""
class Optimizer(nnx.Optimizer):
    def update(self, model, grads):
        params, grads = nnx.as_pure(nnx.state(model, self.wrt)), nnx.as_pure(nnx.state(grads, self.wrt))
        updates, state = self.tx.update(grads, nnx.as_pure(self.opt_state), params)
        nnx.update(model, optax.apply_updates(params, updates))
        nnx.update(self.opt_state, nnx.state(state))

model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(1)))
optimizer = Optimizer(model, {tx}, wrt=nnx.Param)

@nnx.jit
def step(model, optimizer):
    optimizer.update(model, nnx.grad(lambda m: (m(jnp.ones((1, 2))) ** 2).sum())(model))

for _ in range(2):
    step(model, optimizer)
result = [nnx.state(model), jax.tree.leaves(nnx.state(optimizer))]
""")
