"""Shared parts of `vmap`, `pmap` and `shard_map`: a pure function mapped over axes of its dynamic leaves.

Each dynamic leaf gets a prefix (an axis, or a spec) from the user's tree prefix. JAX's transform is applied to a
function of the flat leaves that returns its result in one list for each prefix. If JAX rejects the axes, the function
is traced again to find the leaf, so the error names its attribute path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from liftnn import errors
from liftnn._src.lifting.contract import Plan, Purified, Result
from liftnn._src.lifting.shown import show_as
from liftnn._src.prefixes.groups import distinct, group, ungroup
from liftnn._src.prefixes.prefix import Prefix, prefix_leaves
from liftnn._src.prefixes.spread import result_prefixes, spread_arguments


class MappedCall:
    """A pure function mapped over axes of its dynamic leaves.

    Args:
      plan: The arguments.
      pure: The pure function.
      prefixes: The prefix of each leaf of the arguments.
      out_prefix: A tree prefix of the output.
      unmapped: The prefix of what is not mapped.
    """

    def __init__(self, plan: Plan, pure: Purified, prefixes: list[Prefix], out_prefix: Any, unmapped: Prefix):
        self.plan = plan
        self.pure = pure
        self.prefixes = prefixes
        self.out_prefix = out_prefix
        self.spread = spread_arguments(plan, prefixes, unmapped)

    def __call__(self, leaves: Sequence[Any]) -> Result:
        """Map the function."""
        prefixes = self.prefixes_of(leaves)
        choices = distinct([*self.prefixes, *prefixes, *map(self.adapt, prefix_leaves(self.out_prefix))])
        reached: list[str] = []  # tells errors of the user's function from errors of the axes

        def grouped(leaves: Sequence[Any]) -> Any:
            reached.append("function")
            result = self.call(leaves, prefixes)
            groups = group(result, self.place(result, prefixes), choices)
            reached.append("output")
            return groups

        try:
            return ungroup(*self.run(show_as(grouped, self.pure), leaves, prefixes, choices))
        except (TypeError, ValueError) as error:
            if reached and reached[-1] == "function":  # raised by the user's function
                raise
            problem = self.find_problem(leaves, prefixes, called=bool(reached))
            if problem is None:
                raise
            raise problem from error

    def prefixes_of(self, leaves: Sequence[Any]) -> list[Prefix]:
        """Return the prefix of each dynamic leaf."""
        return self.spread.of_all(self.plan.slots, leaves)

    def adapt(self, prefix: Prefix) -> Prefix:
        """Return the prefix to use for an entry of `out_prefix`."""
        return prefix

    def place(self, result: Result, prefixes: list[Prefix]) -> list[Prefix]:
        """Return the prefix of each leaf of a result."""
        return result_prefixes(
            self.plan, self.spread, prefixes, result, self.out_prefix, settled=True, adapt=self.adapt
        )

    def call(self, leaves: Sequence[Any], prefixes: list[Prefix]) -> Result:
        """Call the function for one batch element or shard."""
        raise NotImplementedError

    def run(
        self,
        function: Callable[..., Any],
        leaves: Sequence[Any],
        prefixes: list[Prefix],
        choices: list[Prefix],
    ) -> Any:
        """Map a function of the leaves that returns one list for each of `choices`, and a layout."""
        raise NotImplementedError

    def find_problem(
        self, leaves: Sequence[Any], prefixes: list[Prefix], called: bool
    ) -> errors.LiftError | None:
        """Return the error that names the path of a wrong axis or spec; None if there is none.

        Args:
          leaves: The dynamic leaves.
          prefixes: Their prefixes.
          called: Whether the function was called.
        """
        raise NotImplementedError
