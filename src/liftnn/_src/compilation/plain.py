"""The static contents of an exported function as JSON: data, and classes by name; nothing that could run code.

Pickle writes an object as a call of any function, which a hostile file chooses. Here only the functions of a short list
are called, all of liftnn, and classes are looked up, in modules that are loaded already, and never called. What cannot
be written in this way, such as a function that is part of a new module, is an error when it is written.
"""

from __future__ import annotations

import base64
import collections
import copyreg
import dataclasses
import json
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src import lazy
from liftnn._src.trees import LEAF, an, at_start, is_leaf_tree

_MAKERS = frozenset(
    {
        "FixedDict", "FixedState", "GraphDelta", "GraphSpec", "LeafPaths", "Metadata.of", "Static", "keys_of",
        "kind_named", "restore_layout", "restore_transformation",
    }
)  # fmt: skip
"""What may be called to restore an object. None of them calls what it gets."""
_CONSTANTS = frozenset({"ARRAY", "KEEP", "Carry", "Empty"})
_PLAIN_CONTAINERS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        type, list, tuple, dict, set, frozenset, bool, int, float, complex, str, bytes, types.NoneType,
        types.SimpleNamespace, collections.deque, collections.OrderedDict, collections.defaultdict,
    )
}  # fmt: skip
_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_TREEDEF: Any = type(LEAF)
_KIND = "is"


def to_json(x: Any) -> str:
    """Return the contents of an exported function as JSON.

    Args:
      x: The contents.

    Returns:
      The text.

    Raises:
      StructureError: If they hold something that is not plain.
    """
    return json.dumps(_encode(x))


def from_json(text: str | bytes) -> Any:
    """Return what `to_json` has written.

    Args:
      text: The text.

    Returns:
      The contents.

    Raises:
      StructureError: If a class cannot be found, or the text is not of that form.
    """
    try:
        return _decode(json.loads(text))
    except errors.LiftError:
        raise
    except Exception as error:
        raise errors.StructureError(
            f"The exported function has contents that liftnn does not write: {type(error).__name__}.",
            "Serialize it again, with `plain=True`.",
        ) from error


# --- to JSON


def _encode(x: Any) -> Any:
    cls = type(x)
    if x is None or cls in (bool, int, float, str):
        return x
    if cls is list:
        return [_encode(y) for y in x]
    if cls in (tuple, set, frozenset):
        return {_KIND: cls.__name__, "items": [_encode(y) for y in x]}
    if cls is dict:
        return {_KIND: "dict", "items": [[_encode(k), _encode(y)] for k, y in x.items()]}
    if cls is complex:
        return {_KIND: "complex", "items": [x.real, x.imag]}
    if cls is bytes:
        return {_KIND: "bytes", "base64": base64.b64encode(x).decode()}
    # The name of a dtype that is not built in, such as `>f4`, does not tell all of it.
    if isinstance(x, np.dtype) and x.isbuiltin:
        return {_KIND: "dtype", "name": x.name}
    if cls is _TREEDEF:
        return _encode_tree(x)
    if isinstance(x, type):
        return _encode_class(x)
    if isinstance(x, tuple) and hasattr(cls, "_fields"):
        return {_KIND: "named", "class": _encode_class(cls), "items": [_encode(y) for y in x]}
    return _encode_reduced(x)


def _encode_tree(tree: Any) -> Any:
    """Encode the structure of a pytree."""
    if is_leaf_tree(tree):
        return {_KIND: "leaf"}
    cls, data = tree.node_data()
    children = [_encode(child) for child in tree.children()]
    return {_KIND: "tree", "class": _encode_class(cls), "data": _encode(data), "children": children}


def _encode_class(cls: Any) -> Any:
    """Encode a class by name, after checking that it is found under it."""
    if _PLAIN_CONTAINERS.get(cls.__name__) is cls:
        return {_KIND: "class", "name": cls.__name__}
    if _is_plain_class(cls) and _find(cls.__module__, cls.__qualname__) is cls:
        return {_KIND: "class", "module": cls.__module__, "name": cls.__qualname__}
    raise _not_plain(f"the class {cls.__name__}")


