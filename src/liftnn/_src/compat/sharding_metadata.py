"""The metadata entry that declares a sharding, found under the one name that Flax NNX stores it with: `out_sharding`.

Flax renames `sharding` and `sharding_names` when a Variable is created. The Variables of the stand-in are those of
liftnn, which keep the name, and its own programs read it; so the entry stays where it is, and is found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from liftnn._src.tracebacks import boundary
from liftnn._src.variables.metadata import SHARDING_NAMES
from liftnn._src.variables.variable import Variable

_Variable = Variable[Any] if TYPE_CHECKING else object

NAME = "out_sharding"
"""The name of the entry in Flax NNX."""

_get_metadata: Any = Variable.get_metadata
_set_metadata: Any = Variable.set_metadata
_has_metadata: Any = Variable.has_metadata
_del_metadata: Any = Variable.del_metadata


def _stored_name(metadata: Mapping[str, Any]) -> str:
    """Return the name of the entry that declares the sharding; that of Flax NNX if there is none."""
    return next((name for name in SHARDING_NAMES if metadata.get(name) is not None), NAME)


class MetadataDict(dict[str, Any]):
    """Metadata that were set; `out_sharding` stands for the entry that declares the sharding."""

    def _stored(self, name: Any) -> Any:
        return (
            next((x for x in SHARDING_NAMES if dict.get(self, x) is not None), NAME) if name == NAME else name
        )

    def __missing__(self, name: str) -> Any:
        stored = self._stored(name)
        if stored == name:
            raise KeyError(name)
        return self[stored]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(self._stored(name))

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(self._stored(name), value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(self._stored(name))

    def get(self, name: str, default: Any = None) -> Any:
        """Return an entry, or the default."""
        return super().get(self._stored(name), default)

    def pop(self, name: str, *default: Any) -> Any:
        """Remove an entry, and return it, or the default."""
        return super().pop(self._stored(name), *default)


@boundary
class ShardingMethods(_Variable):
    """The methods of a Variable that read and change the entry, and other metadata as liftnn does."""

    @property
    def sharding_names(self) -> Any:
        """The declared sharding in the metadata; None if there is none."""
        return self._metadata.get(_stored_name(self._metadata))

    @property
    def out_sharding(self) -> Any:
        """The declared sharding in the metadata, under whichever of its names; assigning to it declares another."""
        if self.sharding_names is None:
            raise AttributeError(NAME)  # the Variable looks it up elsewhere then, or says what it has
        return self.sharding_names

    @out_sharding.setter
    def out_sharding(self, sharding: Any) -> None:
        self.set_metadata(out_sharding=sharding)

    def get_metadata(
        self, name: str | None = None, default: Any = None, *, exclude_required: bool | None = None
    ) -> Any:
        """Return the metadata, or one entry of it.

        Args:
          name: The name of the entry. The default, None, returns all entries that were set, as a new dict. The declared
            sharding is found as `out_sharding`, and under the name that it was declared with.
          default: The result if the entry does not exist.
          exclude_required: Accepted without effect: Flax requires entries that liftnn does not have.

        Returns:
          The entry, or a dict of all entries.
        """
        stored = _stored_name(self._metadata)
        if name is None:
            entries = _get_metadata(self)
            return entries if stored == NAME else MetadataDict(entries)
        return _get_metadata(self, stored if name == NAME else name, default)

    def set_metadata(self, *entry: Any, **metadata: Any) -> None:
        """Set entries of the metadata; the other entries stay, unless a mapping replaces all.

        A declared sharding replaces the one that is there, whatever the names of the two.

        Args:
          *entry: The name of an entry and its value, or a mapping from names to values that replaces all metadata.
          **metadata: The new values by name.

        Raises:
          ArgumentError: If a hook is not callable.
          ArgumentTypeError: If there are other positional arguments, or both kinds of arguments.
          TraceContextError: If the Variable belongs to another trace.
        """
        if len(entry) == 2 and isinstance(entry[0], str) and not metadata:
            entry, metadata = (), {entry[0]: entry[1]}
        if entry or metadata.keys().isdisjoint(SHARDING_NAMES):
            _set_metadata(self, *entry, **metadata)
            return
        entries = self._metadata.entries
        for name, value in metadata.items():
            if name == NAME:
                entries[_stored_name(entries)] = value
                continue
            if name in SHARDING_NAMES and name not in entries:
                entries = {key: x for key, x in entries.items() if key not in SHARDING_NAMES}
            entries[name] = value
        _set_metadata(self, entries)

    def has_metadata(self, name: str) -> bool:
        """Return whether the metadata entry was set.

        Args:
          name: The name of the entry; `out_sharding` stands for the declared sharding under any of its names.

        Returns:
          True if it was set.
        """
        return _has_metadata(self, _stored_name(self._metadata) if name == NAME else name)

    def del_metadata(self, name: str) -> None:
        """Remove an entry of the metadata.

        Args:
          name: The name of the entry; `out_sharding` stands for the declared sharding under any of its names.

        Raises:
          AttributeNameError: If the entry does not exist.
          TraceContextError: If the Variable belongs to another trace.
        """
        _del_metadata(self, _stored_name(self._metadata) if name == NAME else name)
