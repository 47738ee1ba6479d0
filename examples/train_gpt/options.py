"""The command line of train.py."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import jax

HERE = Path(__file__).resolve().parent


def parse_options() -> argparse.Namespace:
    """Returns the options given, each checked; leaves with a message and exit code 2 if one is wrong."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a GPT on the source code of Python's standard library, character by character.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser)
    options = parser.parse_args()
    check(parser, options)
    if options.dtype == "auto":
        options.dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options, with their types, defaults and help."""
    add = parser.add_argument
    add("--steps", type=whole(1), default=1000, metavar="N", help="steps of the whole run")
    add("--batch-size", type=whole(1), default=8, metavar="N", help="pieces of text a step")
    add("--micro-batches", type=whole(1), default=2, metavar="N", help="parts of a batch; gradients add up")
    add("--context", type=whole(2), default=256, metavar="N", help="characters of a piece of text")
    add("--layers", type=whole(1), default=4, metavar="N", help="blocks of the model")
    add("--features", type=whole(2), default=128, metavar="N", help="features of the model")
    add("--heads", type=whole(1), default=2, metavar="N", help="heads of the attention")
    add("--dropout", type=fraction, default=0.0, metavar="X", help="for runs that read the text repeatedly")
    add("--learning-rate", "--lr", type=positive, default=3e-3, metavar="X", help="peak, after warm-up")
    add("--weight-decay", type=not_negative, default=0.1, metavar="X", help="for matrices alone")
    add("--clip", type=positive, default=1.0, metavar="X", help="largest norm of the gradient")
    add(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the computation; auto is bfloat16 on a GPU or TPU and float32 on a CPU; weights are float32",
    )
    add(
        "--seed", type=whole(0, 2**32 - 1), default=0, metavar="N", help="for weights, dropout, data, samples"
    )
    add("--limit", type=whole(1), metavar="N", help="characters to learn from (default: all)")
    add(
        "--every",
        type=whole(1),
        default=200,
        metavar="N",
        help="steps from one report and sample to the next",
    )
    add("--prompt", default="\ndef ", metavar="TEXT", help="how a sample begins")
    add(
        "--temperature",
        type=not_negative,
        default=0.7,
        metavar="X",
        help="of a sample; 0 takes the likeliest",
    )
    add("--output", type=Path, default=nearest(HERE / "out"), metavar="DIR", help="for checkpoints and plot")
    add("--resume", action="store_true", help="save at each report, and go on from the last one saved")


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program with a message if options do not fit together."""
    for whole_option, part in (("batch_size", "micro_batches"), ("features", "heads")):
        total, divisor = getattr(options, whole_option), getattr(options, part)
        if total % divisor:
            parser.error(
                f"argument --{dashed(part)}: {divisor} does not divide --{dashed(whole_option)} {total}"
            )
    if options.features // options.heads % 2:
        parser.error(f"argument --heads: {options.heads} leave an odd number of features for each")
    if options.limit is not None and options.limit <= options.context:
        parser.error(f"argument --limit: {options.limit} is not more than --context {options.context}")
    if not 0 < len(options.prompt) < options.context:
        parser.error("argument --prompt: it has to be shorter than --context, and not empty")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --output: cannot make the folder {options.output} ({error.strerror})")


def dashed(name: str) -> str:
    """The name of an option as it is typed."""
    return name.replace("_", "-")


def whole(low: int, high: float = math.inf) -> Callable[[str], int]:
    """Returns an argparse type: a whole number from `low` to `high`."""
    wanted = f"a whole number from {low} to {high}" if high < math.inf else f"a whole number from {low} on"

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return int(text)

    return parse


def real(wanted: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    """Returns an argparse type: a number that fits, described as `wanted`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return parse


positive = real("a number above 0", lambda x: 0 < x < math.inf)
not_negative = real("a non-negative number", lambda x: 0 <= x < math.inf)
fraction = real("a number in [0, 1)", lambda x: 0 <= x < 1)


def nearest(path: Path) -> Path:
    """The path as seen from the current folder, if it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
