"""Filters, as `flax.nnx.filterlib`."""

from liftnn._src.compat.path_filters import PathContains, PathIn, filters_to_predicates
from liftnn._src.filters import (
    All,
    Any,
    Everything,
    Filter,
    Not,
    Nothing,
    OfType,
    Predicate,
    WithTag,
    to_predicate,
)
from liftnn._src.trees import Key, Path

PathParts = Path

__all__ = [
    "All",
    "Any",
    "Everything",
    "Filter",
    "Key",
    "Not",
    "Nothing",
    "OfType",
    "PathContains",
    "PathIn",
    "PathParts",
    "Predicate",
    "WithTag",
    "filters_to_predicates",
    "to_predicate",
]
