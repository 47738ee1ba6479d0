"""Attributes that modules, optimizers and variables of other libraries have, and what to write in liftnn."""

FOREIGN_ATTRIBUTES = """
Module: parameters named_parameters (PyTorch)
    {parameters}
Module: trainable_variables trainable_weights get_weights weights (Keras)
    {parameters}
Module: buffers named_buffers non_trainable_variables non_trainable_weights (PyTorch and Keras)
    Write `liftnn.state(model, liftnn.Not(liftnn.Param))`.
Module: state_dict load_state_dict (PyTorch)
    {weights} `liftnn.from_torch` takes a state_dict of PyTorch.
Module: set_weights load_weights save_weights save (Keras)
    {weights}
Module: to cuda cpu (PyTorch)
    {place}
Module: half float double bfloat16 (PyTorch)
    `liftnn.Linear(2, 3, dtype=jnp.bfloat16, rngs=liftnn.Rngs(0))` computes in another dtype; `param_dtype` is that of
    the weights.
Module: zero_grad (PyTorch)
    {no_zero}
Module: requires_grad_ trainable (PyTorch and Keras)
    {freeze}
Module: training (PyTorch)
    {mode} They set the attribute `model.deterministic = False` of each layer that has it.
Module: losses add_loss (Keras)
    Record a loss with `model.sow(liftnn.Intermediate, 'loss', 0.1)`; `liftnn.capture(model, liftnn.Intermediate)(x)`
    returns the output and what was recorded.
Module: register_buffer (PyTorch)
    {statistic}
Module: register_parameter add_module register_module (PyTorch)
    {create}
Module: param variable make_rng setup (Flax Linen)
    {create} Pass an Rngs to `__init__`.
Module: add_weight build (Keras)
    {create}
Module: children named_children (PyTorch)
    Iterate with `for name, module in model.iter_children(): ...`.
Module: modules named_modules get_submodule get_layer (PyTorch and Keras)
    {modules}
Module: register_forward_hook (PyTorch)
    Record values with `model.sow(liftnn.Intermediate, 'y', x)`, or `liftnn.capture(model,
    liftnn.Intermediate)(x)`.
Module: forward call (PyTorch and Keras)
    The computation of a module is its `__call__`. {call}
Module: init init_with_output lazy_init bind (Flax Linen and Haiku)
    Weights are created with the module, from `liftnn.Rngs(0)`. {call}
Module: apply (Flax Linen, Haiku and PyTorch)
    {call} To change all modules: `for path, module in liftnn.iter_modules(model): ...`.
Module: fit train_on_batch evaluate (Keras)
    {loop}
Module: compile (Keras)
    `liftnn.jit(model)` compiles the call. {optimizer}
Module: predict (Keras)
    {call} Compiled, it is `liftnn.jit(model)(x)`.
Module: summary tabulate (Keras and Flax Linen)
    Write `print(liftnn.tabulate(model, x))`, or `liftnn.count_params(model)`.
Module: count_params (Keras)
    Write `liftnn.count_params(model)`.
Linear: weight (PyTorch and Equinox)
    Write `linear.kernel.value`. Its shape is (in, out); that of the weight is (out, in).
Conv: weight (PyTorch and Equinox)
    {conv_kernel}
ConvTranspose: weight (PyTorch and Equinox)
    {conv_kernel}
Embed: weight embeddings (PyTorch, Equinox, Keras and Haiku)
    Write `embed.embedding.value`.
BatchNorm: weight gamma (PyTorch and Keras)
    {scale}
BatchNorm: beta (Keras)
    {shift}
BatchNorm: running_mean moving_mean (PyTorch and Keras)
    Write `norm.mean.value`.
BatchNorm: running_var moving_variance (PyTorch and Keras)
    Write `norm.var.value`.
GroupNorm: weight gamma (PyTorch, Equinox and Keras)
    {scale}
GroupNorm: beta (Keras)
    {shift}
InstanceNorm: weight (PyTorch)
    {scale}
LayerNorm: weight gamma (PyTorch, Equinox and Keras)
    {scale}
LayerNorm: beta (Keras)
    {shift}
RMSNorm: weight (PyTorch and Equinox)
    {scale}
Dropout: p (PyTorch and Equinox)
    Write `dropout.rate`.
Metric: result (Keras)
    Write `metric.compute()`.
Metric: update_state (Keras)
    Write `metric.update(values=x)`.
Metric: reset_state reset_states (Keras)
    Write `metric.reset()`.
Optimizer: zero_grad (PyTorch)
    {no_zero}
Optimizer: state_dict load_state_dict (PyTorch)
    `liftnn.save(folder, 1, model, optimizer)` saves model and optimizer, here as step 1, and `liftnn.restore(folder,
    model, optimizer)` restores them.
Optimizer: add_param_group (PyTorch)
    Groups are a transformation: `tx = optax.multi_transform(dict(first=optax.adam(1e-2), scale=optax.adam(1e-4)),
    lambda params: params.map(lambda path, p: path[0]))` and `optimizer = liftnn.Optimizer(model, tx)`.
Optimizer: apply_gradients minimize apply (Keras and Flax)
    {grads}
Optimizer: param_groups lr learning_rate (PyTorch and Keras)
    Create it with `optimizer = liftnn.Optimizer(model,
    optax.inject_hyperparams(optax.adam)(learning_rate=1e-3))`, then set
    `optimizer.opt_state.hyperparams['learning_rate'] = 1e-4`.
Optimizer: model params (Flax NNX and Flax)
    An optimizer keeps no reference to the model; pass it: `optimizer.update(model, grads)`.
Optimizer: init (optax)
    The state of optax is created with the Optimizer. {optimizer}
Variable: numpy cpu (PyTorch)
    Write `np.asarray(model.scale.value)`.
Variable: detach (PyTorch)
    Write `jax.lax.stop_gradient(model.scale.value)`.
Variable: backward (PyTorch)
    {grads}
Variable: to cuda (PyTorch)
    {place}
Variable: half float double bfloat16 (PyTorch)
    Write `model.scale.value = model.scale.astype(jnp.bfloat16)`.
Variable: assign assign_add assign_sub copy_ (Keras and PyTorch)
    Write `model.scale.value = jnp.zeros(3)`, or `model.scale.value += 1`.
Variable: unbox (Flax Linen)
    Write `model.scale.value`.
Variable: data (PyTorch)
    Write `model.scale.value = jnp.zeros(3)`.
Variable: grad (PyTorch)
    Gradients are results: `grads = liftnn.grad(loss_fn)(model, x)`.
Variable: requires_grad requires_grad_ (PyTorch)
    {freeze}
"""
