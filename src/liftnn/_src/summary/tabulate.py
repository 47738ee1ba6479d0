"""The table of a model: a row for each call of a module in an abstract trace, and the sizes of what it holds."""

from __future__ import annotations

import collections
import difflib
import inspect
from typing import Any

from liftnn import errors
from liftnn._src.annotations import signature_of
from liftnn._src.modules.module import Module
from liftnn._src.modules.verbs import find_variables
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.summary.calls import CallInfo, Records
from liftnn._src.summary.outline import OutlineEntry, outline
from liftnn._src.summary.sizes import Size, size_of, sizes_by_type
from liftnn._src.summary.table import Row, Table
from liftnn._src.summary.value_text import value_text
from liftnn._src.trees import HiddenKey, Path, an, at_start, format_path
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Param, RngState


def make_table(
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    method: str | None,
    depth: int | None,
    flops: tuple[bool, bool],
    width: int | None,
) -> Table:
    """Return the table of a model; see `liftnn.tabulate`.

    Args:
      model: The module.
      args: The positional arguments of the call.
      kwargs: The keyword arguments of the call.
      method: The name of the method to call; None for a table without calls.
      depth: The largest number of modules around one that has a row; None for any.
      flops: Whether to count the operations of the calls, and those with the backward pass.
      width: The width of the text; None for that of the terminal.

    Returns:
      The table.

    Raises:
      ArgumentTypeError: If `model` is not a module, or `method` not a name.
      ArgumentError: If the model has no such method, or if operations are to be counted without the arguments of the
        call.
    """
    if not isinstance(model, Module):
        raise errors.ArgumentTypeError(
            f"tabulate takes a module, not {an(type(model))}.", "Pass the module itself."
        )
    if method is not None:
        _check_method(model, method)
    top = outline(model)
    modules = {entry.path: entry for entry in top.walk() if _has_row(entry)}
    calls = None if method is None else _calls(model, method, args, kwargs, flops)
    has_calls = calls is not None
    measure = _Measure(top)
    rows: list[Row] = []
    called: set[Path] = set()
    for call in calls or ():
        path = tuple([key for key in call.module_path if type(key) is not HiddenKey])
        called.add(path)
        size, shared = measure.of(modules.get(path))
        rows.append(_row_of_call(call, path, size, shared))
    for path, entry in modules.items():
        if path not in called and (not has_calls or _holds_variables(entry)):
            (elements, n_bytes), shared = measure.of(entry)
            name = format_path(path) if path else ""
            rows.append(Row(name, type(entry.value), (), (), elements, n_bytes, shared, path))
    shown = [row for row in rows if depth is None or _nesting(modules.get(row.module_path)) <= depth]
    totals = sizes_by_type(find_variables(model, ...).values())
    return Table(type(model).__name__, shown, totals, has_calls, *flops, width)


def _has_row(entry: OutlineEntry) -> bool:
    """Return whether an entry is a module at its first path; streams of random numbers have no rows."""
    is_module = entry.first is None and isinstance(entry.value, Module)
    return is_module and not isinstance(entry.value, (Rngs, RngStream))


def _calls(
    model: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], flops: tuple[bool, bool]
) -> list[CallInfo] | None:
    """Return the calls that one call of the model makes; None if it needs arguments, and there are none.

    Raises:
      ArgumentError: If there are none and the operations are to be counted.
    """
    cause: Exception | None = None
    can_fail = False
    if not args and not kwargs:
        parameters = _parameters(model, method)
        can_fail = bool(parameters)
        # a call of an Rngs would draw a key of a stream that it may not have
        draws = isinstance(model, (Rngs, RngStream))
        if draws or parameters is None or any(map(_is_required, parameters)):
            return _no_calls(model, method, flops, cause)
    try:
        return Records(count=flops).trace(model, method, args, kwargs)
    except Exception as error:  # whatever the method raises without the arguments that it can take
        if not can_fail:
            raise
        cause = error
    return _no_calls(model, method, flops, cause)


