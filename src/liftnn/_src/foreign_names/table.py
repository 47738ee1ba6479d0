"""The table of foreign names: where a name is used, whose name it is, and what to write in liftnn.

`tests/foreign_names/test_table.py` runs the code of every remedy.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

_GRADS = "Write `grads = liftnn.grad(loss_fn)(model, x)` and then `optimizer.update(model, grads)`."
_SENTENCES = {
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
    "call": "The model is an object that holds its weights, so call it: `model(x)`.",
    "mode": "`model.train()` and `model.eval()` switch the mode of all layers.",
    "rngs": "Random keys come from an Rngs: `rngs = liftnn.Rngs(0)` and `key = rngs.params()`.",
}
"""Sentences of several rows."""

_FUNCTION_NAMES = {
    "CELU": "celu", "ELU": "elu", "GELU": "gelu", "GLU": "glu", "Hardsigmoid": "hard_sigmoid",
    "Hardswish": "hard_swish", "Hardtanh": "hard_tanh", "Identity": "identity", "LeakyReLU": "leaky_relu",
    "LogSigmoid": "log_sigmoid", "LogSoftmax": "log_softmax", "ReLU": "relu", "ReLU6": "relu6", "SELU": "selu",
    "SiLU": "silu", "Sigmoid": "sigmoid", "Softmax": "softmax", "Softplus": "softplus", "Softsign": "soft_sign",
    "Swish": "swish", "Tanh": "tanh",
}  # fmt: skip
"""Activations: a class in PyTorch or Keras, a function in liftnn."""
_FILTERED = (
    "jit", "grad", "value_and_grad", "vmap", "pmap", "jvp", "vjp", "jacfwd", "jacrev", "hessian", "eval_shape",
    "make_jaxpr", "custom_jvp", "custom_vjp", "checkpoint",
)  # fmt: skip
"""Transforms that have the prefix `filter_` in Equinox."""

_TABLE = """
liftnn: Conv1d Conv2d Conv3d (PyTorch)
    Write `liftnn.Conv(3, 8, (3, 3), rngs=liftnn.Rngs(0))`, with one kernel size per axis. {channels}
liftnn: Conv1D Conv2D Conv3D (Keras and Haiku)
    Write `liftnn.Conv(3, 8, (3, 3), rngs=liftnn.Rngs(0))`, with one kernel size per axis. {channels}
liftnn: ConvTranspose1d ConvTranspose2d ConvTranspose3d (PyTorch)
    Write `liftnn.ConvTranspose(3, 8, (3, 3), rngs=liftnn.Rngs(0))`. {channels}
liftnn: Conv1DTranspose Conv2DTranspose Conv3DTranspose (Keras and Haiku)
    Write `liftnn.ConvTranspose(3, 8, (3, 3), rngs=liftnn.Rngs(0))`. {channels}
liftnn: BatchNorm1d BatchNorm2d BatchNorm3d (PyTorch)
    Write `liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))`, for any number of axes. {channels}
liftnn: BatchNormalization (Keras)
    Write `liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))`.
liftnn: LayerNormalization (Keras)
    Write `liftnn.LayerNorm(3, rngs=liftnn.Rngs(0))`.
liftnn: InstanceNorm1d InstanceNorm2d InstanceNorm3d (PyTorch)
    Write `liftnn.InstanceNorm(3, rngs=liftnn.Rngs(0))`. {channels}
liftnn: MaxPool1d MaxPool2d MaxPool3d (PyTorch)
    Write `liftnn.max_pool(image, (2, 2), strides=(2, 2))`, a function. {channels}
liftnn: MaxPooling1D MaxPooling2D MaxPooling3D MaxPool1D MaxPool2D MaxPool3D MaxPool (Keras and Haiku)
    Write `liftnn.max_pool(image, (2, 2), strides=(2, 2))`, a function.
liftnn: AvgPool1d AvgPool2d AvgPool3d (PyTorch)
    Write `liftnn.avg_pool(image, (2, 2), strides=(2, 2))`, a function. {channels}
liftnn: AveragePooling1D AveragePooling2D AveragePooling3D AvgPool (Keras and Haiku)
    Write `liftnn.avg_pool(image, (2, 2), strides=(2, 2))`, a function.
liftnn: AdaptiveAvgPool2d GlobalAveragePooling2D (PyTorch and Keras)
    Take the mean over the axes of the image: `image.mean((1, 2))`.
liftnn: Embedding (PyTorch and Keras)
    Write `liftnn.Embed(10, 4, rngs=liftnn.Rngs(0))`.
liftnn: Dense (Keras and Flax Linen)
    Write `liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))`, with the number of input features.
liftnn: DenseGeneral (Flax Linen)
    Write `liftnn.LinearGeneral(2, (3, 4), rngs=liftnn.Rngs(0))`, with the number of input features.
liftnn: MultiheadAttention (PyTorch and Equinox)
    Write `liftnn.MultiHeadAttention(2, 4, rngs=liftnn.Rngs(0))`.
liftnn: MultiHeadDotProductAttention SelfAttention (Flax Linen)
    Write `liftnn.MultiHeadAttention(2, 4, rngs=liftnn.Rngs(0))`.
