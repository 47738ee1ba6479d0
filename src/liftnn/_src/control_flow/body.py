"""The body of a loop as a function of what it carries: only what it writes, found by tracing it once."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.control_flow.carry import CarryMatch
from liftnn._src.control_flow.loop_axes import LoopAxes
from liftnn._src.graph.slots import OUTPUT, ROOT, Slot
from liftnn._src.lifting.after import differing_types, names_after
from liftnn._src.lifting.contract import Result, result_of
from liftnn._src.trees import list_paths

BySlot = Mapping[Slot, Any]


class Step(Protocol):
    """A pure function that can be called several times, and of which the abstract result can be had."""

    def __call__(self, leaves: Any) -> Result:
        """The result."""
        ...

    def eval_shape(self, leaves: Any) -> Result:
        """The abstract result."""
        ...


class Body:
    """The body of a loop that may run any number of times, as a function of what it carries.

    Args:
      pure: A step, a pure function.
      axes: What is scanned.
      parts: The dynamic leaves that the loop is given, by slot.
      slices: What each step gets for itself, by slot; abstract.
      transform: What messages call the transform.
      restarted: Slots where each step finds what the first one found, though it may write there. The default is none.
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
        self._parts = jax.tree.map(_as_jax, dict(parts))
        self._slices = slices
        self._transform = transform
        self._restarted = restarted
        self.carried: list[tuple[Slot, Slot]] = []
        """The slots of what is carried, before a step and after it."""

    def _settle(self, result: Result) -> bool:
        """Notes what a step hands on, from its result; False if it gave a weakly typed part a dtype."""
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
                f"A step of liftnn.{self._transform} leaves something else than it found, so that no other step can "
                f"follow it:\n{list_paths(lines)}",
                "Structure, shapes and dtypes must be the same after each step: change them before the loop or after "
                "it, and convert what is written.",
            )
        return True

    def start(self) -> list[Any]:
        """What is handed to the first step."""
        return [self._parts[p] for p, _ in self.carried]

    def arguments(self, carry: Sequence[Any], slices: Sequence[Any] = ()) -> list[Any]:
        """What the pure function of a step takes: what it was handed, and its slices."""
        handed = {p: x for (p, _), x in zip(self.carried, carry, strict=True) if p not in self._restarted}
        own = dict(zip(self._slices, slices, strict=True))
        return self._plan.in_order({**self._parts, **handed, **own})

    def step(self, carry: Sequence[Any], slices: Sequence[Any] = ()) -> tuple[list[Any], list[Any]]:
        """One step.

        Args:
          carry: What it was handed.
          slices: The slices of what is scanned, in the order in which they were given.

        Returns:
          What it hands on, and what is stacked, in the order of `stacked`.
        """
        return self._hand_on(self._pure(self.arguments(carry, slices)))

    def named_step(self, function: Any) -> Callable[..., Any]:
        """`step` as JAX's loops call it; their errors name the user's function, and what it was given by path."""

        def step(liftnn_carry: Any, liftnn_slices: Any) -> Any:
            try:
                return self.step(liftnn_carry, liftnn_slices)
            except Exception as error:
                error.args = tuple(
                    [_SLOT.sub(self._name, x) if isinstance(x, str) else x for x in error.args]
                )
                raise

        signature = inspect.signature(step)
        functools.update_wrapper(step, getattr(function, "__wrapped__", function), updated=())
        step.__signature__ = signature
        return step

    def _name(self, found: re.Match[str]) -> str:
        """The path of something that is carried or sliced."""
        at = int(found[2])
        return self._plan.name(self.carried[at][0] if found[1] == "carry" else [*self._slices][at])

    def _hand_on(self, result: Result) -> tuple[list[Any], list[Any]]:
        """What of the result of a step is handed on, and what is stacked."""
        returned = result.by_slot
        return [returned[q] for _, q in self.carried], [returned[q] for q in self.stacked]

    def result(self, carry: Sequence[Any], stacked: Sequence[Any] = ()) -> Result:
        """The result of the loop.

        Args:
          carry: What the last step handed on.
          stacked: What was stacked.

        Returns:
          The result.
        """
        handed = zip([q for _, q in self.carried], carry, strict=True)
        parts = dict([*handed, *zip(self.stacked, stacked, strict=True)])
        return result_of(self._change, parts)

    def _match(self, result: Result, returned: BySlot, transform: str) -> tuple[dict[Slot, Slot], list[str]]:
        """Where shared parts go in a step, and what is no fixed point; notes what is stacked."""
        plan, axes = self._plan, self._axes.of_result(result)
        shared = {n: Slot(n) not in self._axes.scanned for n in plan.variables}
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
                    f"`out_axes` is None for {name}, but each step returns another one.",
                    "Give it an axis, along which the steps are stacked, or Carry.",
                )
            lines = [f"{names[q]}: {_LOST[q in match.slots]}" for q in lost]
        return match.slots, lines

    def _promote(self, places: Mapping[Slot, Slot], returned: BySlot) -> bool:
        """Gives weakly typed parts the dtype that a step gives them, as JAX does; whether there were any."""
        found = False
        for p, q in places.items():
            old = self._parts.get(p)
            if q in returned and jax.tree.structure(old) == jax.tree.structure(returned[q]):
                new = self._parts[p] = jax.tree.map(_promoted, old, returned[q])
                leaves = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
                found = found or any(a is not b for a, b in leaves)
        return found


