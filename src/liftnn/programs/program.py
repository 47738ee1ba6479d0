"""One compiled program: a pure call under `jax.jit`, with donated arguments apart and shardings by Variable."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Sequence
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
    value_prefixes,
)
from liftnn.lifting.pure import PureCall
from liftnn.lifting.result import Plan, Result
from liftnn.programs.calling import Division, OtherTreeError, argument_trees
from liftnn.programs.compact import Outcomes
from liftnn.programs.donation import buffer_of, deleted_error, find_kept, find_written, unshare
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
        arrays -= {i for number in find_kept(plan) for i in plan.node_arrays[number]}
        self.donates = bool(donated) or donate_written
        self.is_abstract = donate_written
        self.divides = False
        """Whether the compiled function takes what it donates apart from the rest, as it is not just all values."""
        self.divides_arrays = False
        """Whether array leaves are among what it donates, and so are all taken one by one."""
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

        self._options = options
        self.jitted: Any = None
        self._nested: Any = None
        if not self.is_abstract:
            self._compile()

    def _compile(self) -> None:
        """Makes the compiled functions, once it is known what is donated."""
        options: dict[str, Any] = self._options
        values, self.divides_arrays = self._values.places[0], bool(self._arrays.places[0])
        whole = values == list(range(len(self.plan.variables))) and not self.divides_arrays
        self.divides = self.donates and not whole
        if self.grouped:
            if self.divides:
                given = self._split(*self._shardings, pack=self._pack_shardings)
            else:
                given = self._pack_shardings(*self._shardings)
            options = {**options, "in_shardings": given, "out_shardings": (self._choices, None)}
        self.jitted = jax.jit(self._make_call(True), donate_argnums=(0,) if self.donates else (), **options)
        # A function of its own: JAX would take the trace of the other one, which returns all that is donated.
        self._nested = jax.jit(self._make_call(False), **options) if self.donates else self.jitted

    def _make_call(self, gives_away: bool) -> Callable[..., Any]:
        """What is compiled; `gives_away` says whether what is donated is gone after the call, and so all returned."""

        def call(*parts: Any) -> Any:
            values, arrays = self._join(*parts) if self.divides else self._unpack(*parts)
            result = self._pure(values, arrays)
            if gives_away:
                result = result._replace(updates=self._values.complete(result.updates, values))
            return self._group(result) if self.grouped else self.outcomes.compact(result)

        call.__name__ = call.__qualname__ = self._pure.__name__
        call.__wrapped__ = getattr(self._pure, "__wrapped__", self._pure)  # pyright: ignore[reportFunctionMemberAccess]  # for JAX's messages
        call.__signature__ = _DIVIDED if self.divides else _WHOLE
        return call

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
        return self.outcomes.compact_groups(*group(result, placement, self._choices), result)

    def divide(self, values: Sequence[Any], arrays: Sequence[Any]) -> tuple[Any, Any]:
        """What the compiled function takes: values and trees of arrays; if it divides them, what is donated first."""
        if not self.donates:
            return self._pack(values, arrays)
        if self.is_abstract:  # once, when the first arguments are known
            self._values.widen(find_written(self._pure, values, arrays))
            self.is_abstract = False
            self._compile()
        given, kept = self._split(values, arrays) if self.divides else self._pack(values, arrays)
        return given if are_distinct((values, arrays)) else unshare(given, kept), kept

    def divide_units(self, values: Sequence[Any], units: Sequence[Any]) -> tuple[Any, Any]:
        """The same, from trees of arrays as they stand among the arguments."""
        if self.divides_arrays:
            return self.divide(values, jax.tree.leaves(units))
        trees = tuple(units)
        if not self.divides:
            given, kept = values, trees
        else:
            given, kept = (self._values.pick[0](values), ()), (self._values.pick[1](values), trees)
        if not self.donates or are_distinct((values, trees)):
            return given, kept
        return unshare(given, kept), kept

    def _pack(self, values: Sequence[Any], arrays: Sequence[Any]) -> tuple[Any, Any]:
        """The values, and the arrays in the trees of the arguments."""
        trees = self._tree.unflatten(arrays)
        if not self._is_tried and not same_tree(jax.tree.structure(trees), self._tree):
            # a class makes its static part anew each time, so `_unpack` could not tell its trees
            trees = tuple(arrays)
            self._tree, self._units = jax.tree.structure(trees), list(range(len(trees)))
            if not self.is_abstract:
                self._compile()
        self._is_tried = True
        return values, trees

    def _pack_shardings(self, values: Sequence[Prefix], arrays: Sequence[Prefix]) -> tuple[Any, Any]:
        """The same for shardings: one for a whole argument if it has only one, since its class may check its leaves."""
        start, trees = 0, list[Any]()
        for tree in self._tree.children():
            own = arrays[start : start + tree.num_leaves]
            trees.append(own[0] if own and own.count(own[0]) == len(own) else tree.unflatten(own))
            start += tree.num_leaves
        return values, tuple(trees)

    def _unpack(self, values: Sequence[Any], trees: Any) -> tuple[list[Any], list[Any]]:
        """The inverse of `_pack`."""
        arrays, tree = jax.tree.flatten(trees)
        if not same_tree(tree, self._tree):
            raise OtherTreeError
        return list(values), arrays

    def _split(
        self, values: Sequence[Any], arrays: Sequence[Any], pack: Callable[..., tuple[Any, Any]] | None = None
    ) -> tuple[Any, Any]:
        """What stands for the donated values and arrays, and what for the others."""
        of_values, of_arrays = self._values.pick, self._arrays.pick
        if not self.divides_arrays:
            trees = (pack or self._pack)(values, arrays)[1]
            return (of_values[0](values), ()), (of_values[1](values), trees)
        arrays = tuple(arrays)
        return (of_values[0](values), of_arrays[0](arrays)), (of_values[1](values), of_arrays[1](arrays))

    def _join(self, given: Any, kept: Any) -> tuple[list[Any], list[Any]]:
        """The inverse of `_split`."""
        if not self.divides_arrays:
            return self._unpack(self._values.join(given[0], kept[0]), kept[1])
        return self._values.join(given[0], kept[0]), self._arrays.join(given[1], kept[1])

    @property
    def donated(self) -> tuple[Sequence[int], Sequence[int]]:
        """Which of the values, and of the bare arrays, it donates."""
        return self._values.places[0], self._arrays.places[0]

    @property
    def donated_values(self) -> tuple[Sequence[int], Sequence[int]]:
        """Which of the values it donates, and which it does not, each in the order in which it takes them."""
        return self._values.places[0], self._values.places[1]

    def clear_cache(self) -> None:
        """Forgets what was compiled."""
        for jitted in (self.jitted, self._nested):
            if jitted is not None:
                jitted.clear_cache()

    def run(self, values: Sequence[Any], arrays: Sequence[Any]) -> Any:
        """Runs the program as it is called from plain Python."""
        return self._run(self.divide, values, arrays)

    def run_units(self, values: Sequence[Any], units: Sequence[Any]) -> Any:
        """The same, with trees of arrays as they stand among the arguments."""
        return self._run(self.divide_units, values, units)

    def _run(self, divide: Callable[..., Any], values: Sequence[Any], arrays: Sequence[Any]) -> Any:
        try:
            divided = divide(values, arrays)
            return self.jitted(*divided)
        except frames.RetraceNeeded:
            raise
        except Exception as error:
            return self.recover(error, values, jax.tree.leaves(arrays))

    def recover(self, error: Exception, values: Sequence[Any], arrays: Sequence[Any]) -> Any:
        """Called while an error of the compiled function is handled: makes the call once more, if that can help.

        Args:
          error: The error.
          values: The values of the Variables.
          arrays: The array leaves.

        Returns:
          What the compiled function returned, if two arrays had one buffer, which cannot be donated twice.

        Raises:
          Exception: The error, with attribute paths in its text, if nothing helps.
        """
        if self.donates and isinstance(error, jax.errors.JaxRuntimeError) and _TWICE in str(error):
            given, kept = self.divide(values, arrays)
            return self.jitted(unshare(given, kept, buffer_of), kept)
        self.explain(error, values, arrays)
        raise error

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
                if kind and not self.divides_arrays:
                    return self._unit_name(place)
                at = (self._values, self._arrays)[kind].places[which][place]
            elif slot[1] == "arrays":
                return self._unit_name(int(slot[4]))
            else:
                kind, at = False, int(slot[4])
            return self.plan.array_name(at) if kind else self.plan.path_of(self.plan.variables[at])

        error.args = tuple([_SLOT.sub(path, x) if isinstance(x, str) else x for x in error.args])

    def _unit_name(self, position: int) -> str:
        """The path of a tree of arrays among the arguments, or of an array leaf of a node."""
        name = self._units[position]
        return name if isinstance(name, str) else self.plan.array_name(name)

    def result(self, returned: Any) -> Result:
        """The result in what the compiled function returned."""
        return self.outcomes.expand_groups(returned) if self.grouped else self.outcomes.expand(returned)


_TWICE = "donate the same buffer twice"
"""What the runtime says of two arrays with one buffer, before it has touched any of them."""

# Names that no text of a user's has in it.
_WHOLE = inspect.signature(lambda liftnn_values, liftnn_arrays: None)
_DIVIDED = inspect.signature(lambda liftnn_given, liftnn_kept: None)
_SLOT = re.compile(r"\bliftnn_(?:(values|arrays)|(given|kept)\[([01])\])\[(\d+)\]")
