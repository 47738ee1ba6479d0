"""`custom_jvp`: a function whose Jacobian-vector product the user writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Concatenate, Protocol, TypeVar, cast, overload

import jax

from liftnn import errors
from liftnn._src.autodiff.custom_rule import (
    CustomRule,
    Signature,
    TangentRule,
    outputs_of,
    without_derivatives,
)
from liftnn._src.autodiff.outputs import in_words
from liftnn._src.autodiff.tangents import describe, fill, read
from liftnn._src.lifting.configure import Given, configurable
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.tracebacks import boundary
from liftnn._src.type_variables import P, R

Rule = TypeVar("Rule", bound=Callable[..., Any])


class GivesCustomJvp(Protocol[Given]):
    """How `custom_jvp` looks to a type checker."""

    @overload
    def __call__(
        self, f: Callable[P, R], /, *args: Given.args, **options: Given.kwargs
    ) -> CustomJvp[P, R]: ...

    @overload
    def __call__(
        self, *args: Given.args, **options: Given.kwargs
    ) -> Callable[[Callable[P, R]], CustomJvp[P, R]]: ...


def _gives_custom_jvp(
    transform: Callable[Concatenate[Callable[..., Any], Given], CustomJvp[..., Any]],
) -> GivesCustomJvp[Given]:
    return configurable(transform)


@_gives_custom_jvp
def custom_jvp(
    f: Callable[..., Any],
    /,
    nondiff_argnums: int | Sequence[int] = (),
    nondiff_argnames: str | Iterable[str] = (),
) -> CustomJvp[..., Any]:
    """A function whose Jacobian-vector product is given by `defjvp`, as `jax.custom_jvp`; arguments may be modules.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0. It runs where nothing is
        differentiated. What a `functools.partial` stores has no derivatives, and does not reach the rule. What
        the function captures may not be differentiated.
      nondiff_argnums: Positions of arguments without derivatives; what is no array among them reaches the functions
        as it is. The default is none.
      nondiff_argnames: Their names.

    Returns:
      The function, with `defjvp` and `defjvps`.

    Raises:
      ArgumentError: If an option names an argument that the function does not have; when called, before `defjvp`.
      ArgumentTypeError: When called, if an argument can only be passed by name.
      TraceContextError: When called, if a Variable that the function captures is differentiated.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> @liftnn.custom_jvp
      ... def scaled(model, x):
      ...   return model.w * x
      >>> @scaled.defjvp
      ... def rule(primals, tangents):
      ...   (model, x), (of_model, of_x) = primals, tangents
      ...   return scaled(model, x), 10 * of_model["w"] * x
      >>> model = liftnn.Module()
      >>> model.w = liftnn.Param(2.0)
      >>> float(liftnn.grad(scaled)(model, 3.0)["w"])
      30.0
    """
    return CustomJvp(f, "custom_jvp", nondiff_argnums, nondiff_argnames)


@boundary
class CustomJvp(CustomRule[P, R]):
    """A function with a Jacobian-vector product of its own."""

    _rule: Callable[..., Any] | None = None
    _symbolic_zeros: bool

    def defjvp(self, jvp: Rule, symbolic_zeros: bool = False) -> Rule:
        """Gives the function its rule; may be used as a decorator.

        Where the function is differentiated the rule runs in its place, and must do to modules what the function
        does. That comes out as usual, and counts as constant: what is to be differentiated must be returned.

        Args:
          jvp: Takes the arguments without derivatives, then a tuple of the other arguments and one of their tangents,
            in which a State stands for a module. Returns the pair of the output and its tangent, in which a State (or
            a module of the same structure, or nested dicts) stands for a module and None for zero. What the function
            returns as it was given keeps its own tangent.
          symbolic_zeros: Whether tangents that are known to be zero are `jax.custom_derivatives.SymbolicZero`. The
            default is False.

        Returns:
          The rule.
        """
        self._rule, self._symbolic_zeros = jvp, symbolic_zeros

        def apply(f: Any, nums: Any, jvp: Any) -> Any:
            rule = jax.custom_jvp(f, nondiff_argnums=nums)
            rule.defjvp(jvp, symbolic_zeros)
            return rule

        self._take_rules(apply, (jvp, TangentRule))
        return jvp

    def defjvps(self, *jvps: Callable[..., Any] | None) -> None:
        """Gives the function a rule for each argument, whose tangents are added.

        Args:
          *jvps: For each argument a function of its tangent, the output, and all arguments; it returns the tangent of
            the output. None for an argument that adds nothing.

        Raises:
          ArgumentError: If there are arguments without derivatives.
        """
        if self._nondiff:
            raise errors.ArgumentError(
                "defjvps cannot be used with arguments without derivatives.", "Use `defjvp`."
            )

        def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
            out = cast("Callable[..., Any]", self)(*primals)
            terms = [f(t, out, *primals) for f, t in zip(jvps, tangents, strict=True) if f is not None]
            return out, jax.tree.map(lambda *x: sum(x[1:], x[0]), *terms) if terms else None

        self.defjvp(jvp)

    def _bind_call(self, plan: Plan, pure: PureFunction) -> PureFunction:
        rule = self._rule
        if rule is None:
            raise errors.ArgumentError(
                "This custom_jvp function has no rule yet.", "Call its `defjvp` first."
            )

        def call(leaves: Sequence[Any]) -> Result:
            nondiff = self._nondiff.positions(len(plan.arguments[0]))
            signature = Signature(plan, nondiff, leaves, ("the function", "the rule"))

            @jax.custom_jvp
            def with_rule(leaves: Sequence[Any]) -> Result:
                return signature.agreed("the function", pure(leaves))

            def jvp(primals: Any, tangents: Any) -> tuple[Result, Result]:
                return _run_rule(self, signature, rule, *primals, *tangents)

            with_rule.defjvp(jvp, symbolic_zeros=self._symbolic_zeros)
            return with_rule(without_derivatives(plan, leaves, self._options.name))

        return call


def _run_rule(
    function: CustomJvp[..., Any], signature: Signature, rule: Callable[..., Any], leaves: Any, tangents: Any
) -> tuple[Result, Result]:
    """The output and effects of the rule, and their tangents."""
    given: list[Any] = []
    found = signature.picked.take(tangents)

    def run(*args: Any) -> Any:
        nondiff = [args[i] for i in signature.nondiff]
        returned = rule(
            *nondiff, tuple([args[i] for i in signature.diff]), tuple(signature.picked.trees(found))
        )
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            raise errors.ArgumentTypeError(
                f"The rule of custom_jvp must return a pair (output, tangent), not {in_words(returned)}.",
                "Return a tuple of two; the tangent may be None.",
            )
        given.append(returned[1])
        return returned[0]

    result = signature.agreed("the rule", function._purify_rule(signature.plan, run, rule)(leaves))
    outputs, picked, contents = outputs_of(signature.plan, result, leaves)
    like = describe(picked.take(contents))
    tangent = fill(read(picked, like, "tangent", [given[0]]), like)
    flat, treedef = jax.tree.flatten(result)
    constant = treedef.unflatten(fill([None] * len(flat), describe(flat)))
    return result, outputs.scatter(picked, tangent, constant)
