"""`jit`: compile a function of modules; changes of the modules are propagated to the caller's objects."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, Protocol, overload

from liftnn._src.compilation.jit_options import apply_jit, check_options
from liftnn._src.compilation.jitted import Jitted
from liftnn._src.lifting.array_calls import ArrayFunction
from liftnn._src.lifting.configure import Given, configurable
from liftnn._src.lifting.kept import WeakCache
from liftnn._src.lifting.signature import select_for_jax
from liftnn._src.type_variables import P, R


class GivesJitted(Protocol[Given]):
    """The type of `jit` for type checkers."""

    @overload
    def __call__(self, f: Callable[P, R], /, *args: Given.args, **options: Given.kwargs) -> Jitted[P, R]: ...

    @overload
    def __call__(
        self, *args: Given.args, **options: Given.kwargs
    ) -> Callable[[Callable[P, R]], Jitted[P, R]]: ...


def gives_jitted(
    transform: Callable[Concatenate[Callable[..., Any], Given], Jitted[..., Any]],
) -> GivesJitted[Given]:
    """Apply `configurable` to a transform that returns a compiled function of the same signature."""
    return configurable(transform)


@gives_jitted
def jit(
    f: Callable[..., Any],
    /,
    *,
    in_shardings: Any = None,
    out_shardings: Any = None,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    donate_argnames: str | Iterable[str] | None = None,
    donate_written: bool = False,
    keep_unused: bool = False,
    device: Any = None,
    backend: str | None = None,
    inline: bool = False,
    compiler_options: dict[str, Any] | None = None,
    max_traces: int | None = None,
) -> Jitted[..., Any]:
    """Compile a function, as `jax.jit`; modules may be anywhere in its arguments and results.

    `jit` traces the function once for each structure of the modules and each shape and dtype of the arrays. Each call
    propagates all changes of the modules to the caller's objects: values written, attributes set, added, replaced or
    deleted, lists grown, static values and metadata changed.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0. The dataclass of a bound method is not
        counted, as in JAX.
      in_shardings: The sharding of each argument, a tree prefix of the arguments in the order of the parameters. For a
        module: one sharding for all its arrays, a `StateSharding`, or a State of shardings. The default, None, keeps
        the current placement of the arrays. What a captured module shares with an argument is placed as the argument.
      out_shardings: The sharding of the output, likewise. The default, None, lets the compiler choose.
      static_argnums: Positions of arguments that are compile-time constants; they must be hashable.
      static_argnames: Names of static arguments. As in `jax.jit`, one of the two options implies the other.
      donate_argnums: Positions of arguments with buffers that the program may reuse. For a module, all Variables are
        donated, and the call writes new values to all of them.
      donate_argnames: Names of donated arguments.
      donate_written: Whether to donate exactly the buffers of the Variables that the call overwrites, regardless of
        the argument. The default is False. It costs an additional abstract trace for each new structure.
      keep_unused: Whether to keep arguments that the function does not use. The default is False.
      device: The device to run on; deprecated in JAX, use shardings.
      backend: The backend to run on; deprecated in JAX, use shardings.
      inline: Whether to inline the function into enclosing jaxprs. The default is False.
      compiler_options: Options for XLA.
      max_traces: The maximum number of traces; one more raises a RetraceError. The default, None, means no limit.

    Returns:
      The compiled function, with `trace`, `lower`, `eval_shape`, `clear_cache` and `n_traces`.

    Raises:
      ArgumentError: If an option names an argument that the function does not have; when called, if a static
        argument is not hashable.
      ArgumentTypeError: When called, if an argument that is not static is neither an array nor a module.
      RetraceError: When called, if the function would be traced more than `max_traces` times.
      TraceContextError: When called, if the function changes the structure of a module that it captures.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> @liftnn.jit
      ... def double(model, x):
      ...   model.kernel.value = 2 * model.kernel
      ...   return model(x)
      >>> double(model, jnp.ones((1, 2))).shape
      (1, 3)
    """
    shardings = in_shardings, out_shardings
    check_options(in_shardings, out_shardings, device, backend)
    options = {
        "keep_unused": keep_unused or None,
        "device": device,
        "backend": backend,
        "inline": inline or None,
        "compiler_options": None if compiler_options is None else dict(compiler_options),
    }
    options = {name: value for name, value in options.items() if value is not None}
    static, donate = (static_argnums, static_argnames), (donate_argnums, donate_argnames)
    of_arrays = (
        None if donate_written else functools.partial(jit_of_arrays, static, donate, shardings, options)
    )
    return Jitted(f, static, donate, shardings, options, donate_written, max_traces, of_arrays=of_arrays)


def jit_of_arrays(
    static: Any, donate: Any, shardings: Any, options: Mapping[str, Any], f: ArrayFunction
) -> Any:
    """Compile a function of arrays with `jax.jit`; cached with the function."""
    jax_options = {"in_shardings": shardings[0], "out_shardings": shardings[1], **options}
    jax_options = {name: value for name, value in jax_options.items() if value is not None}
    jax_options |= select_for_jax(f, static[0], static[1], "static")
    jax_options |= select_for_jax(f, donate[0], donate[1], "donate")
    if not f.is_shared:
        return apply_jit(f, **jax_options)
    return _jitted.get(f.function, tuple(jax_options.items()), lambda: apply_jit(f, **jax_options))


_jitted = WeakCache(most=64)
"""Options may never repeat, for example a new sharding in each call, so the number of entries is limited."""
