"""Calls of layers: a named scope for each layer in traces, and the note that names the layer that raises.

`Module.__init_subclass__` wraps the method `__call__` of each class of layers. Outside of traces the wrapper only calls
the method. In a trace it opens a `jax.named_scope` with the attribute that holds the layer, such as `layers[2]`, so
profiles and compiled programs show the layers. Where a transform decorates `__call__`, `lift` opens the scope around
it. A repeated call of a compiled function runs neither.
"""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from liftnn._src.graph.attributes import attributes_of
from liftnn._src.modules.abstract import explain_abstract
from liftnn._src.modules.layer_notes import note_layer, originals_of
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
    frames.prepare()
    return _wrap(function, in_traces_only=True)


def _wrap(function: F, *, in_traces_only: bool) -> F:
    """Wrap a function of a layer; `in_traces_only` says that the wrapper only calls it outside of traces."""
    # Names of its own for what it uses, since it has the globals of the user's file.
    run, finish, exception = _run_layer, _finish, Exception

    def __call__(self: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: N807  # the name in tracebacks
        try:
            return run(function, in_traces_only, self, args, kwargs)
        except exception as error:
            finish(error, self)
            raise

    # IPython's autoreload stores new code in the function that it finds in the class, which is this one.
    names = getattr(function, "__globals__", __call__.__globals__)
    wrapper = types.FunctionType(__call__.__code__, names, closure=__call__.__closure__)
    return mark_boundary(functools.wraps(function)(wrapper))  # pyright: ignore[reportReturnType]


def _run_layer(
    function: Callable[..., Any],
    in_traces_only: bool,
    layer: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call the method of a layer, in a trace in the scope of the layer."""
    try:
        if (in_traces_only and frames.is_plain()) or not hasattr(type(layer), "__graph_node__"):
            return function(layer, *args, **kwargs)  # no trace, or another class borrows the method
        frames.note_call(layer)
        layers = _running_layers.layers
        if not layers:
            name = type(layer).__name__
        elif layers[-1].module is layer:  # `super().__call__`
            return function(layer, *args, **kwargs)
        else:
            name = layers[-1].name_of(layer)
        layers.append(_Layer(layer))
        try:
            with jax.named_scope(name):
                return function(layer, *args, **kwargs)
        finally:
            layers.pop()
    except Exception as error:
        if not isinstance(error, frames.RetryNeeded):
            explain_arguments(error, function)
            explain_abstract(error, layer)
        raise


def _finish(error: Exception, layer: Any) -> None:
    """Note the layer that has raised an error, and hide liftnn's frames in it; the wrapper raises it again."""
    if not isinstance(error, frames.RetryNeeded):
        note_layer(error, layer, sys._getframe(2))
        hide_frames(error)


def _call_for(module: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function for a layer."""
    return function(*args)


call_in_scope = _wrap(_call_for, in_traces_only=False)
"""Called with a layer, a function and its arguments: the call of a transform that decorates `__call__` of the layer."""


class _RunningLayers(threading.local):
    """The layers that are being called in a trace, outermost first, in each thread."""

    def __init__(self) -> None:
        self.layers: list[_Layer] = []

    def __reduce__(self) -> str:
        return "_running_layers"  # cloudpickle takes the wrapper of a user's class along, with its globals


_running_layers = _RunningLayers()


class _Layer:
    """A layer that is being called in a trace.

    Args:
      module: The layer.
    """

    __slots__ = ("_entries", "module")

    def __init__(self, module: Any):
        self.module = module
        self._entries: dict[int, tuple[Any, ...]] = {}
        """The modules that the layer holds by id, as `_modules_of` yields them; filled at the first call of one."""

    def name_of(self, module: Any) -> str:
        """Return the attribute that holds a module, or an entry of an attribute; else the class name."""
        found = self._entries.get(id(module))
        if (
            found is None
        ):  # the first one, one that the layer has got since, or the copy of an inner transform
            self._entries = {id(x[0]): x for x in reversed([*_modules_of(self.module)])}
            entries = (self._entries.get(id(x)) for x in originals_of(module))
            found = next(filter(None, entries), (module, type(module).__name__))
        _, name, *key = found
        return f"{name}[{key[0]!r}]" if key else name


def _modules_of(holder: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the modules and Variables of a module, each with the attribute that holds it, and the key if it has one."""
    for name, x in attributes_of(holder).items():
        cls = type(x)
        if cls is list or cls is tuple or cls is dict:
            entries = x.items() if cls is dict else enumerate(x)
            yield from ((y, name, key) for key, y in entries if hasattr(type(y), "__graph_node__"))
        elif hasattr(cls, "__graph_node__"):
            yield x, name
