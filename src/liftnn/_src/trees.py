"""Pytrees and attribute paths: paths and tree structures as text, tree prefixes, and predicates for array leaves."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Key = Any
Path = tuple[Key, ...]

ARRAY_TYPES = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)
NUMBER_TYPES = (bool, int, float, complex, np.generic)


LEAF = jax.tree.structure(0)
"""The structure of a single leaf."""


def is_array_subclass(x: Any) -> bool:
    """Return whether an array is of a subclass of numpy's, which may hold more than its elements, such as a mask."""
    return isinstance(x, np.ndarray) and type(x) not in (np.ndarray, np.memmap)


def is_registered(x: Any) -> bool:
    """Return whether JAX flattens `x` as a pytree node; runs no code of its class."""
    return not jax.tree_util.all_leaves((x,))


def is_array(x: Any) -> bool:
    """Return whether `x` is an array, a tracer or an abstract array."""
    return isinstance(x, ARRAY_TYPES)


_jax_arrays: set[type] = set()
"""The classes of JAX arrays and tracers that have been seen."""


def is_jax_array(x: Any) -> bool:
    """Return whether `x` is a JAX array or a tracer, in 0.1 us; for a tracer, `isinstance` takes 0.3 us or more.

    It goes by the class, so it may also return True for a tracer of a mutable array, which is not a `jax.Array`.

    Args:
      x: Any object.

    Returns:
      Whether it is one.
    """
    cls = type(x)
    if cls in _jax_arrays:
        return True
    found = isinstance(x, jax.Array)
    if found:
        _jax_arrays.add(cls)
    return found


def copy_containers(value: Any) -> Any:
    """Return the value of a Variable in dicts and lists of its own; dicts keep the order of their keys."""
    if is_jax_array(value) or hasattr(type(value), "__graph_node__"):  # a module is an error in a transform
        return value
    if type(value) is dict:
        return {key: copy_containers(x) for key, x in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(copy_containers, value))
    return jax.tree.map(lambda x: x, value)


_buffers: dict[type, bool] = {}
"""Whether the arrays of a class have buffers, for the classes of JAX arrays and tracers that have been asked about."""


def is_tracer(x: Any) -> bool:
    """Return whether `x` is an array without a buffer; JAX takes 10 us to say so, and is asked once for each class."""
    if not is_jax_array(x):
        return is_traced_ref(x)
    cls = type(x)
    if cls not in _buffers:
        try:
            x.is_deleted()
            _buffers[cls] = True
        except jax.errors.ConcretizationTypeError:
            _buffers[cls] = False
    return not _buffers[cls]


def is_traced_ref(x: Any) -> bool:
    """Return whether `x` is the tracer of a mutable array (`jax.Ref`); its class is that of other tracers."""
    return module_of(type(x)).startswith("jax") and isinstance(x, jax.Ref) and type(x) is not jax.Ref


def is_deleted(x: Any) -> bool:
    """Return whether `x` is an array whose buffer is gone, for example donated; False for a tracer."""
    if not isinstance(x, jax.Array):
        return False
    try:
        return x.is_deleted()
    except jax.errors.ConcretizationTypeError:
        return False


def module_of(cls: type) -> str:
    """Return the name of the Python module of a class; a C class may have a descriptor instead of a name."""
    name = cls.__module__
    return name if type(name) is str else "builtins"


def is_argument_array(x: Any) -> bool:
    """Return whether JAX accepts `x` as an array argument: an array, or a Python or numpy number."""
    return isinstance(x, (*NUMBER_TYPES, *ARRAY_TYPES)) or hasattr(type(x), "__jax_array__")


def holds_no_numbers(x: Any) -> bool:
    """Return whether a leaf is a numpy array of text, bytes, objects, dates or records, which JAX does not take."""
    return isinstance(x, np.ndarray) and (x.dtype.kind in "OSTUMm" or x.dtype.names is not None)


