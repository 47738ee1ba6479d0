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
from liftnn.lifting.result import Argument, Plan, Result
from liftnn.programs.calling import Inputs
from liftnn.programs.compact import Outcomes
from liftnn.programs.donation import buffer_of, deleted_error, find_kept, find_written, unshare
from liftnn.trees import are_distinct
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
        self.donates = bool(donated) or donate_written
        self.is_abstract = donate_written
        self._is_settled = False
        self._pure = pure
        self._out_prefix = shardings[1]
        self.grouped = any(s is not None for s in shardings)
        ranks: list[list[int] | None] = [None, None]
        if self.grouped:
            self._shardings = self._resolve(*shardings)
            ranks = [[self._choices.index(s) for s in part] for part in self._shardings]
        reached = plan.reach(donated)
        values = {slot for slot, number in enumerate(plan.variables) if number in reached}
        kept = {i for number in find_kept(plan) for i in plan.node_arrays[number]}
        self.inputs = Inputs(plan, values, set(plan.arrays_of(donated)) - kept, *ranks)
        self._options = options
        self.jitted: Any = None
        self._nested: Any = None
        if not self.is_abstract:
            self._compile()

    def _compile(self) -> None:
        """Makes the compiled functions, once it is known what is donated."""
        options: dict[str, Any] = self._options
        if self.grouped:
            given = self.inputs.pack_shardings(*self._shardings)
            options = {**options, "in_shardings": given, "out_shardings": (self._choices, None)}
        self.jitted = jax.jit(self._make_call(True), donate_argnums=self.inputs.donated, **options)
        # A function of its own: JAX would take the trace of the other one, which returns all that is donated.
        self._nested = jax.jit(self._make_call(False), **options) if self.donates else self.jitted

    def _make_call(self, gives_away: bool) -> Callable[..., Any]:
        """What is compiled; `gives_away` says whether what is donated is gone after the call, and so all returned."""

        def call(*given: Any) -> Any:
            values, arrays = self.inputs.unpack(given)
            result = self._pure(values, arrays)
            if gives_away:
                result = result._replace(updates=self.inputs.complete(result.updates, values))
            return self._group(result) if self.grouped else self.outcomes.compact(result)

        call.__name__ = call.__qualname__ = self._pure.__name__
        call.__wrapped__ = getattr(self._pure, "__wrapped__", self._pure)  # pyright: ignore[reportFunctionMemberAccess]  # for JAX's messages
        call.__signature__ = _SIGNATURE
        return call

    def _resolve(self, in_shardings: Any, out_shardings: Any) -> tuple[list[Prefix], list[Prefix]]:
        """The shardings of the flat arguments; notes those that the results can have."""
        plan = self.plan
        in_shardings = tuple(in_shardings) if isinstance(in_shardings, list) else in_shardings
        leaves: list[Prefix] = [None] * len(plan.graph.edges)
        dynamic = [a for a in plan.arguments[0] if not self._is_static(a)]
        named = self._named_in_order()
        dynamic += (
            named[: max(0, len(in_shardings) - len(dynamic))] if isinstance(in_shardings, tuple) else named
        )
        treedef = jax.tree_util.treedef_tuple([a.treedef for a in dynamic])
        prefixes = iter(broadcast_over(in_shardings, treedef, "the positional arguments that are not static"))
        for i in itertools.chain(*[a.leaves for a in dynamic]):
            leaves[i] = next(prefixes)
        self._spread = spread_arguments(plan, leaves)
        self._value_shardings: list[Prefix] = value_prefixes(plan, self._spread, [None] * len(plan.variables))
        arrays = array_prefixes(plan, self._spread, leaves, [None] * plan.n_arrays)
        self._choices = distinct([*leaves, *prefix_leaves(out_shardings)])
        return self._value_shardings, arrays

    def _is_static(self, argument: Argument) -> bool:
        return any(type(self.plan.graph.edges[i]) is Static for i in argument.leaves)

    def _named_in_order(self) -> list[Argument]:
        """The keyword arguments in the order of the function's parameters, without the static ones."""
        named = self.plan.arguments[1]
        try:
            order = list(inspect.signature(self._pure).parameters)
        except (TypeError, ValueError):  # it does not say what it takes
            order = []
        names = sorted(named, key=lambda n: order.index(n) if n in order else len(order))
        return [named[n] for n in names if not self._is_static(named[n])]

    def _group(self, result: Result) -> Any:
        """A result in one list for each sharding."""
        placement = place_result(self.plan, self._spread, self._value_shardings, result, self._out_prefix)
        return self.outcomes.compact_groups(*group(result, placement, self._choices), result)

    def pack(self, values: Sequence[Any], arrays: Sequence[Any]) -> Sequence[Any]:
        """What the compiled function takes; copies where one buffer would be donated twice."""
        if self.is_abstract:  # once, when the first arguments are known
            self.inputs.widen(find_written(self._pure, values, arrays))
        if self.is_abstract or (not self._is_settled and self.inputs.settle(arrays)):
            self.is_abstract = False
            self._compile()
        self._is_settled = True
        return self._unshare(self.inputs.pack(values, arrays))

    def _unshare(self, given: Sequence[Any], key: Callable[[Any], Any] = id) -> Sequence[Any]:
        if not self.donates or (key is id and are_distinct(given)):
            return given
        return unshare(given, self.inputs.donated, key)

    def clear_cache(self) -> None:
        """Forgets what was compiled."""
        for jitted in (self.jitted, self._nested):
            if jitted is not None:
                jitted.clear_cache()

    def run(self, values: Sequence[Any], arrays: Sequence[Any]) -> Any:
        """Runs the program as it is called from plain Python."""
        return self._run(self.pack, values, arrays)

    def run_units(self, values: Sequence[Any], units: Sequence[Any]) -> Any:
        """The same, with trees of arrays as they stand among the arguments."""
        return self._run(lambda *parts: self._unshare(self.inputs.sort(*parts)), values, units)

    def _run(self, pack: Callable[..., Any], values: Sequence[Any], arrays: Sequence[Any]) -> Any:
        try:
            given = pack(values, arrays)
            return self.jitted(*given)
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
            return self.jitted(*self._unshare(self.pack(values, arrays), buffer_of))
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
            given = self.pack(values, arrays)
            return self.jitted.trace(*given)
        except Exception as error:
            self.name_slots(error)
            raise

    def __call__(self, values: Sequence[Any], arrays: Sequence[Any]) -> Result:
        """Runs the program; inside another transform without donation.

        There the buffers belong to the caller of that transform, who still needs them, to compute gradients or
        to be as before if something raises.
        """
        try:
            given = self.pack(values, arrays)
            program = self.jitted if frames.owner_now() is frames.PLAIN else self._nested
            return self.result(program(*given))
        except Exception as error:
            self.name_slots(error)
            raise

    def name_slots(self, error: Exception) -> None:
        """Puts attribute paths in place of JAX's names for the flat arguments, in the text of an error of JAX's."""

        def path(slot: re.Match[str]) -> str:
            return self.inputs.name(int(slot[1]))

        error.args = tuple([_SLOT.sub(path, x) if isinstance(x, str) else x for x in error.args])

    def result(self, returned: Any) -> Result:
        """The result in what the compiled function returned."""
        return self.outcomes.expand_groups(returned) if self.grouped else self.outcomes.expand(returned)


_TWICE = "donate the same buffer twice"
"""What the runtime says of two arrays with one buffer, before it has touched any of them."""

_SIGNATURE = inspect.signature(lambda *liftnn_inputs: None)
"""A name that no text of a user's has in it."""

_SLOT = re.compile(r"\bliftnn_inputs\[(\d+)\]")
