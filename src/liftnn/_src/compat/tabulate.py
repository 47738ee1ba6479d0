"""`tabulate`: the calls of a model's submodules as a table of text, with shapes and sizes of the Variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from liftnn import errors
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.modules.module import Module
from liftnn._src.modules.verbs import find_variables
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.summary.calls import CallInfo, Records
from liftnn._src.summary.sizes import group_of
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, is_array, type_of
from liftnn._src.variables.variable import Variable


def filter_rng_streams(row: CallInfo) -> bool:
    """Return whether a row is shown by default: all but the streams of random numbers."""
    return not issubclass(row.type, (RngStream, Rngs))


@boundary
def tabulate(
    obj: Any,
    *input_args: Any,
    depth: int | None = None,
    method: str = "__call__",
    row_filter: Callable[[CallInfo], bool] = filter_rng_streams,
    table_kwargs: Mapping[str, Any] = {},
    column_kwargs: Mapping[str, Any] = {},
    console_kwargs: Mapping[str, Any] = {},
    compute_flops: bool = False,
    compute_vjp_flops: bool = False,
    **input_kwargs: Any,
) -> str:
    """Return a table of the calls of a module and its submodules, in order, without running them.

    Args:
      obj: The module.
      *input_args: The arguments of the call, arrays or `jax.ShapeDtypeStruct`.
      depth: The length of the longest path that is shown. The default, None, shows all.
      method: The name of the method to call. The default is `"__call__"`.
      row_filter: Called with the `CallInfo` of each row; returns whether it is shown. The default leaves out streams of
        random numbers.
      table_kwargs: Accepted without effect, as are `column_kwargs` and `console_kwargs`: the table is plain text.
      column_kwargs: See `table_kwargs`.
      console_kwargs: See `table_kwargs`.
      compute_flops: Whether to add the floating point operations of each call, as XLA estimates them.
      compute_vjp_flops: Whether to add those of the call with its backward pass.
      **input_kwargs: Further arguments of the call.

    Returns:
      The text. There is a row for each call of `__call__` or a public method of a module; a repeated call with the same
      shapes is left out. A row has path, class, shapes of the inputs and outputs, the Variables that the module holds
      itself, with their metadata, and the size of all that it reaches. What is shared counts at its first path.

    Raises:
      ArgumentTypeError: If `obj` is not a module.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> print(nnx.tabulate(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), jnp.ones((1, 2))))
                                 Linear Summary
      ┌──────┬────────┬──────────────┬──────────────┬──────────────────────┐
      │ path │ type   │ inputs       │ outputs      │ Param                │
      ╞══════╪════════╪══════════════╪══════════════╪══════════════════════╡
      │      │ Linear │ float32[1,2] │ float32[1,3] │ bias: float32[3]     │
      │      │        │              │              │ kernel: float32[2,3] │
      │      │        │              │              │                      │
      │      │        │              │              │ 9 (36 B)             │
      ├──────┼────────┼──────────────┼──────────────┼──────────────────────┤
      │      │        │              │        Total │ 9 (36 B)             │
      └──────┴────────┴──────────────┴──────────────┴──────────────────────┘
      <BLANKLINE>
                            Total Parameters: 9 (36 B)
    """
    if not isinstance(obj, Module):
        raise errors.ArgumentTypeError(
            f"tabulate takes a module, not {an(type(obj))}.", "Pass the module itself."
        )
    records = Records(count=(compute_flops, compute_vjp_flops))
    calls = records.trace(obj, method, input_args, input_kwargs)
    shown = [c for c in calls if (depth is None or len(c.path) <= depth) and row_filter(c)]
    numbers = [name for name, on in (("flops", compute_flops), ("vjp_flops", compute_vjp_flops)) if on]
    table = _Variables(obj)
    header = ["path", "type", "inputs", "outputs", *numbers, *table.columns]
    rows = [
        [
            ["/".join(map(str, call.path))],
            [call.type.__name__],
            _list_inputs(*call.inputs),
            _list_values(call.outputs),
            *[[f"{getattr(call, name):,.0f}"] for name in numbers],
            *[table.cell(call.module_path, column) for column in table.columns],
        ]
        for call in shown
    ]
    totals = [*[[""] for _ in range(3 + len(numbers))], ["Total"], *[[x] for x in table.totals()]]
    return _lay_out(
        f"{type(obj).__name__} Summary", header, rows, totals, f"Total Parameters: {table.size()}"
    )


class _Variables:
    """The Variables of a model by first path, in one column for each type.

    Args:
      model: The model.
    """

    def __init__(self, model: Any):
        self._all = find_variables(model, ...)
        self._holders = {path for path, x in iter_graph(model) if isinstance(x, Module)}
        self.columns = sorted({group_of(x) for x in self._all.values()})

    def cell(self, module: Path, column: str) -> list[str]:
        """Return the lines for the Variables of a module: what it holds itself, and the size of all below it."""
        below = {
            path: x
            for path, x in self._all.items()
            if path[: len(module)] == module and group_of(x) == column
        }
        direct = {path: x for path, x in below.items() if self._holder(path) == module}
        lines = [
            line
            for path, x in sorted(direct.items(), key=lambda item: str(item[0]))
            for line in _describe("/".join(map(str, path[len(module) :])), x)
        ]
        size = _size(below.values())
        return [*lines, "", size] if lines else [size]

    def totals(self) -> list[str]:
        """Return the size of each column."""
        return [_size(x for x in self._all.values() if group_of(x) == column) for column in self.columns]

    def size(self) -> str:
        """Return the size of all Variables."""
        return _size(self._all.values()) or "0 (0 B)"

    def _holder(self, path: Path) -> Path:
        """Return the path of the module that holds the Variable at a path, perhaps in a list or dict."""
        above = [path[:n] for n in range(len(path)) if path[:n] in self._holders]
        return above[-1] if above else ()


def _describe(name: str, x: Variable[Any]) -> list[str]:
    """Return the lines for a Variable: its shape, and its metadata if it has some."""
    metadata = x.get_metadata()
    if not metadata:
        return [f"{name}: {_render(x.raw_value)}"]
    return [
        f"{name}:",
        f"  value: {_render(x.raw_value)}",
        *[f"  {key}: {_render(value)}" for key, value in metadata.items()],
    ]


def _render(tree: Any) -> str:
    """Return a tree with its arrays by dtype and shape."""
    if is_array(tree):
        return type_of(tree)
    if isinstance(tree, Module):
        return f"{type(tree).__name__}(...)"
    if isinstance(tree, (list, tuple)):
        return f"({', '.join(map(_render, tree))})"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {_render(x)}" for key, x in tree.items()) + "}"
    return tree if isinstance(tree, str) else repr(tree)


def _list_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    return [*map(_render, args), *[f"{name}: {_render(x)}" for name, x in kwargs.items()]]


def _list_values(tree: Any) -> list[str]:
    """Return a line for each element of a tuple, list or dict, or one line."""
    if isinstance(tree, (list, tuple)) and tree:
        return [_render(x) for x in tree]
    if isinstance(tree, dict) and tree:
        return _list_inputs((), tree)
    return _render(tree).split("\n")


def _size(variables: Iterable[Variable[Any]]) -> str:
    """Return the number of elements of Variables, and their bytes; nothing for no Variables."""
    values = [v.raw_value for v in variables]
    arrays = [x for value in values for x in jax.tree.leaves(value) if hasattr(x, "dtype")]
    count = sum(math.prod(x.shape) for x in arrays)
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size > unit:
            return f"{count:,} ({size / unit:,.1f} {name})"
    return f"{count:,} ({size} B)" if values else ""


def _lay_out(
    title: str, header: list[str], rows: list[list[list[str]]], totals: list[list[str]], caption: str
) -> str:
    """Return the text of a table with cells of several lines."""
    cells = [[[name] for name in header], *rows, totals]
    widths = [max(len(line) for row in cells for line in (*row[i], "")) for i in range(len(header))]
    totals = [
        [line.rjust(w) if line == "Total" else line for line in x]
        for x, w in zip(totals, widths, strict=True)
    ]

    def rule(start: str, line: str, cross: str, end: str) -> str:
        return start + cross.join(line * (w + 2) for w in widths) + end

    def lines(row: list[list[str]]) -> list[str]:
        height = max(map(len, row))
        padded = [[*cell, *[""] * (height - len(cell))] for cell in row]
        return [
            "│ " + " │ ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)) + " │"
            for line in zip(*padded, strict=True)
        ]

    between = rule("├", "─", "┼", "┤")
    width = len(between)
    return "\n".join(
        [
            title.center(width).rstrip(),
            rule("┌", "─", "┬", "┐"),
            *lines(cells[0]),
            rule("╞", "═", "╪", "╡"),
            *[line for row in rows for line in (*lines(row), between)],
            *lines(totals),
            rule("└", "─", "┴", "┘"),
            "",
            caption.center(width).rstrip(),
        ]
    )
