"""Variable: a mutable container of an array, or of any pytree of arrays, with metadata."""

from __future__ import annotations

import builtins
import types
from typing import TYPE_CHECKING, Any, TypeVar, overload

import jax
from jax.typing import ArrayLike

from liftnn import errors
from liftnn._src.foreign_names.attributes import load_explanations
from liftnn._src.printing import Displayed, call, value_repr
from liftnn._src.tracebacks import boundary, hide_frames
from liftnn._src.trees import an, at_start, copy_containers
from liftnn._src.type_variables import T
from liftnn._src.variables import frames
from liftnn._src.variables.class_defaults import let_metadata_replace_attributes
from liftnn._src.variables.holding import checked_value
from liftnn._src.variables.metadata import EMPTY, Annotated, Metadata
from liftnn._src.variables.metadata_methods import (
    MetadataMethods,
    adopt_metadata,
    set_metadata_past_checks as set_metadata_past_checks,
)
from liftnn._src.variables.mistaken_metadata import warn_if_mistaken
from liftnn._src.variables.operators import WHOLE, Operators, is_part, part_of, takes_index, unwrap, with_part
from liftnn._src.variables.placement import place_new
from liftnn._src.variables.storage import Storage, store
from liftnn._src.variables.variable_pytree import register
from liftnn._src.variables.watch import Changing, Watch, end_watches
from liftnn._src.variables.write_errors import write_error

V = TypeVar("V", bound="Variable[Any]")


