"""Objects in notebooks: treescope if it is installed, else the table of a module, or the text."""

from __future__ import annotations

import html
import importlib
import importlib.util
import sys
from typing import Any

from liftnn._src.graph.attributes import Attributed
from liftnn._src.summary.tabulate import make_table


def mime_bundle(x: Any) -> dict[str, str]:
    """Return the forms of a module, a Variable or a State by MIME type, for Jupyter and its like.

    Args:
      x: The object.

    Returns:
      The text, and HTML unless IPython runs in a terminal.
    """
    bundle = {"text/plain": repr(x)}
    if _takes_html():
        bundle["text/html"] = html_of(x)
    return bundle


def _takes_html() -> bool:
    """Return whether the running IPython shows HTML, or none is running."""
    shell = _shell()
    return shell is None or "text/html" in shell.display_formatter.active_types


def _shell() -> Any:
    """Return the running IPython; None if there is none."""
    library: Any = sys.modules.get("IPython")
    return None if library is None else library.get_ipython()


def html_of(x: Any) -> str:
    """Return a module, a Variable or a State as HTML, in the colours of the page around it."""
    try:
        if importlib.util.find_spec("treescope") is not None:
            treescope: Any = importlib.import_module("treescope")
            return str(treescope.render_to_html(x, ignore_exceptions=True))
        if isinstance(x, Attributed):
            return make_table(
                x, (), {}, method=None, depth=None, flops=(False, False), width=None
            )._repr_html_()
    except Exception:  # treescope is recursive, and a table needs a model that can be flattened
        pass
    return f'<pre style="color: inherit; background: none">{html.escape(repr(x))}</pre>'


def show(objects: tuple[Any, ...]) -> None:
    """Show values one after the other: in a notebook by its display, else as text; see `liftnn.display`."""
    if _shell() is not None:
        library: Any = importlib.import_module("IPython.display")
        library.display(*objects)
        return
    for x in objects:
        sys.stdout.write(f"{x!r}\n")
