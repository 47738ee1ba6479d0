"""The methods of a Variable that read and change its metadata, and that run the hooks among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from liftnn import errors
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an, at_start
from liftnn._src.variables import frames
from liftnn._src.variables.hooks import HOOKS
from liftnn._src.variables.metadata import Metadata, adopt
from liftnn._src.variables.watch import Changing, end_watches
from liftnn._src.variables.write_errors import write_error


class MetadataMethods:
    """Mixin: the metadata of a Variable, which are attributes of it, as are those of the value."""

    __slots__ = ()

    if TYPE_CHECKING:
        _metadata: Metadata
        _owner: Any
        _value: Any

    def __dir__(self) -> list[str]:
        of_value = [name for name in dir(self._value) if not name.startswith("_")]
        return sorted({*super().__dir__(), *self._metadata, *of_value})

    def get_metadata(self, name: str | None = None, default: Any = None) -> Any:
        """Return the metadata, or one entry of it.

        Args:
          name: The name of the entry. The default, None, returns all entries that were set, as a new dict.
          default: The result if there is no such entry.

        Returns:
          The entry, or a dict of all entries.
        """
        if name is None:
            return self._metadata.entries
        return self._metadata.get(name, default)

    @overload
    def set_metadata(self, **metadata: Any) -> None: ...

    @overload
    def set_metadata(self, name: str, value: Any, /) -> None: ...

    @overload
    def set_metadata(self, metadata: Mapping[str, Any], /) -> None: ...

    @boundary
    def set_metadata(self, *entry: Any, **metadata: Any) -> None:
        """Set entries of the metadata; the other entries stay, unless a mapping replaces all.

        Args:
          *entry: The name of an entry and its value, or a mapping from names to values that replaces all metadata.
          **metadata: The new values by name.

        Raises:
          ArgumentError: If a hook is not callable.
          ArgumentTypeError: If there are other positional arguments, or both kinds of arguments.
          TraceContextError: If the Variable belongs to another trace.
        """
        new = _changed(self._metadata.entries, entry, metadata)
        if not frames.may_write(self._owner):
            raise write_error(self, "the metadata")
        set_metadata_past_checks(self, Metadata.of(new))

    def has_metadata(self, name: str) -> bool:
        """Return whether the metadata entry was set.

        Args:
          name: The name of the entry.

        Returns:
          True if it was set.
        """
        return name in self._metadata.entries

    @boundary
    def del_metadata(self, name: str) -> None:
        """Remove an entry of the metadata.

        Args:
          name: The name of the entry.

        Raises:
          AttributeNameError: If there is no such entry.
          TraceContextError: If the Variable belongs to another trace.
        """
        entries = self._metadata.entries
        if name not in entries:
            raise errors.AttributeNameError(f"{at_start(an(type(self)))} has no metadata {name!r}.")
        if not frames.may_write(self._owner):
            raise write_error(self, "the metadata")
        del entries[name]
        set_metadata_past_checks(self, Metadata.of(entries))

    def add_axis(self, axis_index: int, axis_name: str | None) -> None:
        """Run the hooks that adapt metadata to an axis that a transform adds.

        Args:
          axis_index: Position of the axis.
          axis_name: Name of the axis; None if the axis is unnamed.
        """
        self._run_axis_hooks("on_add_axis", axis_index, axis_name)

    def remove_axis(self, axis_index: int, axis_name: str | None) -> None:
        """Run the hooks that adapt metadata to an axis that a transform removes.

        Args:
          axis_index: Position of the axis.
          axis_name: Name of the axis; None if the axis is unnamed.
        """
        self._run_axis_hooks("on_remove_axis", axis_index, axis_name)

    def _run_axis_hooks(self, name: str, axis_index: int, axis_name: str | None) -> None:
        further = self._metadata[HOOKS[name]]
        for hook in self._hooks(name)[: -len(further) or None]:
            hook(self, axis_index, axis_name)
        for hook in further:
            hook(self, axis_name, axis_index)

    def _hooks(self, name: str) -> tuple[Any, ...]:
        """Return the hooks of one kind: the method of the class, unless the metadata replace it, and the metadata's."""
        method, metadata = getattr(type(self), name, None), self._metadata
        class_hooks = () if method is None or metadata.has(name) else (method,)
        return (*class_hooks, *metadata.hooks(name))


def _changed(current: dict[str, Any], entry: tuple[Any, ...], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata after a call of `set_metadata`."""
    match entry:
        case ():
            return {**current, **metadata}
        case (str() as name, value) if not metadata:
            return {**current, name: value}
        case (Mapping() as new,) if not metadata:
            return dict(new)
        case _:
            raise errors.ArgumentTypeError(
                "set_metadata takes entries by keyword, or a name and a value, or one mapping that replaces all "
                "metadata.",
                "Write `variable.set_metadata(name=value)`.",
            )


def set_metadata_past_checks(variable: MetadataMethods, metadata: Metadata) -> None:
    """Store metadata in a Variable without checks."""
    with Changing(variable):
        object.__setattr__(variable, "_metadata", metadata)
        end_watches(variable)


def adopt_metadata(variable: MetadataMethods, other: MetadataMethods) -> None:
    """Let a Variable take over the metadata of another one; see `adopt`."""
    metadata = adopt(variable._metadata, other._metadata)
    if metadata is not variable._metadata:
        set_metadata_past_checks(variable, metadata)
