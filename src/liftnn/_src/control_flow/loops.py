"""`while_loop` and `fori_loop`: loops with a carry that may contain modules."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.control_flow.body import Body, TracedBody, run_never, run_once
from liftnn._src.control_flow.functions import InlinedJit, pack_functions
from liftnn._src.control_flow.kept_calls import CallNames, call_kept
from liftnn._src.control_flow.loop_axes import Carry, LoopAxes
from liftnn._src.control_flow.peel import FirstStep
from liftnn._src.control_flow.uncompiled import call_uncompiled
from liftnn._src.graph.slots import ARRAY
from liftnn._src.lifting.array_calls import as_concrete, call_of_arrays, is_jit_disabled
from liftnn._src.lifting.contract import Plan, PureFunction, Purified, Result
from liftnn._src.lifting.lift import Lifted, LiftOptions, T
from liftnn._src.prefixes.prefix import Prefix, broadcast_over
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import LEAF, list_paths, type_of
from liftnn._src.variables.operators import unwrap


@boundary
def while_loop(
    cond_fun: Callable[[T], Any],
    body_fun: Callable[[T], T],
    init_val: T,
    *,
    max_steps: int | None = None,
) -> T:
    """Call `body_fun` repeatedly while `cond_fun` is true, as `jax.lax.while_loop`; the value may contain modules.

    Only the Variables and arrays that `body_fun` writes are carried. A function may be a bound method or a module; the
    updates of its module are propagated like those of a module in `init_val`.

    Args:
      cond_fun: Called with the current value; returns a boolean of shape `()`. It must not write to modules.
      body_fun: Called with the current value; returns the next value, of the same structure, shapes and dtypes, with
        the same modules or new modules of the same structure.
      init_val: The initial value: an array, a module, or a tree of them.
      max_steps: The maximum number of steps; the loop stops after them even if the condition still holds. With a bound
        the loop can be differentiated in reverse mode: it stores the carry about `2 * sqrt(max_steps)` times and
        recomputes each step once for the gradient. The default, None, means no bound and no reverse mode.

    Returns:
      The value after the last step; `init_val` if there was no step.

    Raises:
      ArgumentError: If `max_steps` is negative.
      ArgumentTypeError: If one of the functions is not callable, or if `cond_fun` does not return a boolean scalar.
      StructureError: If `cond_fun` writes to a module, or if `body_fun` changes structure, shapes or dtypes; the
        message names the paths.

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
        raise errors.ArgumentError(
            f"`max_steps` must not be negative, but it is {max_steps}.",
            "Pass the maximum number of steps, such as 100, or None for no bound.",
        )

    def apply(functions: Sequence[Callable[..., Any]], operands: Sequence[Any]) -> Any:
        return _while_loop(*functions, *operands, max_steps=max_steps)

    def of_modules() -> Any:
        return call_kept(
            ("while_loop", max_steps),
            apply,
            (cond_fun, body_fun),
            (init_val,),
            lambda: CallNames("while_loop", ("cond_fun", "body_fun"), ("init_val",)),
        )

    if max_steps is not None:
        return of_modules()
    return call_of_arrays("while_loop", (cond_fun, body_fun), jax.lax.while_loop, (init_val,), of_modules)


