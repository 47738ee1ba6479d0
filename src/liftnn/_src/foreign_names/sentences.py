"""Sentences that several rows of the tables share, by name."""

_GRADS = "Write `grads = liftnn.grad(loss_fn)(model, x)` and then `optimizer.update(model, grads)`."
SENTENCES = {
    "channels": "Inputs are channels last.",
    "lists": "A module holds lists and dicts of modules: `model.layers = [liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))]`.",
    "create": "Layers and Variables are attributes, set in `__init__`: `model.scale = liftnn.Param(jnp.ones(3))`.",
    "statistic": "Use a Variable that is not a Param: `model.mean = liftnn.Variable(jnp.zeros(3))`.",
    "optimizer": "Pass a transformation of optax: `optimizer = liftnn.Optimizer(model, optax.adam(1e-3))`.",
    "grads": _GRADS,
    "no_zero": f"Gradients are results, and nothing accumulates. {_GRADS}",
    "loop": f"Write the loop. {_GRADS}",
    "parameters": "`liftnn.state(model, liftnn.Param)` is a State of all Params, and its `flat()` a dict by path.",
    "modules": "Iterate with `for path, module in liftnn.iter_modules(model): ...`.",
    "weights": "`liftnn.save_weights(file, model)` writes a file, and `liftnn.load_weights(file, model)` reads it.",
    "place": "`liftnn.device_put(model, jax.devices()[0])` moves a module; arrays are created on the default device.",
    "freeze": "Select what is trained: `liftnn.Optimizer(model, optax.adam(1e-3), wrt=liftnn.PathContains('first'))`.",
    "conv_kernel": "Write `conv.kernel.value`. Its shape is (size, ..., in, out); that of the weight is "
    "(out, in, size, ...).",
    "scale": "Write `norm.scale.value`.",
    "shift": "Write `norm.bias.value`.",
    "call": "The model is an object that holds its weights, so call it: `model(x)`.",
    "mode": "`model.train()` and `model.eval()` switch the mode of all layers.",
    "padded": "Write `jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))`. Inputs are channels last.",
    "schedule": "Pass a schedule of optax: `tx = optax.adam(optax.cosine_decay_schedule(1e-3, 1000))` and "
    "`liftnn.Optimizer(model, tx)`.",
    "draws": "An Rngs makes random keys: `jax.random.normal(liftnn.Rngs(0)(), (3,))`.",
    "callback": "A callback of JAX takes arrays, `jax.pure_callback(np.sin, x, x)`, and a State as an operand, where "
    "it merges the model: `state, graphdef = liftnn.split(model)` and `liftnn.merge(graphdef, state)`.",
    "rngs": "Random keys come from an Rngs: `rngs = liftnn.Rngs(0)` and `key = rngs.params()`.",
}
