"""Plain values in JSON: numbers, strings and containers, with the types that JSON does not have."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

from liftnn import errors
from liftnn._src.checkpoints.keys import malformed
from liftnn._src.trees import an, format_path, is_array

Pack = Callable[[Any, str], Any]
"""Stores an array, given with its path, and returns what JSON holds in its place."""

_LONG = 2048
"""The bits of an int above which Python may not write it in decimal digits."""
_TAG = "is"
"""The key of the JSON objects that stand for something else than a dict with string keys."""


def encode_value(x: Any, path: tuple[Any, ...], root: str, pack: Pack | None) -> Any:
    """Return a value as JSON.

    Args:
      x: None, a bool, a number, a string, bytes, or a list, tuple or dict of such values; an array, with `pack`.
      path: The path of the value.
      root: The start of paths in messages.
      pack: Stores an array; None if there must not be any.

    Returns:
      What `json.dumps` takes.

    Raises:
      ArgumentTypeError: If a value is of another type.
    """
    cls = type(x)
    if cls is int and x.bit_length() > _LONG:
        return {_TAG: "int", "hex": hex(x)}
    if x is None or cls in (bool, int, float, str):
        return x
    if cls is complex:
        return {_TAG: "complex", "parts": [x.real, x.imag]}
    if cls is bytes:
        return {_TAG: "bytes", "base64": base64.b64encode(x).decode()}
    if cls in (list, tuple):
        parts = [encode_value(y, (*path, i), root, pack) for i, y in enumerate(x)]
        return parts if cls is list else {_TAG: "tuple", "items": parts}
    if cls is dict:
        pairs = [
            [_encode_key(k, (*path, k), root), encode_value(y, (*path, k), root, pack)] for k, y in x.items()
        ]
        return {_TAG: "dict", "items": pairs}
    if pack is not None and (is_array(x) or isinstance(x, np.generic)):
        return {_TAG: "array", "array": pack(x, format_path(path, root))}
    raise errors.ArgumentTypeError(
        f"{format_path(path, root)} is {an(cls)}, which a checkpoint cannot hold.",
        "Convert it to numbers, strings, arrays, or lists, tuples and dicts of them; pass modules and Variables before "
        "the options.",
    )


def _encode_key(key: Any, path: tuple[Any, ...], root: str) -> Any:
    if type(key) in (bool, int, float, str):
        return key
    raise errors.ArgumentTypeError(
        f"The key of {format_path(path, root)} is {an(type(key))}, which a checkpoint cannot hold.",
        "Use strings or numbers as keys.",
    )


def decode_value(data: Any, unpack: Callable[[Any], Any]) -> Any:
    """Return the value that `encode_value` has encoded.

    Args:
      data: The JSON.
      unpack: Returns the array for what `pack` returned.

    Returns:
      The value.

    Raises:
      CheckpointError: If the JSON is not of that form.
    """
    if isinstance(data, list):
        return [decode_value(x, unpack) for x in data]
    if not isinstance(data, dict):
        return data
    try:
        kind = data[_TAG]
        if kind == "int":
            return int(data["hex"], 16)
        if kind == "complex":
            return complex(*data["parts"])
        if kind == "bytes":
            return base64.b64decode(data["base64"])
        if kind == "tuple":
            return tuple([decode_value(x, unpack) for x in data["items"]])
        if kind == "dict":
            return {key: decode_value(x, unpack) for key, x in data["items"]}
        if kind == "array":
            return unpack(data["array"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, errors.LiftError):
            raise
        raise malformed(data) from error
    raise malformed(data)