liftnn: LSTM (PyTorch and Keras)
    Write `liftnn.RNN(liftnn.LSTMCell(2, 3, rngs=liftnn.Rngs(0)))`.
liftnn: GRU (PyTorch and Keras)
    Write `liftnn.RNN(liftnn.GRUCell(2, 3, rngs=liftnn.Rngs(0)))`.
liftnn: Dropout1d Dropout2d Dropout3d SpatialDropout2D (PyTorch and Keras)
    Write `liftnn.Dropout(0.5, broadcast_dims=(1, 2), rngs=liftnn.Rngs(0))`: one mask along these axes.
liftnn: Activation (Keras)
    Activations are functions, also in `liftnn.Sequential(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)),
    liftnn.relu)`.
liftnn: Lambda (Keras and Equinox)
    A layer may be any function: `liftnn.Sequential(lambda x: 2 * x)`.
liftnn: Flatten Reshape (PyTorch and Keras)
    Write `image.reshape(len(image), -1)`.
liftnn: CrossEntropyLoss NLLLoss CategoricalCrossentropy SparseCategoricalCrossentropy (PyTorch and Keras)
    Losses are functions of optax: `optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()`.
liftnn: BCELoss BCEWithLogitsLoss BinaryCrossentropy (PyTorch and Keras)
    Losses are functions of optax: `optax.sigmoid_binary_cross_entropy(logits, targets).mean()`.
liftnn: MSELoss L1Loss MeanSquaredError (PyTorch and Keras)
    Losses are functions of optax: `optax.squared_error(logits, targets).mean()`.
liftnn: losses (Keras)
    Losses are functions of optax: `optax.squared_error(logits, targets).mean()`.
liftnn: ModuleList ModuleDict ParameterList ParameterDict (PyTorch)
    {lists}
liftnn: Parameter (PyTorch)
    Write `liftnn.Param(jnp.ones(3))`.
liftnn: Buffer (PyTorch)
    {statistic}
liftnn: Tensor tensor (PyTorch)
    Arrays are those of JAX: `jnp.asarray([1.0, 2.0])`.
liftnn: no_grad inference_mode enable_grad (PyTorch)
    Gradients are computed by `liftnn.grad` only. `jax.lax.stop_gradient(x)` stops one, and `model.eval()`
    switches the mode.
liftnn: manual_seed set_seed (PyTorch)
    There is no global seed. {rngs}
liftnn: optim Adam AdamW SGD RMSprop optimizers (PyTorch and Keras)
    {optimizer}
liftnn: DataParallel DistributedDataParallel (PyTorch)
    Sharded arrays make a program parallel: `model = liftnn.make_sharded(make, mesh)`.
liftnn: compile (PyTorch)
    Write `liftnn.jit(model)`.
liftnn: functional F (PyTorch)
    The functions are in liftnn: `liftnn.relu(x)`.
liftnn: nn layers (PyTorch, Keras and Flax)
    Layers are in liftnn: `liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))`.
liftnn: Input Model Layer models (Keras)
    Derive a class from `liftnn.Module`, with layers set in `__init__` and the computation in `__call__`.
liftnn: compact nowrap (Flax Linen)
    A module has no inline layers. {create}
liftnn: TrainState (Flax)
    An Optimizer has the state of optax, and updates the model in place. {optimizer}
liftnn: FrozenDict freeze unfreeze (Flax Linen)
    A State is a nested mapping. {parameters}
liftnn: transform transform_with_state without_apply_rng multi_transform (Haiku)
    Modules hold their weights, so nothing is transformed before `liftnn.jit(model)`. {call}
liftnn: get_parameter get_state set_state (Haiku)
    {create}
liftnn: next_rng_key next_rng_keys PRNGSequence (Haiku)
    {rngs}
liftnn: nets (Haiku)
    Write `liftnn.Sequential(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), liftnn.relu)`.
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
Module: parameters named_parameters (PyTorch)
    {parameters}
Module: trainable_variables trainable_weights get_weights weights non_trainable_variables (Keras)
    {parameters}
Module: buffers named_buffers (PyTorch)
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
Module: requires_grad_ (PyTorch)
    {freeze}
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
Variable: requires_grad (PyTorch)
    {freeze}
use_bias: bias with_bias (PyTorch and Haiku)
    Write `liftnn.Linear(2, 3, use_bias=False, rngs=liftnn.Rngs(0))`.
rngs: key rng seed (Equinox and JAX)
    Write `liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))`, or `liftnn.Rngs(jax.random.key(0))`.
epsilon: eps (PyTorch and Equinox)
    Write `liftnn.LayerNorm(3, epsilon=1e-5, rngs=liftnn.Rngs(0))`.
in_features: in_channels in_size input_size input_dim embed_dim query_size (PyTorch and Equinox)
    The number of input features is in_features: `liftnn.Linear(in_features=2, out_features=3,
    rngs=liftnn.Rngs(0))`.
