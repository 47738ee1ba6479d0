"""Which collectives a compiled program has."""

import re
from typing import Any

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def count(program: str) -> dict[str, int]:
    """Returns the number of collectives of each kind in the text of a compiled program; one in a loop counts once."""
    return {kind: len(re.findall(rf" {kind}(?:-start)?\(", program)) for kind in KINDS}


def print_table(compiled: Any) -> None:
    """Prints the collectives of a compiled step: `liftnn.jit(step).lower(...).compile()`."""
    print("collectives of the compiled step:")
    for kind, number in count(compiled.as_text()).items():
        print(f"  {kind:<18} {number:>3}")
