"""The children of one object in the search for captured modules, found without running user code.

`expand` dispatches on the kind of the object: function, container, class, Python module, and so on. For each kind there
is a function that lists the steps: the children, and for each the guard that detects another child later. The table
`_BY_BASE` at the end assigns these functions to classes.
"""

from __future__ import annotations

import builtins
import collections
import contextvars
import dataclasses
import functools
import gc
import importlib.util
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from liftnn._src.captures.code_names import ALL_ATTRIBUTES, Names
from liftnn._src.captures.expand_containers import entries_of, expand_dict, expand_elements
from liftnn._src.captures.guards import (
    ATTRIBUTE,
    CALLED,
    CELL_CONTENTS,
    CLASS,
    CONTEXT,
    ITEM,
    REFERENT,
    SIZE,
    SLOT,
    Guard,
    assigned_guards,
    referent_of,
)
from liftnn._src.captures.libraries import HOLDER_LIBRARIES
from liftnn._src.captures.steps import FRESH, ClassOf, Expansion, GlobalsOf, Step
from liftnn._src.graph.checks import ABSENT, ITERATORS, is_atom
from liftnn._src.instances import NO_ATTRIBUTES, instance_dict, slots_of
from liftnn._src.static_values.static import is_foreign
from liftnn._src.trees import module_of
from liftnn._src.variables.storage import whole_of
from liftnn._src.variables.variable import Variable


class Scope(NamedTuple):
    """The limits of a search.

    Args:
      names: Attribute names in the code seen so far; `expand` adds those of a function.
      names_in: Returns the names in a code object.
      is_closed: Returns whether the search skips the Python module of this name.
      every: Whether to follow all attributes, not only those that the code names, and all globals of code that may read
        them by another name. The default is False.
    """

    names: set[str]
    names_in: Callable[[types.CodeType], Names]
    is_closed: Callable[[str | None], bool]
    every: bool = False

    def chosen(self, attributes: Mapping[str, Any]) -> list[str]:
        """Return the names of the attributes to follow, in order."""
        return sorted(attributes) if self.every else sorted(self.names & attributes.keys())


def expand(x: Any, scope: Scope, exact: bool) -> Expansion:
    """Return the children of an object.

    Args:
      x: The object, not an atom.
      scope: The limits of the search.
      exact: Whether atoms in the object are part of a cache key.

    Returns:
      The steps to the children, with guards.
    """
    cls = type(x)
    if cls is types.FunctionType:
        return _expand_function(x, scope, exact)
    if cls is GlobalsOf:
        return Expansion("function", list(_steps_by_name(x.function, scope)))
    if cls is ClassOf:
        return _expand_class(x.cls, scope, creates=False)
    carried = getattr(cls, "__carried_functions__", None)
    if carried is not None and module_of(cls).partition(".")[0] == "liftnn":  # a transformed function
        return _unguarded("transformed", carried(x))
    if issubclass(cls, Variable):
        return _unguarded("variable", (whole_of(x),))
    attributes = instance_dict(x)
    for base, expand_kind in _BY_BASE:
        if issubclass(cls, base):
            found = expand_kind(x, exact)
            is_users = base in ITERATORS and not is_foreign(module_of(cls))
            return _with_attributes(found, _expand_holder(x, attributes, scope, False)) if is_users else found
    found = _expand_holder(x, attributes, scope, exact and dataclasses.is_dataclass(cls))
    wrapped = attributes.get("__wrapped__")
    if wrapped is None or any(step.key == "__wrapped__" for step in found.steps):
        return found
    guard = Guard(ITEM, attributes, "__wrapped__", wrapped)
    return found._replace(steps=[*found.steps, Step(wrapped, "", "__wrapped__", guard)])


# --- functions


