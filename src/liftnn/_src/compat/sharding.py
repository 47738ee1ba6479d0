"""Declared shardings as in Flax NNX: rules of a context, the metadata `out_sharding`, and abstract models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from liftnn._src.compat.graph import map
from liftnn._src.compat.modes import accept_modes
from liftnn._src.compat.splitting import split
from liftnn._src.compat.tree_gradients import is_tree_of_jax
from liftnn._src.compilation import shape
from liftnn._src.modules.verbs import find_variables
from liftnn._src.sharding import declared
from liftnn._src.tracebacks import boundary
from liftnn._src.variables.annotated import annotate
from liftnn._src.variables.axis_rules import current_rules
from liftnn._src.variables.declared import declared_of
from liftnn._src.variables.variable import Variable


@boundary
def with_partitioning(
    initializer: Callable[..., Any], sharding: Sequence[Any], mesh: Any = None, **metadata: Any
) -> Callable[..., Any]:
    """Wrap an initializer so that the Variables created with it declare a sharding, in their metadata `out_sharding`.

    Args:
      initializer: An initializer `(key, shape, dtype) -> array`.
      sharding: A name, a tuple of names, or None for each axis of the array.
      mesh: The mesh, which becomes metadata too. The default is None.
      **metadata: Further metadata of the Variable.

    Returns:
      The wrapped initializer.

    Example:
      >>> from liftnn.compat import nnx
      >>> init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
      >>> nnx.Linear(2, 3, kernel_init=init, rngs=nnx.Rngs(0)).kernel.out_sharding
      (None, 'model')
    """
    entries = {"out_sharding": sharding, "mesh": mesh, **metadata}
    return annotate(initializer, entries)


def get_partition_spec(tree: Any) -> Any:
    """Return the declared `PartitionSpec` of each Variable, under the rules of `logical_axis_rules`.

    Args:
      tree: A module, a State, or a tree of them; they may be abstract.

    Returns:
      The tree, in whose Variables is a `jax.sharding.PartitionSpec`; with a State in place of each module if one is not
      a pytree of JAX.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> nnx.get_partition_spec(nnx.Param(jnp.ones((2, 3)), sharding=("model", None))).value
      P('model', None)
    """
    return _map_leaves(declared.get_partition_spec, tree)


def _map_leaves(f: Callable[[Any], Any], tree: Any) -> Any:
    """Return the result of a function of trees that makes each module a State; modules instead if they are pytrees."""
    found = f(tree)  # also for its errors, which name paths
    if not is_tree_of_jax(tree):
        return found
    return jax.tree.map(f, tree, is_leaf=lambda x: isinstance(x, Variable))


def get_var_pspec(v: Variable[Any]) -> jax.sharding.PartitionSpec | None:
    """Return the declared `PartitionSpec` of a Variable, under the rules of `logical_axis_rules`.

    Args:
      v: The Variable.

    Returns:
      The spec, which is empty if nothing is declared; None if the value is not an array then.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> nnx.spmd.get_var_pspec(nnx.Param(jnp.ones((2, 3)), out_sharding=("model", None)))
      P('model', None)
    """
    found = declared_of(v.get_metadata(), current_rules())
    if found is not None:
        return found.spec
    return jax.sharding.PartitionSpec() if hasattr(v, "shape") else None


def get_named_sharding(tree: Any, mesh: Any) -> Any:
    """Return the declared `NamedSharding` of each Variable on a mesh, under the rules of `logical_axis_rules`.

    Args:
      tree: A module, a State, or a tree of them; they may be abstract.
      mesh: The `jax.sharding.Mesh`.

    Returns:
      The tree, in whose Variables is a `jax.sharding.NamedSharding`; with a State in place of each module if one is not
      a pytree of JAX.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> w = nnx.Param(jnp.ones((2, 3)), sharding=("model", None))
      >>> nnx.get_named_sharding(w, mesh).value.spec
      P('model', None)
    """
    return _map_leaves(lambda x: declared.get_named_sharding(x, mesh), tree)


@accept_modes
def eval_shape(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the shapes, dtypes and shardings of a function's output without computing it.

    It is `liftnn.eval_shape`, and under `jax.set_mesh`, or with the metadata `mesh`, the abstract array of a Variable
    has the declared sharding.

    Args:
      f: A function, a bound method or a module.
      *args: Arguments: arrays, modules, trees of them, or `jax.ShapeDtypeStruct` in place of arrays.
      **kwargs: Keyword arguments, likewise.

    Returns:
      The output with `jax.ShapeDtypeStruct` in place of arrays, also in the Variables of modules; its modules are new.

    Raises:
      ValueError: If a declared sharding has an axis that the mesh does not have.

    Example:
      >>> import jax
      >>> from liftnn.compat import nnx
      >>> mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
      >>> with jax.set_mesh(mesh):
      ...   model = nnx.eval_shape(lambda: nnx.Linear(2, 3, kernel_init=init, rngs=nnx.Rngs(0)))
      >>> model.kernel.value.sharding.spec
      P(None, 'model')
    """
    out = shape.eval_shape(f, *args, **kwargs)
    current = jax.sharding.get_abstract_mesh()
    for x in find_variables(out, ...).values():
        value, mesh = x.raw_value, x.get_metadata("mesh") or (None if current.empty else current)
        if mesh is not None and isinstance(value, jax.ShapeDtypeStruct) and value.sharding is None:
            sharding = jax.sharding.NamedSharding(mesh, get_var_pspec(x) or jax.sharding.PartitionSpec())
            x.raw_value = jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)
    return out


