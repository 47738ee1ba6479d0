"""The compiled function that `jit` gives: its calls, its stages, and how often it has been traced."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax

from liftnn import errors
from liftnn.axes.state_sharding import as_prefixes
from liftnn.lifting.bindable import Bindable
from liftnn.lifting.lift import Call, Options, commit_to_copies
from liftnn.lifting.pure import PureCall
from liftnn.lifting.result import Plan, Result
from liftnn.programs.donation import find_kept
from liftnn.programs.fast_paths import FastPaths
from liftnn.programs.program import Program
from liftnn.programs.retraces import Traces
from liftnn.programs.signature import select
from liftnn.programs.source import MISS
from liftnn.programs.stages import Lowered, Traced
from liftnn.programs.static_arguments import WithStatic
from liftnn.tracebacks import boundary, hide_frames
from liftnn.variables import frames
from liftnn.variables.type_variables import P, R
from liftnn.variables.watch import changes

Wrap = Callable[[Plan, PureCall, bool], PureCall]
"""Applies another transform below the compilation; told the arguments, the pure call, and whether the module of a bound
method comes first."""


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
    ):
        lift_options = Options(transform, static_leaves=False, returned=self._returned)
        self._lifted: WithStatic[P, R] = WithStatic(f, self._bind_call, lift_options, *static)
        functools.update_wrapper(self, f, updated=())
        self._traces = Traces(
            f"liftnn.{transform} of {getattr(self, '__qualname__', 'a function')}", max_traces
        )
        self._donate = select(self._lifted.called, donate[0], donate[1], "donate")
        both = self._lifted.static.common(self._donate)
        if both:
            raise errors.ArgumentError(
                f"Arguments cannot be both static and donated: {', '.join(map(repr, both))}.",
                "Leave them out of one of the two.",
            )
        self._donate_written = donate_written
        self._shardings = tuple(map(as_prefixes, shardings))
        self._jit_options = dict(options or {})
        self._wrap = wrap
        self.plans = FastPaths()
        self._last: Callable[[], Any] = self.plans.last
        """The fast path that was used last."""
        self._leading = self._lifted.leading

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
            return self._lifted(*args[len(self._leading) :], **kwargs)
        out = self.plans.call(args, kwargs)
        if out is MISS:
            out = self._first_call(args, kwargs)
        self._last = self.plans.last
        return out

    def _first_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that no fast path can make: flattens the arguments and makes one."""
        since = changes.count
        call, returned = self._lifted._run(
            args[len(self._leading) :], kwargs, lambda call: call.bound.run(call.values, call.arrays)
        )
        path = self.plans.add(call, args, kwargs, since, self._lifted.stored)
        if path is None:
            return self._lifted._close(call, call.bound.result(returned))
        out = path.writer.close(returned)
        self.plans.settle(path)
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
        call, traced = self._lifted._run(
            args, kwargs, lambda call: call.bound.trace(call.values, call.arrays)
        )
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
        call, result = self._lifted._run(
            args, kwargs, lambda call: jax.eval_shape(call.bound, call.values, call.arrays)
        )
        return self.output_of(call, result)

    def clear_cache(self) -> None:
        """Forgets all compiled programs."""
        self._lifted.clear(lambda bound: bound.clear_cache())
        self.plans.clear()
        self._last = self.plans.last

    def carried_functions(self) -> tuple[Any, ...]:
        """The functions in which captured modules may be found; see `Lifted`."""
        return self._lifted.carried_functions()

    def __copy__(self) -> Self:
        return self  # as a function

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return repr(self._lifted)

    def commit(self, call: Call, result: Result) -> Any:
        """Puts the result of a call into the objects and gives the output."""
        return self._lifted._close(call, result)

    def output_of(self, call: Call, result: Result) -> Any:
        """The output of a result that must not touch the arguments."""
        return commit_to_copies(call, result)

    def _donated_leaves(self, plan: Plan) -> list[int]:
        """The leaves of the donated arguments."""
        positional, named = plan.arguments
        donated = [positional[i] for i in sorted(self._donate.positions(len(positional)))]
        donated += [argument for name, argument in named.items() if name in self._donate.names]
        return [leaf for argument in donated for leaf in argument.leaves]

    def _returned(self, plan: Plan) -> list[bool] | None:
        if not self._donate:
            return None
        donated = plan.reach(self._donated_leaves(plan)).keys() - find_kept(plan)
        return [number in donated for number in range(len(plan.graph.specs))]

    @property
    def n_traces(self) -> int:
        """How often the function has been traced."""
        return self._traces.count

    def _bind_call(self, plan: Plan, pure: PureCall) -> Program:
        if self._wrap is not None:
            pure = self._wrap(plan, pure, bool(self._leading))
        traces = self._traces  # not `self`: a model keeps its programs, and must not keep the function itself

        def counted(values: Sequence[Any], arrays: Sequence[Any]) -> Result:
            if program.is_abstract:
                return pure(values, arrays)
            if not frames.is_offered(plan):
                raise frames.RetraceNeeded
            trace = traces.begin(plan, values, arrays)
            result = pure(values, arrays)
            traces.end(trace)
            return result

        counted.__wrapped__ = self._lifted._functions[0]  # pyright: ignore[reportFunctionMemberAccess]  # as by functools.wraps
        counted.__name__ = counted.__qualname__ = getattr(self, "__name__", "call")
        donated = self._donated_leaves(plan)
        program = Program(plan, counted, donated, self._shardings, self._jit_options, self._donate_written)
        return program
