"""The MNIST example, run as a user runs it: its output, its pictures, and its errors.

What the script prints and draws is seen in a process of its own. Where only a message or a number counts it runs in
this process, which has JAX loaded already.
"""

import lzma
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_mnist"
DATA = EXAMPLE / "data"
TRAIN_LABELS = "train-labels-idx1-ubyte.xz"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the four data files, to be spoilt."""
    return Path(shutil.copytree(DATA, tmp_path / "data"))


@pytest.mark.parametrize(
    "model, reached",
    [
        ("cnn", 0.90),
        pytest.param("mlp", 0.80, marks=pytest.mark.thorough),
        pytest.param("resnet", 0.60, marks=pytest.mark.thorough),
    ],
)
def test_a_short_run_prints_its_epochs_and_the_accuracy_and_draws_two_pictures(tmp_path, model, reached):
    options = ["--limit", "4000", "--batch-size", "64", "--epochs", "1", "--output", str(tmp_path)]
    command = [sys.executable, str(EXAMPLE / "train.py"), "--model", model, *options]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}

    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)

    assert (result.returncode, result.stderr) == (0, "")
    start, epoch, plots, accuracy = result.stdout.splitlines()
    assert re.fullmatch(rf"{model} with [\d,]+ parameters on 4,000 images, seed 0, cpu", start)
    number = r"(\d\.\d{4})"
    pattern = rf"epoch 1/1: train loss {number}, train accuracy {number}, test accuracy {number}, \d+\.\d s"
    reported = re.fullmatch(pattern, epoch)
    assert reported
    assert plots == f"plots: {tmp_path / 'curves.png'}, {tmp_path / 'mistakes.png'}"
    assert accuracy == f"test accuracy: {reported[3]}"
    assert float(reported[3]) > reached
    for name in ("curves.png", "mistakes.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.thorough
def test_the_seed_decides_the_run(run_here, tmp_path):
    def outcome(seed: str) -> str:
        options = ("--model", "mlp", "--limit", "256", "--epochs", "1", "--output", tmp_path)
        return run_here(*options, "--seed", seed).stdout.splitlines()[1].rpartition(", ")[0]

    first, again, other = outcome("1"), outcome("1"), outcome("2")

    assert first.startswith("epoch 1/1: train loss")
    assert first == again
    assert first != other


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit_of_the_file(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_one_label(path: Path) -> None:
    content = bytearray(lzma.decompress(path.read_bytes()))
    content[-1] = (content[-1] + 1) % 10
    path.write_bytes(lzma.compress(content))


def drop_one_label(path: Path) -> None:
    path.write_bytes(lzma.compress(lzma.decompress(path.read_bytes())[:-1]))


def put_text(path: Path) -> None:
    path.write_bytes(lzma.compress(b"no digits here"))


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "spoil, cause",
    [
        (delete, "is missing"),
        (truncate, "is truncated"),
        (empty, "is truncated"),
        (flip_a_bit_of_the_file, "has been altered (Corrupt input data)"),
        (change_one_label, "has been altered (its sha256 is not that of MNIST)"),
        (drop_one_label, "has been altered (60007 bytes do not hold the shape (60000,))"),
        (put_text, "has been altered (its magic number is 6e6f2064)"),
        (put_a_folder, "cannot be read (Is a directory)"),
    ],
)
def test_a_data_file_that_is_not_the_original_is_one_line_and_exit_code_2(
    run_here, folder: Path, tmp_path: Path, spoil: Callable[[Path], None], cause: str
):
    path = folder / TRAIN_LABELS
    spoil(path)

    result = run_here("--data", folder, "--output", tmp_path / "out")

    message = f"train.py: error: {path} {cause}; copy it from {DATA}, or leave --data out\n"
    assert result == (2, "", message)


@pytest.mark.thorough
def test_the_remedy_for_a_file_of_the_repository_is_git_checkout(tmp_path):
    example = tmp_path / "train_mnist"
    shutil.copytree(EXAMPLE, example, ignore=shutil.ignore_patterns("out", "__pycache__"))
    (example / "data" / TRAIN_LABELS).unlink()
    command = [sys.executable, "train_mnist/train.py", "--output", str(tmp_path / "out")]

    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    path = f"train_mnist/data/{TRAIN_LABELS}"
    message = f"train.py: error: {path} is missing; restore it with: git checkout -- {path}\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", message)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--epochs", "0"], "argument --epochs: '0' is not a whole number from 1 on"),
        (["--epochs", "two"], "argument --epochs: 'two' is not a whole number from 1 on"),
        (["--batch-size", "60001"], "argument --batch-size: '60001' is not a whole number from 1 to 60000"),
        (["--limit", "100"], "argument --batch-size: 128 is more than --limit 100"),
        (["--lr", "nan"], "argument --learning-rate/--lr: 'nan' is not a number above 0"),
        (["--ema", "1"], "argument --ema: '1' is not a number in [0, 1)"),
        (["--seed", "-1"], "argument --seed: '-1' is not a whole number from 0 to 4294967295"),
        (["--model", "rnn"], "argument --model: invalid choice: 'rnn' (choose from 'mlp', 'cnn', 'resnet')"),
        (["--output", __file__], f"argument --output: cannot make the folder {__file__} (File exists)"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(run_here, options: list[str], message: str):
    result = run_here(*options)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"train.py: error: {message}"
