"""`map`: a function applied to one element after another of stacked arrays and modules, in a compiled loop."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.control_flow.kept_calls import KeptCalls
from liftnn._src.control_flow.slices import slice_type, slices_of
from liftnn._src.control_flow.uncompiled import complete_steps, stack
from liftnn._src.graph.slots import BySlot, Slot
from liftnn._src.lifting.array_calls import is_jit_disabled
from liftnn._src.lifting.contract import Plan, PureFunction, Result, result_of
from liftnn._src.lifting.lift import Lifted, LiftOptions, T
from liftnn._src.lifting.shown import show_as
from liftnn._src.lifting.values import describe
from liftnn._src.mapping.axis_errors import find_bad_input
from liftnn._src.mapping.batch_keys import axis_size_of, split_shared_keys
from liftnn._src.prefixes.prefix import Prefix
from liftnn._src.prefixes.spread import spread_arguments
from liftnn._src.publish import publish
from liftnn._src.tracebacks import at_line, boundary
from liftnn._src.trees import same_tree, type_of
from liftnn._src.type_variables import R
from liftnn._src.variables import frames
from liftnn._src.variables.variable_types import RngCount

_XS_REMEDY = (
    "Stack the same number of elements along axis 0 of every array in `xs`; store shared "
    "arguments in a partial."
)


@boundary
def map(f: Callable[[T], R], xs: T, *, batch_size: int | None = None) -> R:  # noqa: A001  # JAX's name
    """Apply a function to each element of `xs` in turn and stack the outputs, as `jax.lax.map`.

    Elements are slices along axis 0. Updates of a module in `xs` are applied to the slice. Other modules (of a bound
    method, in a partial or a closure) are shared by all elements: as in a Python loop, each call reads the values that
    the previous call wrote to their Variables, and draws new random keys.

    Args:
      f: A function of one element, a bound method or a module.
      xs: An array, a module, or a tree of them, stacked along axis 0.
      batch_size: The number of elements to process at once with `vmap`; the last batch may be smaller, and 0 means all
        elements. The elements of a batch have no order: each draws from its own random keys, and shared Variables must
        not be written. The default, None, processes one element at a time.

    Returns:
      The outputs, stacked along axis 0, including the Variables of modules.

    Raises:
      AliasingError: If a Variable in `xs` is used through a module that is shared.
      ArgumentError: If the arrays in `xs` differ in size along axis 0 or have no such axis, or if `batch_size` is
        negative.
      ArgumentTypeError: If `batch_size` is not an int.
      SharedWriteError: If a shared Variable is written and `batch_size` is not None.
      StructureError: If the structure of a shared module changes, or the shape or dtype of one of its Variables.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> layer = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.map(layer, jnp.ones((5, 2))).shape
      (5, 3)
    """
    batch_size = _as_batch_size(batch_size)

    apply = functools.partial(_lift, batch_size=batch_size)
    return apply(f, in_plain=KeptCalls("map", f, apply, (batch_size,)))(xs)


def _lift(
    f: Callable[..., Any], batch_size: int | None, in_plain: KeptCalls | None = None
) -> Lifted[..., Any]:
    """Return a function that maps `f` over its argument."""

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        return _Mapped(plan, pure, batch_size)

    def of_arrays(f: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(jax.lax.map, f, batch_size=batch_size)

    options = LiftOptions("map", of_arrays=None if batch_size == 0 else of_arrays, in_plain=in_plain)
    return Lifted((f,), bind, options)


def _as_batch_size(batch_size: Any) -> int | None:
    """Return the batch size as an int; as in JAX, it may be any integer object."""
    if batch_size is None:
        return None
    wrong, remedy = (
        f"`batch_size` must be a non-negative int or None, not {batch_size!r}.",
        "Pass the number of elements to process at once, 0 for all, or None for one at a time.",
    )
    try:
        size = operator.index(batch_size)
    except TypeError as error:
        raise errors.ArgumentTypeError(wrong, remedy) from error
    if size < 0:
        raise errors.ArgumentError(wrong, remedy)
    return size


class _Mapped:
    """A pure function applied to one element after another.

    Args:
      plan: The arguments; the last positional one is `xs`.
      pure: The pure function.
      batch_size: The number of elements to process at once; None for one at a time.
    """

    def __init__(self, plan: Plan, pure: PureFunction, batch_size: int | None):
        self.plan = plan
        self.pure = pure
        self.batch_size = batch_size
        mapped = plan.arguments[0][-1].leaves
        self.leaf_axes = [0 if i in mapped else None for i in range(len(plan.graph.edges))]
        self.spread = spread_arguments(plan, self.leaf_axes)

    def __call__(self, leaves: Sequence[Any]) -> Result:
        axes = self.spread.of_all(self.plan.slots, leaves)
        wrong = find_bad_input(self.plan, leaves, axes, None, "map", _XS_REMEDY)
        if wrong is not None:
            raise wrong
        size = axis_size_of(leaves, axes)
        if size is None:
            raise errors.ArgumentError(
                "map has nothing to map: `xs` does not contain an array.",
                "Pass arrays, or modules that contain arrays.",
            )
        if self.batch_size is None:
            return (
                self._one_by_one(leaves, axes, size)
                if size and is_jit_disabled()
                else self._loop(leaves, axes)
            )
        return self._batches(leaves, axes, size)

    def _loop(self, leaves: Sequence[Any], axes: list[Prefix]) -> Result:
        """Process one element at a time; shared Variables that are written are carried."""
        by_slot = self.plan.by_slot(leaves)
        slices, rebuild = _take_mapped(self.plan, leaves, axes)
        mapped = [i for i, axis in enumerate(axes) if axis == 0]
        # JAX's messages name the leaves by these numbers
        numbered = dict(zip(mapped, slices, strict=True))
        element = jax.tree.map(slice_type, numbered)
        abstract = jax.eval_shape(show_as(lambda x: self._call(rebuild(x.values())), self.pure), element)
        carried = [s for s in (Slot(n) for n in abstract.change.written) if axes[self.plan.index[s]] is None]
        for slot in carried:
            self._check_carried(slot, by_slot[slot], abstract.by_slot[slot])

        def step(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
            result = self._call(rebuild(x, dict(zip(carried, carry, strict=True)))).by_slot
            return [result[slot] for slot in carried], [result[slot] for slot in stacked]

        stacked = [slot for slot in abstract.slots if slot not in carried]
        last, rest = jax.lax.scan(step, [by_slot[slot] for slot in carried], slices)
        leaves_of = dict(zip((*carried, *stacked), (*last, *rest), strict=True))
        return result_of(abstract.change, leaves_of)

    def _one_by_one(self, leaves: Sequence[Any], axes: list[Prefix], size: int) -> Result:
        """Process one element at a time in plain Python, as under `jax.disable_jit`."""
        slices, rebuild = _take_mapped(self.plan, leaves, axes)
        stacked = {Slot(i): x for i, x in enumerate(slices)}
        shared = {
            slot: x for slot, x in self.plan.by_slot(leaves).items() if axes[self.plan.index[slot]] is None
        }
        steps: list[tuple[BySlot, Result]] = []
        for i in range(size):
            with slices_of(stacked, i) as element:
                inputs = rebuild(element.values(), shared)
                result = self._call(inputs)
            steps.append((self.plan.by_slot(inputs), result))
            for slot, x in result.by_slot.items():
                if slot in shared:
                    self._check_carried(slot, shared[slot], x)
                    shared[slot] = x
        change, by_slot = complete_steps(self.plan, steps, "map")
        last = by_slot[-1]
        pairs = {
            slot: last[slot] if slot in shared else stack([x[slot] for x in by_slot], 0)
            for slot in change.slots
        }
        return result_of(change, pairs)

    def _batches(self, leaves: Sequence[Any], axes: list[Prefix], size: int) -> Result:
        """Process several elements at once; the counts of random streams are the only shared values written."""
        slices, rebuild = _take_mapped(self.plan, *split_shared_keys(self.plan, leaves, axes, size))
        shared = {slot for slot, axis in self.plan.by_slot(axes).items() if axis is None}

        def one(x: list[Any]) -> Result:
            with frames.noting_writes() as lines:
                result = self._call(rebuild(x))
            for slot in (Slot(n) for n in result.change.written):
                if slot in shared and not issubclass(self.plan.types[self.plan.index[slot]], RngCount):
                    name = self.plan.typed_name(slot)
                    error = errors.SharedWriteError(
                        f"{name} is shared by all elements of this map, but it was written while `batch_size` "
                        "processes several elements at once.",
                        "Leave `batch_size` out, or pass the module in `xs` with a slice for each element.",
                    )
                    raise at_line(error, lines.get(name))
            return result

        result = jax.lax.map(one, slices, batch_size=self.batch_size or size)
        counts = [s for s in (Slot(n) for n in result.change.written) if s in shared]
        if not size:  # no element drew a key
            written = tuple([n for n in result.change.written if Slot(n) not in shared])
            return result_of(result.change._replace(written=written), result.by_slot)
        return result.write({slot: result.by_slot[slot][0] for slot in counts})  # the same after each element

    def _call(self, leaves: Sequence[Any]) -> Result:
        """Call the function for one element; raise StructureError if it changes the structure of a shared module."""
        result = self.pure(leaves)
        for number, _ in result.change.changed:
            if self.spread.starts[number].prefix is None:
                raise errors.StructureError(
                    f"{self.plan.typed_path(number)} is shared by all elements of this map, but the function changes "
                    "its structure.",
                    "Change it outside the map, or pass the module in `xs` with a slice for each element. Store an "
                    "array that the function replaces in a Variable.",
                )
        return result

    def _check_carried(self, slot: Slot, before: Any, after: Any) -> None:
        """Raise StructureError if a shared Variable does not keep its shape and dtype."""
        (old, one), (new, other) = (jax.tree.flatten(x) for x in (before, after))
        if [type_of(x) for x in old] != [type_of(x) for x in new] or not same_tree(one, other):
            raise errors.StructureError(
                f"{self.plan.typed_name(slot)} is shared by all elements of this map, but the function changes its "
                f"value from {describe(before, type_of)} to {describe(after, type_of)}.",
                "Write values of the same structure, shape and dtype.",
            )


def _take_mapped(
    plan: Plan, leaves: Sequence[Any], axes: Sequence[Prefix]
) -> tuple[list[Any], Callable[..., list[Any]]]:
    """Separate the mapped leaves from the shared ones.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.
      axes: The axis of each leaf, 0 or None.

    Returns:
      The mapped leaves as arrays, and a function that rebuilds all leaves for one element from a slice of them and new
      values of shared leaves by slot.
    """

    def rebuild(slices: Iterable[Any], shared: Mapping[Slot, Any] = MappingProxyType({})) -> list[Any]:
        taken = iter(slices)
        pairs = zip(plan.slots, leaves, axes, strict=True)
        return [next(taken) if axis == 0 else shared.get(slot, x) for slot, x, axis in pairs]

    mapped = [x for x, axis in zip(leaves, axes, strict=True) if axis == 0]
    return jax.tree.map(lambda x: x if isinstance(x, jax.Ref) else jnp.asarray(x), mapped), rebuild


publish(map)