def _check_method(model: Any, method: str) -> None:
    """Raise an error if the method is not a name, or that of no method."""
    if not isinstance(method, str):
        raise errors.ArgumentTypeError(
            f"`method` is the name of a method of the model, not {an(type(method))}.",
            'Pass the name, such as method="encode".',
        )
    if method != "__call__" and not callable(getattr(model, method, None)):
        names = [name for name in dir(type(model)) if callable(getattr(type(model), name, None))]
        similar = difflib.get_close_matches(method, names)
        raise errors.ArgumentError(
            f"{at_start(an(type(model)))} has no method {method!r}.",
            f"Write method={similar[0]!r}." if similar else "Pass the name of a method of the model.",
        )


def _no_calls(model: Any, method: str, flops: tuple[bool, bool], cause: Exception | None) -> None:
    """Return None, or raise ArgumentError if the operations of the calls are to be counted."""
    if any(flops):
        option = "flops" if flops[0] else "grad_flops"
        raise errors.ArgumentError(
            f"tabulate counts the operations of a call, but got no inputs for {type(model).__qualname__}.{method}().",
            f"Pass its inputs after the module: `liftnn.tabulate(model, x, {option}=True)`, where x is an array or a "
            "jax.ShapeDtypeStruct.",
        ) from cause


def _parameters(model: Any, method: str) -> list[inspect.Parameter] | None:
    """Return the parameters of a method; None if they are unknown, or if the model has no such method."""
    try:
        return list(signature_of(getattr(model, method)).parameters.values())
    except (AttributeError, TypeError, ValueError):
        return None


def _is_required(parameter: inspect.Parameter) -> bool:
    """Return whether a call must have an argument for a parameter."""
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def _row_of_call(call: CallInfo, path: Path, size: Size, shared: int) -> Row:
    """Return the row of a call of the module at a path."""
    method = "".join(f"{'.' if path else ''}{name}()" for name in call.path[len(call.module_path) :])
    args, kwargs = call.inputs
    inputs = (*map(value_text, args), *(f"{k}: {value_text(x)}" for k, x in kwargs.items() if x is not None))
    is_tuple = type(call.outputs) is tuple and call.outputs
    outputs = tuple(map(value_text, call.outputs)) if is_tuple else (value_text(call.outputs),)
    where = (format_path(path) if path else "") + method
    counts = call.flops, call.vjp_flops, call.has_unknown_loops
    return Row(where, call.type, inputs, outputs, size.elements, size.bytes, shared, path, *counts)


class _Measure:
    """The parameters at and below each entry of an outline: their size, and how many count at an earlier path.

    Args:
      top: The entry of the root.
    """

    def __init__(self, top: OutlineEntry):
        self._sizes: dict[int, Size] = collections.defaultdict(lambda: Size(0, 0))
        self._shared: dict[int, int] = collections.Counter()
        order = list(top.walk())
        for entry in reversed(order):
            if entry.first is None and isinstance(entry.value, Param):
                self._sizes[id(entry)] = size_of([entry.value])
            if entry.above is not None and id(entry) in self._sizes:
                old, added = self._sizes[id(entry.above)], self._sizes[id(entry)]
                self._sizes[id(entry.above)] = Size(old.elements + added.elements, old.bytes + added.bytes)
        for entry in order:
            if entry.first is not None and not entry.is_inside(entry.first):
                self._share(entry, entry.first)

    def _share(self, entry: OutlineEntry, first: OutlineEntry) -> None:
        """Count the parameters of a shared object for those that hold it here, and do not hold its first entry."""
        elements = self._sizes[id(first)].elements
        holders = set(map(id, first.ancestors()))
        for above in entry.ancestors():
            if id(above) in holders:
                break
            self._shared[id(above)] += elements

    def of(self, entry: OutlineEntry | None) -> tuple[Size, int]:
        """Return the size of the parameters of a module, and the number of those that count at an earlier path."""
        return (Size(0, 0), 0) if entry is None else (self._sizes[id(entry)], self._shared[id(entry)])


def _holds_variables(module: OutlineEntry) -> bool:
    """Return whether a module holds Variables itself, perhaps in containers, other than random states."""
    todo = list(module.below)
    while todo:
        entry = todo.pop()
        if isinstance(entry.value, Variable) and not isinstance(entry.value, RngState):
            return True
        if not isinstance(entry.value, Module):
            todo += entry.below
    return False


def _nesting(entry: OutlineEntry | None) -> int:
    """Return the number of modules around one."""
    above = () if entry is None else entry.ancestors()
    return sum(isinstance(x.value, Module) for x in above if x is not entry)
