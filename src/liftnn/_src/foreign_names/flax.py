"""Names of Flax, NNX and Linen, and what to write in liftnn."""

FLAX_NAMES = """
liftnn: DenseGeneral (Flax Linen)
    Write `liftnn.LinearGeneral(2, (3, 4), rngs=liftnn.Rngs(0))`, with the number of input features.
liftnn: MultiHeadDotProductAttention SelfAttention (Flax Linen)
    Write `liftnn.MultiHeadAttention(2, 4, rngs=liftnn.Rngs(0))`.
liftnn: compact nowrap (Flax Linen)
    A module has no inline layers. {create}
liftnn: TrainState (Flax)
    An Optimizer has the state of optax, and updates the model in place. {optimizer}
liftnn: FrozenDict freeze unfreeze (Flax Linen)
    A State is a nested mapping. {parameters}
liftnn: List Dict (Flax NNX)
    {lists}
liftnn: data static is_data Data Static Pytree Object (Flax NNX)
    No mark is needed: arrays, Variables and modules are found in attributes, lists and dicts.
    {lists}
liftnn: ModelAndOptimizer (Flax NNX)
    Write `optimizer = liftnn.Optimizer(model, optax.adam(1e-3))` and `optimizer.update(model, grads)`.
liftnn: graphdef (Flax NNX)
    Write `*states, graphdef = liftnn.split(model)`.
liftnn: variables to_flat_state (Flax NNX)
    {parameters}
liftnn: Everything Nothing (Flax NNX)
    Write `liftnn.state(model, ...)` for all, and `liftnn.state(model, None)` for none.
liftnn: get_abstract_model as_abstract (Flax NNX)
    Write `liftnn.eval_shape(make)`, or `liftnn.abstract(make, mesh)`.
"""
