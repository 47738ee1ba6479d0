"""`checkify`: runtime checks of values, returned as an error value with the output."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from liftnn._src.lifting.configure import keeps_arguments
from liftnn._src.lifting.contract import Plan, PureFunction, Result
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.lifting.purify import untraced_copy, with_arrays
from liftnn._src.publish import publish


@keeps_arguments
def checkify(f: Callable[..., Any], /, errors: Any = None) -> Lifted[..., tuple[Any, Any]]:
    """Return the first failed check with the output, as `jax.experimental.checkify.checkify`.

    Changes of modules are propagated to the caller's objects even if a check has failed.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0.
      errors: The checks to make: a set such as `jax.experimental.checkify.float_checks`. The default, None, means the
        checks that the function makes itself with `jax.experimental.checkify.check`.

    Returns:
      A function that returns `(error, output)`. `error.throw()` raises if a check has failed, `error.get()` returns
      its message or None. A `jit` can return the error like any other output.

    Raises:
      Exception: Whatever the function raises.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> from jax.experimental import checkify
      >>> def divide(v, x):
      ...   checkify.check(x != 0, "division by zero")
      ...   v.value = v / x
      ...   return v.value
      >>> v = liftnn.Variable(jnp.array(6.0))
      >>> error, out = liftnn.jit(liftnn.checkify(divide))(v, 2.0)
      >>> error.get(), float(out), float(v.value)
      (None, 3.0, 3.0)
    """
    # checkify exists only in jax.experimental, so it is imported on first use.
    experimental = importlib.import_module("jax.experimental.checkify")
    chosen = experimental.user_checks if errors is None else errors

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        def call(leaves: Sequence[Any]) -> Result:
            error, result = experimental.checkify(untraced_copy(pure), errors=chosen)(leaves)
            return with_arrays(result)._replace(extra=error)

        return call

    of_arrays = functools.partial(experimental.checkify, errors=chosen)
    return Lifted((f,), bind, LiftOptions("checkify", lambda out, error: (error, out), of_arrays=of_arrays))


publish(checkify)
