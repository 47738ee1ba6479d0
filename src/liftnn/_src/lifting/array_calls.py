"""Calls without modules: they are JAX's.

A transform of liftnn does for modules what one of JAX's does for arrays. Where neither the arguments of a call nor what
its functions capture has a module in it, there is nothing to add: JAX's transform is applied to the user's function
itself. So what JAX takes, refuses, says, keeps and compiles is the same.

Two things are known only when a function has run: that it returned a module, or something else that JAX cannot take,
and that it used a module that no search had found. Then the call is made again, in the way of modules. A call that JAX
refuses before the function has run is made in that way too: either it has a form that only liftnn knows, or liftnn says
by path what is wrong. A function whose code names classes of modules is called in that way at once, since it is likely
to make some.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from liftnn._src.captures.guards import Guards
from liftnn._src.captures.search import find_captured
from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.arguments import StaticArgument, functions_in
from liftnn._src.lifting.kept import WeakFunction, keep_with
from liftnn._src.trees import is_argument_array, is_jax_array
from liftnn._src.variables import frames

HAS_MODULES: Any = object()
"""What is returned for a call in which modules take part."""


_CANNOT_COMPARE = "checking equality of metadata fields of pytree"
"""What JAX says of the static part of a pytree of somebody's, of which liftnn needs no comparison."""


class ReturnsModulesError(Exception):
    """Raised when a function has returned something that is for liftnn, not for JAX."""


class ArrayFunction(WeakFunction):
    """Stands for a function of the user's where JAX calls it: sees to it that no module goes through.

    Args:
      function: The function.
      transform: What messages call the transform.
    """

    def __init__(self, function: Callable[..., Any], transform: str):
        super().__init__(function)
        self._transform = transform
        self.n_calls = 0
        """How often it has been called: if JAX keeps traces, how often it has been traced."""
        self.has_modules = False
        """Whether modules were seen to go through."""
        self.is_shared = True
        """Whether it stands for the function wherever that is wrapped, so that JAX keeps its traces."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function.

        Raises:
          Missing: If it used a module that it captures.
          ReturnsModulesError: If it returned something that JAX cannot take.
        """
        self.n_calls += 1
        with frames.open_frame(self._transform) as frame:
            out = super().__call__(*args, **kwargs)
        if frame.missing:
            raise frames.RetryWithCaptures(frame.missing, frame.missed_at)
        return self.check(out)

    def check(self, out: Any) -> Any:
        """What the function returned, if JAX can take it.

        Raises:
          ReturnsModulesError: If it cannot.
        """
        if not has_arrays_only(out):
            raise ReturnsModulesError
        return out


class TracedFunction(ArrayFunction):
    """What stands for a function under a transform that keeps traces: it is traced only in a call that foresees it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Traces the function.

        Raises:
          RetraceNeeded: If the call does not foresee it.
        """
        _, begin = frames.originals_for(self)
        if begin is None:
            raise frames.RetraceNeeded
        end = begin(args, kwargs)
        out = super().__call__(*args, **kwargs)
        end()
        return out


def stand_for(
    function: Callable[..., Any], transform: str, kind: type[ArrayFunction] = ArrayFunction
) -> ArrayFunction:
    """What stands for a function under a transform: always the same, if the function is known by its identity."""
    return keep_with(function, transform, lambda: kind(function, transform))


def has_arrays_only(tree: Any) -> bool:
    """Whether the leaves of a tree are arrays, or else what JAX takes in their place."""
    return all(map(_is_for_jax, jax.tree.leaves(tree, is_leaf=is_object)))


def _is_for_jax(x: Any) -> bool:
    if is_jax_array(x) or type(x) is StaticArgument:
        return True
    if hasattr(type(x), "__graph_node__"):
        return False
    if is_argument_array(x) or (hasattr(x, "shape") and hasattr(x, "dtype")):
        return True
    try:
        jax.typeof(x)
    except TypeError:
        return False
    return True


