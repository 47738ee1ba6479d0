"""Two transforms of a step `f(module, z, ...)` that find the `z` with `f(module, z, ...) == z`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import lineax
import optimistix

import liftnn as nnx

Find = Callable[..., tuple[jax.Array, jax.Array]]
"""A function with the arguments of the step, whose `z` is where the search starts: returns `z` and the steps made."""


def fixed_point(f: Callable[..., jax.Array], *, tolerance: float = 1e-5, max_steps: int = 256) -> Find:
    """Iterates until `z` stays the same, and differentiates by the implicit function theorem.

    The gradient needs the solution only, not the steps that led to it: a linear system at the solution is solved by
    conjugate gradients, which needs products with the Jacobian of one step and its transpose, never the Jacobian.

    Args:
      f: the step; the module is argument 0 and `z` argument 1.
      tolerance: the largest change of `z`, absolute and relative, in the last step.
      max_steps: the steps after which an error is raised.
    """
    solver = optimistix.FixedPointIteration(rtol=tolerance, atol=tolerance)
    adjoint = optimistix.ImplicitAdjoint(lineax.Normal(lineax.CG(rtol=tolerance, atol=tolerance)))

    def search(step: Callable[..., Any], z: jax.Array, leaves: Sequence[Any]) -> tuple[Any, Any]:
        found = optimistix.fixed_point(
            step, solver, z, args=list(leaves), max_steps=max_steps, adjoint=adjoint
        )
        steps = found.stats["num_steps"]
        return found.value, steps.astype(
            jnp.int32
        )  # its type is weak: stored in a module, it would retrace the step

    return lift_search(f, search)


def iterate(f: Callable[..., jax.Array], steps: int) -> Find:
    """Makes a number of steps, and differentiates through all of them: JAX keeps what each has computed."""

    def search(step: Callable[..., Any], z: jax.Array, leaves: Sequence[Any]) -> tuple[Any, Any]:
        z, _ = jax.lax.scan(lambda z, _: (step(z, leaves), None), z, length=steps)
        return z, jnp.asarray(steps)

    return lift_search(f, search)


def lift_search(f: Callable[..., jax.Array], search: Callable[..., tuple[Any, Any]]) -> Find:
    """Makes a search for arrays take modules.

    Args:
      f: the step; the module is argument 0 and `z` argument 1.
      search: gets a pure function of `z` and the dynamic leaves of all arguments, the first `z`, and the leaves;
        returns the last `z` and the number of steps.

    Returns:
      The search. Whatever the step does to the module is done once, as by one call at the solution.
    """

    def bind(plan: nnx.Plan, pure: Callable[..., nnx.Result]) -> Callable[..., nnx.Result]:
        (at,) = [i for i, slot in enumerate(plan.slots) if plan.name(slot) == "args[1]"]

        def call(leaves: Sequence[Any]) -> nnx.Result:
            def replace(z: jax.Array, leaves: Sequence[Any]) -> list[Any]:
                return [*leaves[:at], z, *leaves[at + 1 :]]

            def step(z: jax.Array, leaves: Sequence[Any]) -> Any:
                return pure(replace(z, leaves)).output[0]

            z, steps = search(step, leaves[at], leaves)
            return pure(replace(z, leaves))._replace(extra=steps)

        return call

    return nnx.lift(f, bind=bind, finish=lambda z, steps: (z, steps))
