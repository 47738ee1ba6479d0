"""What a forward pass keeps for the backward pass: modules in it are taken apart, and stay what they are."""

from __future__ import annotations

from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.description import GraphSpec
from liftnn._src.graph.merge import merge_all
from liftnn._src.lifting.arguments import flatten_call
from liftnn._src.lifting.leaks import holds_tracer
from liftnn._src.lifting.lift import values_of
from liftnn._src.lifting.result import Plan
from liftnn._src.lifting.values import decode
from liftnn._src.static_values.static import Static
from liftnn._src.trees import Path
from liftnn._src.variables import frames


class Residuals:
    """Residuals, and the arguments without derivatives, on their way to the backward pass: a pytree of arrays.

    Args:
      graph: Their structure.
      leaves: Their dynamic leaves.
    """

    def __init__(self, graph: GraphSpec, leaves: list[Any]):
        self.graph = graph
        self.leaves = leaves


jax.tree_util.register_pytree_node(
    Residuals, lambda x: (x.leaves, x.graph), lambda graph, leaves: Residuals(graph, list(leaves))
)


def keep(tree: tuple[tuple[Any, ...], dict[str, Any]]) -> Residuals:
    """Flattens what is kept, a tree like `(args, kwargs)`."""
    graph, objects, arrays, _ = flatten_call(tree[0], tree[1], _static_leaf)
    return Residuals(graph, [*values_of(Plan(graph), objects), *arrays])


def _static_leaf(leaf: Any, path: Path, arrays: list[Any]) -> Static:
    """The edge of a residual that is neither array nor module."""
    if holds_tracer(leaf):
        raise errors.StructureError(
            f"The residuals of fwd have a {type(leaf).__name__} that holds an array, which a static value cannot "
            "carry to bwd.",
            "Return arrays, modules, States, or trees of them as residuals.",
        )
    return Static(leaf)


def merge_residuals(residuals: Residuals) -> Any:
    """The residuals that were kept, with new modules."""
    (args, _), _ = merge_all(residuals.graph, list(map(decode, residuals.leaves)), frames.owner_now())
    return args[0]