class TracedBody(Body):
    """A body whose carry is found before the loop, by tracing a step; see `Body`.

    Raises:
      StructureError: If a step leaves another structure, or other shapes and dtypes, than it found.
    """

    def __init__(
        self,
        pure: Step,
        axes: LoopAxes,
        parts: BySlot,
        slices: BySlot,
        transform: str,
        restarted: Collection[Slot] = (),
    ):
        super().__init__(pure, axes, parts, slices, transform, restarted)
        while not self._settle(pure.eval_shape(axes.plan.in_order({**self._parts, **slices}))):
            pass  # once more where a step gave a weakly typed part a dtype


class CarryMismatchError(Exception):
    """A step hands on something else than was foreseen."""


class KnownCarryBody(Body):
    """A body whose carry is known before, since its steps share nothing that they could write; see `Body`.

    It is traced in the loop only; what a `TracedBody` finds out before is found out there.

    Raises:
      StructureError: When the step is traced; as by `TracedBody`.
      CarryMismatchError: When the step is traced, if it gives a weakly typed part a dtype.
    """

    def __init__(
        self, pure: Callable[..., Result], axes: LoopAxes, parts: BySlot, slices: BySlot, transform: str
    ):
        super().__init__(pure, axes, parts, slices, transform)
        self.carried = [(place, place) for place in axes.handed_on]

    def step(self, carry: Sequence[Any], slices: Sequence[Any] = ()) -> tuple[list[Any], list[Any]]:
        """One step; see `Body`."""
        places = [p for p, _ in self.carried]
        result = self._pure(self.arguments(carry, slices))
        if not self._settle(result) or [p for p, _ in self.carried] != places:
            raise CarryMismatchError
        return self._hand_on(result)


_SLOT = re.compile(r"\bliftnn_(carry|slices)\[(\d+)\]")
"""JAX's name for what a step was given; no text of a user's has it in it."""

_LOST = {
    True: "written, and another one put in its place, in the same step",
    False: "another one in each step",
}
"""Why something that all steps share comes out of no step, by whether it was there before."""


def run_never(
    pure: Callable[..., Result], axes: LoopAxes, parts: BySlot, slices: BySlot, transform: str
) -> Result:
    """A loop of no steps: nothing has changed, and what would be stacked is empty.

    Args:
      pure: The body, a pure function.
      axes: What is scanned.
      parts: What a step would be given, by slot.
      slices: The slices of what is scanned, none, along axis 0.
      transform: What messages call the transform.

    Returns:
      The result of the loop.

    Raises:
      StructureError: If a step would not hand on what it is given.
    """
    plan, results = axes.plan, []

    def step(carry: None, given: list[Any]) -> tuple[None, list[Any]]:
        result = pure(plan.in_order({**parts, **dict(zip(slices, given, strict=True))}))
        results.append(result)
        return carry, [result.by_slot[slot] for slot in made(result)]

    def made(result: Result) -> list[Slot]:
        return [s for s in result.slots if s.node == OUTPUT or s.node >= result.change.known]

    _, stacked = jax.lax.scan(step, None, list(slices.values()), 0)
    change, along = results[-1].change, axes.of_result(results[-1])
    empty = {
        slot: jax.tree.map(lambda y, slot=slot: jnp.moveaxis(y, 0, along[slot] or 0), x)
        for slot, x in zip(made(results[-1]), stacked, strict=True)
    }
    edges = list(change.edges)
    for root in axes.roots(change, transform):
        if root.output is not None:
            edges[root.output] = plan.graph.edges[root.leaf]
            empty[Slot(OUTPUT, root.output)] = jax.tree.map(jnp.asarray, parts.get(Slot(ROOT, root.leaf)))
    return result_of(change._replace(changed=(), written=(), edges=tuple(edges)), empty)


def run_once(pure: Callable[..., Result], axes: LoopAxes, parts: BySlot) -> Result:
    """A loop of one step, which may change what it likes, since no other follows it.

    Args:
      pure: The body, a pure function.
      axes: What is scanned.
      parts: What the step is given, by slot.

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
    """An array of numpy as JAX's, in which 64 bits may become 32."""
    return jnp.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else x


def _promoted(x: Any, y: Any) -> Any:
    """An array with the dtype that it has together with another, if its own is weak; else itself."""
    dtype = jax.typeof(x)
    if not getattr(dtype, "weak_type", False) or jnp.result_type(x) == jnp.result_type(x, y):
        return x
    return jax.lax.convert_element_type(x, jnp.result_type(x, y))
