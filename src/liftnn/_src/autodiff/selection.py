"""Selection of the differentiated Variables and arrays, from `argnums`, `DiffState` and `wrt`."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax

from liftnn import errors
from liftnn._src.autodiff.diff_leaves import DiffLeaves, is_inexact
from liftnn._src.filters import Filter, Predicate, tag_error, to_predicate
from liftnn._src.graph.slots import ROOT, Slot
from liftnn._src.lifting.arguments import Uncopied
from liftnn._src.lifting.contract import Argument, Plan
from liftnn._src.trees import Path, children_with_leaves
from liftnn._src.variables import frames
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import make_variable
from liftnn._src.variables.variable_types import Param


@dataclasses.dataclass(frozen=True)
class DiffState:
    """A differentiated argument with its own filter, for use in `argnums`.

    Args:
      argnum: The position of the argument; negative positions count from the end.
      filter: A filter that selects the differentiated Variables. The default is `Param`; see `wrt` of `grad`.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> only_bias = liftnn.DiffState(0, liftnn.PathContains("bias"))
      >>> list(liftnn.grad(lambda m, x: m(x).sum(), argnums=only_bias)(model, jnp.ones((1, 2))))
      ['bias']
    """

    argnum: int
    filter: Filter = Param


_INEXACT_REMEDY = (
    "Exclude it with `wrt` or `argnums`, convert it to a floating point dtype, or pass allow_int=True."
)
ArgNums = int | DiffState | Sequence[int | DiffState]
Matched = Literal["each", "one", "one or no array", "none"]
"""The arguments that must have a matching Variable: each selected one, at least one of all, or none.

