"""`while_loop` and `fori_loop`: a function called again and again on what it returned."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.control_flow.body import Body, TracedBody, run_never, run_once
from liftnn._src.control_flow.functions import TracedOnce, hold_functions
from liftnn._src.control_flow.loop_axes import Carry, LoopAxes
from liftnn._src.control_flow.peel import FirstStep
from liftnn._src.graph.slots import ARRAY
from liftnn._src.lifting.array_calls import HAS_MODULES, call_of_arrays, is_jit_disabled
from liftnn._src.lifting.contract import Plan, PureFunction, Purified, Result
from liftnn._src.lifting.lift import Lifted, Options, T
from liftnn._src.prefixes.prefix import Prefix, broadcast_over
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import list_paths, type_of
from liftnn._src.variables.operators import unwrap


@boundary
def while_loop(
    cond_fun: Callable[[T], Any],
    body_fun: Callable[[T], T],
    init_val: T,
    *,
    max_steps: int | None = None,
) -> T:
    """Calls a function on what it returned for as long as a condition holds, as `jax.lax.while_loop`.

    Modules may be anywhere in what is handed on. Only what the function writes is carried. A function may be a bound
    method or a module; its module then takes part, and is written like one that is handed on.

    Args:
      cond_fun: Called with what the next step would be given; returns a boolean of shape `()`. It may write nothing.
      body_fun: Called with what is handed on; returns the same structure, shapes and dtypes, with the same modules or
        new ones of the same structure.
      init_val: What the first step is given: an array, a module, or a tree of them.
      max_steps: The most steps there can be; the loop stops after as many, whether the condition holds or not. Such a
        loop can be differentiated in reverse mode. It keeps what is handed on about `2 * sqrt(max_steps)` times, and
        computes each step once more for the gradient. The default, None, is no bound, and no reverse mode.

    Returns:
      What the last step returned, or `init_val`.

    Raises:
      ArgumentError: If `max_steps` is negative.
      ArgumentTypeError: If one of the functions is not callable, or `cond_fun` does not return a scalar array.
      StructureError: If `cond_fun` writes to something, or `body_fun` leaves another structure, or other shapes and
        dtypes, than it found; the message shows the difference by path.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> def halve(box):
      ...   box.value = box / 2
      ...   return box
      >>> box = liftnn.Variable(jnp.array(10.0))
      >>> liftnn.while_loop(lambda box: box > 1, halve, box) is box
      True
      >>> float(box.value)
      0.625
    """
    if max_steps is not None and operator.index(max_steps) < 0:
        raise errors.ArgumentError(f"max_steps is {max_steps}.", "Pass a number of steps, or leave it out.")

    if max_steps is None:
        out = call_of_arrays("while_loop", (cond_fun, body_fun), jax.lax.while_loop, init_val)
        if out is not HAS_MODULES:
            return out

    if is_jit_disabled():
        while cond_fun(init_val) and (max_steps is None or max_steps > 0):
            init_val, max_steps = body_fun(init_val), None if max_steps is None else max_steps - 1
        return init_val

    def bind(plan: Plan, cond: PureFunction, body: PureFunction) -> PureFunction:
        def call(leaves: Sequence[Any]) -> Result:
            axes = _axes(plan, (None, Carry), leaves)
            loop = TracedBody(TracedOnce(plan, body, body_fun), axes, plan.by_slot(leaves), {}, "while_loop")
            holds = _condition(plan, TracedOnce(plan, cond, cond_fun), loop)
            if max_steps is None:
                run = jax.lax.while_loop
            else:
                run = functools.partial(_bounded, max_steps)
            return loop.result(run(holds, lambda carry: loop.step(carry)[0], loop.start()))

        return call

    holder, functions = hold_functions("while_loop", cond_fun=cond_fun, body_fun=body_fun)
    return Lifted(functions, bind, Options("while_loop", names=("", "init_val")))(holder, init_val)


@boundary
def fori_loop(
    lower: Any,
    upper: Any,
    body_fun: Callable[[Any, T], T],
    init_val: T,
    *,
    unroll: int | bool | None = None,
) -> T:
    """Calls a function with `lower`, `lower + 1`, ... on what it returned, as `jax.lax.fori_loop`; see `while_loop`.

    Args:
      lower: The first index, an integer of shape `()`.
      upper: The index to stop before, an integer of shape `()`.
      body_fun: Called with the index and what is handed on; returns the same structure, shapes and dtypes. If both
        bounds are Python numbers, the first step may change them if those that follow do not.
      init_val: What the first step is given: an array, a module, or a tree of them.
      unroll: How many steps are compiled as one iteration of the loop, or whether all are. Only for bounds that are
        Python numbers. The default, None, is 1.

    Returns:
      What the last step returned, or `init_val`. If both bounds are Python numbers, the loop can be differentiated in
      reverse mode.

    Raises:
      ArgumentTypeError: If the function is not callable.
      StructureError: If `body_fun` leaves another structure, or other shapes and dtypes, than it found, in a step that
        others follow or may follow; the message shows the difference by path.
      TypeError: If a bound is no integer.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> total = liftnn.Variable(jnp.array(0))
      >>> def add(i, total):
      ...   total.value = total + i
      ...   return total
      >>> int(liftnn.fori_loop(0, 5, add, total).value)
      10
    """
    lower, upper = unwrap(lower), unwrap(upper)
    out = call_of_arrays(
        "fori_loop",
        (body_fun,),
        lambda body, init_val: jax.lax.fori_loop(lower, upper, body, init_val, unroll=unroll),
        init_val,
    )
    if out is not HAS_MODULES:
        return out
    if is_jit_disabled():
        for i in range(int(lower), int(upper)):
            init_val = body_fun(i, init_val)
        return init_val
    try:
        steps: int | None = max(operator.index(upper) - operator.index(lower), 0)
    except TypeError:  # known only when the program runs, or no integers, which JAX refuses
        steps = None

    def bind(plan: Plan, pure: Purified) -> PureFunction:
        def call(leaves: Sequence[Any]) -> Result:
            axes = _axes(plan, (None, 0, Carry), leaves)
            return run(pure, axes, plan.by_slot(leaves), lower, steps)

        return call

    def run(
        pure: Purified,
        axes: LoopAxes,
        parts: Any,
        lower: Any,
        steps: int | None,
        first: FirstStep | None = None,
    ) -> Result:
        """All steps, or those that follow a first one, which was made by itself."""
        body = TracedOnce(axes.plan, functools.partial(pure, resume_from=first and axes.plan), body_fun)
        index = {p: parts[p] for p in axes.scanned}
        if steps == 0:
            return run_never(body, axes, parts, {p: jnp.arange(0) for p in index}, "fori_loop")
        if steps == 1:
            return run_once(body, axes, parts)
        try:
            loop = TracedBody(body, axes, parts, index, "fori_loop")
        except errors.StructureError as error:
            if first is not None or steps is None:
                raise
            unsettled = error
        else:
            step = lambda i, carry: loop.step(carry, [i])[0]  # noqa: E731
            return loop.result(jax.lax.fori_loop(lower, upper, step, loop.start(), unroll=unroll))
        first = FirstStep(body, axes, parts, "fori_loop")
        return first.followed_by(
            lambda axes, parts: run(pure, axes, parts, lower + 1, steps - 1, first),
            {**parts, **dict.fromkeys(index, lower + 1)},
            unsettled,
        )

    holder, functions = hold_functions("fori_loop", body_fun=body_fun)
    options = Options("fori_loop", names=("", "i", "init_val"))
    return Lifted(functions, bind, options)(holder, lower, init_val)


def _axes(plan: Plan, in_axes: tuple[Prefix, ...], leaves: Sequence[Any]) -> LoopAxes:
    """The axes of a loop that hands on all that its body returns; what the body captures is shared by all steps."""
    given = broadcast_over(in_axes, plan.graph.treedef.children()[0], "the arguments")
    given += [None] * (len(plan.graph.edges) - len(given))
    return LoopAxes(plan, given, in_axes, Carry, leaves)


def _condition(plan: Plan, cond: TracedOnce, loop: Body) -> Callable[[list[Any]], Any]:
    """The condition as a function of the carry."""
    result = cond.eval_shape(loop.arguments(loop.start()))
    if result.written:
        paths = list_paths(map(plan.typed_path, result.written))
        raise errors.StructureError(
            f"cond_fun of liftnn.while_loop writes to:\n{paths}", "It may only read: write in body_fun."
        )
    types = list(map(type_of, result.output))
    if result.change.edges != (ARRAY,) or types != ["bool[]"]:
        raise errors.ArgumentTypeError(
            f"cond_fun of liftnn.while_loop returns {', '.join(types) or 'no array'}.",
            "Return a boolean array of shape ().",
        )
    return lambda carry: cond(loop.arguments(carry)).leaves[0]


def _bounded(
    most: int, holds: Callable[[Any], Any], step: Callable[[Any], Any], start: list[Any]
) -> list[Any]:
    """A loop of at most so many steps, in blocks of which only the first carry is kept for the gradient."""
    size = max(1, math.isqrt(most))

    def one(carry: list[Any], i: Any) -> tuple[list[Any], None]:
        return jax.lax.cond((i < most) & holds(carry), step, lambda same: same, carry), None

    @jax.checkpoint
    def block(carry: list[Any], first: Any) -> tuple[list[Any], None]:
        def steps(carry: list[Any]) -> list[Any]:
            return jax.lax.scan(one, carry, first + jnp.arange(size))[0]

        return jax.lax.cond(holds(carry), steps, lambda same: same, carry), None

    return jax.lax.scan(block, start, size * jnp.arange(-(-most // size)))[0]
