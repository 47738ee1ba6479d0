"""The body of a loop as a function of its carry.

The carry consists of the shared leaves that a step writes. `TracedBody` finds it by tracing a step before the loop.
`KnownCarryBody` knows it beforehand, because the steps share nothing that they could write; it raises
`CarryMismatchError` if a step does something else. `run_never` and `run_once` are the loops of zero and one steps.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.control_flow.carry import CarryMatch
from liftnn._src.control_flow.functions import renaming
from liftnn._src.control_flow.loop_axes import LoopAxes
from liftnn._src.control_flow.slices import slice_type
from liftnn._src.graph.slots import OUTPUT, ROOT, BySlot, Slot
from liftnn._src.lifting.after import differing_types, names_after
from liftnn._src.lifting.contract import Result, result_of
from liftnn._src.lifting.shown import show_as
from liftnn._src.trees import is_jax_array, list_paths


class StepFunction(Protocol):
    """A pure function that can be called, or evaluated abstractly, several times."""

    def __call__(self, leaves: Any) -> Result:
        """Return the result."""
        ...

    def eval_shape(self, leaves: Any) -> Result:
        """Return the abstract result."""
        ...


class Body:
    """The body of a loop with any number of steps, as a function of its carry.

    Args:
      pure: The pure function of a step.
      axes: The scanned axes.
      parts: The dynamic leaves of the loop's arguments, by slot.
      slices: The abstract slices that each step gets, by slot.
      transform: The name of the transform, for messages.
      restarted: Slots with the same initial value in each step, although a step may write them. The default is none.
    """

    def __init__(
        self,
        pure: Callable[..., Result],
        axes: LoopAxes,
        parts: BySlot,
        slices: BySlot,
        transform: str,
        restarted: Collection[Slot] = (),
    ):
        self._pure = pure
        self._axes = axes
        self._plan = axes.plan
        self._parts = {slot: x if is_jax_array(x) else jax.tree.map(_as_jax, x) for slot, x in parts.items()}
        self._slices = slices
        self._transform = transform
        self._restarted = restarted
        self.carried: list[tuple[Slot, Slot]] = []
        """The slots of the carry, before a step and after it."""

    def _settle(self, result: Result) -> bool:
        """Determine the carry from the result of a step; return False if a weakly typed leaf was promoted."""
        returned = result.by_slot
        places, lines = self._match(result, returned, self._transform)
        if self._promote(places, returned):
            return False
        self._change = result.change
        self.carried = [(p, q) for p, q in places.items() if q in returned]
        carried = [(p, self._parts[p], returned[q]) for p, q in self.carried]
        lines += differing_types(self._plan, result.change, carried)
        if lines:
            raise errors.StructureError(
                f"A step of liftnn.{self._transform} changes structure, shapes or dtypes, but the next step needs them "
                f"unchanged:\n{list_paths(lines)}",
                "Make these changes before or after the loop, and write values with the shape and dtype of the old "
                "value.",
            )
        return True

    def start(self) -> list[Any]:
        """Return the initial carry."""
        return [self._parts[p] for p, _ in self.carried]

    def arguments(self, carry: Sequence[Any], slices: Sequence[Any] = ()) -> list[Any]:
        """Return the dynamic leaves for a step, from the carry and its slices."""
        carried = {p: x for (p, _), x in zip(self.carried, carry, strict=True) if p not in self._restarted}
        scanned = dict(zip(self._slices, slices, strict=True))
        return self._plan.in_order({**self._parts, **carried, **scanned})

    def step(self, carry: Sequence[Any], slices: Sequence[Any] = ()) -> tuple[list[Any], list[Any]]:
        """Run one step.

        Args:
          carry: The carry.
          slices: The slices of the scanned leaves, in the order of the constructor's `slices`.

        Returns:
          The new carry, and the leaves to stack, in the order of `stacked`.
        """
        return self._outputs(self._pure(self.arguments(carry, slices)))

    def named_step(self, function: Any) -> Callable[..., Any]:
        """Return `step` for JAX's loops, with the name of the user's function."""

        def step(liftnn_carry: Any, liftnn_slices: Any) -> Any:
            return self.step(liftnn_carry, liftnn_slices)

        return show_as(step, getattr(function, "__wrapped__", function), inspect.signature(step))

    def naming(self) -> contextlib.AbstractContextManager[None]:
        """Name the leaves of carry and slices in JAX's errors by their attribute paths."""
        return renaming(_CARRY_NAME, self._name)

    def _name(self, found: re.Match[str]) -> str:
        """Return the attribute path of a leaf of the carry or the slices."""
        if found["slice"] is not None:
            return self._plan.name([*self._slices][int(found["slice"])])
        return self._plan.name(self.carried[int(found["carry"] or found["loop"])][0])

    def _outputs(self, result: Result) -> tuple[list[Any], list[Any]]:
        """Return the carry and the leaves to stack from the result of a step."""
        returned = result.by_slot
        return [returned[q] for _, q in self.carried], [returned[q] for q in self.stacked]

    def result(self, carry: Sequence[Any], stacked: Sequence[Any] = ()) -> Result:
        """Return the result of the loop.

        Args:
          carry: The carry of the last step.
          stacked: The stacked leaves.

        Returns:
          The result.
        """
        carried = zip([q for _, q in self.carried], carry, strict=True)
        parts = dict([*carried, *zip(self.stacked, stacked, strict=True)])
        return result_of(self._change, parts)

    def _match(self, result: Result, returned: BySlot, transform: str) -> tuple[dict[Slot, Slot], list[str]]:
        """Match the shared slots before and after a step; return the match and its conflicts, and set `stacked`."""
        plan, axes = self._plan, self._axes.of_result(result)
        scanned = {slot.node for slot in self._axes.scanned if slot.key is None}
        shared = {n: n not in scanned for n in plan.variables}
        self._roots = self._axes.roots(result.change, transform)
        match = CarryMatch(plan, result.change, self._roots, shared)
        self.stacked = {q: axes[q] for q in returned if axes[q] is not None}
        reached = {*match.slots.values()}
        lost = [q for q in returned if axes[q] is None and q not in reached]
        lines = match.describe()
        if not lines and lost:
            names = names_after(plan, result.change)
            for name in (names[q] for q in lost if names[q].startswith("the output")):
                raise errors.ArgumentError(
                    f"`out_axes` is None for {name}, but each step returns a new value.",
                    "Use an axis in `out_axes` to stack the values along, or liftnn.Carry.",
                )
            lines = [f"{names[q]}: {_LOST[q in match.slots]}" for q in lost]
        return match.slots, lines

    def _promote(self, places: Mapping[Slot, Slot], returned: BySlot) -> bool:
        """Promote weakly typed leaves to the dtype that a step gives them, as JAX does; return whether any changed."""
        found = False
        for p, q in places.items():
            old = self._parts.get(p)
            if q in returned and jax.tree.structure(old) == jax.tree.structure(returned[q]):
                new = self._parts[p] = jax.tree.map(_promoted, old, returned[q])
                leaves = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
                found = found or any(a is not b for a, b in leaves)
        return found


