"""Models that are created on a mesh, without a whole array anywhere; and their abstract form, without computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from liftnn import errors
from liftnn._src.compilation.jit import jit
from liftnn._src.compilation.shape import eval_shape
from liftnn._src.graph.graphdef import state
from liftnn._src.graph.kinds import is_object
from liftnn._src.modules.module import Module
from liftnn._src.modules.verbs import update
from liftnn._src.publish import publish
from liftnn._src.sharding.declared import shardings_on, warn_of_unmatched_rules
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an
from liftnn._src.variables.axis_rules import Rules, axis_rules, entered, rules_or_current
from liftnn._src.variables.eager_sharding import use_eager_sharding
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.placement import current_mesh
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

T = TypeVar("T")


@boundary
def make_sharded(make: Callable[[], T], mesh: Any = None, rules: Rules | None = None) -> T:
    """Create modules directly on a mesh, each Variable with the sharding that it declares.

    The function runs under `jit`, so each device computes its own shards, and a whole array never exists. What declares
    nothing is replicated. Errors in declared shardings are found before anything is computed.

    Args:
      make: A function without arguments that creates and returns modules: one, or a tree such as
        `(model, optimizer)`. It is traced twice.
      mesh: The mesh. The default, None, means the current one (`jax.set_mesh`).
      rules: A mapping, or pairs, from declared names to mesh axes; see `get_partition_spec`. A rule that matches
        nothing is a `ShardingWarning`. The default, None, means the rules of `axis_rules`.

    Returns:
      What the function returns.

    Raises:
      ShardingError: If a declared sharding does not fit the mesh or its array; it names all such Variables.
      ArgumentError: If there is no mesh, or there are two rules for a name.
      ArgumentTypeError: If `make` is not callable, or `rules` is neither a mapping nor pairs.

    Example:
      >>> import jax, liftnn
      >>> mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, "hidden"))
      >>> make = lambda: liftnn.Linear(2, 3, kernel_init=init, rngs=liftnn.Rngs(0))
      >>> liftnn.make_sharded(make, mesh, {"hidden": "model"}).kernel.value.sharding.spec
      P(None, 'model')
    """
    mesh, found = _check(make, mesh, rules, "make_sharded")
    shapes, shardings = _describe(make, mesh, found)
    if rules is not None:
        warn_of_unmatched_rules(shapes, found)
    with entered(mesh), axis_rules(found):
        return jit(make, out_shardings=jax.tree.map(_for_jit, shardings, is_leaf=_is_whole))()


def _is_whole(x: Any) -> bool:
    """Return whether shardings are those of one module or Variable."""
    return isinstance(x, (State, Variable))


def _for_jit(sharding: Any) -> Any:
    """Return the sharding that a Variable holds; States of them, and others, unchanged."""
    return sharding.raw_value if isinstance(sharding, Variable) else sharding


@boundary
def abstract(make: Callable[[], T], mesh: Any = None, rules: Rules | None = None) -> T:
    """Create the modules of `make_sharded` without computing: shapes, dtypes and shardings in place of arrays.

    Pass the result to `restore`, to `jit(...).lower` to compile ahead of time or to plan memory, or as the
    argument of `eval_shape`.

    Args:
      make: A function without arguments that creates and returns modules: one, or a tree such as
        `(model, optimizer)`.
      mesh: The mesh, which may be a `jax.sharding.AbstractMesh` of devices that are not here. The default, None, means
        the current one (`jax.set_mesh`).
      rules: As for `make_sharded`.

    Returns:
      What the function returns, with `jax.ShapeDtypeStruct` in place of arrays.

    Raises:
      ShardingError: If a declared sharding does not fit the mesh or its array; it names all such Variables.
      ArgumentError: If there is no mesh, or there are two rules for a name.
      ArgumentTypeError: If `make` is not callable, or `rules` is neither a mapping nor pairs.

    Example:
      >>> import jax, liftnn
      >>> mesh = jax.sharding.AbstractMesh((8,), ("model",))
      >>> init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, "model"))
      >>> make = lambda: liftnn.Linear(2048, 4096, kernel_init=init, rngs=liftnn.Rngs(0))
      >>> liftnn.abstract(make, mesh).kernel.value.sharding.shard_shape((2048, 4096))
      (2048, 512)
    """
    mesh, found = _check(make, mesh, rules, "abstract")
    shapes, shardings = _describe(make, mesh, found)
    if rules is not None:
        warn_of_unmatched_rules(shapes, found)
    return jax.tree.map(_with_sharding, shapes, shardings, is_leaf=is_object)


def _with_sharding(x: Any, sharding: Any) -> Any:
    """Return abstract modules, or an abstract array, with shardings."""

    def give(value: Any, sharding: Any) -> Any:
        return jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=sharding), value)

    if isinstance(x, Variable):
        x.raw_value = give(x.raw_value, sharding.raw_value)
    elif is_object(x):
        shardings = sharding.flat()
        update(x, state(x).map(lambda path, v: give(unwrap_raw(v), unwrap_raw(shardings[path]))))
    else:
        return give(x, sharding)
    return x


def _check(make: Any, mesh: Any, rules: Any, name: str) -> tuple[Any, dict[str, Any]]:
    """Return the mesh and the rules of a call; raise if there is no mesh or nothing to call."""
    if not callable(make) or isinstance(make, Module):
        raise errors.ArgumentTypeError(
            f"{name} takes a function that creates modules and got {an(type(make))}.",
            "Pass a function without arguments, such as `lambda: Model(liftnn.Rngs(0))`.",
        )
    mesh = current_mesh() if mesh is None else mesh
    if not isinstance(mesh, (jax.sharding.Mesh, jax.sharding.AbstractMesh)):
        got = "there is no current one" if mesh is None else f"got {an(type(mesh))}"
        raise errors.ArgumentError(
            f"{name} needs a mesh, and {got}.",
            'Pass `jax.make_mesh((4, 2), ("data", "model"))`, or use `jax.set_mesh`.',
        )
    return mesh, rules_or_current(rules)


def _describe(make: Callable[[], Any], mesh: Any, rules: dict[str, Any]) -> tuple[Any, Any]:
    """Return what a function creates, abstract, and the sharding of each of its Variables."""
    with entered(mesh), axis_rules(rules), use_eager_sharding(False):
        shapes = eval_shape(make)
    return shapes, shardings_on(shapes, mesh, rules)


publish(abstract, make_sharded)
