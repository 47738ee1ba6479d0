"""Loops and branches under `jax.disable_jit`: the user's functions run in plain Python and see values, as in JAX."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn._src.control_flow.body import Body
from liftnn._src.control_flow.branch_union import BranchUnion
from liftnn._src.control_flow.functions import Closure, PackedFunction, pack_functions
from liftnn._src.control_flow.loop_axes import LoopAxes
from liftnn._src.control_flow.slices import slices_of
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import BySlot, Slot
from liftnn._src.lifting.contract import Plan, Result, result_of
from liftnn._src.lifting.lift import Lifted, LiftOptions

_STEP_REMEDY = (
    "Structure, shapes and dtypes must not depend on the step. Make the same changes in all steps, or make them after "
    "the loop."
)


class _Uncompiled:
    """A call of a loop or branch in plain Python, as a function of the module with its functions and the operands.

    Args:
      apply: Called with the functions and the operands; makes the call.
      packed: The packed functions.
    """

    def __init__(
        self, apply: Callable[[Sequence[Any], Sequence[Any]], Any], packed: Sequence[PackedFunction]
    ):
        self._apply = apply
        self._packed = packed

    def __call__(self, holder: Any, *operands: Any) -> Any:
        """Make the call."""
        return self._apply([f.function if type(f) is Closure else f for f in holder.functions], operands)

    def __carried_functions__(self) -> tuple[Any, ...]:
        """Return the functions to search for captured modules; see `Lifted`."""
        return tuple([f for packed in self._packed for f in packed.__carried_functions__()])


def call_uncompiled(
    transform: str,
    apply: Callable[[Sequence[Any], Sequence[Any]], Any],
    functions: Sequence[Callable[..., Any]],
    operands: Sequence[Any],
    names: Sequence[str],
) -> Any:
    """Make a call of a loop or branch in plain Python, which changes nothing if it raises.

    Args:
      transform: The name of the transform.
      apply: Called with the functions and the operands; makes the call.
      functions: The user's functions.
      operands: The arguments.
      names: The names of the operands in messages.

    Returns:
      The output of the call.
    """
    holder, packed = pack_functions(transform, functions=list(functions))
    options = LiftOptions(transform, names=("", *names))
    return Lifted((_Uncompiled(apply, packed),), lambda plan, pure: pure, options)(holder, *operands)


class UncompiledBody(Body):
    """A body that runs step by step, and may write other Variables in each step; see `Body`.

    The first step runs at once, to find out whether another one can follow it.

    Args:
      scanned: The scanned leaves along axis 0, by slot.
      order: The positions of the slices in the order of the steps, at least one.

    Raises:
      StructureError: If the first step changes the structure, shapes or dtypes of the carry.
    """

    def __init__(
        self,
        pure: Callable[..., Result],
        axes: LoopAxes,
        parts: BySlot,
        scanned: BySlot,
        order: range,
        transform: str,
        restarted: Collection[Slot] = (),
    ):
        super().__init__(pure, axes, parts, {}, transform, restarted)
        self._scanned = scanned
        self._order = order
        self._steps = [self._run_step(order[0])]

    def run(self) -> Result:
        """Run the other steps.

        Returns:
          The result of the loop.

        Raises:
          StructureError: If one of them changes the structure, shapes or dtypes of the carry, or if the outputs of two
            steps differ in them.
        """
        self._steps += map(self._run_step, self._order[1:])
        change, leaves = complete_steps(self._plan, self._steps, self._transform)
        last, in_order = leaves[-1], leaves[:: self._order.step]
        while not self._settle(result_of(change, last)):
            pass
        stacked = [stack([x[slot] for x in in_order], axis) for slot, axis in self.stacked.items()]
        return self.result([last[q] for _, q in self.carried], stacked)

    def _run_step(self, position: int) -> tuple[BySlot, Result]:
        """Run the step with the slices at a position, and set the carry."""
        with slices_of(self._scanned, position) as slices:
            while True:  # again if it promotes a weakly typed leaf, as a `TracedBody` is traced again
                inputs = {**self._parts, **slices}
                result = self._pure(self._plan.in_order(inputs))
                if self._settle(result):
                    break
        returned = result.by_slot
        self._parts |= {p: returned[q] for p, q in self.carried if p not in self._restarted}
        return inputs, result


def complete_steps(
    plan: Plan, steps: Sequence[tuple[BySlot, Result]], transform: str
) -> tuple[GraphDelta, list[BySlot]]:
    """Return what all steps change together, and complete the result of each with what it did not write.

    Args:
      plan: The arguments.
      steps: The dynamic leaves of the arguments and the result of each step.
      transform: The name of the transform, for messages.

    Returns:
      The common change, and for each step its leaves by slot, which include those of the common change.

    Raises:
      StructureError: If the steps differ in structure, shapes or dtypes.
    """
    names = [f"step {i}" for i in range(len(steps))]
    first = plan.in_order(steps[0][0])
    union = BranchUnion(plan, [result for _, result in steps], first, names, transform, _STEP_REMEDY)
    return union.change, [{**inputs, **result.by_slot} for inputs, result in steps]


def stack(steps: Sequence[Any], axis: Any) -> Any:
    """Stack the leaves of the trees of all steps along an axis."""
    return jax.tree.map(lambda *xs: jnp.stack(xs, axis), *steps)