class TracedBody(Body):
    """A body with a carry that is found by tracing a step before the loop; see `Body`.

    Raises:
      StructureError: If a step changes the structure, shapes or dtypes of the carry.
    """

    def __init__(
        self,
        pure: StepFunction,
        axes: LoopAxes,
        parts: BySlot,
        slices: BySlot,
        transform: str,
        restarted: Collection[Slot] = (),
    ):
        super().__init__(pure, axes, parts, slices, transform, restarted)
        while not self._settle(pure.eval_shape(axes.plan.in_order({**self._parts, **slices}))):
            pass  # trace again with the promoted dtypes


class CarryMismatchError(Exception):
    """A step changes something other than its known carry."""


class KnownCarryBody(Body):
    """A body with a known carry, since its steps share nothing that they could write; see `Body`.

    The body is traced only in the loop. The checks of a `TracedBody` are made during this trace.

    Raises:
      StructureError: When the step is traced, as in `TracedBody`.
      CarryMismatchError: When the step is traced, if it promotes a weakly typed leaf or has another carry.
    """

    def __init__(
        self, pure: Callable[..., Result], axes: LoopAxes, parts: BySlot, slices: BySlot, transform: str
    ):
        super().__init__(pure, axes, parts, slices, transform)
        self.carried = [(place, place) for place in axes.carried_arguments]

    def step(self, carry: Sequence[Any], slices: Sequence[Any] = ()) -> tuple[list[Any], list[Any]]:
        """Run one step; see `Body`."""
        places = [p for p, _ in self.carried]
        result = self._pure(self.arguments(carry, slices))
        if not self._settle(result) or [p for p, _ in self.carried] != places:
            raise CarryMismatchError
        return self._outputs(result)


