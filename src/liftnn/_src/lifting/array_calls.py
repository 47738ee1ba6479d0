"""Calls without modules, which are passed on to JAX.

If a call neither takes nor captures a module, liftnn has nothing to add: it applies JAX's transform to the user's
function. So inputs, errors, caches and compiled code are the same as with JAX alone.

Two facts are known only after the function has run: that it returned a module (or another object that JAX does not
accept), and that it used a captured module that the search had missed. Then the call is repeated as a call with
modules. The same happens if JAX raises before the function has run: either only liftnn accepts this form of call, or
liftnn raises an error that names the path. If the code of a function names a class of modules, the function is likely
to create one, so it is called with modules from the start.
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
"""Returned in place of an output if a call has modules, so it cannot be passed on to JAX."""


_CANNOT_COMPARE = "checking equality of metadata fields of pytree"
"""Part of JAX's error for pytree metadata that cannot be compared; liftnn does not need to compare it."""


class ReturnsModulesError(Exception):
    """Raised when a function has returned a module, or another object that JAX does not accept."""


class ArrayFunction(WeakFunction):
    """The user's function as JAX calls it: a wrapper that raises if the function uses or returns a module.

    Args:
      function: The function.
      transform: The name of the transform in messages.
    """

    def __init__(self, function: Callable[..., Any], transform: str):
        super().__init__(function)
        self._transform = transform
        self.n_calls = 0
        """The number of calls; under a transform that caches traces, the number of traces."""
        self.has_modules = False
        """Whether a call has used or returned a module."""
        self.is_shared = True
        """Whether all wrappers of the function share this object, and with it JAX's traces."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function.

        Raises:
          RetryWithCaptures: If it used a captured module.
          ReturnsModulesError: If it returned an object that JAX does not accept.
        """
        self.n_calls += 1
        with frames.open_frame(self._transform) as frame:
            out = super().__call__(*args, **kwargs)
        if frame.missing:
            raise frames.RetryWithCaptures(frame.missing, frame.missed_at)
        return self.check(out)

    def check(self, out: Any) -> Any:
        """Return the output if JAX accepts it.

        Raises:
          ReturnsModulesError: If JAX does not accept it.
        """
        if not has_arrays_only(out):
            raise ReturnsModulesError
        return out


class TracedFunction(ArrayFunction):
    """The user's function under `jit`, which caches traces: it may be traced only in a call that expects a trace."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Trace the function.

        Raises:
          RetraceNeeded: If the call does not expect a trace.
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
    """Return the wrapper of a function for a transform; always the same object for a plain function."""
    return keep_with(function, transform, lambda: kind(function, transform))


def has_arrays_only(tree: Any) -> bool:
    """Return whether all leaves of a tree are arrays, or objects that JAX accepts like arrays."""
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
      transform: The name of the transform in messages.
      apply: JAX's transform of these functions.
      *captures: Other functions that may capture modules.
      kind: The class of the wrappers.
      is_shared: Whether other transforms of the same functions share traces with this one. The default is True.
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
        """The wrappers of the functions."""
        for function in self.inside:
            function.is_shared = is_shared
        self._transformed: Callable[..., Any] | None = None
        self._is_refused = False
        self._guards: Guards | None = None
        """While they hold, another search finds no modules."""

    @property
    def transformed(self) -> Callable[..., Any]:
        """The functions, transformed by JAX."""
        if self._transformed is None:
            self._transformed = self._apply(*self.inside)
        return self._transformed

    def accept(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Guards | None:
        """Check whether a call has no modules, as far as this is known before the call.

        Args:
          args: The positional arguments; static ones are wrapped in `StaticArgument`.
          kwargs: The keyword arguments, likewise.

        Returns:
          The guards: while they hold, the next call captures no modules either. None if the call has modules.
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
        """Use JAX's transform of the functions, for example call it.

        Args:
          act: Called with the transformed functions.

        Returns:
          The result of `act`; `HAS_MODULES` if the call must be made with modules.
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
        """Forget the programs that JAX has compiled."""
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
        """Call JAX's transform of the functions.

        Args:
          args: The positional arguments.
          kwargs: The keyword arguments.
          static: The same `(args, kwargs)` with static ones wrapped in `StaticArgument`. The default, None, means that
            there are none.

        Returns:
          The output of JAX's transform; `HAS_MODULES` if the call must be made with modules.
        """
        if self.accept(*(static or (args, kwargs))) is None:
            return HAS_MODULES
        return self.run(lambda transformed: transformed(*args, **kwargs))


def call_of_arrays(
    transform: str, functions: Sequence[Any], apply: Callable[..., Any], *operands: Any
) -> Any:
    """Call a JAX transform with functions and operands, if they have no modules.

    Args:
      transform: The name of the transform in messages.
      functions: The user's functions.
      apply: JAX's transform, called with the functions and the operands.
      *operands: The operands.

    Returns:
      The output of JAX's transform; `HAS_MODULES` if the call must be made with modules.
    """
    if not all(map(callable, functions)) or any(map(is_object, functions)):
        return HAS_MODULES
    calls = ArrayCalls(functions, transform, lambda *inside: functools.partial(apply, *inside))
    return calls(operands, {})


def is_jit_disabled() -> bool:
    """Return whether loops and branches run in plain Python, as under `jax.disable_jit`."""
    config: Any = jax.config  # JAX adds its options at run time
    return bool(config.jax_disable_jit)
