"""The command line of train.py."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent


def parse_options() -> argparse.Namespace:
    """Returns the options given, each checked; leaves with a message and exit code 2 if one is wrong."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Learn to learn sines by MAML.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--updates", type=whole(1), default=20_000, metavar="N", help="optimizer steps of each model")
    add("--tasks", type=whole(1), default=25, metavar="N", help="tasks an update")
    add("--shots", type=whole(1), default=10, metavar="N", help="points to learn a task from")
    add("--inner-steps", type=whole(1), default=1, metavar="N", help="steps on a task within an update")
    add("--learning-rate", "--lr", type=positive, default=1e-3, metavar="X", help="of the outer optimizer")
    add("--seed", type=whole(0, 2**32 - 1), default=0, metavar="N", help="for weights and tasks")
    add("--output", type=Path, default=nearest(HERE / "out"), metavar="DIR", help="where the plot goes")
    options = parser.parse_args()
    if options.updates > 10 and options.updates % 10:
        parser.error(f"argument --updates: {options.updates} is neither at most 10 nor a multiple of 10")
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
