"""Names of PyTorch, also those that Keras or Equinox has too, and what to write in liftnn."""

ACTIVATIONS = {
    "CELU": "celu", "ELU": "elu", "GELU": "gelu", "GLU": "glu", "Hardsigmoid": "hard_sigmoid",
    "Hardswish": "hard_swish", "Hardtanh": "hard_tanh", "Identity": "identity", "LeakyReLU": "leaky_relu",
    "LogSigmoid": "log_sigmoid", "LogSoftmax": "log_softmax", "ReLU": "relu", "ReLU6": "relu6", "SELU": "selu",
    "SiLU": "silu", "Sigmoid": "sigmoid", "Softmax": "softmax", "Softplus": "softplus", "Softsign": "soft_sign",
    "Swish": "swish", "Tanh": "tanh",
}  # fmt: skip
"""Activations: a class in PyTorch or Keras, a function in liftnn."""

OPTIMIZERS = {
    "Adafactor": "adafactor", "Adadelta": "adadelta", "Adagrad": "adagrad", "Adam": "adam", "AdamW": "adamw",
    "Adamax": "adamax", "LBFGS": "lbfgs", "Lamb": "lamb", "Lion": "lion", "Muon": "contrib.muon", "NAdam": "nadam",
    "Nadam": "nadam", "RAdam": "radam", "RMSprop": "rmsprop", "Rprop": "rprop", "SGD": "sgd",
}  # fmt: skip
"""Optimizers: a class in PyTorch or Keras, a function in optax."""

