"""`custom_jvp`: functions with a user-defined Jacobian-vector product."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Concatenate, Protocol, TypeVar, cast, overload

import jax

from liftnn import errors
from liftnn._src.autodiff.custom_rule import (
    CustomRule,
    PurifyRule,
    TangentRule,
    without_derivatives,
)
from liftnn._src.autodiff.rule_signature import Signature, outputs_of
from liftnn._src.autodiff.tangents import describe, fill, read
from liftnn._src.lifting.auxiliary import in_words
from liftnn._src.lifting.configure import Given, configurable
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.shown import show_as
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.type_variables import P, R

Rule = TypeVar("Rule", bound=Callable[..., Any])


class GivesCustomJvp(Protocol[Given]):
    """The type of `custom_jvp` for type checkers."""

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
    """Set up a function for a custom JVP rule, as `jax.custom_jvp`; its arguments may contain modules.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0. `f` itself runs where
        nothing is differentiated. Arguments stored in a `functools.partial` are not differentiated and are not passed
        to the rule. Captured Variables must not be differentiated.
      nondiff_argnums: Positions of arguments that are not differentiated. Their non-array leaves are passed to the
        function and the rule unchanged. The default, `()`, means none.
      nondiff_argnames: Names of arguments that are not differentiated. The default, `()`, means none.

    Returns:
      A `CustomJvp`: a function with the signature of `f` and the methods `defjvp` and `defjvps`.

    Raises:
      ArgumentError: If an option names an argument that `f` does not have.
      ArgumentTypeError: When called, if an argument can only be passed by keyword.
      MissingRuleError: When called, if no rule is defined.
      TraceContextError: When called, if a Variable that `f` captures is differentiated.

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
    """A function with a custom JVP rule."""

    jvp: Callable[..., Any] | None = None
    symbolic_zeros: bool = False

    def defjvp(self, jvp: Rule, symbolic_zeros: bool = False) -> Rule:
        """Define the JVP rule of the function; may be used as a decorator.

        Under differentiation the rule runs in place of the function, and must update modules in the same way. These
        updates are propagated to the caller's objects, with zero derivatives: return every value that is to be
        differentiated.

        Args:
          jvp: Called as `jvp(*nondiff, primals, tangents)`: the arguments that are not differentiated, then a tuple of
            the other arguments and a tuple of their tangents, with a State in place of each module. Returns a pair of
            the output and its tangent. In the tangent, a State, a module of the same structure or nested dicts may
            represent a module, and None means zero. Inputs that are returned unchanged keep their own tangents.
          symbolic_zeros: Whether tangents that are known to be zero are passed as
            `jax.custom_derivatives.SymbolicZero`. The default is False.

        Returns:
          The rule.
        """
        self.jvp, self.symbolic_zeros = jvp, symbolic_zeros

        def apply(f: Any, nums: Any, jvp: Any) -> Any:
            rule = jax.custom_jvp(f, nondiff_argnums=nums)
            rule.defjvp(jvp, symbolic_zeros)
            return rule

        self._take_rules(apply, (jvp, TangentRule))
        self._note_rule("defjvp", {"jvp": jvp}, symbolic_zeros=symbolic_zeros)
        return jvp

    def defjvps(self, *jvps: Callable[..., Any] | None) -> None:
        """Define one JVP rule for each argument; the tangent of the output is the sum of their results.

        Args:
          *jvps: For each argument a function `(tangent, output, *arguments)` that returns its contribution to the
            tangent of the output; None in its place if the argument contributes nothing.

        Raises:
          ArgumentTypeError: When the function is differentiated, if a rule returns None.
          ArgumentError: When the function is differentiated, if the number of rules is not that of the arguments.
          ArgumentTypeError: If the function has arguments that are not differentiated.
        """
        if self._nondiff:
            raise errors.ArgumentTypeError(
                "`defjvps` does not support arguments in `nondiff_argnums` or `nondiff_argnames`.",
                "Define one rule for all arguments with `defjvp`.",
            )

        def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
            if len(jvps) != len(primals):
                raise errors.ArgumentError(
                    f"`defjvps` got {len(jvps)} rule{'s' * (len(jvps) != 1)}, but the function has "
                    f"{len(primals)} argument{'s' * (len(primals) != 1)}.",
                    "Pass one rule for each argument; None means that it contributes nothing.",
                )
            out = cast("Callable[..., Any]", self)(*primals)
            terms = [f(t, out, *primals) for f, t in zip(jvps, tangents, strict=True) if f]
            if out is not None and any(term is None for term in terms):
                raise errors.ArgumentTypeError(
                    "A rule of `defjvps` returns None instead of a tangent of the output.",
                    "Return the tangent; for an argument that contributes nothing, pass None in place of the rule.",
                )
            return out, jax.tree.map(lambda *x: sum(x[1:], x[0]), *terms) if terms else None

        self.defjvp(jvp)
        self._note_rule("defjvps", {f"jvps[{i}]": f for i, f in enumerate(jvps)})

    def _bind_call(self, plan: Plan, pure: PureFunction) -> PureFunction:
        rule = self.jvp
        if not rule:
            raise errors.MissingRuleError(
                "This custom_jvp function has no differentiation rule.",
                "Define a rule with `f.defjvp(rule)` before you call the function.",
            )

        purify_rule, symbolic_zeros = self._purify_rule(), self.symbolic_zeros
        nondiff = self._nondiff.positions(len(plan.arguments[0]))

        def call(leaves: Sequence[Any]) -> Result:
            signature = Signature(plan, nondiff, leaves, ("the function", "the rule"))

            def primal(leaves: Sequence[Any]) -> Result:
                return signature.agreed("the function", pure(leaves))

            def jvp(primals: Any, tangents: Any) -> tuple[Result, Result]:
                return _run_rule(purify_rule, signature, rule, *primals, *tangents)

            with_rule = jax.custom_jvp(show_as(primal, pure))
            with_rule.defjvp(jvp, symbolic_zeros=symbolic_zeros)
            return with_rule(without_derivatives(plan, leaves, "custom_jvp"))

        return call


def _run_rule(
    purify_rule: PurifyRule, signature: Signature, rule: Callable[..., Any], leaves: Any, tangents: Any
) -> tuple[Result, Result]:
    """Run the rule; return its output and updates as a Result, and their tangents as another."""
    returned_tangents: list[Any] = []
    found = signature.diff_leaves.take(tangents)

    def run(*args: Any) -> Any:
        nondiff = [args[i] for i in signature.nondiff]
        returned = rule(
            *nondiff, tuple([args[i] for i in signature.diff]), tuple(signature.diff_leaves.trees(found))
        )
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            raise errors.ArgumentTypeError(
                f"The rule of custom_jvp must return a pair (output, tangent), not {in_words(returned)}.",
                "Return `(output, tangent)`; a tangent of None means zero.",
            )
        returned_tangents.append(returned[1])
        return returned[0]

    result = signature.agreed("the rule", purify_rule(signature.plan, run, rule)(leaves))
    outputs, diff_leaves, contents = outputs_of(signature.plan, result, leaves)
    like = describe(diff_leaves.take(contents))
    tangent = fill(read(diff_leaves, like, "tangent", [returned_tangents[0]]), like)
    flat, treedef = jax.tree.flatten(result)
    constant = treedef.unflatten(fill([None] * len(flat), describe(flat)))
    return result, outputs.scatter(diff_leaves, tangent, constant)


publish(custom_jvp)
