"""Names of Keras, also those that Haiku, Flax or Equinox has too, and what to write in liftnn."""

KERAS_NAMES = """
liftnn: Conv1D Conv2D Conv3D (Keras and Haiku)
    Write `liftnn.Conv(3, 8, (3, 3), rngs=liftnn.Rngs(0))`, with one kernel size per axis. {channels}
liftnn: Conv1DTranspose Conv2DTranspose Conv3DTranspose (Keras and Haiku)
    Write `liftnn.ConvTranspose(3, 8, (3, 3), rngs=liftnn.Rngs(0))`. {channels}
liftnn: BatchNormalization (Keras)
    Write `liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))`.
liftnn: LayerNormalization (Keras)
    Write `liftnn.LayerNorm(3, rngs=liftnn.Rngs(0))`.
liftnn: MaxPooling1D MaxPooling2D MaxPooling3D MaxPool1D MaxPool2D MaxPool3D MaxPool (Keras and Haiku)
    Write `liftnn.max_pool(image, (2, 2), strides=(2, 2))`, a function.
liftnn: AveragePooling1D AveragePooling2D AveragePooling3D AvgPool (Keras and Haiku)
    Write `liftnn.avg_pool(image, (2, 2), strides=(2, 2))`, a function.
liftnn: Dense (Keras and Flax Linen)
    Write `liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))`, with the number of input features.
liftnn: Activation (Keras)
    Activations are functions, also in `liftnn.Sequential(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)),
    liftnn.relu)`.
liftnn: Lambda (Keras and Equinox)
    A layer may be any function: `liftnn.Sequential(lambda x: 2 * x)`.
liftnn: losses (Keras)
    Losses are functions of optax: `optax.squared_error(logits, targets).mean()`.
liftnn: Input Model Layer models (Keras)
    Derive a class from `liftnn.Module`, with layers set in `__init__` and the computation in `__call__`.
"""