class Variable(Operators[T], MetadataMethods, Displayed):
    """A mutable container of an array, or of any pytree of arrays.

    Assign to `value` to change it. `v[...]` and `v[...] = x` read and write the whole array, `v[i] = x` writes a part
    of it. A Variable acts as its array in operators, indexing and numpy functions; functions of `jax.numpy` accept it
    too. Attributes that a Variable lacks are looked up in its metadata and then on its value (`v.shape`); metadata take
    precedence over plain attributes of a subclass. For type checkers, `Variable[T]` holds a T, and a bare `Variable`
    holds an array.

    Args:
      value: An array of any shape and dtype, or a pytree of arrays. If it is a Variable, its value is used.
      **metadata: Static information that every transform keeps, read and set as attributes (`v.sharding`). Five names
        are hooks, each a callable or a sequence of callables, called in order: `on_get_value(variable, value)` and
        `on_set_value(variable, value)` return the value to read or store, `on_create_value(variable, value)` returns
        the initial value to store, and `on_add_axis(variable, axis_index, axis_name)` and `on_remove_axis`, likewise,
        adapt metadata when a transform adds or removes an axis. A subclass may define methods of these names; the
        metadata take precedence. `get_value_hooks`, `set_value_hooks`, `create_value_hooks`, `add_axis_hooks` and
        `remove_axis_hooks`, by default `()`, run after them; the last two get the name of the axis before its index.

    A subclass may also override `get_value`, `set_value` and `create_value`, which every read, write and creation uses.

    Raises:
      ArgumentError: If the value is a Module, or a hook is not callable.
      ShardingError: If the declared sharding (`sharding`) does not fit the current mesh.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> w = liftnn.Param(jnp.ones((2, 3)), sharding=("in", "out"))
      >>> w.value = w * 2
      >>> w.sharding, w.shape, float(w.sum())
      (('in', 'out'), (2, 3), 12.0)
    """

    __slots__ = ("__weakref__", "_metadata", "_owner", "_storage", "_watches")
    __graph_node__ = True

    if TYPE_CHECKING:
        _metadata: Metadata
        _owner: Any
        _storage: Storage
        _watches: tuple[Watch, ...]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        let_metadata_replace_attributes(cls, Variable)
        cls._reads_parts = takes_index(cls.get_value)
        cls._writes_parts = takes_index(cls.set_value)
        register(cls, make_variable)

    if not TYPE_CHECKING:

        def __class_getitem__(cls, value_type: Any) -> type[Variable]:
            return cls  # an alias of typing is not a class, and sets an attribute on the instances it creates

    @overload
    def __init__(
        self: Variable[jax.Array], value: ArrayLike | Variable[jax.Array], **metadata: Any
    ) -> None: ...

    @overload
    def __init__(self, value: T | Variable[T], **metadata: Any) -> None: ...

    @boundary
    def __init__(self, value: Any, **metadata: Any):
        set_owner(self, frames.owner_now())
        _set_watches(self, ())
        if type(value) is Annotated:
            value, metadata = value.value, {**value.metadata, **metadata}
        _set_metadata(self, Metadata.of(metadata))
        _set_storage(self, Storage())
        value = self._storage.value = unwrap(value)  # hooks and an override may read it
        for hook in self._hooks("on_create_value"):
            value = self._storage.value = hook(self, value)
        self._storage.value = place_new(self, checked_value(self.create_value(value)), metadata)

    @property
    def value(self) -> T:
        """The value, as `get_value` returns it. Assigning stores it with `set_value`."""
        return self.get_value()

    @value.setter
    def value(self, value: T | ArrayLike | Variable[Any]) -> None:
        try:
            self.set_value(value)
        except Exception as error:
            hide_frames(error)
            raise

    @property
    def raw_value(self) -> T:
        """The value, without hooks."""
        return (frames.resolve(self) if frames.open_frames else self)._storage.value

    @raw_value.setter
    def raw_value(self, value: T | ArrayLike | Variable[Any]) -> None:
        store(self._writable(), checked_value(unwrap(value)))

    def create_value(self, value: Any) -> Any:
        """Return the initial value to store; a subclass may override this.

        Args:
          value: The value that the Variable was created with, after the hooks.

        Returns:
          The value itself.
        """
        return value

    @overload
    def get_value(self) -> T: ...

    @overload
    def get_value(self, *, index: Any) -> Any: ...

    def get_value(self, *, index: Any = WHOLE) -> Any:
        """Return the value, or a part of it, after the get hooks; a subclass may override this.

        `value`, indexing, operators and functions of numpy and `jax.numpy` read a Variable with this method.

        Args:
          index: An index of the array, or a key of a container. The default reads the whole value, as `...` does.

        Returns:
          What the hooks return for the whole or the part.
        """
        resolved = frames.resolve(self) if frames.open_frames else self
        value = resolved._storage.value
        if index is not WHOLE and is_part(index):
            value = part_of(value, index)
        metadata = resolved._metadata
        on_get = getattr(type(self), "on_get_value", None)
        if on_get is not None and not metadata.has("on_get_value"):
            value = on_get(resolved, value)
        for hook in metadata.reads:
            value = hook(resolved, value)
        return value

    def set_value(self, value: Any, *, index: Any = WHOLE) -> None:
        """Store a value, or a part of it, after the set hooks; a subclass may override this.

        Assigning to `value` or to an index, and in-place operators, write a Variable with this method.

        Args:
          value: The new value, or the new part. If it is a Variable, its value is used.
          index: An index of the array, or a key of a container. The default stores a new value of any shape; `...`
            keeps shape and dtype.

        Raises:
          ArgumentError: If it is a Module.
          TraceContextError: If the Variable belongs to another trace.
        """
        resolved = self._writable()
        value, metadata = unwrap(value), resolved._metadata
        on_set = getattr(type(self), "on_set_value", None)
        if on_set is not None and not metadata.has("on_set_value"):
            value = on_set(resolved, value)
        for hook in metadata.writes:
            value = hook(resolved, value)
        if index is not WHOLE and is_part(index):
            value = with_part(resolved._storage.value, index, value)
        store(resolved, checked_value(value))

    def get_raw_value(self) -> T:
        """Return the value, without hooks, as `raw_value` does."""
        return self.raw_value

    def set_raw_value(self, value: T | ArrayLike | Variable[Any]) -> None:
        """Store a value, without hooks, as assigning to `raw_value` does.

        Args:
          value: The new value. If it is a Variable, its value is used.

        Raises:
          ArgumentError: If it is a Module.
          TraceContextError: If the Variable belongs to another trace.
        """
        self.raw_value = value

    @boundary
    def copy_from(self, other: Variable[T]) -> None:
        """Copy the value and the metadata from another Variable of the same type; hooks do not run.

        Args:
          other: The other Variable.

        Raises:
          ArgumentError: If it is of another type.
          TraceContextError: If this Variable belongs to another trace.
        """
        if type(other) is not type(self):
            raise errors.ArgumentError(
                f"{at_start(an(type(self)))} cannot copy the contents of {an(type(other))}.",
                "Use update_from_state for a Variable of another type, or assign to `value`.",
            )
        self.update_from_state(other)

    @boundary
    def update_from_state(self, variable_state: Variable[T]) -> None:
        """Copy the value and the metadata from another Variable, such as an entry of a State; hooks do not run.

        Args:
          variable_state: The other Variable, of any type.

        Raises:
          ArgumentTypeError: If it is not a Variable.
          TraceContextError: If this Variable belongs to another trace.
        """
        if not isinstance(variable_state, Variable):
            raise errors.ArgumentTypeError(
                f"update_from_state takes a Variable, not {an(type(variable_state))}.",
                "Assign to `value` to set the value only.",
            )
        resolved, other = self._writable(), frames.resolve(variable_state)
        store(resolved, copy_containers(other._storage.value))
        adopt_metadata(resolved, other)

    @property
    def type(self) -> builtins.type[Any]:
        """The class of the Variable."""
        return type(self)

    @property
    def _value(self) -> Any:
        """The value, without hooks or checks."""
        return self._storage.value

    def _writable(self: V) -> V:
        """Return the innermost frame's copy of this Variable, after checking that its value may be written here."""
        resolved = frames.resolve(self) if frames.open_frames else self
        if not frames.may_write(resolved._owner):
            raise write_error(self, "the value")
        frames.note_write(resolved)
        return resolved

    def _placeholder(self: V, owner: Any) -> V:
        """Return the placeholder of a captured Variable that is not an input, until the function has returned.

        Args:
          owner: The frame that uses it.

        Returns:
          A Variable of the same class, value and metadata.
        """
        return make_variable(type(self), copy_containers(self._value), self._metadata, owner)

    def replace(self: V, value: Any, **metadata: Any) -> V:
        """Return a new Variable of the same type and metadata with another value.

        Args:
          value: The new value; hooks do not run.
          **metadata: Entries that replace or extend the metadata.

        Returns:
          The new Variable; this one is unchanged.
        """
        new_metadata = Metadata.of({**self._metadata.entries, **metadata}) if metadata else self._metadata
        return make_variable(type(self), checked_value(unwrap(value)), new_metadata, frames.owner_now())

    def copy(self: V) -> V:
        """Return a new Variable of the same type, metadata and value; dicts and lists are copied."""
        return self.replace(copy_containers(self.raw_value))

    def _set_class(self, cls: type) -> None:
        if not frames.may_write(self._owner):
            raise write_error(self, "the class")
        with Changing(self):
            object.__setattr__(self, "__class__", cls)
            end_watches(self)

    if not TYPE_CHECKING:  # hidden, so that type checkers report unknown names

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") or name in Variable.__slots__:
                raise AttributeError(name)
            metadata: Metadata = self._metadata
            if name in metadata:
                return metadata[name]
            try:
                try:
                    return getattr(self.get_value(), name)
                except AttributeError:
                    kind = "array" if isinstance(self._value, jax.Array) else type(self._value).__name__
                    raise errors.AttributeNameError(
                        f"{at_start(an(type(self)))} has no attribute {name!r}: it is neither a metadata entry "
                        f"nor an attribute of the value ({kind}).",
                        load_explanations().remedy_for("Variable", name),
                    ) from None
            except Exception as error:
                hide_frames(error)
                raise

        def __setattr__(self, name: str, value: Any) -> None:
            attribute = getattr(type(self), name, None)
            try:
                if name == "__class__":
                    self._set_class(value)
                elif hasattr(attribute, "__set__") and not isinstance(attribute, types.MemberDescriptorType):
                    object.__setattr__(self, name, value)
                else:  # a slot of a subclass too: transforms keep metadata only
                    warn_if_mistaken(self, name, value)
                    self.set_metadata(**{name: value})
            except Exception as error:
                hide_frames(error)
                raise

        @boundary
        def __delattr__(self, name: str) -> None:
            self.del_metadata(name)

    def __repr__(self) -> str:
        entries = self._metadata.entries.items()
        return call(
            type(self).__name__,
            [("raw_value", value_repr(self._value)), *((k, value_repr(v)) for k, v in entries)],
        )

    def __copy__(self: V) -> V:
        return self.replace(self.raw_value)

    def __reduce__(self) -> Any:
        resolved = frames.resolve(self) if frames.open_frames else self
        return (new_variable, (type(resolved),), (resolved._storage.value, resolved._metadata))

    def __setstate__(self, contents: tuple[Any, Metadata]) -> None:
        value, metadata = contents
        resolved = self._writable()
        store(resolved, value)
        set_metadata_past_checks(resolved, metadata)


_slots = vars(Variable)
_set_storage = _slots["_storage"].__set__  # bypasses __setattr__ with a C call
_set_metadata = _slots["_metadata"].__set__
set_owner = _slots["_owner"].__set__
_set_watches = _slots["_watches"].__set__


def set_value_past_hooks(variable: Variable[Any], value: Any) -> None:
    """Store a value in a Variable without hooks or checks."""
    frames.note_write(variable)
    store(variable, value)


def make_variable(cls: type[V], value: Any, metadata: Metadata, owner: Any) -> V:
    """Create a Variable without `__new__` and `__init__` of its class, hooks and checks."""
    variable = object.__new__(cls)
    _set_watches(variable, ())
    storage = Storage()
    storage.value = value
    _set_storage(variable, storage)
    _set_metadata(variable, metadata)
    set_owner(variable, owner)
    return variable


def new_variable(cls: type[V]) -> V:
    """Create a Variable for unpickling, before its contents: its metadata may refer back to it."""
    return make_variable(cls, None, EMPTY, frames.owner_now())


register(Variable, make_variable)
