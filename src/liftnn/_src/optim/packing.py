"""What optax gets for parameters, gradients and its own state: States, or lists of arrays.

A transformation that only maps over trees computes the same for all trees with the same leaves in the same order. JAX
flattens lists itself, but calls Python for each State and Variable, some thirty times in an update by adam. So a
transformation gets nested lists if nothing in it could tell them from States: that is, if it consists of functions of
optax and JAX only (`sees_leaves_only`). If it holds a function of the user, such as a mask, it gets States, whose
leaves are Variables with the types and metadata of the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from liftnn import errors
from liftnn._src.optim.layout import ParameterLayout, make_lists
from liftnn._src.optim.transformations import sees_leaves_only
from liftnn._src.trees import Key, Path, an, is_jax_array
from liftnn._src.variables import frames
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State, make_state


class Packing(Protocol):
    """How the trees of a transformation are made and read."""

    def pack(self, values: Mapping[Path, Any]) -> Any:
        """Return the tree of these values by path."""
        ...

    def unpack(self, tree: Any) -> Mapping[Path, Any]:
        """Return the values of a tree by path; the inverse of `pack`."""
        ...

    def state(self, tree: Any) -> Any:
        """Return a tree as the State that users get."""
        ...

    def leaf(self, path: Path | None, x: Any) -> Any:
        """Return a leaf of the transformation's state: what it keeps for the parameter at a path, if that is given."""
        ...

    def node(self, entries: dict[Key, Any], aside: dict[Path, Any]) -> Any:
        """Return what stands for a State with these entries."""
        ...


class InStates:
    """Trees are States of Variables.

    Args:
      layout: The parameters.
    """

    def __init__(self, layout: ParameterLayout):
        self._layout = layout
        self._owner = frames.owner_now()

    def pack(self, values: Mapping[Path, Any]) -> State:
        """Return a State of these values, with the types and metadata of the parameters."""
        return self._layout.state(values)

    def unpack(self, tree: Any) -> Mapping[Path, Any]:
        """Return the entries of a State by path.

        Raises:
          ArgumentTypeError: If a transformation of the user's has made another tree.
        """
        if not isinstance(tree, State):
            raise errors.ArgumentTypeError(
                f"The transformation returned {an(type(tree))} as updates, not a State.",
                "Return `jax.tree.map(function, updates)`, which keeps the structure of the gradients.",
            )
        return tree.flat()

    def state(self, tree: State) -> State:
        """Return the State itself."""
        return tree

    def leaf(self, path: Path | None, x: Any) -> Any:
        """Return a Variable of the type of the parameter at `path`; the value if `path` is not that of a parameter."""
        if path is None or path not in self._layout.paths:
            return unwrap_raw(x)
        return self._layout.wrap(path, x, self._owner)

    def node(self, entries: dict[Key, Any], aside: dict[Path, Any]) -> State:
        """Return a State."""
        return make_state(entries, aside)


class InLists:
    """Trees are nested lists of arrays.

    Args:
      layout: The parameters.
    """

    def __init__(self, layout: ParameterLayout):
        self._layout = layout
        self._order, self._structure = layout.listed()

    def pack(self, values: Mapping[Path, Any]) -> Any:
        """Return the nested lists of these values."""
        return self._structure.unflatten([unwrap_raw(values[path]) for path in self._order])

    def unpack(self, tree: Any) -> Mapping[Path, Any]:
        """Return the entries of nested lists by path; None, which stands for no update, is an entry."""
        return dict(zip(self._order, self._structure.flatten_up_to(tree), strict=True))

    def state(self, tree: Any) -> State:
        """Return a State of the entries, with the types and metadata of the parameters."""
        return self._layout.state(self.unpack(tree))

    def leaf(self, path: Path | None, x: Any) -> Any:
        """Return the value."""
        return unwrap_raw(x)

    def node(self, entries: dict[Key, Any], aside: dict[Path, Any]) -> list[Any]:
        """Return a list."""
        return make_lists(entries, aside)


def choose_packing(
    tx: Any, layout: ParameterLayout, parameters: Mapping[Path, Any], opt_state: Any, extra: Mapping[str, Any]
) -> Packing:
    """Return the packing for a call of a transformation.

    Args:
      tx: The transformation.
      layout: The parameters.
      parameters: Their present values.
      opt_state: The state of the transformation. If the user has assigned one with other paths, the transformation
        gets States, so that optax sees the difference.
      extra: The extra arguments for the transformation, which may be functions of the user and States.
    """
    values = [*map(unwrap_raw, parameters.values()), *extra.values()]
    if all(map(is_jax_array, values)) and _is_of(layout, opt_state) and sees_leaves_only(tx):
        return InLists(layout)
    return InStates(layout)


def _is_of(layout: ParameterLayout, opt_state: Any) -> bool:
    """Return whether all States in the state of a transformation have the paths of the parameters."""
    found = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, (State, list)))
    return all(
        x.flat().keys() == layout.paths.keys() if isinstance(x, State) else type(x) is not list for x in found
    )
