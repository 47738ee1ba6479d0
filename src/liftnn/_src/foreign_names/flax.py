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
liftnn: cached_partial jit_partial (Flax NNX)
    A repeated call of a compiled function flattens nothing: `functools.partial(liftnn.jit(loss_fn), model)(x)`.
liftnn: pure as_pure to_pure_dict (Flax NNX)
    Write `liftnn.state(model).to_pure_dict()`.
liftnn: replace_by_pure_dict restore_int_paths (Flax NNX)
    `liftnn.update` takes such a dict: `liftnn.update(model, liftnn.state(model).to_pure_dict())`.
liftnn: with_rngs (Flax NNX)
    Write `with liftnn.split_rngs(model, splits=4): ...`, or `liftnn.fork_rngs`. A `liftnn.vmap` gives each element keys
    of its own anyway.
liftnn: logical_axis_rules (Flax NNX and Linen)
    Write `with liftnn.axis_rules([('embed', 'data')]): ...`.
liftnn: set_logical_axis_rules (Flax Linen)
    Write `with liftnn.axis_rules([('embed', 'data')]): ...`.
liftnn: Partitioned LogicallyPartitioned with_logical_partitioning get_sharding (Flax Linen)
    Write `liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, 'data'))`, and
    `liftnn.get_named_sharding(liftnn.state(model), mesh)`.
liftnn: RoPE dot_product_attention_with_rope (Flax)
    Write `liftnn.rotary_embedding(heads)`, or `liftnn.MultiHeadAttention(2, 4,
    rotary_embedding=liftnn.rotary_embedding, rngs=liftnn.Rngs(0))`.
liftnn: OptArray OptVariable (Flax NNX)
    Write `liftnn.OptState`.
liftnn: find_duplicates (Flax NNX)
    Write `liftnn.find_shared(model)`.
liftnn: iter_module_children (Flax NNX)
    Write `liftnn.iter_children(model)`.
liftnn: flatten unflatten (Flax NNX)
    Write `state, graphdef = liftnn.split(model)` and `liftnn.merge(graphdef, state)`.
liftnn: to_tree from_tree split_context merge_context update_context (Flax)
    Write `state, graphdef = liftnn.split(model)` and `liftnn.merge(graphdef, state)`; `liftnn.lift` makes transforms.
liftnn: filter_state split_state (Flax NNX)
    Write `liftnn.state(model).split(liftnn.Param, ...)`, or `liftnn.state(model, liftnn.Param)` for one type alone.
liftnn: FlatState from_flat_state (Flax NNX)
    Write `liftnn.state(model).flat()`.
liftnn: abstract_with_sharding (Flax NNX)
    Write `liftnn.abstract(make, mesh)`.
liftnn: set_graph_mode set_graph_updates (Flax NNX)
    There is one mode, in which sharing, cycles and changes of structure work: `liftnn.jit(model)(x)`.
liftnn: dataclass (Flax NNX)
    Decorate the class with `dataclasses.dataclass`, of the standard library.
liftnn: training (Flax)
    {optimizer}
liftnn: remat_scan (Flax Linen)
    Write `liftnn.Stack(6, make, remat=True)`.
liftnn: map_state (Flax NNX)
    Write `liftnn.state(model).map(lambda path, value: 2 * value)`.
liftnn: GraphState PureState (Flax NNX)
    Write `liftnn.State`.
liftnn: apply init_with_output bind (Flax Linen)
    Weights are created with the module. {call}
liftnn: intercept_methods (Flax Linen and Haiku)
    Outputs of methods are recorded by `liftnn.capture(model, method_outputs=liftnn.Intermediate)(x)`.
"""
