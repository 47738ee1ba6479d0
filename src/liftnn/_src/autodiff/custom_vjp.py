"""`custom_vjp`: functions with a user-defined vector-Jacobian product."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, Protocol, overload

import jax

from liftnn import errors
from liftnn._src.autodiff.custom_rule import (
    BackwardRule,
    CustomRule,
    ForwardRule,
    PurifyRule,
    without_captures,
    without_derivatives,
)
from liftnn._src.autodiff.residuals import Perturbed, Residuals, keep
from liftnn._src.autodiff.rule_signature import Signature, only_output_has_derivatives, outputs_of
from liftnn._src.autodiff.tangents import read
from liftnn._src.lifting.auxiliary import in_words
from liftnn._src.lifting.configure import Given, configurable
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.purify import purify
from liftnn._src.lifting.shown import show_as
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import list_paths
from liftnn._src.type_variables import P, R


class GivesCustomVjp(Protocol[Given]):
    """The type of `custom_vjp` for type checkers."""

    @overload
    def __call__(
        self, f: Callable[P, R], /, *args: Given.args, **options: Given.kwargs
    ) -> CustomVjp[P, R]: ...

    @overload
    def __call__(
        self, *args: Given.args, **options: Given.kwargs
    ) -> Callable[[Callable[P, R]], CustomVjp[P, R]]: ...


def _gives_custom_vjp(
    transform: Callable[Concatenate[Callable[..., Any], Given], CustomVjp[..., Any]],
) -> GivesCustomVjp[Given]:
    return configurable(transform)


@_gives_custom_vjp
def custom_vjp(
    f: Callable[..., Any],
    /,
    nondiff_argnums: int | Sequence[int] = (),
    nondiff_argnames: str | Iterable[str] = (),
) -> CustomVjp[..., Any]:
    """Set up a function for a custom VJP rule, as `jax.custom_vjp`; its arguments may contain modules.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0. `f` itself runs where
        nothing is differentiated. Arguments stored in a `functools.partial` are not differentiated and are not passed
        to the rule. Captured Variables must not be differentiated.
      nondiff_argnums: Positions of arguments that are not differentiated. Their non-array leaves are passed to the
        function and the rule unchanged. The default, `()`, means none.
      nondiff_argnames: Names of arguments that are not differentiated. The default, `()`, means none.

    Returns:
      A `CustomVjp`: a function with the signature of `f` and the method `defvjp`.

    Raises:
      ArgumentError: If an option names an argument that `f` does not have.
      ArgumentTypeError: When called, if an argument can only be passed by keyword.
      MissingRuleError: When called, if no rule is defined.
      TraceContextError: When called, if a Variable that `f` captures is differentiated.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> @liftnn.custom_vjp
      ... def clipped(model, x):
      ...   return model(x)
      >>> def forward(model, x):
      ...   out, pull_back = liftnn.vjp(lambda model, x: model(x), model, x)
      ...   return out, pull_back
      >>> def backward(pull_back, cotangent):
      ...   return pull_back(jnp.clip(cotangent, -1, 1))
      >>> clipped.defvjp(forward, backward)
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.grad(lambda m, x: 100 * clipped(m, x).sum())(model, jnp.ones((1, 2)))["bias"].value.tolist()
      [1.0, 1.0, 1.0]
    """
    return CustomVjp(f, "custom_vjp", nondiff_argnums, nondiff_argnames)


@boundary
class CustomVjp(CustomRule[P, R]):
    """A function with a custom VJP rule."""

    fwd: Callable[..., Any] | None = None
    bwd: Callable[..., Any] | None = None
    symbolic_zeros: bool = False
    optimize_remat: bool = False
    _further: Mapping[str, Any] = types.MappingProxyType({})

    def defvjp(
        self,
        fwd: Callable[..., Any],
        bwd: Callable[..., Any],
        symbolic_zeros: bool = False,
        optimize_remat: bool = False,
        **options: Any,
    ) -> None:
        """Define the VJP rule of the function.

        Under differentiation `fwd` runs in place of the function, and must update modules in the same way. These
        updates are propagated to the caller's objects, with zero derivatives: return every value that is to be
        differentiated.

        Args:
          fwd: Called with the arguments of the function. Returns a pair of the output and the residuals, which may be
            arrays, modules, States or trees of them.
          bwd: Called as `bwd(*nondiff, residuals, cotangent)`: the arguments that are not differentiated, the
            residuals, and the cotangent of the output, with a State in place of each module. The cotangent has no
            entry for inputs that the function returned unchanged; they keep their own cotangents. Returns a tuple with
            one cotangent for each differentiated argument; a State, a module of the same structure or nested dicts may
            represent a module, and None means zero. Variables that are left out have zero cotangents, and several
            cotangents of one Variable are summed. `bwd` must not change the modules that it is given.
          symbolic_zeros: Whether cotangents that are known to be zero are passed as
            `jax.custom_derivatives.SymbolicZero`, and whether each array and Variable in the differentiated arguments
            of `fwd` has the attributes `value` and `perturbed`, as in JAX. The default is False.
          optimize_remat: As in `jax.custom_vjp.defvjp`. The default is False.
          **options: Further options of JAX's `defvjp`.
        """
        self.fwd, self.bwd = fwd, bwd
        self.symbolic_zeros, self.optimize_remat = symbolic_zeros, optimize_remat
        self._further = options

        def apply(f: Any, nums: Any, fwd: Any, bwd: Any) -> Any:
            rule: Any = jax.custom_vjp(f, nondiff_argnums=nums)
            rule.defvjp(fwd, bwd, symbolic_zeros, optimize_remat, **options)
            return rule

        self._take_rules(apply, (fwd, ForwardRule), (bwd, BackwardRule))
        rule_options = {"symbolic_zeros": symbolic_zeros, "optimize_remat": optimize_remat, **options}
        self._note_rule("defvjp", {"fwd": fwd, "bwd": bwd}, **rule_options)

    def _bind_call(self, plan: Plan, pure: PureFunction) -> PureFunction:
        forward, backward = self.fwd, self.bwd
        if not forward or not backward:
            raise errors.MissingRuleError(
                "This custom_vjp function has no differentiation rule.",
                "Define a rule with `f.defvjp(fwd, bwd)` before you call the function.",
            )
        purify_rule = self._purify_rule()
        options = {
            "symbolic_zeros": self.symbolic_zeros,
            "optimize_remat": self.optimize_remat,
            **self._further,
        }
        nondiff = self._nondiff.positions(len(plan.arguments[0]))

        def call(leaves: Sequence[Any]) -> Result:
            signature = Signature(plan, nondiff, leaves, ("the function", "fwd"))

            def primal(leaves: Sequence[Any]) -> Result:
                return signature.agreed("the function", pure(leaves))

            def fwd(leaves: Sequence[Any]) -> tuple[Result, Residuals]:
                return _run_forward(purify_rule, signature, forward, leaves, options["symbolic_zeros"])

            def bwd(residuals: Residuals, cotangents: Result) -> tuple[list[Any]]:
                found = _run_backward(signature, backward, residuals, cotangents)
                return (signature.diff_leaves.put(found, [None] * len(plan.slots)),)

            with_rule = jax.custom_vjp(show_as(primal, pure))
            with_rule.defvjp(show_as(fwd, forward), bwd, **options)
            return only_output_has_derivatives(
                plan, with_rule(without_derivatives(plan, leaves, "custom_vjp"))
            )

        return call


def _run_forward(
    purify_rule: PurifyRule,
    signature: Signature,
    forward: Callable[..., Any],
    leaves: Sequence[Any],
    symbolic_zeros: bool,
) -> tuple[Result, Residuals]:
    """Run the forward pass; return its output and updates as a Result, and the residuals."""
    kept: list[Residuals] = []
    perturbed: Perturbed | None = None
    if symbolic_zeros:
        perturbed = Perturbed(signature.plan, leaves)
        leaves = jax.tree.map(lambda x: x.value, leaves)

    def run(*args: Any) -> Any:
        primals = args if perturbed is None else perturbed.mark(args, signature.diff)
        returned = forward(*primals)
        if perturbed is not None:
            perturbed.unmark((args, returned))
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            raise errors.ArgumentTypeError(
                f"fwd of custom_vjp must return a pair (output, residuals), not {in_words(returned)}.",
                "Return `(output, residuals)`; the residuals may be None.",
            )
        out, residuals = returned
        tree = ((*(args[i] for i in signature.nondiff), residuals), {})
        kept.append(keep(tree))
        return out

    result = purify_rule(signature.plan, run, forward)(leaves)
    return signature.agreed("fwd", result), kept[0]


def _run_backward(
    signature: Signature, backward: Callable[..., Any], residuals: Residuals, cotangents: Result
) -> list[Any]:
    """Run the backward pass; return the cotangents of the arguments by position."""
    plan = signature.plan
    _, diff_leaves, contents = outputs_of(plan, cotangents, [None] * len(plan.slots))

    def run(*args: Any) -> Any:
        returned = backward(*args, diff_leaves.trees(diff_leaves.take(contents))[0])
        if not isinstance(returned, (tuple, list)) or len(returned) != len(signature.diff):
            raise errors.ArgumentTypeError(
                f"bwd of custom_vjp must return a tuple of {len(signature.diff)} cotangents, not {in_words(returned)}.",
                "Return one cotangent for each differentiated argument; None means zero.",
            )
        return read(signature.diff_leaves, signature.like, "cotangent", returned, of_rule=True)

    kept = Plan(residuals.graph)
    pure = purify(run, kept, "custom_vjp")
    result = without_captures(pure, residuals.leaves, "bwd of custom_vjp", backward)
    changed = [kept.path_of(n) for n in sorted({*result.written})]
    if changed:
        raise errors.StructureError(
            f"bwd of custom_vjp changed its arguments, but these changes would be lost:\n{list_paths(changed)}",
            "Change modules in the function and in fwd instead; bwd may only change modules that it creates.",
        )
    return result.change.treedef.unflatten(result.output)


publish(custom_vjp)
