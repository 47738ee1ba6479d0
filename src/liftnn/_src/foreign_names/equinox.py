"""Names of Equinox and optax, and what to write in liftnn."""

FILTERED = (
    "jit", "grad", "value_and_grad", "vmap", "pmap", "jvp", "vjp", "jacfwd", "jacrev", "hessian", "eval_shape",
    "make_jaxpr", "custom_jvp", "custom_vjp", "checkpoint",
)  # fmt: skip
"""Transforms that have the prefix `filter_` in Equinox."""

EQUINOX_NAMES = """
liftnn: filter_shard (Equinox)
    {place}
liftnn: partition filter is_array is_inexact_array is_array_like is_inexact_array_like (Equinox)
    Filters select Variables by type: `params, rest, graphdef = liftnn.split(model, liftnn.Param, ...)`.
liftnn: combine (Equinox)
    Write `params, rest, graphdef = liftnn.split(model, liftnn.Param, ...)` and `liftnn.merge(graphdef,
    params, rest)`.
liftnn: tree_at (Equinox)
    Modules are mutable: `model.first = liftnn.Linear(2, 3, rngs=liftnn.Rngs(1))`.
liftnn: tree_inference (Equinox)
    {mode}
liftnn: tree_serialise_leaves tree_deserialise_leaves (Equinox)
    {weights}
liftnn: field static_field (Equinox)
    An attribute that is not an array, a Variable or a module is static: `model.rate = 0.5`.
liftnn: apply_updates (optax and Equinox)
    {grads}
liftnn: make_with_state StateIndex StatefulLayer delete_init_state (Equinox)
    A layer writes its state into itself, in a Variable: `model.norm = liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))`,
    `model.steps = liftnn.Variable(jnp.array(0))`.
liftnn: if_array (Equinox)
    An axis is for the arrays of an argument, and what is static has none: `liftnn.vmap(lambda model, x: model(x),
    in_axes=(None, 0))(model, x)`.
liftnn: tree_pprint tree_pformat (Equinox)
    Write `print(model)`, or `print(liftnn.tabulate(model, x))`.
liftnn: tree_equal (Equinox)
    Compare structure and arrays: `liftnn.split(model)[-1] == liftnn.split(model)[-1]` and
    `jax.tree.all(jax.tree.map(jnp.array_equal, liftnn.state(model), liftnn.state(model)))`.
liftnn: filter_pure_callback (Equinox)
    {callback}
liftnn: filter_closure_convert (Equinox)
    What a function captures is an input of each transform: `liftnn.jit(lambda x: model(x))(x)`.
liftnn: MLP (Equinox and Haiku)
    Write `liftnn.Sequential(liftnn.Linear(2, 8, rngs=liftnn.Rngs(0)), liftnn.relu, liftnn.Linear(8, 3,
    rngs=liftnn.Rngs(1)))`.
liftnn: Partial (Equinox)
    Write `functools.partial(loss_fn, model)`.
liftnn: error_if branched_error_if (Equinox)
    Write `error, y = liftnn.checkify(model)(x)`, with `checkify.check` of JAX in the function, and then
    `error.throw()`.
liftnn: assert_max_traces (Equinox)
    Write `liftnn.jit(model, max_traces=1)`.
liftnn: Shared (Equinox)
    An object in two places is shared: `model.second = model.first`.
liftnn: RotaryPositionalEmbedding (Equinox)
    Write `liftnn.rotary_embedding(heads)`, for an array of shape `(batch, length, heads, features)`.
"""
