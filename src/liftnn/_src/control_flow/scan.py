"""`scan`: a function called once for each slice of its arguments, which hands a carry from step to step."""

from __future__ import annotations

import functools
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
from liftnn._src.control_flow.functions import TracedOnce
from liftnn._src.control_flow.loop_axes import Carry, LoopAxes, without_carry
from liftnn._src.control_flow.peel import FirstStep
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.configure import keeps_signature
from liftnn._src.lifting.contract import Plan, PureFunction, Purified, Result
from liftnn._src.lifting.lift import Lifted, Options
from liftnn._src.mapping.axis_errors import check_axes, find_bad_input
from liftnn._src.mapping.axis_metadata import adapt_metadata
from liftnn._src.mapping.batch_keys import axis_size_of, element_keys
from liftnn._src.mapping.vmap import Vmapped
from liftnn._src.prefixes.prefix import prefix_leaves
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
    """Calls a function once for each slice of its arguments, in order, as `jax.lax.scan`, compiled as one step.

    Each argument is scanned (an axis: each step gets a slice), handed from step to step (`Carry`), or the same for all
    steps (None). Modules may be anywhere among them and in what is returned. What a step writes to a scanned module
    is stacked along its axis. What it writes to any other module is seen by the next step; only what is written is
    carried, and what is merely read is neither carried nor copied.

    The structure of what the steps share must be the same after each step. The first one may change it, if those that
    follow do not: then it is made by itself, before the loop.

    Args:
      f: A function, a bound method or a module. A method's module is argument 0; where `in_axes` is a single axis, or
        a tuple without an entry for it, all steps share that module.
      length: The number of steps. The default, None, takes it from the scanned arguments.
      reverse: Whether to go from the last slice to the first. The default is False.
      unroll: How many steps are compiled as one iteration of the loop, or whether all are. The default is 1.
      in_axes: For each argument an int, `Carry`, None or, for a module, `StateAxes`; a tree prefix of the positional
        arguments. A keyword argument has the axis of its position, or else axis 0. The default is `(Carry, 0)`.
      out_axes: The same for the output: what is carried, in the order of the arguments, and axes to stack the rest
        along. A module that was an argument keeps its own. The default is `(Carry, 0)`.
      split_rngs: Whether a shared `Rngs` gives each step keys of its own, as in `vmap`; its counts then go up as in
        one step. The default is False: each step draws the next keys, as in a Python loop.
      transform_metadata: The name of the scanned axis in the metadata of Variables, under `PARTITION_NAME`, and what it
        is called in other entries, as in `vmap`. The default, None, leaves metadata alone.

    Returns:
      The function that runs all steps. It returns what `f` returns, with the carry of the last step.

    Raises:
      AliasingError: When called, if a Variable is reached with two different axes.
      ArgumentError: When called, if `in_axes`, `out_axes` or `length` do not fit.
      ArgumentTypeError: If there is something else than an axis in `in_axes` or `out_axes`; when called, if
        `transform_metadata` is no mapping.
      StructureError: When called, if a step after the first one leaves another structure, or other shapes and dtypes,
        than it found, and more follow; the message shows the difference by path.

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
    lifted: Vmapped[..., Any]

    def bind(plan: Plan, pure: Purified) -> PureFunction:
        given, positional = lifted._axes_of(plan), lifted._axes_of_positional(plan)
        options = ScanOptions(f, reverse, unroll, transform_metadata)

        def call(leaves: Sequence[Any]) -> Result:
            axes = LoopAxes(plan, given, positional, out_axes, leaves)
            steps = _count_steps(plan, leaves, axes, length)
            parts = plan.by_slot(leaves)
            keys = _split_keys(axes, parts, steps) if split_rngs else {}
            restarted = _shared(axes, RngCount) if split_rngs else []
            return _run(pure, axes, parts, _Scanned(steps, keys, restarted), options)

        return call

    of_arrays = None
    if in_axes == out_axes == (Carry, 0) and transform_metadata is None:
        of_arrays = _scan_arrays(length, reverse, unroll)
    lifted = Vmapped((f,), bind, Options("scan", of_arrays=of_arrays), in_axes)
    return lifted


def _scan_arrays(length: int | None, reverse: bool, unroll: int | bool) -> Callable[..., Any]:
    """JAX's scan of a function of carry and slice."""

    def of_arrays(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda carry, xs: jax.lax.scan(f, carry, xs, length, reverse, unroll)

    return of_arrays


class ScanOptions(NamedTuple):
    """How a function is scanned, whatever its arguments.

    Args:
      f: The user's function.
      reverse: Whether from the last slice to the first.
      unroll: How many steps are compiled as one.
      transform_metadata: What metadata calls the scanned axis.
    """

    f: Callable[..., Any]
    reverse: bool
    unroll: int | bool
    transform_metadata: Mapping[str, Any] | None


class _Scanned(NamedTuple):
    """What the steps of one call have for themselves, besides the slices of the arguments.

    Args:
      steps: How many steps there are.
      keys: The keys of the steps for each shared stream that is split, by slot.
      restarted: Slots where each step finds what the first one found.
    """

    steps: int
    keys: dict[Slot, Any]
    restarted: Sequence[Slot]


def _run(
    pure: Purified,
    axes: LoopAxes,
    parts: Mapping[Slot, Any],
    own: _Scanned,
    options: ScanOptions,
    first: FirstStep | None = None,
) -> Result:
    """All steps, or those that follow a first one, which was made by itself."""
    plan = axes.plan
    hooks = adapt_metadata(plan, options.transform_metadata, axes.given, axes.of_result)
    step = functools.partial(pure, hooks=hooks, resume_from=first and plan)
    scanned = {p: _move(parts[p], axis, 0) for p, axis in axes.scanned.items()} | own.keys
    if own.steps > 1 and axes.is_foreseen and not own.keys:
        try:
            return _loop(KnownCarryBody(step, axes, parts, scanned, "scan"), scanned, own.steps, options)
        except (CarryMismatchError, errors.StructureError):
            pass  # this may be mended below
    once = TracedOnce(plan, step, options.f)
    if own.steps == 0:
        return run_never(once, axes, parts, scanned, "scan")
    if own.steps == 1:
        return run_once(once, axes, {**parts, **_take(scanned, 0)})
    slices = {p: jax.tree.map(_slice_type, x) for p, x in scanned.items()}
    try:
        body = TracedBody(once, axes, parts, slices, "scan", own.restarted)
    except errors.StructureError as error:
        unsettled = error
    else:
        return _loop(body, scanned, own.steps, options)
    if first is not None:
        raise unsettled
    at, others = (own.steps - 1, slice(own.steps - 1)) if options.reverse else (0, slice(1, None))
    first = FirstStep(once, axes, {**parts, **_take(scanned, at)}, "scan")
    rest = _take(scanned, others)
    sliced = {p: _move(rest[p], 0, axis) for p, axis in axes.scanned.items()}
    left = own._replace(steps=own.steps - 1, keys={p: rest[p] for p in own.keys})
    return first.followed_by(
        lambda axes, parts: _run(pure, axes, parts, left, options, first),
        {**parts, **sliced},
        unsettled,
        restarted=own.restarted,
        reverse=options.reverse,
    )


def _loop(body: Body, scanned: Mapping[Slot, Any], steps: int, options: ScanOptions) -> Result:
    """All steps of a loop whose body is known."""
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


def _take(scanned: Mapping[Slot, Any], which: int | slice) -> dict[Slot, Any]:
    """One or several slices of what is scanned."""
    return {p: jax.tree.map(lambda y: y[which], x) for p, x in scanned.items()}


def _count_steps(plan: Plan, leaves: Sequence[Any], axes: LoopAxes, length: int | None) -> int:
    """The number of steps, which everything that is scanned must have."""
    wrong = find_bad_input(plan, leaves, axes.given, length, "scan")
    if wrong is not None:
        raise wrong
    found = length
    if found is None:
        found = axis_size_of(leaves, axes.given)
    if found is None:
        raise errors.ArgumentError(
            "scan has nothing to scan: no argument with an axis has an array in it.",
            "Give an argument an axis in `in_axes`, or pass `length`.",
        )
    return found


def _split_keys(axes: LoopAxes, parts: Mapping[Slot, Any], steps: int) -> dict[Slot, Any]:
    """The keys of the steps for each shared stream, by the slot of its own key."""
    return {s: element_keys(parts[s], steps) for s in _shared(axes, RngKey) if jax.tree.leaves(parts[s])}


def _shared(axes: LoopAxes, cls: type) -> list[Slot]:
    """The values of the Variables of a type that all steps share."""
    pairs = zip(axes.plan.slots, axes.plan.types, strict=True)
    return [slot for slot, own in pairs if slot not in axes.scanned and issubclass(own, cls)]


def _move(x: Any, source: int, destination: int) -> Any:
    """Moves an axis of every array in a tree."""
    if source == destination:  # nearly always; `moveaxis` would take as long as to trace a layer
        return x
    return jax.tree.map(lambda y: jnp.moveaxis(y, source, destination), x)


def _slice_type(x: Any) -> jax.ShapeDtypeStruct:
    """What each step gets of an array that is scanned, which may be empty."""
    weak = getattr(jax.typeof(x), "weak_type", False)
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype, weak_type=weak)
