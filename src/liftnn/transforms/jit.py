"""`jit`: compiles a function of modules; what it does to them comes out of the compiled program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Concatenate, Protocol, overload

import jax

from liftnn import errors
from liftnn.graph import frames
from liftnn.graph.kinds import is_object
from liftnn.graph.type_variables import P, R
from liftnn.graph.watch import changes
from liftnn.lifting.configure import Given, configurable
from liftnn.lifting.lift import Call, Options, commit_to_copies
from liftnn.lifting.plan_cache import PlanCache
from liftnn.lifting.pure import PureCall
from liftnn.lifting.result import Plan, Result
from liftnn.lifting.signature import select
from liftnn.lifting.warm_call import WarmCalls
from liftnn.tracebacks import boundary
from liftnn.transforms.program import Program
from liftnn.transforms.retraces import Traces
from liftnn.transforms.stages import Lowered, Traced
from liftnn.transforms.state_sharding import as_prefixes
from liftnn.transforms.static_arguments import WithStatic


class GivesJitted(Protocol[Given]):
    """How `jit` looks to a type checker."""

    @overload
    def __call__(self, f: Callable[P, R], /, *args: Given.args, **options: Given.kwargs) -> Jitted[P, R]: ...

    @overload
    def __call__(
        self, *args: Given.args, **options: Given.kwargs
    ) -> Callable[[Callable[P, R]], Jitted[P, R]]: ...


def gives_jitted(
    transform: Callable[Concatenate[Callable[..., Any], Given], Jitted[..., Any]],
) -> GivesJitted[Given]:
    """`configurable`, for a transform that gives a compiled function of the same signature."""
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
    """Compiles a function, as `jax.jit`; modules may be anywhere among its arguments and results.

    The function is traced once for each structure of the modules and each shape and dtype of the arrays. What it
    does to the modules comes out of the compiled program each time: values written, attributes set, added, replaced
    or deleted, lists grown, static values and metadata changed.

    Args:
      f: A function, a bound method or a module; a method's module is argument 0.
      in_shardings: The sharding of each argument, a tree prefix of the positional arguments; of a module, one for
        all it reaches, `StateSharding`, or a State of shardings. The default, None, takes the arrays as they are
        placed.
      out_shardings: The same for the output. The default, None, leaves it to the compiler.
      static_argnums: Positions of arguments that are compile-time constants; they must be hashable.
      static_argnames: Their names. As in `jax.jit`, one of the two options implies the other.
      donate_argnums: Positions of arguments whose buffers the program may reuse. Of a module, all Variables are
        donated, and all come back.
      donate_argnames: Their names.
      donate_written: Whether to donate exactly the buffers of the Variables that the call overwrites, whichever
        argument they belong to. The default is False. It costs one more abstract pass when a structure is first seen.
      keep_unused: Whether to keep arguments that the function does not use. The default is False.
      device: The device to run on; deprecated in JAX, use shardings.
      backend: The backend to run on; deprecated in JAX, use shardings.
      inline: Whether to inline the function into enclosing jaxprs. The default is False.
      compiler_options: Options for XLA.
      max_traces: How often the function may be traced before it is an error. The default, None, means any number.

    Returns:
      The compiled function, with `trace`, `lower`, `eval_shape`, `clear_cache` and `n_traces`.

    Raises:
      ArgumentError: If an option names an argument that the function does not have; when called, if a static
        argument is not hashable.
      ArgumentTypeError: When called, if an argument is neither array nor module, nor static.
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
    given = {
        "keep_unused": keep_unused or None,
        "device": device,
        "backend": backend,
        "inline": inline or None,
        "compiler_options": compiler_options,
    }
    options = {name: value for name, value in given.items() if value is not None}
    static = (static_argnums, static_argnames)
    donate = (donate_argnums, donate_argnames)
    return Jitted(f, static, donate, (in_shardings, out_shardings), options, donate_written, max_traces)


