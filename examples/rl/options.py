"""The command line of train.py."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
EPOCHS = 4  # passes over the steps of an update
MINIBATCHES = 4  # optimizer steps in a pass


def parse_options() -> argparse.Namespace:
    """Returns the options given, each checked; leaves with a message and exit code 2 if one is wrong."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Balance a pole on a cart by PPO.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--updates", type=whole(1), default=240, metavar="N", help="times that steps are collected")
    add("--environments", type=whole(1), default=32, metavar="N", help="environments side by side")
    add("--steps", type=whole(1), default=128, metavar="N", help="steps of each environment an update")
    add("--learning-rate", "--lr", type=positive, default=1e-3, metavar="X", help="falls to 0 linearly")
    add("--seed", type=whole(0, 2**32 - 1), default=0, metavar="N", help="for weights, actions, starts")
    add("--output", type=Path, default=nearest(HERE / "out"), metavar="DIR", help="where the plot goes")
    options = parser.parse_args()
    if options.updates > 10 and options.updates % 10:
        parser.error(f"argument --updates: {options.updates} is neither at most 10 nor a multiple of 10")
    if options.steps * options.environments % MINIBATCHES:
        parser.error(
            f"argument --steps: {options.steps} steps of {options.environments} environments "
            f"cannot be divided into {MINIBATCHES} minibatches"
        )
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


def nearest(path: Path) -> Path:
    """The path as seen from the current folder, if it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
