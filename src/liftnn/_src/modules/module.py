"""Module: a mutable Python object with Variables, Modules, containers, arrays and static values as attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.filters import Filter, to_predicate
from liftnn._src.graph.attributes import (
    Attributed,
    attributes_of,
    expose,
    flatten_attributes,
    make_shell,
    put_attribute,
    replace_exposed,
)
from liftnn._src.graph.graphdef import GraphDef, split, state
from liftnn._src.modules import pickling, verbs
from liftnn._src.modules.parts import has_attribute, set_everywhere
from liftnn._src.modules.raw_jax import refuse_in_jax
from liftnn._src.modules.rendering import render_module
from liftnn._src.modules.variables_view import VariablesView
from liftnn._src.tracebacks import boundary, hide_frames
from liftnn._src.trees import Path, an
from liftnn._src.variables import frames
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Empty, Perturbation
from liftnn._src.variables.watch import Watch, end_watches, is_equal, is_simple, note_static_change

M = TypeVar("M", bound="Module")

_ABSENT = object()


@boundary
class Module(Attributed):
    """Base class of models and layers: a plain, mutable Python object.

    Set attributes as on any object. Variables, Modules, arrays, and lists, tuples, dicts, namedtuples and dataclasses
    of them, freely nested and mutated, are the state and structure of a module; every other attribute is static. The
    same object may be reached by several paths, and objects may refer to each other in cycles.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> class Scale(liftnn.Module):
      ...   def __init__(self, size):
      ...     self.factor = liftnn.Param(jnp.ones(size))
      ...   def __call__(self, x):
      ...     return x * self.factor
      >>> Scale(3)(jnp.arange(3.0)).tolist()
      [0.0, 1.0, 2.0]
    """

    __slots__ = ()
    __graph_node__ = True

    _owner: Any
    _fast_paths: tuple[Any, ...]
    _watches: tuple[Watch, ...]

    def __init_subclass__(cls, *, pytree: bool = False, **kwargs: Any) -> None:
        """Register a subclass; `pytree` has no effect, and is accepted because Flax NNX has it."""
        super().__init_subclass__(**kwargs)
        refuse_in_jax(cls)
        if cls.__module__.startswith("liftnn."):  # for example a layer
            boundary(cls)

    def __new__(cls: type[M], *args: Any, **kwargs: Any) -> M:
        """Create an object with the trace it belongs to, before `__init__` sets the first attribute."""
        return make_shell(cls, frames.owner_now())

    if not TYPE_CHECKING:  # hidden, so that type checkers infer attributes from `__init__` alone

        def __setattr__(self, name: str, value: Any) -> None:
            try:
                if not frames.may_write(self._owner):
                    if attributes_of(self).get(name, _ABSENT) is value:
                        return  # `self.count += 1` has already written the Variable
                    if isinstance(
                        getattr(type(self), name, None), property
                    ):  # its setter checks its own writes
                        object.__setattr__(self, name, value)
                        return
                    raise frames.write_error(self, f"the attribute {name!r}")
                old = attributes_of(self).get(name, _ABSENT)
                object.__setattr__(self, name, value)
            except Exception as error:
                hide_frames(error)
                raise
            if old is value or (self._owner is not frames.PLAIN and is_equal(old, value)):
                return
            if is_simple(old) and is_simple(value):
                note_static_change(self, name)
            elif not (isinstance(old, jax.Array) and isinstance(value, jax.Array)):
                end_watches(self)

        @boundary
        def __delattr__(self, name: str) -> None:
            if not frames.may_write(self._owner):
                raise frames.write_error(self, f"the attribute {name!r}")
            object.__delattr__(self, name)
            end_watches(self)

        @property
        def __dict__(
            self,
        ) -> dict[str, Any]:  # `vars(module)`: writes to the result are not noticed
            return expose(self)

        @__dict__.setter
        def __dict__(self, attributes: dict[str, Any]) -> None:
            replace_exposed(self, attributes)

    def _placeholder(self: M, owner: Any) -> M:
        """Return the placeholder of a captured module that is not an input: itself, which provides its attributes.

        Args:
          owner: The frame that uses it.

        Returns:
          The module.
        """
        return self

    def split(self: M, *filters: Filter) -> tuple[*tuple[State, ...], GraphDef[M]]:
        """Divide the module into States and a GraphDef; see `liftnn.split`.

        Args:
          *filters: One State is returned for each filter. Without filters, one State has all Variables.

        Returns:
          `(*states, graphdef)`.

        Raises:
          FilterError: If a Variable matches none of the filters.
          StructureError: If an attribute cannot be part of a module.
        """
        return split(self, *filters)

    @overload
    def state(self, filter: Filter = ..., /) -> State: ...

    @overload
    def state(self, first: Filter, second: Filter, /, *others: Filter) -> tuple[State, ...]: ...

    def state(self, *filters: Filter) -> State | tuple[State, ...]:
        """Return copies of the Variables that match; see `liftnn.state`.

        Args:
          *filters: One or more filters. Without filters, everything matches.

        Returns:
          A State for at most one filter, a tuple of States for several.

        Raises:
          FilterError: If an argument is not a filter.
        """
        return state(self, *filters)

    @overload
    def pop(self, filter: Filter, /) -> State: ...

    @overload
    def pop(self, first: Filter, second: Filter, /, *others: Filter) -> tuple[State, ...]: ...

    def pop(self, *filters: Filter) -> State | tuple[State, ...]:
        """Remove the values of the matching Variables from the module and return them; see `liftnn.pop`.

        Args:
          *filters: One or more filters.

        Returns:
          A State for one filter, a tuple of States for several. The Variables stay in the module and hold `Empty`.

        Raises:
          FilterError: If no filter is given, or an argument is not a filter.
          TraceContextError: If the module belongs to another trace.
        """
        return verbs.pop(self, *filters)

    def update(self, *states: State) -> None:
        """Set Variables of the module from States; see `liftnn.update`.

        Args:
          *states: Values by path.

        Raises:
          ArgumentTypeError: If an argument is not a State. Nothing is changed then.
          StructureError: If a path is not in the module. Nothing is changed then.
          TraceContextError: If the module belongs to another trace. Nothing is changed then.
        """
        verbs.update(self, *states)

    def clone(self: M) -> M:
        """Return a copy of the module and all that it reaches, with the same sharing and cycles."""
        return verbs.clone(self)

    @property
    def variables(self) -> VariablesView:
        """The Variables among the attributes, by name. Assign to tie weights: `a.variables.w = b.variables.w`."""
        return VariablesView(self)

    def sow(
        self,
        type: type[Variable[Any]],
        name: str,
        value: Any,
        reduce_fn: Callable[[Any, Any], Any] = lambda old, new: (*old, new),
        init_fn: Callable[[], Any] = lambda: (),
    ) -> bool:
        """Record a value in a Variable of the module, which is created when first needed.

        Args:
          type: The type of the Variable, such as `Intermediate`.
          name: The attribute that holds the Variable.
          value: The value to record.
          reduce_fn: Called with the recorded value so far and the new value; returns the value to store. The default
            appends to a tuple.
          init_fn: Returns the initial recorded value, used at first and after a `pop`. The default returns `()`.

        Returns:
          True.

        Raises:
          ArgumentError: If the attribute exists and is not a Variable of that type.
          TraceContextError: If the module belongs to another trace.
        """
        variable = getattr(self, name, None)
        if variable is None:
            setattr(self, name, type(reduce_fn(init_fn(), value)))
            return True
        _check_type(self, name, variable, type)
        old = variable.value
        variable.value = reduce_fn(init_fn() if old is Empty else old, value)
        return True

    def perturb(self, name: str, value: Any, variable_type: type[Variable[Any]] = Perturbation) -> Any:
        """Add a zero Variable to a value; the gradient with respect to it is the gradient with respect to the value.

        Args:
          name: The attribute that holds the Variable.
          value: An array of any shape, or a pytree of arrays.
          variable_type: The type of the Variable, which the first call creates. The default is `Perturbation`.

        Returns:
          The value plus the Variable.

        Raises:
          ArgumentError: If the attribute exists and is not a Variable of that type.
          TraceContextError: If the Variable must be created but the module belongs to another trace.
        """
        variable = getattr(self, name, None)
        if variable is None:
            variable = variable_type(_map(jnp.zeros_like, value))
            setattr(self, name, variable)
        _check_type(self, name, variable, variable_type)
        if variable.value is Empty:
            variable.value = _map(jnp.zeros_like, value)
        return _map(jnp.add, value, variable.value)

    def train(self, **attributes: Any) -> None:
        """Switch the module and its submodules to training: set `deterministic` and `use_running_average` to False.

        Args:
          **attributes: Further attributes to set on the modules that have them.

        Raises:
          TraceContextError: If a module belongs to another trace.
        """
        settings = {"deterministic": False, "use_running_average": False, **attributes}
        self.set_attributes(raise_if_not_found=False, **settings)

    def eval(self, **attributes: Any) -> None:
        """Switch the module and its submodules to evaluation: set `deterministic` and `use_running_average` to True.

        Args:
          **attributes: Further attributes to set on the modules that have them.

        Raises:
          TraceContextError: If a module belongs to another trace.
        """
        settings = {"deterministic": True, "use_running_average": True, **attributes}
        self.set_attributes(raise_if_not_found=False, **settings)

    def set_attributes(self, *filters: Filter, raise_if_not_found: bool = True, **attributes: Any) -> None:
        """Set attributes of the module and its submodules, on those that have them.

        Args:
          *filters: Filters of modules, called with path and module. Without filters, all modules match.
          raise_if_not_found: Whether to raise an error for an attribute that no matching module has.
          **attributes: The new values by name.

        Raises:
          ArgumentError: If no matching module has one of the attributes and `raise_if_not_found` is True.
          FilterError: If an argument is not a filter.
          TraceContextError: If a module belongs to another trace.
        """
        if not filters:
            missing = set_everywhere(self, attributes)
        else:
            chosen, missing = to_predicate(filters), set(attributes)
            for path, module in self.iter_modules():
                for name in attributes if chosen(path, module) else ():
                    if has_attribute(module, name):
                        missing.discard(name)
                        if getattr(module, name) is not attributes[name]:
                            setattr(module, name, attributes[name])
        if missing and raise_if_not_found:
            names = " or ".join(sorted(missing))
            raise errors.ArgumentError(
                f"No matching module of this {type(self).__name__} has an attribute named {names}.",
                "Check the spelling, or pass raise_if_not_found=False.",
            )

    def iter_modules(self) -> Iterator[tuple[Path, Module]]:
        """Yield the module and all modules that it reaches, each once, with its first path."""
        for path, x in verbs.iter_graph(self):
            if isinstance(x, Module):
                yield path, x

    def iter_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules among the attributes, with their names."""
        _, names, children = flatten_attributes(self)
        for name, child in zip(names, children, strict=True):
            if isinstance(child, Module):
                yield name, child

    def __repr__(self) -> str:
        return render_module(self, [])

    def __copy__(self: M) -> M:
        new = make_shell(type(self), frames.owner_now())
        _, names, children = flatten_attributes(self)
        for name, child in zip(names, children, strict=True):
            put_attribute(new, name, child)
        return new

    def __reduce__(self) -> Any:
        return pickling.reduce_module(self)

    def __deepcopy__(self: M, memo: dict[int, Any]) -> M:
        return pickling.deepcopy_module(self, memo, Module.__deepcopy__)

    def __setstate__(self, contents: Any) -> None:
        """Do nothing: reading `contents` has already filled the module."""


refuse_in_jax(Module)


def _map(f: Callable[..., Any], *trees: Any) -> Any:
    """Map a function over the leaves of values."""
    return verbs.map_values(f, *trees)


def _check_type(module: Module, name: str, variable: Any, cls: type[Variable[Any]]) -> None:
    """Raise ArgumentError for an attribute that is not a Variable of the requested type."""
    if not isinstance(variable, cls):
        raise errors.ArgumentError(
            f"The attribute {name!r} of {an(type(module))} is {an(type(variable))}, not {an(cls)}.",
            f"Pass a name that no other attribute has, or one that holds {an(cls)}.",
        )