class ArrayCalls:
    """The calls without modules of transformed functions.

    Args:
      functions: The user's functions.
      transform: What messages call the transform.
      apply: JAX's transform, of as many functions.
      *captures: Other functions in which modules may be found.
      kind: What stands for the functions.
      is_shared: Whether others that transform the same functions share traces with it. The default is True.
    """

    def __init__(
        self,
        functions: Sequence[Any],
        transform: str,
        apply: Callable[..., Callable[..., Any]],
        *captures: Any,
        kind: type[ArrayFunction] = ArrayFunction,
        is_shared: bool = True,
    ):
        self._functions = (*functions, *captures)
        self._apply = apply
        self.inside = [stand_for(f, transform, kind) if is_shared else kind(f, transform) for f in functions]
        """What stands for the functions."""
        for function in self.inside:
            function.is_shared = is_shared
        self._transformed: Callable[..., Any] | None = None
        self._is_refused = False
        self._guards: Guards | None = None
        """Under which conditions the last search would find no module again."""

    @property
    def transformed(self) -> Callable[..., Any]:
        """The functions transformed by JAX."""
        if self._transformed is None:
            self._transformed = self._apply(*self.inside)
        return self._transformed

    def accept(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Guards | None:
        """Whether a call has no modules, as far as can be known before it is made.

        Args:
          args: The positional arguments, the static ones marked as such.
          kwargs: The keyword arguments, likewise.

        Returns:
          Under which conditions the next call has none either; None if there are some.
        """
        if self._is_refused or any(f.has_modules for f in self.inside):
            return None
        if not has_arrays_only((args, kwargs)):
            return None
        others = functions_in(args, kwargs)
        if self._guards is not None and not others and self._guards.hold():
            return self._guards
        found = find_captured((*self._functions, *others))
        if found.roots or found.names_classes:
            return None
        self._guards = None if others else found.guards
        return found.guards

    def run(self, act: Callable[[Callable[..., Any]], Any]) -> Any:
        """Does something with JAX's transform of the functions, such as to call it.

        Args:
          act: Called with the transformed functions.

        Returns:
          What it returns; `HAS_MODULES` if the call has to be made in the way of modules.
        """
        calls = [f.n_calls for f in self.inside]
        try:
            return act(self.transformed)
        except (ReturnsModulesError, frames.RetryWithCaptures):
            for function in self.inside:
                function.has_modules = True
            return HAS_MODULES
        except (TypeError, ValueError) as error:
            if [f.n_calls for f in self.inside] != calls and _CANNOT_COMPARE not in str(error):
                raise
            self._is_refused = self._transformed is None
            return HAS_MODULES

    def clear(self) -> None:
        """Forgets what JAX has compiled."""
        transformed: Any = self._transformed
        if transformed is not None:
            transformed.clear_cache()
        self._transformed = None

    def __call__(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        static: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> Any:
        """Makes a call.

        Args:
          args: The positional arguments.
          kwargs: The keyword arguments.
          static: The pair of them with the static ones marked as such. The default, None, means that there are none.

        Returns:
          What JAX's transform gives; `HAS_MODULES` if the call has to be made in the way of modules.
        """
        if self.accept(*(static or (args, kwargs))) is None:
            return HAS_MODULES
        return self.run(lambda transformed: transformed(*args, **kwargs))


def call_of_arrays(
    transform: str, functions: Sequence[Any], apply: Callable[..., Any], *operands: Any
) -> Any:
    """Makes a call of functions with operands, if there are no modules among them.

    Args:
      transform: What messages call the transform.
      functions: The user's functions.
      apply: JAX's transform, called with the functions and the operands.
      *operands: The operands.

    Returns:
      What JAX's transform gives; `HAS_MODULES` if the call has to be made in the way of modules.
    """
    if not all(map(callable, functions)) or any(map(is_object, functions)):
        return HAS_MODULES
    calls = ArrayCalls(functions, transform, lambda *inside: functools.partial(apply, *inside))
    return calls(operands, {})


def is_jit_disabled() -> bool:
    """Whether loops and branches run in plain Python, as under `jax.disable_jit`."""
    config: Any = jax.config  # JAX adds its options at run time
    return bool(config.jax_disable_jit)
