"""One compiled program: a pure call under `jax.jit`, with donated arguments apart and shardings by Variable."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Sequence
from typing import Any

import jax

from liftnn.axes.prefix import (
    Prefix,
    array_prefixes,
    broadcast_over,
    distinct,
    group,
    place_result,
    prefix_leaves,
    spread_arguments,
    ungroup,
    value_prefixes,
)
from liftnn.lifting.pure import PureCall
from liftnn.lifting.result import Plan, Result
from liftnn.programs.calling import Division, OtherTreeError, argument_trees
from liftnn.programs.compact import Outcomes
from liftnn.programs.donation import deleted_error, find_written, unshare
from liftnn.trees import are_distinct, same_tree
from liftnn.variables import frames
from liftnn.variables.static import Static


class Program:
    """A pure call compiled by `jax.jit`.

    Args:
      plan: The arguments.
      pure: The pure call.
      donated: The leaves of the donated arguments.
      shardings: `in_shardings` and `out_shardings`.
      options: Options of `jax.jit`.
      donate_written: Whether to donate, beside these, the Variables that the call overwrites.
    """

    def __init__(
        self,
        plan: Plan,
        pure: PureCall,
        donated: list[int],
        shardings: Any,
        options: dict[str, Any],
        donate_written: bool = False,
    ):
        self.plan = plan
        self.name = "jit"
        self.outcomes = Outcomes()
        reached, arrays = plan.reach(donated), set(plan.arrays_of(donated))
        self.donates = bool(donated) or donate_written
        self.is_abstract = donate_written
        self.divides = False
        """Whether the compiled function takes what it donates apart from the rest, as it is not just all values."""
        self._tree, self._units = argument_trees(plan)
        self._is_tried = False
        self._pure = pure
        self._out_prefix = shardings[1]
        self.grouped = any(s is not None for s in shardings)
        ranks: list[list[int]] = [[0] * len(plan.variables), [0] * plan.n_arrays]
        if self.grouped:
            self._shardings = self._resolve(*shardings)
            ranks = [[self._choices.index(s) for s in part] for part in self._shardings]
        self._values = Division([number in reached for number in plan.variables], ranks[0])
        self._arrays = Division([i in arrays for i in range(plan.n_arrays)], ranks[1])

        def call(*parts: Any) -> Any:
            values, arrays = self._join(*parts) if self.divides else self._open(*parts)
            result = pure(values, arrays)
            result = result._replace(updates=self._values.complete(result.updates, values))
            return self._group(result) if self.grouped else self.outcomes.compact(result)

        call.__name__ = call.__qualname__ = pure.__name__
        call.__wrapped__ = getattr(pure, "__wrapped__", pure)  # pyright: ignore[reportFunctionMemberAccess]  # for JAX's messages
        self._call, self._options = call, options
        self.jitted: Any = None
        self._nested: Any = None
        if not self.is_abstract:
            self._compile()

    def _compile(self) -> None:
        """Makes the compiled functions, once it is known what is donated."""
        options: dict[str, Any] = self._options
        places = self._values.places[0], self._arrays.places[0]
        self.divides = self.donates and places != (list(range(len(self.plan.variables))), [])
        self._call.__signature__ = _DIVIDED if self.divides else _WHOLE
        if self.grouped:
            shardings = self._split if self.divides else self._close_shardings
            given = shardings(*self._shardings)
            options = {**options, "in_shardings": given, "out_shardings": (self._choices, None)}
        self.jitted = jax.jit(self._call, donate_argnums=(0,) if self.donates else (), **options)
        self._nested = jax.jit(self._call, **options) if self.donates else self.jitted

    def _resolve(self, in_shardings: Any, out_shardings: Any) -> tuple[list[Prefix], list[Prefix]]:
        """The shardings of the flat arguments; notes those that the results can have."""
        plan = self.plan
        in_shardings = tuple(in_shardings) if isinstance(in_shardings, list) else in_shardings
        leaves: list[Prefix] = [None] * len(plan.graph.edges)
        dynamic = [
            a for a in plan.arguments[0] if not any(type(plan.graph.edges[i]) is Static for i in a.leaves)
        ]
        treedef = jax.tree_util.treedef_tuple([a.treedef for a in dynamic])
        prefixes = iter(broadcast_over(in_shardings, treedef, "the positional arguments that are not static"))
        for i in itertools.chain(*[a.leaves for a in dynamic]):
            leaves[i] = next(prefixes)
        self._spread = spread_arguments(plan, leaves)
        self._value_shardings: list[Prefix] = value_prefixes(plan, self._spread, [None] * len(plan.variables))
        arrays = array_prefixes(plan, self._spread, leaves, [None] * plan.n_arrays)
        self._choices = distinct([*leaves, *prefix_leaves(out_shardings)])
        return self._value_shardings, arrays

    def _group(self, result: Result) -> Any:
        """A result in one list for each sharding."""
        placement = place_result(self.plan, self._spread, self._value_shardings, result, self._out_prefix)
        return group(result, placement, self._choices)

    def divide(self, values: Sequence[Any], arrays: Sequence[Any]) -> tuple[Any, Any]:
        """What the compiled function takes: values and arrays or, if it divides them, the donated ones and the others.

        What is an argument without modules has its own tree there, so that the caller of a warm call need not know it.
        """
        if not self.donates:
            return self._close(values, arrays)
        if self.is_abstract:  # once, when the first arguments are known
            self._values.widen(find_written(self._pure, values, arrays))
            self.is_abstract = False
            self._compile()
        given, kept = self._split(values, arrays) if self.divides else self._close(values, arrays)
        if are_distinct((values, arrays)):  # nearly always
            return given, kept
        return unshare(given, kept), kept

    def _close(self, values: Sequence[Any], arrays: Sequence[Any]) -> tuple[Any, Any]:
        """The values, and the arrays in the trees of the arguments."""
        trees = self._tree.unflatten(arrays)
        if not self._is_tried and not same_tree(jax.tree.structure(trees), self._tree):
            # a class makes its static part anew each time, so `_open` could not tell its trees
            trees = tuple(arrays)
            self._tree, self._units = jax.tree.structure(trees), list(range(len(trees)))
            if not self.is_abstract:
                self._compile()
        self._is_tried = True
        return values, trees

    def _close_shardings(self, values: list[Prefix], arrays: list[Prefix]) -> Any:
        """The same for shardings: one for a whole argument if it has only one, since its class may check its leaves."""
        start, trees = 0, []
        for tree in self._tree.children():
            own = arrays[start : start + tree.num_leaves]
            trees.append(own[0] if own and own.count(own[0]) == len(own) else tree.unflatten(own))
            start += tree.num_leaves
        return values, tuple(trees)

    def _open(self, values: Sequence[Any], trees: Any) -> tuple[list[Any], list[Any]]:
        """The inverse of `_close`."""
        arrays, tree = jax.tree.flatten(trees)
        if not same_tree(tree, self._tree):
            raise OtherTreeError
        return list(values), arrays

    def _split(self, values: Sequence[Any], arrays: Sequence[Any]) -> tuple[Any, Any]:
        """What stands for the donated values and arrays, and what for the others."""
        of_values, of_arrays, arrays = self._values.pick, self._arrays.pick, tuple(arrays)
        given = of_values[0](values), of_arrays[0](arrays)
        return given, (of_values[1](values), of_arrays[1](arrays))

    def _join(self, given: Any, kept: Any) -> tuple[list[Any], list[Any]]:
        """The inverse of `_split`."""
        return self._values.join(given[0], kept[0]), self._arrays.join(given[1], kept[1])

    @property
    def donated(self) -> tuple[Sequence[int], Sequence[int]]:
        """Which of the values, and of the bare arrays, it donates."""
        return self._values.places[0], self._arrays.places[0]

    def clear_cache(self) -> None:
        """Forgets what was compiled."""
        for jitted in (self.jitted, self._nested):
            if jitted is not None:
                jitted.clear_cache()

    def run(self, values: Sequence[Any], arrays: Sequence[Any]) -> Any:
        """Runs the program as it is called from plain Python."""
        try:
            divided = self.divide(values, arrays)
            return self.jitted(*divided)
        except Exception as error:
            self.explain(error, values, arrays)
            raise

    def explain(self, error: Exception, values: Sequence[Any], arrays: Sequence[Any]) -> None:
        """Says by attribute paths what an error of JAX's is about.

        Args:
          error: The error; its text is changed in place.
          values: The values of the Variables.
          arrays: The bare arrays.

        Raises:
          DonatedError: If one of the buffers is gone.
        """
        deleted = deleted_error(self.plan, values, arrays)
        if deleted is not None:
            raise deleted from error
        self.name_slots(error)

    def trace(self, values: Sequence[Any], arrays: Sequence[Any]) -> Any:
        """JAX's traced stage."""
        try:
            divided = self.divide(values, arrays)
            return self.jitted.trace(*divided)
        except Exception as error:
            self.name_slots(error)
            raise

    def __call__(self, values: Sequence[Any], arrays: Sequence[Any]) -> Result:
        """Runs the program; inside another transform without donation.

        There the buffers belong to the caller of that transform, who still needs them, to compute gradients or
        to be as before if something raises.
        """
        try:
            divided = self.divide(values, arrays)
            program = self.jitted if frames.owner_now() is frames.PLAIN else self._nested
            return self.result(program(*divided))
        except Exception as error:
            self.name_slots(error)
            raise

    def name_slots(self, error: Exception) -> None:
        """Puts attribute paths in place of JAX's names for the flat arguments, in the text of an error of JAX's."""

        def path(slot: re.Match[str]) -> str:
            if slot[1] is None:
                which, kind, place = slot[2] == "kept", int(slot[3]), int(slot[4])
                at = (self._values, self._arrays)[kind].places[which][place]
            elif slot[1] == "arrays":
                name = self._units[int(slot[4])]
                return name if isinstance(name, str) else self.plan.array_name(name)
            else:
                kind, at = False, int(slot[4])
            return self.plan.array_name(at) if kind else self.plan.path_of(self.plan.variables[at])

        error.args = tuple([_SLOT.sub(path, x) if isinstance(x, str) else x for x in error.args])

    def result(self, returned: Any) -> Result:
        """The result in what the compiled function returned."""
        return ungroup(*returned) if self.grouped else self.outcomes.expand(returned)


# Names that no text of a user's has in it.
_WHOLE = inspect.signature(lambda liftnn_values, liftnn_arrays: None)
_DIVIDED = inspect.signature(lambda liftnn_given, liftnn_kept: None)
_SLOT = re.compile(r"\bliftnn_(?:(values|arrays)|(given|kept)\[([01])\])\[(\d+)\]")
