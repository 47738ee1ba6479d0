"""`map`: a function of one element after another of stacked arrays and modules, in one compiled loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn.axes.lanes import count_lanes, split_shared_keys
from liftnn.axes.prefix import Prefix, array_prefixes, spread_arguments, value_prefixes
from liftnn.axes.wrong_axes import find_bad_input
from liftnn.lifting.lift import Lifted, Options, T
from liftnn.lifting.pure import PureCall
from liftnn.lifting.result import Plan, Result
from liftnn.lifting.values import describe
from liftnn.tracebacks import at_line, boundary
from liftnn.trees import is_array, same_tree
from liftnn.variables import frames
from liftnn.variables.type_variables import R
from liftnn.variables.variable_types import RngCount

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

    def bind(plan: Plan, pure: PureCall) -> PureCall:
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

    def __init__(self, plan: Plan, pure: PureCall, batch_size: int | None):
        self.plan = plan
        self.pure = pure
        self.batch_size = batch_size
        mapped = plan.arguments[0][-1].leaves
        self.leaf_axes = [0 if i in mapped else None for i in range(len(plan.graph.edges))]
        self.spread = spread_arguments(plan, self.leaf_axes)

    def __call__(self, values: Sequence[Any], arrays: Sequence[Any]) -> Result:
        axes = value_prefixes(self.plan, self.spread, values)
        array_axes = array_prefixes(self.plan, self.spread, self.leaf_axes, arrays)
        wrong = find_bad_input(self.plan, values, arrays, (axes, array_axes), None, "map", _REMEDY)
        if wrong is not None:
            raise wrong
        size = count_lanes((*values, *arrays), (*axes, *array_axes))
        if size is None:
            raise errors.ArgumentError(
                "map has nothing to map: there is no array in `xs`.",
                "Pass arrays, or modules that hold some.",
            )
        if self.batch_size is None:
            return self._loop(values, arrays, axes, array_axes)
        return self._batches(values, arrays, axes, array_axes, size)

    def _loop(
        self, values: Sequence[Any], arrays: Sequence[Any], axes: list[Prefix], array_axes: list[Prefix]
    ) -> Result:
        """One element after the other; Variables that are shared and written are carried."""
        slices, rebuild = _take_mapped((values, axes), (arrays, array_axes))
        element = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), slices)
        abstract = jax.eval_shape(lambda x: self._call(*rebuild(x)), element)
        written = [i for i, x in enumerate(abstract.updates) if axes[i] is None and x is not None]
        for i in written:
            self._check_carried(i, values[i], abstract.updates[i])

        def step(carry: dict[int, Any], x: list[Any]) -> tuple[dict[int, Any], Result]:
            result = self._call(*rebuild(x, carry))
            carry = {i: result.updates[i] for i in written}
            stacked = [None if i in carry else x for i, x in enumerate(result.updates)]
            return carry, result._replace(updates=stacked)

        carry, result = jax.lax.scan(step, {i: values[i] for i in written}, slices)
        return result._replace(updates=[carry.get(i, x) for i, x in enumerate(result.updates)])

    def _batches(
        self,
        values: Sequence[Any],
        arrays: Sequence[Any],
        axes: list[Prefix],
        array_axes: list[Prefix],
        size: int,
    ) -> Result:
        """Several elements at a time; of what is shared, only the counts of random streams are written."""
        values, own_axes = split_shared_keys(self.plan, values, axes, size)
        slices, rebuild = _take_mapped((values, own_axes), (arrays, array_axes))

        def one(x: list[Any]) -> Result:
            with frames.noting_writes() as lines:
                result = self._call(*rebuild(x))
            for i, (axis, update) in enumerate(zip(axes, result.updates, strict=True)):
                if axis is None and update is not None and not issubclass(self.plan.types[i], RngCount):
                    error = errors.SharedWriteError(
                        f"{self._name(i)} is shared by all elements of this map, and was written where `batch_size` "
                        "takes several at a time.",
                        "Leave `batch_size` out, or pass the module in `xs`, with a slice for each element.",
                    )
                    raise at_line(error, lines.get(self._name(i)))
            return result

        result = jax.lax.map(one, slices, batch_size=self.batch_size or size)
        updates = [
            x if axis == 0 or x is None else x[0] if size else None  # a count is the same after each element
            for x, axis in zip(result.updates, axes, strict=True)
        ]
        return result._replace(updates=updates)

    def _call(self, values: Sequence[Any], arrays: Sequence[Any]) -> Result:
        """The call for one element."""
        result = self.pure(values, arrays)
        for number, spec in result.change.changed:
            if self.spread.entries[number].prefix is None:
                raise errors.StructureError(
                    f"{self.plan.path_of(number)} (a {spec.type.__name__}) is shared by all elements of this map, and "
                    "its structure is not the same after one of them as before.",
                    "Change it outside of the map, or pass the module in `xs`, with a slice for each element. An array "
                    "that is set anew belongs in a Variable.",
                )
        return result

    def _check_carried(self, slot: int, before: Any, after: Any) -> None:
        """Refuses a shared Variable that does not keep its shape and dtype."""
        (old, one), (new, other) = (jax.tree.flatten(x) for x in (before, after))
        if [_describe(x) for x in old] != [_describe(x) for x in new] or not same_tree(one, other):
            raise errors.StructureError(
                f"{self._name(slot)} is shared by all elements of this map, and holds {describe(after, _describe)} "
                f"after one of them instead of {describe(before, _describe)}.",
                "Write values of the same shape and dtype.",
            )

    def _name(self, slot: int) -> str:
        return f"{self.plan.path_of(self.plan.variables[slot])} (a {self.plan.types[slot].__name__})"


def _describe(x: Any) -> str:
    """Dtype and shape of an array or number."""
    return f"{x.dtype if is_array(x) else jnp.result_type(x)}{list(jnp.shape(x))}"


def _take_mapped(*groups: tuple[Sequence[Any], Sequence[Prefix]]) -> tuple[list[Any], Callable[..., Any]]:
    """What is mapped, and how the whole is put together again.

    Args:
      *groups: Groups of values with their axes.

    Returns:
      The mapped values, as arrays; and a function that takes a slice of them, and other shared values by position in
      the first group, and gives the groups for one element.
    """

    def rebuild(slices: Iterable[Any], shared: Mapping[int, Any] = MappingProxyType({})) -> list[list[Any]]:
        taken = iter(slices)
        first, *others = [
            [next(taken) if axis == 0 else x for x, axis in zip(values, axes, strict=True)]
            for values, axes in groups
        ]
        return [[shared.get(i, x) for i, x in enumerate(first)], *others]

    mapped = [x for values, axes in groups for x, axis in zip(values, axes, strict=True) if axis == 0]
    return jax.tree.map(jnp.asarray, mapped), rebuild
