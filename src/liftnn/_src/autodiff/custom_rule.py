"""Shared parts of `custom_vjp` and `custom_jvp`.

JAX's transform is applied to the whole pure function, so the updates of modules are among its outputs. The function and
its rule must therefore make the same updates; `rule_signature.py` checks it. Calls without modules use JAX's transform
on the user's function directly; `LateRule` and its subclasses wrap the rules of these calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.annotations import signature_of
from liftnn._src.autodiff.residuals import Residuals, keep, merge_residuals
from liftnn._src.autodiff.tangents import describe, with_zeros
from liftnn._src.captures.search import find_captured
from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.arguments import mark_static
from liftnn._src.lifting.array_calls import ArrayCalls, ArrayFunction, has_arrays_only
from liftnn._src.lifting.callables import as_method, count_uncounted
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.lifting.offers import Offer, offer_for, publish
from liftnn._src.lifting.purify import purify
from liftnn._src.lifting.signature import Selected, select
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.tracebacks import at_line
from liftnn._src.trees import an, format_path
from liftnn._src.type_variables import P, R
from liftnn._src.variables import frames


class CustomRule(Lifted[P, R]):
    """Base class of functions with a custom differentiation rule.

    Args:
      f: The user's function.
      name: The name of the transform, for messages.
      nondiff_argnums: Positions of arguments that are not differentiated.
      nondiff_argnames: Names of arguments that are not differentiated.
    """

    fun: Callable[..., Any]
    """The user's function, as an attribute of JAX's objects."""
    nondiff_argnums: tuple[int, ...]
    """Positions of arguments that are not differentiated, as an attribute of JAX's objects."""

    def __init__(
        self,
        f: Callable[..., Any],
        name: str,
        nondiff_argnums: int | Sequence[int],
        nondiff_argnames: str | Iterable[str],
    ):
        # JAX does not pass the dataclass of a method to the rules.
        called = as_method(f) if count_uncounted(f) else f
        super().__init__((called,), type(self)._bind_call, LiftOptions(name, needs_values=True))
        by_name = select(self._functions[0], None, nondiff_argnames, "nondiff")
        by_number = select(self._functions[0], nondiff_argnums, None, "nondiff")
        self._nondiff = Selected(
            tuple(dict.fromkeys((*by_number.nums, *by_name.nums))), (*by_number.names, *by_name.names)
        )
        self.fun = f
        self.nondiff_argnums = tuple(sorted(self._nondiff.nums))

    if not TYPE_CHECKING:  # type checkers use the declared names only

        def __getattr__(self, name: str) -> Any:
            """Forward the methods that define further rules to the function, as JAX does."""
            if name.startswith("def"):
                return getattr(self.fun, name)
            return super().__getattr__(name)

    def _transform_by_jax(self, function: Any) -> Any:
        """Apply JAX's transform, which gives the names; `jax.custom_vjp` gives the same."""
        return jax.custom_jvp(function)

    def _arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return all arguments by position, with the non-array leaves of nondiff arguments marked as static."""
        args = self._by_position(args, kwargs)
        nondiff = self._nondiff.positions(len(args))
        return tuple([mark_static(x) if i in nondiff else x for i, x in enumerate(args)]), {}

    def _by_position(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return all arguments by position, as JAX does."""
        if self._stored is None:
            try:
                bound = signature_of(self._functions[0]).bind(*args, **kwargs)
            except ValueError:  # a builtin has no signature
                pass
            else:
                bound.apply_defaults()
                args, kwargs = bound.args, {k: x for k, x in bound.kwargs.items() if k in kwargs}
        if kwargs:
            raise errors.ArgumentTypeError(
                f"liftnn.{self._options.name} passes all arguments to its rules by position, but "
                f"{', '.join(map(repr, kwargs))} can only be passed by keyword.",
                "Make it a positional parameter of the function.",
            )
        return args

    def _take_rules(
        self, apply: Callable[..., Any], *rules: tuple[Callable[..., Any], type[LateRule]]
    ) -> None:
        """Set the rules for calls without modules.

        Args:
          apply: JAX's transform, called as `apply(f, nondiff_argnums, *rules)`.
          *rules: Each rule, with the subclass of `LateRule` that wraps it.
        """
        self._bound.clear()
        nums = self._nondiff.nums
        apply(self._functions[0], nums, *[rule for rule, _ in rules])  # JAX checks the options
        self._array_calls = None
        if self._leading or self._stored is not None or not all(rule for rule, _ in rules):
            return
        self._running = object()
        alive = (*self._functions, *[rule for rule, _ in rules])
        late = [kind(rule, self._options.name, self._running, alive) for rule, kind in rules]
        self._array_calls = ArrayCalls(
            self._functions,
            self._options.name,
            lambda f: apply(f, nums, *late),
            *[rule for rule, _ in rules],
            rules=late,
        )

    def _note_rule(self, define: str, rules: Mapping[str, Any], **options: Any) -> None:
        """Keep how the rule was set, for a copy of what holds this function.

        Args:
          define: The method that sets the rule.
          rules: The functions of the rule by name.
          **options: The options of the method.
        """
        self._others = tuple(rules.values())
        if self.__recipe__ is not None:
            self.__recipe__ = self.__recipe__.with_rule(define, tuple(rules), **options)

    def _call_of_arrays(self, calls: ArrayCalls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with publish(Offer(self._running)):
            return super()._call_of_arrays(calls, args, kwargs)

    def _bind_to(self, plan: Plan, *pures: PureFunction) -> PureFunction:
        return self._bind(self, plan, *pures)

    def _bind_call(self, plan: Plan, pure: PureFunction) -> PureFunction:
        """Apply the rule; implemented by subclasses."""
        raise NotImplementedError

    def _purify_rule(self) -> PurifyRule:
        """Return the function that purifies rules."""
        stored = len(self._stored[0]) if self._stored is not None else 0
        return functools.partial(_purify_rule, self._options.name, stored)


PurifyRule = Callable[[Plan, Callable[..., Any], Callable[..., Any]], PureFunction]
"""Takes the arguments of a call, a function that runs a rule, and the user's rule."""


def _purify_rule(
    transform: str, stored: int, plan: Plan, rule: Callable[..., Any], function: Callable[..., Any]
) -> PureFunction:
    """Return the pure function of a rule, which takes the call's arguments without the `stored` ones of a partial."""
    pure = purify(lambda *args, **_: rule(*args[stored:]), plan, transform)

    def call(leaves: Sequence[Any]) -> Result:
        if offer_for(plan) is not None:  # the call is still running, so it can be retried with the captures
            return pure(leaves)
        return without_captures(pure, leaves, "The rule", function)

    return call


class LateRule(ArrayFunction):
    """A wrapper of a rule, which JAX may run after the function's call has finished.

    It keeps the functions alive, which may have been defined for one call, and be in no variable any more.

    Args:
      rule: The rule.
      transform: The name of the transform in messages.
      running: The mark that a call of the function publishes while it runs.
      alive: The function and its rules: with `optimize_remat`, JAX also runs the function later.
    """

    def __init__(
        self,
        rule: Callable[..., Any],
        transform: str,
        running: object,
        alive: tuple[Callable[..., Any], ...],
    ):
        super().__init__(rule, transform)
        self._running = running
        self._alive = alive

    def __call__(self, *args: Any) -> Any:
        """Call the rule."""
        try:
            return super().__call__(*args)
        except frames.RetryWithCaptures as missing:
            if offer_for(self._running) is not None:  # the call is running, so it can be retried
                raise
            raise late_error(missing, "The rule", self.function) from None

    def check(self, out: Any) -> Any:
        """Return the output; after the function's call has finished, JAX checks it."""
        return super().check(out) if offer_for(self._running) is not None else out


class ForwardRule(LateRule):
    """A rule that returns the output and residuals."""

    def check(self, out: Any) -> Any:
        """Return the pair, with residuals that contain modules flattened."""
        if not isinstance(out, (tuple, list)) or len(out) != 2:
            return out
        has_objects = any(map(is_object, jax.tree.leaves(out[1], is_leaf=is_object)))
        return super().check(out[0]), keep(((out[1],), {})) if has_objects else out[1]


class BackwardRule(LateRule):
    """A rule that returns cotangents."""

    def __call__(self, *args: Any) -> Any:
        """Call the rule with the unflattened residuals."""
        *nondiff, residuals, cotangent = args
        if isinstance(residuals, Residuals):
            residuals = merge_residuals(residuals)
        return super().__call__(*nondiff, residuals, cotangent)

    def check(self, out: Any) -> Any:
        """Return the cotangents; JAX checks them, since those of arrays are arrays."""
        return out


class TangentRule(LateRule):
    """A rule that returns the output and its tangent."""

    def check(self, out: Any) -> Any:
        """Return the pair, with zeros in place of None."""
        if not isinstance(out, (tuple, list)) or len(out) != 2:
            return out
        primal, tangent = super().check(out[0]), out[1]
        if has_arrays_only(primal):
            (tangent,) = with_zeros((tangent,), describe((primal,)))
        return primal, tangent


def _as_immutable(leaves: Sequence[Any]) -> list[Any]:
    """Convert numpy arrays to arrays of JAX, which cannot be changed in place.

    JAX passes a custom rule's function numpy arrays that may be copies, so a change in place would be lost.

    Args:
      leaves: The dynamic leaves.

    Returns:
      The leaves.
    """
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, list(leaves))


