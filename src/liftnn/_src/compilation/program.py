"""One compiled program: a pure function under `jax.jit`, with donated arguments and shardings for each Variable."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from liftnn._src.compilation.calling_convention import Inputs
from liftnn._src.compilation.compact import OutputSpecs
from liftnn._src.compilation.donation import buffer_of, deleted_error, find_kept, find_written, unshare
from liftnn._src.compilation.jit_options import apply_jit
from liftnn._src.compilation.kept_shardings import Placement, find_placement, place, place_beside
from liftnn._src.compilation.moved import Move, Moved
from liftnn._src.lifting.call import Call
from liftnn._src.lifting.contract import Argument, Plan, PureFunction, Result
from liftnn._src.lifting.shown import rename, show_as
from liftnn._src.lifting.valueless import explain_valueless
from liftnn._src.prefixes.groups import distinct, group
from liftnn._src.prefixes.prefix import Prefix, broadcast_over, prefix_leaves
from liftnn._src.prefixes.spread import result_prefixes, spread_arguments
from liftnn._src.static_values.static import Static
from liftnn._src.trees import are_distinct
from liftnn._src.variables import frames
from liftnn._src.variables.variable import set_value_past_hooks


class Program:
    """A pure function compiled by `jax.jit`.

    Args:
      plan: The arguments.
      pure: The pure function.
      donated: The leaves of the donated arguments.
      shardings: `in_shardings` and `out_shardings`.
      options: Options of `jax.jit`.
      donate_written: Whether to donate also the Variables that the call overwrites.
      move: Takes the dynamic leaves, and returns them on the devices of the program. The default, None, moves none.
      first: The position of the first argument that `in_shardings` counts. The default is 0.
    """

    def __init__(
        self,
        plan: Plan,
        pure: PureFunction,
        donated: list[int],
        shardings: Any,
        options: dict[str, Any],
        donate_written: bool = False,
        move: Move | None = None,
        first: int = 0,
    ):
        self.plan = plan
        self.donates = bool(donated) or donate_written
        self.is_abstract = donate_written
        self._is_settled = False
        self._pure = pure
        self._first = first
        self._out_prefix = shardings[1]
        self.grouped = any(s is not None for s in shardings)
        self.output_specs = OutputSpecs(self.grouped)
        ranks: list[int] | None = None
        if self.grouped:
            self._shardings = self._resolve(*shardings)
            ranks = [self._choices.index(sharding) for sharding in self._shardings]
        positions: set[int] = set()
        if donated:
            kept = find_kept(plan)
            positions = {plan.index[s] for s in plan.slots_of(donated) if s.node not in kept}
        self.inputs = Inputs(plan, positions, ranks)
        self.is_placed = self.grouped or move is not None
        """Whether the shardings of what is written are those of the transform, or of the user."""
        self._options = options
        self._move = move
        self.jitted: Any = None
        self._nested: Any = None
        if not self.is_abstract:
            self._compile()

    def _compile(self) -> None:
        """Make the compiled functions, once the donated leaves are known."""
        options: dict[str, Any] = self._options
        if self.grouped:
            in_shardings = self.inputs.pack_shardings(self._shardings)
            options = {**options, "in_shardings": in_shardings, "out_shardings": (self._choices, None)}
        self.jitted = apply_jit(self._make_call(True), donate_argnums=self.inputs.donated, **options)
        # A separate function: JAX would reuse the trace of the other one, which returns all donated values.
        self._nested = apply_jit(self._make_call(False), **options) if self.donates else self.jitted
        if self._move is not None:
            self.jitted = Moved(self.jitted, self._make_move(self._move))

    def _make_move(self, move: Move) -> Move:
        """Make the function that moves the arguments of the compiled function."""
        inputs = self.inputs
        return lambda arguments: inputs.pack(move(inputs.unpack(arguments)))

    def _make_call(self, gives_away: bool) -> Callable[..., Any]:
        """Make the function to compile; if `gives_away`, buffers are donated, so it returns all donated values."""
        # A reference to this object would be a cycle, which keeps constants until the garbage collector runs.
        plan, inputs, pure, arrange = self.plan, self.inputs, self._pure, self._arrange()

        def call(*arguments: Any) -> Any:
            placement = arguments[-1] if arguments and type(arguments[-1]) is Placement else None
            leaves = inputs.unpack(arguments if placement is None else arguments[:-1])
            result = pure(leaves)
            if gives_away:
                result = inputs.complete(result, leaves)
            return arrange(result if placement is None else placement.constrain(plan, result, leaves))

        return show_as(call, pure, _SIGNATURE)

    def _resolve(self, in_shardings: Any, out_shardings: Any) -> list[Prefix]:
        """Return the sharding of each dynamic leaf; record the shardings that the results can have."""
        plan = self.plan
        in_shardings = tuple(in_shardings) if isinstance(in_shardings, list) else in_shardings
        leaves: list[Prefix] = [None] * len(plan.graph.edges)
        dynamic = [a for a in plan.arguments[0][self._first :] if not self._is_static(a)]
        named = self._named_in_order()
        dynamic += (
            named[: max(0, len(in_shardings) - len(dynamic))] if isinstance(in_shardings, tuple) else named
        )
        treedef = jax.tree_util.treedef_tuple([a.treedef for a in dynamic])
        prefixes = iter(broadcast_over(in_shardings, treedef, "the positional arguments that are not static"))
        for i in itertools.chain(*[a.leaves for a in dynamic]):
            leaves[i] = next(prefixes)
        self._spread = spread_arguments(plan, leaves, none_yields=True)
        self._choices = distinct([*leaves, *prefix_leaves(out_shardings)])
        return self._spread.of_all(plan.slots, [None] * len(plan.slots))

    def _is_static(self, argument: Argument) -> bool:
        return any(type(self.plan.graph.edges[i]) is Static for i in argument.leaves)

    def _named_in_order(self) -> list[Argument]:
        """Return the keyword arguments in the order of the function's parameters, without static ones."""
        named = self.plan.arguments[1]
        try:
            order = list(inspect.signature(self._pure).parameters)
        except (TypeError, ValueError):  # the function has no signature
            order = []
        names = sorted(named, key=lambda n: order.index(n) if n in order else len(order))
        return [named[n] for n in names if not self._is_static(named[n])]

    def _arrange(self) -> Callable[[Result], Any]:
        """Return the function that converts a result to the returned value of the compiled function."""
        output_specs = self.output_specs
        if not self.grouped:
            return output_specs.compact
        plan, spread, input_shardings, choices = self.plan, self._spread, self._shardings, self._choices
        out_prefix = self._out_prefix

        def arrange(result: Result) -> Any:
            shardings = result_prefixes(plan, spread, input_shardings, result, out_prefix)
            return output_specs.compact_groups(*group(result, shardings, choices), result)

        return arrange

    def pack(self, leaves: Sequence[Any], placed: Sequence[Any] | None = None) -> Sequence[Any]:
        """Convert leaves to arguments of the compiled function; copy an array that would be donated twice.

        Args:
          leaves: The dynamic leaves.
          placed: The leaves with which the function was compiled ahead of time. The default, None, is `leaves`.

        Returns:
          The arguments.
        """
        if self.is_abstract:  # once, for the first arguments
            self.inputs.widen(find_written(self.plan, self._pure, leaves))
        if self.is_abstract or (not self._is_settled and self.inputs.settle(leaves)):
            self.is_abstract = False
            self._compile()
        self._is_settled = True
        arguments = self._unshare(self.inputs.pack(leaves))
        return [*arguments, *self.placement((placed or leaves)[: self.inputs.n_values])]

    def placement(self, values: Sequence[Any]) -> tuple[Placement] | tuple[()]:
        """Return the placement of values, as further arguments; none if the transform or the user places them."""
        return () if self.is_placed else find_placement(values)

    def _unshare(self, arguments: Sequence[Any], key: Callable[[Any], Any] = id) -> Sequence[Any]:
        if not self.donates or (key is id and are_distinct(arguments)):
            return arguments
        return unshare(arguments, self.inputs.donated, key)

    def clear_cache(self) -> None:
        """Drop the compiled code."""
        for jitted in (self.jitted, self._nested):
            if jitted is not None:
                jitted.clear_cache()

    def run_placed(self, call: Call, done: list[Any]) -> Any:
        """Run the program on a call; afterwards what the call had to place is there, also if it is only read.

        Args:
          call: The call.
          done: As for `run_units`.

        Returns:
          The returned value.
        """
        if self.grouped:
            leaves = place(call.leaves, self._shardings)
        elif self.is_placed:
            leaves = call.leaves
        else:
            n = self.inputs.n_values
            leaves = [*place_beside(call.leaves[:n]), *call.leaves[n:]]
        returned = self._run(lambda: self.pack(leaves), lambda: leaves, done)
        for number, old, new in zip(self.plan.variables, call.leaves, leaves, strict=False):
            if new is not old:
                set_value_past_hooks(call.objects[number], new)
        call.leaves[:] = leaves
        return returned

    def run_units(self, values: Sequence[Any], units: Sequence[Any], done: list[Any]) -> Any:
        """Run the program on values and units (trees of arrays as the user passed them).

        Args:
          values: The values.
          units: The units.
          done: An empty list, to which the returned value is added. If a signal handler raises after the program has
            run, the list holds it: the caller must write it back if the program donates, since the old values are gone.

        Returns:
          The returned value.
        """
        return self._run(
            lambda: [*self._unshare(self.inputs.sort(values, units)), *self.placement(values)],
            lambda: [*values, *jax.tree.leaves(units)],
            done,
        )

    def _run(
        self, pack: Callable[[], Sequence[Any]], leaves: Callable[[], Sequence[Any]], done: list[Any]
    ) -> Any:
        try:
            arguments = pack()
            done.extend(itertools.starmap(self.jitted, (arguments,)))  # no Python code runs in between
        except Exception as error:
            if done:
                raise
            done.append(self.recover(error, leaves()))
        return done[0]

    def recover(self, error: Exception, leaves: Sequence[Any]) -> Any:
        """Handle an error of the compiled function: repeat the call if one buffer was donated twice, or raise.

        Args:
          error: The error.
          leaves: The dynamic leaves.

        Returns:
          The returned value of the repeated call, with copies of arrays that share a buffer.

        Raises:
          Exception: The error, with attribute paths in its text, if it has another cause.
        """
        if self.donates and isinstance(error, jax.errors.JaxRuntimeError) and _TWICE in str(error):
            return self.jitted(*self._unshare(self.pack(leaves), buffer_of))
        self.explain(error, leaves)
        raise error

    def explain(self, error: Exception, leaves: Sequence[Any]) -> None:
        """Put attribute paths into the text of a JAX error.

        Args:
          error: The error; its text is changed in place.
          leaves: The dynamic leaves.

        Raises:
          DonatedError: If one of the buffers was donated earlier.
        """
        if _DELETED_TEXT in str(error):  # else a failed call may itself have donated them
            deleted = deleted_error(self.plan, leaves)
            if deleted is not None:
                raise deleted from error
        explain_valueless(error, self.plan, leaves, "jit")
        self.name_slots(error)

    def trace(self, leaves: Sequence[Any]) -> Any:
        """Return JAX's traced stage."""
        try:
            arguments = self.pack(leaves)
            return self.jitted.trace(*arguments)
        except Exception as error:
            self.name_slots(error)
            raise

    def __call__(self, leaves: Sequence[Any]) -> Result:
        """Run the program; without donation inside another transform.

        There the buffers belong to the caller of that transform, which still needs them, to compute gradients or to
        restore the modules after an exception.
        """
        try:
            arguments = self.pack(leaves)
            program = self.jitted if frames.owner_now() is frames.PLAIN else self._nested
            return self.result(program(*arguments))
        except Exception as error:
            self.name_slots(error)
            raise

    def name_slots(self, error: Exception) -> None:
        """Replace JAX's names of the flat arguments by attribute paths in the text of a JAX error."""
        rename(error, _INPUT_NAME, lambda found: self.inputs.name(int(found[1])))

    def result(self, returned: Any) -> Result:
        """Rebuild the result from the returned value of the compiled function."""
        return self.output_specs.expand(returned)


_TWICE = "donate the same buffer twice"
"""Part of the runtime's error for two arrays with one buffer; the runtime raises it before it deletes any buffer."""

_DELETED_TEXT = "deleted"
"""Part of JAX's errors for an array without a buffer."""

_SIGNATURE = inspect.signature(lambda *liftnn_inputs: None)
"""The signature of compiled functions, with a name that does not occur in user code or messages."""

_INPUT_NAME = re.compile(r"\bliftnn_inputs\[(\d+)\]")
