"""Names of Equinox and optax, and what to write in liftnn."""

FILTERED = (
    "jit", "grad", "value_and_grad", "vmap", "pmap", "jvp", "vjp", "jacfwd", "jacrev", "hessian", "eval_shape",
    "make_jaxpr", "custom_jvp", "custom_vjp", "checkpoint",
)  # fmt: skip
"""Transforms that have the prefix `filter_` in Equinox."""

EQUINOX_NAMES = """
liftnn: filter_shard (Equinox)
    {place}
liftnn: partition filter is_array is_inexact_array is_array_like (Equinox)
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
"""
