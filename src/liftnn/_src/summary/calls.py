"""The calls of the methods of a model's modules, recorded in an abstract trace, for `tabulate`."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import jax

from liftnn._src.compilation.jit import jit
from liftnn._src.compilation.shape import eval_shape
from liftnn._src.graph.graphdef import merge, split
from liftnn._src.graph.kinds import is_object
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.modules.methods import is_method, subclass_without_hooks
from liftnn._src.modules.module import Module
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.summary.flops import FlopCounter
from liftnn._src.summary.value_text import value_text
from liftnn._src.trees import Path, holds_no_numbers, is_array
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable


class CallInfo(NamedTuple):
    """One call of a method of a module.

    Args:
      path: The path of the module, followed by the name of the method unless it is `__call__`.
      type: The class of the module.
      inputs: The arguments: a tuple of positional ones and a dict of others, with arrays as `jax.ShapeDtypeStruct`.
      outputs: The result, with arrays as `jax.ShapeDtypeStruct`.
      variables: The Variables of the module by path from it, with those of its submodules, with shapes as values.
      flops: The floating point operations of the call; None if they are not requested.
      vjp_flops: The same with the backward pass.
      module_path: The path of the module.
      has_unknown_loops: Whether the call has a loop of unknown length, whose body counts once.
    """

    path: Path
    type: type
    inputs: Any
    outputs: Any
    variables: Mapping[Path, Any]
    flops: float | None = None
    vjp_flops: float | None = None
    module_path: Path = ()
    has_unknown_loops: bool = False


class _Recorder(threading.local):
    """Called around each call of a method in this thread; None if nothing is recorded."""

    record: Callable[..., Any] | None = None


_recorder = _Recorder()


@contextlib.contextmanager
def _recorded_by(record: Any) -> Generator[None]:
    outer, _recorder.record = _recorder.record, record
    try:
        yield
    finally:
        _recorder.record = outer


@functools.lru_cache(maxsize=1024)
def _recording(cls: Any, path: Path, methods: tuple[tuple[str, Any], ...]) -> type:
    """Return a subclass, for the module at a path, whose methods report their calls."""
    body = {"_recorded_path": path, "_recorded_class": cls}
    return subclass_without_hooks(cls, {**body, **{name: _reporting(name, f) for name, f in methods}})


def _methods(cls: Any, method: str) -> tuple[tuple[str, Any], ...]:
    """Return the methods that are recorded, by name: `__call__`, the requested one, and the public ones."""
    public = [name for name in dir(cls) if not name.startswith("_") and not hasattr(Module, name)]
    static = {name: inspect.getattr_static(cls, name) for name in public}
    # the call of a generator function runs nothing yet
    functions = [name for name, f in static.items() if is_method(f) and not inspect.isgeneratorfunction(f)]
    requested = [name for name in ("__call__", method) if hasattr(cls, name)]
    others = (staticmethod, classmethod, property)
    called = [name for name in requested if not isinstance(inspect.getattr_static(cls, name), others)]
    names = dict.fromkeys([*called, *functions])
    return tuple([(name, getattr(cls, name)) for name in names])


def _reporting(name: str, original: Any) -> Any:
    """Return a method that reports its call, unless nothing is recorded."""

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _recorder.record is None:
            return original(self, *args, **kwargs)
        return _recorder.record(self, name, original, args, kwargs)

    return call


def as_shapes(tree: Any) -> Any:
    """Return a tree with `jax.ShapeDtypeStruct` in place of arrays, also in copies of its modules."""

    def convert(x: Any) -> Any:
        if isinstance(x, Module):
            state, graphdef = split(x)
            return merge(graphdef, jax.tree.map(convert, state))
        if isinstance(x, Variable):
            x = x.value
        return jax.ShapeDtypeStruct(x.shape, x.dtype) if is_array(x) else x

    return jax.tree.map(convert, tree, is_leaf=lambda x: isinstance(x, (Variable, Module)))


class _FunctionText:
    """What tables show of a function, which may hold the module or another traced object.

    Args:
      function: The function.
    """

    def __init__(self, function: Any):
        self._text = value_text(function)

    def __repr__(self) -> str:
        return self._text


def _without_functions(tree: Any) -> Any:
    """Return a tree with `_FunctionText` in place of functions."""
    return jax.tree.map(lambda x: _FunctionText(x) if _is_function(x) else x, tree, is_leaf=is_object)


def _is_function(x: Any) -> bool:
    return callable(x) and not is_object(x) and not isinstance(x, type)


class Records:
    """The calls that one call of a model makes.

    Args:
      count: Whether the floating point operations are counted, and whether with the backward pass.
    """

    def __init__(self, *, count: tuple[bool, bool] = (False, False)):
        self._flops, self._vjp_flops = count
        self._calls: dict[int, CallInfo] = {}
        self._seen: set[tuple[Path, str]] = set()
        self._started = 0
        self._programs: dict[int, Any] = {}
        self._results: dict[int, int] = {}
        """The number of arrays that each call returns; in its program they follow what it writes."""

    def trace(self, model: Any, method: str, args: Any, kwargs: Any) -> list[CallInfo]:
        """Call a copy of the model with abstract arrays, and return the calls in order.

        Args:
          model: The model.
          method: The name of the method to call.
          args: The positional arguments, with arrays or `jax.ShapeDtypeStruct`.
          kwargs: The other arguments.
        """
        state, graphdef = split(model)
        dynamic, rebuild = _split_dynamic((args, kwargs))
        flat = state.flat()  # a State is as deep as the model, and JAX flattens recursively
        traced = {path: x for path, x in flat.items() if not any(map(holds_no_numbers, jax.tree.leaves(x)))}
        paths, others = tuple(traced), {path: unwrap_raw(x) for path, x in flat.items() if path not in traced}

        def run(variables: list[Any], dynamic: list[Any]) -> None:
            self._start_over()  # a call that uses a module that was not found before is traced again
            copy = merge(graphdef, State.from_flat({**others, **dict(zip(paths, variables, strict=True))}))
            methods_of = functools.cache(_methods)  # once for each class of the table
            for path, x in [(p, x) for p, x in iter_graph(copy) if isinstance(x, Module)]:
                if not isinstance(x, (Rngs, RngStream)):
                    methods = methods_of(type(x), method if x is copy else "__call__")
                    object.__setattr__(x, "__class__", _recording(type(x), path, methods))
            args, kwargs = rebuild(dynamic)
            with _recorded_by(self._record):
                getattr(copy, method)(*args, **kwargs)

        eval_shape(run, list(traced.values()), dynamic)  # it takes modules, and changes none of them
        if self._flops or self._vjp_flops:
            self._count()
        return [self._calls[number] for number in sorted(self._calls)]

    def _start_over(self) -> None:
        """Forget the calls so far."""
        for found in (self._calls, self._seen, self._programs, self._results):
            found.clear()
        self._started = 0

    def _record(self, x: Any, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        """Call a method, and record the call unless it was recorded before with the same shapes."""
        path = (*x._recorded_path, *([] if name == "__call__" else [name]))
        inputs = _without_functions(as_shapes((args, kwargs)))
        identity = (path, repr(inputs))
        if identity in self._seen:
            return original(x, *args, **kwargs)
        self._seen.add(identity)
        number = self._started
        self._started += 1
        state, _ = split(x)
        found = state.flat().items()
        variables = {p: v.replace(as_shapes(v.value)) for p, v in found if isinstance(v, Variable)}
        call = self._as_program if self._flops or self._vjp_flops else _call
        out = call(number, x, original, args, kwargs)
        self._results[number] = sum(map(is_array, jax.tree.leaves(out, is_leaf=is_object)))
        self._calls[number] = CallInfo(
            path,
            x._recorded_class,
            inputs,
            _without_functions(as_shapes(out)),
            variables,
            module_path=x._recorded_path,
        )
        return out

    def _as_program(self, number: int, x: Any, original: Any, args: Any, kwargs: Any) -> Any:
        """Call a method as a program, and keep that; its inputs and outputs are arrays and modules.

        The program in the trace of the whole model may differ, as that of a gradient does, or not be there.
        """
        dynamic, rebuild = _split_dynamic((args, kwargs))
        results: list[Callable[[list[Any]], Any] | None] = []

        @jit
        def call(x: Any, dynamic: list[Any]) -> list[Any]:
            args, kwargs = rebuild(dynamic)
            out = original(x, *args, **kwargs)
            outputs, rebuild_output = _split_dynamic(out)
            results.append(None if _runs_later(out) else rebuild_output)
            return outputs

        self._programs[number] = call.trace(x, dynamic).jaxpr
        rebuild_output = results[-1]
        return original(x, *args, **kwargs) if rebuild_output is None else rebuild_output(call(x, dynamic))

    def _count(self) -> None:
        """Add the floating point operations to the calls, from the program of each."""
        counter = FlopCounter()
        for number, call in self._calls.items():
            closed, results = self._programs[number], self._results[number]
            forward = counter.count(closed, results) if self._flops else None
            backward = counter.count(closed, results, backward=True) if self._vjp_flops else None
            self._calls[number] = call._replace(
                flops=forward and forward.flops,
                vjp_flops=backward and backward.flops,
                has_unknown_loops=any(x.has_unknown_loops for x in (forward, backward) if x),
            )


def _call(number: int, x: Any, original: Any, args: Any, kwargs: Any) -> Any:
    """Call a method; the number is that of `Records._as_program`."""
    return original(x, *args, **kwargs)


def _runs_later(out: Any) -> bool:
    """Return whether a result has functions, which could not run after the end of the program."""
    return any(map(_is_function, jax.tree.leaves(out, is_leaf=is_object)))


def _split_dynamic(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Return the arrays and modules of a tree, and a function that puts others in their place.

    A transform would trace numbers, which may be shapes or flags, and takes no text and no functions.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_object)
    dynamic = [is_array(x) or is_object(x) for x in leaves]
    static = [None if d else x for x, d in zip(leaves, dynamic, strict=True)]  # holds no tracer

    def rebuild(new: list[Any]) -> Any:
        rest = iter(new)
        return treedef.unflatten([next(rest) if d else x for x, d in zip(static, dynamic, strict=True)])

    return [x for x, d in zip(leaves, dynamic, strict=True) if d], rebuild