class HiddenKey(str):
    """A key that is part of a path but not of its text: the key of the contents of a closure cell."""

    __slots__ = ()


def format_path(path: Iterable[Key], root: str = "") -> str:
    """Format an attribute path as Python code.

    Args:
      path: Attribute names, list positions and dict keys, from the root down.
      root: The start of the path, such as `"args[0]"`; empty by default.

    Returns:
      For example `args[0].encoder.layers[3].w`.
    """
    text = root
    for key in path:
        if type(key) is HiddenKey:
            continue
        if isinstance(key, str) and key.isidentifier():
            text += f".{key}" if text else key
        else:
            text += f"[{key!r}]"
    return text or "<root>"


def key_of(entry: Any) -> Key:
    """Return the plain key of one entry of a JAX key path."""
    for name in ("key", "idx", "name", "path"):  # the last one is that of a State, which is flat
        if hasattr(entry, name):
            return getattr(entry, name)
    return entry


def sort_key(path: Path) -> list[tuple[str, Key]]:
    """Return what paths are sorted by: key by key, numbers before names."""
    return [(type(key).__name__, key) for key in path]


def list_paths(paths: Iterable[str], most: int = 8, indent: str = "  ") -> str:
    """List paths, one per line; paths beyond `most` are only counted."""
    paths = list(paths)
    lines = [indent + p for p in paths[:most]]
    if len(paths) > most:
        lines.append(f"{indent}... and {len(paths) - most} more")
    return "\n".join(lines)


def are_distinct(tree: Any) -> bool:
    """Return whether no two leaves of a tree are the same object; takes 60 ns per leaf."""
    leaves = jax.tree.leaves(tree)
    return len(set(map(id, leaves))) == len(leaves)


def same_tree(a: Any, b: Any) -> bool:
    """Return whether two tree structures are equal; False if the static part of a class cannot be compared."""
    try:
        return a == b
    except Exception:  # `==` of numpy arrays, or of a class that raises
        return False


def has_changed(before: Any, after: Any, again: Callable[[], Any]) -> bool:
    """Return whether the tree structure of a value has changed.

    Args:
      before: The structure before.
      after: The structure now.
      again: Flattens the value once more. If that returns yet another structure, a class creates its static part for
        each flattening, and the structure says nothing about a change.

    Returns:
      True if it has changed.
    """
    return not same_tree(before, after) and same_tree(after, again())


def is_leaf_tree(treedef: Any) -> bool:
    """Return whether a tree structure is a single leaf."""
    return treedef.num_nodes == 1 and treedef.num_leaves == 1


def children_with_leaves(treedef: Any, start: int = 0) -> list[tuple[Any, range]]:
    """Return the children of a tree, each with the positions of its leaves, of which `start` is the first."""
    found: list[tuple[Any, range]] = []
    for child in treedef.children():
        found.append((child, range(start, start := start + child.num_leaves)))
    return found


def pair_prefix(prefix: Any, treedef: Any, is_prefix_leaf: Callable[[Any], bool]) -> list[tuple[Any, Any]]:
    """Return each leaf of a tree prefix, with the structure of the subtree that it applies to.

    Neither tree is rebuilt: a class may check its leaves, or depend on them.

    Args:
      prefix: A tree prefix, such as `in_axes`.
      treedef: The structure of the full tree.
      is_prefix_leaf: A predicate for the nodes of `prefix` that are leaves, in addition to None.

    Returns:
      The pairs, in JAX's order of leaves.

    Raises:
      ValueError: If `prefix` is not a tree prefix of `treedef`.
    """
    entries, top = jax.tree.flatten(prefix, is_leaf=lambda x: x is None or is_prefix_leaf(x))
    parts: list[Any] = []
    stack = [(top, treedef)]
    while stack:
        one, other = stack.pop()
        if is_leaf_tree(one):
            parts.append(other)
            continue
        children = one.children(), other.children()
        if not same_node(one, other) or len(children[0]) != len(children[1]):
            raise ValueError(f"{one} is not a prefix of {other}")
        stack += list(zip(*children, strict=True))[::-1]
    return list(zip(entries, parts, strict=True))


