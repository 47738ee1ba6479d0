"""The index: a text file beside the arrays, with its own checksum, that says what each array is."""

from __future__ import annotations

import dataclasses
import json
import zlib
from typing import Any

from liftnn import errors
from liftnn._src.checkpoints.entries import CheckpointEntry, entry_from_json
from liftnn._src.checkpoints.keys import CodedPath, decode_path, malformed

INDEX = "liftnn_index"
"""The name of the file."""
_MAGIC = "liftnn checkpoint "
FORMAT_VERSION = 1
"""The version of the format."""

Leaves = dict[CodedPath, CheckpointEntry] | None
"""The entries of the value of a Variable by path from it; None if it is `Empty`."""


@dataclasses.dataclass
class Index:
    """The content of the index.

    Args:
      leaves: The entries of each Variable and array leaf by path.
      shared: For each shared object that may lead to an entry all its paths, the first one first.
      values: The plain values, as JSON.
      metrics: The metrics by name.
      files: Length and checksum of Orbax's files by path from the folder.
    """

    leaves: dict[CodedPath, Leaves] = dataclasses.field(default_factory=dict)
    shared: list[tuple[CodedPath, ...]] = dataclasses.field(default_factory=list)
    values: Any = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    files: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def to_text(self) -> str:
        """Return the content of the file: a line with mark, version and checksum, then JSON."""
        content = {
            "leaves": [[path, _leaves_to_json(leaves)] for path, leaves in self.leaves.items()],
            "shared": self.shared,
            "values": self.values,
            "metrics": self.metrics,
            "files": self.files,
        }
        text = json.dumps(content)
        return f"{_MAGIC}{FORMAT_VERSION} {zlib.crc32(text.encode()):08x}\n{text}\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Index:
        """Return the index from the content of the file.

        Args:
          data: The content.

        Returns:
          The index.

        Raises:
          CheckpointError: If it is not an index of this version, or damaged.
        """
        first, _, text = data.partition(b"\n")
        words = first.removeprefix(_MAGIC.encode()).split(b" ")
        if not first.startswith(_MAGIC.encode()) or len(words) != 2:
            raise damaged("its index does not start as one of liftnn")
        if words[0] != str(FORMAT_VERSION).encode():
            if words[0].isdigit() and int(words[0]) > FORMAT_VERSION:
                raise errors.CheckpointError(
                    f"The checkpoint has format {int(words[0])}; this version of liftnn reads format {FORMAT_VERSION}.",
                    "Update liftnn.",
                )
            raise damaged("its index has an unknown version")
        if f"{zlib.crc32(text[:-1]):08x}".encode() != words[1] or text[-1:] != b"\n":
            raise damaged("some bytes of its index are missing or were changed")
        try:
            return cls._from_json(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if isinstance(error, errors.LiftError):
                raise
            raise damaged("its index cannot be read") from error

    @classmethod
    def _from_json(cls, content: Any) -> Index:
        leaves = {decode_path(path): _leaves_from_json(entries) for path, entries in content["leaves"]}
        shared = [tuple(map(decode_path, paths)) for paths in content["shared"]]
        metrics = {str(name): float(x) for name, x in content["metrics"].items()}
        files = content["files"]
        for name, numbers in files.items():
            if not isinstance(numbers, list) or [type(n) for n in numbers] != [int, int]:
                raise malformed([name, numbers])
        return cls(leaves, shared, content["values"], metrics, files)


def _leaves_to_json(leaves: Leaves) -> Any:
    if leaves is None:
        return None
    if list(leaves) == [()]:
        return leaves[()].to_json()
    return [[path, entry.to_json()] for path, entry in leaves.items()]


def _leaves_from_json(data: Any) -> Leaves:
    if data is None:
        return None
    if isinstance(data, list):
        return {decode_path(path): entry_from_json(entry) for path, entry in data}
    return {(): entry_from_json(data)}


def damaged(cause: str) -> errors.CheckpointError:
    """Return the error for a checkpoint whose files are not what was written."""
    return errors.CheckpointError(
        f"The checkpoint is damaged: {cause}.",
        "Restore another step: `liftnn.saved_steps(folder)` lists them.",
    )
