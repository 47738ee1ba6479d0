"""Functions that `tests.processes` calls: a model on the devices of all processes, with a mistake in process 1."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import liftnn

RANK = jax.process_index()
RULES = {"hidden": "model", "batch": "data"}


class Model(liftnn.Module):
    def __init__(
        self,
        seed: int = 0,
        names: Any = (None, "hidden"),
        width: int = 8,
        depth: int = 2,
        rate: float = 0.1,
        keeps_rngs: bool = True,
    ):
        rngs = liftnn.Rngs(seed)
        init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), names)
        layers = [liftnn.Linear(8, width, kernel_init=init, rngs=rngs) for _ in range(depth)]
        self.layers = layers
        self.dropout = liftnn.Dropout(rate, rngs=rngs if keeps_rngs else None)


def mesh() -> Any:
    n = jax.device_count()
    return jax.make_mesh((n // 2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def make_sharded(rules: Any = RULES, **mistake: Any) -> str:
    """Create the model, in process 1 with other arguments."""
    model = liftnn.make_sharded(lambda: Model(**(mistake if RANK else {})), mesh(), rules)
    liftnn.check_replicas(model)
    return str(model.layers[0].kernel.value.sharding.spec)


def same() -> str:
    return make_sharded()


def same_under_set_mesh() -> str:
    n = jax.device_count()
    with jax.set_mesh(jax.make_mesh((n // 2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)):
        model = liftnn.make_sharded(Model, rules=RULES)
        liftnn.check_replicas(model)
        return str(model.layers[0].kernel.value.sharding.spec)


def same_for_one_process() -> str:
    """A mesh of the devices of process 1, which others do not know."""
    if RANK == 0:
        return "nothing"
    own = jax.sharding.Mesh(jax.local_devices(), ("model",))
    return str(liftnn.make_sharded(Model, own, {"hidden": "model"}).layers[0].kernel.value.sharding.spec)


def other_spec() -> str:
    return make_sharded(names=("hidden", None))


def missing_axis() -> str:
    return make_sharded(names=(None, "nowhere"))


def not_divisible() -> str:
    return make_sharded(width=7)


def other_rules() -> str:
    return make_sharded(rules={"hidden": "data" if RANK else "model"})


def missing_rule() -> str:
    return make_sharded(rules={"batch": "data"} if RANK else RULES)


def other_mesh() -> str:
    n = jax.device_count()
    shape = (2, n // 2) if n > 4 else (n, 1)
    used = jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Auto,) * 2) if RANK else mesh()
    return str(liftnn.make_sharded(Model, used, RULES))


def other_seed() -> str:
    return make_sharded(seed=1)


def other_seed_and_no_stream() -> str:
    made = liftnn.make_sharded(lambda: Model(seed=RANK, keeps_rngs=False), mesh(), RULES)
    return str(made)


def other_captured_key() -> str:
    key = jax.random.key(RANK)
    make = jax.jit(lambda: jax.random.normal(key, (4,)))
    return str(liftnn.make_sharded(lambda: liftnn.Param(make()), mesh()))


def other_depth() -> str:
    return make_sharded(depth=3)


def other_static_value() -> str:
    return make_sharded(rate=0.2)


def make_raises() -> str:
    def make() -> Model:
        if RANK:
            raise RuntimeError("no such file: config.json")
        return Model()

    return str(liftnn.make_sharded(make, mesh(), RULES))


def no_mesh() -> str:
    return str(liftnn.make_sharded(Model, None if RANK else mesh(), RULES))


def other_function() -> str:
    if RANK:
        liftnn.check_replicas(Model())
        return "compared"
    return make_sharded()


def sets_in_any_order() -> str:
    """Sets of strings are in another order in each process."""

    def make() -> Model:
        model = Model()
        model.names = frozenset(map(str, range(20)))
        model.layers[0].kernel.names = {"first", "second", "third", "fourth"}
        model.pair = (frozenset(map(str, range(20))), 1)
        return model

    liftnn.make_sharded(make, mesh(), RULES)
    return "the same"


def check_replicas(**mistake: Any) -> str:
    liftnn.check_replicas(Model(**(mistake if RANK else {})))
    return "the same"


def replicas_of_other_seed() -> str:
    return check_replicas(seed=1)


def replicas_of_other_spec() -> str:
    return check_replicas(names=("hidden", None))


def replicas_of_other_depth() -> str:
    return check_replicas(depth=3)


def replicas_of_other_static_value() -> str:
    return check_replicas(rate=0.2)


def replicas_with_sharded_arrays() -> str:
    model = liftnn.make_sharded(Model, mesh(), RULES)
    spec = NamedSharding(mesh(), P("data"))
    model.batch = jax.make_array_from_process_local_data(spec, jnp.full((2, 3), RANK))
    liftnn.check_replicas(model, {"again": model})
    return "the same"


def replicas_of_other_sharding() -> str:
    """Equal values, in process 1 on other devices."""
    model = liftnn.Param(jax.device_put(jnp.ones(8), NamedSharding(mesh(), P())))
    if RANK:
        model.value = jnp.ones(8)
    liftnn.check_replicas(model)
    return "the same"


def replicas_of_no_module() -> str:
    liftnn.check_replicas({1, 2} if RANK else Model())
    return "the same"
