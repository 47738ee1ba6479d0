"""The steps of five examples, and of the same programs in Flax NNX: time of a step, and lines of code.

    python benchmarks/example_steps.py [--quick] [--rounds N] [--output FOLDER]

The programs in Flax NNX are in benchmarks/flax_examples. Models and batches have the sizes of `make example-NAME`. The
weights of liftnn's model are those of Flax's; the first loss of both must then be equal up to rounding and to dropout.
Lines are those of the models, losses and steps that both have, and of what Flax's program needs beside them, without
blank lines, comments and docstrings.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import pathlib
import sys
import tokenize
import types
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from machine import environment
from measure import Row, Run, options, report, take_single_turns

import liftnn

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"
RANDOM = np.random.default_rng(0)


class Program:
    """The files of an example, or the file of the same program in Flax NNX.

    Args:
      folder: Where the files are.
      names: The files, without their ending; the last one has the step.
    """

    def __init__(self, folder: pathlib.Path, names: tuple[str, ...]):
        self.files = [folder / f"{name}.py" for name in names]
        kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
        sys.path.insert(0, str(folder))
        self.modules = [self._load(file) for file in self.files]
        sys.path.remove(str(folder))
        for file in folder.glob("*.py"):  # the next example has files of the same names
            sys.modules.pop(file.stem, None)
        sys.modules.update(kept)

    @staticmethod
    def _load(file: pathlib.Path) -> types.ModuleType:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        return module

    def __getattr__(self, name: str) -> Any:
        return next(vars(x)[name] for x in reversed(self.modules) if name in vars(x))

    def definitions(self) -> dict[str, int]:
        """The lines of code of each class and function, and of the methods of a class by `Class.method`."""
        return {name: n for file in self.files for name, n in lines_of_code(file.read_text()).items()}


def lines_of_code(text: str) -> dict[str, int]:
    """The lines with code, but not with a docstring, of each definition; the rest of a class is `Class`."""
    tree = ast.parse(text)
    used: set[int] = set()
    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in ignored:
            used |= set(range(token.start[0], token.end[0] + 1))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            first = node.body[0]
            used -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))

    def span(node: Any) -> set[int]:
        start = min([node.lineno, *(x.lineno for x in getattr(node, "decorator_list", []))])
        return used & set(range(start, node.end_lineno + 1))

    counts: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = {f"{node.name}.{x.name}": span(x) for x in node.body if isinstance(x, ast.FunctionDef)}
            counts |= {name: len(lines) for name, lines in methods.items()}
            counts[node.name] = len(span(node)) - sum(map(len, methods.values()))
        elif isinstance(node, ast.FunctionDef):
            counts[node.name] = len(span(node))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            counts[node.targets[0].id] = len(span(node))
    return counts


def repeat(step: Callable[..., jax.Array], *args: Any) -> Run:
    """Calls a step as often as told."""

    def run(n: int) -> jax.Array:
        for _ in range(n):
            out = step(*args)
        return jax.block_until_ready(out)

    return run


def ensemble(ours: Program, theirs: Program) -> tuple[Run, Run]:
    """Sixteen networks, and a batch of 128 images."""
    images = jnp.asarray(RANDOM.integers(256, size=(128, 28, 28, 1)), jnp.uint8)
    labels = jnp.asarray(RANDOM.integers(10, size=128))
    seeds, rates = jnp.arange(16, dtype=jnp.uint32), jnp.geomspace(1e-3, 2e-2, 16)
    models, optimizers = liftnn.vmap(lambda seed, rate: ours.create(seed, rate, 1000))(seeds, rates)
    flax_models, flax_optimizers = theirs.create_members(seeds, rates, 1000)
    liftnn.from_flax(models, nnx.state(flax_models, nnx.Param), only=liftnn.Param)
    return (
        repeat(ours.train_step, models, optimizers, images, labels),
        repeat(theirs.train_step, flax_models, flax_optimizers, images, labels),
    )


def vae(ours: Program, theirs: Program) -> tuple[Run, Run]:
    """A batch of 128 images."""
    pixels = jnp.asarray(RANDOM.integers(256, size=(128, 784)), jnp.uint8)
    model = ours.Vae(400, 20, rngs=liftnn.Rngs(0, codes=1, pixels=2))
    flax_model = theirs.Vae(400, 20, rngs=nnx.Rngs(0, codes=1, pixels=2))
    liftnn.from_flax(model, nnx.state(flax_model, nnx.Param), only=liftnn.Param)
    schedule = optax.cosine_decay_schedule(2e-3, 1000)
    return (
        repeat(ours.train_step, model, liftnn.Optimizer(model, optax.adam(schedule)), pixels),
        repeat(
            theirs.train_step,
            flax_model,
            nnx.Optimizer(flax_model, optax.adam(schedule), wrt=nnx.Param),
            pixels,
        ),
    )


def rnn_forecast(ours: Program, theirs: Program) -> tuple[Run, Run]:
    """A batch of 32 series of three weeks."""
    series = ours.data.make(32, 504, 0)
    batch = jnp.asarray(series.values), jnp.asarray(series.features)
    model = ours.Forecaster(5, 64, 1, rngs=liftnn.Rngs(0, noise=1))
    flax_model = theirs.Forecaster(5, 64, 1, rngs=nnx.Rngs(0, noise=1))
    liftnn.from_flax(model, nnx.state(flax_model, nnx.Param), only=liftnn.Param)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    return (
        repeat(ours.train_step, model, liftnn.Optimizer(model, tx), *batch),
        repeat(theirs.train_step, flax_model, nnx.Optimizer(flax_model, tx, wrt=nnx.Param), *batch),
    )


def finetune(ours: Program, theirs: Program) -> tuple[Run, Run]:
    """LoRA and head, and a batch of 50 clips of ten chunks."""
    samples = jnp.asarray(RANDOM.normal(size=(50, 5120), scale=0.1), jnp.float32)
    labels = jnp.arange(50) % 10
    network = ours.adapt(ours.SileroVAD(rngs=liftnn.Rngs(0)), 4, rngs=liftnn.Rngs(1))
    model = ours.Classifier(network, 10, rngs=liftnn.Rngs(2))
    flax_network = theirs.adapt(theirs.SileroVAD(rngs=nnx.Rngs(0)), 4, rngs=nnx.Rngs(1))
    flax_model = theirs.Classifier(flax_network, 10, rngs=nnx.Rngs(2))
    liftnn.from_flax(model, nnx.state(flax_model))
    way = ours.WAYS["lora"].trained
    optimizer = liftnn.Optimizer(model, optax.adam(1e-3), wrt=way)
    flax_optimizer = nnx.Optimizer(flax_model, optax.adam(1e-3), wrt=theirs.TRAINED)
    return (
        repeat(ours.make_step(way), model, optimizer, samples, labels),
        repeat(theirs.make_step(theirs.TRAINED), flax_model, flax_optimizer, samples, labels),
    )


def train_gpt(ours: Program, theirs: Program) -> tuple[Run, Run]:
    """A batch of windows of the standard library's source, in accumulated parts."""
    with mock.patch.object(sys, "argv", ["train.py"]):
        chosen = ours.parse_options()
    shape = (chosen.micro_batches, chosen.batch_size // chosen.micro_batches, chosen.context + 1)
    batch = ours.draw_windows(ours.load(100_000).train, shape, (0, 0))
    model, optimizer = ours.make(chosen)
    sizes = len(ours.ALPHABET), chosen.layers, chosen.features, chosen.heads
    flax_model, flax_optimizer = theirs.make(ours.Config(*sizes, chosen.dropout, chosen.dtype), chosen)
    weights = liftnn.state(model, liftnn.Param).to_pure_dict()
    weights["blocks"] = weights["blocks"]["layers"]
    state = nnx.state(flax_model, nnx.Param)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.copy, weights))
    nnx.update(flax_model, state)
    return (
        repeat(ours.train_step, model, optimizer, batch),
        repeat(theirs.train_step, flax_model, flax_optimizer, batch),
    )


