"""Methods of States and Variables that only Flax NNX has; importing the stand-in adds them to liftnn's classes.

The States and Variables of the stand-in are those of liftnn, so that `isinstance` holds for what its transforms return.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from liftnn._src.compat.flat_state import FlatState, Leaves, to_flat_state
from liftnn._src.compat.modes import check_variable_kinds
from liftnn._src.compat.states import from_flat_state
from liftnn._src.variables.metadata import SHARDING_NAMES
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

if TYPE_CHECKING:
    _State, _Variable = State, Variable[Any]
else:
    _State = _Variable = object


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

    @property
    def raw_mapping(self) -> State:
        """The nested mapping: the State itself."""
        return self


class VariableMethods(_Variable):
    """The methods of a Variable."""

    @property
    def sharding_names(self) -> Any:
        """The declared sharding in the metadata; None if there is none."""
        given = self.get_metadata()
        return next((given[name] for name in SHARDING_NAMES if given.get(name) is not None), None)

    def to_state(self) -> Variable[Any]:
        """Return a copy; once Flax had another class for the Variables of a State."""
        return self.copy()

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


def add_methods() -> None:
    """Add the methods to the classes."""
    for cls, methods in ((State, StateMethods), (Variable, VariableMethods)):
        for name, method in vars(methods).items():
            if not name.startswith("_"):
                type.__setattr__(cls, name, method)
