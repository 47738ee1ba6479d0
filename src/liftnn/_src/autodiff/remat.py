"""`remat` and `checkpoint`: what a function computes on the way is computed again for its gradients, not stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.lifting.configure import keeps_signature
from liftnn._src.lifting.contract import Plan, PureFunction
from liftnn._src.lifting.lift import Options
from liftnn._src.lifting.purify import untraced_copy
from liftnn._src.lifting.static_arguments import WithStatic


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
    """Computes intermediate values again for gradients instead of storing them, as `jax.checkpoint`.

    What the function does to modules is done to them once. Random numbers are the same ones when computed again.
    `remat` is another name for it.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0.
      prevent_cse: Whether to keep the compiler from merging the two computations, which would store the values after
        all. The default is True; inside a loop False is enough and faster. For a
        function of arrays also a tree prefix of the arguments.
      policy: Which values may be stored nevertheless, from `jax.checkpoint_policies`. The default, None, means none.
      static_argnums: Positions of arguments that are passed as they are, such as flags; they must be hashable. The
        default is none; what is neither array nor number is static anyway.
      static_argnames: Their names; one of the two options implies the other.

    Returns:
      A function with the same results and the same effects.

    Raises:
      ArgumentError: If an option names an argument that the function does not have; when called, if a static
        argument is not hashable.

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

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        def call(leaves: Sequence[Any]) -> Any:
            if not isinstance(prevent_cse, bool):
                raise errors.ArgumentError(
                    "prevent_cse is given by argument, but there are modules among the arguments.",
                    "Pass a boolean.",
                )
            return jax.checkpoint(untraced_copy(pure), prevent_cse=prevent_cse, policy=policy)(leaves)

        return call

    def of_arrays(f: Callable[..., Any]) -> Callable[..., Any]:
        nums = static_argnums if isinstance(static_argnums, int) else tuple(static_argnums)
        names: Any = {"static_argnames": static_argnames} if static_argnames else {}
        return jax.checkpoint(f, prevent_cse=prevent_cse, policy=policy, static_argnums=nums, **names)

    return WithStatic(f, bind, Options("remat", of_arrays=of_arrays), static_argnums, static_argnames)


remat = checkpoint
