"""A vision transformer: patches by a convolution, a class token, an encoder, trained with dropout and clipping."""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class Encoder(nnx.Module):
    def __init__(self, hidden, mlp, heads, dropout, *, rngs):
        self.norm1 = nnx.LayerNorm(hidden, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads=heads, in_features=hidden, broadcast_dropout=False, decode=False, deterministic=False,
            normalize_qk=False, rngs=rngs,
        )  # fmt: skip
        self.norm2 = nnx.LayerNorm(hidden, rngs=rngs)
        self.mlp = nnx.Sequential(
            nnx.Linear(hidden, mlp, rngs=rngs),
            nnx.gelu,
            nnx.Dropout(dropout, rngs=rngs),
            nnx.Linear(mlp, hidden, rngs=rngs),
            nnx.Dropout(dropout, rngs=rngs),
        )

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nnx.Module):
    def __init__(self, classes=3, channels=3, size=8, patch=4, hidden=12, layers=2, *, rngs):
        count = (size // patch) ** 2
        init = functools.partial(jax.nn.initializers.variance_scaling, 1.0, "fan_in", "normal")
        self.patches = nnx.Conv(
            channels,
            hidden,
            (patch, patch),
            strides=(patch, patch),
            padding="VALID",
            kernel_init=init(),
            rngs=rngs,
        )
        normal = jax.nn.initializers.normal(0.02)
        self.positions = nnx.Param(normal(rngs.params(), (1, count + 1, hidden), jnp.float32))
        self.cls = nnx.Param(jnp.zeros((1, 1, hidden)))
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.encoder = nnx.Sequential(*[Encoder(hidden, 24, 2, 0.1, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(hidden, rngs=rngs)
        self.classifier = nnx.Linear(hidden, classes, rngs=rngs)

    def __call__(self, images):
        patches = self.patches(images)
        batch = patches.shape[0]
        patches = patches.reshape(batch, -1, patches.shape[-1])
        cls = jnp.tile(self.cls[...], [batch, 1, 1])
        x = jnp.concatenate([cls, patches], axis=1) + self.positions
        x = self.norm(self.encoder(self.dropout(x)))
        return self.classifier(x[:, 0])


def compute_losses_and_logits(model, images, labels):
    logits = model(images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits=logits, labels=labels).mean()
    return loss, logits


@nnx.jit
def train_step(model, optimizer, images, labels):
    grad_fn = nnx.value_and_grad(compute_losses_and_logits, has_aux=True)
    (loss, _), grads = grad_fn(model, images, labels)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def eval_step(model, metrics, images, labels):
    loss, logits = compute_losses_and_logits(model, images, labels)
    metrics.update(loss=loss, logits=logits, labels=labels)


def main():
    model = VisionTransformer(rngs=nnx.Rngs(params=0, dropout=1))
    schedule = optax.cosine_decay_schedule(3e-3, 10)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-2))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    metrics = nnx.MultiMetric(loss=nnx.metrics.Average("loss"), accuracy=nnx.metrics.Accuracy())
    images = jax.random.normal(jax.random.key(2), (3, 4, 8, 8, 3))
    labels = jax.random.randint(jax.random.key(3), (3, 4), 0, 3)
    losses = []
    for x, y in zip(images, labels, strict=True):
        model.train()
        losses.append(train_step(model, optimizer, x, y))
        model.eval()
        eval_step(model, metrics, x, y)
    return [losses, metrics.compute(), nnx.to_pure_dict(nnx.state(model, nnx.Param)), model(images[0])]