def without_derivatives(plan: Plan, leaves: Sequence[Any], name: str) -> list[Any]:
    """Make differentiation of captured Variables raise, since the rule gives no derivatives for them.

    Numpy arrays become arrays of JAX.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.
      name: The name of the transform, for messages.

    Returns:
      The leaves.
    """
    guarded = _as_immutable(leaves)
    for i, number in enumerate(plan.variables):
        if number in plan.captured and number not in plan.passed:
            guard = functools.partial(_reject_derivatives, plan.path_of(number), name)
            guarded[i] = jax.tree.map(guard, guarded[i])
    return guarded


def _reject_derivatives(path: str, name: str, x: Any) -> Any:
    """Return the array unchanged, but raise if it is differentiated."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return x

    @jax.custom_jvp
    def same(x: Any) -> Any:
        return x

    @same.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        raise errors.TraceContextError(
            f"{path} is differentiated, but the function given to liftnn.{name} captures it in a closure, so the rule "
            "gives no derivative for it.",
            f"Pass the module as an argument of the function given to liftnn.{name}.",
        )

    return same(x)


def without_captures(
    pure: PureFunction, leaves: Sequence[Any], who: str, function: Callable[..., Any]
) -> Result:
    """Run a pure function after the function's call has finished, when captured objects cannot become inputs.

    Args:
      pure: The pure function.
      leaves: The dynamic leaves.
      who: The name of the rule that runs, for the message.
      function: The user's rule, for the message.

    Returns:
      The result.

    Raises:
      TraceContextError: If it uses captured objects.
    """
    try:
        return pure(leaves)
    except frames.RetryWithCaptures as missing:
        raise late_error(missing, who, function) from None


def late_error(missing: frames.RetryWithCaptures, who: str, function: Callable[..., Any]) -> errors.LiftError:
    """Return the error for a rule that uses captured objects after the function's call has finished.

    Args:
      missing: The captured objects.
      who: The name of the rule.
      function: The user's rule.

    Returns:
      The error.
    """
    error = errors.TraceContextError(
        f"{who} uses {_name_captured(function, missing.objects[0])} from a closure, but it runs after the function's "
        "call, when captured objects can no longer become inputs.",
        "Pass it as an argument of the function, or to the backward pass as a residual.",
    )
    return at_line(error, missing.line)


def _name_captured(function: Callable[..., Any], x: Any) -> str:
    """Return the name by which a function captures an object, and its type."""
    roots = find_captured([function]).roots
    found = [format_path(p, n) for n, r in roots.items() for p, y in iter_graph(r) if frames.lookup(y) is x]
    return f"{found[0]} ({an(type(x))})" if found else f"{an(type(x))}"
