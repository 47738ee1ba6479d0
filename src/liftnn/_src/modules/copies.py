"""Copies of trees of modules: with new Variables (`clone`), or with the same Variables and other attributes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from liftnn import errors
from liftnn._src.annotations import signature_of
from liftnn._src.filters import Filter, Predicate, to_predicate
from liftnn._src.graph.attributes import Attributed
from liftnn._src.graph.graphdef import WalkedTree, walk_tree
from liftnn._src.graph.kinds import VARIABLE
from liftnn._src.graph.merge import merge_all
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.modules.parts import has_attribute
from liftnn._src.static_values.static import Static
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, format_path, is_argument_array, is_deleted
from liftnn._src.variables import frames
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.variable import Variable

T = TypeVar("T")


@boundary
def clone(tree: T, /) -> T:
    """Return a copy of a tree of modules: new objects with the same values, sharing and cycles.

    Args:
      tree: A module, or any pytree with modules in it.

    Returns:
      The copy. Its arrays have their own buffers, so donating one of the two trees leaves the other intact.

    Raises:
      DonatedError: If the buffer of an array in the tree was donated.
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.clone(model).kernel is model.kernel
      False
    """
    walked = walk_tree(tree)
    leaves = list(map(walked.leaf, walked.graphdef.slots))
    leaves = list(map(unwrap_raw, leaves))
    if frames.is_plain():  # inside a trace there are no buffers
        if any(map(is_deleted, jax.tree.leaves(leaves))):
            paths = (p for p, x in walked.leaves() if any(map(is_deleted, jax.tree.leaves(unwrap_raw(x)))))
            raise errors.DonatedError(
                f"The buffer of {format_path(next(paths))} was donated earlier and is gone."
            )
        leaves = jax.tree.map(_own_buffer, leaves)
    return merge_all(walked.graphdef, jax.tree.map(_own_content, leaves), frames.owner_now())[0]


def _own_buffer(x: Any) -> Any:
    """Return a copy of an array; anything else unchanged."""
    return x.copy() if isinstance(x, (jax.Array, np.ndarray)) else x


def _own_content(x: Any) -> Any:
    """Return a copy of a leaf of a value that can change in place, such as a set; an array unchanged."""
    return x if is_argument_array(x) else Static(x).value


def copy_modules(walked: WalkedTree, replacements: Mapping[int, Variable[Any]] = {}) -> Any:
    """Copy the modules and containers of a tree; Variables and arrays are shared with it.

    Args:
      walked: The flattened tree.
      replacements: Variables to put in the place of others, by the ids of those. The default is none.

    Returns:
      The copy.
    """
    specs = walked.graphdef.specs
    variables = {
        n: replacements.get(id(frames.resolve(x)), x)
        for n, x in enumerate(walked.objects)
        if specs[n].kind is VARIABLE
    }
    leaves = list(map(walked.by_slot.get, walked.graphdef.slots))
    return merge_all(walked.graphdef, leaves, frames.owner_now(), variables)[0]


@boundary
def with_attributes(
    tree: T, /, *, only: Filter = ..., raise_if_not_found: bool = True, **attributes: Any
) -> T:
    """Return a copy of a tree of modules that shares its Variables and has other attributes.

    The modules and containers are new; the Variables and arrays are the same objects, so that writing to a Variable of
    the copy writes to the original. Shared modules stay shared, and cycles stay cycles.

    Args:
      tree: A module, or any pytree with modules in it.
      only: A filter of modules, called with path and module. The default, `...`, matches all.
      raise_if_not_found: Whether to raise an error for an attribute that no matching module has. The default is True.
      **attributes: The new values by name; they are set on the matching modules that have the attribute.

    Returns:
      The copy.

    Raises:
      ArgumentError: If no matching module has one of the attributes and `raise_if_not_found` is True.
      FilterError: If `only` is not a filter.
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import liftnn
      >>> model = liftnn.Sequential(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), liftnn.Dropout(0.5))
      >>> other = liftnn.with_attributes(model, deterministic=True)
      >>> other[1].deterministic, model[1].deterministic, other[0].kernel is model[0].kernel
      (True, False, True)
    """

    def set_on(module: Any) -> set[str]:
        names = {name for name in attributes if has_attribute(module, name)}
        for name in names:
            setattr(module, name, attributes[name])
        return names

    return _changed_copy(
        "with_attributes", tree, to_predicate(only), set(attributes), set_on, raise_if_not_found
    )


@boundary
def view(tree: T, /, *, only: Filter = ..., raise_if_not_found: bool = True, **settings: Any) -> T:
    """Return a copy of a tree of modules that shares its Variables and works in another mode.

    Each class says which settings it has by a method `set_view`: `Dropout` has `deterministic`, `BatchNorm` has
    `use_running_average`, `MultiHeadAttention` has `deterministic` and `decode`. It is called on the copies with those
    of the settings that are among its parameters; all of them if it takes `**kwargs`. `view_info` lists them. To set
    attributes that no method takes, use `with_attributes`.

    Args:
      tree: A module, or any pytree with modules in it.
      only: A filter of modules, called with path and module. The default, `...`, matches all.
      raise_if_not_found: Whether to raise an error for a setting that no matching module has. The default is True.
      **settings: The settings by name.

    Returns:
      The copy: modules and containers are new, Variables and arrays are the same objects.

    Raises:
      ArgumentError: If no matching module has one of the settings and `raise_if_not_found` is True.
      FilterError: If `only` is not a filter.
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import liftnn
      >>> model = liftnn.Sequential(liftnn.BatchNorm(2, rngs=liftnn.Rngs(0)), liftnn.Dropout(0.5))
      >>> other = liftnn.view(model, deterministic=True, use_running_average=True)
      >>> other[1].deterministic, model[1].deterministic, other[0].mean is model[0].mean
      (True, False, True)
    """

    def set_on(module: Any) -> set[str]:
        if not hasattr(type(module), "set_view"):
            return set()
        parameters = signature_of(module.set_view).parameters.values()
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names = set(settings) if takes_all else {p.name for p in parameters} & settings.keys()
        module.set_view(**{name: x for name, x in settings.items() if name in names})
        return names

    return _changed_copy("view", tree, to_predicate(only), set(settings), set_on, raise_if_not_found)


def _changed_copy(
    verb: str,
    tree: Any,
    chosen: Predicate,
    names: set[str],
    set_on: Callable[[Any], set[str]],
    raise_if_not_found: bool,
) -> Any:
    """Return a copy of a tree after changing the chosen modules.

    Args:
      verb: The function, for the message.
      tree: The tree.
      chosen: The predicate of the modules to change.
      names: The names to set.
      set_on: Sets them on a module; returns those that it has.
      raise_if_not_found: Whether to raise an error for a name that no module has.

    Returns:
      The copy.
    """
    copied = copy_modules(walk_tree(tree))
    modules = [(path, x) for path, x in _own_modules(copied) if chosen(path, x)]
    missing = names.difference(*[set_on(x) for _, x in modules])
    if missing and raise_if_not_found:
        raise errors.ArgumentError(
            f"{verb}: no matching module has an attribute named {' or '.join(sorted(missing))}.",
            "Check the spelling, or pass raise_if_not_found=False. liftnn.view_info lists what view can set; "
            "with_attributes sets any attribute.",
        )
    return copied


def _own_modules(tree: Any) -> list[tuple[Path, Any]]:
    """Return the modules of a copy, without those in the metadata of Variables, which belong to the original too."""
    variables = [path for path, x in iter_graph(tree) if isinstance(x, Variable)]
    found = [(path, x) for path, x in iter_graph(tree) if isinstance(x, Attributed)]
    return [(path, x) for path, x in found if not any(path[: len(v)] == v for v in variables)]


@boundary
def view_info(tree: Any, /, *, only: Filter = ...) -> str:
    """Describe the settings that `view` can change in a tree of modules.

    Args:
      tree: A module, or any pytree with modules in it.
      only: A filter of modules, called with path and module. The default, `...`, matches all.

    Returns:
      For each class with a method `set_view`, by name, the parameters with their types, defaults and descriptions.

    Raises:
      FilterError: If `only` is not a filter.
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import liftnn
      >>> print(liftnn.view_info(liftnn.Sequential(liftnn.Dropout(0.5))))
      Dropout:
        deterministic: bool | None = None
          Whether to keep all values. None, the default, changes nothing.
    """
    chosen = to_predicate(only)
    classes = {type(x) for path, x in iter_graph(tree) if isinstance(x, Attributed) and chosen(path, x)}
    lines: list[str] = []
    for cls in sorted(classes, key=lambda c: c.__qualname__):
        if hasattr(cls, "set_view"):
            lines += [f"{cls.__qualname__}:", *_describe(cls.set_view)]  # pyright: ignore[reportAttributeAccessIssue]
    return "\n".join(lines)


def _describe(method: Callable[..., Any]) -> list[str]:
    """Return the lines that describe a `set_view`: its signature, and its parameters if it has a docstring."""
    signature, documentation = signature_of(method), inspect.getdoc(method)
    if not documentation:
        return [f"  set_view{signature}"]
    described = _described_parameters(documentation)
    lines: list[str] = []
    for name, p in list(signature.parameters.items())[1:]:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        default = "" if p.default is p.empty else f" = {p.default}"
        lines.append(f"  {name}: {_type_name(p.annotation)}{default}")
        lines += [f"    {line}" for line in described.get(name, ())]
    return lines


def _type_name(annotation: Any) -> str:
    """Return an annotation as text."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _described_parameters(documentation: str) -> dict[str, list[str]]:
    """Return the description of each parameter, by lines, from the section "Args" of a docstring."""
    described: dict[str, list[str]] = {}
    lines = iter(documentation.splitlines())
    for line in lines:
        if line.strip() == "Args:":
            break
    current: list[str] = []
    indent = 0
    for line in lines:
        text = line.strip()
        depth = len(line) - len(line.lstrip())
        if text and depth == 0:
            break
        indent = indent or depth
        if depth == indent and ":" in text:
            name, _, text = text.partition(":")
            current = described.setdefault(name.split("(")[0].strip(), [])
        if text.strip():
            current.append(text.strip())
    return described
