"""The compiled function that `jit` returns: calls, stages, and the number of traces."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax

from liftnn import errors
from liftnn._src.captures.guards import Guards
from liftnn._src.compilation.donation import deleted_error
from liftnn._src.compilation.fast_paths import FastPaths
from liftnn._src.compilation.programs import Compilation, Wrap, shared_compilation
from liftnn._src.compilation.retraces import Traces
from liftnn._src.compilation.source import MISS
from liftnn._src.compilation.stages import Lowered, Traced
from liftnn._src.graph.slots import ARRAY
from liftnn._src.lifting.arguments import Flat, flatten_call
from liftnn._src.lifting.array_calls import ArrayCalls
from liftnn._src.lifting.call import Call
from liftnn._src.lifting.callables import Bindable, count_uncounted, is_fixed, unwrap_callable
from liftnn._src.lifting.contract import Plan
from liftnn._src.lifting.lift import LiftOptions, T
from liftnn._src.lifting.names import take_names
from liftnn._src.lifting.offers import Offer, may_be_fast, publish
from liftnn._src.lifting.static_arguments import WithStatic
from liftnn._src.static_values.static import Static
from liftnn._src.tracebacks import boundary, hide_frames
from liftnn._src.trees import is_argument_array
from liftnn._src.type_variables import P, R
from liftnn._src.variables import frames
from liftnn._src.variables.watch import changes


class Jitted(Bindable[P, R]):
    """A compiled function.

    A `WithStatic` makes calls on the slow path: it flattens the arguments. `FastPaths` make repeated calls.

    Args:
      f: The user's function.
      static: `static_argnums` and `static_argnames`, optionally followed by the prefix of these names (`"static"`).
      donate: `donate_argnums` and `donate_argnames`.
      shardings: `in_shardings` and `out_shardings`.
      options: Options of `jax.jit`.
      donate_written: Whether to donate the buffers of the Variables that the call overwrites.
      max_traces: The maximum number of traces.
      transform: The name of the transform in messages.
      wrap: Applies another transform below the compilation. The default, None, applies none.
      of_arrays: JAX's transform, for calls without modules. The default, None, means that such calls are handled like
        all others.
      n_positional: The number of arguments with axes by position. The default is 0.
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
        function, leading, stored = unwrap_callable(f, transform)
        name = getattr(f, "__name__", "call")
        called = function if leading or stored else f
        first = count_uncounted(f)
        make = functools.partial(Compilation, called, name, shardings, options, donate_written, wrap, first)
        shared = wrap is None and max_traces is None  # with `max_traces` all traces count, so none are shared
        carried = None if stored is None else (len(stored[0]), *stored[1])
        key = (name, carried, static, donate, shardings, *(options or {}).items(), donate_written, first)
        compilation = shared_compilation(f, called, key, make) if shared else make()
        self._transform = transform
        self._traces = Traces(f"liftnn.{transform} of {getattr(f, '__qualname__', 'a function')}", max_traces)
        self._n_found = 0
        """The number of programs that had been traced by another wrapper of the same function."""
        lift_options = LiftOptions(
            transform,
            static_leaves=False,
            returned=compilation.returned,
            n_positional=n_positional,
            weakly=True,
        )
        self._lifted: WithStatic[P, R] = WithStatic(f, compilation.bind, lift_options, *static)
        self._lifted._bound = compilation.bound
        self._lifted._begin_trace = self._traces.begin
        take_names(self, f)
        compilation.donate = self._lifted._select(donate[0], donate[1], "donate")
        self._donates = bool(compilation.donate)
        compilation.has_leading = bool(self._lifted._leading)
        both = self._lifted._static.common(compilation.donate)
        both = [x - first if isinstance(x, int) else x for x in both]
        if both:
            raise errors.ArgumentError(
                f"Arguments cannot be both static and donated: {', '.join(map(repr, both))}.",
                "Remove them from the static arguments or from the donated ones.",
            )
        self._n_positional = n_positional
        self._array_calls: ArrayCalls | None = None
        if of_arrays is not None and not self._lifted._leading and is_fixed(self._lifted._stored):
            self._array_calls = ArrayCalls((f,), transform, of_arrays, is_shared=max_traces is None)
            self._array_calls.inside[0].is_offered = True
            self._begin_trace_of_arrays = functools.partial(
                _begin_trace_of_arrays, self._lifted, self._traces, self._array_calls
            )
        calls = 0 if self._array_calls is None else self._array_calls.inside[0].n_calls
        self._is_wrapped_anew = compilation.is_traced or calls > 0
        self._fast_paths = FastPaths()
        self._last: Callable[[], Any] = self._fast_paths.last
        """A weak reference to the function of the most recently used fast path."""
        self._leading = self._lifted._leading

    def _rename(self, transform: str, names: Sequence[str]) -> None:
        """Name another transform, and its positional arguments, in messages."""
        self._lifted._options = self._lifted._options._replace(name=transform, names=names)
        self._traces.name = f"liftnn.{transform} of {self._lifted._functions[0]!r}"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the compiled function."""
        try:  # free in Python 3.11 and later unless an exception is raised
            positional: tuple[Any, ...] = (*self._leading, *args) if self._leading else args
            if not frames.open_frames or may_be_fast():
                fast = self._last()
                if fast is not None:
                    out = fast(positional, kwargs)
                    if out is not MISS:
                        return out
            return self._slow_call(positional, kwargs)
        except Exception as error:
            hide_frames(error)
            raise

    def _slow_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call that the most recently used fast path cannot make."""
        if not frames.is_plain():
            return self._of_arrays(
                args, kwargs, lambda jitted: jitted(*args, **kwargs), lambda: self._nested_call(args, kwargs)
            )
        out = self._fast_paths.call(args, kwargs) if may_be_fast() else MISS
        if out is MISS:
            out = self._first_call(args, kwargs)
        self._last = self._fast_paths.last
        return out

    def _nested_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call with modules inside another transform."""
        args = args[len(self._leading) :]
        call, result = self._run(args, kwargs, lambda call: call.bound(call.leaves))
        return self._lifted._commit(call, result)

    def _of_arrays(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        act: Callable[[Any], Any],
        otherwise: Callable[[], Any],
        keep: Callable[[ArrayCalls, Guards], None] = lambda calls, guards: None,
    ) -> Any:
        """Use `jax.jit` of the function if a call has no modules.

        Args:
          args: The positional arguments, with the module of a bound method.
          kwargs: The keyword arguments.
          act: Uses `jax.jit` of the function.
          otherwise: Does the same with modules.
          keep: Called after `act`.

        Returns:
          The result of `act` or `otherwise`.
        """
        calls = self._array_calls
        guards = None if calls is None else calls.guards(*self._lifted._arguments(args, kwargs))
        if calls is None or guards is None:
            return otherwise()

        def act_and_note(jitted: Any) -> Any:
            try:
                with publish(Offer(calls.inside[0], begin=self._begin_trace_of_arrays)):
                    out = act(jitted)
            except Exception as error:
                self._explain_deleted(error, args, kwargs)
                raise
            self._note(calls)
            keep(calls, guards)
            return out

        return calls.run(act_and_note, otherwise)

    def _explain_deleted(self, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise the error for a donated buffer, if the function donates arguments and got one that is deleted."""
        if self._donates:
            flat = _flatten_arrays(self._lifted, args, kwargs)
            deleted = deleted_error(Plan(flat.graph), flat.arrays)
            if deleted is not None:
                raise deleted from error

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], act: Callable[[Call], T]) -> tuple[Call, T]:
        """Flatten the arguments and act on the call.

        Args:
          args: The positional arguments.
          kwargs: The keyword arguments.
          act: Called with the flattened call.

        Returns:
          The call, and the result of `act`.
        """
        call, out = self._lifted._run(args, kwargs, act)
        self._note(call.bound)
        return call, out

    def _note(self, program: Any) -> None:
        """Record a program; if this wrapper has not traced it, another wrapper of the function has."""
        if program not in self._traces.met:
            self._traces.met.add(program)
            self._n_found += 1

    def _first_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call that no fast path can make, on the slow path, and add a fast path."""

        def keep(calls: ArrayCalls, guards: Guards) -> None:
            if self._is_wrapped_anew:
                self._is_wrapped_anew = False  # many wrappers are called only once
                return
            plan = Plan(_flatten_arrays(self._lifted, args, kwargs).graph)
            self._fast_paths.add_arrays(plan, args, kwargs, guards, calls, self._begin_trace_of_arrays)

        return self._of_arrays(
            args,
            kwargs,
            lambda jitted: jitted(*args, **kwargs),
            lambda: self._first_call_with_modules(args, kwargs),
            keep,
        )

    def _first_call_with_modules(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call with modules, and add a fast path."""
        since = changes.count
        calls: list[Call] = []
        done: list[Any] = []

        def run(call: Call) -> Any:
            calls[:], done[:] = [call], []
            return call.bound.run_placed(call, done)

        try:
            call, returned = self._run(args[len(self._leading) :], kwargs, run)
            path = None
            if len(args) >= self._n_positional + len(self._leading):  # all are where the caller has put them
                path = self._fast_paths.add(
                    call, args, kwargs, since, self._lifted._stored, self._traces.begin
                )
            if path is None:
                return self._lifted._commit(call, call.bound.result(returned))
            out = path.writer.commit(returned)
        except BaseException:
            if done and calls[0].bound.donates:  # the old values are gone
                self._lifted._commit(calls[0], calls[0].bound.result(done[0]))
            raise
        path.generate_later()
        return out

    @boundary
    def trace(self, /, *args: Any, **kwargs: Any) -> Traced[R]:
        """Trace the function for the given arguments, as `jax.jit(f).trace`.

        Args:
          *args: Positional arguments; `jax.ShapeDtypeStruct` may replace arrays, also in Variables.
          **kwargs: Keyword arguments.

        Returns:
          The traced stage: `jaxpr`, `out_info`, `lower()`.

        Raises:
          ArgumentTypeError: If an argument that is not static is neither an array nor a module.
        """
        return self._of_arrays(
            args, kwargs, lambda jitted: jitted.trace(*args, **kwargs), lambda: self._trace(args, kwargs)
        )

    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced[R]:
        """Trace the function for arguments with modules."""
        return Traced(self, *self._run(args, kwargs, lambda call: call.bound.trace(call.leaves)))

    @boundary
    def lower(self, /, *args: Any, **kwargs: Any) -> Lowered[R]:
        """Lower the function for the given arguments, as `jax.jit(f).lower`.

        Args:
          *args: Positional arguments; `jax.ShapeDtypeStruct` may replace arrays, also in Variables.
          **kwargs: Keyword arguments.

        Returns:
          The lowered stage: `as_text()`, `cost_analysis()`, `compile()`. A compiled stage is called like the
          function, without the static arguments, and updates the modules.

        Raises:
          ArgumentTypeError: If an argument that is not static is neither an array nor a module.
        """
        return self._of_arrays(
            args,
            kwargs,
            lambda jitted: jitted.lower(*args, **kwargs),
            lambda: self._trace(args, kwargs).lower(),
        )

    @boundary
    def eval_shape(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the shapes and dtypes of the output; nothing is computed and no module is changed.

        Args:
          *args: Positional arguments.
          **kwargs: Keyword arguments.

        Returns:
          The output with `jax.ShapeDtypeStruct` in place of arrays.

        Raises:
          ArgumentTypeError: If an argument that is not static is neither an array nor a module.
        """
        return self._of_arrays(
            args,
            kwargs,
            lambda jitted: jitted.eval_shape(*args, **kwargs),
            lambda: self._trace(args, kwargs).out_info,
        )

    def clear_cache(self) -> None:
        """Drop all compiled programs."""
        self._lifted._clear(lambda bound: bound.clear_cache())
        if self._array_calls is not None:
            self._array_calls.clear()
        self._fast_paths.clear()
        self._last = self._fast_paths.last

    def _transform_by_jax(self, function: Any) -> Any:
        """Apply JAX's transform, which gives the names."""
        return getattr(jax, self._transform)(function)

    @property
    def _cache_size(self) -> Callable[[], int]:
        """The method of `jax.jit` that returns the number of signatures of arguments with a compiled program."""
        jitted: list[Any] = [program.jitted for _, program in self._lifted._bound.values()]
        if self._array_calls is not None:
            jitted.append(self._array_calls.transformed)
        sizes = [each._cache_size for each in jitted if each is not None]
        return lambda: sum(size() for size in sizes)

    def __carried_functions__(self) -> tuple[Any, ...]:
        """Return the functions that may capture modules; see `Lifted`."""
        return self._lifted.__carried_functions__()

    def __copy__(self) -> Self:
        return self  # like a plain function

    def __repr__(self) -> str:
        return repr(self._lifted)

    @property
    def n_traces(self) -> int:
        """The number of traces of the function."""
        return self._traces.count + self._n_found


def _begin_trace_of_arrays(
    lifted: WithStatic[..., Any],
    traces: Traces,
    calls: ArrayCalls,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Callable[[], None]:
    """Record the start of a trace of a function for arrays; return the function to call at its end."""
    flat = _flatten_arrays(lifted, args, kwargs)
    return traces.begin(calls, Plan(flat.graph), flat.arrays)


def _flatten_arrays(lifted: WithStatic[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flat:
    """Flatten arguments without modules."""
    return flatten_call(*lifted._arguments(args, kwargs), _leaf_edge)


def _leaf_edge(leaf: Any, path: Any, arrays: list[Any]) -> Any:
    """Return the edge of a leaf of arguments without modules."""
    if is_argument_array(leaf):
        arrays.append(leaf)
        return ARRAY
    return Static(type(leaf))