FILES: dict[str, tuple[Callable[..., tuple[Run, Run]], tuple[str, ...]]] = {
    "ensemble": (ensemble, ("model", "train")),
    "finetune": (finetune, ("model", "lora", "train")),
    "rnn_forecast": (rnn_forecast, ("model", "train")),
    "train_gpt": (train_gpt, ("data", "model", "options", "train")),
    "vae": (vae, ("model", "train")),
}


def measure(name: str, rounds: int) -> Row:
    """The row of one example."""
    make, files = FILES[name]
    ours, theirs = Program(EXAMPLES / name, files), Program(HERE / "flax_examples", (name,))
    run, flax_run = make(ours, theirs)
    first, expected = np.mean(run(1)), np.mean(flax_run(1))
    assert abs(first - expected) < 0.02 * abs(expected), (name, first, expected)
    for warm in (run, flax_run):
        warm(3)
    times = take_single_turns({"liftnn": run, "nnx.jit": flax_run}, rounds)
    lines, flax_lines = ours.definitions(), theirs.definitions()
    counts = [sum(lines[key] for key in lines.keys() & flax_lines.keys()), sum(flax_lines.values())]
    note = f"lines of code: liftnn {counts[0]}, Flax NNX {counts[1]}"
    return Row(
        name,
        times.ratio("liftnn", "nnx.jit"),
        None,
        microseconds=times.microseconds(),
        at_best=times.at_best("liftnn", "nnx.jit"),
        note=note,
    )


def main() -> None:
    """Measures all examples and writes the table."""
    given = options(__doc__)
    started = environment()
    rows = [measure(name, max(5, given.rounds // 3)) for name in FILES]
    report("example_steps", rows, given.output, started)


if __name__ == "__main__":
    main()
