"""Declared shardings: axis names in the metadata of Variables, and the specs and shardings that JAX needs.

The metadata `sharding` (or `out_sharding`) of a Variable has a name, a tuple of names, or None for each axis of its
array. The names are mesh axes, or logical axes (`"embed"`, `"heads"`) that rules map to mesh axes. A Variable may have
rules of its own in the metadata `sharding_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from liftnn import errors
from liftnn._src.graph.graphdef import state
from liftnn._src.graph.kinds import is_object
from liftnn._src.tracebacks import boundary
from liftnn._src.variables.annotated import annotate
from liftnn._src.variables.metadata import SHARDING_NAMES
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

Rules = Mapping[str, str | Sequence[str] | None]


@boundary
def with_partitioning(
    initializer: Callable[..., Any], sharding: Sequence[Any], **metadata: Any
) -> Callable[..., Any]:
    """Wrap an initializer so that the Variables created with it declare a sharding in their metadata.

    Args:
      initializer: An initializer `(key, shape, dtype) -> array`.
      sharding: A name, a tuple of names, or None (not sharded) for each axis of the array.
      **metadata: Further metadata of the Variable. Metadata passed to the Variable itself take precedence.

    Returns:
      The wrapped initializer.

    Example:
      >>> import liftnn
      >>> init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, "model"))
      >>> liftnn.Linear(2, 3, kernel_init=init, rngs=liftnn.Rngs(0)).kernel.sharding
      (None, 'model')
    """
    declared = tuple(getattr(sharding, "spec", sharding))
    return annotate(initializer, {"sharding": declared, **metadata})


@boundary
def get_partition_spec(tree: Any, rules: Rules | None = None) -> Any:
    """Return the declared `PartitionSpec` of each Variable in a tree of modules.

    Args:
      tree: A module, a State, or a tree of them; they may be abstract, as from `liftnn.eval_shape`.
      rules: A mapping from declared names to a mesh axis, a sequence of mesh axes, or None (not sharded). Names without
        a rule are used unchanged. The default, None, means no rules. The metadata `sharding_rules` of a Variable, a
        mapping or pairs, adds rules for it.

    Returns:
      The tree with a State in place of each module. Its Variables hold a `jax.sharding.PartitionSpec`, which is empty
      for Variables without a declared sharding.

    Raises:
      ArgumentError: If a Variable has another rule of its own for a name.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> w = liftnn.Param(jnp.ones((2, 3)), sharding=("embed", None))
      >>> liftnn.get_partition_spec(w, {"embed": "model"}).value
      P('model', None)
    """

    def of(path: Any, x: Any) -> PartitionSpec:
        return _spec_of(x, rules or {})

    def replace(x: Any) -> Any:
        if isinstance(x, Variable):
            return x.replace(of((), x))
        if isinstance(x, State) or is_object(x):
            return (x if isinstance(x, State) else state(x)).map(of)
        return PartitionSpec()

    return jax.tree.map(replace, tree, is_leaf=lambda x: isinstance(x, State) or is_object(x))


@boundary
def get_named_sharding(tree: Any, mesh: Any, rules: Rules | None = None) -> Any:
    """Return the declared `NamedSharding` of each Variable in a tree of modules, on a mesh.

    Pass the result to `jit` as `in_shardings` or `out_shardings`, or to `jax.device_put` to place a State.

    Args:
      tree: A module, a State, or a tree of them; they may be abstract, as from `liftnn.eval_shape`.
      mesh: The `jax.sharding.Mesh`.
      rules: A mapping from declared names to mesh axes; see `get_partition_spec`. The default, None, means no rules.

    Returns:
      The tree with a State in place of each module. Its Variables hold a `jax.sharding.NamedSharding`.

    Example:
      >>> import jax, liftnn
      >>> mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, "model"))
      >>> make = lambda: liftnn.Linear(2, 3, kernel_init=init, rngs=liftnn.Rngs(0))
      >>> shardings = liftnn.get_named_sharding(liftnn.eval_shape(make), mesh)
      >>> liftnn.jit(make, out_shardings=shardings)().kernel.value.sharding.spec
      P(None, 'model')
    """
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), get_partition_spec(tree, rules))


def _spec_of(x: Any, rules: Rules) -> PartitionSpec:
    """Return the declared spec of a Variable."""
    given = x.get_metadata() if isinstance(x, Variable) else {}
    declared = next((given[name] for name in SHARDING_NAMES if given.get(name) is not None), ())
    declared = getattr(declared, "spec", declared)  # a NamedSharding instead of names
    rules = _joined_rules(rules, given.get("sharding_rules") or {})
    return PartitionSpec(*[_mesh_axes(name, rules) for name in declared])


def _joined_rules(rules: Rules, own: Any) -> Rules:
    """Return the rules for a Variable that has rules of its own."""
    added = dict(own)
    for name in rules.keys() & added.keys():
        if rules[name] != added[name]:
            raise errors.ArgumentError(
                f"The rules map the axis {name!r} to {rules[name]!r}, and the metadata `sharding_rules` of a Variable "
                f"to {added[name]!r}.",
                "Use the same rule in both, or another name in one of them.",
            )
    return {**rules, **added} if added else rules


def _mesh_axes(name: Any, rules: Rules) -> Any:
    """Return the mesh axes for an entry of a declared sharding."""
    if isinstance(name, tuple):
        mapped = [_mesh_axes(n, rules) for n in name]
        flat = [n for m in mapped for n in (m if isinstance(m, tuple) else (m,)) if n is not None]
        return tuple(flat) or None
    axes = rules.get(name, name) if isinstance(name, str) else name
    return tuple(axes) if isinstance(axes, list) else axes
