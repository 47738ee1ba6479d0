"""Partials of transformed functions, which can be lowered and compiled like the functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from liftnn._src.compat.modes import accept_modes
from liftnn._src.compat.transforms import jit

R = TypeVar("R")


@accept_modes
def cached_partial(f: Callable[..., R], *cached_args: Any) -> Callable[..., R]:
    """Return `functools.partial(f, *cached_args)`: a repeated call of a jitted function flattens nothing anyway.

    Args:
      f: A transformed function.
      *cached_args: Its first arguments.

    Returns:
      A function of the other arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.cached_partial(nnx.jit(lambda model, x: model(x)), model)(jnp.ones((1, 2))).shape
      (1, 3)
    """
    return functools.partial(f, *cached_args)


def jit_partial(fun: Callable[..., R], *partial_args: Any, **options: Any) -> JittedPartial[R]:
    """Compile a function and store its first arguments.

    Args:
      fun: The function.
      *partial_args: Its first arguments, such as a model and an optimizer.
      **options: The options of `jit`.

    Returns:
      A function of the other arguments, with the methods `lower`, `trace` and `eval_shape` of a jitted function.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> apply = nnx.jit_partial(lambda model, x: model(x), model)
      >>> apply(jnp.ones((1, 2))).shape, apply.lower(jnp.ones((1, 2))).compile()(jnp.ones((1, 2))).shape
      ((1, 3), (1, 3))
    """
    return JittedPartial(jit(fun, **options), *partial_args)


class JittedPartial(functools.partial[R]):
    """A partial of a jitted function."""

    def eval_shape(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the shapes and dtypes of the output; see `jax.jit`."""
        return self.func.eval_shape(*self.args, *args, **kwargs)  # pyright: ignore[reportFunctionMemberAccess]

    def trace(self, /, *args: Any, **kwargs: Any) -> PartialStage:
        """Trace the function; see `jax.jit`."""
        return PartialStage(self.func.trace(*self.args, *args, **kwargs), self.args)  # pyright: ignore[reportFunctionMemberAccess]

    def lower(self, /, *args: Any, **kwargs: Any) -> PartialStage:
        """Lower the function; see `jax.jit`."""
        return PartialStage(self.func.lower(*self.args, *args, **kwargs), self.args)  # pyright: ignore[reportFunctionMemberAccess]


class PartialStage:
    """A traced, lowered or compiled partial: what liftnn's stage has, and calls without the stored arguments.

    Args:
      stage: The stage of the whole function.
      args: The stored arguments.
    """

    def __init__(self, stage: Any, args: tuple[Any, ...]):
        self._stage, self._args = stage, args

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)

    def __repr__(self) -> str:
        return repr(self._stage)

    def lower(self, **options: Any) -> PartialStage:
        """Lower the traced function."""
        return PartialStage(self._stage.lower(**options), self._args)

    def compile(self, compiler_options: dict[str, Any] | None = None) -> PartialStage:
        """Compile the lowered function."""
        return PartialStage(self._stage.compile(compiler_options), self._args)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled function."""
        return self._stage(*self._args, *args, **kwargs)
