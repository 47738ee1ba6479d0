"""Weights in several safetensors files, with an index beside them, as Hugging Face lays them out.

The index `model.safetensors.index.json` has a `weight_map` from the name of each tensor to the name of its file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from liftnn import errors
from liftnn._src.weights.entries import Spec
from liftnn._src.weights.header import NOTES
from liftnn._src.weights.tensor_file import TensorFile

SUFFIX = ".index.json"


def read_index(path: str) -> dict[str, str]:
    """Return the name of the file of each tensor.

    Args:
      path: The path of the index.

    Returns:
      The `weight_map`.

    Raises:
      CheckpointError: If it cannot be read, or names files outside of its folder.
    """
    try:
        with open(path, encoding="utf-8") as f:
            weight_map: Any = json.load(f)["weight_map"]
        valid = all(isinstance(k, str) and isinstance(v, str) for k, v in weight_map.items())
    except OSError as error:
        raise errors.CheckpointError(
            f"{path} cannot be read: {error.strerror or error}.", "Check the path of the file."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        valid, weight_map = False, {}
    if not valid:
        raise errors.CheckpointError(
            f"{path} is damaged: it is not an index of safetensors files.",
            "Nothing was changed. Load another copy of the file, or write it again.",
        )
    for name in set(weight_map.values()):
        if name in ("", ".", "..") or not name.endswith(".safetensors") or {"/", "\\", "\0", ":"} & {*name}:
            raise errors.CheckpointError(
                f"{path} refers to {name!r}, which is not the name of a safetensors file in its folder.",
                "Nothing was changed. Do not use this index: its files must be beside it.",
            )
    return weight_map


def old_shards(file: str) -> list[str]:
    """Return the shards that belong to a file before it is replaced.

    Args:
      file: The path without the suffix of an index.

    Returns:
      The paths of those that the index beside it refers to, and of those that a process has left behind that died
      while it wrote them.
    """
    stem, folder = re.escape(os.path.basename(file).removesuffix(".safetensors")), os.path.dirname(file)
    shard, written = (
        re.compile(stem + x + r"-\d{5}-of-\d{5}\.safetensors") for x in (r"(-\w+)?", r"-[0-9a-f]{8}")
    )
    try:
        referred = set(read_index(file + SUFFIX).values())
    except errors.CheckpointError:
        referred = set()
    try:
        found = [name for name in os.listdir(folder or ".") if written.fullmatch(name)]
    except OSError:
        found = []
    return [os.path.join(folder, name) for name in {*found, *filter(shard.fullmatch, referred)}]


class Files:
    """The open files of a set of weights, as a source of tensors.

    Args:
      verb: The function that reads them, for messages.
      path: The path of a safetensors file or an index; the index beside it is used if the file does not exist.

    Raises:
      CheckpointError: If a file cannot be read or is damaged, or if the index and the files do not fit.
      MissingPackageError: If safetensors is not installed.
    """

    def __init__(self, verb: str, path: str):
        if not path.endswith(SUFFIX) and not os.path.exists(path):  # a link may lead to where the index is
            indexes = [x + SUFFIX for x in (path, os.path.realpath(path))]
            path = next(filter(os.path.exists, indexes), path)
        self.text = path
        with contextlib.ExitStack() as stack:
            if path.endswith(SUFFIX):
                self._files = self._open_shards(verb, path, stack)
            else:
                file = stack.enter_context(contextlib.closing(TensorFile(verb, path)))
                self._files = dict.fromkeys(file.names(), file)
                self._distinct = [file]
            self.metadata: Mapping[str, str] = {
                k: v for file in self._distinct[::-1] for k, v in file.metadata.items() if k != NOTES
            }
            self._tied = {k: v for file in self._distinct for k, v in file.notes.ties.items()}
            self.ties: Mapping[str, str] = {**self._dropped(), **self._tied}
            self._stack = stack.pop_all()

    def _open_shards(self, verb: str, path: str, stack: contextlib.ExitStack) -> dict[str, TensorFile]:
        """Return the open file of each tensor that an index names."""
        weight_map = read_index(path)
        opened = {
            name: stack.enter_context(
                contextlib.closing(TensorFile(verb, os.path.join(os.path.dirname(path), name)))
            )
            for name in sorted(set(weight_map.values()))
        }
        self._distinct = list(opened.values())
        found = {(tensor, name) for name, file in opened.items() for tensor in file.names()}
        wrong = sorted(found ^ set(weight_map.items()))
        if wrong:
            tensor, name = wrong[0]
            what = "is in {}, and not in the index" if wrong[0] in found else "is not in {}"
            raise errors.CheckpointError(
                f"{path} does not fit its files: the tensor {tensor!r} {what.format(name)}.",
                "Nothing was changed. Copy the index and all its files again.",
            )
        return {tensor: opened[name] for tensor, name in weight_map.items()}

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _dropped(self) -> dict[str, str]:
        """Return the names of shared tensors that `safetensors.torch.save_model` left to the metadata."""
        texts = [file.metadata for file in self._distinct if NOTES not in file.metadata]
        return {k: v for x in texts for k, v in x.items() if v in self._files and k not in self._files}

    def names(self) -> Collection[str]:
        """Return the names of the tensors, and those of tied ones that are stored once, as `save_weights` does."""
        return [*self._files, *(name for name in self._tied if name not in self._files)]

    def spec(self, name: str) -> Spec:
        """Return shape and dtype of a tensor."""
        name = self._stored(name)
        return self._files[name].spec(name)

    def read(self, name: str) -> Any:
        """Return a tensor."""
        name = self._stored(name)
        return self._files[name].read(name)

    def verify(self) -> None:
        """Compare all tensors with their checksums; raise CheckpointError if one differs."""
        for file in self._distinct:
            file.verify()

    def _stored(self, name: str) -> str:
        """Return the name under which a tensor is stored."""
        return name if name in self._files else self.ties[name]
