"""The GPT example: what it prints and draws, a run that is resumed, its samples against full passes, its errors."""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.examples.example import EXAMPLES, PNG_SIGNATURE, Outcome, imported

SIZES = {
    "steps": 6,
    "every": 2,
    "batch-size": 4,
    "context": 12,
    "layers": 2,
    "features": 8,
    "heads": 2,
    "limit": 2000,
    "dropout": 0.1,
}


def words(**options):
    options = SIZES | {name.replace("_", "-"): x for name, x in options.items()}
    return [word for name, x in options.items() for word in (f"--{name}", str(x))]


@pytest.fixture(scope="module")
def files():
    """The files of the example, imported once, so that its functions are compiled once."""
    with imported("train_gpt") as load:
        yield {name: load(name) for name in ("train", "sampling", "model", "data", "options")}


def run(files, *options) -> Outcome:
    """Runs the example in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["train.py", *map(str, options)])
        try:
            code = files["train"].main()
        except SystemExit as end:
            code = end.code
    return Outcome(code, out.getvalue(), err.getvalue())


class Whole(NamedTuple):
    """A run that was not interrupted."""

    folder: Path
    lines: list[str]


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """A run in this process, with its folder."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = run(files, *words(), "--resume", "--output", folder)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    return Whole(folder, lines_of(outcome.stdout))


def lines_of(text):
    """What a run prints, without the progress, which a slow machine shows."""
    return [line for line in text.splitlines() if not line.startswith("steps ")]


def without_times(lines):
    return [line.rpartition(", ")[0] if line.startswith("step ") else line for line in lines]


@pytest.mark.thorough
def test_a_run_prints_losses_and_samples_and_draws_the_losses(whole):
    start, *lines, plot, last = whole.lines
    block = 4 * 8 * 8 + 2 * 8 * 32 + 2 * 8  # attention, dense layers, norms
    count = 96 * 8 + 2 * block + 8
    assert start == f"{count:,} parameters, float32, 2,000 characters, 2,000 held out, seed 0, cpu"
    reports = [line for line in lines if not line.startswith("  |")]
    number = r"\d\.\d{4}"
    for step, report in zip((2, 4, 6), reports, strict=True):
        pattern = rf"step {step}/6: train loss {number}, validation loss ({number}), \d+\.\d s"
        found = re.fullmatch(pattern, report)
        assert found
    assert last == f"validation loss: {found[1]}"
    samples = [lines[lines.index(report) + 1] for report in reports]
    assert all(re.match(r"  \| def( |$)", sample) for sample in samples)
    assert plot == f"plot: {whole.folder / 'losses.png'}"
    assert (whole.folder / "losses.png").read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.thorough
def test_a_resumed_run_prints_and_draws_what_the_whole_run_does(files, whole, tmp_path):
    saved = whole.folder / "checkpoints" / "4"
    shutil.copytree(saved, tmp_path / "checkpoints" / "4")  # as if killed after step 4

    outcome = run(files, *words(), "--resume", "--output", tmp_path)

    assert (outcome.returncode, outcome.stderr) == (0, "")
    start, resumed, *lines, _, last = lines_of(outcome.stdout)
    assert (start, resumed, last) == (whole.lines[0], "resumed after step 4/6", whole.lines[-1])
    rest = next(i for i, line in enumerate(whole.lines) if line.startswith("step 6/6"))
    assert without_times(lines) == without_times(whole.lines[rest:-2])
    assert (tmp_path / "losses.png").read_bytes() == (whole.folder / "losses.png").read_bytes()


@pytest.mark.thorough
def test_a_run_goes_on_only_with_its_own_options(files, whole):
    outcome = run(files, *words(), "--resume", "--output", whole.folder, "--seed", "1")
    message = "the run in the output folder has --seed 0, not 1; pass that, or another --output"
    assert (outcome.returncode, outcome.stderr) == (2, f"train.py: error: {message}\n")


@pytest.fixture
def model(files):
    """A small model whose blocks matter: untrained ones predict the character they read."""
    config = files["model"].Config(96, 2, 8, 2, 0.5, "float32")
    model = files["model"].Gpt(config, liftnn.Rngs(0))
    keys = iter(jax.random.split(jax.random.key(1), 100))
    noise = liftnn.state(model, liftnn.Param).map(lambda _, x: 0.7 * jax.random.normal(next(keys), x.shape))
    liftnn.update(model, noise)
    return model


