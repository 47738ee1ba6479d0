"""The public functions that look inside modules; each loads what it needs at its first call."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal

from liftnn._src.filters import Filter
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary

if TYPE_CHECKING:
    from liftnn._src.summary.drawing import Drawing
    from liftnn._src.summary.table import Table


def _load(file: str) -> Any:
    """Return a file of this folder; loaded at first use."""
    return importlib.import_module(f"liftnn._src.summary.{file}")


@boundary
def count_params(tree: Any, /, *filters: Filter) -> int:
    """Count the parameters of a module, shared ones once.

    Args:
      tree: A module, or any pytree with modules in it. Its Variables may be abstract.
      *filters: A Variable counts if it matches one of them. The default is `Param`.

    Returns:
      The number of elements of the arrays in all these Variables.

    Raises:
      ArgumentTypeError: If `tree` is not a module and cannot hold one, such as a class or a number.
      FilterError: If an argument is not a filter.
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import liftnn
      >>> model = liftnn.Sequential(
      ...   liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))
      ... )
      >>> liftnn.count_params(model), liftnn.count_params(model, liftnn.BatchStat)
      (15, 6)
    """
    return _load("sizes").count_elements(tree, filters)


@boundary
def display(*objects: Any) -> None:
    """Show values: in a notebook as collapsible trees, if treescope is installed; elsewhere as text.

    A notebook shows the last value of a cell in this way without `display`.

    Args:
      *objects: Modules, Variables, States, tables, or other values.

    Example:
      >>> import liftnn
      >>> liftnn.display(liftnn.Linear(4, 8, rngs=liftnn.Rngs(0)))
      Linear(kernel: Param f32[4,8], bias: Param f32[8])  40 params, 160 B
    """
    _load("notebook").show(objects)


@boundary
def draw(tree: Any, /, format: Literal["mermaid", "dot"] = "mermaid", *, depth: int | None = None) -> Drawing:
    """Draw the object graph of a module, including sharing and cycles.

    Each module is a box with its Variables and settings, and each attribute that holds a module is an arrow. Dashed
    arrows lead to what was reached before: it is shared, or closes a cycle. A Variable that is shared has a box of its
    own. Equal neighbours in a list are one box.

    Args:
      tree: A module, or a list or dict of modules.
      format: The language: `"mermaid"`, which GitHub, JupyterLab and mkdocs show as a picture, or `"dot"`, that of
        Graphviz. The default is `"mermaid"`.
      depth: The largest number of boxes around one that is drawn; 0 is the module alone. The default, None, draws all.

    Returns:
      The drawing: `str` gives the text, notebooks show the picture; for `"dot"` if Graphviz is installed.

    Raises:
      ArgumentError: If the format is neither.
      ArgumentTypeError: If `tree` is not a module and cannot hold one, such as a class or a number.

    Example:
      >>> import liftnn
      >>> model = liftnn.Sequential(liftnn.Linear(4, 8, rngs=liftnn.Rngs(0)))
      >>> model.first = model.layers[0]
      >>> print(liftnn.draw(model))
      flowchart TD
        n0["<b>Sequential</b>"]
        n1["<b>Linear</b><br>kernel: Param f32[4,8]<br>bias: Param f32[8]"]
        n0 -->|"layers[0]"| n1
        n0 -.->|"first"| n1
    """
    return _load("drawing").make_drawing(tree, format, depth)


@boundary
def tabulate(
    module: Any,
    /,
    *args: Any,
    depth: int | None = None,
    method: str = "__call__",
    flops: bool = False,
    grad_flops: bool = False,
    width: int | None = None,
    **kwargs: Any,
) -> Table:
    """Return a table of the calls of a module and its submodules, with shapes and sizes; nothing is computed.

    Args:
      module: The module, which may be abstract.
      *args: The arguments of the call: arrays of any shape, `jax.ShapeDtypeStruct`, or other values. Without
        arguments, for a module that needs some, the table has all modules with their sizes, and no shapes.
      depth: The largest number of modules around a module that has a row; 0 is the model alone. The default, None,
        shows all.
      method: The name of the method to call. The default is `"__call__"`.
      flops: Whether to count the floating point operations of each call, as XLA estimates them. False by default: it
        takes a fraction of a second for each kind of layer. The body of a `scan`, or of a `fori_loop` with constant
        bounds, counts once for each iteration; that of a loop of unknown length counts once, and the table says so.
      grad_flops: Whether to count those of each call with its backward pass. False by default.
      width: The width of the text. The default, None, is that of the terminal, and no limit outside of one.
      **kwargs: Keyword arguments of the call.

    Returns:
      The table: `print` shows it, in colours if rich is installed, and notebooks show it as HTML. `table.rows` has the
      data of each row. There is a row for each call of `__call__` or a public method of a module, except for repeated
      calls with the same shapes; then the modules that hold Variables and were not called. Parameters include those of
      submodules; shared ones count at their first path. The last lines are the totals by type of Variable.

    Raises:
      ArgumentTypeError: If `module` is not a module, or `method` is not a str.
      ArgumentError: If the module has no such method, or if `flops` or `grad_flops` is set without the arguments that
        the call needs.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Sequential(
      ...   liftnn.Linear(4, 8, rngs=liftnn.Rngs(0)), liftnn.relu, liftnn.Linear(8, 2, rngs=liftnn.Rngs(1))
      ... )
      >>> print(liftnn.tabulate(model, jnp.ones((3, 4))))
                                 Sequential
       ───────────────────────────────────────────────────────────────
        path        layer        inputs     outputs    params   bytes
       ───────────────────────────────────────────────────────────────
                    Sequential   f32[3,4]   f32[3,2]       58   232 B
        layers[0]   Linear       f32[3,4]   f32[3,8]       40   160 B
        layers[2]   Linear       f32[3,8]   f32[3,2]       18    72 B
       ───────────────────────────────────────────────────────────────
                    Param                                  58   232 B
       ───────────────────────────────────────────────────────────────
    """
    return _load("tabulate").make_table(
        module, args, kwargs, method=method, depth=depth, flops=(flops, grad_flops), width=width
    )


publish(count_params, display, draw, tabulate)
