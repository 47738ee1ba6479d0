"""`Restored`: what `restore` returns."""

from __future__ import annotations

import dataclasses
from typing import Any

from liftnn._src.publish import publish


@dataclasses.dataclass(frozen=True)
class Restored:
    """The result of `restore`: the step, the values that were saved by name, and what did not fit.

    Args:
      step: The step of the checkpoint.
      values: The values that were passed to `save` as `values`; an empty dict without any.
      metrics: The metrics that were passed to `save`.
      missing: With `strict=False`, lines with the paths that the checkpoint does not have. They keep their values.
      unexpected: With `strict=False`, lines with the paths of the checkpoint that the modules do not have.
      different: With `strict=False`, lines with the paths whose shape, dtype or kind differs. They keep their values.

    Example:
      >>> import liftnn, tempfile
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> folder = tempfile.mkdtemp()
      >>> liftnn.save(folder, 7, model, values={"epoch": 1})
      >>> found = liftnn.restore(folder, model)
      >>> found.step, found.values, found.missing
      (7, {'epoch': 1}, ())
    """

    step: int
    values: dict[str, Any]
    metrics: dict[str, float]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    different: tuple[str, ...] = ()


publish(Restored)
