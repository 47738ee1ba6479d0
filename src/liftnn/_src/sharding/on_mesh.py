"""Models that are created on a mesh, without a whole array anywhere; and their abstract form, without computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax

from liftnn import errors
from liftnn._src.compilation.jit import jit
from liftnn._src.compilation.shape import eval_shape
from liftnn._src.garbage_collection import no_full_collections
from liftnn._src.graph.graphdef import state
from liftnn._src.graph.kinds import is_object
from liftnn._src.modules.module import Module
from liftnn._src.modules.update import update
from liftnn._src.publish import publish
from liftnn._src.sharding.agreement import agree
from liftnn._src.sharding.declared import shardings_on, warn_of_unmatched_rules
from liftnn._src.sharding.descriptions import describe_modules, describe_programs
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an
from liftnn._src.variables.axis_rules import AxisRules, axis_rules, entered, rules_or_current
from liftnn._src.variables.eager_sharding import use_eager_sharding
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.placement import current_mesh
from liftnn._src.variables.variable import Variable

T = TypeVar("T")


@boundary
def make_sharded(make: Callable[[], T], mesh: Any = None, rules: AxisRules | None = None) -> T:
    """Create modules directly on a mesh, each Variable with the sharding that it declares.

    The function runs under `jit`, so each device computes its own shards, and a whole array never exists. What declares
    nothing is replicated. Errors in declared shardings are found before anything is computed.

    With several processes of `jax.distributed`, those of the mesh first compare what they will create: structure,
    static attributes, shardings, and the programs of all arrays, which contain the seeds. If one of them differs or
    raises, all of them raise, and none waits for another one.

    Args:
      make: A function without arguments that creates and returns modules: one, or a tree such as
        `(model, optimizer)`. It is traced twice, with several processes three times.
      mesh: The mesh. The default, None, means the current one (`jax.set_mesh`).
      rules: A mapping, or pairs, from declared names to mesh axes; see `get_partition_spec`. A rule that matches
        nothing is a `ShardingWarning`. The default, None, means the rules of `axis_rules`.

    Returns:
      What the function returns.

    Raises:
      ShardingError: If a declared sharding does not fit the mesh or its array; it names all such Variables.
      StructureError: If another process creates something else, with the paths and what each process has there, or if
        the function raises in another process only.
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
    used = current_mesh() if mesh is None else mesh
    with no_full_collections:  # until here nothing is computed
        plan = agree(
            "make_sharded", "create", lambda: _prepare(make, used, rules, "make_sharded"), _texts_of, used
        )
    with entered(plan.mesh), axis_rules(plan.rules):
        return jit(make, out_shardings=plan.shardings)()


@boundary
def abstract(make: Callable[[], T], mesh: Any = None, rules: AxisRules | None = None) -> T:
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
    used = current_mesh() if mesh is None else mesh
    with no_full_collections:
        return _prepare(make, used, rules, "abstract").to_abstract()


class _Plan(NamedTuple):
    """What a function will create on a mesh.

    Args:
      make: The function.
      mesh: The mesh.
      rules: Normalized rules.
      shapes: What it creates, with shapes and dtypes in place of arrays.
      shardings: The sharding of each Variable.
    """

    make: Callable[[], Any]
    mesh: Any
    rules: dict[str, Any]
    shapes: Any
    shardings: Any

    def to_abstract(self) -> Any:
        """Return what the function creates, with shapes, dtypes and shardings in place of arrays."""
        return jax.tree.map(_with_sharding, self.shapes, self.shardings, is_leaf=is_object)


def _prepare(make: Any, mesh: Any, rules: Any, name: str) -> _Plan:
    """Return what a function will create; raise if it cannot be placed."""
    found = _check(make, mesh, rules, name)
    with entered(mesh), axis_rules(found), use_eager_sharding(False):
        shapes = eval_shape(make)
    shardings = shardings_on(shapes, mesh, found)
    if rules is not None:
        warn_of_unmatched_rules(shapes, found)
    return _Plan(make, mesh, found, shapes, shardings)


def _texts_of(plan: _Plan) -> dict[str, str]:
    """Return what the processes must have in common: mesh, modules with shardings, and the programs of all arrays."""
    texts = {"mesh": f"{plan.mesh}{_devices_of(plan.mesh)}", **describe_modules(plan.to_abstract())}
    with entered(plan.mesh), axis_rules(plan.rules), use_eager_sharding(False):
        programs = describe_programs(plan.make)
    return texts | {path: f"{texts[path]} computed by program {digest}" for path, digest in programs.items()}


def _devices_of(mesh: Any) -> str:
    """Return a text about the devices of a mesh that is not abstract."""
    return f" of the devices {mesh.device_ids.tolist()}" if isinstance(mesh, jax.sharding.Mesh) else ""


def _with_sharding(x: Any, sharding: Any) -> Any:
    """Return abstract modules, or an abstract array, with shardings."""

    def give(value: Any, sharding: Any) -> Any:
        return jax.tree.map(lambda v: v.update(sharding=sharding), value)

    if isinstance(x, Variable):
        x.raw_value = give(x.raw_value, sharding.raw_value)
    elif is_object(x):
        shardings = sharding.flat()
        update(x, state(x).map(lambda path, v: give(unwrap_raw(v), unwrap_raw(shardings[path]))))
    else:
        return give(x, sharding)
    return x


def _check(make: Any, mesh: Any, rules: Any, name: str) -> dict[str, Any]:
    """Return normalized rules; raise if there is no mesh, or `make` is not a function."""
    if not callable(make) or isinstance(make, Module):
        raise errors.ArgumentTypeError(
            f"{name} takes a function that creates modules, not {an(type(make))}.",
            "Pass a function without arguments, such as `lambda: Model(liftnn.Rngs(0))`.",
        )
    if not isinstance(mesh, (jax.sharding.Mesh, jax.sharding.AbstractMesh)):
        got = "there is no current one" if mesh is None else f"got {an(type(mesh))}"
        raise errors.ArgumentError(
            f"{name} needs a mesh, but {got}.",
            'Pass `jax.make_mesh((4, 2), ("data", "model"))`, or use `jax.set_mesh`.',
        )
    return rules_or_current(rules)


publish(abstract, make_sharded)