_CARRY_NAME = re.compile(
    r"\bliftnn_(?:carry\[(?P<carry>\d+)\]|slices\[(?P<slice>\d+)\])"
    r"|(?<=component )(?:loop_)?carry\[[12]\]\[(?P<loop>\d+)\]"
)
"""JAX's name for an argument of a step; the prefix makes a clash with a user's text unlikely.

`fori_loop` has names of its own: its carry is a tuple with the carry of the step.
"""

_LOST = {
    True: "written and replaced in the same step",
    False: "a new object in each step",
}
"""The reason why a shared leaf cannot be carried, by whether it existed before the step."""


def run_never(pure: StepFunction, axes: LoopAxes, parts: BySlot, slices: BySlot, transform: str) -> Result:
    """Return the result of a loop of no steps: nothing has changed, and stacked arrays have size 0.

    Args:
      pure: The pure function of a step.
      axes: The scanned axes.
      parts: The dynamic leaves for a step, by slot.
      slices: The scanned leaves, of size 0 along axis 0, by slot.
      transform: The name of the transform, for messages.

    Returns:
      The result of the loop.

    Raises:
      StructureError: If a step would change the structure of the carry.
    """
    plan = axes.plan
    types = {slot: jax.tree.map(slice_type, x) for slot, x in slices.items()}
    abstract = pure.eval_shape(plan.in_order({**parts, **types}))
    change, along, after = abstract.change, axes.of_result(abstract), abstract.by_slot
    new_slots = [s for s in abstract.slots if s.node == OUTPUT or s.node >= change.known]

    def step(carry: None, sliced: list[Any]) -> tuple[None, list[Any]]:
        by_slot = pure(plan.in_order({**parts, **dict(zip(slices, sliced, strict=True))})).by_slot
        return carry, [by_slot[slot] for slot in new_slots]

    _, stacked = jax.lax.scan(step, None, list(slices.values()), 0)
    empty = {
        slot: jax.tree.map(lambda y, slot=slot: jnp.moveaxis(y, 0, along[slot] or 0), x)
        for slot, x in zip(new_slots, stacked, strict=True)
    }
    edges = list(change.edges)
    for root in axes.roots(change, transform):
        if root.output is not None:
            edges[root.output] = plan.graph.edges[root.leaf]
            slot = Slot(OUTPUT, root.output)
            empty[slot] = _as_after_steps(parts.get(Slot(ROOT, root.leaf)), after.get(slot))
    frozen = tuple([n for n in change.frozen if n >= change.known])
    return result_of(change._replace(changed=(), written=(), frozen=frozen, edges=tuple(edges)), empty)


def _as_after_steps(start: Any, after: Any) -> Any:
    """Return the initial value of a carried leaf, with the dtypes that it would have after steps."""
    start = jax.tree.map(jnp.asarray, start)
    if jax.tree.structure(start) != jax.tree.structure(after):
        return start
    return jax.tree.map(
        lambda x, y: _promoted(x, y, loses_weakness=not getattr(y, "weak_type", False)), start, after
    )


def run_once(pure: Callable[..., Result], axes: LoopAxes, parts: BySlot) -> Result:
    """Run a loop of one step, which may change structure, shapes and dtypes, since no other step follows.

    Args:
      pure: The pure function of a step.
      axes: The scanned axes.
      parts: The dynamic leaves for the step, by slot.

    Returns:
      The result of the loop.
    """
    result = pure(axes.plan.in_order(parts))
    stacked = axes.of_result(result)
    returned = {
        p: x if stacked[p] is None else jax.tree.map(lambda y, p=p: jnp.expand_dims(y, stacked[p]), x)
        for p, x in result.by_slot.items()
    }
    return result_of(result.change, returned)


def _as_jax(x: Any) -> Any:
    """Convert a numpy array to a JAX array, which may reduce 64 bits to 32."""
    return jnp.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else x


def _promoted(x: Any, y: Any, loses_weakness: bool = False) -> Any:
    """Promote a weakly typed array to its common dtype with another array; return other arrays unchanged."""
    dtype = jax.typeof(x)
    if not getattr(dtype, "weak_type", False):
        return x
    common = jnp.result_type(x, y)
    return (
        x if jnp.result_type(x) == common and not loses_weakness else jax.lax.convert_element_type(x, common)
    )
