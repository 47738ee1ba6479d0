"""Calls without modules, which are passed on to JAX.

If a call neither takes nor captures a module, liftnn has nothing to add: it applies JAX's transform to the user's
function. So inputs, errors, caches and compiled code are the same as with JAX alone.

Two facts are known only after the function has run: that it returned a module (or another object that JAX does not
accept), and that it used a captured module that the search had missed. Then the call is repeated as a call with
modules. The same happens if JAX rejects the call before it runs the function: either only liftnn accepts this form of
call, or liftnn raises an error that names the path. If the code of a function names a class of modules, the function is
likely to create one, so it is called with modules from the start.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.captures.guards import Guards
from liftnn._src.captures.search import captures_nothing, find_captured
from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.arguments import StaticArgument, functions_in
from liftnn._src.lifting.callables import call_in_frame
from liftnn._src.lifting.kept import WeakCache, WeakFunction
from liftnn._src.lifting.offers import find_offer
from liftnn._src.lifting.rejections import after_rejection, make_also
from liftnn._src.trees import is_argument_array, is_jax_array
from liftnn._src.type_variables import R
from liftnn._src.variables import frames

Otherwise = Callable[[], Any]
"""Makes a call with modules."""

_CANNOT_COMPARE = "checking equality of metadata fields of pytree"
"""Part of JAX's error for pytree metadata that cannot be compared; liftnn does not need to compare it."""


class ReturnsModulesError(frames.RetryNeeded):
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
        self.is_offered = False
        """Whether calls make an offer for this object."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function.

        Raises:
          RetryWithCaptures: If it used a captured module.
          ReturnsModulesError: If it returned an object that JAX does not accept.
        """
        self.n_calls += 1
        offer = find_offer(self) if self.is_offered else None
        if offer is None:
            return self._call(args, kwargs)
        with offer.tracing(args, kwargs):
            return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with frames.push_frame(self._transform) as frame:
            out = call_in_frame(frame, super().__call__, args, kwargs)
        if frame.missing:
            self.has_modules = True
            raise frames.RetryWithCaptures(frame.missing, frame.missed_at)
        return self.check(out)

    def check(self, out: Any) -> Any:
        """Return the output if JAX accepts it.

        Raises:
          ReturnsModulesError: If JAX does not accept it.
        """
        if not (is_jax_array(out) or has_arrays_only(out)):
            self.has_modules = True
            raise ReturnsModulesError
        return out


_stand_ins = WeakCache()


