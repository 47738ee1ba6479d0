"""Names of a transformed function: name, docstring and attributes are those of JAX's transform of the function.

JAX formats them differently for each transform: `jax.grad(f).__doc__` says which arguments are differentiated. So
liftnn applies JAX's transform to the user's function, without calling it, the first time that a name is read.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from liftnn._src.annotations import annotations_of
from liftnn._src.graph.kinds import is_object
from liftnn._src.trees import an

UNNAMED = "<unnamed function>"
"""JAX's name for a callable without a name."""

_LATE = ("__name__", "__qualname__", "__signature__")
"""The attributes that are looked up the first time that they are read."""


class Named:
    """Base class of transformed functions with the names that JAX gives to the same transform of the function.

    A subclass calls `take_names`. Then its instances have `__wrapped__`, and read the other names from JAX.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__doc__ = _Documentation(cls.__doc__)  # pyright: ignore[reportAttributeAccessIssue]  # a str on the class

    def _transform_by_jax(self, function: Any) -> Any:
        """Apply JAX's transform, which gives the names. The default is one that keeps the function's own names."""
        return jax.checkpoint(function)

    @functools.cached_property
    def _names(self) -> dict[str, Any]:
        """The names that JAX gives to its transform of the function."""
        return names_of(vars(self).get("__wrapped__"), self._transform_by_jax)

    if not TYPE_CHECKING:  # other attributes are unknown to a type checker

        def __getattr__(self, name: str) -> Any:
            if name in _LATE and name in self._names:
                return self._names[name]
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            )


class _Documentation:
    """The `__doc__` of a class of transformed functions: the class's own on the class, JAX's on an instance.

    Args:
      of_class: The docstring of the class.
    """

    def __init__(self, of_class: str | None):
        self._of_class = of_class

    def __get__(self, instance: Named | None, owner: type | None = None) -> str | None:
        return self._of_class if instance is None else instance._names.get("__doc__")


def names_of(function: Any, transform: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the names that JAX gives to a transformed function.

    Args:
      function: The user's function. A module, which JAX does not transform, has no names but its docstring.
      transform: JAX's transform. If it does not wrap the function, or not with these options, the function's own names
        are returned.

    Returns:
      The values of those of `__name__`, `__qualname__`, `__doc__` and `__signature__` that there are.
    """
    if is_object(function):
        return {"__doc__": function.__doc__}
    named: Any = None
    with contextlib.suppress(Exception):  # options that only liftnn accepts
        named = transform(function)
    if inspect.unwrap(named) is not inspect.unwrap(function):
        named = jax.checkpoint(function)
    return {name: getattr(named, name) for name in (*_LATE, "__doc__") if hasattr(named, name)}


def take_names(lifted: Named, function: Callable[..., Any]) -> None:
    """Give a transformed function the names and attributes of the user's function, as JAX does.

    Args:
      lifted: The transformed function.
      function: The user's function.
    """
    namespace = vars(lifted)
    attributes = {} if is_object(function) else getattr(function, "__dict__", {})
    if isinstance(function, Named):
        attributes = attributes["_attributes"]
    taken = {name: x for name, x in attributes.items() if name not in namespace and not name.startswith("__")}
    namespace.update(taken, _attributes=taken)
    namespace["__wrapped__"] = function
    namespace["__module__"] = getattr(function, "__module__", "<unknown module>")
    namespace["__annotations__"] = annotations_of(function)


def innermost(function: Any) -> Any:
    """Return the function in a partial, as JAX names it; any other function itself."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def name_of(lifted: Named) -> str:
    """Return the name of a transformed function; its class if a user-defined `repr` raises."""
    name, wrapped = getattr(lifted, "__qualname__", UNNAMED), vars(lifted)["__wrapped__"]
    try:
        return repr(wrapped) if name == UNNAMED else str(name)
    except Exception:
        return f"{an(type(wrapped))}"
