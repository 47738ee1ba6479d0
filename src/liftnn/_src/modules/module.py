"""Module: a mutable Python object with Variables, Modules, containers, arrays and static values as attributes."""

from __future__ import annotations

import dataclasses
import difflib
import types
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

import jax
import numpy as np

from liftnn import errors
from liftnn._src import lazy
from liftnn._src.annotations import annotations_of
from liftnn._src.filters import Filter, to_predicate
from liftnn._src.foreign_names.attributes import ForeignAttributes, answer_calls
from liftnn._src.graph.attributes import Attributed, attributes_of, expose, make_shell, replace_exposed
from liftnn._src.graph.graphdef import GraphDef, split, state
from liftnn._src.modules import copies, jax_trees, pickling
from liftnn._src.modules.iterate import iter_children, iter_modules
from liftnn._src.modules.layer_calls import is_layer, wrap_call
from liftnn._src.modules.parts import has_attribute, parts_of, set_attributes_of
from liftnn._src.modules.raw_jax import refuse_in_jax
from liftnn._src.modules.recording import append, perturb, sow
from liftnn._src.modules.rendering import render_module
from liftnn._src.modules.update import update
from liftnn._src.modules.variables_view import VariablesAttribute
from liftnn._src.modules.verbs import pop
from liftnn._src.printing import Displayed
from liftnn._src.tracebacks import boundary, hide_frames
from liftnn._src.trees import Path, module_of
from liftnn._src.variables import frames
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Param, Perturbation
from liftnn._src.variables.watch import Changing, Watch, end_watches, note_change
from liftnn._src.variables.write_errors import write_error

M = TypeVar("M", bound="Module")

_ABSENT = object()
_FREEZING = frozenset(["trainable", "requires_grad"])
"""Attributes that freeze a layer in Keras and PyTorch."""


