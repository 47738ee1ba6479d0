"""`GraphState`: a State that knows the structure of its modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from liftnn import errors
from liftnn._src.trees import an
from liftnn._src.variables.state import State


class GraphState(State):
    """A State that knows the structure of the modules that it was taken from; see `unpack`.

    Args:
      graphdef: The structure.
      state: The Variables.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.merge(nnx.unpack(model)).kernel is model.kernel
      True
    """

    __slots__ = ("_graphdef",)

    _graphdef: Any

    def __init__(self, graphdef: Any, state: Mapping[Any, Any]):
        if not isinstance(state, Mapping):
            raise errors.ArgumentTypeError(
                f"A GraphState holds a State, not {an(type(state))}.",
                "Use `nnx.split` for a single Variable.",
            )
        super().__init__(state)
        object.__setattr__(self, "_graphdef", graphdef)


def _flatten_graph_state(x: GraphState) -> tuple[tuple[State], Any]:
    return (State(x),), x._graphdef


def _unflatten_graph_state(graphdef: Any, children: Any) -> GraphState:
    made = GraphState(graphdef, {})
    if isinstance(children[0], State):
        made |= children[0]
    return made


jax.tree_util.register_pytree_node(GraphState, _flatten_graph_state, _unflatten_graph_state)
