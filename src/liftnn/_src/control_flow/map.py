"""`map`: a function of one element after another of stacked arrays and modules, in one compiled loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.contract import Plan, PureFunction, Result, result_of
from liftnn._src.lifting.lift import Lifted, Options, T
from liftnn._src.lifting.values import describe
from liftnn._src.mapping.axis_errors import find_bad_input
from liftnn._src.mapping.batch_keys import axis_size_of, split_shared_keys
from liftnn._src.prefixes.prefix import Prefix
from liftnn._src.prefixes.spread import spread_arguments
from liftnn._src.tracebacks import at_line, boundary
from liftnn._src.trees import same_tree, type_of
from liftnn._src.type_variables import R
from liftnn._src.variables import frames
from liftnn._src.variables.variable_types import RngCount

_REMEDY = (
    "Stack as many elements along axis 0 of everything in `xs`; what all elements share goes into a partial."
)


@boundary
def map(f: Callable[[T], R], xs: T, *, batch_size: int | None = None) -> R:  # noqa: A001  # JAX's name
    """Calls a function with each element of `xs` in turn and stacks the results, as `jax.lax.map`.

    Elements are slices along axis 0. What the function does to a module in `xs` is done to that slice. A module that it
    has besides (that of a bound method, in a partial or a closure) is shared by all elements: what one writes to its
    Variables the next one reads, as in a Python loop, so each also draws its own random keys.

    Args:
      f: A function of one element, a bound method or a module.
      xs: An array, a module, or a tree of them; axis 0 of everything in it is mapped.
      batch_size: How many elements are taken at a time, in a `vmap`; the last batch may be smaller, 0 means all. There
        is no order of elements in a batch: each draws from keys of its own, and a shared Variable may not be written.
        The default, None, takes one after the other.

    Returns:
      The results, stacked along axis 0; modules among them are stacked as well.

    Raises:
      AliasingError: If a Variable is in `xs` and shared.
      ArgumentError: If axis 0 of `xs` does not have one size, or if `batch_size` is no number of elements.
      SharedWriteError: If a shared Variable is written in a batch.
      StructureError: If the structure of a shared module changes, or the shape or dtype of a Variable in it.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> layer = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.map(layer, jnp.ones((5, 2))).shape
      (5, 3)
    """
    if batch_size is not None and (type(batch_size) is not int or batch_size < 0):
        raise errors.ArgumentError(
            f"`batch_size` must be a number of elements, not {batch_size!r}.", "Correct it."
        )

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        return _Mapped(plan, pure, batch_size)

    def of_arrays(f: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(jax.lax.map, f, batch_size=batch_size)

    return Lifted((f,), bind, Options("map", of_arrays=of_arrays if batch_size != 0 else None))(xs)


class _Mapped:
    """A pure call made for one element after another.

    Args:
      plan: The arguments, of which the last positional one is `xs`.
      pure: The pure call.
      batch_size: How many elements at a time, None for one after the other.
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
        wrong = find_bad_input(self.plan, leaves, axes, None, "map", _REMEDY)
        if wrong is not None:
            raise wrong
        size = axis_size_of(leaves, axes)
        if size is None:
            raise errors.ArgumentError(
                "map has nothing to map: there is no array in `xs`.",
                "Pass arrays, or modules that hold some.",
            )
        if self.batch_size is None:
            return self._loop(leaves, axes)
        return self._batches(leaves, axes, size)

    def _loop(self, leaves: Sequence[Any], axes: list[Prefix]) -> Result:
        """One element after the other; Variables that are shared and written are carried."""
        given = self.plan.by_slot(leaves)
        slices, rebuild = _take_mapped(self.plan, leaves, axes)
        element = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), slices)
        abstract = jax.eval_shape(lambda x: self._call(rebuild(x)), element)
        carried = [s for s in (Slot(n) for n in abstract.change.written) if axes[self.plan.index[s]] is None]
        for slot in carried:
            self._check_carried(slot, given[slot], abstract.by_slot[slot])

        def step(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
            result = self._call(rebuild(x, dict(zip(carried, carry, strict=True)))).by_slot
            return [result[slot] for slot in carried], [result[slot] for slot in stacked]

        stacked = [slot for slot in abstract.slots if slot not in carried]
        last, rest = jax.lax.scan(step, [given[slot] for slot in carried], slices)
        leaves_of = dict(zip((*carried, *stacked), (*last, *rest), strict=True))
        return result_of(abstract.change, leaves_of)

    def _batches(self, leaves: Sequence[Any], axes: list[Prefix], size: int) -> Result:
        """Several elements at a time; of what is shared, only the counts of random streams are written."""
        slices, rebuild = _take_mapped(self.plan, *split_shared_keys(self.plan, leaves, axes, size))
        shared = {slot for slot, axis in self.plan.by_slot(axes).items() if axis is None}

        def one(x: list[Any]) -> Result:
            with frames.noting_writes() as lines:
                result = self._call(rebuild(x))
            for slot in (Slot(n) for n in result.change.written):
                if slot in shared and not issubclass(self.plan.types[self.plan.index[slot]], RngCount):
                    name = self.plan.typed_name(slot)
                    error = errors.SharedWriteError(
                        f"{name} is shared by all elements of this map, and was written where `batch_size` takes "
                        "several at a time.",
                        "Leave `batch_size` out, or pass the module in `xs`, with a slice for each element.",
                    )
                    raise at_line(error, lines.get(name))
            return result

        result = jax.lax.map(one, slices, batch_size=self.batch_size or size)
        counts = [s for s in (Slot(n) for n in result.change.written) if s in shared]
        if not size:  # nothing was counted
            written = tuple([n for n in result.change.written if Slot(n) not in shared])
            return result_of(result.change._replace(written=written), result.by_slot)
        return result.write({slot: result.by_slot[slot][0] for slot in counts})  # the same after each element

    def _call(self, leaves: Sequence[Any]) -> Result:
        """The call for one element."""
        result = self.pure(leaves)
        for number, _ in result.change.changed:
            if self.spread.entries[number].prefix is None:
                raise errors.StructureError(
                    f"{self.plan.typed_path(number)} is shared by all elements of this map, and "
                    "its structure is not the same after one of them as before.",
                    "Change it outside of the map, or pass the module in `xs`, with a slice for each element. An array "
                    "that is set anew belongs in a Variable.",
                )
        return result

    def _check_carried(self, slot: Slot, before: Any, after: Any) -> None:
        """Raises if a shared Variable does not keep its shape and dtype."""
        (old, one), (new, other) = (jax.tree.flatten(x) for x in (before, after))
        if [type_of(x) for x in old] != [type_of(x) for x in new] or not same_tree(one, other):
            raise errors.StructureError(
                f"{self.plan.typed_name(slot)} is shared by all elements of this map, and holds "
                f"{describe(after, type_of)} after one of them instead of {describe(before, type_of)}.",
                "Write values of the same shape and dtype.",
            )


def _take_mapped(
    plan: Plan, leaves: Sequence[Any], axes: Sequence[Prefix]
) -> tuple[list[Any], Callable[..., list[Any]]]:
    """The mapped leaves, and how all are put together again.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.
      axes: The axis of each, 0 or None.

    Returns:
      The mapped leaves, as arrays; and a function from a slice of them, and other shared leaves by slot, to the leaves
      for one element.
    """

    def rebuild(slices: Iterable[Any], shared: Mapping[Slot, Any] = MappingProxyType({})) -> list[Any]:
        taken = iter(slices)
        pairs = zip(plan.slots, leaves, axes, strict=True)
        return [next(taken) if axis == 0 else shared.get(slot, x) for slot, x, axis in pairs]

    mapped = [x for x, axis in zip(leaves, axes, strict=True) if axis == 0]
    return jax.tree.map(jnp.asarray, mapped), rebuild