def stand_for(function: Callable[..., Any], transform: str) -> ArrayFunction:
    """Return the wrapper of a function for a transform; always the same object for the same function."""
    return _stand_ins.get(function, transform, lambda: ArrayFunction(function, transform))


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
      is_shared: Whether other transforms of the same functions share traces with this one. The default is True.
      rules: The wrappers of other functions that JAX's transform may run.
    """

    def __init__(
        self,
        functions: Sequence[Any],
        transform: str,
        apply: Callable[..., Callable[..., Any]],
        *captures: Any,
        is_shared: bool = True,
        rules: Sequence[ArrayFunction] = (),
    ):
        self._own = functions
        self._functions = (*functions, *captures)
        self._transform = transform
        self._apply = apply
        self._rules = rules
        self.inside = [stand_for(f, transform) for f in functions] if is_shared else self._unshared_wrappers()
        """The wrappers of the functions."""
        self._transformed: Callable[..., Any] | None = None
        self._is_rejected = False
        self._guards: Guards | None = None
        """While they hold, another search finds no modules."""

    def _unshared_wrappers(self) -> list[ArrayFunction]:
        """Return wrappers of the functions that share no traces with others."""
        wrappers = [ArrayFunction(f, self._transform) for f in self._own]
        for wrapper in wrappers:
            wrapper.is_shared = False
        return wrappers

    @property
    def transformed(self) -> Callable[..., Any]:
        """The functions, transformed by JAX."""
        if self._transformed is None:
            self._transformed = self._apply(*self.inside)
        return self._transformed

    def accept(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether a call has no modules, as far as this is known before the call.

        Args:
          args: The positional arguments; static ones are wrapped in `StaticArgument`.
          kwargs: The keyword arguments, likewise.
        """
        if not self._takes_arrays(args, kwargs):
            return False
        others = functions_in(args, kwargs)
        if self._guards is None and all(map(captures_nothing, (*self._functions, *others))):
            return True
        return self._search(others) is not None

    def guards(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Guards | None:
        """Return the guards of a call: while they hold, the next call captures no modules either.

        Args:
          args: The positional arguments; static ones are wrapped in `StaticArgument`.
          kwargs: The keyword arguments, likewise.

        Returns:
          The guards; None if the call has modules.
        """
        return self._search(functions_in(args, kwargs)) if self._takes_arrays(args, kwargs) else None

    def _search(self, others: Sequence[Any]) -> Guards | None:
        """Return the guards of a call with other functions among its arguments; None if a function captures modules."""
        if self._guards is not None and not others and self._guards.hold():
            return self._guards
        found = find_captured((*self._functions, *others))
        if found.roots or found.names_classes:
            return None
        self._guards = None if others else found.guards
        return found.guards

    def _takes_arrays(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether a call may be without modules, from its arguments and from earlier calls."""
        if self._is_rejected or any(f.has_modules for f in self.inside):
            return False
        return (not kwargs and all(map(is_jax_array, args))) or has_arrays_only((args, kwargs))

    def run(self, act: Callable[[Callable[..., Any]], Any], otherwise: Otherwise) -> Any:
        """Use JAX's transform of the functions, for example call it.

        Args:
          act: Called with the transformed functions.
          otherwise: Makes the call with modules, if JAX cannot make it.

        Returns:
          The result of `act` or of `otherwise`.
        """
        before = self._count(self.inside)
        try:
            return act(self.transformed)
        except frames.RetryNeeded:
            for function in self.inside:
                function.has_modules = True
        except errors.LiftError:
            raise
        except (TypeError, ValueError) as error:
            cannot_compare = _CANNOT_COMPARE in str(error)
            if not cannot_compare and (self._count(self.inside) != before or self._runs(act)):
                raise
            self._is_rejected = self._transformed is None
            if not cannot_compare:
                return after_rejection(error, otherwise)
        return otherwise()

    def _count(self, wrappers: Sequence[ArrayFunction]) -> list[int]:
        return [f.n_calls for f in (*wrappers, *self._rules)]

    def _runs(self, act: Callable[[Callable[..., Any]], Any]) -> bool:
        """Return whether JAX runs the functions if it knows no traces of them; its error may come from a known one."""
        wrappers = self._unshared_wrappers()
        before = self._count(wrappers)
        with contextlib.suppress(Exception):
            act(self._apply(*wrappers))
        return self._count(wrappers) != before

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
        otherwise: Otherwise,
        static: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> Any:
        """Call JAX's transform of the functions.

        Args:
          args: The positional arguments.
          kwargs: The keyword arguments.
          otherwise: Makes the call with modules, if it has any or if JAX cannot make it.
          static: The same `(args, kwargs)` with static ones wrapped in `StaticArgument`. The default, None, means that
            there are none.

        Returns:
          The output of the call.
        """
        arguments = static or (args, kwargs)
        if self.accept(*arguments):
            return self.run(lambda transformed: transformed(*args, **kwargs), otherwise)
        try:
            return otherwise()
        except errors.LiftError as error:
            has_modules = any(map(is_object, jax.tree.leaves(arguments, is_leaf=is_object)))
            if not has_modules and not has_arrays_only(arguments):
                make_also(error, TypeError)  # JAX's error for a string, for example
            raise


def call_of_arrays(
    transform: str,
    functions: Sequence[Any],
    apply: Callable[..., Any],
    operands: Sequence[Any],
    otherwise: Otherwise,
) -> Any:
    """Call a JAX transform with functions and operands, if they have no modules.

    Args:
      transform: The name of the transform in messages.
      functions: The user's functions.
      apply: JAX's transform, called with the functions and the operands.
      operands: The operands.
      otherwise: Makes the call with modules, if it has any or if JAX cannot make it.

    Returns:
      The output of the call.
    """
    if not all(map(callable, functions)) or any(map(is_object, functions)):
        return otherwise()
    calls = ArrayCalls(functions, transform, lambda *inside: functools.partial(apply, *inside))
    return calls(tuple(operands), {}, otherwise)


def is_jit_disabled() -> bool:
    """Return whether loops and branches run in plain Python, as under `jax.disable_jit`."""
    config: Any = jax.config  # JAX adds its options at run time
    return bool(config.jax_disable_jit)


def as_concrete(kind: Callable[[Any], R], x: Any) -> R | None:
    """Return a number as a Python number of this kind; None if it is traced and has no value yet.

    So under `jax.disable_jit` a loop or branch that is mapped or traced is a primitive, as in JAX.
    """
    try:
        return kind(x)
    except jax.errors.ConcretizationTypeError:
        return None
