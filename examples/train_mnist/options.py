"""The command line of train.py."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import data
from models import MODELS

HERE = Path(__file__).resolve().parent
TRAIN_IMAGES = 60_000


def parse_options() -> argparse.Namespace:
    """Returns the options given, each checked; leaves with a message and exit code 2 if one is wrong."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a network on MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", choices=MODELS, default="cnn", help="the network to train")
    add("--epochs", type=whole(1), default=5, metavar="N", help="passes over the training images")
    add("--batch-size", type=whole(1, TRAIN_IMAGES), default=128, metavar="N", help="images a step")
    add("--learning-rate", "--lr", type=positive, default=4e-3, metavar="X", help="peak, after warm-up")
    add("--weight-decay", type=fraction, default=0.01, metavar="X", help="of AdamW")
    add("--label-smoothing", type=fraction, default=0.0, metavar="X", help="part of a label for all digits")
    add("--ema", type=fraction, metavar="X", help="test a moving average of the weights, with this decay")
    add("--seed", type=whole(0, 2**32 - 1), default=0, metavar="N", help="for weights, dropout, order")
    add("--limit", type=whole(1, TRAIN_IMAGES), default=TRAIN_IMAGES, metavar="N", help="training images")
    add("--output", type=Path, default=nearest(HERE / "out"), metavar="DIR", help="where the plots go")
    add("--data", type=Path, default=nearest(data.FOLDER), metavar="DIR", help="where the four files are")
    add(
        "--resume",
        action="store_true",
        help="save each epoch in the output folder, and go on from the last one",
    )
    options = parser.parse_args()
    if options.batch_size > options.limit:
        parser.error(f"argument --batch-size: {options.batch_size} is more than --limit {options.limit}")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --output: cannot make the folder {options.output} ({error.strerror})")
    return options


def whole(low: int, high: float = math.inf) -> Callable[[str], int]:
    """Returns an argparse type: a whole number from `low` to `high`."""
    wanted = f"a whole number from {low} to {high}" if high < math.inf else f"a whole number from {low} on"

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return int(text)

    return parse


def positive(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def fraction(text: str) -> float:
    """An argparse type: a number in [0, 1)."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in [0, 1)")
    return value


def nearest(path: Path) -> Path:
    """The path as seen from the current folder, if it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
