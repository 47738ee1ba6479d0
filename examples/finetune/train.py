"""Teaches a pretrained network another task: only a new head, LoRA adapters, all of it, or all of it from the start.

The network is that of the PyPI package silero-vad, which finds speech in sound. The task is to tell ten vowels apart,
which a formula makes (see data.py).
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import data
import liftnn as nnx
import plots
from lora import adapt, fold
from model import Array, Classifier, SileroVAD, WeightsError, load
from options import parse_options
from progress import Bar

EVALUATIONS = 12
HEAD = nnx.PathContains("head")
ALL = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("stft")), nnx.Not(nnx.PathContains("output")))
"""All weights but the Fourier transform, and the old head, which is not used."""


class Way(NamedTuple):
    """A way to train: its title, a filter for the Variables to train, and the peak of the learning rate."""

    title: str
    trained: Any
    learning_rate: float


WAYS = {
    "head": Way("head only", HEAD, 2e-2),
    "lora": Way("LoRA and head", nnx.Any(nnx.LoRAParam, HEAD), 1e-2),
    "full": Way("all weights", ALL, 2e-3),
    "scratch": Way("all, from random weights", ALL, 2e-3),
}


def make_step(trained: Any) -> Callable[..., jax.Array]:
    """Returns a compiled step that trains the Variables that a filter selects."""

    def loss_fn(model: Classifier, samples: Array, labels: Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(samples), labels).mean()

    @nnx.jit
    def train_step(model: Classifier, optimizer: nnx.Optimizer, samples: Array, labels: Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(loss_fn, wrt=trained)(model, samples, labels)
        optimizer.update(model, grads)
        return loss

    return train_step


@nnx.jit
def predict(model: Classifier, samples: Array) -> jax.Array:
    """The logits of each clip."""
    return model(samples)


def create(name: str, pretrained: SileroVAD, options: argparse.Namespace) -> Classifier:
    """Returns the network that is trained in this way: a copy of the pretrained one, or a new one, with a new head."""
    rngs = nnx.Rngs(options.seed)
    backbone = nnx.clone(pretrained)
    if name == "scratch":
        backbone = SileroVAD(rngs=rngs)
        backbone.stft.kernel.value = pretrained.stft.kernel.value
    if name == "lora":
        backbone = adapt(backbone, options.rank, rngs=rngs)
    return Classifier(backbone, len(data.WORDS), rngs=rngs)


def train(
    model: Classifier, way: Way, clips: data.Clips, test: data.Clips, options: argparse.Namespace
) -> plots.Run:
    """Trains a network in one way; returns how the accuracy on the test clips grew, and the last predictions."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, way.learning_rate, options.steps // 10, options.steps)
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=way.trained)
    train_step = make_step(way.trained)
    shuffle = np.random.default_rng(options.seed)
    every = max(1, options.steps // EVALUATIONS)
    run = plots.Run(way.title, nnx.count_params(model, way.trained), [], [], np.empty(0))
    bar = Bar(range(options.steps), label=way.title, size=options.batch_size, unit="clips")
    for step in bar:
        rows = shuffle.choice(len(clips.labels), options.batch_size, replace=False)
        loss = train_step(model, optimizer, clips.samples[rows], clips.labels[rows])
        if (step + 1) % every == 0 or step + 1 == options.steps:
            run.predictions = np.asarray(predict(model, test.samples).argmax(-1))
            run.steps.append(step + 1)
            run.accuracies.append(float((run.predictions == test.labels).mean()))
        if bar.due:
            bar.draw(f"loss {loss:.4f}")
    return run


def check_folded(model: Classifier, test: data.Clips) -> None:
    """Prints by how much the logits differ once the adapters are folded into the weights of the network."""
    folded = Classifier(fold(model.backbone), len(data.WORDS), rngs=nnx.Rngs(0))
    folded.head = model.head
    difference = abs(predict(folded, test.samples) - predict(model, test.samples)).max()
    print(f"  folded into the weights of the network, the logits differ by {difference:.0e}", flush=True)


def main() -> int:
    """Runs the example; returns its exit code."""
    start = time.perf_counter()
    options = parse_options()
    pretrained = SileroVAD(rngs=nnx.Rngs(options.seed))
    try:
        load(pretrained, getattr(options, "weights", None))
    except WeightsError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    clips = data.make(options.clips, options.chunks, options.seed)
    test = data.make(options.test_clips, options.chunks, options.seed + 1)
    noise = np.random.default_rng(options.seed).normal(scale=0.03, size=test.samples.shape)
    speech = [
        float(nnx.jit(pretrained.speech)(x.astype(np.float32)).max(1).mean()) for x in (test.samples, noise)
    ]
    print(
        f"silero-vad, {nnx.count_params(pretrained):,} weights; the speech that it hears in a clip, on average:"
    )
    print(f"  vowels {speech[0]:.2f}, noise {speech[1]:.2f}", flush=True)
    runs: list[plots.Run] = []
    for name, way in WAYS.items():
        begin = time.perf_counter()
        model = create(name, pretrained, options)
        runs.append(train(model, way, clips, test, options))
        file = options.output / f"{name}.safetensors"
        nnx.save_weights(file, model, way.trained)
        print(
            f"{way.title}: {runs[-1].weights:,} weights trained, test accuracy {runs[-1].accuracies[-1]:.3f}, "
            f"{file.name} {file.stat().st_size / 1000:,.0f} kB, {time.perf_counter() - begin:.1f} s",
            flush=True,
        )
        if name == "lora":
            check_folded(model, test)
    plots.draw(runs, test.labels, data.WORDS, options.output / "accuracy.png")
    print(f"plot: {options.output / 'accuracy.png'}")
    print(f"finished in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
