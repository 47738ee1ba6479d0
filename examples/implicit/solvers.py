"""Two transforms of a step `f(module, z, ...)` that find the `z` with `f(module, z, ...) == z`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optimistix

import liftnn as nnx

Find = Callable[..., tuple[jax.Array, jax.Array]]
"""A function with the arguments of the step, whose `z` is where the search starts: returns `z` and the steps made."""


def fixed_point(f: Callable[..., jax.Array], *, tolerance: float = 1e-5, max_steps: int = 256) -> Find:
    """Iterates until `z` stays the same, and differentiates by the implicit function theorem.

    The gradient needs the solution only, not the steps that led to it. With the Jacobian J of a step at the solution,
    the cotangent v of the solution becomes the u with `u = v + J^T u`, which is a fixed point too.

    Args:
      f: the step; the module is argument 0 and `z` argument 1.
      tolerance: the largest change in the last step, absolute and relative.
      max_steps: the steps after which an error is raised.
    """
    solver = optimistix.FixedPointIteration(rtol=tolerance, atol=tolerance)

    def solve(step: Callable[..., jax.Array], z: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = optimistix.fixed_point(lambda z, _: step(z), solver, z, max_steps=max_steps)
        steps = found.stats["num_steps"]
        return found.value, steps.astype(
            jnp.int32
        )  # its type is weak: stored in a module, it would retrace the step

    def search(step: Callable[..., Any], z: jax.Array, leaves: list[Any]) -> tuple[Any, Any]:
        @jax.custom_vjp
        def find(z: jax.Array, leaves: list[Any]) -> tuple[jax.Array, jax.Array]:
            return solve(lambda z: step(z, leaves), z)

        def forward(z: jax.Array, leaves: list[Any]) -> tuple[Any, Any]:
            found = find(z, leaves)
            return found, (found[0], leaves)

        def backward(
            saved: tuple[jax.Array, list[Any]], cotangents: tuple[jax.Array, Any]
        ) -> tuple[Any, Any]:
            z, leaves = saved
            _, pull_z = jax.vjp(lambda z: step(z, leaves), z)
            _, pull_leaves = jax.vjp(lambda leaves: step(z, leaves), leaves)
            scale = jnp.abs(cotangents[0]).max() + jnp.finfo(z.dtype).tiny  # so that the tolerance suits it
            v = cotangents[0] / scale
            u, _ = solve(lambda u: v + pull_z(u)[0], v)
            return jnp.zeros_like(z), pull_leaves(scale * u)[0]

        find.defvjp(forward, backward)
        return find(z, leaves)

    return lift_search(f, search)


def iterate(f: Callable[..., jax.Array], steps: int) -> Find:
    """Makes a number of steps, and differentiates through all of them: JAX keeps what each has computed."""

    def search(step: Callable[..., Any], z: jax.Array, leaves: list[Any]) -> tuple[Any, Any]:
        z, _ = jax.lax.scan(lambda z, _: (step(z, leaves), None), z, length=steps)
        return z, jnp.asarray(steps, jnp.int32)

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

            z, steps = search(step, leaves[at], list(leaves))
            return pure(replace(z, leaves))._replace(extra=steps)

        return call

    return nnx.lift(f, bind=bind, finish=lambda z, steps: (z, steps))
