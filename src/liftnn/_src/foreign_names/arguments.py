"""Arguments of layers and functions in other libraries, and what to write in liftnn."""

FOREIGN_ARGUMENTS = """
use_bias: bias with_bias (PyTorch and Haiku)
    Write, for example, `liftnn.Linear(2, 3, use_bias=False, rngs=liftnn.Rngs(0))`.
use_bias: center create_offset (Keras and Haiku)
    Write, for example, `liftnn.LayerNorm(3, use_bias=False, rngs=liftnn.Rngs(0))`.
rngs: key rng seed (Equinox and JAX)
    Write, for example, `liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))`, or `liftnn.Rngs(jax.random.key(0))`.
epsilon: eps (PyTorch and Equinox)
    Write, for example, `liftnn.LayerNorm(3, epsilon=1e-5, rngs=liftnn.Rngs(0))`.
in_features: in_channels in_size input_size input_dim embed_dim query_size (PyTorch and Equinox)
    The number of input features is in_features, as in `liftnn.Linear(in_features=2, out_features=3,
    rngs=liftnn.Rngs(0))`.
hidden_features: hidden_size features units (PyTorch, Flax Linen and Keras)
    Write, for example, `liftnn.LSTMCell(in_features=2, hidden_features=3, rngs=liftnn.Rngs(0))`.
out_features: out_channels out_size output_size output_dim features units filters (PyTorch, Keras and Flax Linen)
    liftnn's layers need both sizes: `liftnn.Linear(in_features=2, out_features=3, rngs=liftnn.Rngs(0))`.
features: embedding_dim output_dim embed_dim embedding_size (PyTorch and Keras)
    Write `liftnn.Embed(num_embeddings=10, features=4, rngs=liftnn.Rngs(0))`.
num_embeddings: input_dim vocab_size (Keras and Haiku)
    Write `liftnn.Embed(num_embeddings=10, features=4, rngs=liftnn.Rngs(0))`.
num_features: normalized_shape num_channels shape input_size channels (PyTorch and Equinox)
    Write, for example, `liftnn.LayerNorm(num_features=3, rngs=liftnn.Rngs(0))`.
rate: p dropout dropout_rate (PyTorch and Equinox)
    Write `liftnn.Dropout(rate=0.5, rngs=liftnn.Rngs(0))`.
dropout_rate: dropout dropout_p (PyTorch)
    Write `liftnn.MultiHeadAttention(2, 4, dropout_rate=0.1, rngs=liftnn.Rngs(0))`.
strides: stride (PyTorch)
    Write, for example, `liftnn.Conv(3, 8, (3, 3), strides=2, rngs=liftnn.Rngs(0))`.
kernel_dilation: dilation dilation_rate (PyTorch and Keras)
    Write, for example, `liftnn.Conv(3, 8, (3, 3), kernel_dilation=2, rngs=liftnn.Rngs(0))`.
feature_group_count: groups (PyTorch and Keras)
    Write, for example, `liftnn.Conv(4, 8, (3, 3), feature_group_count=2, rngs=liftnn.Rngs(0))`.
padding: padding_mode (PyTorch)
    Write, for example, `liftnn.Conv(3, 8, (3, 3), padding='CIRCULAR', rngs=liftnn.Rngs(0))`.
use_scale: affine elementwise_affine create_scale scale use_weight (PyTorch and Haiku)
    Write, for example, `liftnn.LayerNorm(3, use_scale=False, use_bias=False, rngs=liftnn.Rngs(0))`.
time_major: batch_first (PyTorch)
    The batch comes first: `liftnn.RNN(liftnn.LSTMCell(2, 3, rngs=liftnn.Rngs(0)), time_major=False)`.
feature_axes: axis (Keras and Haiku)
    Write, for example, `liftnn.LayerNorm(3, feature_axes=-1, rngs=liftnn.Rngs(0))`.
qkv_features: key_dim key_size (Keras and Haiku)
    Write `liftnn.MultiHeadAttention(2, 8, 2 * 4, rngs=liftnn.Rngs(0))`, with 2 heads of 4 features each.
return_carry: return_sequences return_state (Keras)
    An RNN returns the outputs of all steps, and `liftnn.RNN(liftnn.LSTMCell(2, 3, rngs=liftnn.Rngs(0)),
    return_carry=True)` the last state before them.
tx: lr learning_rate optimizer params (PyTorch and Flax)
    {optimizer}
*: training train is_training inference deterministic use_running_average (Keras, Flax Linen and Haiku)
    {mode}
*: device (PyTorch)
    {place}
*: name scope (Flax Linen, Haiku and Keras)
    The attribute is the name of a layer: `model.head = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))`.
*: data_format (Keras and Haiku)
    {channels} Write `jnp.moveaxis(jnp.ones((2, 3, 4, 4)), 1, -1)`.
*: activation (Keras)
    Call a function on the result: `liftnn.relu(model(x))`.
*: kernel_initializer bias_initializer w_init b_init (Keras and Haiku)
    Write `liftnn.Linear(2, 3, kernel_init=liftnn.initializers.zeros, rngs=liftnn.Rngs(0))`.
call: Optimizer.update (Flax NNX)
    The model comes first: `optimizer.update(model, grads)`.
call: Module.train Module.eval (PyTorch)
    `model.train()` and `model.eval()` take no arguments and only switch the mode: PyTorch's train(False) is
    `model.eval()`. To run the model, write `model(x)`.
"""
