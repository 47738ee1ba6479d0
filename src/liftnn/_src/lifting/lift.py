"""`lift`: the mechanism behind every transform. It makes a JAX-style transform accept functions of modules.

A call of a `Lifted` function flattens the arguments and the captured modules (`flatten_call`), looks up the structure
in a dictionary, and on a cache miss purifies the user's functions and passes them to `bind` with a `Plan`. Then it
calls the bound function with the dynamic leaves, and commits the `Result` to the caller's objects.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import jax
import numpy as np

from liftnn import errors
from liftnn._src.annotations import signature_of
from liftnn._src.captures.missed import Missed
from liftnn._src.graph.description import GraphSpec
from liftnn._src.graph.recipes import Recipe
from liftnn._src.graph.slots import ARRAY, ROOT
from liftnn._src.graph.value_sharing import check_unshared
from liftnn._src.lifting.arguments import StaticArgument, flatten_call, functions_in, functions_stored
from liftnn._src.lifting.array_calls import ArrayCalls
from liftnn._src.lifting.call import Call, check_writable, commit_result, commit_to_copies
from liftnn._src.lifting.callables import Bindable, as_method, is_fixed, is_layer_call, unwrap_callable
from liftnn._src.lifting.contract import STORED, Plan, PureFunction, Result, name_argument
from liftnn._src.lifting.kept import WeakFunction
from liftnn._src.lifting.names import name_of, take_names
from liftnn._src.lifting.offers import Begin, Offer, publish
from liftnn._src.lifting.purify import purify
from liftnn._src.lifting.shown import LEAF_NAME, leaf_names, rename
from liftnn._src.lifting.valueless import explain_leaked, explain_valueless
from liftnn._src.lifting.values import encode, not_dynamic, static_leaf
from liftnn._src.modules.layer_calls import call_in_scope
from liftnn._src.tracebacks import hide_frames
from liftnn._src.trees import Path, is_argument_array, is_jax_array
from liftnn._src.type_variables import P, R
from liftnn._src.variables import frames

Bind = Callable[..., PureFunction]
Finish = Callable[[Any, Any], Any]
T = TypeVar("T")


class LiftOptions(NamedTuple):
    """The options of a transform that control how `Lifted` handles arguments, functions and results.

    Args:
      name: The name of the transform in messages.
      finish: Maps the function's output and `Result.extra` to the value that the caller gets. The default, None,
        returns the output.
      static_leaves: Whether arguments may have leaves that are neither arrays nor modules; such leaves are static.
      commit: Whether changes are propagated to the caller's objects. If not, the output contains copies.
      returned: Maps a plan to one flag for each node: whether its arrays or value are returned even if unchanged.
      has_aux: Whether the output is a pair, whose second element is passed on as it is.
      names: Names of the positional arguments for messages. The default, none, is `args[0]` and so on.
      n_positional: The number of arguments with axes or specs by position. Keyword arguments for these parameters are
        moved to their position.
      weakly: Whether bound functions refer to the user's functions weakly, since they are cached with them.
      of_arrays: JAX's transform of the same functions, for calls without modules. The default, None, means that such
        calls are handled like all others.
      traces_like: The name of the transform with which JAX shares traces of such calls. The default, empty, means none.
      as_methods: Whether the module of a transformed bound method is argument 0, as for the method itself.
      needs_values: Whether all parts of the arguments must have values. If not, an argument of which an enclosing map
        withholds a part is passed as it is, and captured.
      in_plain: Makes calls with modules; called with the arguments and a function that makes the call as usual. The
        default, None, makes it as usual.
    """

    name: str
    finish: Finish | None = None
    static_leaves: bool = True
    commit: bool = True
    returned: Callable[[Plan], Sequence[bool] | None] = lambda plan: None
    has_aux: bool = False
    names: Sequence[str] = ()
    n_positional: int = 0
    weakly: bool = False
    of_arrays: Callable[..., Callable[..., Any]] | None = None
    traces_like: str = ""
    as_methods: bool = False
    needs_values: bool = False
    in_plain: Callable[[tuple[Any, ...], dict[str, Any], Callable[[], Any]], Any] | None = None


def lift(
    *functions: Callable[P, Any],
    bind: Bind,
    name: str | None = None,
    finish: Finish | None = None,
    static_leaves: bool = True,
) -> Lifted[P, Any]:
    """Make a JAX-style transform accept functions of modules.

    `lift` flattens the modules in the arguments into dynamic leaves (Variable values and arrays) and static structure.
    `bind` applies the transform to a pure function of the leaves. When the transform has returned, all changes of the
    modules are propagated to the caller's objects.

    Args:
      *functions: The functions to transform; all are called with the same arguments. For a bound method, or a module
        itself, the module is argument 0.
      bind: Called as `bind(plan, *pures)`, once for each structure of the arguments. Each pure function takes a list
        of dynamic leaves, in the order of `plan.slots`, and returns a `Result`, a JAX pytree; `bind` returns a
        function of the same kind, with the transform applied.
      name: The name of the transform in messages. The default is the name of the function that calls `lift`.
      finish: Called with the function's output and `Result.extra`; returns the value for the caller. The default,
        None, returns the output.
      static_leaves: Whether arguments may have leaves that are neither arrays nor modules; such leaves are static.
        The default is True.

    Returns:
      The transformed function.

    Raises:
      ArgumentError: If no function is given.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> def remat(f):
      ...   return liftnn.lift(f, bind=lambda plan, pure: jax.checkpoint(pure))
      >>> class Count(liftnn.Module):
      ...   def __init__(self):
      ...     self.calls = liftnn.Variable(jnp.array(0))
      >>> def f(count, x):
      ...   count.calls += 1
      ...   return jnp.sin(x)
      >>> count = Count()
      >>> _ = remat(f)(count, 1.0)
      >>> int(count.calls)
      1
    """
    if name is None:
        frame = inspect.currentframe()
        caller = frame.f_back.f_code.co_name if frame is not None and frame.f_back is not None else ""
        name = caller if caller.isidentifier() else "lift"
    try:
        transformed = Lifted(functions, bind, LiftOptions(name, finish, static_leaves, needs_values=True))
    except Exception as error:
        hide_frames(error)
        raise
    options = {"bind": bind, "name": name, "finish": finish, "static_leaves": static_leaves}
    transformed.__recipe__, transformed._others = Recipe(lift, (), options), functions[1:]
    return transformed


class Lifted(Bindable[P, R]):
    """A transformed function: flattens its arguments, calls the bound function, and commits the result.

    Args:
      functions: The user's functions.
      bind: Applies the transform.
      options: The options of the transform.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]], bind: Bind, options: LiftOptions):
        if not functions:
            raise errors.ArgumentError(f"liftnn.{options.name} needs a function.", "Pass a callable.")
        opened = [unwrap_callable(as_method(f) if options.as_methods else f, options.name) for f in functions]
        self._functions = [function for function, _, _ in opened]
        self._leading: tuple[Any, ...] = opened[0][1]
        """The leading arguments, before those of the call: the module of a bound method."""
        self._stored = opened[0][2]
        """The arguments stored in a partial; None if the function is not a partial."""
        self._bind = bind
        self._options = options
        self._bound: dict[GraphSpec, tuple[Plan, Any]] = {}
        """The plan and the result of `bind`, by structure."""
        self._missed = Missed()
        self._begin_trace: Begin | None = None
        """Records the traces of bound functions."""
        self._array_calls: ArrayCalls | None = None
        if options.of_arrays is not None and not self._leading and is_fixed(self._stored):
            self._array_calls = ArrayCalls(functions, options.traces_like or options.name, options.of_arrays)
        self._is_layer_call = is_layer_call(functions[0])
        take_names(self, functions[0])

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the transformed function."""
        try:
            if self._array_calls is None:
                return self._call(args, kwargs)
            return self._call_of_arrays(self._array_calls, args, kwargs)
        except Exception as error:
            hide_frames(error)
            raise

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call with modules."""
        in_plain = self._options.in_plain
        if in_plain is None:
            return self._call_here(args, kwargs)
        return in_plain(args, kwargs, lambda: self._call_here(args, kwargs))

    def _call_here(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call with modules; JAX traces the functions."""
        call, result = self._run(args, kwargs, lambda call: call.bound(call.leaves))
        return self._commit(call, result)

    def _clear(self, action: Callable[[Any], None]) -> None:
        """Forget all bound functions.

        Args:
          action: Called with each of them.
        """
        for _, bound in self._bound.values():
            action(bound)
        self._bound.clear()

    def _transform_by_jax(self, function: Any) -> Any:
        """Apply JAX's transform, which gives the names."""
        return (self._options.of_arrays or super()._transform_by_jax)(function)

    def __carried_functions__(self) -> tuple[Any, ...]:
        """Return the functions and their stored arguments, which may capture modules."""
        return (*self._functions, *self._leading, self._stored)

    def _bind_to(self, plan: Plan, *pures: PureFunction) -> Any:
        """Return the bound function for a structure; it must not refer to this object, which caches it."""
        return self._bind(plan, *pures)

    def __copy__(self) -> Self:
        return self  # like a plain function

    def __repr__(self) -> str:
        return f"<liftnn.{self._options.name} of {name_of(self)}>"

    def _call_of_arrays(self, calls: ArrayCalls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call that may be without modules."""
        return calls(args, kwargs, lambda: self._call(args, kwargs), self._arguments(args, kwargs))

    def _arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments to flatten; a transform with static arguments marks them here."""
        return args, kwargs

    def _run(self, args: Any, kwargs: Any, action: Callable[[Call], T]) -> tuple[Call, T]:
        """Flatten the arguments and act on the call, in the scope of the layer whose `__call__` this is."""
        if self._is_layer_call and args:
            return call_in_scope(args[0], self._attempt, args, kwargs, action)
        return self._attempt(args, kwargs, action)

    def _attempt(self, args: Any, kwargs: Any, action: Callable[[Call], T]) -> tuple[Call, T]:
        """Flatten the arguments and act on the call.

        Both are repeated if captured objects were missed, or if an argument of another axis must be captured instead.
        """
        extra: list[Any] = []
        owners: set[Path] = set()
        while True:
            try:
                call = self._flatten_call(args, kwargs, extra, owners)
                return call, self._act(call, action, args, kwargs)
            except frames.RetryAsCapture as retry:
                owners.add(retry.leaf)
            except frames.RetryWithCaptures as retry:
                self._note(extra, retry.objects)

    def _act(self, call: Call, action: Callable[[Call], T], args: Any, kwargs: Any) -> T:
        """Act on a call; if it raises, the numpy arrays of modules are restored."""
        numpy = _copy_numpy(call)
        try:
            with publish(
                Offer(call.plan, lambda: call.objects, call.guards, self._begin_trace, call.uncopied)
            ):
                return action(call)
        except BaseException as error:
            for x, copy in numpy:
                x[...] = copy
            if not isinstance(error, (frames.RetryAsCapture, frames.RetryWithCaptures)):
                explain_valueless(error, call.plan, call.leaves, self._options.name)
                explain_leaked(error, self._functions_of(args, kwargs), self._options.name)
                rename(error, LEAF_NAME, leaf_names(call.plan))
            raise

    def _note(self, extra: list[Any], objects: Sequence[Any]) -> None:
        """Record captured objects that the next attempt takes as inputs."""
        for x in objects:
            assert not any(x is y for y in extra)
            extra.append(x)
            self._missed.add(frames.origin_of(x) if self._options.weakly else x)

    def _flatten_call(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        extra: Sequence[Any] = (),
        owners: Collection[Path] = (),
    ) -> Call:
        """Flatten the arguments and captured modules, and look up or make the bound function for their structure."""

        def is_uncopied(x: Any, path: Path) -> bool:
            return path in owners or (not self._options.needs_values and frames.is_withheld(x))

        args, kwargs = self._arguments(*self._in_place((*self._leading, *args), kwargs))
        while True:
            flat = flatten_call(
                args,
                kwargs,
                self._leaf_edge,
                stored=self._stored,
                functions=self._functions_of(args, kwargs),
                used=[*self._missed.to_use(), *extra],
                to_guard=self._missed.to_guard() if self._options.weakly else (),
                names=self._options.names,
                is_uncopied=is_uncopied if owners or not frames.is_plain() else None,
            )
            is_kept = self._options.weakly and bool(self._missed)
            if not is_kept or not self._missed.settle(
                flat.unreached, f"liftnn.{self._options.name} of {name_of(self)}"
            ):
                break
        plan, bound = self._bound.get(flat.graph) or self._make(flat.graph)
        leaves = [*values_of(plan, flat.objects), *flat.arrays]
        by_name = {k: x.value for k, x in kwargs.items() if type(x) is StaticArgument}
        static = [x if type(x) is StaticArgument else None for x in args], by_name
        return Call(bound, plan, flat.objects, leaves, static, flat.guards, flat.uncopied)

    def _functions_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Return the functions of a call, which may capture modules."""
        return [*self._functions, *functions_stored(self._stored), *functions_in(args, kwargs)]

    def _in_place(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Move keyword arguments with axes or specs to their position; take defaults for those that are missing.

        For a bound method there are no defaults: the entry that has no argument may be that of the module.
        """
        missing = self._options.n_positional + len(self._leading) - len(args)
        if missing <= 0:
            return args, kwargs
        try:
            parameters = list(signature_of(self._functions[0]).parameters.values())
        except (TypeError, ValueError):  # the function has no signature
            return args, kwargs
        kwargs = dict(kwargs)
        for parameter in parameters[len(args) :][:missing]:
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name in kwargs:
                args = (*args, kwargs.pop(parameter.name))
            elif (
                self._leading
                or parameter.kind is parameter.KEYWORD_ONLY
                or parameter.default is parameter.empty
            ):
                break
            else:
                args = (*args, parameter.default)
        return args, kwargs

    def _leaf_edge(self, leaf: Any, keys: Path, arrays: list[Any]) -> Any:
        """Return the edge of a leaf of the arguments that is neither an object nor an array."""
        is_dynamic = is_argument_array(leaf) or isinstance(leaf, jax.Ref)
        if is_dynamic and keys[0] != STORED:
            arrays.append(leaf)
            return ARRAY
        if not self._options.static_leaves and keys[0] != STORED:
            name = name_argument(keys, self._options.names)
            raise not_dynamic(leaf, name, self._options.name)
        return static_leaf(leaf, lambda: name_argument(keys, self._options.names))

    def _make(self, graph: GraphSpec) -> tuple[Plan, Any]:
        """Bind the functions for a new structure."""
        o = self._options
        plan = Plan(graph, o.names)
        called = map(WeakFunction, self._functions) if o.weakly else self._functions
        pures = [purify(f, plan, o.name, o.returned(plan), o.has_aux, o.commit) for f in called]
        entry = (plan, self._bind_to(plan, *pures))
        if len(self._bound) >= 512:  # a static value that never repeats must not fill the memory
            self._bound.pop(next(iter(self._bound)), None)
        return self._bound.setdefault(graph, entry)  # another thread may have bound it first

    def _commit(self, call: Call, result: Result) -> Any:
        """Write the result to the objects and return the caller's output."""
        of_output = self._options.finish
        finish = None if of_output is None else lambda out: of_output(out, result.extra)
        if not self._options.commit:
            return commit_to_copies(call, result, finish)
        check_writable(call, result)
        return commit_result(call, result, list(call.objects), finish)


def _copy_numpy(call: Call) -> list[tuple[Any, Any]]:
    """Return the numpy arrays that modules hold, with copies to restore them: code can change them in place."""
    pairs = zip(call.plan.slots, call.leaves, strict=True)
    values = [x for slot, x in pairs if slot.node != ROOT and not is_jax_array(x)]
    return [(x, x.copy()) for x in jax.tree.leaves(values) if type(x) is np.ndarray and x.flags.writeable]


def values_of(plan: Plan, objects: Sequence[Any]) -> list[Any]:
    """Return the values of the Variables among objects of the innermost frame, encoded for JAX."""
    values = [objects[n]._storage.value for n in plan.variables]
    if all(map(is_jax_array, values)):  # the common case
        return values
    check_unshared(dict(zip(plan.variables, values, strict=True)), plan.path_of)
    pairs = zip(plan.variables, values, strict=True)
    return [encode(value, lambda n=n: plan.path_of(n)) for n, value in pairs]
