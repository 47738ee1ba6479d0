"""The compiled function that `jit` gives: its calls, its stages, and how often it has been traced."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax

from liftnn import errors
from liftnn._src.captures.guards import Guards
from liftnn._src.compilation.compilation import Compilation, Wrap
from liftnn._src.compilation.fast_paths import FastPaths
from liftnn._src.compilation.retraces import Traces, counting
from liftnn._src.compilation.source import MISS
from liftnn._src.compilation.stages import Lowered, Traced
from liftnn._src.graph.slots import ARRAY
from liftnn._src.lifting.arguments import Flat, flatten_call
from liftnn._src.lifting.array_calls import HAS_MODULES, ArrayCalls, TracedFunction
from liftnn._src.lifting.callables import Bindable, is_fixed, take_name
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.lifting.kept import keep_with
from liftnn._src.lifting.lift import Call, Options, T, commit_to_copies
from liftnn._src.lifting.signature import select
from liftnn._src.lifting.static_arguments import WithStatic
from liftnn._src.static_values.static import Static
from liftnn._src.tracebacks import boundary, hide_frames, users_line
from liftnn._src.trees import is_argument_array
from liftnn._src.type_variables import P, R
from liftnn._src.variables import frames
from liftnn._src.variables.watch import changes


class Jitted(Bindable[P, R]):
    """A compiled function: calls it, and gives its stages and counts.

    It has a `WithStatic`, which makes calls in the general way, and `FastPaths`, which make the same calls again.

    Args:
      f: The user's function.
      static: `static_argnums` and `static_argnames`, and what these are called before `_argnums` if not `"static"`.
      donate: `donate_argnums` and `donate_argnames`.
      shardings: `in_shardings` and `out_shardings`.
      options: Options of `jax.jit`.
      donate_written: Whether to donate what the call overwrites.
      max_traces: How often the function may be traced.
      transform: What messages call the transform.
      wrap: Applies another transform below the compilation. The default, None, applies none.
      of_arrays: JAX's transform, for calls without modules. The default, None, means that such calls are made like
        all others.
      n_positional: How many arguments have axes by position. The default is 0.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        static: Any,
        donate: Any,
        shardings: Any = (None, None),
        options: Mapping[str, Any] | None = None,
        donate_written: bool = False,
        max_traces: int | None = None,
        transform: str = "jit",
        wrap: Wrap | None = None,
        of_arrays: Callable[..., Any] | None = None,
        n_positional: int = 0,
    ):
        self._made_of = (
            f, static, donate, shardings, options, donate_written, max_traces, transform, wrap, of_arrays, n_positional,
        )  # fmt: skip
        given = (static, donate, shardings, *(options or {}).items(), donate_written)
        make = functools.partial(Compilation, f, shardings, options, donate_written, wrap)
        shared = wrap is None and max_traces is None  # who limits his traces counts them all
        compilation = keep_with(f, (users_line(), *given), make) if shared else make()
        self._traces = Traces(f"liftnn.{transform} of {getattr(f, '__qualname__', 'a function')}", max_traces)
        self._n_found = 0
        """How many of them had been traced for another one that wraps the same function."""
        lift_options = Options(
            transform,
            static_leaves=False,
            returned=compilation.returned,
            n_positional=n_positional,
            weakly=True,
        )
        self._lifted: WithStatic[P, R] = WithStatic(f, compilation.bind, lift_options, *static)
        self._lifted._bound = compilation.bound
        take_name(self, f)
        compilation.donate = select(self._lifted._called, donate[0], donate[1], "donate")
        compilation.has_leading = bool(self._lifted._leading)
        both = self._lifted._static.common(compilation.donate)
        if both:
            raise errors.ArgumentError(
                f"Arguments cannot be both static and donated: {', '.join(map(repr, both))}.",
                "Leave them out of one of the two.",
            )
        self._n_positional = n_positional
        self._array_calls: ArrayCalls | None = None
        if of_arrays is not None and not self._lifted._leading and is_fixed(self._lifted._stored):
            self._array_calls = ArrayCalls(
                (f,), transform, of_arrays, kind=TracedFunction, is_shared=max_traces is None
            )
        calls = 0 if self._array_calls is None else self._array_calls.inside[0].n_calls
        self._is_wrapped_anew = compilation.is_traced or calls > 0
        self._fast_paths = FastPaths()
        self._last: Callable[[], Any] = self._fast_paths.last
        """The fast path that was used last."""
        self._leading = self._lifted._leading

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the compiled function."""
        try:  # costs nothing
            given: tuple[Any, ...] = (*self._leading, *args) if self._leading else args
            if not frames.open_frames or frames.is_outermost():
                fast = self._last()
                if fast is not None:
                    out = fast(given, kwargs)
                    if out is not MISS:
                        return out
            return self._slow_call(given, kwargs)
        except Exception as error:
            hide_frames(error)
            raise

    def _slow_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that the last fast path cannot make."""
        if not frames.is_plain():
            out = self._of_arrays(args, kwargs, lambda jitted: jitted(*args, **kwargs))
            if out is not HAS_MODULES:
                return out
            args = args[len(self._leading) :]
            call, result = self._run(args, kwargs, lambda call: call.bound(call.leaves))
            return self._lifted._commit(call, result)
        out = self._fast_paths.call(args, kwargs)
        if out is MISS:
            out = self._first_call(args, kwargs)
        self._last = self._fast_paths.last
        return out

    def _of_arrays(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        act: Callable[[Any], Any],
        keep: Callable[[Guards], None] = lambda guards: None,
    ) -> Any:
        """Does something with `jax.jit` of the function, if a call has no modules; otherwise gives `HAS_MODULES`."""
        calls = self._array_calls
        guards = None if calls is None else calls.accept(*self._lifted._arguments(args, kwargs))
        if calls is None or guards is None:
            return HAS_MODULES
        with frames.publish_originals(calls.inside[0], (), self._begin_trace), counting(self._traces):
            out = calls.run(act)
        if out is not HAS_MODULES:
            self._note(calls)
            keep(guards)
        return out

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], act: Callable[[Call], T]) -> tuple[Call, T]:
        """Acts on a call in the general way.

        Args:
          args: The positional arguments.
          kwargs: The keyword arguments.
          act: Called with the call, flattened.

        Returns:
          The call, and what was made of it.
        """
        with counting(self._traces):
            call, out = self._lifted._run(args, kwargs, act)
        self._note(call.bound)
        return call, out

    def _note(self, program: Any) -> None:
        """Notes that a program was met; if nobody has traced it here, another has."""
        if program not in self._traces.met:
            self._traces.met.add(program)
            self._n_found += 1

    def _begin_trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], None]:
        """Notes a trace of the function for arrays; gives what is called at its end."""
        flat = self._flatten(args, kwargs)
        trace = self._traces.begin(Plan(flat.graph), flat.arrays)
        self._traces.met.add(self._array_calls)
        return functools.partial(self._traces.end, trace)

    def _flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flat:
        """Arguments that have no modules."""
        return flatten_call(*self._lifted._arguments(args, kwargs), _leaf_edge)

    def _first_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that no fast path can make: flattens the arguments and makes one."""

        def keep(guards: Guards) -> None:
            if self._is_wrapped_anew or self._array_calls is None:
                self._is_wrapped_anew = False  # many a function is wrapped for one call
                return
            plan = Plan(self._flatten(args, kwargs).graph)
            self._fast_paths.add_arrays(plan, args, kwargs, guards, self._array_calls.transformed)

        out = self._of_arrays(args, kwargs, lambda jitted: jitted(*args, **kwargs), keep)
        if out is not HAS_MODULES:
            return out
        since = changes.count
        call, returned = self._run(
            args[len(self._leading) :], kwargs, lambda call: call.bound.run(call.leaves)
        )
        path = None
        if not (kwargs and self._n_positional):
            path = self._fast_paths.add(call, args, kwargs, since, self._lifted._stored)
        if path is None:
            return self._lifted._commit(call, call.bound.result(returned))
        out = path.writer.commit(returned)
        self._fast_paths.settle(path)
        return out

    @boundary
    def trace(self, /, *args: Any, **kwargs: Any) -> Traced[R]:
        """Traces the function for arguments like these, as the stage of `jax.jit` does.

        Args:
          *args: Positional arguments; `jax.ShapeDtypeStruct` may stand in place of arrays, in Variables too.
          **kwargs: Keyword arguments.

        Returns:
          The traced stage: `jaxpr`, `out_info`, `lower()`.

        Raises:
          ArgumentTypeError: If an argument is neither array nor module, nor static.
        """
        traced = self._of_arrays(args, kwargs, lambda jitted: jitted.trace(*args, **kwargs))
        if traced is not HAS_MODULES:
            return traced
        call, traced = self._run(args, kwargs, lambda call: call.bound.trace(call.leaves))
        return Traced(self, call, traced)

    @boundary
    def lower(self, /, *args: Any, **kwargs: Any) -> Lowered[R]:
        """Lowers the function for arguments like these; see `trace`.

        Args:
          *args: Positional arguments; `jax.ShapeDtypeStruct` may stand in place of arrays, in Variables too.
          **kwargs: Keyword arguments.

        Returns:
          The lowered stage: `as_text()`, `cost_analysis()`, `compile()`. A compiled stage is called like the
          function, without the static arguments, and updates the modules.

        Raises:
          ArgumentTypeError: If an argument is neither array nor module, nor static.
        """
        return self.trace(*args, **kwargs).lower()

    @boundary
    def eval_shape(self, /, *args: Any, **kwargs: Any) -> Any:
        """The shapes and dtypes that the function returns; nothing is computed and no module changed.

        Args:
          *args: Positional arguments.
          **kwargs: Keyword arguments.

        Returns:
          The output with `jax.ShapeDtypeStruct` in place of arrays.

        Raises:
          ArgumentTypeError: If an argument is neither array nor module, nor static.
        """
        out = self._of_arrays(args, kwargs, lambda jitted: jitted.eval_shape(*args, **kwargs))
        if out is not HAS_MODULES:
            return out
        call, result = self._run(args, kwargs, lambda call: jax.eval_shape(call.bound, call.leaves))
        return self._output_of(call, result)

    def clear_cache(self) -> None:
        """Forgets all compiled programs."""
        self._lifted._clear(lambda bound: bound.clear_cache())
        if self._array_calls is not None:
            self._array_calls.clear()
        self._fast_paths.clear()
        self._last = self._fast_paths.last

    def _carried_functions(self) -> tuple[Any, ...]:
        """The functions in which captured modules may be found; see `Lifted`."""
        return self._lifted._carried_functions()

    def __reduce__(self) -> Any:
        return type(self), self._made_of

    def __copy__(self) -> Self:
        return self  # as a function

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return repr(self._lifted)

    def _commit(self, call: Call, result: Result) -> Any:
        """Puts the result of a call into the objects and gives the output."""
        return self._lifted._commit(call, result)

    def _output_of(self, call: Call, result: Result) -> Any:
        """The output of a result that must not touch the arguments."""
        return commit_to_copies(call, result)

    @property
    def n_traces(self) -> int:
        """How often the function has been traced."""
        return self._traces.count + self._n_found


def _leaf_edge(leaf: Any, path: Any, arrays: list[Any]) -> Any:
    """The edge of a leaf of arguments without modules."""
    if is_argument_array(leaf):
        arrays.append(leaf)
        return ARRAY
    return Static(type(leaf))
