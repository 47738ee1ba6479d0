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
        description="Train a GRU on hourly series made by a formula, and forecast a week of those it has not seen.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--series", type=whole(1), default=512, metavar="N", help="series to learn from")
    add("--test-series", type=whole(3), default=64, metavar="N", help="other series, to forecast")
    add("--known", type=whole(7), default=14, metavar="N", help="days that a forecast starts from")
    add("--days", type=whole(1, 7), default=7, metavar="N", help="days to forecast")
    add("--paths", type=whole(2), default=100, metavar="N", help="paths drawn for each series")
    add("--hidden", type=whole(1), default=64, metavar="N", help="features of each GRU cell")
    add("--layers", type=whole(1), default=1, metavar="N", help="GRU cells, one on the other")
    add("--steps", type=whole(1), default=400, metavar="N", help="steps of the training")
    add("--batch-size", type=whole(1), default=32, metavar="N", help="series a step")
    add("--learning-rate", "--lr", type=positive, default=5e-3, metavar="X", help="peak, after warm-up")
    add("--seed", type=whole(0, 2**31), default=0, metavar="N", help="for series, weights, order and paths")
    add("--output", type=Path, default=nearest(HERE / "out"), metavar="DIR", help="where the plot goes")
    options = parser.parse_args()
    if options.batch_size > options.series:
        parser.error(f"argument --batch-size: {options.batch_size} is more than --series {options.series}")
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