hidden_features: hidden_size features units (PyTorch, Flax Linen and Keras)
    Write `liftnn.LSTMCell(in_features=2, hidden_features=3, rngs=liftnn.Rngs(0))`.
out_features: out_channels out_size output_size output_dim features units filters (PyTorch, Keras and Flax Linen)
    liftnn's layers need both sizes: `liftnn.Linear(in_features=2, out_features=3, rngs=liftnn.Rngs(0))`.
features: embedding_dim output_dim embed_dim embedding_size (PyTorch and Keras)
    Write `liftnn.Embed(num_embeddings=10, features=4, rngs=liftnn.Rngs(0))`.
num_embeddings: input_dim vocab_size (Keras and Haiku)
    Write `liftnn.Embed(num_embeddings=10, features=4, rngs=liftnn.Rngs(0))`.
num_features: normalized_shape num_channels shape input_size channels (PyTorch and Equinox)
    Write `liftnn.LayerNorm(num_features=3, rngs=liftnn.Rngs(0))`.
rate: p dropout dropout_rate (PyTorch and Equinox)
    Write `liftnn.Dropout(rate=0.5, rngs=liftnn.Rngs(0))`.
dropout_rate: dropout dropout_p (PyTorch)
    Write `liftnn.MultiHeadAttention(2, 4, dropout_rate=0.1, rngs=liftnn.Rngs(0))`.
strides: stride (PyTorch)
    Write `liftnn.Conv(3, 8, (3, 3), strides=2, rngs=liftnn.Rngs(0))`.
kernel_dilation: dilation dilation_rate (PyTorch and Keras)
    Write `liftnn.Conv(3, 8, (3, 3), kernel_dilation=2, rngs=liftnn.Rngs(0))`.
feature_group_count: groups (PyTorch and Keras)
    Write `liftnn.Conv(4, 8, (3, 3), feature_group_count=2, rngs=liftnn.Rngs(0))`.
padding: padding_mode (PyTorch)
    Write `liftnn.Conv(3, 8, (3, 3), padding='CIRCULAR', rngs=liftnn.Rngs(0))`.
use_scale: affine elementwise_affine create_scale scale use_weight (PyTorch and Haiku)
    Write `liftnn.LayerNorm(3, use_scale=False, use_bias=False, rngs=liftnn.Rngs(0))`.
time_major: batch_first (PyTorch)
    The batch comes first: `liftnn.RNN(liftnn.LSTMCell(2, 3, rngs=liftnn.Rngs(0)), time_major=False)`.
tx: lr learning_rate optimizer params (PyTorch and Flax)
    {optimizer}
*: training train is_training inference deterministic use_running_average (Keras, Flax Linen and Haiku)
    {mode}
*: device (PyTorch)
    {place}
*: name scope (Flax Linen, Haiku and Keras)
    The attribute is the name of a layer: `model.head = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))`.
*: activation (Keras)
    Call a function on the result: `liftnn.relu(model(x))`.
*: kernel_initializer bias_initializer w_init b_init (Keras and Haiku)
    Write `liftnn.Linear(2, 3, kernel_init=liftnn.initializers.zeros, rngs=liftnn.Rngs(0))`.
call: Optimizer.update (Flax NNX)
    The model comes first: `optimizer.update(model, grads)`.
call: Module.train Module.eval (PyTorch)
    `model.train()` and `model.eval()` only switch the mode; `model(x)` computes.
"""


class ForeignName(NamedTuple):
    """One or several names with the same remedy.

    Args:
      where: What the names are looked up in: `liftnn`, or a class. For the name of an argument: the parameter that
        liftnn has for it, or `*` for any layer. `call` is for functions that were called with other arguments.
      names: The names.
      library: Whose names they are.
      remedy: What to write in liftnn: sentences with code in backticks.
    """

    where: str
    names: tuple[str, ...]
    library: str
    remedy: str


@functools.cache
def rows() -> tuple[ForeignName, ...]:
    """Return all rows. For an argument, the first one applies whose parameter the function has."""
    found: list[ForeignName] = []
    for entry in re.split(r"\n(?=\S)", _TABLE.strip()):
        head, _, text = entry.partition("\n")
        where, names, library = _ROW_HEAD.fullmatch(head).groups()  # pyright: ignore[reportOptionalMemberAccess]
        remedy = " ".join(text.split()).format_map(_SENTENCES)
        found.append(ForeignName(where, tuple(names.split()), library, remedy))
    for name, function in _FUNCTION_NAMES.items():
        text = f"Activations are functions, also in a Sequential: `liftnn.{function}(x)`."
        found.append(ForeignName("liftnn", (name,), "PyTorch and Keras", text))
    for name in _FILTERED:
        text = f"The transforms take modules as arguments: `liftnn.{name}`."
        found.append(ForeignName("liftnn", (f"filter_{name}",), "Equinox", text))
    return tuple(found)


_ROW_HEAD = re.compile(r"(\S+): (.+) \((.+)\)")


@functools.cache
def by_name() -> dict[tuple[str, str], ForeignName]:
    """Return the rows by what a name is looked up in, and name."""
    return {(row.where, name): row for row in reversed(rows()) for name in row.names}
