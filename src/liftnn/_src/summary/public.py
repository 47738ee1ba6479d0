"""The public functions that look inside modules; each loads what it needs at its first call."""

from __future__ import annotations

from typing import Any

from liftnn._src.filters import Filter
from liftnn._src.printing import load_summary
from liftnn._src.tracebacks import boundary


@boundary
def count_params(tree: Any, /, *filters: Filter) -> int:
    """Count the parameters of a module, shared ones once.

    Args:
      tree: A module, or any pytree with modules in it. Its Variables may be abstract.
      *filters: A Variable counts if it matches one of them. The default is `Param`.

    Returns:
      The number of elements of the arrays in all these Variables.

    Raises:
      FilterError: If an argument is not a filter.
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import liftnn
      >>> model = liftnn.Sequential(
      ...   liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))
      ... )
      >>> liftnn.count_params(model), liftnn.count_params(model, liftnn.BatchStat)
      (15, 6)
    """
    return load_summary("sizes").count_elements(tree, filters)
