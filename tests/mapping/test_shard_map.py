"""`shard_map` on eight devices: the numbers of `jax.shard_map` and of one device, and the sharding of each Variable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests.same import assert_same
from tests.user_modules import Affine, Holder, Pair, step

import liftnn

AUTO = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
GRID = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
BY_NAME = liftnn.StateSharding({liftnn.PathContains("w"): P("x"), ...: P()})
X = jnp.arange(8.0)


def is_placed(x, mesh, spec):
    return x.sharding.is_equivalent_to(NamedSharding(mesh, spec), x.ndim)


@pytest.mark.thorough
@pytest.mark.parametrize("wrap", [lambda f: f, liftnn.jit])
def test_a_sharded_variable_keeps_its_spec_and_a_replicated_one_stays_replicated(wrap):
    def f(model, x):
        model.w.value = model.w * 2 + x
        model.b.value = model.b + jax.lax.psum(x.sum(), "x")
        return model.w.value

    model = Affine(1.0, size=8)
    call = wrap(liftnn.shard_map(f, mesh=AUTO, in_specs=(BY_NAME, P("x")), out_specs=P("x")))
    for _ in range(2):
        y = call(model, X)
    expected = (1.0 * 2 + X) * 2 + X
    assert y.tolist() == model.w.value.tolist() == expected.tolist()
    assert model.b.value.tolist() == [56.0] * 8
    assert is_placed(y, AUTO, P("x"))
    assert is_placed(model.w.value, AUTO, P("x"))
    assert is_placed(model.b.value, AUTO, P())
    assert {shard.data.shape for shard in model.w.value.addressable_shards} == {(1,)}


@pytest.mark.thorough
def test_the_numbers_are_those_of_jax_shard_map():
    def matmul(w, x):
        return jax.lax.psum(x @ w, "model")

    specs = {"in_specs": (P("model"), P("data", "model")), "out_specs": P("data")}
    w, x = jnp.arange(24.0).reshape(8, 3), jnp.arange(32.0).reshape(4, 8)
    layer = Holder(w=liftnn.Param(w))
    ours = liftnn.shard_map(lambda m, x: matmul(m.w.value, x), mesh=GRID, **specs)(layer, x)
    theirs = jax.shard_map(matmul, mesh=GRID, **specs)(w, x)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.sharding == theirs.sharding


def test_only_some_axes_can_be_split():
    def f(m, x):
        return jax.lax.psum(m.w * x, "data")

    layer = Holder(w=liftnn.Param(X))
    call = liftnn.shard_map(
        f, mesh=GRID, in_specs=(P(), P("data")), out_specs=P(), axis_names={"data"}, split_rngs=False
    )
    x = jnp.arange(16.0).reshape(2, 8)
    assert liftnn.jit(call)(layer, x).tolist() == (X * x.sum(0))[None].tolist()


def test_structure_and_new_variables_come_out():
    def f(model, x):
        model.new = Holder(v=liftnn.Param(x), count=liftnn.Variable(jnp.zeros(())))
        model.mode = "eval"
        model.layers = [model.new]
        return Holder(y=liftnn.Param(x + 1)), model

    specs = liftnn.StateSharding(
        {liftnn.PathContains("count"): P(), liftnn.PathContains("calls"): P(), ...: P("x")}
    )
    model = Affine(1.0, size=8)
    made, returned = liftnn.shard_map(f, mesh=AUTO, in_specs=(specs, P("x")), out_specs=P("x"))(model, X)
    assert returned is model
    assert model.layers[0] is model.new
    assert model.mode == "eval"
    assert is_placed(model.new.v.value, AUTO, P("x"))
    assert is_placed(model.new.count.value, AUTO, P())
    assert made.y.value.tolist() == (X + 1).tolist()
    assert is_placed(made.y.value, AUTO, P("x"))


@pytest.mark.thorough
def test_shared_variables_and_bound_modules():
    model, reference = Pair(), Pair()
    call = liftnn.shard_map(model, mesh=AUTO, in_specs=P("x"), out_specs=P("x"))
    x = jnp.arange(24.0).reshape(8, 3)
    np.testing.assert_allclose(call(x), reference(x))
    assert_same(model, reference)


def test_keyword_arguments_are_replicated():
    call = liftnn.shard_map(step, mesh=AUTO, in_specs=(P(),), out_specs=P())
    assert call(Affine(2.0), x=jnp.ones(3)).tolist() == [2.0] * 3


def test_data_parallel_training_equals_the_plain_step():
    def loss(model, x, y):
        return jax.lax.pmean(((model(x) - y) ** 2).mean(), "x")

    def train(model, optimizer, x, y, loss):
        value, grads = liftnn.value_and_grad(loss)(model, x, y)
        optimizer.update(model, grads)
        return value

    def run(wrap, loss):
        model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
        optimizer = liftnn.Optimizer(model, optax.adam(0.1))
        step = wrap(lambda *args: train(*args, loss))
        x, y = jnp.arange(32.0).reshape(16, 2) / 32, jnp.ones((16, 3))
        return [float(step(model, optimizer, x, y)) for _ in range(3)], model, optimizer

    specs = {"in_specs": (P(), P(), P("x"), P("x")), "out_specs": P()}
    ours = run(lambda f: liftnn.jit(liftnn.shard_map(f, mesh=AUTO, **specs)), loss)
    plain = run(liftnn.jit, lambda m, x, y: ((m(x) - y) ** 2).mean())
    np.testing.assert_allclose(ours[0], plain[0], rtol=1e-5)
    for path, x in liftnn.state(ours[1]).flat().items():
        np.testing.assert_allclose(x.value, liftnn.state(plain[1]).flat()[path].value, rtol=1e-4, atol=1e-5)
        assert is_placed(x.value, AUTO, P())


@pytest.mark.thorough
def test_it_can_be_differentiated_from_outside():
    model = Affine(2.0, size=8)
    call = liftnn.shard_map(
        lambda m, x: jax.lax.psum((m.w * x).sum(), "x"), mesh=AUTO, in_specs=(BY_NAME, P("x")), out_specs=P()
    )
    assert liftnn.grad(call)(model, X)["w"].value.tolist() == X.tolist()


@pytest.mark.thorough
def test_shards_draw_the_numbers_that_elements_of_a_vmap_draw():
    def noise(rngs, x):
        return x + jax.random.normal(rngs.dropout(), (1,))

    rngs, reference = liftnn.Rngs(0), liftnn.Rngs(0)
    y = liftnn.shard_map(noise, mesh=AUTO, in_specs=(P(), P("x")), out_specs=P("x"))(rngs, X)
    expected = liftnn.vmap(noise, in_axes=(None, 0))(reference, X[:, None])[:, 0]
    np.testing.assert_array_equal(y, expected)
    assert len({*y.tolist()}) == 8
    assert_same(rngs, reference)


@pytest.mark.thorough
@pytest.mark.parametrize("split", ["data", pytest.param(("data",), marks=pytest.mark.thorough)])
def test_shards_draw_the_same_numbers_along_the_other_axes(split):
    def noise(rngs):
        return jax.random.normal(rngs(), (1, 1)) + jax.lax.pcast(0.0, ("data", "model"), to="varying")

    call = liftnn.shard_map(noise, mesh=GRID, in_specs=(P(),), out_specs=P("data", "model"), split_rngs=split)
    y = np.asarray(call(liftnn.Rngs(0)))
    assert y.shape == (2, 4)
    assert (y == y[:, :1]).all()
    assert y[0, 0] != y[1, 0]


def test_shards_of_a_shard_map_inside_another_draw_what_those_of_one_over_all_axes_draw():
    def noise(rngs):
        return jax.random.normal(rngs(), (1, 1))

    def rows(rngs):
        axes = ("data", "model")
        return liftnn.shard_map(
            noise, in_specs=P(), out_specs=P("data"), axis_names={"data"}, split_rngs=axes, check_vma=False
        )(rngs)

    whole = liftnn.shard_map(noise, mesh=GRID, in_specs=P(), out_specs=P("data", "model"))
    with jax.set_mesh(GRID):
        nested = liftnn.jit(
            liftnn.shard_map(
                rows,
                in_specs=P(),
                out_specs=P(None, "model"),
                axis_names={"model"},
                split_rngs=False,
                check_vma=False,
            )
        )
        y = nested(liftnn.Rngs(0))
    assert len({*y.ravel().tolist()}) == 8
    np.testing.assert_array_equal(y, whole(liftnn.Rngs(0)))


@pytest.mark.thorough
def test_keys_are_not_split_if_told_so():
    call = liftnn.shard_map(
        lambda rngs: jax.random.normal(rngs()), mesh=AUTO, in_specs=(P(),), out_specs=P(), split_rngs=False
    )
    assert float(call(liftnn.Rngs(0))) == float(jax.random.normal(liftnn.Rngs(0)()))


def test_specs_are_taken_from_explicit_shardings():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    w = jax.device_put(X, NamedSharding(mesh, P("x")))
    model = Holder(w=liftnn.Param(w), b=liftnn.Param(jax.device_put(jnp.zeros(3), NamedSharding(mesh, P()))))

    def f(model, x):
        model.w.value = model.w * x
        return model.w.value + model.b[0]

    with jax.set_mesh(mesh):
        y = liftnn.jit(liftnn.shard_map(f, out_specs=P("x")))(model, w)
    assert y.tolist() == model.w.value.tolist() == (X * X).tolist()
    assert is_placed(model.w.value, mesh, P("x"))


def test_the_mesh_can_be_that_of_the_context():
    with jax.set_mesh(AUTO):
        y = liftnn.jit(liftnn.shard_map(step, in_specs=(P(), P("x")), out_specs=P("x")))(
            Affine(2.0, size=1), X
        )
    assert y.tolist() == (2 * X).tolist()


def test_a_replicated_write_that_is_not_checked_takes_one_shard():
    def f(model, x):
        model.calls.value = x[0]

    model = Affine()
    liftnn.shard_map(f, mesh=AUTO, in_specs=(P(), P("x")), out_specs=P(), check_vma=False)(model, X)
    assert float(model.calls.value) in X.tolist()


def test_an_exception_leaves_the_module_as_it_was():
    def f(model, x):
        model.w.value = model.w * 2
        raise ValueError("half way")

    model = Affine(1.0)
    with pytest.raises(ValueError, match="half way"):
        liftnn.shard_map(f, mesh=AUTO, in_specs=(P(), P("x")), out_specs=P())(model, X)
    assert_same(model, Affine(1.0))


def test_what_is_read_through_a_closure_is_not_stale():
    model = Affine(1.0, size=1)
    call = liftnn.shard_map(lambda x: x * model.w.value, mesh=AUTO, in_specs=P("x"), out_specs=P("x"))
    assert call(X).tolist() == X.tolist()
    model.w.value = jnp.full(1, 3.0)
    assert call(X).tolist() == (3 * X).tolist()


def test_in_specs_place_what_is_only_read():
    layer = liftnn.Linear(4, 8, rngs=liftnn.Rngs(0))
    specs = liftnn.StateSharding({liftnn.PathContains("kernel"): P(None, "model"), ...: P()})
    shapes = []

    def read(layer, x):
        shapes.append(layer.kernel.shape)
        return x @ layer.kernel

    before = jnp.array(layer.kernel)
    call = liftnn.shard_map(read, mesh=GRID, in_specs=(specs, P()), out_specs=P(None, "model"))
    y = call(layer, jnp.ones((3, 4)))
    assert layer.kernel.value.sharding == NamedSharding(GRID, P(None, "model"))
    assert layer.bias.value.sharding == NamedSharding(GRID, P())
    assert shapes[0] == (4, 8 // GRID.shape["model"])
    np.testing.assert_array_equal(layer.kernel.value, before)
    np.testing.assert_allclose(y, jnp.ones((3, 4)) @ before, rtol=1e-5)


def test_in_specs_leave_a_module_where_it_is_if_the_call_fails():
    layer = liftnn.Linear(4, 8, rngs=liftnn.Rngs(0))
    before = layer.kernel.value.sharding

    def fail(layer):
        raise KeyError("no")

    with pytest.raises(KeyError, match="no"):
        liftnn.shard_map(fail, mesh=GRID, in_specs=P(None), out_specs=P())(layer)
    assert layer.kernel.value.sharding == before
