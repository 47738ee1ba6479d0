"""`lift`: makes a JAX-style transform accept functions of modules. The one mechanism behind every transform."""

from __future__ import annotations

import functools
import inspect
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax

from liftnn import errors
from liftnn.graph.description import ARRAY, Description, LeafPaths
from liftnn.graph.kinds import is_object
from liftnn.graph.merge import commit, merge_all
from liftnn.graph.walk import Walk
from liftnn.lifting.bindable import Bindable
from liftnn.lifting.capture import Ways, find_captured, pin
from liftnn.lifting.pure import PureCall, purify
from liftnn.lifting.result import STORED, Plan, Result, name_argument
from liftnn.lifting.values import decode, encode
from liftnn.modules.module import Module
from liftnn.tracebacks import hide_frames
from liftnn.trees import Path, is_argument_array, is_array, key_of
from liftnn.variables import frames
from liftnn.variables.static import Static
from liftnn.variables.type_variables import P, R
from liftnn.variables.variable import Variable

Bind = Callable[..., PureCall]
Finish = Callable[[Any, Any], Any]
T = TypeVar("T")


class StaticArgument:
    """An argument that goes around JAX: it is part of the structure.

    Args:
      value: The argument.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value


_PINNED = StaticArgument(None)
"""Stands in the arguments for what of the captured modules is a constant; see `pin`."""


class Options(NamedTuple):
    """How a transform wants its arguments and functions handled.

    Args:
      name: The transform, for messages.
      finish: Makes the value that the user gets from the function's output and `Result.extra`. The default, None,
        gives the output.
      static_leaves: Whether arguments may have leaves that are neither arrays nor modules; they are then static.
      commit: Whether what the function does to its arguments is put into them. If not, the output is made of copies.
      returned: From a plan, for each node whether its arrays or value come back even if unchanged.
      check: Called with the function's output, as soon as it has returned; raises if it is unfit.
      names: What messages call the positional arguments. The default, none, is `args[0]` and so on.
    """

    name: str
    finish: Finish | None = None
    static_leaves: bool = True
    commit: bool = True
    returned: Callable[[Plan], Sequence[bool] | None] = lambda plan: None
    check: Callable[[Any], Any] | None = None
    names: Sequence[str] = ()


class Call(NamedTuple):
    """One call, taken apart and not yet made.

    Args:
      bound: What `bind` made.
      plan: The structure of the arguments.
      objects: The live objects by number.
      values: The values of the Variables.
      arrays: The bare arrays.
      static: The static arguments by position (None where there is another) and by name.
      ways: How the captured modules were found.
    """

    bound: Any
    plan: Plan
    objects: list[Any]
    values: list[Any]
    arrays: list[Any]
    static: tuple[list[StaticArgument | None], dict[str, Any]]
    ways: Ways | None = None


def lift(
    *functions: Callable[P, Any],
    bind: Bind,
    name: str | None = None,
    finish: Finish | None = None,
    static_leaves: bool = True,
) -> Lifted[P, Any]:
    """Makes a JAX-style transform accept functions of modules.

    Modules anywhere in the arguments are split into values and structure, `bind` applies the transform to a pure
    function of the values, and what the function did to the modules is put back into the same objects, once the
    transform has returned.

    Args:
      *functions: The functions to transform; all are called with the same arguments. A bound method, or a module
        itself, gets its module as argument 0.
      bind: Called as `bind(plan, *pures)`, once for each structure of the arguments. Each pure call takes
        `(values, arrays)`, two lists of arrays, and returns a `Result`, a JAX pytree; `bind` returns a call of the
        same kind, in which the transform has been applied.
      name: What messages call the transform. The default is the name of the function that calls `lift`.
      finish: Called with the function's output and `Result.extra`; gives what the caller gets. The default, None,
        gives the output.
      static_leaves: Whether arguments may have leaves that are neither arrays nor modules, which are then static.
        The default is True.

    Returns:
      The transformed function.

    Raises:
      ArgumentError: If there is no function.

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
        return Lifted(functions, bind, Options(name, finish, static_leaves))
    except Exception as error:
        hide_frames(error)
        raise


