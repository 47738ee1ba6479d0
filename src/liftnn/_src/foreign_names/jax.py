"""Names of JAX that have no counterpart of the same name for modules; `elsewhere.py` finds the others in JAX itself."""

JAX_NAMES = """
liftnn: random PRNGKey key (JAX and Keras)
    {rngs} `jax.random.normal(key, (3,))` draws numbers.
liftnn: lax (JAX)
    Write `liftnn.scan`, `liftnn.cond`, `liftnn.while_loop` and their kin where modules are used, and `jax.lax.add(x,
    x)` for operations of arrays.
liftnn: tree tree_util tree_map (JAX)
    A State is a pytree, and a module is not: `jax.tree.map(jnp.zeros_like, liftnn.state(model))`.
liftnn: tree_leaves tree_flatten tree_structure tree_unflatten (JAX)
    A State is a pytree, and a module is not: `jax.tree.leaves(liftnn.state(model))`.
liftnn: numpy jnp (JAX and PyTorch)
    Write `jax.numpy.ones(3)`.
liftnn: scipy (JAX)
    Write `jax.scipy.special.erf(x)`.
liftnn: image (JAX)
    Write `jax.image.resize(image, (2, 8, 8, 3), 'nearest')`.
liftnn: debug (JAX and Equinox)
    Write `jax.debug.print('{{x}}', x=x)`, also in a `liftnn.jit`.
liftnn: profiler (JAX)
    Write `jax.profiler.annotate_function(model.first.__call__)`.
liftnn: sharding (JAX)
    Write `jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))`.
liftnn: distributed (JAX and PyTorch)
    `jax.distributed.initialize` connects the processes, and `liftnn.make_sharded(make, mesh)` creates a model on all
    devices.
liftnn: pure_callback io_callback (JAX)
    {callback}
liftnn: closure_convert (JAX)
    What a function captures is an input of each transform: `liftnn.jit(lambda x: model(x))(x)`.
liftnn: custom_gradient (JAX and Keras)
    Write `liftnn.custom_vjp(loss_fn)`.
liftnn: jacobian (JAX)
    Write `liftnn.jacrev(loss_fn)`.
liftnn: vectorize (JAX and Keras)
    Write `liftnn.vmap(model)(x)`.
liftnn: named_call (JAX and Flax Linen)
    Write `with jax.named_scope('head'): model(x)`.
"""
