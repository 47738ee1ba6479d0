"""Declared shardings: names of axes in the metadata of Variables, and what JAX needs that is made of them.

A Variable declares how it is sharded by its metadata `sharding` (or `out_sharding`): a name, or None, for each axis.
The names are those of the mesh, or names of meaning (`"embed"`, `"heads"`) that rules map to those of the mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from liftnn._src.graph.graphdef import state
from liftnn._src.graph.kinds import is_object
from liftnn._src.tracebacks import boundary
from liftnn._src.variables.metadata import SHARDING_NAMES, Annotated
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

Rules = Mapping[str, str | Sequence[str] | None]


@boundary
def with_partitioning(
    initializer: Callable[..., Any], sharding: Sequence[Any], **metadata: Any
) -> Callable[..., Any]:
    """An initializer whose values tell the Variable that is made of them how it is sharded.

    Args:
      initializer: Any initializer `(key, shape, dtype) -> array`.
      sharding: For each axis of the array a name, a tuple of names, or None if it is not sharded.
      **metadata: Further metadata of the Variable. What the Variable is given itself goes first.

    Returns:
      The initializer.

    Example:
      >>> import liftnn
      >>> init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, "model"))
      >>> liftnn.Linear(2, 3, kernel_init=init, rngs=liftnn.Rngs(0)).kernel.sharding
      (None, 'model')
    """
    declared = tuple(getattr(sharding, "spec", sharding))
    return _annotate(initializer, tuple({"sharding": declared, **metadata}.items()))


def _annotate(initializer: Callable[..., Any], items: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    """An initializer of annotated values; its closure is immutable, so that two alike are equal, and can be pickled."""

    def annotated(*args: Any, **kwargs: Any) -> Annotated:
        return Annotated(initializer(*args, **kwargs), dict(items))

    return annotated


@boundary
def get_partition_spec(tree: Any, rules: Rules | None = None) -> Any:
    """The declared spec of every Variable of a tree of modules.

    Args:
      tree: A module, a State, or a tree of them; abstract ones, as `eval_shape` gives them, will do.
      rules: The mesh axis, several or None, for each declared name; a name without a rule stays. The default, None,
        takes all names as they are.

    Returns:
      A State for each module, whose Variables hold a `jax.sharding.PartitionSpec`: an empty one where nothing is
      declared.

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
    """The declared sharding of every Variable of a tree of modules, on a mesh.

    `jit` takes the result as `in_shardings` or `out_shardings`, `jax.device_put` to place a State.

    Args:
      tree: A module, a State, or a tree of them; abstract ones, as `eval_shape` gives them, will do.
      mesh: The mesh.
      rules: As for `get_partition_spec`.

    Returns:
      A State for each module, whose Variables hold a `jax.sharding.NamedSharding`.

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
    """The spec that a Variable declares."""
    given = x.get_metadata() if isinstance(x, Variable) else {}
    declared = next((given[name] for name in SHARDING_NAMES if given.get(name) is not None), ())
    declared = getattr(declared, "spec", declared)  # a Sharding has one
    return PartitionSpec(*[_mesh_axes(name, rules) for name in declared])


def _mesh_axes(name: Any, rules: Rules) -> Any:
    """The mesh axes for an entry of a declaration."""
    if isinstance(name, tuple):
        mapped = [_mesh_axes(n, rules) for n in name]
        flat = [n for m in mapped for n in (m if isinstance(m, tuple) else (m,)) if n is not None]
        return tuple(flat) or None
    axes = rules.get(name, name) if isinstance(name, str) else name
    return tuple(axes) if isinstance(axes, list) else axes