class Lifted(Bindable[P, R]):
    """A transformed function: splits its arguments, makes the pure call, and commits what it returns.

    Args:
      functions: The user's functions.
      bind: Applies the transform.
      options: How arguments and functions are handled.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]], bind: Bind, options: Options):
        if not functions:
            raise errors.ArgumentError(f"liftnn.{options.name} needs a function.", "Pass a callable.")
        opened = [open_function(f, options.name) for f in functions]
        self._functions = [function for function, _, _ in opened]
        self._first = opened[0][1]
        self._stored = opened[0][2]
        self._bind = bind
        self._options = options
        self._bound: dict[Description, tuple[Plan, Any]] = {}
        self._found: list[weakref.ref[Any]] = []
        functools.update_wrapper(self, functions[0], updated=())

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the transformed function."""
        try:
            call, result = self._run(args, kwargs, lambda call: call.bound(call.values, call.arrays))
            return self._close(call, result)
        except Exception as error:
            hide_frames(error)
            raise

    def carried_functions(self) -> tuple[Any, ...]:
        """The functions, and the arguments that come with them, in which captured modules may be found."""
        return (*self._functions, *self._first, self._stored)

    def __repr__(self) -> str:
        return f"<liftnn.{self._options.name} of {getattr(self, '__qualname__', self._functions[0])}>"

    def _arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as they are split; a transform with static arguments marks them here."""
        return args, kwargs

    def _run(self, args: Any, kwargs: Any, action: Callable[[Call], T]) -> tuple[Call, T]:
        """Splits the arguments and acts on the call; once more if captured objects turn up that were no inputs."""
        extra: list[Any] = []
        while True:
            call = self._open(args, kwargs, extra)
            try:
                with frames.offer(call.plan, call.objects):
                    return call, action(call)
            except frames.Missing as missing:
                self._note(extra, missing.objects)

    def _note(self, extra: list[Any], objects: Sequence[Any]) -> None:
        """Notes captured objects that are to be inputs in the next try."""
        for x in objects:
            assert not any(x is y for y in extra)
            extra.append(x)
            if x._owner is frames.PLAIN:
                self._found = [r for r in self._found if r() is not None]
                self._found.append(weakref.ref(x))

    def _open(self, args: tuple[Any, ...], kwargs: dict[str, Any], extra: Sequence[Any] = ()) -> Call:
        """Splits the arguments, and what is captured, and finds or makes the bound call for their structure."""
        args, kwargs = self._arguments((*self._first, *args), kwargs)
        stored = self._stored or ((), {})
        captured = find_captured((*self._functions, *_functions_in(*stored), *_functions_in(args, kwargs)))
        roots = dict(captured.roots)
        for x in (*(r() for r in self._found), *extra):
            if x is not None and not any(x is y for y in roots.values()):
                roots[f"captured[{len(roots)}]"] = x
        roots = {
            name: frames.inside(x) for name, x in roots.items() if frames.frames_up_to(x) is not None
        }  # what belongs to a call that is over is left alone
        tree: tuple[Any, ...] = (args, kwargs)
        if self._stored is not None or roots:
            tree = (*tree, stored)
        if roots:
            tree = (*tree, roots, _PINNED)
        names = self._options.names
        graph, found, arrays = take_apart(tree, self._leaf_edge, len(roots), names)
        plan, bound = self._bound.get(graph) or self._make(graph)
        objects = [frames.inside(x) if isinstance(x, Variable) else x for x in found]
        values = values_of(plan, objects)
        by_name = {k: x.value for k, x in kwargs.items() if type(x) is StaticArgument}
        static = [x if type(x) is StaticArgument else None for x in args], by_name
        return Call(bound, plan, objects, values, arrays, static, captured.ways)

    def _leaf_edge(self, leaf: Any, keys: Path, arrays: list[Any]) -> Any:
        """The edge of a leaf of the arguments that is neither an object nor an array."""
        if is_argument_array(leaf) and keys[0] != STORED:
            arrays.append(leaf)
            return ARRAY
        if not self._options.static_leaves and keys[0] != STORED:
            name = name_argument(keys, self._options.names)
            raise errors.ArgumentTypeError(
                f"{name} of liftnn.{self._options.name} is a {type(leaf).__name__}: {leaf!r:.60}."
            )
        return Static(leaf)

    def _make(self, graph: Description) -> tuple[Plan, Any]:
        """Binds the functions for a structure that was not seen before."""
        o = self._options
        plan = Plan(graph, o.names)
        pures = [purify(f, plan, o.name, o.returned(plan), o.check, o.commit) for f in self._functions]
        entry = (plan, self._bind(plan, *pures))
        if len(self._bound) >= 512:  # a static value that never repeats must not fill the memory
            del self._bound[next(iter(self._bound))]
        self._bound[graph] = entry
        return entry

    def _close(self, call: Call, result: Result) -> Any:
        """Puts the result into the objects and gives the caller's output."""
        if self._options.commit:
            _check_writable(call, result)
            out = commit_result(call, result, list(call.objects))
        else:
            out = commit_to_copies(call, result)
        return out if self._options.finish is None else self._options.finish(out, result.extra)


