"""The state of an optax transformation: a Variable at each leaf for users, and the tree that optax knows.

Optax makes its state from a State of parameters, so what it keeps for a parameter is at the parameter's path in a
State. Users see an `OptState` at each leaf, in trees with fixed entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from liftnn import errors
from liftnn._src.optim.derived_sharding import derive_sharding, find_factors
from liftnn._src.optim.fixed_entries import FixedDict, FixedState, as_states, convert, fit, is_variable
from liftnn._src.optim.layout import ParameterLayout, same_shapes, shapes, shapes_text
from liftnn._src.optim.packing import Packing
from liftnn._src.trees import (
    Path,
    copy_containers,
    format_path,
    is_argument_array,
    is_jax_array,
    key_of,
    list_paths,
    same_tree,
)
from liftnn._src.variables.metadata import SHARDING_NAMES
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.variable_types import OptState


def to_variables(
    tree: Any, layout: ParameterLayout, parameters: Mapping[Path, Any] = {}
) -> tuple[Any, tuple[bool, ...]]:
    """Store each leaf of a transformation's state in a Variable.

    Args:
      tree: The state, with arrays or Variables at its leaves.
      layout: The parameters.
      parameters: Their values. What has the shape of its parameter declares the same sharding, and what has some of
        its axes, such as a factor, the sharding of these.

    Returns:
      The tree of Variables; and for each of them, in order, whether it has the shape of its parameter.
    """
    alike: list[bool] = []

    def wrap(x: Any, path: Path | None) -> OptState[Any]:
        is_alike = path is not None and path in parameters and same_shapes(x, parameters[path])
        alike.append(is_alike)
        return OptState(copy_containers(unwrap_raw(x)), **(declare(x, path) if path is not None else {}))

    whole = {path: found[0] for path, x in parameters.items() if len(found := shapes(x)) == 1}
    factors = find_factors(tree)

    def declare(x: Any, path: Path) -> dict[str, Any]:
        declared = layout.shardings(path) if path in layout.paths else {}
        found = shapes(x)
        if not declared or (path in parameters and found == shapes(parameters[path])):
            return declared
        if path not in whole or len(found) != 1:
            return {}
        for name in SHARDING_NAMES:
            if declared.get(name) is not None:
                entries = tuple(getattr(declared[name], "spec", declared[name]))
                derived = derive_sharding(entries, whole[path], found[0], factors.get(id(x)))
                return {} if derived is None else {**declared, name: derived}
        return {}

    return convert(tree, wrap, FixedState, FixedDict), tuple(alike)


def to_optax(
    tree: Any, packing: Packing, parameters: Mapping[Path, Any], alike: tuple[bool, ...]
) -> tuple[Any, Any]:
    """Return the state of a transformation as optax knows it; the inverse of `to_variables`.

    Args:
      tree: The tree of Variables.
      packing: What optax gets in place of States.
      parameters: The parameters' present values.
      alike: For each Variable, whether it had the shape of its parameter at first.

    Returns:
      The state, and its structure with a leaf for each Variable.

    Raises:
      StructureError: If a Variable does not have the shape of its parameter any more.
    """
    misfits: list[tuple[Any, Path]] = []
    trees: list[Any] = []
    had_shape = iter(alike)

    def unwrap(x: Any, path: Path | None) -> Any:
        if next(had_shape, False) and path is not None and not same_shapes(x, parameters[path]):
            misfits.append((x, path))
        leaf = packing.leaf(path, x)
        if not is_jax_array(leaf) and not is_variable(leaf):
            trees.append(leaf)
        return leaf

    state = convert(tree, unwrap, packing.node, dict)
    if misfits:
        raise _misfit(tree, misfits, parameters)
    with_leaves = state
    if trees:  # an object is a leaf, whatever the value is
        with_leaves = convert(tree, lambda x, path: object(), packing.node, dict)
    return state, jax.tree.structure(with_leaves, is_leaf=is_variable)


def _misfit(
    tree: Any, misfits: list[tuple[Any, Path]], parameters: Mapping[Path, Any]
) -> errors.StructureError:
    """Return the error for Variables with a shape other than that of their parameters."""
    entries, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_variable)
    paths = {id(x): tuple(map(key_of, entry)) for entry, x in entries}
    lines: list[str] = []
    for x, path in misfits:
        ours, theirs = format_path(paths[id(x)], "opt_state"), format_path(path)
        lines.append(f"{ours}: {shapes_text(x)}, but {theirs} is {shapes_text(parameters[path])}")
    return errors.StructureError(
        f"The state of the optimizer does not fit the model:\n{list_paths(lines)}",
        "Create a new Optimizer for the changed model.",
    )


def pair_values(tree: Any, before: Any, structure: Any, after: Any) -> list[tuple[Any, Any]] | None:
    """Return the Variables of a state, each with its new value.

    Args:
      tree: The tree of Variables.
      before: The state that `to_optax` returned.
      structure: Its structure, with a leaf for each Variable.
      after: The new state.

    Returns:
      The pairs; None if the structures differ.
    """
    variables = jax.tree.leaves(tree, is_leaf=is_variable)
    known, found = (jax.tree.structure(x, is_leaf=is_variable) for x in (before, after))
    if not all(map(is_variable, variables)) or not same_tree(found, known):
        return None
    # Optax may keep the very dict or list that is a parameter's value.
    return [
        (v, copy_containers(unwrap_raw(x)))
        for v, x in zip(variables, structure.flatten_up_to(after), strict=True)
    ]


def set_changed(values: Iterable[tuple[Any, Any]]) -> None:
    """Set Variables to their new values, where these are not the old ones."""
    for variable, value in values:
        if variable.raw_value is not value:
            variable.raw_value = value


def set_values(tree: Any, new: Any) -> bool:
    """Set the Variables of a tree from another tree, as when a user assigns it.

    Args:
      tree: The tree of Variables.
      new: A tree with Variables, arrays or numbers at its leaves; plain dicts may stand for States.

    Returns:
      Whether the structure is the same; if not, nothing is set.

    Raises:
      StructureError: If a number does not fit the array that it would replace. Nothing is set then.
    """
    entries, structure = jax.tree_util.tree_flatten_with_path(as_states(tree), is_leaf=is_variable)
    values, found = jax.tree.flatten(as_states(new), is_leaf=is_variable)
    if not all(is_variable(x) for _, x in entries) or not same_tree(structure, found):
        return False
    writes: list[tuple[Any, Any]] = []
    for (path, variable), x in zip(entries, map(unwrap_raw, values), strict=True):
        is_number = is_argument_array(x) and not hasattr(x, "dtype")
        writes.append((variable, fit(("opt_state", *map(key_of, path)), variable, x) if is_number else x))
    set_changed(writes)
    return True
