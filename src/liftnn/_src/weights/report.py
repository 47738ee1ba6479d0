"""What did not fit when weights were loaded: a report by path, and the error with the same text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from liftnn import errors
from liftnn._src.publish import publish


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What loading weights left over, by path; it is empty, and false, if everything fits.

    `print(report)` shows a line for each path, with both sides.

    Args:
      missing: A line for each Variable of the module without a tensor: its path, type and the name of the tensor.
      unexpected: A line for each tensor without a Variable: its name and type.
      mismatched: A line for each Variable with a tensor of another shape or dtype, with both types.
      metadata: The metadata of the file, texts by name; empty if the weights do not come from a file.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> report = liftnn.from_torch(model, {"weight": jnp.ones((3, 2))}, strict=False)
      >>> print(report)
      missing:
        bias: float32[3], from 'bias'
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        sections = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("mismatched", self.mismatched),
        )
        return "\n".join(
            line for title, lines in sections if lines for line in (f"{title}:", *_indented(lines))
        )


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def misfit(source: str, report: LoadReport, remedy: str) -> errors.CheckpointError:
    """Return the error for weights that do not fit a module.

    Args:
      source: Where the weights come from, at the start of a sentence.
      report: What does not fit.
      remedy: What to do instead.

    Returns:
      The error; it lists every path.
    """
    return errors.CheckpointError(f"{source} does not fit the module:\n{report}", remedy)


publish(LoadReport)
