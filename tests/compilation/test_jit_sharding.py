"""Shardings given to `jit`: for a module one for all it reaches, or by filter; numbers stay those of one device."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import liftnn
from liftnn import errors
from tests.raising import raises
from tests.same import assert_same
from tests.user_modules import Affine, Holder, step

MESH = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
ROWS, WHOLE = NamedSharding(MESH, PartitionSpec("x")), NamedSharding(MESH, PartitionSpec())
BY_NAME = liftnn.StateSharding({liftnn.PathContains("w"): ROWS, ...: WHOLE})


def is_placed(x, sharding):
    return x.sharding.is_equivalent_to(sharding, x.ndim)


def double(model):
    model.w.value = model.w * 2
    model.b.value = model.b + 1


def test_what_is_written_has_the_sharding_of_its_variable():
    model, reference = Affine(size=8), Affine(size=8)
    call = liftnn.jit(double, in_shardings=(BY_NAME,))
    for _ in range(2):
        call(model)
        double(reference)
    assert_same(model, reference)
    assert is_placed(model.w.value, ROWS)
    assert is_placed(model.b.value, WHOLE)


def test_one_sharding_holds_for_all_that_a_module_reaches():
    model = Holder(w=liftnn.Param(jnp.zeros(8)), b=liftnn.Param(jnp.zeros(4)))
    liftnn.jit(double, in_shardings=ROWS)(model)
    assert is_placed(model.w.value, ROWS)
    assert is_placed(model.b.value, ROWS)


def test_a_module_can_be_made_sharded():
    model = liftnn.jit(Affine, static_argnames="size", out_shardings=BY_NAME)(2.0, size=8)
    assert is_placed(model.w.value, ROWS)
    assert is_placed(model.b.value, WHOLE)
    assert_same(model, Affine(2.0, size=8))


def test_outputs_have_their_shardings():
    call = liftnn.jit(
        lambda m, x: {"rows": m(x), "whole": [m.b + x]}, out_shardings={"rows": ROWS, "whole": WHOLE}
    )
    out = call(Affine(2.0, size=8), 3.0)
    assert is_placed(out["rows"], ROWS)
    assert is_placed(out["whole"][0], WHOLE)


def test_arrays_stay_where_they_are_placed_when_nothing_is_said():
    model = Affine(size=8)
    model.w.value = jax.device_put(model.w.value, ROWS)
    assert is_placed(liftnn.jit(lambda m: m.w * 2)(model), ROWS)


def test_what_is_attached_has_the_sharding_of_the_module():
    def grow(model):
        model.new = Holder(v=liftnn.Param(jnp.zeros(8)), array=jnp.zeros(4))

    model = Holder(w=liftnn.Param(jnp.zeros(8)))
    liftnn.jit(grow, in_shardings=ROWS)(model)
    assert is_placed(model.new.v.value, ROWS)
    assert is_placed(model.new.array, ROWS)


def test_static_arguments_have_no_entry_as_in_jax_jit():
    ours = liftnn.jit(
        lambda k, m, x: m(x) * k, static_argnums=0, in_shardings=(BY_NAME, WHOLE), out_shardings=ROWS
    )
    theirs = jax.jit(
        lambda k, w, x: w * x * k, static_argnums=0, in_shardings=(ROWS, WHOLE), out_shardings=ROWS
    )
    model = Affine(3.0, size=8)
    assert is_placed(ours(2, model, 2.0), ROWS)
    assert ours(2, model, 2.0).tolist() == theirs(2, model.w.value, 2.0).tolist()


@pytest.mark.parametrize("out", [None, (None, ROWS), (BY_NAME, ROWS)])
def test_a_sharded_module_can_be_returned(out):
    model = Affine(2.0, size=8)
    returned, y = liftnn.jit(lambda m: (m, m.w * 2), in_shardings=(BY_NAME,), out_shardings=out)(model)
    assert returned is model
    assert is_placed(y, ROWS)


def test_a_bound_module_is_argument_0():
    model = Affine(2.0, size=8)
    y = liftnn.jit(model, in_shardings=(BY_NAME, WHOLE), out_shardings=ROWS)(3.0)
    assert is_placed(y, ROWS)
    assert is_placed(model.calls.value, WHOLE)


def test_a_keyword_argument_takes_the_sharding_of_its_position():
    y = liftnn.jit(step, in_shardings=(BY_NAME,))(Affine(2.0, size=8), x=3.0)
    assert y.tolist() == [6.0] * 8
    shardings = []

    def placed(model, x):
        jax.debug.inspect_array_sharding(x, callback=shardings.append)
        return model.w * x

    call = liftnn.jit(placed, in_shardings=(WHOLE, ROWS))
    for given in (jnp.arange(8.0), jax.device_put(jnp.arange(8.0), ROWS)):
        assert_same(call(Affine(2.0, size=8), x=given), 2.0 * jnp.arange(8.0))
    assert shardings
    assert all(s.is_equivalent_to(ROWS, 1) for s in shardings)
    assert is_placed(liftnn.jit(lambda *, x: x * 1, in_shardings=ROWS)(x=jnp.arange(8.0)), ROWS)


def test_a_compiled_stage_has_the_shardings():
    model = Affine(2.0, size=8)
    compiled = liftnn.jit(step, in_shardings=(BY_NAME, WHOLE), out_shardings=ROWS).lower(model, 1.0).compile()
    for _ in range(2):
        assert is_placed(compiled(model, 3.0), ROWS)
    assert int(model.calls.value) == 2


@pytest.mark.thorough
@pytest.mark.parametrize("optimizer_first", [False, True])
def test_a_donated_sharded_training_step_equals_the_one_on_one_device(optimizer_first):
    def train(*args):
        optimizer, model, x = args if optimizer_first else (args[1], args[0], args[2])
        loss, grads = liftnn.value_and_grad(lambda m: m.loss(x))(model)
        optimizer.update(model, grads)
        return loss

    def run(jit):
        model = Affine(2.0, size=8)
        optimizer = liftnn.Optimizer(model, optax.adam(0.1))
        args = (optimizer, model) if optimizer_first else (model, optimizer)
        losses = [float(jit(*args, 2.0)) for _ in range(3)]
        return model, optimizer, losses

    in_shardings = (None, BY_NAME, None) if optimizer_first else (BY_NAME, None, None)
    sharded = run(liftnn.jit(train, in_shardings=in_shardings, donate_argnums=(0, 1)))
    assert is_placed(sharded[0].w.value, ROWS)
    assert_same(sharded[:2], run(train)[:2])
    assert sharded[2] == pytest.approx(run(train)[2])


def test_donate_written_donates_sharded_variables():
    model = Affine(2.0, size=8)
    call = liftnn.jit(double, in_shardings=(BY_NAME,), donate_written=True)
    for _ in range(3):
        old = model.w.value, model.calls.value
        call(model)
    assert (old[0].is_deleted(), old[1].is_deleted()) == (True, False)
    assert is_placed(model.w.value, ROWS)
    assert model.w.value.tolist() == [16.0] * 8


def test_in_shardings_that_do_not_fit_are_an_error():
    with raises(
        errors.ArgumentError,
        "(None,) is not a tree prefix of the positional arguments that are not static: (*, *).\n"
        "Give one entry for the whole tree, or one for each subtree. A module counts as one leaf; use StateAxes "
        "(or StateSharding) to give its Variables different entries.",
    ):
        liftnn.jit(step, in_shardings=(None,))(Affine(), 1.0)


def test_one_variable_with_two_shardings_is_an_error():
    model = Affine(size=8)
    with raises(
        errors.AliasingError,
        f"args[0].w and args[1].w are the same Param, but they have different prefixes: {ROWS!r} and {WHOLE!r}.\n"
        "Use the same prefix for both, or pass `liftnn.clone(module)` for one of them.",
    ):
        liftnn.jit(lambda a, b: a.w + b.w, in_shardings=(BY_NAME, WHOLE))(model, model)


@pytest.mark.parametrize("shardings", [(BY_NAME, None), (None, BY_NAME)])
def test_none_leaves_a_variable_where_the_sharding_of_another_argument_places_it(shardings):
    model, reference = Affine(size=8), Affine(size=8)

    def add(a, b):
        a.w.value = a.w + b.w
        return (a.w * b.b).sum()

    for _ in range(2):
        out = liftnn.jit(add, in_shardings=shardings)(model, model)
        assert out == add(reference, reference)
    assert_same(model, reference)
    assert is_placed(model.w.value, ROWS)
    assert is_placed(model.b.value, WHOLE)


def test_a_module_that_is_captured_and_passed_is_placed_as_the_argument():
    model, reference = Affine(size=8), Affine(size=8)

    def train(model, captured):
        model.w.value = model.w + captured.w
        return captured.w.sum()

    call = liftnn.jit(lambda m: train(m, model), in_shardings=(BY_NAME,))
    for _ in range(2):
        assert call(model) == train(reference, reference)
    assert_same(model, reference)
    assert is_placed(model.w.value, ROWS)
    assert call.n_traces == 1


def test_a_variable_that_no_filter_matches_is_an_error():
    sharding = liftnn.StateSharding({liftnn.PathContains("w"): ROWS})
    with raises(
        errors.FilterError,
        "args[0].b (a Param) matches none of the filters of the StateSharding.\n"
        "Add `...` as the last filter to match the remaining Variables, or change a filter to match them.",
    ):
        liftnn.jit(double, in_shardings=(sharding,))(Affine(size=8))


SCRIPT = """
    import os
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    import jax, jax.numpy as jnp, liftnn
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    grid, rows = NamedSharding(mesh, P("a", "b")), NamedSharding(mesh, P("a"))
    def make():
        return liftnn.Linear(4, 8, rngs=liftnn.Rngs(0))
    by_name = liftnn.StateSharding({liftnn.PathContains("kernel"): grid, ...: NamedSharding(mesh, P("b"))})
    model = liftnn.jit(make, out_shardings=by_name)()
    assert len(model.kernel.value.devices()) == 8 and model.kernel.value.sharding.shard_shape((4, 8)) == (2, 2)
    def step(model, x):
        grads = liftnn.grad(lambda m: (m(x) ** 2).sum())(model)
        model.kernel.value = model.kernel - 0.1 * grads["kernel"]
        return model(x)
    x = jnp.arange(8.0).reshape(2, 4)
    y = liftnn.jit(step, in_shardings=(by_name, rows), out_shardings=rows, donate_argnums=0)(model, x)
    assert y.sharding.is_equivalent_to(rows, 2) and model.kernel.value.sharding.is_equivalent_to(grid, 2)
    plain = make()
    assert jnp.allclose(y, step(plain, x), atol=1e-4)
    assert jnp.allclose(model.kernel.value, plain.kernel.value, atol=1e-5)
    print("done")
"""


@pytest.mark.thorough
def test_eight_devices_in_a_grid_give_the_numbers_of_one():
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT)],
        env=env,
        capture_output=True,
        text=True,
    )
    assert (out.returncode, out.stdout) == (0, "done\n"), out.stderr
