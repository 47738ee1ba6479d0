"""The attribute path of an object that is being created, from the running `__init__` methods, for error messages."""

from __future__ import annotations

import ast
import linecache
import sys
import types
from typing import Any


def path_of_creation() -> str:
    """Return the path to which the running `__init__` methods of modules assign what they are creating.

    It is read from the statement that each of them executes, such as `self.kernel = ...`. It starts at the outermost
    module for which that is known, and is empty if nothing is.
    """
    parts: list[str] = []
    frame: types.FrameType | None = sys._getframe(1)
    below: Any = None
    while frame is not None:
        owner = _module_of(frame)
        if owner is not None and owner is not below:  # not the `__init__` of a subclass
            name = _assigned_name(frame)
            if name is None:
                break
            parts.append(name)
            below = owner
        frame = frame.f_back
    return ".".join(reversed(parts))


def _module_of(frame: types.FrameType) -> Any:
    """Return the module that a frame initializes; None if it does something else."""
    code = frame.f_code
    if code.co_name != "__init__" or not code.co_varnames:
        return None
    owner = frame.f_locals.get(code.co_varnames[0])
    is_module = getattr(type(owner), "__graph_node__", False) and not hasattr(type(owner), "raw_value")
    return owner if is_module else None


def _assigned_name(frame: types.FrameType) -> str | None:
    """Return the attribute to which the running statement of a frame assigns; None if there is none."""
    code = frame.f_code
    line = frame.f_lineno
    source = "".join(linecache.getlines(code.co_filename, frame.f_globals))
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    statements = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    if not statements:
        return None
    statement = max(statements, key=lambda node: node.lineno)
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    if not isinstance(target, ast.Attribute) or not isinstance(target.value, ast.Name):
        return None
    if target.value.id != code.co_varnames[0]:
        return None
    return f"{target.attr}[...]" if isinstance(statement.value, _CONTAINER_SYNTAX) else target.attr


_CONTAINER_SYNTAX = (ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp)