def _encode_reduced(x: Any) -> Any:
    """Encode an object of liftnn as the call that restores it."""
    reduce = copyreg.dispatch_table.get(type(x))
    try:
        found: Any = x.__reduce_ex__(4) if reduce is None else reduce(x)
    except Exception as error:
        raise _not_plain(an(type(x))) from error
    if isinstance(found, str) and found in _CONSTANTS:
        return {_KIND: "constant", "name": found}
    name = getattr(found[0], "__qualname__", "") if isinstance(found, tuple) else ""
    if name not in _MAKERS or any(part is not None for part in found[2:]):
        raise _not_plain(an(type(x)))
    return {_KIND: "made", "by": name, "items": [_encode(y) for y in found[1]]}


def _not_plain(what: str) -> errors.StructureError:
    return errors.StructureError(
        f"{at_start(what)} is part of the exported function, and cannot be written with `plain=True`.",
        "Serialize it without `plain`, which uses pickle.",
    )


# --- from JSON


def _decode(data: Any) -> Any:
    if isinstance(data, list):
        return [_decode(x) for x in data]
    if not isinstance(data, dict):
        return data
    kind = data[_KIND]
    if kind in _SEQUENCES:
        return _SEQUENCES[kind]([_decode(x) for x in data["items"]])
    return _DECODERS[kind](data)


def _decode_dict(data: Any) -> Any:
    return {_decode(k): _decode(x) for k, x in data["items"]}


def _decode_class(data: Any) -> Any:
    """Return a class by name, if it is loaded, and is one of those that are written."""
    if "module" not in data:
        return _PLAIN_CONTAINERS[data["name"]]
    found = _find(data["module"], data["name"])
    if not isinstance(found, type) or not _is_plain_class(found):
        raise errors.StructureError(
            f"The exported function needs the class {data['module']}.{data['name']}, which is not loaded or not plain.",
            "Import its module first, under the name that it had when the function was exported.",
        )
    return found


def _decode_named(data: Any) -> Any:
    cls = _decode_class(data["class"])
    items = [_decode(x) for x in data["items"]]
    if len(items) != len(cls._fields):
        raise ValueError(f"{len(items)} fields for {cls}")
    return tuple.__new__(cls, items)


def _decode_made(data: Any) -> Any:
    name = data["by"]
    if name not in _MAKERS:
        raise ValueError(name)
    return _internal(name)(*[_decode(x) for x in data["items"]])


def _decode_constant(data: Any) -> Any:
    if data["name"] not in _CONSTANTS:
        raise ValueError(data["name"])
    return _internal(data["name"])


def _decode_tree(data: Any) -> Any:
    cls, children = _decode_class(data["class"]), [_decode(x) for x in data["children"]]
    content = _decode(data["data"])
    if isinstance(content, cls) and not children:  # a static object; JAX takes a named tuple for a tuple
        return jax.tree.structure(content)
    return _TREEDEF.from_node_data_and_children(jax.tree_util.default_registry, (cls, content), children)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "dict": _decode_dict,
    "complex": lambda data: complex(*data["items"]),
    "bytes": lambda data: base64.b64decode(data["base64"]),
    "dtype": lambda data: jnp.dtype(data["name"]),
    "class": _decode_class,
    "named": _decode_named,
    "made": _decode_made,
    "constant": _decode_constant,
    "tree": _decode_tree,
    "leaf": lambda data: LEAF,
}


# --- names


def _is_plain_class(cls: type) -> bool:
    """Return whether objects of a class can be created without calling it, or it is a number type."""
    is_data = hasattr(cls, "__graph_node__") or bool(dataclasses.is_dataclass(cls))
    is_named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    is_number = issubclass(cls, np.generic) or getattr(jnp, cls.__name__, None) is cls
    return is_data or is_named_tuple or is_number or cls.__module__.partition(".")[0] == "liftnn"


def _find(module: str, name: str) -> Any:
    """Return what a loaded module has under a qualified name; None if there is nothing."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _internal(name: str) -> Any:
    """Return what has a stable name."""
    found: Any = lazy.load("stable_names")
    for part in name.split("."):
        found = getattr(found, part)
    return found
