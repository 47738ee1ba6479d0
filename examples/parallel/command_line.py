"""The command line of the examples: the number of steps and the seed."""

import argparse
import math
from collections.abc import Callable


def parse_options(description: str | None) -> argparse.Namespace:
    """Returns the options given; leaves with a message and exit code 2 if one is wrong."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--steps", type=_whole(1), default=10, metavar="N", help="steps of training")
    parser.add_argument(
        "--seed", type=_whole(0, 2**32 - 1), default=0, metavar="N", help="for weights and data"
    )
    return parser.parse_args()


def _whole(low: int, high: float = math.inf) -> Callable[[str], int]:
    """Returns an argparse type: a whole number from `low` to `high`."""
    wanted = f"a whole number from {low} to {high}" if high < math.inf else f"a whole number from {low} on"

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return int(text)

    return parse
