"""The command line of train.py."""

import argparse
from pathlib import Path

HERE = Path(__file__).resolve().parent


def parse_options() -> argparse.Namespace:
    """Returns the options given; leaves with a message and exit code 2 if one is wrong."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a decoder on the source code of Python's standard library, on any number of devices.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--processes", type=whole, default=1, metavar="N", help="processes to start on this machine")
    add("--devices", type=whole, metavar="N", help="CPU devices in each process (default: 8 in all)")
    add("--cluster", action="store_true", help="be one process of those that a cluster started")
    add("--steps", type=whole, default=300, metavar="N", help="steps of the whole run")
    add("--batch", type=whole, default=32, metavar="N", help="rows a step")
    add("--micro-batches", type=whole, default=2, metavar="N", help="parts of a batch, one after the other")
    add("--length", type=whole, default=128, metavar="N", help="bytes a row")
    add("--layers", type=whole, default=4, metavar="N", help="blocks of the decoder")
    add("--features", type=whole, default=128, metavar="N", help="features of the decoder")
    add("--learning-rate", "--lr", type=float, default=2e-3, metavar="X", help="peak, after warm-up")
    add("--seed", type=int, default=0, metavar="N", help="for weights and the order of the data")
    add("--save-every", type=whole, default=50, metavar="N", help="steps from checkpoint to checkpoint")
    add("--output", type=Path, default=HERE / "out", metavar="DIR", help="for checkpoints and the plot")
    add("--process", type=int, help=argparse.SUPPRESS)
    add("--coordinator", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.devices = options.devices or max(1, 8 // options.processes)
    if options.batch % options.micro_batches:
        parser.error(
            f"argument --micro-batches: {options.micro_batches} does not divide --batch {options.batch}"
        )
    return options


def whole(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
