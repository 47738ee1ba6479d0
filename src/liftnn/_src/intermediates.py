"""`capture`: call a module and return what it records, without a trace in the module."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.attributes import attributes_of
from liftnn._src.lifting.callables import unwrap_callable
from liftnn._src.lifting.contract import Plan, PureFunction
from liftnn._src.lifting.lift import lift
from liftnn._src.modules.iterate import iter_modules
from liftnn._src.modules.methods import is_method, name_of_method, subclass_without_hooks
from liftnn._src.modules.module import Module
from liftnn._src.modules.recording import RECORDS
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, format_path, is_argument_array, list_paths
from liftnn._src.variables.state import State, as_state
from liftnn._src.variables.variable import Variable


@boundary
def capture(
    fn: Any,
    *var_types: type[Variable[Any]],
    init: Mapping[Any, Any] | None = None,
    method_outputs: type[Variable[Any]] | None = None,
) -> Callable[..., Any]:
    """Wrap a function of a module so that it also returns the values that the module and its submodules record.

    They record with `Module.sow` and `Module.perturb`. The values are returned and not stored in the module. The
    wrapped function works in and around every transform; the module's other changes are propagated.

    Args:
      fn: A function whose first argument is the module, a module, or a bound method of one. If it is a type of
        Variable, it counts as the first of `var_types`, and the result is a decorator.
      *var_types: The types of Variables to capture, such as `Intermediate`. What is recorded with another type is
        dropped; without types, everything is.
      init: A State of initial values, or nested dicts of Variables, such as the perturbations of an earlier call. The
        default, None, means none.
      method_outputs: Also record what the methods of all modules return, with this type and under the name of the
        method. Methods that return something else than arrays, and private ones other than `__call__`, are left out.
        The default, None, records no outputs.

    Returns:
      A function that returns `(out, *states)`: the output of `fn`, and a State for each type; just the output if there
      are no types. Numbers in the output become arrays.

    Raises:
      ArgumentTypeError: If `fn` cannot be called, is async or a generator function, or an initial value is not a
        Variable; when called, if the first argument is not a module.
      ArgumentError: When called, if no module has the path of an initial value.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> class Net(liftnn.Module):
      ...   def __call__(self, x):
      ...     self.sow(liftnn.Intermediate, "hidden", 2 * x)
      ...     return x + 1
      >>> out, intermediates = liftnn.capture(Net(), liftnn.Intermediate)(jnp.ones(2))
      >>> intermediates["hidden"].value[0].tolist()
      [2.0, 2.0]
    """
    if isinstance(fn, type) and issubclass(fn, Variable):
        return lambda f: capture(f, fn, *var_types, init=init, method_outputs=method_outputs)
    if not callable(fn):
        raise errors.ArgumentTypeError(
            f"capture takes a module, a method or a function of a module, not {an(type(fn))}.",
            "Pass the module, as in capture(model, liftnn.Intermediate)(x).",
        )
    unwrap_callable(fn, "capture")  # for its errors
    initial = None if init is None else _initial_values(init)
    if method_outputs is not None and method_outputs not in var_types:
        var_types = (*var_types, method_outputs)
    method = fn if isinstance(fn, types.MethodType) and isinstance(fn.__self__, Module) else None
    module = fn if method is None else method.__self__
    run = lift(functools.partial(_record, var_types, method_outputs), bind=_bind, name="capture")

    def captured(*args: Any, **kwargs: Any) -> Any:
        if isinstance(module, Module):
            called = None if method is None else name_of_method(method) or method.__func__
            out, states = run(module, called, initial, *args, **kwargs)
        else:
            if not args or not isinstance(args[0], Module):
                raise errors.ArgumentTypeError(
                    f"The first argument of a function given to capture is {an(type(args[0])) if args else 'missing'}, "
                    "not a module.",
                    "Pass the module whose values are to be recorded by position, before all other arguments.",
                )
            out, states = run(args[0], fn, initial, *args[1:], **kwargs)
        return (out, *states) if states else out

    wrapped = boundary(captured)
    return wrapped if isinstance(fn, Module) else functools.update_wrapper(wrapped, fn, updated=())


def _initial_values(init: Mapping[Any, Any]) -> State:
    """Return the initial values as a State of Variables."""
    state = as_state("capture", init)
    for path, x in state._items(with_metadata=False):
        if not isinstance(x, Variable):
            raise errors.ArgumentTypeError(
                f"The initial values of capture are Variables, but {format_path(path)} is {an(type(x))}.",
                "Pass a State that capture has returned, or put the value in a Variable of the type to record.",
            )
    return state


def _bind(plan: Plan, pure: PureFunction) -> PureFunction:
    """Bind nothing: the function runs as it is, on copies of the modules."""
    return pure


def _record(
    var_types: tuple[type[Variable[Any]], ...],
    method_outputs: type[Variable[Any]] | None,
    module: Module,
    fn: Any,
    init: State | None,
    /,
    *args: Any,
    **kwargs: Any,
) -> tuple[Any, tuple[State, ...]]:
    """Call a function of a module; return its output and what was recorded.

    Args:
      var_types: The types to capture.
      method_outputs: The type to record the outputs of methods with.
      module: The module, a copy that belongs to this call.
      fn: The function, the name of the method, or None for the module itself.
      init: The initial values.
      *args: The other arguments.
      **kwargs: The keyword arguments.
    """
    initial = _by_module(init)
    marked = [(path, x, attributes_of(x).get(RECORDS)) for path, x in iter_modules(module)]
    _check_paths(initial, {path for path, _, _ in marked})
    classes = [type(x) for _, x, _ in marked]
    recording_class = functools.cache(_recording_class)  # once for each class of the call
    for path, x, outer in marked:
        attributes_of(x)[RECORDS] = _records(var_types, initial.get(path, {}), outer or ())
        if method_outputs is not None:
            object.__setattr__(x, "__class__", recording_class(type(x), method_outputs))
    if callable(fn):
        out = fn(module, *args, **kwargs)
    else:
        called: Any = module if fn is None else getattr(module, fn)
        out = called(*args, **kwargs)
    leaves: dict[type, dict[Path, Any]] = {cls: {} for cls in var_types}
    for (path, x, outer), cls in zip(marked, classes, strict=True):
        for record in attributes_of(x).pop(RECORDS)[: len(var_types)]:
            leaves[type(record)].update({(*path, k): type(record)(v) for k, v in record.raw_value.items()})
        if outer is not None:
            attributes_of(x)[RECORDS] = outer
        object.__setattr__(x, "__class__", cls)
    return out, tuple([State.from_flat(leaves[cls]) for cls in var_types])


def _by_module(init: State | None) -> dict[Path, dict[Any, Variable[Any]]]:
    """Return the Variables of a State by the path of their module, and by name."""
    found: dict[Path, dict[Any, Variable[Any]]] = {}
    for path, x in ({} if init is None else init.flat()).items():
        found.setdefault(path[:-1], {})[path[-1]] = x
    return found


def _check_paths(initial: Mapping[Path, Mapping[Any, Any]], modules: Collection[Path]) -> None:
    """Raise ArgumentError for initial values that no module would get."""
    paths = [(*path, name) for path, values in initial.items() if path not in modules for name in values]
    if paths:
        raise errors.ArgumentError(
            f"No module gets these initial values of capture:\n{list_paths(map(format_path, paths))}",
            "Pass a State that capture has returned for this module; the values of a shared module are under its first "
            "path.",
        )


def _records(
    var_types: tuple[type[Variable[Any]], ...],
    initial: dict[Any, Variable[Any]],
    outer: tuple[Variable[Any], ...],
) -> tuple[Variable[Any], ...]:
    """Return the records of one module: for captured types, for those of initial values, and of an outer call."""
    every = dict.fromkeys((*var_types, *map(type, initial.values())))
    records = [cls({k: x.raw_value for k, x in initial.items() if type(x) is cls}) for cls in every]
    return (*records, *(x for x in outer if type(x) not in every))


def _recording_class(cls: type, variable_type: type[Variable[Any]]) -> type:
    """Return a subclass of a class of modules with methods that record what they return."""
    classes = [c for c in cls.__mro__ if issubclass(c, Module) and c is not Module]
    methods = {name: f for c in reversed(classes) for name, f in vars(c).items()}
    recorded = [
        (name, f)
        for name, f in methods.items()
        if is_method(f) and (name == "__call__" or not name.startswith("_"))
    ]
    return _kept_recording_class(cls, variable_type, tuple(recorded))


@functools.cache
def _kept_recording_class(
    cls: type, variable_type: type[Variable[Any]], methods: tuple[tuple[str, Any], ...]
) -> type:
    """Return the same subclass for the same methods, as JAX keeps every such class."""
    return subclass_without_hooks(cls, {name: _recording(f, name, variable_type) for name, f in methods})


def _recording(method: Any, name: str, variable_type: type[Variable[Any]]) -> Callable[..., Any]:
    """Return a method that records what another one returns, if that is arrays."""

    @functools.wraps(method, updated=())
    def recording(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = method(self, *args, **kwargs)
        if all(map(is_argument_array, jax.tree.leaves(out, is_leaf=lambda x: isinstance(x, Module)))):
            self.sow(variable_type, name, out)
        return out

    return recording


publish(capture)
