"""The text form of a module: its static attributes, arrays by shape, and submodules, nested."""

from __future__ import annotations

from typing import Any

from liftnn._src.graph.attributes import flatten_attributes
from liftnn._src.graph.kinds import is_object
from liftnn._src.printing import MAX_DEPTH, array_summary, block, call, value_repr
from liftnn._src.trees import is_array
from liftnn._src.variables.variable import Variable


def render_module(x: Any, above: list[Any]) -> str:
    """Format an object with its static attributes and submodules; abbreviate one that encloses itself."""
    name = type(x).__name__
    if len(above) > MAX_DEPTH or any(x is a for a in above):
        return f"{name}(...)"
    _, names, children = flatten_attributes(x)
    entries: list[tuple[str, str]] = []
    for key, child in zip(names, children, strict=True):
        if not isinstance(child, Variable) and not str(key).startswith("_"):
            entries.append((str(key), _render(child, [*above, x])))
    return call(name, entries)


def _render(x: Any, above: list[Any]) -> str:
    """Format an attribute: modules nested, arrays by shape, containers of modules with one entry per line."""
    if is_array(x):
        return array_summary(x)
    if isinstance(x, Variable):
        return f"{type(x).__name__}(...)"
    if is_object(x):
        return render_module(x, above)
    if isinstance(x, (list, tuple, dict)) and _holds_objects(x):
        if len(above) > MAX_DEPTH or any(x is a for a in above):
            return "[...]"
        items = x.items() if isinstance(x, dict) else enumerate(x)
        texts = [(key, _render(child, [*above, x])) for key, child in items]
        if isinstance(x, dict):
            return block("{", [f"{key!r}: {text}" for key, text in texts], "}")
        brackets = "[]" if isinstance(x, list) else "()"
        return block(brackets[0], [text for _, text in texts], brackets[1])
    return value_repr(x)


def _holds_objects(x: Any) -> bool:
    """Return whether a container holds an object, an array or another container."""
    children = x.values() if isinstance(x, dict) else x
    return any(is_object(c) or is_array(c) or isinstance(c, (list, tuple, dict)) for c in children)
