"""How a warm call knows its arguments again as they come, without flattening them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from liftnn.graph.description import ARRAY
from liftnn.graph.kinds import is_object
from liftnn.lifting.result import Plan
from liftnn.modules.module import Module
from liftnn.trees import make_picker
from liftnn.variables.static import Static
from liftnn.variables.variable import Variable

OBJECTS = (Module, Variable)
_ATOMS = (str, bytes, int, float, complex, bool, type(None))


class NotDirectError(Exception):
    """Arguments that a warm call cannot know again as they come."""


class Direct:
    """Arguments each of which is a module, a tree of arrays, or a static value that cannot change.

    Args:
      plan: The arguments.
      args: The positional arguments.
      kwargs: The keyword arguments, in the order in which they were passed.

    Raises:
      NotDirectError: If one of the arguments is something else, such as a tuple with a module in it.
    """

    __slots__ = ("_order", "_static", "names", "pick", "position", "tokens")

    def __init__(self, plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any]):
        given = (*args, *kwargs.values())
        self.names = tuple(kwargs)
        self.position = next((i for i, x in enumerate(given) if isinstance(x, OBJECTS)), None)
        """The position of the first module, None if there is none."""
        positional, named = plan.arguments
        order = [*range(len(args)), *(len(args) + self.names.index(name) for name in named)]
        tokens: list[Any] = [None] * len(given)
        trees: list[int] = []
        self._static: dict[int, Any] = {}
        for i, argument in zip(order, (*positional, *named.values()), strict=True):
            edges = [plan.graph.edges[leaf] for leaf in argument.leaves]
            if isinstance(given[i], OBJECTS):
                tokens[i] = type(given[i]) if i == self.position else id(given[i])
            elif all(edge is ARRAY for edge in edges):
                tokens[i] = type(given[i])
                trees.append(i)
            elif len(edges) == 1 and type(edges[0]) is Static and type(given[i]) in _ATOMS:
                tokens[i] = id(given[i])
                self._static[i] = given[i]  # kept, so that its id is
            else:
                raise NotDirectError
        self.tokens = tuple(tokens)
        """Of each argument its id if it is a module or static, else its type; of the first module its type too."""
        self.pick = make_picker(trees)
        """Picks the trees of arrays, in the order of the arguments."""
        flat = order == [*range(len(given))] and all(
            len(a.leaves) == 1 for a in (*positional, *named.values())
        )
        self._order = None if flat else order

    def leaves_of(self, given: tuple[Any, ...]) -> Sequence[Any]:
        """The leaves of arguments like these."""
        if self._order is None:
            return given
        tree = [_LEAF if i in self._static else given[i] for i in self._order]
        return jax.tree.leaves(tree, is_leaf=is_object)


_LEAF = object()
"""Stands for a static argument, which may be None."""
