"""Calls of layers: a named scope for each layer in traces, and the note that names the layer that raises.

`Module.__init_subclass__` wraps the method `__call__` of each class of layers. Outside of traces the wrapper only calls
the method. In a trace it opens a `jax.named_scope` with the attribute that holds the layer, such as `layers[2]`, so
profiles and compiled programs show the layers. A repeated call of a compiled function runs neither.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from liftnn import errors
from liftnn._src.graph.attributes import attributes_of
from liftnn._src.modules.abstract import explain_abstract
from liftnn._src.modules.layer_notes import note_layer
from liftnn._src.tracebacks import explain_arguments, hide_frames, mark_boundary
from liftnn._src.variables import frames

F = TypeVar("F", bound=Callable[..., Any])


def is_layer(cls: type) -> bool:
    """Return whether a class of modules is one of layers: of liftnn's own, Rngs, metrics and optimizers are not."""
    name = cls.__module__
    return name.partition(".")[0] != "liftnn" or name.startswith("liftnn._src.nn.")


def wrap_call(function: F) -> F:
    """Wrap the method `__call__` of a class of modules; see the docstring of this file.

    Args:
      function: The method.

    Returns:
      The wrapped method, with the same name and signature.
    """

    @functools.wraps(function)
    def __call__(self: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: N807  # the name in tracebacks
        try:
            if frames.is_plain():
                return function(self, *args, **kwargs)
            with _scope(self):
                return function(self, *args, **kwargs)
        except Exception as error:
            if isinstance(error, frames.RetryNeeded):
                raise
            try:
                explain_arguments(error, function)
                explain_abstract(error, self)
            except (errors.ArgumentTypeError, errors.TraceContextError) as explained:
                note_layer(explained, self, sys._getframe(1))
                hide_frames(explained)
                raise
            note_layer(error, self, sys._getframe(1))
            hide_frames(error)
            raise

    return mark_boundary(__call__)  # pyright: ignore[reportReturnType]  # the same signature


class _Running(threading.local):
    """The layers that are being called in a trace, outermost first, in each thread."""

    def __init__(self) -> None:
        self.modules: list[Any] = []


_running = _Running()


class _scope:  # noqa: N801  # used like a function
    """A context manager that opens the named scope of a layer.

    Args:
      module: The layer.
    """

    __slots__ = ("_module", "_named")

    def __init__(self, module: Any):
        self._module = module
        above = _running.modules
        if above and above[-1] is module:  # `super().__call__`
            self._named = None
        else:
            self._named = jax.named_scope(_name_in(above[-1], module) if above else type(module).__name__)

    def __enter__(self) -> None:
        _running.modules.append(self._module)
        if self._named is not None:
            self._named.__enter__()

    def __exit__(self, *raised: Any) -> None:
        if self._named is not None:
            self._named.__exit__(*raised)
        _running.modules.pop()


def _name_in(holder: Any, module: Any) -> str:
    """Return the attribute of a module that holds another one, or an entry of an attribute; else the class name."""
    for name, x in attributes_of(holder).items():
        if x is module:
            return name
        cls = type(x)
        if cls is list or cls is tuple:
            for i, y in enumerate(x):
                if y is module:
                    return f"{name}[{i}]"
        elif cls is dict:
            for key, y in x.items():
                if y is module:
                    return f"{name}[{key!r}]"
    return type(module).__name__
