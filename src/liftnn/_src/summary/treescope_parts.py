"""Modules, Variables and States for treescope, which shows trees that can be folded, in notebooks and as text.

treescope itself marks objects that occur more than once, ends cycles, and sums up arrays with their shardings. It is
only loaded when it asks for these forms, or when a notebook shows an object.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from liftnn._src.graph.attributes import Attributed
from liftnn._src.graph.kinds import ARRAY_NODE, DICT, LIST, MODULE, TUPLE, VARIABLE
from liftnn._src.summary.module_text import sizes_text
from liftnn._src.summary.outline import OutlineEntry, outline, shallow
from liftnn._src.summary.settings import is_setting
from liftnn._src.summary.value_text import metadata_of, raw_value, sharding_text
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

Render = Callable[..., Any]


def treescope_form(x: Any, path: str | None, render: Render) -> Any:
    """Return what `__treescope_repr__` of a module, a Variable or a State returns.

    Args:
      x: The object.
      path: The Python expression that leads to it from the root; None if there is none.
      render: Called with a value and `path=`; returns its form.

    Returns:
      An object of treescope.
    """
    if _inside.depth >= _DEEPEST_OPENED:
        parts: Any = importlib.import_module("treescope.rendering_parts")
        return parts.text(f"{type(x).__name__}(...)")
    _inside.depth += 1
    try:
        return _form(x, path, render)
    finally:
        _inside.depth -= 1


class _Inside(threading.local):
    """The number of objects around the one that is rendered in this thread."""

    depth = 0


_inside = _Inside()
_DEEPEST_OPENED = 24
"""Objects nested deeper than this are not opened: treescope calls itself about 20 times for each."""


def _form(x: Any, path: str | None, render: Render) -> Any:
    if isinstance(x, State):
        library: Any = importlib.import_module("treescope.repr_lib")
        return library.render_dictionary_wrapper(type(x), dict(x), path, render)
    if isinstance(x, Variable):
        value = raw_value(x)
        sharding = sharding_text(value)
        comment = f"on {sharding}" if sharding else ""
        return _constructor(x, {"value": value, **metadata_of(x)}, path, render, comment)
    holder = shallow(x)
    shown = {str(entry.key): entry.value for entry in holder.below if _is_shown(entry, holder)}
    variables = (
        []
        if _inside.depth > 1
        else [e.value for e in outline(x).walk() if e.kind is VARIABLE and e.first is None]
    )
    return _constructor(x, shown, path, render, sizes_text(variables))


def _is_shown(entry: OutlineEntry, holder: OutlineEntry) -> bool:
    if entry.kind in (MODULE, VARIABLE, ARRAY_NODE) or is_setting(entry, holder):
        return True
    return entry.kind in (LIST, DICT, TUPLE) and outline(entry.value).state


def _constructor(
    x: Any, attributes: Mapping[str, Any], path: str | None, render: Render, comment: str
) -> Any:
    """Return the form `Class(name=value, ...)` of an object, with a comment in its first line."""
    parts: Any = importlib.import_module("treescope.rendering_parts")
    comma = parts.siblings(",", parts.fold_condition(collapsed=parts.text(" ")))
    last_comma = parts.fold_condition(expanded=parts.text(","))
    children = [
        parts.build_full_line_with_annotations(
            parts.siblings_with_annotations(
                f"{name}=", render(value, path=None if path is None else f"{path}.{name}")
            ),
            comma if number < len(attributes) else last_comma,
        )
        for number, (name, value) in enumerate(attributes.items(), 1)
    ]
    opening = (parts.roundtrip_condition(roundtrip=parts.text("<")), parts.text(type(x).__qualname__), "(")
    return parts.build_foldable_tree_node_from_children(
        prefix=parts.siblings(*opening),
        children=children,
        suffix=parts.siblings(")", parts.roundtrip_condition(roundtrip=parts.text(">"))),
        path=path,
        background_color=_color(type(x)),
        first_line_annotation=parts.comment_color(parts.text(f" # {comment}")) if comment else None,
    )


@functools.cache
def _color(cls: type) -> str | None:
    """Return the background of a class of modules; that of a class of Variables is none."""
    if not issubclass(cls, Attributed):
        return None
    formatting: Any = importlib.import_module("treescope.formatting_util")
    return str(formatting.color_from_string(cls.__qualname__))
