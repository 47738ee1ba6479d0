"""`eval_shape`: the shapes and dtypes of a function's output, without computing it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, overload

import jax

from liftnn._src.garbage_collection import no_full_collections
from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.contract import Plan, PureFunction
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.modules.module import Module
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary

M = TypeVar("M", bound=Module)


@overload
def eval_shape(f: Callable[..., M], /, *args: Any, **kwargs: Any) -> M: ...


@overload
def eval_shape(f: Callable[..., jax.Array], /, *args: Any, **kwargs: Any) -> jax.ShapeDtypeStruct: ...


@overload
def eval_shape(f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any: ...


@boundary
def eval_shape(f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Return the shapes and dtypes of a function's output without computing it, as `jax.eval_shape`.

    The arguments are not changed: changes of a module are visible only if the function returns the module.

    Args:
      f: A function, a bound method or a module. Of a compiled function, the shardings and
        static arguments count.
      *args: Arguments: arrays, modules, trees of them, or `jax.ShapeDtypeStruct` in place of arrays.
      **kwargs: Keyword arguments, likewise.

    Returns:
      The output with `jax.ShapeDtypeStruct` in place of arrays, also in the Variables of modules; its modules are new.

    Raises:
      Exception: Whatever the function raises.

    Example:
      >>> import liftnn
      >>> liftnn.eval_shape(lambda: liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))).kernel.value
      ShapeDtypeStruct(shape=(2, 3), dtype=float32)
    """
    if isinstance(f, jax.stages.Wrapped) and not is_object(f):  # it has shardings and static arguments
        return f.trace(*args, **kwargs).out_info

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        return lambda leaves: jax.eval_shape(pure, leaves)

    def of_arrays(f: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(jax.eval_shape, f)

    lifted = Lifted(
        (f,), bind, LiftOptions("eval_shape", commit=False, of_arrays=of_arrays, traces_like="jit")
    )
    with no_full_collections:
        return lifted(*args, **kwargs)


publish(eval_shape)
