"""A ResNet with BatchNorm, trained with momentum; its State goes through pure dicts into a new model."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class ResidualBlock(nnx.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(
            inputs, outputs, (3, 3), strides=stride, padding="SAME", use_bias=False, rngs=rngs
        )
        self.bn1 = nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(outputs, outputs, (3, 3), padding="SAME", use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(outputs, momentum=0.9, scale_init=nnx.initializers.zeros_init(), rngs=rngs)
        if stride != 1 or inputs != outputs:
            self.shortcut = nnx.Sequential(
                nnx.Conv(inputs, outputs, (1, 1), strides=stride, use_bias=False, rngs=rngs),
                nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs),
            )
        else:
            self.shortcut = lambda x: x

    def __call__(self, x):
        y = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nnx.Module):
    def __init__(self, stages, classes: int, *, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, stages[0], (3, 3), padding="SAME", use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(stages[0], momentum=0.9, rngs=rngs)
        blocks, inputs = [], stages[0]
        for i, outputs in enumerate(stages):
            blocks.append(ResidualBlock(inputs, outputs, 1 if i == 0 else 2, rngs=rngs))
            blocks.append(ResidualBlock(outputs, outputs, 1, rngs=rngs))
            inputs = outputs
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(inputs, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=(1, 2)))


def l2(model):
    kernels = nnx.state(model, nnx.All(nnx.Param, nnx.PathContains("kernel")))
    return sum(jnp.sum(w**2) for w in jax.tree.leaves(kernels))


@nnx.jit
def train_step(model: ResNet, optimizer: nnx.Optimizer, metrics: nnx.MultiMetric, batch):
    def loss_fn(model):
        logits = model(batch["image"])
        labels = jax.nn.one_hot(batch["label"], 3)
        loss = optax.softmax_cross_entropy(logits, optax.smooth_labels(labels, 0.1)).mean()
        return loss + 1e-4 * l2(model), logits

    (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    metrics.update(loss=loss, logits=logits, labels=batch["label"])
    optimizer.update(model, grads)


@nnx.jit
def predict(model, images):
    return model(images)


def main():
    model = ResNet((4, 8), 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.05, momentum=0.9, nesterov=True), wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))
    images = jax.random.normal(jax.random.key(1), (3, 4, 8, 8, 3))
    labels = jax.random.randint(jax.random.key(2), (3, 4), 0, 3)
    history = []
    for image, label in zip(images, labels, strict=True):
        train_step(model, optimizer, metrics, {"image": image, "label": label})
        history.append(metrics.compute())
        metrics.reset()
    model.eval()

    saved = nnx.to_pure_dict(nnx.state(model))
    as_text = {key: {str(k): v for k, v in x.items()} if key == "blocks" else x for key, x in saved.items()}
    abstract = nnx.eval_shape(lambda: ResNet((4, 8), 3, rngs=nnx.Rngs(7)))
    graphdef, state = nnx.split(abstract)
    nnx.replace_by_pure_dict(state, nnx.restore_int_paths(as_text))
    restored = nnx.merge(graphdef, state)
    restored.eval()
    return [history, saved, predict(model, images[0]), predict(restored, images[0])]
