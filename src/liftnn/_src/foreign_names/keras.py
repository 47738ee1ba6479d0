"""Names of Keras, also those that Haiku, Flax or Equinox has too, and what to write in liftnn."""

KERAS_NAMES = """
liftnn: Conv1D Conv2D Conv3D ConvND Convolution1D Convolution2D Convolution3D (Keras and Haiku)
    Write `liftnn.Conv(3, 8, (3, 3), rngs=liftnn.Rngs(0))`, with one kernel size per axis. {channels}
liftnn: Conv1DTranspose Conv2DTranspose Conv3DTranspose Convolution2DTranspose ConvNDTranspose (Keras and Haiku)
    Write `liftnn.ConvTranspose(3, 8, (3, 3), rngs=liftnn.Rngs(0))`. {channels}
liftnn: BatchNormalization (Keras)
    Write `liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))`.
liftnn: LayerNormalization (Keras)
    Write `liftnn.LayerNorm(3, rngs=liftnn.Rngs(0))`.
liftnn: MaxPooling1D MaxPooling2D MaxPooling3D MaxPool1D MaxPool2D MaxPool3D MaxPool (Keras and Haiku)
    Write `liftnn.max_pool(image, (2, 2), strides=(2, 2))`, a function.
liftnn: AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D AvgPool (Keras and Haiku)
    Write `liftnn.avg_pool(image, (2, 2), strides=(2, 2))`, a function.
liftnn: Dense (Keras and Flax Linen)
    Write `liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))`, with the number of input features.
liftnn: Activation (Keras)
    Activations are functions, as in `liftnn.Sequential(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)),
    liftnn.relu)`.
liftnn: Lambda (Keras and Equinox)
    A layer may be any function: `liftnn.Sequential(lambda x: 2 * x)`.
liftnn: losses Loss (Keras)
    Losses are functions of optax: `optax.squared_error(logits, targets).mean()`.
liftnn: Input InputLayer InputSpec KerasTensor Model Layer models (Keras)
    Derive a class from `liftnn.Module`, with layers set in `__init__` and the computation in `__call__`.
liftnn: GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D (Keras)
    Take the mean over the axes of the image: `image.mean((1, 2))`.
liftnn: GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D (Keras)
    Take the maximum over the axes of the image: `image.max((1, 2))`.
liftnn: GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D (Keras)
    Take the mean over the axes of the image: `image.mean((1, 2))`.
liftnn: GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D (Keras)
    Take the maximum over the axes of the image: `image.max((1, 2))`.
liftnn: SeparableConv1D SeparableConv2D SeparableConvolution2D SeparableDepthwiseConv2D (Keras and Haiku)
    Two layers: `liftnn.Sequential(liftnn.Conv(3, 3, (3, 3), feature_group_count=3, use_bias=False,
    rngs=liftnn.Rngs(0)), liftnn.Conv(3, 8, (1, 1), rngs=liftnn.Rngs(1)))`.
liftnn: DepthwiseConv1D DepthwiseConv2D DepthwiseConv3D (Keras and Haiku)
    One group for each channel: `liftnn.Conv(3, 3, (3, 3), feature_group_count=3, rngs=liftnn.Rngs(0))`.
liftnn: Concatenate (Keras)
    Arrays need no layers: `jnp.concatenate([x, x], axis=-1)`.
liftnn: Add Subtract Multiply Maximum Minimum (Keras)
    Arrays need no layers: `x + x`, `x - x`, `x * x`, `jnp.maximum(x, x)`, `jnp.minimum(x, x)`.
liftnn: Permute (Keras)
    Arrays need no layers: `image.transpose(0, 2, 1, 3)`.
liftnn: RepeatVector (Keras)
    Arrays need no layers: `jnp.repeat(x[:, None], 5, axis=1)`.
liftnn: Rescaling (Keras)
    Arrays need no layers: `image / 255`.
liftnn: UnitNormalization normalize (Keras and PyTorch)
    Write `x / jnp.linalg.norm(x, axis=-1, keepdims=True)`.
liftnn: Cropping1D Cropping2D Cropping3D (Keras)
    Arrays need no layers: `image[:, 1:-1, 1:-1]`.
liftnn: ZeroPadding1D ZeroPadding2D ZeroPadding3D (Keras)
    {padded}
liftnn: UpSampling1D UpSampling2D UpSampling3D (Keras)
    Write `jax.image.resize(image, (2, 8, 8, 3), 'nearest')`.
liftnn: Resizing (Keras)
    Write `jax.image.resize(image, (2, 8, 8, 3), 'bilinear', antialias=False)`.
liftnn: GaussianNoise (Keras)
    Add it in training: `x + 0.1 * jax.random.normal(liftnn.Rngs(0)(), x.shape)`.
liftnn: SpatialDropout1D (Keras)
    Write `liftnn.Dropout(0.5, broadcast_dims=(1,), rngs=liftnn.Rngs(0))`: one mask along this axis.
liftnn: SpatialDropout3D (Keras)
    Write `liftnn.Dropout(0.5, broadcast_dims=(1, 2, 3), rngs=liftnn.Rngs(0))`: one mask along these axes.
liftnn: GroupNormalization (Keras)
    Write `liftnn.GroupNorm(4, 2, rngs=liftnn.Rngs(0))`, of 4 features in 2 groups.
liftnn: RMSNormalization (Keras)
    Write `liftnn.RMSNorm(3, rngs=liftnn.Rngs(0))`.
liftnn: SpectralNormalization (Keras)
    Write `liftnn.SpectralNorm(model.first, rngs=liftnn.Rngs(0))`.
liftnn: EinsumDense (Keras)
    Write `liftnn.Einsum('bi,io->bo', (2, 3), (3,), rngs=liftnn.Rngs(0))`.
liftnn: ReversibleEmbedding (Keras)
    Write `embed = liftnn.Embed(10, 4, rngs=liftnn.Rngs(0))`, and `embed.attend(jnp.ones((2, 4)))` for the way back.
liftnn: GroupQueryAttention (Keras)
    Write `liftnn.MultiHeadAttention(4, 8, num_kv_heads=2, rngs=liftnn.Rngs(0))`.
liftnn: TimeDistributed BatchApply (Keras, Flax Linen and Haiku)
    Layers take any number of leading axes: `liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))(sequence)`.
liftnn: SimpleRNN SimpleRNNCell (Keras)
    Write `liftnn.RNN(liftnn.SimpleCell(2, 3, rngs=liftnn.Rngs(0)))`.
liftnn: StackedRNNCells DeepRNN (Keras and Haiku)
    One layer after the other: `liftnn.Sequential(liftnn.RNN(liftnn.GRUCell(2, 3, rngs=liftnn.Rngs(0))),
    liftnn.RNN(liftnn.GRUCell(3, 3, rngs=liftnn.Rngs(1))))`.
liftnn: GradientTape (Keras)
    {grads}
liftnn: callbacks Callback EarlyStopping LearningRateScheduler TensorBoard CSVLogger (Keras)
    {loop}
liftnn: ModelCheckpoint BackupAndRestore (Keras)
    In your loop write `liftnn.save(folder, 1, model, optimizer)`, here for step 1. `liftnn.restore(folder, model,
    optimizer)` restores the last step.
liftnn: load_model save_model saving (Keras)
    {weights} The class of the model is Python code.
liftnn: metrics (Keras and Flax)
    Metrics are classes: `liftnn.MultiMetric(loss=liftnn.Average('loss'), accuracy=liftnn.Accuracy())`.
liftnn: Mean (Keras)
    Write `liftnn.Average()`.
liftnn: SparseCategoricalAccuracy (Keras)
    Write `liftnn.Accuracy()`.
liftnn: BinaryAccuracy (Keras)
    Write `liftnn.Accuracy(threshold=0.5)`.
liftnn: regularizers Regularizer L2 l2 (Keras)
    Add the penalty to the loss: `0.01 * sum((p**2).sum() for p in jax.tree.leaves(liftnn.state(model, liftnn.Param)))`.
liftnn: schedules LearningRateSchedule CosineDecay ExponentialDecay ReduceLROnPlateau (Keras and PyTorch)
    {schedule}
liftnn: ops backend (Keras)
    The functions of arrays are those of JAX: `jnp.concatenate([x, x])`.
liftnn: SeedGenerator (Keras)
    {rngs}
liftnn: to_categorical (Keras)
    Write `liftnn.one_hot(labels, 3)`.
liftnn: name_scope (Keras and Haiku)
    Write `with jax.named_scope('head'): model(x)`.
liftnn: CategoricalCrossentropy categorical_crossentropy (Keras)
    Losses are functions of optax, here of the values before the softmax:
    `optax.softmax_cross_entropy(logits, targets).mean()`.
liftnn: sparse_categorical_crossentropy (Keras)
    Losses are functions of optax, here of the values before the softmax:
    `optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()`.
liftnn: BinaryFocalCrossentropy (Keras)
    Losses are functions of optax, here of the values before the sigmoid:
    `optax.sigmoid_focal_loss(logits, targets).mean()`.
liftnn: Hinge (Keras)
    Losses are functions of optax: `optax.hinge_loss(logits, 2 * targets - 1).mean()`, with targets of -1 and 1.
liftnn: LogCosh (Keras)
    Losses are functions of optax: `optax.log_cosh(logits, targets).mean()`.
liftnn: Attention (Keras)
    Write `liftnn.softmax(sequence @ sequence.mT) @ sequence`, or for several heads `liftnn.MultiHeadAttention(2, 4,
    rngs=liftnn.Rngs(0))`.
liftnn: Normalization (Keras)
    Compute the statistics of the data once: `mean, std = x.mean(0), x.std(0) + 1e-6`. The layer is `(x - mean) / std`.
liftnn: Masking (Keras)
    Pass the lengths: `liftnn.RNN(liftnn.LSTMCell(2, 3, rngs=liftnn.Rngs(0)))(sequence, seq_lengths=jnp.array([5, 3]))`.
liftnn: SquaredHinge (Keras)
    Losses are functions of optax: `(optax.hinge_loss(logits, 2 * targets - 1) ** 2).mean()`, with targets of -1 and 1.
liftnn: DTypePolicy dtype_policies (Keras)
    Layers take the dtype of the computation: `liftnn.Linear(2, 3, dtype=jnp.bfloat16, rngs=liftnn.Rngs(0))`.
liftnn: cast (Keras)
    Write `x.astype(jnp.bfloat16)`.
liftnn: ScheduleFreeAdamW (Keras)
    Pass a transformation of optax: `liftnn.Optimizer(model, optax.contrib.schedule_free_adamw(1e-3))`.
"""