With "each" and "one" an argument that is neither a module nor an array is an error.
"""
Integers = Literal["rejected", "allowed", "left out"]


class Chosen(NamedTuple):
    """The arguments that `argnums` selects.

    Args:
      arguments: The arguments, each with its filter.
      is_single: Whether `argnums` is one argument instead of a sequence.
      argnums: The option for JAX: one position as it was passed, or a tuple. None if a filter has been given, which JAX
        does not know.
    """

    arguments: list[DiffState]
    is_single: bool
    argnums: Any

    @property
    def matched(self) -> Matched:
        """The modules that must have a matching Variable: one of several positions, or each with other filters."""
        return "each" if self.is_single or self.argnums is None else "one"


def parse_argnums(argnums: ArgNums, wrt: Filter) -> Chosen:
    """Return the arguments that `argnums` selects.

    Args:
      argnums: An int, a `DiffState`, or a sequence of them.
      wrt: The filter for arguments given as an int.

    Returns:
      The arguments.

    Raises:
      ArgumentTypeError: If `argnums` has another type.
    """
    try:
        several, is_single = _as_positions(argnums)
    except TypeError:
        raise errors.ArgumentTypeError(
            f"`argnums` must be an int, a DiffState or a sequence of them, not {argnums!r}.",
            "Pass the position of an argument, such as 0, or several, such as (0, liftnn.DiffState(1, filter)).",
        ) from None
    arguments = [a if isinstance(a, DiffState) else DiffState(a, wrt) for a in several]
    positions = tuple([a for a in several if not isinstance(a, DiffState)])
    if len(positions) < len(several):
        return Chosen(arguments, is_single, None)
    return Chosen(arguments, is_single, argnums if is_single else positions)


def _as_positions(argnums: Any) -> tuple[tuple[int | DiffState, ...], bool]:
    """Return the positions, and whether `argnums` is a single one; as in JAX, any integer object is a position."""

    def convert(argnum: Any) -> int | DiffState:
        return argnum if isinstance(argnum, DiffState) else operator.index(argnum)

    try:
        return (convert(argnums),), True
    except TypeError:
        return tuple(map(convert, argnums)), False


def select_arguments(plan: Plan, argnums: ArgNums | None, wrt: Filter) -> Selection:
    """Return the selection of the leaves that `vjp` and `linearize` differentiate.

    Args:
      plan: The arguments.
      argnums: The differentiated arguments, or None for all positional ones.
      wrt: A filter that selects the differentiated Variables of a module.

    Returns:
      The selection. With one position in `argnums`, or with filters, each selected argument must have a matching
      Variable. With several positions, or without `argnums`, one match in all arguments is enough; without `argnums`
      the default filter needs none.

    Raises:
      ArgumentTypeError: If `argnums` has another type, or if one of its arguments was not passed by position.
    """
    if argnums is not None:
        chosen = parse_argnums(argnums, wrt)
        return Selection(plan, chosen.arguments, chosen.matched)
    positional, _ = plan.arguments
    everything = [DiffState(i, wrt) for i in range(len(positional))]
    return Selection(plan, everything, "none" if wrt is Param else "one or no array")


class Selection:
    """The selection of differentiated Variables and arrays, before their values are known.

    Args:
      plan: The arguments.
      chosen: The differentiated arguments with their filters.
      matched: The modules that must have a matching Variable. The default is each.

    Raises:
      ArgumentError: If an argument is chosen twice.
      ArgumentTypeError: If one of the arguments was not passed by position.
    """

    def __init__(self, plan: Plan, chosen: Sequence[DiffState], matched: Matched = "each"):
        self.plan = plan
        self.matched = matched
        positional, _ = plan.arguments
        self.chosen: list[tuple[Argument, Predicate, bool]] = []
        """Each argument with its filter, and whether that is the default: it holds for Variables in modules only."""
        for argnum, wrt in ((c.argnum, c.filter) for c in chosen):
            if not -len(positional) <= argnum < len(positional):
                raise errors.ArgumentTypeError(
                    f"argnums contains {argnum}, but only {len(positional)} positional arguments were passed.",
                    "Pass the differentiated arguments by position.",
                )
            if any(positional[argnum] is argument for argument, *_ in self.chosen):
                raise errors.ArgumentError(
                    f"argnums selects args[{argnum % len(positional)}] twice.",
                    "Pass each position once; a filter such as `liftnn.DiffState(0, (liftnn.Param, liftnn.BatchStat))` "
                    "selects Variables of several types.",
                )
            self.chosen.append((positional[argnum], to_predicate(wrt), wrt is Param))

    def pick(self, leaves: Sequence[Any], integers: Integers = "left out") -> DiffLeaves:
        """Apply the filters to the dynamic leaves.

        Args:
          leaves: The dynamic leaves.
          integers: The treatment of leaves of integer or boolean dtype. "left out" skips those in modules only: as in
            JAX, arguments that are such arrays have gradients of dtype `float0`.

        Returns:
          The differentiated leaves.

        Raises:
          ArgumentTypeError: If a selected leaf has an integer or boolean dtype and `integers` is "rejected".
          FilterError: If a filter matches no Variable where `matched` requires one.
        """
        diff_leaves = DiffLeaves(self.plan)
        unmatched: list[errors.FilterError] = []
        only_floats = integers == "left out"
        by_slot = self.plan.by_slot(leaves)
        for argument, predicate, is_default in self.chosen:
            self._check_passed(argument)
            entries: list[Any] = []
            nothing: list[errors.FilterError] = []
            in_states = _find_in_states(argument.treedef)
            for position, leaf in enumerate(argument.leaves):
                if type(self.plan.graph.edges[leaf]) is not int:
                    entries.append(self._pick_array(leaf, diff_leaves))
                    continue
                below = self.plan.slots_below(leaf)
                # filters see paths from the argument, as those of `state`
                root = self.plan.leaf_paths[leaf][2:]
                found = [
                    p
                    for p, s in below.items()
                    if position in in_states
                    or (is_default and p == () and any(map(is_inexact, jax.tree.leaves(by_slot[s]))))
                    or self._matches(predicate, (*root, *p), s, by_slot[s], only_floats)
                ]
                entries.append(tuple([(path, diff_leaves.add(below[path])) for path in found]))
                if not found and (self.matched in ("each", "one") or below):
                    error = tag_error(predicate, [(*root, *path) for path in below])
                    name = self.plan.leaf_names[leaf] if len(argument.leaves) == 1 else argument.name
                    nothing.append(error or _nothing_matches(name, predicate, only_floats))
            if len(nothing) == len(entries):  # of several modules in an argument, one match is enough
                unmatched += nothing
            diff_leaves.arguments.append((argument, tuple(entries)))
        parts = any(
            entry for _, entries in diff_leaves.arguments for entry in entries if isinstance(entry, tuple)
        )
        if unmatched and (self.matched == "each" or (self.matched != "none" and not parts)):
            raise unmatched[0]
        if integers == "rejected":
            diff_leaves.check_inexact(diff_leaves.take(leaves), _INEXACT_REMEDY)
        return diff_leaves

    def _check_passed(self, argument: Argument) -> None:
        """Raise AliasingError for an argument that the function gets as it is, without its values."""
        for leaf in argument.leaves:
            if type(self.plan.graph.edges[leaf]) is Uncopied:
                raise errors.AliasingError(
                    f"Cannot differentiate {self.plan.leaf_names[leaf]} here: a part of it is an argument of an "
                    "enclosing map.",
                    "Select other arguments, or call the method in a lambda, which captures the object.",
                )

    def _pick_array(self, leaf: int, diff_leaves: DiffLeaves) -> int | None:
        """Return the position of an argument that is an array leaf; None for a static value, which has no gradient."""
        if Slot(ROOT, leaf) in self.plan.index:
            return diff_leaves.add(Slot(ROOT, leaf))
        if self.matched in ("each", "one"):
            raise errors.ArgumentTypeError(
                f"Cannot differentiate {self.plan.leaf_names[leaf]}: it is not an array.",
                "With `argnums`, select only arguments that contain nothing but arrays and modules.",
            )
        return None

    def _matches(self, predicate: Predicate, path: Path, slot: Slot, value: Any, only_floats: bool) -> bool:
        """Check whether a dynamic leaf of a module matches a filter."""
        x = value
        if self.plan.index[slot] < len(self.plan.variables):
            cls = self.plan.graph.specs[slot.node].type
            x = make_variable(cls, value, self.plan.metadata_of(slot.node), frames.owner_now())
        leaves = jax.tree.leaves(value)
        return bool(leaves) and predicate(path, x) and (not only_floats or any(map(is_inexact, leaves)))


def _find_in_states(treedef: Any) -> frozenset[int]:
    """Return the positions of the leaves of a tree that are in a State: as in JAX, all of them are differentiated."""
    found: set[int] = set()
    todo = [(treedef, range(treedef.num_leaves))]
    while todo:
        tree, leaves = todo.pop()
        node = tree.node_data()
        if node is not None and node[0] is State:
            found.update(leaves)
        else:
            todo += children_with_leaves(tree, leaves.start)
    return frozenset(found)


def _nothing_matches(name: str, predicate: Predicate, only_floats: bool) -> errors.FilterError:
    what = "floating point Variable" if only_floats else "Variable"
    return errors.FilterError(
        f"Nothing to differentiate: no {what} of {name} matches {predicate!r}.",
        "Pass a filter as `wrt` that matches Variables of the module, such as liftnn.Param, or leave the argument out "
        "of `argnums`.",
    )