@boundary
def fori_loop(
    lower: Any,
    upper: Any,
    body_fun: Callable[[Any, T], T],
    init_val: T,
    *,
    unroll: int | bool | None = None,
) -> T:
    """Call `body_fun` for each index from `lower` to `upper`, as `jax.lax.fori_loop`; see `while_loop`.

    If both bounds are Python integers, the loop can be differentiated in reverse mode, and the first step may change
    structure, shapes and dtypes if the others do not: the first iteration is then peeled.

    Args:
      lower: The first index, an integer of shape `()`.
      upper: The index to stop before (exclusive), an integer of shape `()`.
      body_fun: Called as `body_fun(i, value)`; returns the next value, of the same structure, shapes and dtypes.
      init_val: The initial value: an array, a module, or a tree of them.
      unroll: The number of steps to unroll into one iteration of the loop, or True for all. Only for bounds that are
        Python integers. The default, None, means 1.

    Returns:
      The value after the last step; `init_val` if there was no step.

    Raises:
      ArgumentTypeError: If `body_fun` is not callable.
      StructureError: If `body_fun` changes structure, shapes or dtypes in a step that others may follow; the message
        names the paths.
      TypeError: If a bound is not an integer.

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

    def of_arrays(body_fun: Callable[[Any, T], T], init_val: T) -> T:
        return jax.lax.fori_loop(lower, upper, body_fun, init_val, unroll=unroll)

    def apply(functions: Sequence[Callable[..., Any]], operands: Sequence[Any]) -> Any:
        return _fori_loop(lower, upper, *functions, *operands, unroll=unroll)

    def of_modules() -> T:
        bounds = type(lower), type(upper), lower, upper
        key = ("fori_loop", *bounds, type(unroll), unroll)  # not hashable if a bound is an array
        return call_kept(
            key,
            apply,
            (body_fun,),
            (init_val,),
            lambda: CallNames("fori_loop", ("body_fun",), ("init_val",)),
        )

    return call_of_arrays("fori_loop", (body_fun,), of_arrays, (init_val,), of_modules)


def _while_loop(
    cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any, max_steps: int | None
) -> Any:
    """Run a `while_loop` with modules."""
    if not is_jit_disabled():
        return _while_primitive(cond_fun, body_fun, init_val, max_steps)

    def apply(functions: Sequence[Any], operands: Sequence[Any]) -> Any:
        (cond_fun, body_fun), (value,), remaining = functions, operands, max_steps
        while is_true := remaining != 0 and as_concrete(bool, cond_fun(value)):
            value, remaining = body_fun(value), None if remaining is None else remaining - 1
        if is_true is not None:
            return value
        return _while_primitive(cond_fun, body_fun, value, remaining)  # since it is mapped or traced

    return call_uncompiled("while_loop", apply, (cond_fun, body_fun), (init_val,), ("init_val",))


def _while_primitive(
    cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any, max_steps: int | None
) -> Any:
    """Run a `while_loop` with modules as a primitive of JAX."""

    def bind(plan: Plan, cond: PureFunction, body: PureFunction) -> PureFunction:
        def call(leaves: Sequence[Any]) -> Result:
            axes = _axes(plan, (None, Carry), leaves)
            loop = TracedBody(InlinedJit(plan, body, body_fun), axes, plan.by_slot(leaves), {}, "while_loop")
            holds = _condition(plan, InlinedJit(plan, cond, cond_fun), loop)
            if max_steps is None:
                run = jax.lax.while_loop
            else:
                run = functools.partial(_bounded, max_steps)
            with loop.naming():
                return loop.result(run(holds, lambda liftnn_carry: loop.step(liftnn_carry)[0], loop.start()))

        return call

    holder, functions = pack_functions("while_loop", cond_fun=cond_fun, body_fun=body_fun)
    return Lifted(functions, bind, LiftOptions("while_loop", names=("", "init_val")))(holder, init_val)


def _fori_loop(
    lower: Any, upper: Any, body_fun: Callable[[Any, T], T], init_val: T, unroll: int | bool | None
) -> T:
    """Run a `fori_loop` with modules."""
    if is_jit_disabled():
        first, end = as_concrete(int, lower), as_concrete(int, upper)
        if first is not None and end is not None:

            def apply(functions: Sequence[Any], operands: Sequence[Any]) -> Any:
                (body_fun,), (value,) = functions, operands
                for i in range(first, end):
                    value = body_fun(i, value)
                return value

            return call_uncompiled("fori_loop", apply, (body_fun,), (init_val,), ("init_val",))
    try:
        index = operator.index(lower)  # as in JAX, an index of known bounds has no dtype of its own
        steps: int | None = max(operator.index(upper) - index, 0)
    except TypeError:  # traced bounds; or not integers, for which JAX raises an error
        index, steps = lower, None

    loop = _ForLoop(body_fun, upper, unroll)

    def bind(plan: Plan, pure: Purified) -> PureFunction:
        def call(leaves: Sequence[Any]) -> Result:
            axes = _axes(plan, (None, 0, Carry), leaves)
            return _run_for(pure, axes, plan.by_slot(leaves), lower, steps, loop)

        return call

    holder, functions = pack_functions("fori_loop", body_fun=body_fun)
    options = LiftOptions("fori_loop", names=("", "i", "init_val"))
    return Lifted(functions, bind, options)(holder, index, init_val)


class _ForLoop(NamedTuple):
    """The arguments of a `fori_loop` that stay the same when its first step is peeled.

    Args:
      body_fun: The user's function.
      upper: The index to stop before.
      unroll: The number of steps to unroll.
    """

    body_fun: Callable[..., Any]
    upper: Any
    unroll: int | bool | None


def _run_for(
    pure: Purified,
    axes: LoopAxes,
    parts: Any,
    lower: Any,
    steps: int | None,
    options: _ForLoop,
    first: FirstStep | None = None,
) -> Result:
    """Run all steps of a `fori_loop`, or the steps after a peeled first one."""
    body = InlinedJit(axes.plan, functools.partial(pure, resume_from=first and axes.plan), options.body_fun)
    index = {p: parts[p] for p in axes.scanned}
    if steps == 0:
        return run_never(body, axes, parts, {}, "fori_loop")
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
        with loop.naming():
            carry = jax.lax.fori_loop(lower, options.upper, step, loop.start(), unroll=options.unroll)
        return loop.result(carry)
    first = FirstStep(body, axes, parts, "fori_loop")
    second = operator.index(lower) + 1  # an int, since the next value of an array may be a tracer
    others = options._replace(upper=operator.index(options.upper))
    return first.followed_by(
        lambda axes, parts: _run_for(pure, axes, parts, second, steps - 1, others, first),
        {**parts, **{p: i + 1 for p, i in index.items()}},
        unsettled,
    )


def _axes(plan: Plan, in_axes: tuple[Prefix, ...], leaves: Sequence[Any]) -> LoopAxes:
    """Return the axes of a loop that carries everything that its body returns and shares the captured modules."""
    marks = broadcast_over(in_axes, plan.graph.treedef.children()[0], "the arguments")
    marks += [None] * (len(plan.graph.edges) - len(marks))
    return LoopAxes(plan, marks, in_axes, Carry, leaves)


def _condition(plan: Plan, cond: InlinedJit, loop: Body) -> Callable[[list[Any]], Any]:
    """Return the condition as a function of the carry; raise an error if it writes or does not return a bool."""
    result = cond.eval_shape(loop.arguments(loop.start()))
    if result.written:
        paths = list_paths(map(plan.typed_path, result.written))
        raise errors.StructureError(
            f"cond_fun of liftnn.while_loop must not write, but it writes to:\n{paths}",
            "Move these updates to body_fun.",
        )
    types = ", ".join(map(type_of, result.output))
    is_one_array = result.change.treedef == LEAF and result.change.edges == (ARRAY,)
    if not is_one_array or types != "bool[]":
        returned = types if is_one_array or not types else f"a container of {types}"
        raise errors.ArgumentTypeError(
            f"cond_fun of liftnn.while_loop must return a bool[], but it returns {returned or 'no array'}.",
            "Return a boolean array of shape ().",
        )
    return lambda carry: cond(loop.arguments(carry)).leaves[0]


def _bounded(
    most: int, holds: Callable[[Any], Any], step: Callable[[Any], Any], start: list[Any]
) -> list[Any]:
    """Run a loop of at most `most` steps in blocks; only the first carry of each block is stored for the gradient."""
    size = max(1, math.isqrt(most))

    def one(carry: list[Any], i: Any) -> tuple[list[Any], None]:
        return jax.lax.cond((i < most) & holds(carry), step, lambda same: same, carry), None

    @jax.checkpoint
    def block(carry: list[Any], first: Any) -> tuple[list[Any], None]:
        def steps(carry: list[Any]) -> list[Any]:
            return jax.lax.scan(one, carry, first + jnp.arange(size))[0]

        return jax.lax.cond(holds(carry), steps, lambda same: same, carry), None

    return jax.lax.scan(block, start, size * jnp.arange(-(-most // size)))[0]


publish(fori_loop, while_loop)
