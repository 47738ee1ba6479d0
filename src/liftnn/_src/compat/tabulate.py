"""`tabulate`: the calls of a model's submodules as a table of text, with shapes and sizes of the Variables."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from liftnn import errors
from liftnn._src.graph.graphdef import merge, split
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.modules.module import Module
from liftnn._src.modules.verbs import find_variables
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, format_path, is_array, type_of
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import RngState


class CallInfo(NamedTuple):
    """One call of a module.

    Args:
      path: The path of the module.
      type: Its class.
      inputs: The arguments: a tuple of positional ones and a dict of others, with arrays as `jax.ShapeDtypeStruct`.
      outputs: The result, with arrays as `jax.ShapeDtypeStruct`.
      variables: The Variables of the module by path from it, with those of its submodules.
      flops: The floating point operations of the call; None if they are not requested.
      vjp_flops: The same with the backward pass.
    """

    path: Path
    type: type
    inputs: Any
    outputs: Any
    variables: Mapping[Path, Any]
    flops: float | None = None
    vjp_flops: float | None = None


class _Recorder(threading.local):
    """Called around each call of a module in this thread; None if nothing is recorded."""

    record: Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any] | None = None


_recorder = _Recorder()


@functools.cache
def _recording(cls: Any, method: str) -> type:
    """Return a subclass whose method reports its calls."""
    original = getattr(cls, method)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        function = functools.partial(original, self)
        if _recorder.record is None:
            return function(*args, **kwargs)
        return _recorder.record(self, function, args, kwargs)

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__slots__": (), method: call}
    return type(cls)(cls.__name__, (cls,), names)


@contextlib.contextmanager
def _recorded_by(record: Any) -> Generator[None]:
    _recorder.record = record
    try:
        yield
    finally:
        _recorder.record = None


def _shapes(tree: Any) -> Any:
    """Return a tree with `jax.ShapeDtypeStruct` in place of arrays."""

    def convert(x: Any) -> Any:
        if isinstance(x, Variable):
            x = x.value
        return jax.ShapeDtypeStruct(x.shape, x.dtype) if is_array(x) else x

    return jax.tree.map(convert, tree, is_leaf=lambda x: isinstance(x, (Variable, Module)))


def _trace(f: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Call a function with abstract arrays in place of those in its arguments; everything else is unchanged."""
    leaves, treedef = jax.tree.flatten((args, kwargs), is_leaf=lambda x: isinstance(x, Module))
    dynamic = {i: x for i, x in enumerate(leaves) if is_array(x)}

    def run(dynamic: dict[int, Any]) -> None:
        args, kwargs = treedef.unflatten([dynamic.get(i, x) for i, x in enumerate(leaves)])
        f(*args, **kwargs)

    jax.eval_shape(run, dynamic)


def _find_calls(obj: Any, method: str, args: Any, kwargs: Any) -> tuple[list[CallInfo], list[Any]]:
    """Return the calls in order, and for each the structure and the abstract State of its module."""
    *states, graphdef = split(obj)
    found: dict[int, CallInfo] = {}
    contents: list[Any] = []

    def run(state: State, *args: Any, **kwargs: Any) -> None:
        model = merge(graphdef, state)
        paths = {id(x): path for path, x in iter_graph(model) if isinstance(x, Module)}
        for x in [x for _, x in iter_graph(model) if isinstance(x, Module)]:
            name = method if x is model else "__call__"
            if hasattr(type(x), name):
                object.__setattr__(x, "__class__", _recording(type(x), name))

        def record(x: Any, function: Any, args: Any, kwargs: Any) -> Any:
            number = len(contents)
            below, structure = split(x)
            contents.append((structure, _shapes(below)))
            inputs = _shapes((args, kwargs))
            out = function(*args, **kwargs)
            shapes = {path: v for path, v in below.flat().items() if isinstance(v, Variable)}
            found[number] = CallInfo(
                paths.get(id(x), ("?",)), type(x).__mro__[1], inputs, _shapes(out), shapes
            )
            return out

        with _recorded_by(record):
            getattr(model, method)(*args, **kwargs)

    _trace(functools.partial(run, states[0]), args, kwargs)
    return [found[number] for number in sorted(found)], contents


def _with_flops(call: CallInfo, contents: Any, method: str, with_vjp: bool) -> CallInfo:
    """Return the call with its floating point operations, as XLA estimates them."""
    structure, state = contents
    args, kwargs = call.inputs
    name = method if not call.path else "__call__"
    leaves, treedef = jax.tree.flatten((args, kwargs))
    dynamic = {i: x for i, x in enumerate(leaves) if is_array(x)}

    def forward(state: Any, dynamic: Any) -> Any:
        args, kwargs = treedef.unflatten([dynamic.get(i, x) for i, x in enumerate(leaves)])
        out = getattr(merge(structure, state), name)(*args, **kwargs)
        return [x for x in jax.tree.leaves(out) if jax.numpy.issubdtype(x.dtype, jax.numpy.inexact)]

    def backward(state: Any, dynamic: Any) -> Any:
        floats, treedef = jax.tree.flatten((state, dynamic))
        picked = {i: x for i, x in enumerate(floats) if jax.numpy.issubdtype(x.dtype, jax.numpy.inexact)}

        def of(picked: Any) -> Any:
            return forward(*treedef.unflatten([picked.get(i, x) for i, x in enumerate(floats)]))

        out, pull_back = jax.vjp(of, picked)
        return out, pull_back(out)

    def count(f: Callable[..., Any]) -> float:
        costs: Any = jax.jit(f).lower(state, dynamic).cost_analysis() or {}
        return float(costs.get("flops", 0.0))

    return call._replace(flops=count(forward), vjp_flops=count(backward) if with_vjp else None)


