"""`make_jaxpr`: the jaxpr of a function of modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from liftnn._src.lifting.configure import keeps_arguments
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Finish, LiftOptions
from liftnn._src.lifting.purify import untraced_copy
from liftnn._src.lifting.static_arguments import WithStatic
from liftnn._src.publish import publish


@keeps_arguments
def make_jaxpr(
    f: Callable[..., Any],
    /,
    static_argnums: int | Sequence[int] = (),
    axis_env: Sequence[tuple[Any, int]] | None = None,
    return_shape: bool = False,
) -> WithStatic[..., Any]:
    """Return the jaxpr of a function, as `jax.make_jaxpr`; nothing is computed and no module is changed.

    The inputs of the jaxpr are the values of the Variables that the arguments reach, in attribute order, each Variable
    once, then the array leaves: those among the arguments, then those in modules. Its outputs are the arrays of the
    output and those set in modules, then the values of new Variables, then the values of Variables that were written.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0.
      static_argnums: The positions of static arguments. The default is none.
      axis_env: The names and sizes of mapped axes for collectives in the function. The default, None, means none.
      return_shape: Whether to return the shapes of the output too. The default is False.

    Returns:
      A function that returns a `jax.extend.core.ClosedJaxpr`; with `return_shape` a pair of it and the output with
      `jax.ShapeDtypeStruct` in place of arrays.

    Raises:
      ArgumentError: If `static_argnums` contains a position that the function does not have; when called, if a static
        argument is not hashable.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> def scale(v, x):
      ...   v.value = v * x
      >>> liftnn.make_jaxpr(scale)(liftnn.Variable(jnp.ones(2)), 2.0)
      { lambda ; a:f32[2] b:f32[]. let
          c:f32[] = convert_element_type[new_dtype=float32 weak_type=False] b
          d:f32[2] = mul a c
        in (d,) }
    """

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        def call(leaves: Sequence[Any]) -> Result:
            trace = jax.make_jaxpr(untraced_copy(pure), axis_env=axis_env, return_shape=True)
            jaxpr, result = trace(leaves)
            return result._replace(extra=jaxpr)

        return call

    finish: Finish = (lambda out, jaxpr: (jaxpr, out)) if return_shape else (lambda out, jaxpr: jaxpr)

    def of_arrays(f: Callable[..., Any]) -> Callable[..., Any]:
        return jax.make_jaxpr(f, static_argnums, axis_env, return_shape)

    options = LiftOptions("make_jaxpr", finish, commit=False, of_arrays=of_arrays, traces_like="jit")
    transformed: WithStatic[..., Any] = WithStatic(f, bind, options, static_argnums, None)
    transformed.__module__ = jax.__name__  # as in JAX
    return transformed


publish(make_jaxpr)
