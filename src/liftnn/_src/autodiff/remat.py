"""`remat` and `checkpoint`: intermediate values are recomputed for gradients instead of stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.lifting.configure import keeps_signature
from liftnn._src.lifting.contract import Plan, PureFunction
from liftnn._src.lifting.lift import LiftOptions
from liftnn._src.lifting.purify import untraced_copy, with_arrays
from liftnn._src.lifting.signature import as_positions
from liftnn._src.lifting.static_arguments import WithStatic
from liftnn._src.publish import publish


@keeps_signature
def checkpoint(
    f: Callable[..., Any],
    /,
    *,
    prevent_cse: bool | Sequence[bool] = True,
    policy: Callable[..., bool] | None = None,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Iterable[str] = (),
) -> WithStatic[..., Any]:
    """Make `f` recompute its intermediate values in the backward pass instead of storing them, as `jax.checkpoint`.

    Updates that `f` makes to modules are applied once. The recomputation draws the same random numbers. `remat` is an
    alias of `checkpoint`.

    Args:
      f: A function, a bound method or a module; the module of a bound method is argument 0.
      prevent_cse: Whether to prevent common subexpression elimination, with which the compiler could merge the two
        computations and store the values. The default is True. Inside a loop such as `scan`, False is sufficient. In
        calls without modules it may also be a tree prefix of the arguments.
      policy: A policy from `jax.checkpoint_policies` that selects the values that may be stored. The default, None,
        stores none.
      static_argnums: Positions of static arguments, such as flags. The default, `()`, means none. Arguments that are
        neither arrays nor numbers are always static.
      static_argnames: Names of static arguments; each of the two options implies the other. The default is `()`.

    Returns:
      A function with the arguments, outputs and module updates of `f`.

    Raises:
      ArgumentError: If an option names an argument that `f` does not have; when called, if a static argument contains a
        module, or if `prevent_cse` is not a bool and there are modules among the arguments.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> class Tower(liftnn.Module):
      ...   def __init__(self, rngs):
      ...     self.layers = [liftnn.Linear(3, 3, rngs=rngs) for _ in range(4)]
      ...   def __call__(self, x):
      ...     for layer in self.layers:
      ...       x = jnp.tanh(liftnn.remat(layer)(x))
      ...     return x
      >>> tower = Tower(liftnn.Rngs(0))
      >>> grads = liftnn.grad(lambda tower, x: tower(x).sum())(tower, jnp.ones((2, 3)))
      >>> grads["layers"][0]["kernel"].shape
      (3, 3)
    """
    nums = as_positions(static_argnums, "static_argnums")

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        def call(leaves: Sequence[Any]) -> Any:
            if not isinstance(prevent_cse, bool):
                raise errors.ArgumentError(
                    "`prevent_cse` has one value for each argument, but there are modules among the arguments.",
                    "Pass prevent_cse=True or prevent_cse=False.",
                )
            checkpointed = jax.checkpoint(untraced_copy(pure), prevent_cse=prevent_cse, policy=policy)
            return with_arrays(checkpointed(leaves))

        return call

    def of_arrays(f: Callable[..., Any]) -> Callable[..., Any]:
        return jax.checkpoint(f, prevent_cse=prevent_cse, policy=policy, static_argnums=nums)

    # JAX ignores static_argnames.
    options = LiftOptions("remat", of_arrays=None if static_argnames else of_arrays)
    return WithStatic(f, bind, options, nums or None, static_argnames or None, hashable=False)


remat = checkpoint


publish(checkpoint, remat)
