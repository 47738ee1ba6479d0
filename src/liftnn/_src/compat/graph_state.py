"""`GraphState`: a State that knows the structure of its modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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

    if TYPE_CHECKING:
        _graphdef: Any

    def __init__(self, graphdef: Any, state: Mapping[Any, Any]):
        if not isinstance(state, Mapping):
            raise errors.ArgumentTypeError(
                f"A GraphState holds a State, not {an(type(state))}.",
                "Use `nnx.split` for a single Variable.",
            )
        super().__init__(state)
        object.__setattr__(self, "_graphdef", graphdef)

    def copy(self) -> GraphState:
        """Return a new GraphState of the same structure and Variables."""
        return GraphState(self._graphdef, super().copy())

    __copy__ = copy

    def __reduce__(self) -> Any:
        return GraphState, (self._graphdef, State(self))


def common_graphdef(states: tuple[Any, ...]) -> Any:
    """Return the structure that GraphStates share.

    Args:
      states: The arguments of `merge`, of which the first is a GraphState.

    Returns:
      The structure.

    Raises:
      ArgumentTypeError: If one of them is not a GraphState.
      StructureError: If two of them have different structures.
    """
    first = states[0]._graphdef
    for position, x in enumerate(states):
        if not isinstance(x, GraphState):
            raise errors.ArgumentTypeError(
                f"nnx.merge got a GraphState, and {an(type(x))} as argument {position}.",
                "Pass all values of one call of `nnx.unpack`, or a GraphDef and States.",
            )
        if x._graphdef != first:
            raise errors.StructureError(
                "The GraphDef must be the same in all GraphStates that nnx.merge gets, and that of argument "
                f"{position} differs from that of argument 0.",
                "Pass all values of one call of `nnx.unpack`.",
            )
    return first


def _one_level(x: GraphState) -> tuple[list[tuple[Any, Any]], tuple[Any, Any]]:
    """Return the children with their keys, as those of a State, and the static part."""
    state = State(x)
    entries, treedef = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda y: y is not state)
    return [(path[0], child) for path, child in entries], (x._graphdef, treedef)


def _flatten(x: GraphState) -> tuple[list[Any], Any]:
    children, static = _one_level(x)
    return [child for _, child in children], static


def _unflatten(static: Any, children: Any) -> GraphState:
    graphdef, treedef = static
    return GraphState(graphdef, treedef.unflatten(children))


jax.tree_util.register_pytree_with_keys(GraphState, _one_level, _unflatten, _flatten)
