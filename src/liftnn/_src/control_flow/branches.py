"""`cond` and `switch`: one of several functions runs, and its updates of modules are propagated to the caller."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVarTuple

import jax

from liftnn import errors
from liftnn._src.control_flow.branch_union import BranchUnion
from liftnn._src.control_flow.functions import InlinedJit, PackedFunction, pack_functions
from liftnn._src.control_flow.kept_calls import CallNames, call_kept
from liftnn._src.control_flow.uncompiled import call_uncompiled
from liftnn._src.lifting.array_calls import as_concrete, call_of_arrays, is_jit_disabled
from liftnn._src.lifting.configure import MISSING
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.lifting.shown import show_as
from liftnn._src.modules.module import Module
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.type_variables import R
from liftnn._src.variables.operators import unwrap

Operands = TypeVarTuple("Operands")
_NO_ARGUMENTS = inspect.Signature()


@boundary
def cond(
    pred: Any,
    true_fun: Callable[[*Operands], R],
    false_fun: Callable[[*Operands], R],
    *operands: *Operands,
    operand: Any = MISSING,
) -> R:
    """Conditionally apply `true_fun` or `false_fun`, as `jax.lax.cond`; operands and outputs may contain modules.

    The functions may write different Variables and array leaves: those that the selected function does not write keep
    their values. Both functions must return the same structure and make the same changes to structure, static values,
    shapes and dtypes. A function may be a bound method or a module; the updates of its module are propagated like those
    of an operand.

    The old form of JAX's, `cond(pred, true_operand, true_fun, false_operand, false_fun)`, is accepted too.

    Args:
      pred: The condition: a boolean or number of shape `()`.
      true_fun: The function to apply to the operands if `pred` is true.
      false_fun: The function to apply to the operands if `pred` is false.
      *operands: Arrays, modules, and trees of them.
      operand: A single operand, by keyword, in place of `*operands`.

    Returns:
      The output of the selected function.

    Raises:
      ArgumentTypeError: If one of the functions is not callable, or if operands are passed both by position and as
        `operand`.
      StructureError: If the functions produce different structures, shapes or dtypes; the message names the paths.
      TypeError: If `pred` is not a scalar.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> def update(mean, x):
      ...   mean.value = 0.5 * mean + 0.5 * x
      >>> mean = liftnn.BatchStat(jnp.array(1.0))
      >>> liftnn.cond(jnp.array(True), update, lambda mean, x: None, mean, 3.0)
      >>> float(mean.value)
      2.0
    """
    if not callable(true_fun) and callable(false_fun) and len(operands) == 2 and callable(operands[1]):
        return _cond_of_two(pred, true_fun, false_fun, *operands)
    pred = unwrap(pred)
    passed: Any = _passed_operands("cond", operands, operand)

    def of_arrays(*f_and_x: Any) -> Any:
        return jax.lax.cond(pred, *f_and_x)

    def of_modules() -> Any:
        if is_jit_disabled() and (is_true := as_concrete(bool, pred)) is not None:
            return _call_chosen("cond", true_fun if is_true else false_fun, passed)
        return call_kept(
            "cond",
            _cond,
            (true_fun, false_fun),
            (pred, *passed),
            lambda: CallNames("cond", ("true_fun", "false_fun"), ("pred", *_operand_names(passed))),
        )

    return call_of_arrays("cond", (true_fun, false_fun), of_arrays, passed, of_modules)


def _cond(functions: Sequence[Callable[..., Any]], operands: Sequence[Any]) -> Any:
    """Apply one of two functions with modules to the operands, after the condition."""
    (true_fun, false_fun), (pred, *passed) = functions, operands
    holder, packed = pack_functions("cond", true_fun=true_fun, false_fun=false_fun)

    def choose(branches: Sequence[Callable[[], Any]]) -> Any:
        return jax.lax.cond(pred, *branches)

    return _call_one("cond", holder, packed, ["true_fun", "false_fun"], choose, passed)


def _cond_of_two(pred: Any, true_operand: Any, true_fun: Any, false_operand: Any, false_fun: Any) -> Any:
    """Apply the old form of `cond`, with an operand for each function."""
    return cond(pred, lambda x, _: true_fun(x), lambda _, x: false_fun(x), true_operand, false_operand)


@boundary
def switch(
    index: Any,
    branches: Iterable[Callable[[*Operands], R]],
    *operands: *Operands,
    operand: Any = MISSING,
) -> R:
    """Apply one of several functions, selected by `index`, as `jax.lax.switch`; see `cond`.

    Args:
      index: The index of the function to apply: an integer of shape `()`, clamped to the range of `branches`.
      branches: The functions.
      *operands: Arrays, modules, and trees of them.
      operand: A single operand, by keyword, in place of `*operands`.

    Returns:
      The output of the selected function.

    Raises:
      ArgumentError: If `branches` is empty.
      ArgumentTypeError: If one of the functions is not callable, or if operands are passed both by position and as
        `operand`.
      StructureError: If the functions produce different structures, shapes or dtypes; the message names the paths.
      TypeError: If `index` is not an integer scalar.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> experts = [liftnn.Linear(2, 3, rngs=liftnn.Rngs(i)) for i in range(4)]
      >>> liftnn.switch(2, experts, jnp.ones(2)).shape
      (3,)
    """
    branches = tuple(branches)  # an iterator can be read only once
    if not branches:
        raise errors.ArgumentError(
            "The `branches` of liftnn.switch are empty.", "Pass at least one function."
        )
    index = unwrap(index)
    passed: Any = _passed_operands("switch", operands, operand)

    def of_arrays(*f_and_x: Any) -> Any:
        return jax.lax.switch(index, f_and_x[: len(branches)], *f_and_x[len(branches) :])

    def of_modules() -> Any:
        if is_jit_disabled() and (at := as_concrete(int, index)) is not None:
            return _call_chosen("switch", branches[min(max(at, 0), len(branches) - 1)], passed)
        return call_kept(
            "switch",
            _switch,
            branches,
            (index, *passed),
            lambda: CallNames("switch", _branch_names(branches), ("index", *_operand_names(passed))),
        )

    return call_of_arrays("switch", branches, of_arrays, passed, of_modules)


def _switch(functions: Sequence[Callable[..., Any]], operands: Sequence[Any]) -> Any:
    """Apply one of several functions with modules to the operands, after the index."""
    index, *passed = operands
    holder, packed = pack_functions("switch", branches=list(functions))

    def choose(branches: Sequence[Callable[[], Any]]) -> Any:
        return jax.lax.switch(index, branches)

    return _call_one("switch", holder, packed, _branch_names(functions), choose, passed)


def _passed_operands(name: str, operands: tuple[Any, ...], operand: Any) -> Any:
    """Return the operands, from `*operands` or `operand`."""
    if operand is MISSING:
        return operands
    if operands:
        raise errors.ArgumentTypeError(
            f"liftnn.{name} got both positional operands (their number is {len(operands)}) and the keyword `operand`.",
            "Pass all operands by position.",
        )
    return (operand,)


def _call_one(
    name: str,
    holder: Module,
    functions: Sequence[PackedFunction],
    names: Sequence[str],
    choose: Callable[[Sequence[Callable[[], Any]]], Any],
    operands: Sequence[Any],
) -> Any:
    """Call one of several functions of `(holder, *operands)`; `choose` applies JAX's `cond` or `switch`."""

    def bind(plan: Plan, *pures: PureFunction) -> PureFunction:
        def call(leaves: Sequence[Any]) -> Result:
            pairs = zip(pures, functions, strict=True)
            branches = [InlinedJit(plan, pure, function) for pure, function in pairs]
            results = [branch.eval_shape(leaves) for branch in branches]
            common = BranchUnion(plan, results, leaves, names, name)
            run = [
                show_as(lambda branch=branch: common.complete(branch(leaves)), f.__wrapped__, _NO_ARGUMENTS)
                for branch, f in zip(branches, functions, strict=True)
            ]
            with common.naming():
                return common.result(choose(run))

        return call

    arguments = ("", *_operand_names(operands))
    return Lifted(functions, bind, LiftOptions(name, names=arguments))(holder, *operands)


def _call_chosen(name: str, function: Any, operands: Sequence[Any]) -> Any:
    """Call the selected function in plain Python."""
    names = _operand_names(operands)
    return call_uncompiled(name, lambda functions, x: functions[0](*x), (function,), operands, names)


def _operand_names(operands: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of operands in messages."""
    return tuple([f"operands[{i}]" for i in range(len(operands))])


def _branch_names(branches: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of the branches of a `switch` in messages."""
    return tuple([f"branches[{i}]" for i in range(len(branches))])


publish(cond, switch)
