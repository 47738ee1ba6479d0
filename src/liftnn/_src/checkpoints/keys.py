"""Keys of attribute paths in JSON: names and positions as they are, so that `1` and `"1"` differ; others marked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from liftnn import errors
from liftnn._src.printing import Verbatim
from liftnn._src.trees import HiddenKey, Path, format_path

CodedKey = str | int | tuple[str, str]
CodedPath = tuple[CodedKey, ...]

_HIDDEN = "hidden"
_OTHER = "other"


def encode_path(path: Path) -> CodedPath:
    """Return a path of keys that JSON can hold and that compare by type and value."""
    return tuple(map(_encode, path))


def _encode(key: Any) -> CodedKey:
    if type(key) is str or type(key) is int:
        return key
    return (_HIDDEN, str(key)) if type(key) is HiddenKey else (_OTHER, repr(key))


def decode_path(data: Any) -> CodedPath:
    """Return a path that was read from JSON, in which tuples are lists.

    Args:
      data: What was read.

    Returns:
      The path.

    Raises:
      CheckpointError: If it is not a path.
    """
    if not isinstance(data, list):
        raise malformed(data)
    path: list[CodedKey] = []
    for key in data:
        if type(key) is str or type(key) is int:
            path.append(key)
        elif isinstance(key, list) and len(key) == 2 and all(type(x) is str for x in key):
            path.append((key[0], key[1]))
        else:
            raise malformed(data)
    return tuple(path)


def malformed(data: Any) -> errors.CheckpointError:
    """Return the error for a part of the index that liftnn has not written."""
    return errors.CheckpointError(
        f"The index of the checkpoint has an entry that liftnn does not write: {json.dumps(data):.60}.",
        "Restore another step.",
    )


def show_path(path: CodedPath, root: str = "modules") -> str:
    """Format a path: `modules[0].layers[1].kernel`."""
    return format_path(map(_shown, path), root)


def _shown(key: CodedKey) -> Any:
    if not isinstance(key, tuple):
        return key
    return HiddenKey(key[1]) if key[0] == _HIDDEN else Verbatim(key[1])


def first_paths(shared: Iterable[tuple[CodedPath, ...]]) -> dict[CodedPath, CodedPath]:
    """Return the first path of each shared object, by its other paths."""
    return {other: paths[0] for paths in shared for other in paths[1:]}


def resolve(path: CodedPath, first: Mapping[CodedPath, CodedPath], known: Any) -> CodedPath | None:
    """Return the path in `known` of what a path leads to, through the other paths of shared objects.

    Args:
      path: The path.
      first: The first path of each shared object, by its other paths.
      known: The paths that are looked for.

    Returns:
      The first path of the same object; None if there is none.
    """
    if path in known:
        return path
    seen: set[CodedPath] = set()
    while path not in known:
        if path in seen:
            return None
        seen.add(path)
        for end in range(len(path), 0, -1):
            if path[:end] in first:
                path = first[path[:end]] + path[end:]
                break
        else:
            return None
    return path


def outside_path(
    path: CodedPath, others: Mapping[CodedPath, Iterable[CodedPath]], skipped: set[int]
) -> CodedPath | None:
    """Return a path to the same thing that does not start in one of some modules.

    Args:
      path: A first path.
      others: The other paths of each shared object, by its first path.
      skipped: The positions of the modules.

    Returns:
      The path; None if there is none.
    """
    seen: set[CodedPath] = set()

    def find(path: CodedPath) -> CodedPath | None:
        if not path or path[0] not in skipped:
            return path
        for end in range(len(path), 0, -1):
            if path[:end] in others and path[:end] not in seen:
                seen.add(path[:end])
                for found in map(find, others[path[:end]]):
                    if found is not None:
                        return found + path[end:]
        return None

    return find(path)
