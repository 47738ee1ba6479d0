"""The kinds of nodes in an object graph, and how each kind is flattened and unflattened.

A *node* is anything that holds other things: a Module, a Variable, a list, a dict, a set, a dataclass, a
SimpleNamespace, a tuple, a registered pytree, a bound method of any of these, a partial, a weak reference to a
Module, a user function that holds a Module, Variable or array, a closure cell of such a function. A *mutable* node is
created empty and filled later, in place, which preserves cycles and identity; a *frozen* node is built after its
children. Everything else is a leaf: an array (dynamic) or a static value. The walk, the merge and the commit know
types only through the table at the end.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax

from liftnn import errors
from liftnn._src.graph.attributes import FlattenedNode, fill_attributes, flatten_attributes, make_shell
from liftnn._src.graph.closures import (
    ATTRIBUTES,
    fill_cell,
    flatten_cell,
    flatten_function,
    make_cell,
    unflatten_function,
)
from liftnn._src.graph.containers import (
    base_of,
    fill_dict,
    fill_list,
    flatten_dict,
    flatten_list,
    flatten_tuple,
    make_dict,
    make_list,
    unflatten_tuple,
)
from liftnn._src.graph.recipes import Recipe
from liftnn._src.static_values.static import SIMPLE_TYPES
from liftnn._src.static_values.value_types import is_frozen_dataclass
from liftnn._src.trees import ARRAY_TYPES, is_array, is_registered, is_tracer, key_of, module_of, same_tree
from liftnn._src.variables.holding import holds_objects
from liftnn._src.variables.metadata import Metadata
from liftnn._src.variables.state_pytree import flatten_state, is_state_class
from liftnn._src.variables.variable import Variable, make_variable, set_metadata_past_checks
from liftnn._src.variables.watch import end_watches

T = TypeVar("T")


def _never(*_: Any) -> Any:
    """The placeholder for an operation that a kind does not have."""
    raise AssertionError


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class NodeKind:
    """A kind of node, with the functions that flatten and unflatten it.

    Args:
      name: The key in `KINDS`.
      flatten: Returns static extra, keys and children of a node.
      make: Creates an empty mutable node from its class, the extra and the owner.
      fill: Replaces the keys and children of a mutable node.
      unflatten: Builds a frozen node from its class, the extra, the keys and the children.
    """

    name: str
    flatten: Callable[[Any], FlattenedNode] = _never
    make: Callable[[type, Any, Any], Any] = _never
    fill: Callable[[Any, Any, tuple[Any, ...], list[Any]], None] = _never
    unflatten: Callable[[type, Any, tuple[Any, ...], list[Any]], Any] = _never
    frozen: bool = dataclasses.field(init=False)
    """Whether nodes of this kind are built after their children."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "frozen", self.unflatten is not _never)

    def __reduce__(self) -> Any:
        return (kind_named, (self.name,))


def kind_named(name: str) -> NodeKind:
    """Return a kind by name, for unpickling."""
    return KINDS[name]


# --- objects with attributes: Modules and dataclasses


def _make_object(cls: Any, extra: Any, owner: Any) -> Any:
    base = types.SimpleNamespace if issubclass(cls, types.SimpleNamespace) else object
    return base.__new__(cls)


def _make_module(cls: type, extra: Any, owner: Any) -> Any:
    return make_shell(cls, owner)


