"""The shardings that the Variables of a model declare, as specs and as shardings on a mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from liftnn import errors
from liftnn._src.graph.graphdef import state
from liftnn._src.graph.kinds import is_object
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary, warn
from liftnn._src.trees import Path, format_path, key_of
from liftnn._src.variables.annotated import annotate
from liftnn._src.variables.axis_rules import AxisRules, mesh_text, rules_or_current
from liftnn._src.variables.declared import (
    Declared,
    axes_of,
    declared_of,
    describe,
    find_problem,
    misfit,
    named,
)
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable


@boundary
def with_partitioning(
    initializer: Callable[..., Any], sharding: Sequence[Any], mesh: Any = None, **metadata: Any
) -> Callable[..., Any]:
    """Wrap an initializer so that the Variables created with it declare a sharding in their metadata.

    Args:
      initializer: An initializer `(key, shape, dtype) -> array`.
      sharding: A name, a tuple of names, or None (not sharded) for each axis of the array.
      mesh: The `jax.sharding.Mesh` on which the Variables are placed when they are created, which becomes metadata
        too. The default, None, means the current mesh (`jax.set_mesh`); without one they are not placed.
      **metadata: Further metadata of the Variable. Metadata passed to the Variable itself take precedence.

    Returns:
      The wrapped initializer.

    Example:
      >>> import liftnn
      >>> init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, "model"))
      >>> liftnn.Linear(2, 3, kernel_init=init, rngs=liftnn.Rngs(0)).kernel.sharding
      (None, 'model')
    """
    declared = sharding if isinstance(sharding, str) else tuple(getattr(sharding, "spec", sharding))
    mesh = getattr(sharding, "mesh", None) if mesh is None else mesh
    placement = {} if mesh is None else {"mesh": mesh}
    return annotate(initializer, {"sharding": declared, **placement, **metadata})


@boundary
def get_partition_spec(tree: Any, rules: AxisRules | None = None) -> Any:
    """Return the declared `PartitionSpec` of each Variable in a tree of modules.

    Args:
      tree: A module, a State, or a tree of them; they may be abstract, as from `liftnn.eval_shape`.
      rules: A mapping, or pairs, from declared names to a mesh axis, a sequence of mesh axes, or None (not sharded).
        Names without a rule are used unchanged. The default, None, means the rules of `axis_rules`. The metadata
        `sharding_rules` of a Variable, a mapping or pairs, adds rules for it.

    Returns:
      The tree with a State in place of each module. Its Variables hold a `jax.sharding.PartitionSpec`, which is empty
      for Variables without a declared sharding.

    Raises:
      ArgumentError: If there are two rules for a name, or a Variable has another rule of its own for it.
      ArgumentTypeError: If `rules` is neither a mapping nor pairs.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> w = liftnn.Param(jnp.ones((2, 3)), sharding=("embed", None))
      >>> liftnn.get_partition_spec(w, {"embed": "model"}).value
      P('model', None)
    """
    found = rules_or_current(rules)
    specs = map_declared(tree, found, lambda path, x, declared: declared.spec)
    if rules is not None:
        warn_of_unmatched_rules(tree, found)
    return specs


@boundary
def get_named_sharding(tree: Any, mesh: Any, rules: AxisRules | None = None) -> Any:
    """Return the declared `NamedSharding` of each Variable in a tree of modules, on a mesh.

    Pass the result to `jit` as `in_shardings` or `out_shardings`, or to `jax.device_put` to place a State.

    Args:
      tree: A module, a State, or a tree of them; they may be abstract, as from `liftnn.eval_shape`.
      mesh: The `jax.sharding.Mesh`.
      rules: A mapping, or pairs, from declared names to mesh axes; see `get_partition_spec`. A rule that matches
        nothing is a `ShardingWarning`. The default, None, means the rules of `axis_rules`.

    Returns:
      The tree with a State in place of each module. Its Variables hold a `jax.sharding.NamedSharding`.

    Raises:
      ShardingError: If a declared sharding does not fit the mesh or its array; it names all such Variables.
      ArgumentError: If there are two rules for a name, or a Variable has another rule of its own for it.
      ArgumentTypeError: If `rules` is neither a mapping nor pairs.

    Example:
      >>> import jax, liftnn
      >>> mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, "model"))
      >>> make = lambda: liftnn.Linear(2, 3, kernel_init=init, rngs=liftnn.Rngs(0))
      >>> shardings = liftnn.get_named_sharding(liftnn.eval_shape(make), mesh)
      >>> liftnn.jit(make, out_shardings=shardings)().kernel.value.sharding.spec
      P(None, 'model')
    """
    found = rules_or_current(rules)
    shardings = shardings_on(tree, mesh, found)
    if rules is not None:
        warn_of_unmatched_rules(tree, found)
    return shardings


def shardings_on(tree: Any, mesh: Any, rules: Mapping[str, Any], root: str = "") -> Any:
    """Return the declared `NamedSharding` of each Variable in a tree of modules; see `get_named_sharding`.

    Args:
      tree: The tree.
      mesh: The mesh of the Variables that do not declare one.
      rules: Normalized rules.
      root: What the paths in the message start with.

    Returns:
      The tree with a State of shardings in place of each module.

    Raises:
      ShardingError: If a declared sharding does not fit; it names all of them.
    """
    lines: list[str] = []

    def place(path: Path, x: Any, declared: Declared) -> NamedSharding:
        declared_mesh = mesh if declared.mesh is None else declared.mesh
        problem, shape = _first_problem(x, declared, declared_mesh)
        if problem:
            if declared_mesh != mesh:
                problem += f" of its own mesh ({mesh_text(declared_mesh)})"
            lines.append(describe(named(format_path(path, root), x, shape), declared, problem))
            return NamedSharding(declared_mesh, PartitionSpec())
        return NamedSharding(declared_mesh, declared.spec)

    shardings = map_declared(tree, rules, place)
    if lines:
        raise misfit(mesh, lines)
    return shardings


def _first_problem(x: Any, declared: Declared, mesh: Any) -> tuple[str, tuple[int, ...]]:
    """Return why an array in a Variable cannot be sharded as declared, and its shape; an empty text if all can."""
    leaves = jax.tree.leaves(x.raw_value if isinstance(x, Variable) else x)
    shapes = [tuple(getattr(leaf, "shape", ())) for leaf in leaves if not isinstance(leaf, PartitionSpec)]
    found = [(find_problem(declared, shape, mesh), shape) for shape in shapes]
    return next((each for each in found if each[0]), ("", ()))


def map_declared(tree: Any, rules: Mapping[str, Any], f: Callable[[Path, Any, Declared], Any]) -> Any:
    """Replace each Variable and array in a tree of modules by a function of its path and its declared sharding.

    Args:
      tree: The tree.
      rules: Normalized rules.
      f: A function of path, Variable or array, and declared sharding; one that is not sharded if nothing is declared.

    Returns:
      The tree with a State in place of each module.
    """

    def replace(entry: Any, x: Any) -> Any:
        root = tuple(map(key_of, entry))

        def of(path: Path, x: Any) -> Any:
            declared = declared_of(x.get_metadata(), rules) if isinstance(x, Variable) else None
            return f((*root, *path), x, _UNDECLARED if declared is None else declared)

        if isinstance(x, Variable):
            return x.replace(of((), x))
        if isinstance(x, State) or is_object(x):
            return (x if isinstance(x, State) else state(x)).map(of)
        return of((), x)

    return jax.tree_util.tree_map_with_path(
        replace, tree, is_leaf=lambda x: isinstance(x, State) or is_object(x)
    )


_UNDECLARED = Declared((), ())


def warn_of_unmatched_rules(tree: Any, rules: Mapping[str, Any]) -> None:
    """Warn of rules for names that no Variable declares; one that maps to None has no effect anyway.

    Args:
      tree: The tree of modules.
      rules: Normalized rules.
    """
    declared: set[Any] = set()

    def note(path: Path, x: Any, found: Declared) -> None:
        declared.update(name for entry in found.names for name in axes_of(entry))

    map_declared(tree, {}, note)
    unmatched = [name for name, axes in rules.items() if axes is not None and name not in declared]
    if unmatched:
        plural = len(unmatched) > 1
        warn(
            f"The rule{'s' if plural else ''} for {', '.join(map(repr, unmatched))} match{'' if plural else 'es'} no "
            "axis that a Variable declares. The declared axes are: "
            f"{', '.join(sorted(map(repr, declared))) or 'none'}.",
            errors.ShardingWarning,
        )


publish(get_named_sharding, get_partition_spec, with_partitioning)
