"""Methods and names of parameters that only Flax NNX has; importing the stand-in adds them to liftnn's classes.

The States and Variables of the stand-in are those of liftnn, so that `isinstance` holds for what its transforms return.
A method that replaces one of liftnn does the same for the arguments that liftnn's has.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from liftnn._src.compat.abstract_methods import mark_abstract
from liftnn._src.compat.flat_state import FlatState, Leaves, to_flat_state
from liftnn._src.compat.keywords import take_by_name
from liftnn._src.compat.modes import check_variable_kinds, follow_flax
from liftnn._src.compat.recording import RecordingMethods
from liftnn._src.compat.sharding_metadata import ShardingMethods
from liftnn._src.compat.splitting import GraphDef
from liftnn._src.compat.states import diff, from_flat_state, replace_by_pure_dict, to_pure_dict
from liftnn._src.compat.training import TrainState
from liftnn._src.compat.variable_metadata import AnnotatedMethods
from liftnn._src.compilation.jitted import Jitted
from liftnn._src.graph.checks import ABSENT
from liftnn._src.modules.module import Module
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import copy_containers
from liftnn._src.variables.metadata import Annotated
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

if TYPE_CHECKING:
    _Module, _State, _Variable = Module, State, Variable[Any]
else:
    _Module = _State = _Variable = object

V = TypeVar("V", bound=Variable[Any])

_init_subclass: Any = vars(Module)["__init_subclass__"].__func__
_replace: Any = Variable.replace
_replace_by_pure_dict = State.replace_by_pure_dict
_to_pure_dict = State.to_pure_dict


@boundary
class StateMethods(_State):
    """The methods of a State."""

    def flat_state(self) -> FlatState:
        """Return the leaves with their paths, as `to_flat_state` does."""
        return to_flat_state(self)

    @classmethod
    def from_flat_path(cls, flat_state: Leaves, /) -> State:
        """Return the State with these leaves, as `from_flat_state` does.

        Args:
          flat_state: A FlatState, a mapping from paths to leaves, or an iterable of such pairs.

        Returns:
          The State.
        """
        return from_flat_state(flat_state, cls=cls)

    def to_pure_dict(self, extract_fn: Callable[[Any], Any] | None = None) -> dict[Any, Any]:
        """Return the values as plain nested dicts.

        Args:
          extract_fn: Called with each Variable or array; returns what to store. The default, None, takes the value of a
            Variable.

        Returns:
          The dicts.
        """
        return _to_pure_dict(self) if extract_fn is None else to_pure_dict(self, extract_fn)

    def replace_by_pure_dict(
        self, values: Mapping[Any, Any], replace_fn: Callable[[Any, Any], Any] | None = None
    ) -> None:
        """Replace the Variables, in this State, by Variables with values from plain nested dicts.

        Args:
          values: Nested dicts of values.
          replace_fn: Called with the Variable and the value; returns what to store, as for the function
            `replace_by_pure_dict`. The default, None, returns a Variable of the same type and metadata.

        Raises:
          StructureError: If a path is unknown. Nothing is replaced then.
          ArgumentError: If a Variable cannot hold its value, or if a path is unknown. Nothing is replaced then.
        """
        if replace_fn is None:
            _replace_by_pure_dict(self, values)
        else:
            replace_by_pure_dict(self, values, replace_fn)

    def __sub__(self, other: Mapping[Any, Any]) -> State:
        return diff(self, other) if isinstance(other, Mapping) else NotImplemented

    @property
    def raw_mapping(self) -> State:
        """The nested mapping: the State itself."""
        return self


def _setting(name: str, default: bool) -> property:
    """Return a property of Variables: the metadata entry, or the value that Flax stores where it was not set."""
    return property(
        lambda self: self._metadata.get(name, default),
        lambda self, value: self.set_metadata(name, value),
        doc=f"Whether the Variable has `{name}`, a setting of Flax NNX; {default} unless the metadata say otherwise.",
    )


@boundary
class VariableMethods(_Variable):
    """The methods and settings of a Variable."""

    hijax = _setting("hijax", False)
    ref = _setting("ref", False)
    eager_sharding = _setting("eager_sharding", True)

    def copy(self: V, value: Any = ABSENT, **metadata: Any) -> V:
        """Return a new Variable of the same type, with another value or metadata.

        `replace` and `to_state` are the same: once Flax had another class for the Variables of a State.

        Args:
          value: The new value; hooks do not run. The default is the value of this Variable.
          **metadata: Entries that replace or extend the metadata.

        Returns:
          The new Variable; this one is unchanged.
        """
        return _replace(self, copy_containers(self.raw_value) if value is ABSENT else value, **metadata)

    replace = to_state = copy

    @classmethod
    def from_metadata(cls, value: Any, attributes: Mapping[str, Any]) -> Variable[Any]:
        """Return a Variable with a value and metadata.

        Args:
          value: The value.
          attributes: The metadata.

        Returns:
          The Variable.

        Raises:
          ArgumentError: If `hijax` or `ref` is True in the metadata.
        """
        metadata = dict(attributes)
        metadata.pop("eager_sharding", None)
        check_variable_kinds(**{name: metadata.pop(name, False) for name in ("hijax", "ref")})
        return cls(value, **metadata)


class ModuleMethods(_Module):
    """The methods of a Module."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register a subclass, which may be abstract."""
        _init_subclass(cls, **kwargs)
        mark_abstract(cls)


class JittedMethods:
    """The methods of a compiled function."""

    @property
    def jitted_fn(self) -> Any:
        """The compiled function, with the methods of `jax.jit`; in Flax NNX, a function inside it."""
        return self


_METHODS: tuple[tuple[type, type], ...] = (
    (Module, ModuleMethods),
    (Module, RecordingMethods),
    (State, StateMethods),
    (Variable, VariableMethods),
    (Variable, ShardingMethods),
    (Annotated, AnnotatedMethods),
    (Jitted, JittedMethods),
)
"""Classes, and the methods that they get."""

_PARAMETERS: tuple[tuple[type, str, str], ...] = (
    (GraphDef, "apply", "state"),
    (Module, "sow", "variable_type"),
    (RngStream, "split", "k"),
    (Rngs, "split", "k"),
    (State, "replace_by_pure_dict", "pure_dict"),
    (TrainState, "apply", "state"),
)
"""Methods, and what Flax calls their first parameter."""


def add_methods() -> None:
    """Add the methods to the classes, and the names of parameters to their methods, and follow the settings of Flax."""
    for cls, methods in _METHODS:
        for name, method in vars(methods).items():
            if isinstance(method, (types.FunctionType, classmethod, property)):
                type.__setattr__(cls, name, method)
    follow_flax()
    for cls, name, parameter in _PARAMETERS:
        type.__setattr__(cls, name, take_by_name(vars(cls)[name], parameter))
