"""A Variable that declares a sharding is on the mesh when it is created: eagerly, in jit, under every transform."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec as P

import liftnn

AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
MESHES = {
    "auto": jax.make_mesh((4, 2), ("data", "model"), axis_types=(AUTO,) * 2),
    "explicit": jax.make_mesh((4, 2), ("data", "model"), axis_types=(EXPLICIT,) * 2),
    "mixed": jax.make_mesh((4, 2), ("data", "model"), axis_types=(AUTO, EXPLICIT)),
}
each_mesh = pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)


def param(names=("data", "model"), value=None, **metadata):
    return liftnn.Param(
        jnp.arange(32.0).reshape(8, 4) if value is None else value, sharding=names, **metadata
    )


def assert_placed(x, mesh, *spec):
    assert x.sharding.is_equivalent_to(NamedSharding(mesh, P(*spec)), x.ndim), x.sharding


@each_mesh
@pytest.mark.parametrize("name", ["sharding", "out_sharding", "sharding_names"])
@pytest.mark.parametrize("around", [lambda f: f, liftnn.jit, lambda f: lambda: jax.jit(lambda: f().value)()])
@pytest.mark.sample(4)
def test_a_declared_sharding_holds_eagerly_and_in_jit(mesh, name, around):
    with jax.set_mesh(mesh):
        made = around(lambda: liftnn.Param(jnp.arange(32.0).reshape(8, 4), **{name: ("data", "model")}))()
    x = made.value if isinstance(made, liftnn.Param) else made
    assert_placed(x, mesh, "data", "model")
    np.testing.assert_array_equal(x, np.arange(32.0).reshape(8, 4))


@each_mesh
def test_a_mesh_of_the_metadata_needs_no_current_one(mesh):
    for declared in (param(mesh=mesh), param(NamedSharding(mesh, P("data", "model")))):
        assert_placed(declared.value, mesh, "data", "model")
    init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, "model"), mesh=mesh)
    assert_placed(
        liftnn.Linear(8, 4, kernel_init=init, rngs=liftnn.Rngs(0)).kernel.value, mesh, None, "model"
    )


def test_without_a_mesh_or_a_declaration_nothing_moves():
    x = jnp.ones((8, 4))
    assert param(value=x).value is x
    with jax.set_mesh(MESHES["auto"]):
        assert liftnn.Param(x).value is x
        assert param(None, x).value is x


@each_mesh
def test_numpy_arrays_and_the_arrays_of_a_pytree_are_placed(mesh):
    with jax.set_mesh(mesh):
        v = liftnn.Variable({"a": np.ones((8, 4), np.float32), "b": jnp.zeros((0, 2))}, sharding=("data",))
    for x in v.value.values():
        assert_placed(x, mesh, "data")


@each_mesh
def test_under_vmap_each_element_is_placed_and_under_shard_map_each_shard_is_an_array_of_its_own(mesh):
    if mesh is MESHES["mixed"] and jax.__version_info__ < (0, 10, 2):
        pytest.skip("under jax.vmap this version of JAX loses the explicit axes of such a mesh")
    with jax.set_mesh(mesh):
        made = liftnn.vmap(lambda x: param(value=x))(jnp.ones((3, 8, 4)))
        assert_placed(made.value, mesh, None, "data", "model")
        x = jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, P("data", "model")))
        shards = liftnn.shard_map(
            lambda x: param(value=x).value, in_specs=P("data", "model"), out_specs=P("data", "model")
        )(x)
        assert_placed(shards, mesh, "data", "model")


@pytest.mark.parametrize("mesh", [MESHES["auto"], MESHES["explicit"]])
def test_a_gradient_passes_through(mesh):
    with jax.set_mesh(mesh):
        grads = liftnn.grad(lambda x: (param(value=x).value ** 2).sum())(jnp.ones((8, 4)))
    np.testing.assert_array_equal(grads, np.full((8, 4), 2.0))


def test_rules_are_a_context_and_part_of_the_cache_key_of_jit():
    make = liftnn.jit(lambda: param(("rows", "columns"), jnp.ones((8, 8))))
    mesh = MESHES["auto"]
    for rules in ({"rows": "data", "columns": None}, [("columns", ["model", "data"]), ("rows", None)]):
        with liftnn.axis_rules(rules, mesh):
            rows, columns = (dict(rules)[name] for name in ("rows", "columns"))
            spec = (rows, tuple(columns) if columns else None)
            for x in (make().value, param(("rows", "columns"), jnp.ones((8, 8))).value):
                assert_placed(x, mesh, *spec)


def test_rules_end_with_the_block_the_call_and_an_exception():
    @liftnn.axis_rules({"rows": "data"}, MESHES["auto"])
    def spec(depth=0):
        return spec(depth + 1) if depth < 2 else liftnn.get_partition_spec(param(("rows",))).value

    assert spec() == P("data")
    with pytest.raises(KeyError), liftnn.axis_rules({"rows": "data"}):
        raise KeyError
    assert liftnn.get_partition_spec(param(("rows",))).value == P("rows")
    assert jax.sharding.get_abstract_mesh().empty


def test_inner_rules_replace_outer_ones():
    with liftnn.axis_rules({"rows": "data", "columns": "model"}):
        with liftnn.axis_rules({"rows": "model"}):
            assert liftnn.get_partition_spec(param(("rows", "columns"))).value == P("model", "columns")
        assert liftnn.get_partition_spec(param(("rows", "columns"))).value == P("data", "model")


def test_threads_have_their_own_rules_and_setting():
    seen = []

    def other():
        seen.append(liftnn.get_partition_spec(param(("rows",))).value)
        seen.append(liftnn.using_eager_sharding())

    with liftnn.axis_rules({"rows": "data"}), liftnn.use_eager_sharding(False):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
    assert seen == [P("rows"), True]


def test_eager_sharding_can_be_disabled_for_all_and_for_one_variable_also_in_a_cached_jit():
    mesh = MESHES["auto"]
    make = liftnn.jit(lambda: param(("data",)))
    with jax.set_mesh(mesh):
        assert_placed(make().value, mesh, "data")
        with liftnn.use_eager_sharding(False):
            assert_placed(param(("nonsense",)).value, mesh)
            assert_placed(make().value, mesh)
        assert_placed(make().value, mesh, "data")
        assert_placed(param(("nonsense",), eager_sharding=False).value, mesh)


def test_the_state_of_an_optimizer_is_where_its_parameters_are():
    mesh = MESHES["explicit"]
    with jax.set_mesh(mesh):
        model = liftnn.Linear(8, 4, kernel_metadata={"sharding": ("data", "model")}, rngs=liftnn.Rngs(0))
        for make in (liftnn.Optimizer, liftnn.jit(liftnn.Optimizer, static_argnums=1)):
            optimizer = make(model, optax.adam(0.1))
            assert_placed(optimizer.opt_state[0].mu["kernel"].value, mesh, "data", "model")


def test_an_abstract_mesh_serves_for_shapes():
    mesh = AbstractMesh((4, 2), ("data", "model"), axis_types=(EXPLICIT,) * 2)
    with jax.sharding.use_abstract_mesh(mesh):
        w = liftnn.eval_shape(param)
    assert w.value.sharding.spec == P("data", "model")


SIX = jnp.arange(12.0).reshape(6, 2)
INDIVISIBLE = (
    r"a Param of shape \(6, 2\)\), \('data', 'model'\): axis 0 of size 6 cannot be divided into 4 equal"
)


@pytest.mark.parametrize("around", [liftnn.jit, liftnn.eval_shape], ids=["jit", "eval_shape"])
def test_in_a_trace_an_axis_that_cannot_be_divided_is_left_whole_with_a_warning(around):
    """JAX accepts such a constraint in `jit`, too, and leaves the axis whole."""
    mesh = MESHES["auto"]

    def make():
        return liftnn.Linear(6, 2, kernel_init=init, use_bias=False, rngs=liftnn.Rngs(0))

    init = liftnn.with_partitioning(lambda *_: SIX, ("data", "model"))
    with jax.set_mesh(mesh), pytest.warns(liftnn.ShardingWarning, match=INDIVISIBLE):
        made = liftnn.jit(make)() if around is liftnn.jit else around(make)
    assert made.kernel.shape == (6, 2)
    if around is liftnn.jit:
        assert_placed(made.kernel.value, mesh, None, "model")
        np.testing.assert_array_equal(made.kernel.value, SIX)


@pytest.mark.parametrize("case", ["outside of a trace", "explicit axes", "another problem"])
def test_a_sharding_that_does_not_fit_is_an_error(case):
    mesh = MESHES["explicit" if case == "explicit axes" else "auto"]
    names = ("data", "nonsense") if case == "another problem" else ("data", "model")
    make = (
        liftnn.jit(lambda: param(names, SIX)) if case != "outside of a trace" else lambda: param(names, SIX)
    )
    with jax.set_mesh(mesh), pytest.raises(liftnn.ShardingError, match="Param of shape"):
        make()


def test_an_error_leaves_everything_as_it_was():
    model = liftnn.Linear(8, 4, rngs=liftnn.Rngs(0))
    before = liftnn.state(model)

    @liftnn.jit
    def step(model):
        model.kernel.value *= 2
        model.new = param(("data", "nonsense"))

    with jax.set_mesh(MESHES["auto"]), pytest.raises(liftnn.ShardingError, match="a Param of shape"):
        step(model)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, liftnn.state(model)))