@accept_modes
def get_abstract_model(init_fn: Callable[[], Any], mesh: Any) -> tuple[Any, Any]:
    """Return a model as GraphDef and State of abstract arrays that have the declared shardings.

    Args:
      init_fn: A function without arguments that creates the model.
      mesh: The `jax.sharding.Mesh`.

    Returns:
      `(graphdef, state)`. The Variables of the State hold `jax.ShapeDtypeStruct`.

    Example:
      >>> import jax
      >>> from liftnn.compat import nnx
      >>> mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
      >>> make = lambda: nnx.Linear(2, 3, kernel_init=init, rngs=nnx.Rngs(0))
      >>> graphdef, state = nnx.get_abstract_model(make, mesh)
      >>> state.kernel.value.sharding.spec
      P(None, 'model')
    """
    with jax.set_mesh(mesh):
        graphdef, state = split(shape.eval_shape(init_fn))
        shardings = get_named_sharding(state, mesh)
        return graphdef, jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings
        )


@accept_modes
def as_abstract(tree: Any) -> Any:
    """Return a copy of an abstract model whose arrays have the declared shardings.

    Args:
      tree: A module of abstract arrays, as from `eval_shape`.

    Returns:
      The module. The mesh is that of the metadata `mesh`, or else that of `jax.set_mesh`. Variables without a declared
      sharding, and those that hold a sharding already, are unchanged.

    Example:
      >>> import jax
      >>> from liftnn.compat import nnx
      >>> init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
      >>> mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> with jax.set_mesh(mesh):
      ...   model = nnx.eval_shape(lambda: nnx.Linear(2, 3, kernel_init=init, rngs=nnx.Rngs(0)))
      ...   nnx.as_abstract(model).kernel.value.sharding.spec
      P(None, 'model')
    """

    def add_sharding(path: Any, x: Any) -> Any:
        value = x.raw_value if isinstance(x, Variable) else None
        found = declared_of(x.get_metadata(), current_rules()) if isinstance(x, Variable) else None
        if found is None or not isinstance(value, jax.ShapeDtypeStruct) or value.sharding is not None:
            return x
        mesh = jax.sharding.get_abstract_mesh() if found.mesh is None else found.mesh
        sharding = jax.sharding.NamedSharding(mesh, found.spec)
        return x.replace(jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding))

    return map(add_sharding, tree)
