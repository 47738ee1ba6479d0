"""`scan`: a function applied to one slice of its arguments after another, with a carry."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.control_flow.body import (
    Body,
    CarryMismatchError,
    KnownCarryBody,
    TracedBody,
    run_never,
    run_once,
)
from liftnn._src.control_flow.functions import InlinedJit
from liftnn._src.control_flow.kept_calls import KeptCalls
from liftnn._src.control_flow.loop_axes import Carry, LoopAxes, without_carry
from liftnn._src.control_flow.peel import FirstStep
from liftnn._src.control_flow.slices import slice_type, slices_of
from liftnn._src.control_flow.uncompiled import UncompiledBody
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.array_calls import is_jit_disabled
from liftnn._src.lifting.configure import keeps_signature
from liftnn._src.lifting.contract import Plan, PureFunction, Purified, Result
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.mapping.axis_errors import check_axes, find_bad_input
from liftnn._src.mapping.axis_metadata import adapt_metadata
from liftnn._src.mapping.batch_keys import axis_size_of, element_keys
from liftnn._src.mapping.vmap import Vmapped
from liftnn._src.prefixes.prefix import prefix_leaves
from liftnn._src.publish import publish
from liftnn._src.variables.variable_types import RngCount, RngKey


@keeps_signature
def scan(
    f: Callable[..., Any],
    /,
    *,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    in_axes: Any = (Carry, 0),
    out_axes: Any = (Carry, 0),
    split_rngs: bool = False,
    transform_metadata: Mapping[str, Any] | None = None,
) -> Lifted[..., Any]:
    """Scan a function over the leading axes of its arguments while carrying along state, as `jax.lax.scan`.

    Each argument is scanned (an axis: each step gets one slice), carried (`Carry`: each step passes it to the next one)
    or shared by all steps (None). Arguments and outputs may contain modules. Values that a step writes to a scanned
    module are stacked along its axis. Values that it writes to any other module are visible in the next step. Only
    Variables and arrays that are written are carried; those that are only read are constants of the loop.

    Structure, shapes and dtypes of carried and shared objects must stay the same in each step. The first step may
    change them if the others do not: the first iteration is then peeled.

    Args:
      f: A function, a bound method or a module. The module of a bound method is argument 0; if `in_axes` is a single
        axis, or a tuple without an entry for it, the module is shared by all steps.
      length: The number of steps. The default, None, infers it from the scanned arguments.
      reverse: Whether to scan from the last slice to the first. The default is False.
      unroll: The number of steps to unroll into one iteration of the loop, or True for all. The default is 1.
      in_axes: The axis of each argument: an int, `Carry`, None or, for a module, `StateAxes`; a tree prefix of the
        positional arguments. A keyword argument has the axis of its position, or axis 0 if `in_axes` has no entry for
        it. The default is `(Carry, 0)`.
      out_axes: The axes of the output: a tree prefix with `Carry` for the carried values, in the order of the
        arguments, and the axis to stack each other output along. A module that was an argument keeps its own axes. The
        default is `(Carry, 0)`.
      split_rngs: Whether each step draws from its own keys of a shared `Rngs`, as in `vmap`; the counts then advance as
        in a single step. The default is False: the steps draw successive keys, as in a Python loop.
      transform_metadata: The name of the scanned axis in the metadata of Variables, as in `vmap`. The default, None,
        leaves metadata unchanged.

    Returns:
      A function with the signature of `f` that runs all steps. It returns the output of `f`, with the carry of the last
      step and the stacked outputs of all steps.

    Raises:
      AliasingError: When called, if a Variable is passed with two different axes, or if one with an axis is used
        through a module without one.
      ArgumentError: When called, if `in_axes`, `out_axes` or `length` does not match the arguments or the output.
      ArgumentTypeError: If `in_axes` or `out_axes` contains an object that is not an axis; when called, if
        `transform_metadata` is not a mapping.
      StructureError: When called, if a step after the first one changes structure, shapes or dtypes and other steps
        follow; the message names the paths.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> init = liftnn.vmap(lambda key: liftnn.Linear(3, 3, rngs=liftnn.Rngs(key)))
      >>> layers = init(jax.random.split(jax.random.key(0), 5))
      >>> call = liftnn.scan(lambda x, layer: layer(x), in_axes=(liftnn.Carry, 0), out_axes=liftnn.Carry)
      >>> call(jnp.ones(3), layers).shape
      (3,)
    """
    check_axes("in_axes", [without_carry(x) for x in prefix_leaves(in_axes)])
    check_axes("out_axes", [without_carry(x) for x in prefix_leaves(out_axes)])

    def bind(lifted: Vmapped[..., Any], plan: Plan, pure: Purified) -> PureFunction:
        marks, positional = lifted._axes_of(plan), lifted._axes_of_positional(plan)
        options = ScanOptions(f, reverse, unroll, transform_metadata)

        def call(leaves: Sequence[Any]) -> Result:
            axes = LoopAxes(plan, marks, positional, out_axes, leaves)
            count = _count_steps(plan, leaves, axes, length)
            parts = plan.by_slot(leaves)
            keys = _split_keys(axes, parts, count) if split_rngs else {}
            restarted = _shared(axes, RngCount) if split_rngs else []
            return _run(pure, axes, parts, _Steps(count, keys, restarted), options)

        return call

    of_arrays = None
    if in_axes == out_axes == (Carry, 0) and transform_metadata is None:
        of_arrays = _scan_arrays(length, reverse, unroll)
    options = {
        "length": length,
        "reverse": reverse,
        "unroll": unroll,
        "in_axes": in_axes,
        "out_axes": out_axes,
        "split_rngs": split_rngs,
        "transform_metadata": transform_metadata,
    }
    in_plain = KeptCalls("scan", f, functools.partial(scan, **options), (type(unroll), *options.values()))
    return Vmapped(f, bind, LiftOptions("scan", of_arrays=of_arrays, in_plain=in_plain), in_axes)


def _scan_arrays(length: int | None, reverse: bool, unroll: int | bool) -> Callable[..., Any]:
    """Return a transform that applies `jax.lax.scan` to a function of arrays."""

    def of_arrays(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda carry, xs: jax.lax.scan(f, carry, xs, length, reverse, unroll)

    return of_arrays


class ScanOptions(NamedTuple):
    """The options of `scan` that do not depend on the arguments.

    Args:
      f: The user's function.
      reverse: Whether to scan from the last slice to the first.
      unroll: The number of steps to unroll into one iteration.
      transform_metadata: The name of the scanned axis in metadata.
    """

    f: Callable[..., Any]
    reverse: bool
    unroll: int | bool
    transform_metadata: Mapping[str, Any] | None


class _Steps(NamedTuple):
    """The number of steps of one call, and their random keys.

    Args:
      length: The number of steps.
      keys: The stacked keys of all steps for each stream that is split, by slot.
      restarted: Slots with the same initial value in each step.
    """

    length: int
    keys: dict[Slot, Any]
    restarted: Sequence[Slot]


def _run(
    pure: Purified,
    axes: LoopAxes,
    parts: Mapping[Slot, Any],
    steps: _Steps,
    options: ScanOptions,
    first: FirstStep | None = None,
) -> Result:
    """Run all steps, or the steps after a peeled first one."""
    plan = axes.plan
    hooks = adapt_metadata(plan, options.transform_metadata, axes.of_leaves, axes.of_result)
    step = functools.partial(pure, hooks=hooks, resume_from=first and plan)
    scanned = {p: _move(parts[p], axis, 0) for p, axis in axes.scanned.items()} | steps.keys
    if steps.length > 1 and axes.is_carry_known and not steps.keys and not is_jit_disabled():
        try:
            return _loop(KnownCarryBody(step, axes, parts, scanned, "scan"), scanned, steps.length, options)
        except (CarryMismatchError, errors.StructureError):
            pass  # trace the body before the loop instead; it may be peeled below
    once = InlinedJit(plan, step, options.f)
    if steps.length == 0:
        return run_never(once, axes, parts, scanned, "scan")
    if steps.length == 1:
        with slices_of(scanned, 0) as only:
            return run_once(once, axes, {**parts, **only})
    try:
        if is_jit_disabled():
            order = range(steps.length)[:: -1 if options.reverse else 1]
            run = UncompiledBody(once, axes, parts, scanned, order, "scan", steps.restarted).run
        else:
            slices = {p: jax.tree.map(slice_type, x) for p, x in scanned.items()}
            body = TracedBody(once, axes, parts, slices, "scan", steps.restarted)
            run = functools.partial(_loop, body, scanned, steps.length, options)
    except errors.StructureError as error:
        unsettled = error
    else:
        return run()
    if first is not None:
        raise unsettled
    at, others = (steps.length - 1, slice(steps.length - 1)) if options.reverse else (0, slice(1, None))
    with slices_of(scanned, at) as one:
        first = FirstStep(once, axes, {**parts, **one}, "scan")
    with slices_of(scanned, others) as rest:
        sliced = {p: _move(rest[p], 0, axis) for p, axis in axes.scanned.items()}
        remaining = steps._replace(length=steps.length - 1, keys={p: rest[p] for p in steps.keys})
        return first.followed_by(
            lambda axes, parts: _run(pure, axes, parts, remaining, options, first),
            {**parts, **sliced},
            unsettled,
            restarted=steps.restarted,
            reverse=options.reverse,
        )


def _loop(body: Body, scanned: Mapping[Slot, Any], steps: int, options: ScanOptions) -> Result:
    """Run all steps of a body with `jax.lax.scan`."""
    with body.naming():
        carry, stacked = jax.lax.scan(
            body.named_step(options.f),
            body.start(),
            list(scanned.values()),
            steps,
            options.reverse,
            options.unroll,
        )
    return body.result(
        carry, [_move(x, 0, axis) for x, axis in zip(stacked, body.stacked.values(), strict=True)]
    )


def _count_steps(plan: Plan, leaves: Sequence[Any], axes: LoopAxes, length: int | None) -> int:
    """Return the number of steps; raise ArgumentError if the sizes of the scanned arguments differ."""
    length = operator.index(length) if isinstance(length, jax.Array) else length  # raises for a tracer
    wrong = find_bad_input(plan, leaves, axes.of_leaves, length, "scan")
    if wrong is not None:
        raise wrong
    found = length
    if found is None:
        found = axis_size_of(leaves, axes.of_leaves)
    if found is None:
        raise errors.ArgumentError(
            "scan has nothing to scan: no argument with an axis contains an array.",
            "Set an axis in `in_axes` for an argument with arrays, or pass `length`.",
        )
    return found


def _split_keys(axes: LoopAxes, parts: Mapping[Slot, Any], steps: int) -> dict[Slot, Any]:
    """Return the stacked keys of all steps for each shared stream, by the slot of its key."""
    return {s: element_keys(parts[s], steps) for s in _shared(axes, RngKey) if jax.tree.leaves(parts[s])}


def _shared(axes: LoopAxes, cls: type) -> list[Slot]:
    """Return the slots of the Variables of a type that all steps share."""
    pairs = zip(axes.plan.slots, axes.plan.types, strict=True)
    return [
        slot for slot, variable_type in pairs if slot not in axes.scanned and issubclass(variable_type, cls)
    ]


def _move(x: Any, source: int, destination: int) -> Any:
    """Move an axis of every array in a tree."""
    if source == destination:  # the usual case; tracing `moveaxis` would take as long as tracing a layer
        return x
    if isinstance(x, jax.Ref):
        raise errors.ArgumentError(
            f"scan takes the slices of a mutable array (jax.Ref) along axis 0 only, as jax.lax.scan, but its axis is "
            f"{source}.",
            "Create the mutable array with the scanned axis in front, and pass axis 0 in `in_axes`.",
        )
    return jax.tree.map(lambda y: jnp.moveaxis(y, source, destination), x)


publish(scan)