def filter_rng_streams(row: CallInfo) -> bool:
    """Return whether a row is shown by default: all but the streams of random numbers."""
    return not (row.variables and all(isinstance(x, RngState) for x in row.variables.values()))


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
      The text. Each row has path, class, shapes of the inputs and outputs, and the Variables of the module that are not
      those of a submodule with a row of its own; the last one has the totals by type.

    Raises:
      ArgumentTypeError: If `obj` is not a module.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> print(nnx.tabulate(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), jnp.ones((1, 2))))
      path   | type   | inputs       | outputs      | Param
      -------+--------+--------------+--------------+----------------------
             | Linear | float32[1,2] | float32[1,3] | kernel: float32[2,3]
             |        |              |              | bias: float32[3]
             |        |              |              | 9 (36 B)
      -------+--------+--------------+--------------+----------------------
      total  |        |              |              | 9 (36 B)
    """
    if not isinstance(obj, Module):
        raise errors.ArgumentTypeError(
            f"tabulate takes a module, not {an(type(obj))}.", "Pass the module itself."
        )
    calls, contents = _find_calls(obj, method, input_args, input_kwargs)
    shown = [
        (_with_flops(c, x, method, compute_vjp_flops) if compute_flops or compute_vjp_flops else c)
        for c, x in zip(calls, contents, strict=True)
        if (depth is None or len(c.path) <= depth) and row_filter(c)
    ]
    everything = find_variables(obj, ...)
    types = sorted({type(x) for x in everything.values()}, key=lambda cls: cls.__name__)
    numbers = {"flops": compute_flops, "vjp_flops": compute_vjp_flops}
    header = ["path", "type", "inputs", "outputs", *(name for name, on in numbers.items() if on)]
    rows: list[list[list[str]]] = []
    seen: set[Path] = set()
    for call in shown:
        above = {other.path for other in shown if len(other.path) > len(call.path)}
        own = {
            path: x
            for path, x in call.variables.items()
            if not any((*call.path, *path)[: len(p)] == p and p[: len(call.path)] == call.path for p in above)
        }
        own = {} if call.path in seen else own
        seen.add(call.path)
        args, kwargs = call.inputs
        values = [f"{getattr(call, name):,.0f}" for name, on in numbers.items() if on]
        rows.append(
            [
                [format_path(call.path) if call.path else ""],
                [call.type.__name__],
                [_render(x) for x in args] + [f"{name}: {_render(x)}" for name, x in kwargs.items()],
                _render(call.outputs).split("\n"),
                *[[value] for value in values],
                *[_list_variables(own, cls) for cls in types],
            ]
        )
    blank = [[""] for _ in header[1:]]
    totals = [["total"], *blank, *[[_size(x for x in everything.values() if type(x) is c)] for c in types]]
    return _lay_out([*header, *(cls.__name__ for cls in types)], rows, totals)


def _render(tree: Any) -> str:
    """Return a tree with its arrays by dtype and shape."""
    if is_array(tree):
        return type_of(tree)
    if isinstance(tree, Module):
        return type(tree).__name__
    if isinstance(tree, (list, tuple)):
        return f"({', '.join(map(_render, tree))})"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {_render(x)}" for key, x in tree.items()) + "}"
    return repr(tree)


def _list_variables(variables: Mapping[Path, Any], cls: type) -> list[str]:
    """Return the lines for the Variables of a type: each with its shape, then their size."""
    found = {path: x for path, x in variables.items() if type(x) is cls}
    return [f"{format_path(p)}: {_render(x.raw_value)}" for p, x in found.items()] + (
        [_size(found.values())] if found else []
    )


def _size(variables: Any) -> str:
    """Return the number of elements of Variables, and their bytes."""
    arrays = [x for v in variables for x in jax.tree.leaves(v.raw_value) if hasattr(x, "dtype")]
    count = sum(math.prod(x.shape) for x in arrays)
    size: float = sum(math.prod(x.shape) * _itemsize(x.dtype) for x in arrays)
    units = iter(["B", "KB", "MB", "GB", "TB"])
    unit = next(units)
    while size >= 1024 and unit != "TB":
        size, unit = size / 1024, next(units)
    return f"{count:,} ({size:.4g} {unit})"


def _itemsize(dtype: Any) -> int:
    return dtype.itemsize if hasattr(dtype, "itemsize") else np.dtype(dtype).itemsize


def _lay_out(header: list[str], rows: list[list[list[str]]], totals: list[list[str]]) -> str:
    """Return the text of a table with cells of several lines."""
    cells = [[[name] for name in header], *rows, totals]
    widths = [max((len(line) for row in cells for line in row[i]), default=0) for i in range(len(header))]
    widths[0] = max(widths[0], 6)

    def lines(row: list[list[str]]) -> list[str]:
        height = max(map(len, row))
        padded = [[*cell, *[""] * (height - len(cell))] for cell in row]
        return [
            " | ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)).rstrip()
            for line in zip(*padded, strict=True)
        ]

    rule = "-+-".join("-" * w for w in widths)
    parts = [lines(row) for row in cells]
    return "\n".join(
        line for part in (*[p for part in parts[:-1] for p in (part, [rule])], parts[-1]) for line in part
    )


def display(*args: Any) -> None:
    """Print values, each with its repr; of a module: its static attributes and submodules.

    Args:
      *args: The values.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.display(nnx.Module())
      Module()
    """
    for x in args:
        sys.stdout.write(f"{x!r}\n")
