"""What a program made by `jit` takes and returns, and that JAX's own switches act on it."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder, Pair, step


def written(function, *args):
    """How many arrays the compiled program returns."""
    return len(liftnn.jit(function).trace(*args).jaxpr.outvars)


def test_what_is_not_written_keeps_its_array_and_is_no_output():
    model = Affine()
    w = model.w.value
    liftnn.jit(step)(model, 2.0)
    assert model.w.value is w
    assert written(step, model, 2.0) == 2  # the output and `calls`


def test_only_what_was_written_is_an_output():
    def write(count):
        def f(models):
            for m in models[:count]:
                m.w.value = m.w * 2

        return f

    models = [Affine() for _ in range(4)]
    assert [written(write(n), models) for n in range(5)] == [0, 1, 2, 3, 4]


def test_a_value_written_back_is_no_output():
    def same(model):
        model.w.value = model.w.value

    assert written(same, Affine()) == 0


def test_a_shared_variable_is_one_input_and_one_output():
    def double(model):
        model.second.w.value = model.first.w * 2

    jaxpr = liftnn.jit(double, keep_unused=True).trace(Pair()).jaxpr
    assert (len(jaxpr.invars), len(jaxpr.outvars)) == (5, 1)


def test_static_values_and_structure_are_no_arrays():
    model = Holder(a=1, b="text", c=[2.5, None], d={"e": (1, 2)}, w=liftnn.Param(jnp.ones(2)))
    assert len(liftnn.jit(lambda m: m.w * m.a, keep_unused=True).trace(model).jaxpr.invars) == 1


VALUES = {
    "float32": lambda: jnp.arange(3.0),
    "bfloat16": lambda: jnp.arange(3.0, dtype=jnp.bfloat16),
    "float8": lambda: jnp.arange(3.0).astype(jnp.float8_e4m3fn),
    "int8": lambda: jnp.arange(3, dtype=jnp.int8),
    "bool": lambda: jnp.array([True, False]),
    "complex": lambda: jnp.array([1 + 2j]),
    "scalar": lambda: jnp.float32(3.0),
    "size zero": lambda: jnp.zeros((0, 3)),
    "typed key": lambda: jax.random.key(3),
    "typed keys": lambda: jax.random.split(jax.random.key(3), 4),
    "raw key": lambda: jax.random.PRNGKey(3),
    "another generator's key": lambda: jax.random.key(3, impl="rbg"),
    "weak": lambda: jnp.asarray(2.0),
    "numpy": lambda: np.arange(3.0, dtype=np.float32),
    "pytree": lambda: {"a": jnp.ones(2), "b": (jnp.zeros(1), [jnp.ones(())])},
    "pytree with None": lambda: (None, jnp.ones(2)),
    "pytree with text": lambda: {"name": "text", "x": jnp.ones(2)},
    "text": lambda: "text",
    "empty": lambda: liftnn.Empty,
    "nothing": lambda: None,
    "no leaves": lambda: (),
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", VALUES)
def test_values_of_every_kind_go_in_and_come_out(name):
    def swap(model):
        model.a.value, model.b.value = model.b.value, model.a.value
        return model.a.value

    model = Holder(a=liftnn.Variable(jnp.ones(2)), b=liftnn.Variable(VALUES[name]()))
    reference = liftnn.clone(model)
    call = liftnn.jit(swap)
    for _ in range(3):
        assert_same(call(model), swap(reference))
    a, b = jax.tree.leaves(model.a.value), jax.tree.leaves(reference.a.value)
    assert [getattr(x, "dtype", None) for x in a] == [getattr(x, "dtype", None) for x in b]


def test_numbers_in_variables_and_attributes():
    model = Holder(v=liftnn.Variable(2.0), n=liftnn.Variable(3), x=0.5)
    assert float(liftnn.jit(lambda m: m.v * m.n * m.x)(model)) == 3.0
    assert (model.v.value, model.n.value) == (2.0, 3)


def test_a_module_without_variables_can_be_changed():
    def note(module, x):
        module.note = "seen"
        return x

    empty = liftnn.Module()
    assert float(liftnn.jit(note)(empty, 1.0)) == 1.0
    assert empty.note == "seen"


@pytest.mark.parametrize("start", [1.0, jnp.ones(()), np.float32(1)], ids=["number", "weak", "strong"])
@pytest.mark.parametrize("factor", [2.0, np.float32(2)], ids=["weak", "strong"])
def test_weak_types_settle_after_one_more_trace(start, factor):
    def double(m):
        m.v.value = m.v * factor

    model, call = Holder(v=liftnn.Variable(start)), liftnn.jit(double)
    for _ in range(4):
        call(model)
    assert float(model.v.value) == 16.0
    assert call.n_traces <= 2


def test_numpy_arrays_changed_in_place_are_seen():
    model = Holder(v=liftnn.Variable(np.ones(2)), x=np.ones(2))
    call = liftnn.jit(lambda m: m.v + m.x)
    assert call(model).tolist() == [2.0, 2.0]
    model.v.value[0], model.x[1] = 5.0, 7.0
    assert call(model).tolist() == [6.0, 8.0]
    assert call.n_traces == 1


def test_disable_jit_runs_the_function_in_python():
    def positive(model, x):
        return model(x) if x > 0 else None  # fails when compiled

    model, reference = Affine(2.0), Affine(2.0)
    with jax.disable_jit():
        assert_same(liftnn.jit(positive)(model, 3.0), positive(reference, 3.0))
    assert_same(model, reference)


def test_debug_nans_finds_the_line(capfd):
    def divide(model, x):
        model.calls.value = model.calls + 1
        return x / model.b[0] * 0.0

    model = Affine()
    for jit, args in ((liftnn.jit, (divide, model)), (jax.jit, (lambda b, x: x / b * 0.0, jnp.zeros(())))):
        with jax.debug_nans(True), pytest.raises(FloatingPointError, match="invalid value"):
            jit(args[0])(args[1], 0.0)
    assert int(model.calls.value) == 0


def test_nothing_leaks_under_checking_leaks():
    model = Affine()
    with jax.checking_leaks():
        liftnn.jit(step)(model, 1.0)
        liftnn.jit(lambda m: Holder(inner=m, new=Affine()))(model)
    assert not has_tracer(model)


def test_a_change_of_precision_retraces_as_under_jax_jit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Holder(v=liftnn.Variable(2))
        ours, theirs = liftnn.jit(lambda m: m.v * 1.5), jax.jit(lambda v: v * 1.5)
        for on in (False, True, False):
            with jax.enable_x64(on):
                assert ours(model).dtype == theirs(model.v.value).dtype
    assert ours.n_traces == 2


def test_the_matmul_precision_in_force_is_used():
    call = liftnn.jit(lambda m: m.w @ m.w)
    model = Holder(w=liftnn.Param(jnp.ones((2, 2))))
    with jax.default_matmul_precision("highest"):
        assert "HIGHEST" in call.lower(model).as_text()
    assert "HIGHEST" not in call.lower(model).as_text()


def test_rank_promotion_is_refused_when_jax_is_told_so():
    with jax.numpy_rank_promotion("raise"), pytest.raises(ValueError, match="jax_numpy_rank_promotion"):
        liftnn.jit(step)(Affine(), jnp.ones((2, 3)))


def test_callbacks_run(capfd):
    def announce(model, x):
        jax.debug.print("w is {w}", w=model.w[0])
        return model(x)

    call = liftnn.jit(announce)
    for _ in range(2):
        call(Affine(2.0), 1.0)
    jax.effects_barrier()
    assert capfd.readouterr().out == "w is 2.0\nw is 2.0\n"


def test_a_jitted_function_may_call_itself():
    @liftnn.jit(static_argnums=1)
    def repeat(model, n):
        return model(1.0) if n == 0 else repeat(model, n - 1)

    model = Affine(2.0)
    assert repeat(model, 3).tolist() == [2.0, 2.0, 2.0]
    assert int(model.calls.value) == 1


def test_modules_made_under_raw_jax_transforms_can_be_passed_on():
    def made_inside(x):
        model = Affine(2.0)
        return liftnn.jit(step)(model, x).sum() + model.calls.value

    for transform in (jax.jit, jax.grad, liftnn.jit, lambda f: f):
        transform(made_inside)(3.0)
    assert float(jax.jit(made_inside)(3.0)) == 19.0
    assert float(jax.grad(made_inside)(3.0)) == 6.0


def test_n_traces_counts_and_clear_cache_forgets():
    call = liftnn.jit(step)
    assert call.n_traces == 0
    for _ in range(2):
        call(Affine(), 1.0)
    assert call.n_traces == 1
    call.clear_cache()
    model = Affine()
    for _ in range(2):
        call(model, 1.0)
    assert call.n_traces == 2
    assert int(model.calls.value) == 2


def test_clear_cache_lets_a_changed_global_be_seen():
    global FACTOR
    call = liftnn.jit(lambda m: m.w * FACTOR)
    model, FACTOR = Affine(), 2.0
    assert call(model).tolist() == [2.0] * 3
    FACTOR = 3.0
    call.clear_cache()
    assert call(model).tolist() == [3.0] * 3


FACTOR = 1.0