def take_apart(
    tree: Any,
    leaf_edge: Callable[[Any, Path, list[Any]], Any],
    n_captured: int = 0,
    names: Sequence[str] = (),
) -> tuple[Description, list[Any], list[Any]]:
    """Splits `(args, kwargs)` into structure, objects and arrays.

    Args:
      tree: The arguments.
      leaf_edge: Gives the edge of a leaf that is neither an object nor an array, from the leaf, its path, and the
        arrays found so far, which it may extend.
      n_captured: How many leaves before the last are captured modules, whose bare arrays are constants.
      names: What messages call the positional arguments. The default, none, is `args[0]` and so on.

    Returns:
      The structure, the objects by number, and the bare arrays.
    """
    walk = Walk()
    entries, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_leaf)
    edges: list[Any] = []
    arrays: list[Any] = []
    for path, leaf in entries:
        if leaf is _PINNED:
            edges.append(Static(pin(walk, edges[-n_captured:])))
        elif type(leaf) is StaticArgument:
            edges.append(Static(leaf.value))
        elif is_object(leaf) or is_array(leaf):
            walk.root = name_argument(tuple(map(key_of, path[:2])), names)
            edge, found = walk.visit(leaf, tuple(map(key_of, path[2:])))
            edges.append(edge)
            arrays += found
        else:
            edges.append(leaf_edge(leaf, tuple(map(key_of, path)), arrays))
    paths = LeafPaths(path for path, _ in entries)
    graph = Description(treedef, tuple(edges), walk.finished_specs(), tuple(walk.frozen), paths)
    return graph, walk.objects, arrays + [a for found in walk.arrays for a in found]


def values_of(plan: Plan, objects: Sequence[Any]) -> list[Any]:
    """The values of the Variables among some objects, as JAX can take them."""
    return [encode(objects[n].raw_value, lambda n=n: plan.path_of(n)) for n in plan.variables]


def _check_writable(call: Call, result: Result) -> None:
    """Refuses a result that would change an object of another trace."""
    written = [n for n, x in zip(call.plan.variables, result.updates, strict=True) if x is not None]
    for number in (*written, *(number for number, _ in result.change.changed)):
        x = call.objects[number]
        if isinstance(x, (Variable, Module)) and not frames.may_write(x._owner):
            raise frames.write_error(x, "the state", call.plan.path_of(number))


def commit_result(call: Call, result: Result, objects: list[Any]) -> Any:
    """Puts the result of a call into objects.

    Args:
      call: The call.
      result: What it returned.
      objects: The objects to change, by number; new ones are appended.

    Returns:
      The output.
    """
    updates = {
        n: decode(x) for n, x in zip(call.plan.variables, result.updates, strict=True) if x is not None
    }
    new = [decode(x) for x in result.new]
    return commit(result.change, objects, updates, new, result.arrays, frames.owner_now())


def commit_to_copies(call: Call, result: Result) -> Any:
    """The output of an abstract result; argument objects in it are copies, and abstract too."""
    values, arrays = jax.eval_shape(lambda *x: x, call.values, call.arrays)
    _, merged = merge_all(call.plan.graph, values, arrays, frames.owner_now())
    return commit_result(call, result, merged.objects)


def _functions_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The functions among the arguments: they may capture modules too."""
    given = (x.value if type(x) is StaticArgument else x for x in (*args, *kwargs.values()))
    return [x for x in given if callable(x) and not is_object(x)]


def _is_leaf(x: Any) -> bool:
    return type(x) is StaticArgument or is_object(x)


def open_function(
    function: Callable[..., Any], name: str
) -> tuple[Callable[..., Any], tuple[Any, ...], tuple[tuple[Any, ...], dict[str, Any]] | None]:
    """Finds the modules that a callable carries with it.

    Args:
      function: A function, bound method, module or partial.
      name: The transform, for messages.

    Returns:
      The function itself; the arguments that come first (the module of a bound method); and what a partial stores.

    Raises:
      ArgumentTypeError: If it is not callable.
    """
    if isinstance(function, functools.partial):
        inner, first, stored = open_function(function.func, name)
        args, kwargs = stored or ((), {})
        return inner, (), ((*args, *first, *function.args), {**kwargs, **function.keywords})
    if isinstance(function, Module):
        return type(function).__call__, (function,), None
    if isinstance(function, types.MethodType) and is_object(function.__self__):
        return function.__func__, (function.__self__,), None
    if not callable(function):
        raise errors.ArgumentTypeError(
            f"liftnn.{name} needs a function, not a {type(function).__name__}.",
            "Put @classmethod above the transform."
            if isinstance(function, classmethod)
            else "Pass a callable.",
        )
    return function, (), None