def same_node(one: Any, other: Any) -> bool:
    """Return whether two tree structures have the same class and static part at the root."""
    a, b = one.node_data(), other.node_data()
    if a is None or b is None or a[0] is not b[0]:
        return a is b
    return a[1] is b[1] or bool(a[1] == b[1])


def describe_tree(treedef: Any, leaves: Iterable[str]) -> str:
    """Format a tree, with only the class name of registered classes.

    Args:
      treedef: The structure of the tree.
      leaves: The text of each leaf.

    Returns:
      For example `{'a': float32[2], 'b': [int32[], None]}`.
    """
    return _describe(treedef, iter(leaves))


def _describe(treedef: Any, leaves: Iterator[str]) -> str:
    if is_leaf_tree(treedef):
        return next(leaves)
    cls, static = treedef.node_data()
    children = [_describe(child, leaves) for child in treedef.children()]
    if cls is type(None):
        return "None"
    if cls is dict:
        return f"{{{', '.join(f'{k!r}: {x}' for k, x in zip(static, children, strict=True))}}}"
    if cls is list:
        return f"[{', '.join(children)}]"
    if cls is tuple:
        return f"({', '.join(children)}{',' * (len(children) == 1)})"
    names = getattr(cls, "_fields", None)
    texts = children if names is None else [f"{k}={x}" for k, x in zip(names, children, strict=True)]
    return f"{cls.__name__}({', '.join(texts)})"


def treedef_text(treedef: Any) -> str:
    """Return a tree structure as text, such as `{'a': *, 'b': (*, *)}`."""
    return str(treedef).removeprefix("PyTreeDef(")[:-1]


def is_truncated_dtype(dtype: Any) -> bool:
    """Return whether JAX has only half of the bits of a dtype now, such as those of int64 without x64."""
    return not jnp.issubdtype(dtype, jax.dtypes.extended) and jax.dtypes.canonicalize_dtype(dtype) != dtype


def type_of(x: Any) -> str:
    """Format the dtype and shape of an array or number, such as `float32[2,3]`."""
    dtype = x.dtype if hasattr(x, "dtype") else jnp.result_type(x)
    dtype = "float0" if dtype == jax.dtypes.float0 else dtype
    return f"{dtype}[{','.join(map(str, jnp.shape(x)))}]"


def an(x: type | str) -> str:
    """Return a class name with its article: `a Param`, `an Affine`, `an RMSNorm`, `a UNet`."""
    name = x if isinstance(x, str) else x.__name__
    first, second = name[:1], name[1:2]
    if first == "U":
        takes_an = not name.lower().startswith(("uni", "une", "us", "ut"))
    elif first in "FHLMNRSX" and (second.isupper() or not second):  # pronounced letter by letter
        takes_an = True
    else:
        takes_an = first.lower() in ("a", "e", "i", "o", "u") or name.startswith("Rng")
    return f"{'an' if takes_an else 'a'} {name}"


def at_start(text: str) -> str:
    """Return a text with a capital first letter."""
    return text[:1].upper() + text[1:]


_CONTAINERS_OF_JAX = (tuple, list, dict, collections.OrderedDict, collections.defaultdict, type(None))


def static_parts(treedef: Any) -> Iterator[Any]:
    """Yield the static parts of the registered classes in a tree, other than those of JAX and liftnn.

    Args:
      treedef: The structure of the tree.
    """
    stack = [treedef]
    while stack:
        tree = stack.pop()
        data = tree.node_data()
        if data is None:
            continue
        stack += tree.children()
        cls, static = data
        if (
            cls not in _CONTAINERS_OF_JAX
            and static is not cls
            and module_of(cls).partition(".")[0] != "liftnn"
        ):
            yield static