@boundary
class Module(Attributed, Displayed, ForeignAttributes):
    """Base class of models and layers: a plain, mutable Python object.

    Set attributes as on any object. Variables, Modules, arrays, and lists, tuples, dicts, namedtuples and dataclasses
    of them, freely nested and mutated, are the state and structure of a module; every other attribute is static. The
    same object may be reached by several paths, and objects may refer to each other in cycles.
    JAX's own functions take the instances of `class Model(liftnn.Module, pytree=True)` as pytrees, which they can read.

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
    __jax_tree__ = False

    if TYPE_CHECKING:  # not for `typing.get_type_hints`, which returns what users declare
        _owner: Any
        _fast_paths: tuple[Any, ...]
        _watches: tuple[Watch, ...]

    def __init_subclass__(cls, *, pytree: bool | None = None, **kwargs: Any) -> None:
        """Register a subclass; with `pytree=True`, JAX's functions take its instances. It is inherited."""
        super().__init_subclass__(**kwargs)
        if pytree is not None:
            type.__setattr__(cls, "__jax_tree__", pytree)
        (jax_trees.register if cls.__jax_tree__ else refuse_in_jax)(cls)
        for name in annotations_of(cls):
            if name in vars(Module) and name not in vars(cls):  # not the default of a field of a dataclass
                setattr(cls, name, dataclasses.field())
        call = vars(cls).get("__call__")
        if isinstance(call, types.FunctionType) and is_layer(cls):
            type.__setattr__(cls, "__call__", wrap_call(call))
        answer_calls(cls)
        if cls.__module__.startswith("liftnn."):  # for example a layer
            boundary(cls)

    def __new__(cls: type[M], /, *args: Any, **kwargs: Any) -> M:
        """Create an object with the trace it belongs to, before `__init__` sets the first attribute."""
        if (args or kwargs) and cls.__init__ is object.__init__:
            try:
                _refuse_arguments(cls)
            except Exception as error:
                hide_frames(error)
                raise
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
                    raise write_error(self, f"the attribute {name!r}")
                old = attributes_of(self).get(name, _ABSENT)
                if isinstance(old, Param) or name in _FREEZING:
                    _warn_of_mistake(self, name, old, value)  # before the write: warnings may be errors
                try:
                    object.__setattr__(self, name, value)
                    note_change(self, name, old, value)
                except BaseException:  # as with `Changing`, which is slower: this runs at each assignment
                    end_watches(self)
                    raise
            except Exception as error:
                hide_frames(error)
                raise

        @boundary
        def __delattr__(self, name: str) -> None:
            if not frames.may_write(self._owner):
                raise write_error(self, f"the attribute {name!r}")
            with Changing(self):
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
        return pop(self, *filters)

    def update(self, *states: State) -> None:
        """Set Variables of the module from States; see `liftnn.update`.

        Args:
          *states: Values by path.

        Raises:
          ArgumentTypeError: If an argument is not a State. Nothing is changed then.
          StructureError: If a path is not in the module. Nothing is changed then.
          TraceContextError: If the module belongs to another trace. Nothing is changed then.
        """
        update(self, *states)

    def clone(self: M) -> M:
        """Return a copy of the module and all that it reaches, with the same sharing and cycles."""
        return copies.clone(self)

    variables = VariablesAttribute()
    """The Variables among the attributes, by name. Assign to tie weights: `a.variables.w = b.variables.w`."""

    def sow(
        self,
        type: type[Variable[Any]] | str,
        name: str,
        value: Any,
        reduce_fn: Callable[[Any, Any], Any] = append,
        init_fn: Callable[[], Any] = lambda: (),
    ) -> bool:
        """Record a value in a Variable of the module, which is created when first needed.

        In a call of `liftnn.capture` the value is recorded there instead, and the module stays as it is.

        Args:
          type: The type of the Variable, such as `Intermediate`, or a name for it, such as `intermediates`.
          name: The attribute that holds the Variable.
          value: The value to record.
          reduce_fn: Called with the recorded value so far and the new value; returns the value to store. The default
            appends to a tuple.
          init_fn: Returns the initial recorded value, used at first and after a `pop`. The default returns `()`.

        Returns:
          True; False in a call of `liftnn.capture` that does not capture the type, so nothing is recorded.

        Raises:
          ArgumentError: If the attribute is not a Variable of that type, or does not hold a tuple to append to.
          TraceContextError: If the module belongs to another trace.
        """
        return sow(self, type, name, value, reduce_fn, init_fn)

    def perturb(self, name: str, value: Any, variable_type: type[Variable[Any]] | str = Perturbation) -> Any:
        """Add a zero Variable to a value; the gradient with respect to it is the gradient with respect to the value.

        In a call of `liftnn.capture` the Variable is there instead; if the type is not captured, nothing is added.

        Args:
          name: The attribute that holds the Variable.
          value: An array of any shape, or a pytree of arrays.
          variable_type: The type of the Variable, which the first call creates, or a name for it. The default is
            `Perturbation`.

        Returns:
          The value plus the Variable.

        Raises:
          ArgumentError: If the attribute exists and is not a Variable of that type.
          TraceContextError: If the Variable must be created but the module belongs to another trace.
        """
        return perturb(self, name, value, variable_type)

    def train(self: M, **attributes: Any) -> M:
        """Switch the module and its submodules to training: set `deterministic` and `use_running_average` to False.

        Args:
          **attributes: Further attributes to set on the modules that have them.

        Returns:
          The module itself.

        Raises:
          TraceContextError: If a module belongs to another trace.
        """
        settings = {"deterministic": False, "use_running_average": False, **attributes}
        self.set_attributes(raise_if_not_found=False, **settings)
        return self

    def eval(self: M, **attributes: Any) -> M:
        """Switch the module and its submodules to evaluation: set `deterministic` and `use_running_average` to True.

        Args:
          **attributes: Further attributes to set on the modules that have them.

        Returns:
          The module itself.

        Raises:
          TraceContextError: If a module belongs to another trace.
        """
        settings = {"deterministic": True, "use_running_average": True, **attributes}
        self.set_attributes(raise_if_not_found=False, **settings)
        return self

    def set_attributes(self, *filters: Filter, raise_if_not_found: bool = True, **attributes: Any) -> None:
        """Set attributes of the module and its submodules, on those that have them.

        Args:
          *filters: Filters of modules, called with path and module. Without filters, all modules match.
          raise_if_not_found: Whether to raise an error for an attribute that no matching module has.
          **attributes: The new values by name. A bool named `graph` may be missing: it is an argument in Flax NNX.

        Raises:
          ArgumentError: If no matching module has one of the attributes and `raise_if_not_found` is True. Nothing is
            changed then.
          FilterError: If an argument is not a filter.
          TraceContextError: If a module belongs to another trace. Nothing is changed then.
        """
        if filters:
            chosen = to_predicate(filters)
            found = [weakref.ref(x) for path, x in iter_modules(self) if chosen(path, x)]
            holders = [(x, name, False) for x in found for name in attributes if has_attribute(x(), name)]
        else:
            holders = parts_of(self).holders(tuple(attributes))
        missing = set(attributes).difference([name for _, name, _ in holders])
        if isinstance(attributes.get("graph"), bool):
            missing.discard("graph")
        if missing and raise_if_not_found:
            names = " or ".join(sorted(missing))
            raise errors.ArgumentError(
                f"No matching module of this {type(self).__name__} has an attribute named {names}.",
                "Check the spelling, or pass raise_if_not_found=False.",
            )
        set_attributes_of(self, holders, attributes)

    def iter_modules(self) -> Iterator[tuple[Path, Module]]:
        """Yield the module and all modules that it reaches, each once, with its first path."""
        return iter_modules(self)

    def iter_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules among the attributes, with their names."""
        return ((key, x) for key, x in iter_children(self) if isinstance(x, Module))

    def __repr__(self) -> str:
        return lazy.load("module_text").module_text(self)

    def __str__(self) -> str:
        return render_module(self, []) if type(self).__repr__ is Module.__repr__ else repr(self)

    def __copy__(self: M) -> M:
        return pickling.copy_module(self)

    def __deepcopy__(self: M, memo: dict[int, Any]) -> M:
        return pickling.deepcopy_module(self, memo, Module.__deepcopy__)

    __getstate__ = pickling.get_state  # pyright: ignore[reportAssignmentType]  # the parameter is called "self"
    __setstate__ = pickling.set_state
    __reduce__ = pickling.reduce_module  # pyright: ignore[reportAssignmentType]  # likewise


refuse_in_jax(Module)


def _warn_of_mistake(module: Any, name: str, old: Any, value: Any) -> None:
    """Warn of an assignment that has another effect than it seems to have."""
    if name in _FREEZING and old is _ABSENT and module_of(type(module)).partition(".")[0] == "liftnn":
        lazy.load("attribute_warnings").warn_of_freezing(module, name)
    if isinstance(old, Param) and isinstance(value, (jax.Array, np.ndarray)):
        lazy.load("attribute_warnings").warn_of_array(module, name, old)


def _refuse_arguments(cls: type) -> NoReturn:
    """Raise ArgumentTypeError for arguments of a class without `__init__`; name a method that may be meant as one."""
    names = [n for c in cls.__mro__ if issubclass(c, Module) and c is not Module for n in vars(c)]
    similar = [
        n for n in difflib.get_close_matches("__init__", names, cutoff=0.7) if callable(getattr(cls, n))
    ]
    similar += [n for n in ("setup",) if n in names]  # of Flax Linen
    if similar:
        remedy = f"Rename its method `{similar[0]}` to `__init__`."
    elif any(annotations_of(c) for c in cls.__mro__ if issubclass(c, Module) and c is not Module):
        remedy = "Define `__init__`, or decorate the class with `@dataclasses.dataclass`."
    else:
        remedy = "Define `__init__`, or pass no arguments."
    raise errors.ArgumentTypeError(f"{cls.__name__} takes no arguments: it has no `__init__`.", remedy)
