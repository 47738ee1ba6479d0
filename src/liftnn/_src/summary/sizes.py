"""Sizes of modules: the elements and bytes of each type of Variable, shared ones once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from liftnn._src.filters import Filter
from liftnn._src.modules.verbs import find_variables
from liftnn._src.summary.outline import check_has_modules
from liftnn._src.summary.value_text import leaves_of, raw_value
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Param, RngState


class Size(NamedTuple):
    """The size of some arrays.

    Args:
      elements: The number of elements.
      bytes: The bytes that they take.
    """

    elements: int
    bytes: int

    def text(self, unit: str = "") -> str:
        """Return the size as text, such as `40 params, 160 B`."""
        return f"{self.elements:,}{unit}, {bytes_text(self.bytes)}"


def size_of(variables: Iterable[Variable[Any]]) -> Size:
    """Return the size of the values of Variables, which may be abstract, traced or deleted."""
    arrays = [x for variable in variables for x in leaves_of(raw_value(variable))]
    sizes = [(math.prod(x.shape), _item_size(x.dtype)) for x in arrays]
    return Size(sum(count for count, _ in sizes), sum(count * size for count, size in sizes))


def _item_size(dtype: Any) -> int:
    return int(getattr(dtype, "itemsize", 0))


def bytes_text(size: int) -> str:
    """Format a number of bytes, such as `1.2 KB`, with powers of 1,000."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} B"


def group_of(variable: Variable[Any]) -> str:
    """Return the name of the group in which a Variable is counted: its class; one for all random states."""
    return (RngState if isinstance(variable, RngState) else type(variable)).__name__


def sizes_by_type(variables: Iterable[Variable[Any]]) -> dict[str, Size]:
    """Return the size of each type of Variable: first those of parameters, then the others in order of occurrence."""
    groups: dict[str, list[Variable[Any]]] = {}
    for x in sorted(variables, key=lambda x: not isinstance(x, Param)):
        groups.setdefault(group_of(x), []).append(x)
    return {name: size_of(xs) for name, xs in groups.items()}


def count_elements(tree: Any, filters: tuple[Filter, ...]) -> int:
    """Return the number of elements of all Variables of a tree of modules that match one of the filters."""
    check_has_modules("count_params", tree)
    return size_of(find_variables(tree, filters or Param).values()).elements
