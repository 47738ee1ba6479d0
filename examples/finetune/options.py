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
        description="Teach the pretrained network of silero-vad to tell ten vowels apart, in four ways.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--clips", type=whole(10), default=500, metavar="N", help="clips to learn from")
    add("--test-clips", type=whole(10), default=1000, metavar="N", help="other clips, to test with")
    add("--chunks", type=whole(1), default=10, metavar="N", help="length of a clip, in 512 samples (32 ms)")
    add("--rank", type=whole(1), default=4, metavar="N", help="of the LoRA adapters")
    add("--steps", type=whole(1), default=300, metavar="N", help="steps of each training")
    add("--batch-size", type=whole(1), default=50, metavar="N", help="clips a step")
    add("--seed", type=whole(0, 2**31), default=0, metavar="N", help="for clips, new weights and order")
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="of silero-vad, in place of those in the package",
    )
    add("--output", type=Path, default=nearest(HERE / "out"), metavar="DIR", help="for weights and the plot")
    options = parser.parse_args()
    if options.batch_size > options.clips:
        parser.error(f"argument --batch-size: {options.batch_size} is more than --clips {options.clips}")
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


def nearest(path: Path) -> Path:
    """The path as seen from the current folder, if it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
