"""Variable: a mutable container of an array, or of any pytree of arrays, with metadata."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, TypeVar, overload

import jax
from jax.typing import ArrayLike

from liftnn import errors
from liftnn._src.printing import call
from liftnn._src.tracebacks import boundary, hide_frames
from liftnn._src.trees import an, at_start
from liftnn._src.type_variables import T
from liftnn._src.variables import frames
from liftnn._src.variables.metadata import EMPTY, Annotated, Metadata
from liftnn._src.variables.operators import Operators, constant_or_value, unwrap
from liftnn._src.variables.watch import Watch, end_watches

V = TypeVar("V", bound="Variable[Any]")


class Storage:
    """Storage of the value of one Variable, for the Variable's lifetime.

    `Variable` defines `__getattr__`, which keeps Python from specializing attribute reads: 50 ns each on Python 3.11,
    where a Storage takes 10. So the fast path keeps the storages of its Variables.
    """

    __slots__ = ("value",)

    value: Any


class Variable(Operators[T]):
    """A mutable container of an array, or of any pytree of arrays.

    Assign to `value` to change it. `v[...]` and `v[...] = x` read and write the whole array, `v[i] = x` writes a part
    of it. A Variable acts as its array in operators, indexing and numpy functions; functions of `jax.numpy` accept it
    too. Attributes that a Variable lacks are looked up in its metadata and then on its value (`v.shape`). For type
    checkers, `Variable[T]` holds a T, and a bare `Variable` holds an array.

    Args:
      value: An array of any shape and dtype, or a pytree of arrays. If it is a Variable, its value is used.
      **metadata: Static information that every transform keeps, read and set as attributes (`v.sharding`). Five names
        are hooks, each a callable or a sequence of callables, called in order:
        `get_value_hooks(variable, value)` and `set_value_hooks(variable, value)` return the value to read or store,
        `create_value_hooks(variable, value)` returns the initial value to store, and
        `add_axis_hooks(variable, axis_name, axis_index)` and `remove_axis_hooks(variable, axis_name, axis_index)`
        adapt metadata when a transform adds or removes an axis. The default of each is `()`. A subclass may define
        `on_get_value(value)`, `on_set_value(value)`, `on_create_value(value)`, `on_add_axis(axis_name, axis_index)`
        and `on_remove_axis(axis_name, axis_index)` instead; they run first.

    Raises:
      ArgumentError: If the value is a Module, or a hook is not callable.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> w = liftnn.Param(jnp.ones((2, 3)), sharding=("in", "out"))
      >>> w.value = w * 2
      >>> w.sharding, w.shape, float(w.sum())
      (('in', 'out'), (2, 3), 12.0)
    """

    __slots__ = ("__weakref__", "_cell", "_metadata", "_owner", "_watches")
    __graph_node__ = True

    _cell: Storage
    _metadata: Metadata
    _owner: Any
    _watches: tuple[Watch, ...]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _register(cls)

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
        _set_cell(self, Storage())
        value = unwrap(value)
        on_create = getattr(type(self), "on_create_value", None)
        if on_create is not None:
            value = on_create(self, value)
        for hook in self._metadata["create_value_hooks"] if metadata else ():
            value = hook(self, value)
        self._cell.value = _checked(value)

    @property
    def value(self) -> T:
        """The value, after the get hooks. Assigning stores the result of the set hooks."""
        box = frames.resolve(self) if frames.open_frames else self
        value = box._cell.value
        on_get = getattr(type(self), "on_get_value", None)
        if on_get is not None:
            value = on_get(box, value)
        for hook in box._metadata.reads:
            value = hook(box, value)
        return value

    @value.setter
    def value(self, value: T | ArrayLike | Variable[Any]) -> None:
        box = self._writable("the value")
        value = unwrap(value)
        on_set = getattr(type(self), "on_set_value", None)
        if on_set is not None:
            value = on_set(box, value)
        for hook in box._metadata.writes:
            value = hook(box, value)
        box._cell.value = _checked(value)

    @property
    def raw_value(self) -> T:
        """The value, without hooks."""
        return (frames.resolve(self) if frames.open_frames else self)._cell.value

    @raw_value.setter
    def raw_value(self, value: T | ArrayLike | Variable[Any]) -> None:
        self._writable("the value")._cell.value = _checked(unwrap(value))

    @property
    def _value(self) -> Any:
        """The value, without hooks or checks."""
        return self._cell.value

    def _writable(self: V, what: str) -> V:
        """Return the innermost frame's copy of this Variable, after checking that its value may be written here."""
        box = frames.resolve(self) if frames.open_frames else self
        if not frames.may_write(box._owner):
            raise frames.write_error(self, what)
        frames.note_write(box)
        return box

    def _placeholder(self: V, owner: Any) -> V:
        """Return the placeholder of a captured Variable that is not an input, until the function has returned.

        Args:
          owner: The frame that uses it.

        Returns:
          A Variable of the same class, value and metadata.
        """
        value = self._value if isinstance(self._value, jax.Array) else jax.tree.map(lambda x: x, self._value)
        return make_variable(type(self), value, self._metadata, owner)

    def get_metadata(self, name: str | None = None, default: Any = None) -> Any:
        """Return the metadata, or one entry of it.

        Args:
          name: The name of the entry. The default, None, returns all entries that were set, as a new dict.
          default: The result if there is no such entry.

        Returns:
          The entry, or a dict of all entries.
        """
        if name is None:
            return self._metadata.given
        return self._metadata.get(name, default)

    @boundary
    def set_metadata(self, **metadata: Any) -> None:
        """Set entries of the metadata; the other entries stay.

        Args:
          **metadata: The new values by name.

        Raises:
          ArgumentError: If a hook is not callable.
          TraceContextError: If the Variable belongs to another trace.
        """
        if not frames.may_write(self._owner):
            raise frames.write_error(self, "the metadata")
        set_metadata_past_checks(self, Metadata.of({**self._metadata.given, **metadata}))

    def has_metadata(self, name: str) -> bool:
        """Return whether the metadata entry was set.

        Args:
          name: The name of the entry.

        Returns:
          True if it was set.
        """
        return name in self._metadata.given

    @boundary
    def del_metadata(self, name: str) -> None:
        """Remove an entry of the metadata.

        Args:
          name: The name of the entry.

        Raises:
          AttributeNameError: If there is no such entry.
          TraceContextError: If the Variable belongs to another trace.
        """
        given = self._metadata.given
        if name not in given:
            raise errors.AttributeNameError(f"{at_start(an(type(self)))} has no metadata {name!r}.")
        if not frames.may_write(self._owner):
            raise frames.write_error(self, "the metadata")
        del given[name]
        set_metadata_past_checks(self, Metadata.of(given))

    def replace(self: V, value: Any, **metadata: Any) -> V:
        """Return a new Variable of the same type and metadata with another value.

        Args:
          value: The new value; hooks do not run.
          **metadata: Entries that replace or extend the metadata.

        Returns:
          The new Variable; this one is unchanged.
        """
        given = Metadata.of({**self._metadata.given, **metadata}) if metadata else self._metadata
        return make_variable(type(self), _checked(unwrap(value)), given, frames.owner_now())

    def copy(self: V) -> V:
        """Return a new Variable of the same type, metadata and value."""
        return self.replace(self.raw_value)

    def add_axis(self, axis_name: str | None, axis_index: int) -> None:
        """Run the hooks that adapt metadata to an axis that a transform adds.

        Args:
          axis_name: Name of the axis; None if the axis is unnamed.
          axis_index: Position of the axis.
        """
        self._run_axis_hooks("on_add_axis", "add_axis_hooks", axis_name, axis_index)

    def remove_axis(self, axis_name: str | None, axis_index: int) -> None:
        """Run the hooks that adapt metadata to an axis that a transform removes.

        Args:
          axis_name: Name of the axis; None if the axis is unnamed.
          axis_index: Position of the axis.
        """
        self._run_axis_hooks("on_remove_axis", "remove_axis_hooks", axis_name, axis_index)

    def _run_axis_hooks(self, method: str, kind: str, axis_name: str | None, axis_index: int) -> None:
        on_axis = getattr(type(self), method, None)
        if on_axis is not None:
            on_axis(self, axis_name, axis_index)
        for hook in self._metadata[kind]:
            hook(self, axis_name, axis_index)

    def _set_class(self, cls: type) -> None:
        if not frames.may_write(self._owner):
            raise frames.write_error(self, "the class")
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
                    return getattr(self.value, name)
                except AttributeError:
                    kind = "array" if isinstance(self._value, jax.Array) else type(self._value).__name__
                    raise errors.AttributeNameError(
                        f"{at_start(an(type(self)))} has no attribute {name!r}: it is neither a metadata entry "
                        f"nor an attribute of the value ({kind})."
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
                    self.set_metadata(**{name: value})
            except Exception as error:
                hide_frames(error)
                raise

        @boundary
        def __delattr__(self, name: str) -> None:
            self.del_metadata(name)

    def __repr__(self) -> str:
        given = self._metadata.given.items()
        return call(
            type(self).__name__, [("raw_value", repr(self._value)), *((k, repr(v)) for k, v in given)]
        )

    def __copy__(self: V) -> V:
        return self.copy()

    def __reduce__(self) -> Any:
        box = frames.resolve(self) if frames.open_frames else self
        return (new_variable, (type(box),), (box._cell.value, box._metadata))

    def __setstate__(self, contents: tuple[Any, Metadata]) -> None:
        value, metadata = contents
        self._cell.value = value
        _set_metadata(self, metadata)


_slots = vars(Variable)
_set_cell = _slots["_cell"].__set__  # bypasses __setattr__ with a C call
_set_metadata = _slots["_metadata"].__set__
set_owner = _slots["_owner"].__set__
_set_watches = _slots["_watches"].__set__


def set_value_past_hooks(variable: Variable[Any], value: Any) -> None:
    """Store a value in a Variable without hooks or checks."""
    frames.note_write(variable)
    variable._cell.value = value


def set_metadata_past_checks(variable: Variable[Any], metadata: Metadata) -> None:
    """Store metadata in a Variable without checks."""
    _set_metadata(variable, metadata)
    end_watches(variable)


def make_variable(cls: type[V], value: Any, metadata: Metadata, owner: Any) -> V:
    """Create a Variable without `__init__`: no hooks, no checks."""
    variable = cls.__new__(cls)
    _set_watches(variable, ())
    cell = Storage()
    cell.value = value
    _set_cell(variable, cell)
    _set_metadata(variable, metadata)
    set_owner(variable, owner)
    return variable


def new_variable(cls: type[V]) -> V:
    """Create a Variable for unpickling, before its contents: its metadata may refer back to it."""
    return make_variable(cls, None, EMPTY, frames.owner_now())


def _checked(value: Any) -> Any:
    """Return the value if a Variable can hold it, else raise ArgumentError."""
    if not isinstance(value, jax.Array) and hasattr(type(value), "__graph_node__"):
        raise errors.ArgumentError(
            f"A Variable holds arrays, not {an(type(value))}.",
            "Assign it to an attribute of a Module instead.",
        )
    return value


# --- Variables are pytrees, so that compiled JAX functions such as `jnp.sum` and most of `jax.nn` accept them.
# liftnn's own transforms treat them as objects and do not flatten them.

_VALUE = jax.tree_util.GetAttrKey("value")


def _flatten(variable: Variable[Any]) -> tuple[tuple[Any], Metadata]:
    return (constant_or_value(variable),), variable._metadata


def _flatten_with_keys(variable: Variable[Any]) -> tuple[tuple[tuple[Any, Any]], Metadata]:
    return ((_VALUE, constant_or_value(variable)),), variable._metadata


def _register(cls: type[V]) -> None:
    """Register a class of Variables with JAX."""

    def unflatten(metadata: Metadata, children: Any) -> V:
        owner = frames.owner_now()
        return make_variable(
            cls, children[0], metadata, owner if isinstance(owner, frames.Frame) else frames.COPIED
        )

    jax.tree_util.register_pytree_with_keys(cls, _flatten_with_keys, unflatten, _flatten)


_register(Variable)