def _expand_function(f: types.FunctionType, scope: Scope, exact: bool) -> Expansion:
    """Expand a function: closure, globals in its code, defaults, attributes."""
    cells = tuple(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
    closed = scope.is_closed(f.__globals__.get("__name__", "exec"))
    steps = [_cell_step(i, name, cell, exact, not closed) for i, (name, cell) in enumerate(cells)]
    if closed:  # closures of a library do not change, but they may hold user functions
        return Expansion("function", [s for s in steps if s.child is not ABSENT and s.label not in _CACHES])
    steps += _steps_by_name(f, scope)
    positional = f.__code__.co_varnames[: f.__code__.co_argcount]
    defaults = f.__defaults__ or ()
    for name, x in zip(positional[len(positional) - len(defaults) :], defaults, strict=False):
        steps.append(Step(x, FRESH + name, ("default", name)))
    for name, x in (f.__kwdefaults__ or {}).items():
        guard = Guard(ITEM, f.__kwdefaults__, name, x, is_atom(x) and not exact)
        steps.append(Step(x, FRESH + name, ("default", name), guard, True))
    for name, x in f.__dict__.items():
        guard = Guard(ITEM, f.__dict__, name, x, is_atom(x) and not exact)
        steps.append(Step(x, f".{name}", ("attribute", name), guard, True))
    guards = [Guard(SIZE, f.__dict__, None, len(f.__dict__))]
    guards += [Guard(ATTRIBUTE, f, "__defaults__", f.__defaults__)] if defaults or exact else []
    guards += [Guard(ATTRIBUTE, f, "__kwdefaults__", f.__kwdefaults__)] if f.__kwdefaults__ or exact else []
    guards += [Guard(ATTRIBUTE, f, "__code__", f.__code__)] if exact else []
    steps = [s for s in steps if s.child is not ABSENT or s.always]
    return Expansion("function", steps, tuple(guards), whole=f)


_CACHES = frozenset([FRESH + "dispatch_cache"])
"""Variables of libraries that are filled in calls: `functools.singledispatch` keeps the function of each class."""


def _cell_step(i: int, name: str, cell: types.CellType, exact: bool, always: bool) -> Step:
    """Return the step to the content of a closure cell."""
    content = CELL_CONTENTS.read(cell, None)
    guard = Guard(CELL_CONTENTS, cell, None, content, is_atom(content) and not exact)
    return Step(content, FRESH + name, ("cell", i), guard, always)


def _steps_by_name(f: types.FunctionType, scope: Scope) -> Iterator[Step]:
    """Yield the steps to what code names: globals, and Python modules that it imports.

    A missing global is guarded, since it may be defined later.
    """
    loaded, attributes, imports = scope.names_in(f.__code__)
    scope.names.update(attributes)
    namespace = f.__globals__
    package = namespace.get("__package__")
    for name in loaded if not scope.every or attributes.isdisjoint(_ALL_GLOBALS) else namespace:
        x = namespace.get(name, ABSENT)
        if x is ABSENT and name in _BUILTINS:
            continue
        guard = Guard(ITEM, namespace, name, x, is_atom(x))
        yield Step(x, FRESH + name, ("global", name), guard, not _is_definition(x))
    for name in imports:
        full = importlib.util.resolve_name(name, package) if package else name
        x = sys.modules.get(full)
        yield Step(x, FRESH + full, ("import", full), Guard(ITEM, sys.modules, full, x))


_BUILTINS = frozenset(vars(builtins))
_ALL_GLOBALS = ("globals", "vars", "__dict__", "eval", "exec")
"""Names in code that may read a global by another name."""


def _is_definition(x: Any) -> bool:
    """Return whether an object is code: a function, a class, a Python module, an object of a library.

    Names bound to code are guarded only if they lead to a module: code is a constant of a trace, as in JAX.
    """
    cls = type(x)
    if issubclass(cls, (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)):
        return True
    holds = issubclass(cls, _EXPANDED) or module_of(cls) in HOLDER_LIBRARIES
    return is_foreign(module_of(cls)) and not (holds or is_atom(x) or x is ABSENT)


# --- objects with a few known children


def _expand_partial(x: functools.partial[Any], exact: bool) -> Expansion:
    """Expand a partial; its dict of keywords can be changed."""
    steps = [Step(y, "", i) for i, y in enumerate((x.func, *x.args, *x.keywords.values()))]
    for name, y in vars(x).items():
        guard = Guard(ITEM, vars(x), name, y, is_atom(y) and not exact)
        steps.append(Step(y, f".{name}", ("attribute", name), guard, True))
    size = Guard(SIZE, vars(x), None, len(vars(x)))
    return Expansion(
        "partial", steps, (size,), entries_of(x.keywords, exact), always=exact or bool(x.keywords)
    )


def _unguarded(tag: str, children: Iterable[Any]) -> Expansion:
    """Expand an object with references that cannot be rebound, so they need no guards."""
    return Expansion(tag, [Step(y, "", i) for i, y in enumerate(children)])


def _expand_reference(x: Any, exact: bool) -> Expansion:
    """Expand a weak reference."""
    referent = referent_of(x)
    guard = Guard(CALLED if type(x) is weakref.ref else REFERENT, x, None, referent)
    return Expansion("reference", [Step(referent, "()", 0, guard, True)])


def _expand_variable_of_context(x: Any, exact: bool) -> Expansion:
    """Expand a context variable."""
    value = CONTEXT.read(x, None)
    return Expansion(
        "context", [Step(value, ".get()", 0, Guard(CONTEXT, x, None, value, is_atom(value)), True)]
    )


def _expand_bound_builtin(x: Any, exact: bool) -> Expansion:
    """Expand a built-in method, such as `append` of a list."""
    owner = x.__self__
    return _unguarded("method", () if isinstance(owner, (types.ModuleType, type)) else (owner,))


def _expand_python_module(attributes: Mapping[str, Any], scope: Scope) -> Expansion:
    """Expand a Python module, given its attributes: those that the code names."""
    if scope.is_closed(attributes.get("__name__")):
        return Expansion("python module", [])
    steps = []
    for name in scope.chosen(attributes):
        x = attributes[name]
        guard = Guard(ITEM, attributes, name, x, is_atom(x))
        steps.append(Step(x, f".{name}", name, guard, not _is_definition(x)))
    return Expansion("python module", steps, (Guard(SIZE, attributes, None, len(attributes)),), by_name=True)


_NOT_RUN = frozenset(["__annotate__", "__annotate_func__"])
"""Functions that return the annotations of a class."""
_CREATING = frozenset(["__init__", "__new__", "__post_init__", "__init_subclass__", "__del__"])
"""Special methods that run where an object is created or dies."""


def _expand_class(cls: type, scope: Scope, creates: bool = True) -> Expansion:
    """Expand a class: the attributes that the code names. A method is guarded only if it leads to a module.

    Args:
      cls: The class.
      scope: The limits of the search.
      creates: Whether the code names the class, and so may create objects.
    """
    attributes = type.__getattribute__(cls, "__dict__")
    if scope.is_closed(module_of(cls)):
        return Expansion("class", [])
    steps = []
    # Special methods are called by operators and other syntax, not by name.
    special = [n for n, x in attributes.items() if n[:2] == "__" and type(_plain(x)) is types.FunctionType]
    for name in sorted(
        {*special, *scope.chosen(attributes)} - (_NOT_RUN if creates else _NOT_RUN | _CREATING)
    ):
        x = _plain(attributes[name])
        guard = Guard(CLASS, (cls, attributes), name, attributes[name], is_atom(x))
        steps.append(Step(x, f".{name}", name, guard, not _is_definition(x)))
    bases = type.__getattribute__(cls, "__mro__")[1:]
    # A class may get an attribute later, and so hide one of a base.
    size = Guard(SIZE, attributes, cls, len(attributes))
    wrap = (lambda base: base) if creates else ClassOf
    if creates and (scope.every or not is_foreign(module_of(type(cls)))):
        bases += (type(cls),)
    steps += [Step(wrap(base), "", i) for i, base in enumerate(bases)]
    hidden = _hidden_modules(bases, scope.chosen(attributes))
    return Expansion("class", steps, (size,), by_name=True, whole=cls, hidden=hidden)


def _plain(x: Any) -> Any:
    """Unwrap the function inside a method or property of a class."""
    if isinstance(x, (staticmethod, classmethod)):
        return x.__func__
    return x.fget if isinstance(x, property) else x


def _expand_holder(x: Any, attributes: Mapping[str, Any], scope: Scope, is_content: bool) -> Expansion:
    """Expand an object of another class: the attributes that the code names; all if they are part of a cache key."""
    cls = type(x)
    if issubclass(cls, types.ModuleType):
        return _expand_python_module(attributes, scope)
    if issubclass(cls, type):
        return _expand_class(x, scope)
    follow_all = is_content or scope.every or any(module_of(base) in HOLDER_LIBRARIES for base in cls.__mro__)
    if is_foreign(module_of(cls)) and not follow_all:
        return Expansion("object", [])
    follow_all = follow_all or not scope.names.isdisjoint(ALL_ATTRIBUTES)
    chosen = sorted(attributes) if follow_all else scope.chosen(attributes)
    steps = []
    for n in chosen:
        value = attributes.get(n, ABSENT)  # another thread may have deleted it
        steps.append(Step(value, f".{n}", n, Guard(ITEM, attributes, n, value, is_atom(value)), True))
    for n, member in slots_of(cls):
        if follow_all or n in scope.names:
            value = SLOT.read(x, member)
            steps.append(Step(value, f".{n}", n, Guard(SLOT, x, member, value, is_atom(value)), True))
    if scope.every and not steps and any("__call__" in vars(base) for base in cls.__mro__):
        # a callable of an extension, such as a wrapper of the package wrapt; what it refers to is not rebound
        steps += [Step(y, "", ("referent", i)) for i, y in enumerate(gc.get_referents(x)) if y is not cls]
    assigned = assigned_guards(x, attributes)
    class_step = cls if scope.every else ClassOf(cls)
    steps.append(Step(class_step, "", "__class__", assigned[0], True))
    guards = assigned[1:]
    if attributes is not NO_ATTRIBUTES:
        guards.append(Guard(SIZE, attributes, None, len(attributes)))
    hidden = _hidden_modules(type.__getattribute__(cls, "__mro__"), chosen)
    return Expansion(
        "object", steps, tuple(guards), by_name=True, inherits=is_content, whole=x, hidden=hidden
    )


def _with_attributes(container: Expansion, holder: Expansion) -> Expansion:
    """Expand a container of the user's class: its elements, its attributes, and its class.

    Args:
      container: What it leads to as a container.
      holder: What it leads to as an object.
    """
    return container._replace(
        steps=[*container.steps, *holder.steps],
        guards=(*container.guards, *holder.guards),
        by_name=True,
        whole=holder.whole,
        hidden=holder.hidden,
    )


def _hidden_modules(classes: Iterable[type], names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of modules of classes that attributes of an object or subclass hide: code does not read them."""
    attributes = [type.__getattribute__(cls, "__dict__") for cls in classes]
    return tuple([n for n in names if any(hasattr(type(x.get(n)), "__graph_node__") for x in attributes)])


_EXPANDED = (*ITERATORS, weakref.ref, contextvars.ContextVar)

_VIEWS = [
    type(view)
    for entries in (dict[Any, Any](), collections.OrderedDict[Any, Any]())
    for view in (entries.keys(), entries.values(), entries.items())
]
"""The classes of what `keys()`, `values()` and `items()` return."""

_BY_BASE: tuple[tuple[type, Callable[[Any, bool], Expansion]], ...] = (
    (dict, expand_dict),
    *[(base, functools.partial(expand_elements, base)) for base in ITERATORS],
    (functools.partial, _expand_partial),
    (
        types.MethodType,
        lambda x, exact: Expansion("method", [Step(x.__self__, FRESH + "self", 0), Step(x.__func__, "", 1)]),
    ),
    (types.BuiltinFunctionType, _expand_bound_builtin),
    (types.MappingProxyType, lambda x, exact: _unguarded("proxy", gc.get_referents(x))),
    *[(view, lambda x, exact: _unguarded("view", gc.get_referents(x))) for view in _VIEWS],
    (weakref.ref, _expand_reference),
    (contextvars.ContextVar, _expand_variable_of_context),
    (property, lambda x, exact: _unguarded("property", (x.fget,))),
    (staticmethod, lambda x, exact: _unguarded("function", (x.__func__,))),
    (classmethod, lambda x, exact: _unguarded("function", (x.__func__,))),
    (functools.cached_property, lambda x, exact: _unguarded("property", (x.func,))),
    (
        functools.partialmethod,
        lambda x, exact: _unguarded("partial", (x.func, *x.args, *x.keywords.values())),
    ),
    (functools.singledispatchmethod, lambda x, exact: _unguarded("function", (x.dispatcher, x.func))),
)
"""The function that expands each kind of object; the first matching base class wins."""