def _fill_module(x: Any, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> None:
    fill_attributes(x, extra, keys, children)
    end_watches(x)


def _unflatten_frozen_object(cls: type, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> Any:
    x = object.__new__(cls)
    for name, child in zip(keys, children, strict=True):
        object.__setattr__(x, name, child)
    return x


# --- Variables with mutable metadata


def _flatten_variable(x: Variable[Any]) -> FlattenedNode:
    entries = x.get_metadata()
    return x._metadata.fixed, tuple(entries), tuple(entries.values())


def _make_variable(cls: type, extra: Any, owner: Any) -> Any:
    return make_variable(cls, None, extra, owner)


def _fill_variable(x: Variable[Any], extra: Any, keys: tuple[Any, ...], children: list[Any]) -> None:
    set_metadata_past_checks(x, Metadata.of(dict(zip(keys, children, strict=True))) if keys else extra)


# --- pytrees, methods, partials and weak references


class Incomparable:
    """The structure of a pytree with a static part that its class creates for each flattening: equal only to itself.

    Args:
      treedef: The structure.
    """

    __slots__ = ("treedef",)

    def __init__(self, treedef: Any):
        self.treedef = treedef


def _flatten_pytree(x: Any) -> FlattenedNode:
    found = flatten_state(x)
    if found is not None:
        return found
    try:
        entries, treedef = jax.tree_util.tree_flatten_with_path(x, is_leaf=lambda y: y is not x)
    except errors.ArgumentTypeError:  # of a module that JAX would flatten
        cls = type(x).__qualname__
        raise errors.StructureError(
            f"A {cls} is a pytree whose class flattens what it holds with JAX, and it holds a module.",
            f"Store the module in an attribute of a Module, and create the {cls} in the method that uses it.",
        ) from None
    keys = tuple([key_of(path[0]) if path else None for path, _ in entries])
    if len(set(keys)) < len(keys):  # a class may give two children one key
        keys = tuple(range(len(keys)))
    if not _is_simple(treedef.node_data()[1]) and not same_tree(treedef, _top(x)):
        treedef = Incomparable(treedef)
    return treedef, keys, tuple([child for _, child in entries])


def _is_simple(static: Any) -> bool:
    """Return whether the static part of a pytree certainly equals another one of the same content."""
    return type(static) in SIMPLE_TYPES or (
        type(static) is tuple and all(type(x) in SIMPLE_TYPES for x in static)
    )


def children_of_pytree(x: Any) -> Sequence[Any]:
    """Return the children of a registered pytree."""
    found = flatten_state(x)
    return jax.tree.leaves(x, is_leaf=lambda y: y is not x) if found is None else found[2]


def _top(x: Any) -> Any:
    """Return the structure of a pytree with its children as leaves."""
    return jax.tree.structure(x, is_leaf=lambda y: y is not x)


def _unflatten_pytree(cls: type, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> Any:
    return jax.tree.unflatten(extra.treedef if isinstance(extra, Incomparable) else extra, children)


def _flatten_method(x: types.MethodType) -> FlattenedNode:
    return None, ("__func__", "__self__"), (x.__func__, x.__self__)


def _unflatten_method(cls: type, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> Any:
    return types.MethodType(*children)


def _flatten_builtin_method(x: types.BuiltinMethodType) -> FlattenedNode:
    return x.__name__, ("__self__",), (x.__self__,)


def _unflatten_builtin_method(cls: type, extra: str, keys: tuple[Any, ...], children: list[Any]) -> Any:
    return getattr(base_of(type(children[0])), extra).__get__(children[0])


def _flatten_partial(x: functools.partial[Any]) -> FlattenedNode:
    """Flatten a partial; its attributes, if it has any, are a child, like those of a function."""
    name = "__func__" if "func" in x.keywords else "func"
    keys: tuple[Any, ...] = (name, *range(len(x.args)), *x.keywords)
    children: tuple[Any, ...] = (x.func, *x.args, *x.keywords.values())
    attributes = vars(x)
    if attributes:
        keys, children = (*keys, ATTRIBUTES), (*children, attributes)
    return len(x.args), keys, children


def _unflatten_partial(cls: type, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> Any:
    end = 1 + extra
    named = dict(zip(keys[end:], children[end:], strict=True))
    attributes = named.pop(ATTRIBUTES, None)
    new = functools.partial(*children[:end], **named)
    if attributes is not None:
        new.__dict__ = attributes
    return new


def _flatten_reference(x: weakref.ref[Any]) -> FlattenedNode:
    return None, ("referent",), (x(),)


def _unflatten_reference(cls: type, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> Any:
    return weakref.ref(children[0])


def _flatten_transformed(x: Any) -> FlattenedNode:
    others = x._others
    names = x.__recipe__.rules or range(1, 1 + len(others))
    return x.__recipe__, ("__wrapped__", *names), (x.__wrapped__, *others)


def _unflatten_transformed(cls: type, extra: Recipe, keys: tuple[Any, ...], children: list[Any]) -> Any:
    return extra(*children)


def _holds_nodes(x: Any) -> bool:
    """Return whether a function is a node, or a partial or tuple with a node or an array in it."""
    kind = kind_by_type(type(x)) or classify(x)
    if kind is PARTIAL:
        return any(map(_holds_nodes, (x.func, *x.args, *x.keywords.values())))
    if kind is TUPLE:
        return any(map(_holds_nodes, tuple.__iter__(x)))
    return kind not in (SIMPLE, FLOAT, STATIC)


# --- the table

MODULE = NodeKind("module", flatten_attributes, _make_module, _fill_module)
DATACLASS = NodeKind("dataclass", flatten_attributes, _make_object, fill_attributes)
FROZEN_DATACLASS = NodeKind("frozen dataclass", flatten_attributes, unflatten=_unflatten_frozen_object)
VARIABLE = NodeKind("variable", _flatten_variable, _make_variable, _fill_variable)
LIST = NodeKind("list", flatten_list, make_list, fill_list)
DICT = NodeKind("dict", flatten_dict, make_dict, fill_dict)
TUPLE = NodeKind("tuple", flatten_tuple, unflatten=unflatten_tuple)
PYTREE = NodeKind("pytree", _flatten_pytree, unflatten=_unflatten_pytree)
METHOD = NodeKind("method", _flatten_method, unflatten=_unflatten_method)
BUILTIN_METHOD = NodeKind("built-in method", _flatten_builtin_method, unflatten=_unflatten_builtin_method)
PARTIAL = NodeKind("partial", _flatten_partial, unflatten=_unflatten_partial)
REFERENCE = NodeKind("weak reference", _flatten_reference, unflatten=_unflatten_reference)
FUNCTION = NodeKind("function", flatten_function, unflatten=unflatten_function)
TRANSFORMED = NodeKind("transformed function", _flatten_transformed, unflatten=_unflatten_transformed)
CELL = NodeKind("cell", flatten_cell, make_cell, fill_cell)
KINDS = {
    k.name: k
    for k in (
        MODULE, DATACLASS, FROZEN_DATACLASS, VARIABLE, LIST, DICT, TUPLE, PYTREE, METHOD, BUILTIN_METHOD, PARTIAL,
        REFERENCE, FUNCTION, TRANSFORMED, CELL,
    )
}  # fmt: skip

SIMPLE = NodeKind("simple")
FLOAT = NodeKind("float")
STATIC = NodeKind("static")
ARRAY_NODE = NodeKind("array")

_BY_TYPE: dict[type, NodeKind] = {
    **dict.fromkeys(SIMPLE_TYPES, SIMPLE),
    float: FLOAT,
    types.CellType: CELL,
    list: LIST,
    collections.deque: LIST,
    set: LIST,
    types.SimpleNamespace: DATACLASS,
    dict: DICT,
    collections.OrderedDict: DICT,
    collections.defaultdict: DICT,
    tuple: TUPLE,
}
kind_by_type = _BY_TYPE.get
"""Return the kind of a type that has been seen before, else None: the fast path of the walk."""


def classify(x: Any) -> NodeKind:
    """Return the kind of a value with a type that is not in the table; cache it if the type alone determines it."""
    if type(x) is types.FunctionType:
        return FUNCTION if holds_objects(x) else STATIC
    kind, by_type = _classify(x)
    if by_type:
        if len(_BY_TYPE) > 4096:  # classes created in a loop must not accumulate
            for cls in list(_BY_TYPE)[64:]:
                del _BY_TYPE[cls]
        _BY_TYPE[type(x)] = kind
    return kind


def _classify(x: Any) -> tuple[NodeKind, bool]:
    """Return the kind of a value, and whether every value of its type is of that kind."""
    cls = type(x)
    if hasattr(cls, "__graph_node__"):
        return (VARIABLE if isinstance(x, Variable) else MODULE), True
    if is_array(x):  # the tracer of a mutable array, which is static, has the class of other tracers
        known = isinstance(x, ARRAY_TYPES[1:]) or module_of(cls).startswith("jax")
        return ARRAY_NODE, known and not is_tracer(x)
    if is_state_class(cls):
        return PYTREE, True
    if cls is types.MethodType:
        return (METHOD if is_node(x.__self__) else STATIC), False
    if cls is types.BuiltinFunctionType:  # `items.append` holds the list
        return (BUILTIN_METHOD if isinstance(x.__self__, _MUTABLE_CONTAINERS) else STATIC), False
    if cls is functools.partial:
        return PARTIAL, True
    if cls is weakref.ref:
        return (REFERENCE if _refers_to_node(x) else STATIC), False
    if hasattr(cls, "__carried_functions__"):
        known = x.__recipe__ is not None and any(map(_holds_nodes, (x.__wrapped__, *x._others)))
        return (TRANSFORMED if known else STATIC), False
    if is_registered(x):
        return (TUPLE if isinstance(x, tuple) and hasattr(cls, "_fields") else PYTREE), False
    if issubclass(cls, _VALUES):
        return STATIC, False
    for base, kind in _KIND_BY_BASE.items():
        if isinstance(x, base):
            return kind, False
    if dataclasses.is_dataclass(cls):
        return (FROZEN_DATACLASS if is_frozen_dataclass(cls) else DATACLASS), False
    return STATIC, False


_KIND_BY_BASE = {
    list: LIST, dict: DICT, tuple: TUPLE, collections.deque: LIST, set: LIST, types.SimpleNamespace: DATACLASS
}  # fmt: skip


_VALUES = (enum.Enum, BaseException, int, float, complex, str, bytes, frozenset)
"""Classes of values that are not flattened, also if a class that derives from them is a dataclass or a container."""


_MUTABLE_CONTAINERS = (list, dict, set, collections.deque)


def is_node(x: Any) -> bool:
    """Return whether a value is a node of a graph, not a leaf."""
    return (kind_by_type(type(x)) or classify(x)) not in (SIMPLE, FLOAT, STATIC, ARRAY_NODE)


def _refers_to_node(x: weakref.ref[Any]) -> bool:
    """Return whether a weak reference is a node: it is to a Module or Variable and has no callback."""
    return hasattr(type(x()), "__graph_node__") and x.__callback__ is None


def is_object(x: Any) -> bool:
    """Return whether a value in a pytree has identity: a Module, Variable, dataclass or SimpleNamespace."""
    cls = type(x)
    if hasattr(cls, "__graph_node__") or issubclass(cls, types.SimpleNamespace):
        return True
    return dataclasses.is_dataclass(cls) and not issubclass(cls, _VALUES) and not is_registered(x)


def is_jax_tree(x: Any) -> bool:
    """Return whether a value is a Module of a class that is declared with `pytree=True`."""
    return getattr(type(x), "__jax_tree__", False)