@pytest.mark.thorough
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_text_written_with_a_cache_is_that_of_full_passes(files, model, temperature):
    length, key = 24, jax.random.key(3)
    prompt = jnp.array([[3, 1, 4], [1, 5, 9]])
    text = np.zeros((2, length), np.int32)
    text[:, :3] = prompt
    full = liftnn.jit(liftnn.view(model, deterministic=True))
    for place in range(2, length - 1):  # what is after the place does not count: the attention is causal
        logits = full(jnp.asarray(text))[:, place]
        drawn = jax.random.fold_in(key, place)
        text[:, place + 1] = (
            jax.random.categorical(drawn, logits / temperature) if temperature else logits.argmax(-1)
        )
    assert len(np.unique(text)) > 5

    written = files["sampling"].generate(model, prompt, key, length=length, temperature=temperature)

    np.testing.assert_array_equal(written, text)
    assert not liftnn.state(model, liftnn.Cache).flat()


@pytest.mark.thorough
def test_matrices_decay_and_the_scales_of_norms_do_not(files, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *words(steps=40)])
    model, optimizer = files["train"].make(files["options"].parse_options())
    before = liftnn.clone(liftnn.state(model, liftnn.Param)).flat()
    zeros = jax.tree.map(jnp.zeros_like, liftnn.state(model, liftnn.Param))
    update = liftnn.jit(lambda model, optimizer: optimizer.update(model, zeros))
    for _ in range(2):  # the first step of the warm-up has the learning rate 0
        update(model, optimizer)
    after = liftnn.state(model, liftnn.Param).flat()
    kept = {path[-2:] for path, x in after.items() if (x.value == before[path].value).all()}
    assert kept == {("attention_norm", "scale"), ("dense_norm", "scale"), ("norm", "scale")}


@pytest.mark.thorough
def test_the_text_is_that_of_the_files_and_files_are_held_out_as_a_whole(files):
    data = files["data"]
    text = "def f(x):\n    return 'ab'  # ~\n"
    assert data.decode(data.encode(text)) == text
    assert data.decode(data.encode("é → \f")) == "? ? ?"
    part = data.load(5000).train
    windows = data.draw_windows(part, (3, 4, 50), (0, 1))
    written = data.decode(part)
    assert windows.shape == (3, 4, 50)
    assert all(data.decode(row) in written for row in windows.reshape(-1, 50))
    assert (windows == data.draw_windows(part, (3, 4, 50), (0, 1))).all()
    assert (windows != data.draw_windows(part, (3, 4, 50), (0, 2))).any()


@pytest.mark.thorough
def test_micro_batches_give_the_gradient_of_the_whole_batch(files, tmp_path):
    def losses(parts):
        outcome = run(files, *words(dropout=0, batch_size=8, micro_batches=parts, output=tmp_path))
        return [float(x) for x in re.findall(r"loss (\d\.\d+),", outcome.stdout)]

    whole = losses(1)
    assert len(whole) == 6
    np.testing.assert_allclose(losses(4), whole, atol=2e-4)


@pytest.mark.thorough
def test_a_run_that_was_killed_goes_on_to_the_same_losses(tmp_path):
    def command(folder):
        script = str(EXAMPLES / "train_gpt" / "train.py")
        return [sys.executable, script, *words(), "--resume", "--output", str(tmp_path / folder)]

    def run_whole(folder):
        result = subprocess.run(command(folder), capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
        return lines_of(result.stdout)

    whole = run_whole("whole")
    process = subprocess.Popen(command("killed"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step 4/"):
            process.kill()
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed = run_whole("killed")
    assert resumed[1] in ("resumed after step 2/6", "resumed after step 4/6")
    assert without_times(resumed[2:-2]) == without_times(whole)[-2 - len(resumed[2:-2]) : -2]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--steps", "0"], "argument --steps: '0' is not a whole number from 1 on"),
        (["--heads", "3"], "argument --heads: 3 does not divide --features 8"),
        (["--heads", "8"], "argument --heads: 8 leave an odd number of features for each"),
        (["--micro-batches", "3"], "argument --micro-batches: 3 does not divide --batch-size 4"),
        (["--limit", "12"], "argument --limit: 12 is not more than --context 12"),
        (["--dropout", "1"], "argument --dropout: '1' is not a number in [0, 1)"),
        (["--temperature", "-1"], "argument --temperature: '-1' is not a non-negative number"),
        (["--lr", "nan"], "argument --learning-rate/--lr: 'nan' is not a number above 0"),
        (["--prompt", ""], "argument --prompt: it has to be shorter than --context, and not empty"),
        (
            ["--dtype", "int8"],
            "argument --dtype: invalid choice: 'int8' (choose from 'auto', 'float32', 'bfloat16')",
        ),
        (["--output", __file__], f"argument --output: cannot make the folder {__file__} (File exists)"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(files, options, message):
    outcome = run(files, *words(), *options)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    found = outcome.stderr.splitlines()[-1]
    if "invalid choice" in message:  # newer Pythons leave the quotes out
        found, message = (text.replace("'", "") for text in (found, message))
    assert found == f"train.py: error: {message}"