PYTORCH_NAMES = """
liftnn: Conv1d Conv2d Conv3d conv1d conv2d conv3d (PyTorch)
    Write `liftnn.Conv(3, 8, (3, 3), rngs=liftnn.Rngs(0))`, with one kernel size per axis. {channels}
liftnn: ConvTranspose1d ConvTranspose2d ConvTranspose3d (PyTorch)
    Write `liftnn.ConvTranspose(3, 8, (3, 3), rngs=liftnn.Rngs(0))`. {channels}
liftnn: BatchNorm1d BatchNorm2d BatchNorm3d (PyTorch)
    Write `liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))`, for any number of axes. {channels}
liftnn: InstanceNorm1d InstanceNorm2d InstanceNorm3d (PyTorch)
    Write `liftnn.InstanceNorm(3, rngs=liftnn.Rngs(0))`. {channels}
liftnn: MaxPool1d MaxPool2d MaxPool3d max_pool1d max_pool2d max_pool3d (PyTorch)
    Write `liftnn.max_pool(image, (2, 2), strides=(2, 2))`, a function. {channels}
liftnn: AvgPool1d AvgPool2d AvgPool3d avg_pool1d avg_pool2d avg_pool3d (PyTorch)
    Write `liftnn.avg_pool(image, (2, 2), strides=(2, 2))`, a function. {channels}
liftnn: AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d adaptive_avg_pool2d (PyTorch and Equinox)
    For one value of each channel take the mean over the axes of the image: `image.mean((1, 2))`. {channels}
liftnn: AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d adaptive_max_pool2d (PyTorch and Equinox)
    For one value of each channel take the maximum over the axes of the image: `image.max((1, 2))`. {channels}
liftnn: Embedding embedding (PyTorch and Keras)
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
liftnn: CrossEntropyLoss NLLLoss SparseCategoricalCrossentropy cross_entropy nll_loss (PyTorch and Keras)
    Losses are functions of optax: `optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()`.
liftnn: BCELoss BCEWithLogitsLoss BinaryCrossentropy (PyTorch and Keras)
    Losses are functions of optax, here of the values before the sigmoid:
    `optax.sigmoid_binary_cross_entropy(logits, targets).mean()`.
liftnn: binary_cross_entropy binary_cross_entropy_with_logits binary_crossentropy (PyTorch and Keras)
    Losses are functions of optax, here of the values before the sigmoid:
    `optax.sigmoid_binary_cross_entropy(logits, targets).mean()`.
liftnn: MSELoss MeanSquaredError mse_loss (PyTorch and Keras)
    Losses are functions of optax: `optax.squared_error(logits, targets).mean()`.
liftnn: L1Loss MeanAbsoluteError l1_loss (PyTorch and Keras)
    Write `jnp.abs(logits - targets).mean()`.
liftnn: HuberLoss SmoothL1Loss Huber smooth_l1_loss (PyTorch and Keras)
    Losses are functions of optax: `optax.huber_loss(logits, targets).mean()`.
liftnn: KLDivLoss KLDivergence kl_div (PyTorch and Keras)
    Losses are functions of optax: `optax.kl_divergence(liftnn.log_softmax(logits), targets).mean()`, the sum over the
    classes, and the mean over the batch (PyTorch: reduction='batchmean').
liftnn: CosineSimilarity (PyTorch and Keras)
    Write `optax.cosine_similarity(logits, targets)`, along the last axis. As a loss, take the negative mean.
liftnn: TripletMarginLoss triplet_margin_loss (PyTorch)
    Losses are functions of optax: `optax.losses.triplet_margin_loss(logits, targets, targets).mean()`.
liftnn: CTCLoss CTC (PyTorch and Keras)
    Losses are functions of optax: `optax.ctc_loss(sequence, jnp.zeros((2, 5)), jnp.ones((2, 2), int),
    jnp.zeros((2, 2)))`, of logits, their paddings, labels and their paddings.
liftnn: PoissonNLLLoss poisson_nll_loss (PyTorch)
    Write `(jnp.exp(logits) - targets * logits).mean()`, with the logarithm of the rate.
liftnn: ModuleList ModuleDict ParameterList ParameterDict (PyTorch)
    {lists}
liftnn: Parameter (PyTorch)
    Write `liftnn.Param(jnp.ones(3))`.
liftnn: Buffer (PyTorch)
    {statistic}
liftnn: Tensor tensor as_tensor from_numpy convert_to_tensor (PyTorch and Keras)
    Arrays are those of JAX: `jnp.asarray([1.0, 2.0])`.
liftnn: no_grad inference_mode enable_grad set_grad_enabled (PyTorch)
    Gradients are computed by `liftnn.grad` only. `jax.lax.stop_gradient(x)` stops one, and `model.eval()`
    switches the mode.
liftnn: manual_seed set_seed (PyTorch)
    There is no global seed. {rngs}
liftnn: optim optimizers (PyTorch and Keras)
    {optimizer}
liftnn: DataParallel DistributedDataParallel FullyShardedDataParallel distribution (PyTorch and Keras)
    Sharded arrays make a program parallel: `model = liftnn.make_sharded(make, mesh)`.
liftnn: compile (PyTorch)
    Write `liftnn.jit(model)`.
liftnn: functional F activations (PyTorch and Keras)
    The functions are in liftnn: `liftnn.relu(x)`.
liftnn: nn layers (PyTorch, Keras and Flax)
    Layers are in liftnn: `liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))`.
liftnn: TransformerEncoderLayer TransformerDecoderLayer Transformer (PyTorch)
    Write a module of `liftnn.MultiHeadAttention(2, 4, rngs=liftnn.Rngs(0))`, `liftnn.LayerNorm(4,
    rngs=liftnn.Rngs(0))` and `liftnn.Linear(4, 16, rngs=liftnn.Rngs(0))`.
liftnn: TransformerEncoder TransformerDecoder (PyTorch)
    Write a module of `liftnn.MultiHeadAttention(2, 4, rngs=liftnn.Rngs(0))` and other layers, and stack several of
    them: `liftnn.Stack(6, make)`.
liftnn: autograd backward (PyTorch)
    {grads}
liftnn: func functional_call (PyTorch)
    The transforms take modules as arguments: `liftnn.vmap(model)(x)`. To call a model with other values:
    `state, graphdef = liftnn.split(model)` and `liftnn.merge(graphdef, state)(x)`.
liftnn: init kaiming_normal_ kaiming_uniform_ xavier_normal_ xavier_uniform_ trunc_normal_ (PyTorch)
    A layer takes initializers: `liftnn.Linear(2, 3, kernel_init=liftnn.initializers.he_normal(),
    rngs=liftnn.Rngs(0))`.
liftnn: utils (PyTorch and Keras)
    Gradients are clipped by optax: `tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))`. Layers
    normalize weights: `liftnn.WeightNorm(model.first, rngs=liftnn.Rngs(0))`.
liftnn: clip_grad_norm_ clip_grad_norm (PyTorch)
    Gradients are clipped by optax: `liftnn.Optimizer(model, optax.chain(optax.clip_by_global_norm(1.0),
    optax.adam(1e-3)))`.
liftnn: clip_grad_value_ (PyTorch)
    Gradients are clipped by optax: `liftnn.Optimizer(model, optax.chain(optax.clip(1.0), optax.adam(1e-3)))`.
liftnn: parameters_to_vector vector_to_parameters (PyTorch)
    Write `vector, unravel = jax.flatten_util.ravel_pytree(liftnn.state(model, liftnn.Param))` and
    `liftnn.update(model, unravel(vector))`.
liftnn: Upsample UpsamplingNearest2d interpolate upsample (PyTorch)
    Write `jax.image.resize(image, (2, 8, 8, 3), 'nearest')`, or with `'bilinear'`. {channels}
liftnn: EmbeddingBag (PyTorch)
    Write `liftnn.Embed(10, 4, rngs=liftnn.Rngs(0))(labels).mean(-2)`.
liftnn: PixelShuffle pixel_shuffle (PyTorch)
    For blocks of 2 write `jnp.ones((2, 4, 4, 12)).reshape(2, 4, 4, 3, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(2, 8,
    8, 3)`. {channels}
liftnn: PixelUnshuffle pixel_unshuffle (PyTorch)
    For blocks of 2 write `image.reshape(2, 2, 2, 2, 2, 3).transpose(0, 1, 3, 5, 2, 4).reshape(2, 2, 2, 12)`. {channels}
liftnn: Unfold unfold (PyTorch)
    Write `jax.lax.conv_general_dilated_patches(image, (2, 2), (2, 2), 'VALID', dimension_numbers=('NHWC', 'HWIO',
    'NHWC'))`. {channels}
liftnn: ZeroPad1d ZeroPad2d ZeroPad3d ConstantPad1d ConstantPad2d ConstantPad3d (PyTorch)
    {padded}
liftnn: ReflectionPad1d ReflectionPad2d ReflectionPad3d (PyTorch)
    Write `jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), 'reflect')`. {channels}
liftnn: ReplicationPad1d ReplicationPad2d ReplicationPad3d (PyTorch)
    Write `jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), 'edge')`. {channels}
liftnn: CircularPad1d CircularPad2d CircularPad3d (PyTorch)
    Write `jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), 'wrap')`. {channels}
liftnn: Unflatten (PyTorch)
    Write `image.reshape(2, 4, 4, 3, 1)`.
liftnn: Mish (PyTorch and Keras)
    Activations are functions; a Sequential takes them too: `jax.nn.mish(x)`.
liftnn: Softmin softmin (PyTorch)
    Write `liftnn.softmax(-x)`.
liftnn: Softmax2d (PyTorch)
    Write `liftnn.softmax(image)`. {channels}
liftnn: Tanhshrink tanhshrink (PyTorch)
    Write `x - liftnn.tanh(x)`.
liftnn: Hardshrink hardshrink hard_shrink (PyTorch and Keras)
    Write `jnp.where(jnp.abs(x) > 0.5, x, 0)`.
liftnn: Softshrink softshrink soft_shrink (PyTorch and Keras)
    Write `jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.5, 0)`.
liftnn: gumbel_softmax (PyTorch)
    Write `liftnn.softmax(logits + jax.random.gumbel(liftnn.Rngs(0)(), logits.shape))`.
liftnn: RNNCell RNNBase (PyTorch)
    Write `liftnn.SimpleCell(2, 3, rngs=liftnn.Rngs(0))`, and `liftnn.RNN(liftnn.SimpleCell(2, 3,
    rngs=liftnn.Rngs(0)))` for a sequence.
liftnn: pack_padded_sequence pad_packed_sequence pack_sequence (PyTorch)
    Pass the lengths: `liftnn.RNN(liftnn.LSTMCell(2, 3, rngs=liftnn.Rngs(0)))(sequence, seq_lengths=jnp.array([5, 3]))`.
liftnn: SyncBatchNorm (PyTorch)
    In `liftnn.jit`, the statistics are those of the whole batch, on all devices: `liftnn.BatchNorm(3,
    rngs=liftnn.Rngs(0))`.
liftnn: LazyLinear LazyConv1d LazyConv2d LazyConv3d LazyBatchNorm1d LazyBatchNorm2d (PyTorch)
    Layers take the number of input features: `liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))`.
liftnn: scaled_dot_product_attention (PyTorch)
    Write `liftnn.dot_product_attention(heads, heads, heads)`, for arrays of shape `(batch, length, heads, features)`.
liftnn: amp autocast GradScaler mixed_precision (PyTorch, Keras and Haiku)
    Layers take the dtype of the computation: `liftnn.Linear(2, 3, dtype=jnp.bfloat16, rngs=liftnn.Rngs(0))`.
liftnn: cuda device (PyTorch)
    {place}
liftnn: load (PyTorch)
    {weights} For all state of a run: `liftnn.save(folder, 1, model, optimizer)` and `liftnn.restore(folder, model,
    optimizer)`.
liftnn: DataLoader Dataset TensorDataset IterableDataset Sampler Subset random_split (PyTorch)
    Any iterable of arrays will do: `for batch in np.split(np.ones((8, 2)), 4): model(batch)`.
liftnn: lr_scheduler StepLR ExponentialLR LinearLR CosineAnnealingLR OneCycleLR LambdaLR (PyTorch)
    {schedule}
liftnn: randn rand randint (PyTorch)
    {draws}
liftnn: cat (PyTorch)
    Write `jnp.concatenate([x, x])`.
liftnn: CyclicLR CosineAnnealingWarmRestarts PolynomialLR ConstantLR MultiStepLR SequentialLR (PyTorch)
    {schedule}
liftnn: Bilinear bilinear (PyTorch)
    Write `jnp.einsum('bi,oij,bj->bo', x, liftnn.Param(jnp.ones((3, 2, 2))), x)`.
liftnn: Threshold threshold (PyTorch and Keras)
    Write `jnp.where(x > 0.1, x, 20.0)`.
liftnn: RReLU rrelu (PyTorch)
    In evaluation it is `liftnn.leaky_relu(x, (1 / 8 + 1 / 3) / 2)`. In training draw the slope:
    `liftnn.leaky_relu(x, jax.random.uniform(liftnn.Rngs(0)(), x.shape, minval=1 / 8, maxval=1 / 3))`.
liftnn: PairwiseDistance pairwise_distance (PyTorch)
    Write `jnp.linalg.norm(logits - targets, axis=-1)`.
liftnn: bmm (PyTorch)
    Write `sequence @ sequence.mT`.
"""
