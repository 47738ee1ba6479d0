"""The table of a model: a row for each call of a module in an abstract trace, and the sizes of what it holds."""

from __future__ import annotations

import collections
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.modules.verbs import find_variables
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.summary.calls import CallInfo, Records
from liftnn._src.summary.outline import Entry, outline
from liftnn._src.summary.sizes import Size, size_of, sizes_by_type
from liftnn._src.summary.table import Row, Table
from liftnn._src.summary.value_text import value_text
from liftnn._src.trees import Path, an, format_path
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Param, RngState


def make_table(
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    method: str,
    depth: int | None,
    flops: tuple[bool, bool],
    width: int | None,
) -> Table:
    """Return the table of a model; see `liftnn.tabulate`.

    Args:
      model: The module.
      args: The positional arguments of the call.
      kwargs: The keyword arguments of the call.
      method: The name of the method to call.
      depth: The largest number of modules around one that has a row; None for any.
      flops: Whether to count the operations of the calls, and those with the backward pass.
      width: The width of the text; None for that of the terminal.

    Returns:
      The table.

    Raises:
      ArgumentTypeError: If `model` is not a module.
    """
    if not isinstance(model, Module):
        raise errors.ArgumentTypeError(
            f"tabulate takes a module, not {an(type(model))}.", "Pass the module itself."
        )
    top = outline(model)
    modules = {
        entry.path: entry.value
        for entry in top.walk()
        if entry.first is None
        and isinstance(entry.value, Module)
        and not isinstance(entry.value, (Rngs, RngStream))
    }
    has_calls = bool(args or kwargs) or _needs_nothing(model, method)
    calls = Records(count=flops).trace(model, method, args, kwargs) if has_calls else []
    sizes, shared = _sizes(model), _shared_sizes(top)
    rows = [_row(call, sizes, shared) for call in calls]
    called = {call.module_path for call in calls}
    for path, module in modules.items():
        if path not in called and (not has_calls or _holds_variables(module)):
            size = sizes[path]
            rows.append(
                Row(
                    format_path(path) if path else "",
                    type(module),
                    (),
                    (),
                    size.elements,
                    size.bytes,
                    shared[path],
                    path,
                )
            )
    shown = [row for row in rows if depth is None or _nesting(row.module_path, modules) <= depth]
    totals = sizes_by_type(find_variables(model, ...).values())
    return Table(type(model).__name__, shown, totals, has_calls, *flops, width)


def _needs_nothing(model: Any, method: str) -> bool:
    """Return whether a method can be called without arguments."""
    function = getattr(model, method, None)
    if function is None:
        return False
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _row(call: CallInfo, sizes: Mapping[Path, Size], shared: Mapping[Path, int]) -> Row:
    """Return the row of a call."""
    path = call.module_path
    method = "".join(f"{'.' if path else ''}{name}()" for name in call.path[len(path) :])
    args, kwargs = call.inputs
    inputs = (*map(value_text, args), *(f"{name}: {value_text(x)}" for name, x in kwargs.items()))
    is_tuple = type(call.outputs) is tuple and call.outputs
    outputs = tuple(map(value_text, call.outputs)) if is_tuple else (value_text(call.outputs),)
    where = (format_path(path) if path else "") + method
    size = sizes[path]
    return Row(
        where,
        call.type,
        inputs,
        outputs,
        size.elements,
        size.bytes,
        shared[path],
        path,
        call.flops,
        call.vjp_flops,
    )


def _sizes(model: Any) -> Mapping[Path, Size]:
    """Return the size of the parameters at and below each path; shared ones are at their first path."""
    found: dict[Path, Size] = collections.defaultdict(lambda: Size(0, 0))
    for path, x in find_variables(model, Param).items():
        size = size_of([x])
        for n in range(len(path) + 1):
            old = found[path[:n]]
            found[path[:n]] = Size(old.elements + size.elements, old.bytes + size.bytes)
    return found


def _shared_sizes(top: Entry) -> Mapping[Path, int]:
    """Return the number of parameters at and below each path that are counted at an earlier path."""
    found: dict[Path, int] = collections.Counter()
    for entry in top.walk():
        first = entry.first
        if first is None or not first.state or entry.is_inside(first):
            continue
        elements = size_of(
            x.value for x in first.walk() if isinstance(x.value, Param) and x.first is None
        ).elements
        path = entry.path
        home = first.path
        for n in range(len(path) + 1 if elements else 0):
            if home[:n] != path[:n]:  # above, they are counted
                found[path[:n]] += elements
    return found


def _holds_variables(module: Any) -> bool:
    """Return whether a module holds Variables itself, perhaps in containers, other than random states."""
    todo: list[Entry] = list(outline(module).below)
    while todo:
        entry = todo.pop()
        if isinstance(entry.value, Variable) and not isinstance(entry.value, RngState):
            return True
        if not isinstance(entry.value, Module):
            todo += entry.below
    return False


def _nesting(path: Path, modules: Iterable[Path]) -> int:
    """Return the number of modules around the one at a path."""
    return sum(path[:n] in modules for n in range(len(path)))
