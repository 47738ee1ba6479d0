"""Names of PyTorch, also those that Keras or Equinox has too, and what to write in liftnn."""

ACTIVATIONS = {
    "CELU": "celu", "ELU": "elu", "GELU": "gelu", "GLU": "glu", "Hardsigmoid": "hard_sigmoid",
    "Hardswish": "hard_swish", "Hardtanh": "hard_tanh", "Identity": "identity", "LeakyReLU": "leaky_relu",
    "LogSigmoid": "log_sigmoid", "LogSoftmax": "log_softmax", "ReLU": "relu", "ReLU6": "relu6", "SELU": "selu",
    "SiLU": "silu", "Sigmoid": "sigmoid", "Softmax": "softmax", "Softplus": "softplus", "Softsign": "soft_sign",
    "Swish": "swish", "Tanh": "tanh",
}  # fmt: skip
"""Activations: a class in PyTorch or Keras, a function in liftnn."""

PYTORCH_NAMES = """
liftnn: Conv1d Conv2d Conv3d (PyTorch)
    Write `liftnn.Conv(3, 8, (3, 3), rngs=liftnn.Rngs(0))`, with one kernel size per axis. {channels}
liftnn: ConvTranspose1d ConvTranspose2d ConvTranspose3d (PyTorch)
    Write `liftnn.ConvTranspose(3, 8, (3, 3), rngs=liftnn.Rngs(0))`. {channels}
liftnn: BatchNorm1d BatchNorm2d BatchNorm3d (PyTorch)
    Write `liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))`, for any number of axes. {channels}
liftnn: InstanceNorm1d InstanceNorm2d InstanceNorm3d (PyTorch)
    Write `liftnn.InstanceNorm(3, rngs=liftnn.Rngs(0))`. {channels}
liftnn: MaxPool1d MaxPool2d MaxPool3d (PyTorch)
    Write `liftnn.max_pool(image, (2, 2), strides=(2, 2))`, a function. {channels}
liftnn: AvgPool1d AvgPool2d AvgPool3d (PyTorch)
    Write `liftnn.avg_pool(image, (2, 2), strides=(2, 2))`, a function. {channels}
liftnn: AdaptiveAvgPool2d GlobalAveragePooling2D (PyTorch and Keras)
    Take the mean over the axes of the image: `image.mean((1, 2))`.
liftnn: Embedding (PyTorch and Keras)
    Write `liftnn.Embed(10, 4, rngs=liftnn.Rngs(0))`.
liftnn: MultiheadAttention (PyTorch and Equinox)
    Write `liftnn.MultiHeadAttention(2, 4, rngs=liftnn.Rngs(0))`.
liftnn: LSTM (PyTorch and Keras)
    Write `liftnn.RNN(liftnn.LSTMCell(2, 3, rngs=liftnn.Rngs(0)))`.
liftnn: GRU (PyTorch and Keras)
    Write `liftnn.RNN(liftnn.GRUCell(2, 3, rngs=liftnn.Rngs(0)))`.
liftnn: Dropout1d Dropout2d Dropout3d SpatialDropout2D (PyTorch and Keras)
    Write `liftnn.Dropout(0.5, broadcast_dims=(1, 2), rngs=liftnn.Rngs(0))`: one mask along these axes.
liftnn: Flatten Reshape (PyTorch and Keras)
    Write `image.reshape(len(image), -1)`.
liftnn: CrossEntropyLoss NLLLoss CategoricalCrossentropy SparseCategoricalCrossentropy (PyTorch and Keras)
    Losses are functions of optax: `optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()`.
liftnn: BCELoss BCEWithLogitsLoss BinaryCrossentropy (PyTorch and Keras)
    Losses are functions of optax: `optax.sigmoid_binary_cross_entropy(logits, targets).mean()`.
liftnn: MSELoss L1Loss MeanSquaredError (PyTorch and Keras)
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
"""
