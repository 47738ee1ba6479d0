"""The Variables and array leaves of modules by path, and the other paths of what is shared."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn._src.checkpoints.keys import CodedPath, encode_path
from liftnn._src.graph.description import NodeSpec, find_all_paths
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import VARIABLE
from liftnn._src.graph.slots import ARRAY
from liftnn._src.trees import LEAF, Path, an, format_path, key_of
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Empty


class ModuleLeaf(NamedTuple):
    """A Variable or array leaf of the modules.

    Args:
      path: Its first path; the first key is the position among the modules.
      holder: The Variable, or the array leaf itself.
      value: The value of the Variable, or the array leaf.
    """

    path: Path
    holder: Any
    value: Any


class FlatModules(NamedTuple):
    """Modules as flat leaves.

    Args:
      leaves: The leaves by coded path.
      shared: For each Variable, and object with leaves or other objects, that has more than one path, all of them, the
        first one first.
    """

    leaves: dict[CodedPath, ModuleLeaf]
    shared: list[tuple[CodedPath, ...]]


def flatten_modules(modules: tuple[Any, ...], what: str) -> FlatModules:
    """Flatten modules to Variables and array leaves by path.

    Args:
      modules: Modules, or pytrees with modules, Variables or States.
      what: The function that received them, for messages.

    Returns:
      The leaves, with what is shared among all modules once.

    Raises:
      ArgumentError: If two leaves have the same path.
      ArgumentTypeError: If an argument, or a leaf of it, is not a module, which could not be restored in place.
      StructureError: If something in the modules cannot be part of a module.
    """
    walked = walk_tree(modules)
    graphdef = walked.graphdef
    for entries, edge in zip(graphdef.paths, graphdef.edges, strict=True):
        if type(edge) is not int:
            path = tuple(key_of(entry) for entry in entries)
            raise errors.ArgumentTypeError(
                f"{what} takes modules, Variables and States, but {format_path(path, 'modules')} is "
                f"{an(type(_at(modules, path)))}.",
                "Pass numbers, strings and arrays by name in `values` of `save`; `restore` returns them."
                if what == "save"
                else "Pass the step by name, as in `restore(folder, model, step=3)`. What was saved as `values` is in "
                "the result.",
            )
    leaves: dict[CodedPath, ModuleLeaf] = {}
    for path, x in walked.leaves():
        leaf = ModuleLeaf(path, x, x.raw_value if isinstance(x, Variable) else x)
        _check_distinct(leaf, leaves)
        leaves[encode_path(path)] = leaf
    shared = [
        tuple(map(encode_path, paths))
        for number, paths in find_all_paths(graphdef).items()
        if len(paths) > 1 and _may_hold_leaves(graphdef.specs[number])
    ]
    return FlatModules(leaves, shared)


def _may_hold_leaves(spec: NodeSpec) -> bool:
    """Return whether a node is a Variable, or has an array leaf or another node; an empty tuple is everywhere."""
    return spec.kind is VARIABLE or any(type(edge) is int or edge is ARRAY for edge in spec.edges)


def _check_distinct(leaf: ModuleLeaf, leaves: dict[CodedPath, ModuleLeaf]) -> None:
    """Raise ArgumentError if a leaf has the path of an earlier one, or if two arrays of its value have one path."""
    paths: set[CodedPath] = set()
    for at, _ in flatten_value(leaf.value) or ():
        coded = encode_path(at)
        if coded in paths or encode_path(leaf.path) in leaves:
            path = format_path((*leaf.path, *at), "modules")
            raise errors.ArgumentError(
                f"Two arrays have the path {path}, but a checkpoint can hold only one under each path.",
                "Use keys with different `repr`s, such as strings.",
            )
        paths.add(coded)


def _at(tree: Any, path: Path) -> Any:
    """Return the leaf of the arguments at a path."""
    for key in path:
        tree = tree[key] if not isinstance(key, str) or hasattr(tree, "keys") else getattr(tree, key)
    return tree


def flatten_value(value: Any) -> list[tuple[Path, Any]] | None:
    """Return the leaves of the value of a Variable by path: one with the empty path for an array; None if empty."""
    if value is Empty:
        return None
    entries, treedef = jax.tree_util.tree_flatten_with_path(value)
    if treedef == LEAF:
        return [((), value)]
    return [(tuple(key_of(entry) for entry in path), x) for path, x in entries]
