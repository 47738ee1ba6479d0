"""What a forward pass keeps for the backward pass: modules in it are taken apart, and stay what they are."""

from __future__ import annotations

from typing import Any

import jax

from liftnn import errors
from liftnn.graph.description import Description
from liftnn.graph.merge import merge_all
from liftnn.lifting.arguments import flatten_call
from liftnn.lifting.escape import holds_tracer
from liftnn.lifting.lift import values_of
from liftnn.lifting.result import Plan
from liftnn.lifting.values import decode
from liftnn.trees import Path
from liftnn.variables import frames
from liftnn.variables.static import Static


class Residuals:
    """Residuals, and the arguments without derivatives, on their way to the backward pass: a pytree of arrays.

    Args:
      graph: Their structure.
      values: The values of their Variables.
      arrays: Their bare arrays.
    """

    def __init__(self, graph: Description, values: list[Any], arrays: list[Any]):
        self.graph = graph
        self.values = values
        self.arrays = arrays


jax.tree_util.register_pytree_node(
    Residuals, lambda x: ((x.values, x.arrays), x.graph), lambda graph, parts: Residuals(graph, *parts)
)


def keep(tree: tuple[tuple[Any, ...], dict[str, Any]]) -> Residuals:
    """Flattens what is kept, a tree like `(args, kwargs)`."""
    graph, objects, arrays, _ = flatten_call(tree[0], tree[1], _static_leaf)
    return Residuals(graph, values_of(Plan(graph), objects), arrays)


def _static_leaf(leaf: Any, path: Path, arrays: list[Any]) -> Static:
    """The edge of a residual that is neither array nor module."""
    if holds_tracer(leaf):
        raise errors.StructureError(
            f"The residuals of fwd have a {type(leaf).__name__} that holds an array, which a static value cannot "
            "carry to bwd.",
            "Return arrays, modules, States, or trees of them as residuals.",
        )
    return Static(leaf)


def open_residuals(residuals: Residuals) -> Any:
    """The residuals that were kept, with new modules."""
    values = [decode(v) for v in residuals.values]
    (args, _), _ = merge_all(residuals.graph, values, residuals.arrays, frames.owner_now())
    return args[0]
