"""The errors for unknown names, absent attributes and unknown arguments; loaded when one is raised."""

from __future__ import annotations

import difflib
import inspect
import opcode
import re
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from liftnn import errors
from liftnn._src.annotations import signature_of
from liftnn._src.foreign_names.elsewhere import find_elsewhere
from liftnn._src.foreign_names.table import ForeignName, by_name, rows

_IMPORT_FROM = opcode.opmap["IMPORT_FROM"]
_MOST_PARAMETERS = 8
"""The maximum number of parameters to list."""
_RNGS = "Pass rngs=liftnn.Rngs(0), where 0 is the seed."
_MISFIT = re.compile(
    r"\(\) (got (an unexpected|multiple|some positional-only)|missing \d+ required|takes .* given)"
)
_KEYWORD = re.compile(r"unexpected keyword argument '(\w+)'")


def unknown_name(
    name: str, public: Iterable[str], frame: types.FrameType, module: str = "liftnn"
) -> Exception:
    """Return the error for a name that a module lacks.

    Args:
      name: The name.
      public: All public names.
      frame: The code that reads the name. In `from liftnn import name` Python replaces an AttributeError by an
        ImportError without its text, so that code gets an ImportError with the remedy.
      module: The module, `liftnn` or `liftnn.nn`.

    Returns:
      The error.
    """
    library, remedy = _answer(name, public)
    whose = f", which is a name from {library}" if library else ""
    is_import = frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == _IMPORT_FROM
    if remedy and is_import and f"{module}.{name}" not in sys.modules:
        return errors.NameImportError(f"cannot import name {name!r} from {module!r}{whose}.", remedy)
    return errors.AttributeNameError(
        f"module {module!r} has no attribute {name!r}{whose}.",
        remedy or "`dir(liftnn)` lists the public names.",
    )


def _answer(name: str, public: Iterable[str]) -> tuple[str, str]:
    """Return whose name it is, and what to write instead; empty texts if that is not known."""
    row = by_name().get(("liftnn", name))
    if row:
        return row.library, row.remedy
    if name in public:
        return "", f"Write `liftnn.{name}`."
    found = find_elsewhere(name)
    if found:
        library, place = found
        return library, f"Write `{place}`."
    similar = _most_similar(name, public)
    return "", f"The most similar public name is `liftnn.{similar}`." if similar else ""


def unknown_attribute(instance: Any, owner: type, name: str) -> AttributeError:
    """Return the error for a foreign name of an attribute of a module.

    Args:
      instance: The module; None if the attribute of its class was read.
      owner: The class.
      name: The name; `__call__` for a class with another method in its place.

    Returns:
      The error; Python's own if the table has no row for the class.
    """
    class_names = [cls.__name__ for cls in owner.__mro__ if cls.__module__.partition(".")[0] == "liftnn"]
    found = [by_name()[cls, name] for cls in class_names if (cls, name) in by_name()]
    if name == "__call__":
        method = next(n for n in ("forward", "call") if hasattr(owner, n))
        return errors.AttributeNameError(
            f"{owner.__name__!r} object is not callable: it has no `__call__`, and {method!r} is an ordinary method.",
            f"Rename the method `{method}` to `__call__`.",
        )
    what = f"type object {owner.__name__!r}" if instance is None else f"{owner.__name__!r} object"
    if not found:
        return AttributeError(
            f"{what} has no attribute {name!r}", name=name, obj=owner if instance is None else instance
        )
    return errors.AttributeNameError(
        f"{what} has no attribute {name!r}, which is a name from {found[0].library}.", found[0].remedy
    )


def remedy_for(where: str, name: str) -> str | None:
    """Return what to write in liftnn for an attribute.

    Args:
      where: The class in the table, such as `Variable`.
      name: The attribute.

    Returns:
      The remedy; None if the table does not have the attribute.
    """
    row = by_name().get((where, name))
    return row.remedy if row else None


def check_arguments(error: TypeError, function: Callable[..., Any]) -> None:
    """Raise a clear error in place of Python's for a call whose arguments do not fit the parameters.

    Args:
      error: Python's error.
      function: The function that was called. If it is not liftnn's, only foreign names are explained.

    Raises:
      ArgumentTypeError: If the text of the error is about arguments, and a remedy is known.
    """
    text = str(error).partition(". Did you mean")[0]  # Python 3.14 makes a suggestion of its own
    if not _MISFIT.search(text):
        return
    found = _KEYWORD.search(text)
    keyword = found[1] if found else ""
    parameters = [p.name for p in _parameters(function)]
    row = _find_argument(keyword, parameters, function.__name__)
    if row:
        our_name = "" if row.where in ("*", "tx") else f" for `{row.where}`"
        raise errors.ArgumentTypeError(
            f"{text}, which is a name from {row.library}{our_name}.", row.remedy
        ) from None
    if function.__module__.partition(".")[0] == "liftnn":
        raise errors.ArgumentTypeError(f"{text}.", _remedy_for(text, keyword, parameters, function)) from None


def _find_argument(keyword: str, parameters: list[str], function: str) -> ForeignName | None:
    """Return the row for the name of an argument; None if the table does not have it."""
    is_layer = function in ("__init__", "__call__")
    for row in rows():
        if keyword in row.names and (row.where in parameters or (row.where == "*" and is_layer)):
            return row
    return None


def _remedy_for(text: str, keyword: str, parameters: list[str], function: Callable[..., Any]) -> str:
    """Return what to write instead of a call of a function of liftnn that does not fit."""
    row = by_name().get(("call", function.__qualname__))
    if row:
        return row.remedy
    similar = _most_similar(keyword, parameters)
    if similar:
        return f"The most similar parameter is `{similar}`."
    if text.endswith("'rngs'"):
        return _RNGS
    listed = _listed(function)
    return f"The parameters are: {listed}." if listed else "Call it without arguments."


def _most_similar(name: str, names: Iterable[str]) -> str:
    """Return the most similar one of some names, in any case of the letters; an empty text if none is similar."""
    plain = {each.lower().replace("_", ""): each for each in names}
    found = difflib.get_close_matches(name.lower().replace("_", ""), plain, 1, 0.75)
    return plain[found[0]] if found else ""


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a function that a call can name, or fill: not `self`, and not `**_`."""
    found = signature_of(function).parameters.values()
    return [p for p in found if p.name != "self" and not (p.kind is p.VAR_KEYWORD and p.name.startswith("_"))]


def _listed(function: Callable[..., Any]) -> str:
    """Return the parameters of a function as in its signature, without types and defaults."""
    parts: list[str] = []
    for p in _parameters(function):
        if p.kind is p.KEYWORD_ONLY and "*" not in parts and not any(x.startswith("*") for x in parts):
            parts.append("*")
        stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        parts.append(stars + p.name)
    more = [f"and {len(parts) - _MOST_PARAMETERS} more"] if len(parts) > _MOST_PARAMETERS else []
    return ", ".join([*parts[:_MOST_PARAMETERS], *more])