class Jitted(WarmCalls[P, R], WithStatic[P, R]):
    """A compiled function: calls it, and gives its stages and counts.

    Args:
      f: The user's function.
      static: `static_argnums` and `static_argnames`, and what these are called before `_argnums` if not `"static"`.
      donate: `donate_argnums` and `donate_argnames`.
      shardings: `in_shardings` and `out_shardings`.
      options: Options of `jax.jit`.
      donate_written: Whether to donate what the call overwrites.
      max_traces: How often the function may be traced.
      transform: What messages call the transform.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        static: Any,
        donate: Any,
        shardings: Any,
        options: dict[str, Any],
        donate_written: bool = False,
        max_traces: int | None = None,
        transform: str = "jit",
    ):
        lift_options = Options(transform, static_leaves=False, returned=self._returned)
        super().__init__(f, self._bind_call, lift_options, *static)
        self._traces = Traces(
            f"liftnn.{transform} of {getattr(self, '__qualname__', 'a function')}", max_traces
        )
        self._donate = select(self._called, donate[0], donate[1], "donate")
        both = set(self._static.nums) & set(self._donate.nums) or set(self._static.names) & set(
            self._donate.names
        )
        if both:
            raise errors.ArgumentError(
                f"Arguments cannot be both static and donated: {', '.join(map(repr, sorted(both)))}.",
                "Leave them out of one of the two.",
            )
        self._donate_written = donate_written
        self._shardings = tuple(map(as_prefixes, shardings))
        self._jit_options = options
        self.plans = PlanCache()
        self.leading = tuple(self._first)

    def call_otherwise(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that is not known by its arguments: the first one, with modules in trees, or inside a transform."""
        if not frames.is_plain():
            return WithStatic.__call__(self, *args, **kwargs)
        marked = self._arguments((*self._first, *args), kwargs)
        tree = marked if self._stored is None else (*marked, self._stored)
        leaves, treedef = jax.tree.flatten(tree, is_leaf=is_object)
        key = self.plans.key(treedef, leaves, bool(self._static))
        plan = self.plans.find(key)
        if plan is None:
            return self._call_first(key, leaves, args, kwargs)
        if plan.direct is not None:  # the last call was another one
            self.plans.make_direct(plan, (*self._first, *args), kwargs)
        try:
            return plan.run(leaves)
        except TypeError:  # an argument or value that JAX cannot take; this way says what, or encodes it
            pass
        return self._call_first(key, leaves, args, kwargs)

    def _call_first(self, key: Any, leaves: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that has no plan yet: walks the arguments and makes one."""
        since = changes.count
        call, returned = self._run(args, kwargs, lambda call: call.bound.run(call.values, call.arrays))
        given = ((*self._first, *args), kwargs) if self._stored is None else None
        plan = self.plans.add(key, given, call, leaves, since)
        if plan is not None:
            return plan.close(leaves, returned)
        return self._close(call, call.bound.result(returned))

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
        call, traced = self._run(args, kwargs, lambda call: call.bound.trace(call.values, call.arrays))
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
        call, result = self._run(
            args, kwargs, lambda call: jax.eval_shape(call.bound, call.values, call.arrays)
        )
        return self.output_of(call, result)

    def clear_cache(self) -> None:
        """Forgets all compiled programs."""
        for _, bound in self._bound.values():
            bound.clear_cache()
        self._bound.clear()
        self.plans.clear()

    def output_of(self, call: Call, result: Result) -> Any:
        """The output of a result that must not touch the arguments."""
        return commit_to_copies(call, result)

    def open_without_static(self, like: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Splits arguments that come without the static ones, which are those of another call."""
        count = len(like.static[0])
        if not self._static or len(args) + len(self._first) == count:
            return self._open(args, {**like.static[1], **kwargs})
        rest = iter((*self._first, *args))
        try:
            full = [next(rest) if x is None else x.value for x in like.static[0]]
        except StopIteration:
            full = list(args)
        return self._open(tuple(full[len(self._first) :]), {**like.static[1], **kwargs})

    def _donated_leaves(self, plan: Plan) -> list[int]:
        """The leaves of the donated arguments."""
        positional, named = plan.arguments
        donated = [positional[i] for i in sorted(self._donate.positions(len(positional)))]
        donated += [argument for name, argument in named.items() if name in self._donate.names]
        return [leaf for argument in donated for leaf in argument.leaves]

    def _returned(self, plan: Plan) -> list[bool] | None:
        if not self._donate:
            return None
        donated = plan.reach(self._donated_leaves(plan))
        return [number in donated for number in range(len(plan.graph.specs))]

    @property
    def n_traces(self) -> int:
        """How often the function has been traced."""
        return self._traces.count

    def _bind_call(self, plan: Plan, pure: PureCall) -> Program:
        traces = self._traces  # not `self`: a model keeps its programs, and must not keep the function itself

        def counted(values: Sequence[Any], arrays: Sequence[Any]) -> Result:
            if program.is_abstract:
                return pure(values, arrays)
            trace = traces.begin(plan, values, arrays)
            result = pure(values, arrays)
            traces.end(trace)
            return result

        counted.__wrapped__ = self._functions[0]  # pyright: ignore[reportFunctionMemberAccess]  # as by functools.wraps
        counted.__name__ = counted.__qualname__ = getattr(self, "__name__", "call")
        donated = self._donated_leaves(plan)
        program = Program(plan, counted, donated, self._shardings, self._jit_options, self._donate_written)
        return program
