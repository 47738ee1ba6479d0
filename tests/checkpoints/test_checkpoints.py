"""`save`, `restore` and `Checkpoints`: what was saved is what is restored, in place, or nothing is changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from tests.raising import raises
from tests.user_modules import Affine, Holder, Pair

import liftnn

Param = liftnn.Param


def values_of(module):
    """The values of a module by path, as numpy arrays where they are arrays."""
    flat = liftnn.state(module).flat()
    return {path: as_numpy(x.value if isinstance(x, liftnn.Variable) else x) for path, x in flat.items()}


def as_numpy(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def assert_same(one, other):
    a, b = values_of(one), values_of(other)
    assert list(a) == list(b)
    for path in a:
        assert a[path].dtype == b[path].dtype
        assert a[path].tobytes() == b[path].tobytes()


def train(model, optimizer, rngs, steps):
    @liftnn.jit
    def step(model, optimizer, rngs):
        x = rngs.normal((4, 3))
        grads = liftnn.grad(lambda m: (m(x) ** 2).sum())(model)
        optimizer.update(model, grads)

    for _ in range(steps):
        step(model, optimizer, rngs)


def run_of(seed):
    """A model, an Optimizer and an Rngs."""
    rngs = liftnn.Rngs(seed, noise=seed + 1)
    model = liftnn.Sequential(
        liftnn.Linear(3, 4, rngs=rngs), liftnn.BatchNorm(4, rngs=rngs), liftnn.Linear(4, 2, rngs=rngs)
    )
    return model, liftnn.Optimizer(model, optax.adam(0.1), wrt=Param), rngs


def test_a_run_that_is_resumed_equals_one_that_is_not(tmp_path):
    whole = run_of(0)
    train(*whole, 7)

    first, second = run_of(0), run_of(5)
    train(*first, 4)
    liftnn.save(tmp_path, 4, *first)
    liftnn.restore(tmp_path, *second)
    train(*second, 3)

    for one, other in zip(whole, second, strict=True):
        assert_same(one, other)


def test_restore_fills_the_objects_in_place(tmp_path):
    model = Affine(2.0)
    liftnn.save(tmp_path, 1, model)
    other = Affine(5.0)
    variable = other.w
    liftnn.restore(tmp_path, other)
    assert other.w is variable
    np.testing.assert_array_equal(variable.value, model.w.value)


@pytest.mark.sample(24)
@pytest.mark.parametrize(
    "dtype",
    [
        "float8_e4m3fn", "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "bfloat16",
        "float32", "complex64", "int4", "uint4", "int2", "uint2", "float8_e5m2", "float8_e4m3b11fnuz",
        "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e3m4", "float8_e4m3", "float8_e8m0fnu", "float4_e2m1fn",
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 2)])
def test_every_dtype_is_restored_bit_for_bit(tmp_path, dtype, shape):
    bits = np.random.default_rng(0).integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    x = np.zeros(shape, dtype)
    if dtype == "bool" or np.dtype(dtype).name.startswith(("int2", "int4", "uint2", "uint4", "float4")):
        x = (bits[..., 0] % 2).astype(np.float32).astype(dtype)
    elif x.size:
        x = bits.view(dtype)[..., 0]
    model = Holder(a=Param(jnp.asarray(x)), b=np.array(x))
    expected = np.asarray(model.a.value).tobytes(), model.b.tobytes()
    liftnn.save(tmp_path, 1, model)
    other = Holder(a=Param(jnp.zeros(shape, dtype)), b=np.zeros(shape, dtype))
    liftnn.restore(tmp_path, other)
    assert (other.a.value.dtype, other.a.value.shape) == (x.dtype, shape)
    assert (np.asarray(other.a.value).tobytes(), other.b.tobytes()) == expected
    assert isinstance(other.a.value, jax.Array)
    assert isinstance(other.b, np.ndarray)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("shape", [(), (3,), (0,)])
@pytest.mark.sample(10)
def test_typed_keys_are_restored(tmp_path, impl, shape):
    keys = jax.random.split(jax.random.key(3, impl=impl), shape) if shape else jax.random.key(3, impl=impl)
    liftnn.save(tmp_path, 1, Holder(k=liftnn.Variable(keys)), values={"key": keys})
    other = Holder(k=liftnn.Variable(jax.random.split(jax.random.key(0, impl=impl), shape)))
    found = liftnn.restore(tmp_path, other)
    for restored in (other.k.value, found.values["key"]):
        assert restored.dtype == keys.dtype
        assert (jax.random.key_data(restored) == jax.random.key_data(keys)).all()


def test_lists_past_ten_stay_in_order_and_integer_and_string_keys_apart(tmp_path):
    def make(start):
        layers = [Param(jnp.full((), start + i, jnp.float32)) for i in range(12)]
        names = {
            1: Param(jnp.float32(start + 20)),
            "1": Param(jnp.float32(start + 21)),
            "a.b/c": Param(jnp.float32(start)),
        }
        return Holder(layers=layers, names=names)

    liftnn.save(tmp_path, 1, make(100))
    other = make(0)
    liftnn.restore(tmp_path, other)
    assert_same(other, make(100))


def test_what_is_shared_is_stored_once_and_restored_shared(tmp_path):
    model = Pair()
    model.first.w.value = jnp.arange(3.0)
    again = Holder(a=model, b=model.second)
    liftnn.save(tmp_path, 1, model, again)
    names = json.loads((tmp_path / "1" / "state" / "_METADATA").read_text())["tree_metadata"]
    assert len(names) == len(liftnn.state(model).flat())

    other = Pair()
    liftnn.restore(tmp_path, other, Holder(a=other, b=other.second))
    assert other.first.w is other.second.w
    assert_same(other, model)


def test_a_shared_variable_is_found_whatever_its_first_path_is(tmp_path):
    one = Param(jnp.ones(2))
    liftnn.save(tmp_path, 1, Holder(a=one, b=one))
    two = Param(jnp.zeros(2))
    liftnn.restore(tmp_path, Holder(b=two, a=two))
    assert two.value.tolist() == [1, 1]


def test_a_shared_module_is_found_whatever_its_first_path_is(tmp_path):
    one = Affine(3.0)
    liftnn.save(tmp_path, 1, Holder(a=one, b=[one]))
    two = Affine(0.0)
    liftnn.restore(tmp_path, Holder(b=[two], a=two))
    assert_same(one, two)


def test_empty_values_trees_and_numbers(tmp_path):
    def make(x):
        return Holder(
            empty=liftnn.Variable(liftnn.Empty),
            tree=liftnn.Variable({"a": jnp.full(2, x), "b": [np.full(2, x), "text", x], "c": None}),
            number=liftnn.Variable(x),
            scalar=liftnn.Variable(np.float16(x)),
            none=Holder(),
        )

    liftnn.save(tmp_path, 1, make(2.5))
    other = make(0.5)
    liftnn.restore(tmp_path, other)
    assert other.empty.value is liftnn.Empty
    tree = other.tree.raw_value
    assert (tree["a"].tolist(), tree["b"][0].tolist(), tree["b"][1:], tree["c"]) == (
        [2.5] * 2,
        [2.5] * 2,
        ["text", 2.5],
        None,
    )
    assert isinstance(tree["b"][0], np.ndarray)
    assert (other.number.raw_value, type(other.number.raw_value)) == (2.5, float)
    assert (other.scalar.raw_value, type(other.scalar.raw_value)) == (2.5, np.float16)


def test_values_come_back_as_they_were(tmp_path):
    generator = np.random.default_rng(3)
    values = {
        "epoch": 3, "loss": 0.1, "nan": float("nan"), "inf": -float("inf"), "z": 1 + 2j, "name": "ä", "raw": b"\0\xff",
        "none": None, "flag": True, "nested": {"list": [1, (2, 3)], 4: "four", "4": "text", "is": "tuple"},
        "order": generator.bit_generator.state, "losses": np.arange(3.0), "array": jnp.ones(2, jnp.bfloat16),
        "scalar": np.int64(7), "empty": np.zeros((0, 2), np.int16),
    }  # fmt: skip
    liftnn.save(tmp_path, 1, Affine(), values=values, metrics={"loss": jnp.float32(0.5)})
    found = liftnn.restore(tmp_path, Affine())
    assert (found.step, found.metrics) == (1, {"loss": 0.5})
    assert list(found.values) == list(values)
    for name, x in values.items():
        assert type(found.values[name]) is type(x) or isinstance(x, jax.Array)
        if hasattr(x, "dtype"):
            assert (found.values[name].dtype, found.values[name].shape) == (x.dtype, x.shape)
            assert np.asarray(found.values[name]).tobytes() == np.asarray(x).tobytes()
        elif x == x:
            assert found.values[name] == x
    assert isinstance(found.values["array"], jax.Array)
    restored = np.random.default_rng(0)
    restored.bit_generator.state = found.values["order"]
    assert (restored.permutation(9) == generator.permutation(9)).all()


@pytest.mark.thorough
@pytest.mark.parametrize("save_on, restore_on", [(8, 2), (2, 8), (8, 1)])
def test_arrays_get_the_sharding_of_those_that_they_replace(tmp_path, save_on, restore_on):
    def make(n, x):
        mesh = jax.make_mesh((n,), ("d",), devices=jax.devices()[:n])
        rows = jax.NamedSharding(mesh, jax.P("d"))
        keys = jax.random.split(jax.random.key(x), 8)
        return Holder(
            w=Param(jax.device_put(jnp.arange(32.0).reshape(16, 2) + x, rows)),
            small=Param(jax.device_put(jnp.full(8, x, jnp.float8_e4m3fn), rows)),
            k=liftnn.Variable(jax.device_put(keys, rows)),
        )

    liftnn.save(tmp_path, 1, make(save_on, 1))
    other = make(restore_on, 0)
    shardings = [x.sharding for x in jax.tree.leaves(other)]
    abstract = liftnn.eval_shape(lambda: make(restore_on, 0))
    for name in ("w", "small", "k"):
        old = getattr(other, name).value
        getattr(abstract, name).value = jax.ShapeDtypeStruct(old.shape, old.dtype, sharding=old.sharding)
    liftnn.restore(tmp_path, other)
    liftnn.restore(tmp_path, abstract)
    expected = make(restore_on, 1)
    for restored in (other, abstract):
        assert [x.sharding for x in jax.tree.leaves(restored)] == shardings
        for one, two in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
            assert (one == two).all()


@pytest.mark.thorough
def test_an_abstract_model_is_filled(tmp_path):
    model, optimizer, rngs = run_of(3)
    train(model, optimizer, rngs, 1)
    liftnn.save(tmp_path, 1, model, optimizer, rngs)
    abstract = liftnn.eval_shape(lambda: run_of(0))
    liftnn.restore(tmp_path, *abstract)
    for one, two in zip((model, optimizer, rngs), abstract, strict=True):
        assert_same(one, two)
    train(model, optimizer, rngs, 1)
    train(*abstract, 1)
    assert_same(model, abstract[0])


def test_an_array_that_is_not_committed_stays_so_and_a_weak_type_stays_weak(tmp_path):
    def make(x):
        return Holder(
            a=Param(jnp.ones(2) * x), w=Param(jnp.asarray(float(x))), v=Param(jnp.full(3, float(x)))
        )

    liftnn.save(tmp_path, 1, make(2))
    other = make(3)
    liftnn.restore(tmp_path, other)
    assert [x.value.committed for x in (other.a, other.w, other.v)] == [False] * 3
    assert [x.value.weak_type for x in (other.a, other.w, other.v)] == [False, True, True]
    assert [x.value.tolist() for x in (other.a, other.w, other.v)] == [[2, 2], 2, [2, 2, 2]]


def test_a_compiled_function_is_not_traced_again_after_restore(tmp_path):
    model, optimizer, rngs = run_of(0)

    @liftnn.jit
    def step(model, optimizer, rngs):
        optimizer.update(model, liftnn.grad(lambda m: m(rngs.normal((4, 3))).sum())(model))

    step(model, optimizer, rngs)
    liftnn.save(tmp_path, 1, model, optimizer, rngs)
    liftnn.restore(tmp_path, model, optimizer, rngs)
    step(model, optimizer, rngs)
    assert step.n_traces == 1


def test_nothing_changes_when_something_does_not_fit(tmp_path):
    liftnn.save(tmp_path, 1, Affine(2.0), Affine(3.0))
    first, second = Affine(5.0), Affine(6.0, size=4)
    before = values_of([first, second])
    with pytest.raises(liftnn.CheckpointError):
        liftnn.restore(tmp_path, first, second)
    after = values_of([first, second])
    assert all((before[path] == after[path]).all() for path in before)


def test_without_strict_what_fits_is_restored_and_the_rest_reported(tmp_path):
    liftnn.save(tmp_path, 1, Holder(a=Param(jnp.ones(2)), b=Param(jnp.ones(3)), c=Param(jnp.ones(1))))
    other = Holder(a=Param(jnp.zeros(2)), b=Param(jnp.zeros(4)), d=Param(jnp.zeros(())))
    found = liftnn.restore(tmp_path, other, strict=False)
    assert found.missing == ("modules[0].d: float32[] in the module",)
    assert found.unexpected == ("modules[0].c: float32[1] in the checkpoint",)
    assert found.different == ("modules[0].b: float32[3] in the checkpoint, float32[4] in the module",)
    assert (other.a.value.tolist(), other.b.value.tolist(), other.d.value.tolist()) == ([1, 1], [0] * 4, 0)


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64", "complex128"])
def test_arrays_of_64_bits_need_x64_but_for_numpy_arrays(tmp_path, dtype):
    with jax.enable_x64(True):
        model = Holder(w=liftnn.Param(jnp.arange(3).astype(dtype)), b=liftnn.Param(jnp.ones(2, jnp.float32)))
        liftnn.save(tmp_path, 0, model)
        wanted = jax.ShapeDtypeStruct((3,), dtype)
    abstract = Holder(w=liftnn.Param(wanted), b=liftnn.Param(jax.ShapeDtypeStruct((2,), jnp.float32)))
    line = f"modules[0].w: {dtype}[3] in the checkpoint, but jax_enable_x64 is off"
    for target in (abstract, liftnn.clone(model)):
        with pytest.raises(liftnn.CheckpointError, match=re.escape(line)):
            liftnn.restore(tmp_path, target)
    assert liftnn.restore(tmp_path, abstract, strict=False).different == (line,)
    assert abstract.w.raw_value is wanted
    np.testing.assert_array_equal(abstract.b.value, np.ones(2, np.float32))
    plain = Holder(w=liftnn.Param(np.zeros(3, dtype)), b=liftnn.Param(jnp.zeros(2)))
    liftnn.restore(tmp_path, plain)
    np.testing.assert_array_equal(plain.w.raw_value, np.arange(3).astype(dtype), strict=True)
    with jax.enable_x64(True):
        liftnn.restore(tmp_path, abstract)
    assert abstract.w.value.dtype == dtype


def test_an_ellipsis_skips_a_module(tmp_path):
    liftnn.save(tmp_path, 1, Affine(2.0), Affine(3.0))
    model = Affine(0.0)
    liftnn.restore(tmp_path, ..., model)
    assert_same(model, Affine(3.0))


def test_compressed_steps_are_smaller_and_are_read_as_others_are(tmp_path):
    def size(step):
        return sum(file.stat().st_size for file in (tmp_path / step).rglob("*") if file.is_file())

    def make(x):
        return Holder(affine=Affine(x + 2.0), table=liftnn.Param(jnp.full((1000, 1000), x)))

    liftnn.save(tmp_path, 1, make(0.0))
    liftnn.save(tmp_path, 2, make(0.0), compress=True)
    with liftnn.Checkpoints(tmp_path, compress=True) as checkpoints:
        checkpoints.save(3, make(0.0))
    assert max(size("2"), size("3")) < size("1") / 10
    for step in (1, 2, 3):
        other = make(1.0)
        liftnn.restore(tmp_path, other, step=step)
        assert_same(other, make(0.0))


def test_the_latest_are_kept(tmp_path):
    for step in range(5):
        liftnn.save(tmp_path, step, Affine(float(step)), max_to_keep=2)
    assert liftnn.saved_steps(tmp_path) == [3, 4]
    model = Affine()
    assert liftnn.restore(tmp_path, model, step=3).step == 3
    assert_same(model, Affine(3.0))


@pytest.mark.sample(2)
@pytest.mark.parametrize("mode, kept, best", [("max", [1, 2, 5], 2), ("min", [0, 3, 5], 3)])
def test_the_best_are_kept_and_the_latest(tmp_path, mode, kept, best):
    metrics = [0.2, 0.8, 0.9, 0.1, 0.5, 0.4]
    options = {"max_to_keep": 2, "best": "x", "best_mode": mode}
    for part in (metrics[:3], metrics[3:]):  # the second part knows the first one from the folder
        with liftnn.Checkpoints(tmp_path, **options) as checkpoints:
            for x in part:
                step = metrics.index(x)
                checkpoints.save(step, Affine(float(step)), metrics={"x": x})
    assert checkpoints.steps() == kept
    assert checkpoints.best_step() == best


def test_in_a_with_block_the_state_is_that_of_the_call(tmp_path):
    model = Holder(w=Param(jnp.arange(1e6)), n=np.arange(1e6), list=[Param(jnp.ones(3))])
    expected = {path: np.array(x) for path, x in values_of(model).items()}  # `n` is changed in place
    step = liftnn.jit(lambda m: setattr(m.w, "value", m.w * 2), donate_argnums=0)
    with liftnn.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, model)
        step(model)
        model.n += 1
        model.list[0].value = jnp.zeros(3)
        del model.list[0]
    other = Holder(w=Param(jnp.zeros(10**6)), n=np.zeros(10**6), list=[Param(jnp.zeros(3))])
    checkpoints.restore(other)
    found = values_of(other)
    assert all((found[path] == expected[path]).all() for path in expected)


def test_who_reads_the_folder_waits_for_what_is_being_saved(tmp_path):
    with liftnn.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, Affine(2.0))
        assert liftnn.saved_steps(tmp_path) == [1]
        checkpoints.save(2, Affine(3.0))
        model = Affine()
        assert liftnn.restore(tmp_path, model).step == 2
    assert_same(model, Affine(3.0))


def test_the_block_ends_with_complete_checkpoints_whatever_is_raised(tmp_path):
    def fail():
        with liftnn.Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, Affine(2.0))
            raise KeyError("half way")

    with pytest.raises(KeyError):
        fail()
    assert liftnn.saved_steps(tmp_path) == [1]


def test_a_state_can_be_saved_and_restored(tmp_path):
    model = Affine(4.0)
    liftnn.save(tmp_path, 1, liftnn.state(model))
    state = liftnn.state(Affine(0.0))
    liftnn.restore(tmp_path, state)
    assert_same(liftnn.state(model), state)


def test_orbax_takes_a_state_directly(tmp_path):
    state = liftnn.state(run_of(3)[0])
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "x", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "x", liftnn.state(run_of(0)[0]))
    assert_same(restored, state)


def test_modules_without_arrays(tmp_path):
    liftnn.save(tmp_path, 0, Holder(), values={"x": 1})
    liftnn.save(tmp_path, 1)
    assert liftnn.restore(tmp_path, Holder(), step=0).values == {"x": 1}
    assert liftnn.restore(tmp_path).values == {}


def test_metrics_of_a_run_are_saved(tmp_path):
    metrics = liftnn.MultiMetric(loss=liftnn.Average("loss"), accuracy=liftnn.Accuracy())
    metrics.update(loss=jnp.array(2.0), logits=jnp.eye(3), labels=jnp.arange(3))
    liftnn.save(tmp_path, 1, metrics)
    other = liftnn.MultiMetric(loss=liftnn.Average("loss"), accuracy=liftnn.Accuracy())
    liftnn.restore(tmp_path, other)
    assert {k: float(x) for k, x in other.compute().items()} == {"loss": 2.0, "accuracy": 1.0}


SCRIPT = """
import sys, jax.numpy as jnp, liftnn
loaded = [name for name in sys.modules if name.startswith(("orbax", "tensorstore", "liftnn._src.checkpoints."))]
assert loaded == [], loaded
model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
liftnn.save(sys.argv[1], 1, model)
"""


@pytest.mark.thorough
def test_a_script_that_ends_after_save_has_saved_and_the_import_loads_little(tmp_path):
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], check=True, env=os.environ, timeout=120)
    liftnn.restore(tmp_path, liftnn.Linear(2, 3, rngs=liftnn.Rngs(1)))


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_orbax_reads_the_arrays_of_a_checkpoint_without_liftnn(tmp_path):
    liftnn.save(tmp_path, 1, Affine(2.0))
    with ocp.CheckpointManager(tmp_path) as manager:
        arrays = manager.restore(1).state
    assert {name: x.tolist() for name, x in arrays.items()} == {
        "modules[0].w": [2, 2, 2],
        "modules[0].b": [0, 0, 0],
        "modules[0].calls": 0,
    }


@pytest.mark.parametrize(
    "make", [liftnn.Variable, jnp.array, np.array, np.int64, lambda n: liftnn.Variable(jnp.array(n))]
)
def test_a_step_that_has_an_index_is_that_int(tmp_path, make):
    liftnn.save(tmp_path, make(3), Affine(2.0))
    with liftnn.Checkpoints(tmp_path, max_to_keep=3, best="loss") as checkpoints:
        checkpoints.save(make(4), Affine(2.0), metrics={"loss": 1.0})
    assert liftnn.saved_steps(tmp_path) == [3, 4]
    found = liftnn.restore(tmp_path, Affine(0.0), step=make(3))
    assert (found.step, type(found.step)) == (3, int)


@pytest.mark.parametrize(
    "step, what", [(True, "a bool"), (np.array(True), "bool[]"), (np.arange(3), "int64[3]")]
)
def test_a_bool_or_several_numbers_are_not_a_step(tmp_path, step, what):
    text = f"The step is {what}, not a non-negative integer.\nPass an int."
    with raises(liftnn.errors.ArgumentError, text):
        liftnn.save(tmp_path, step, Affine(0.0))
    with raises(liftnn.errors.ArgumentError, text):
        liftnn.restore(tmp_path, Affine(0.0), step=step)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("options", [{}, {"best": "loss"}])
def test_a_save_below_the_latest_step_removes_nothing(tmp_path, options):
    metrics = {"loss": 1.0}
    with liftnn.Checkpoints(tmp_path, max_to_keep=2, **options) as checkpoints:
        checkpoints.save(10, Affine(1.0), metrics=metrics)
        checkpoints.save(20, Affine(2.0), metrics=metrics)
        text = (
            f"The folder {tmp_path} has checkpoints of later steps than 15: 20; with max_to_keep=2 the new one would "
            "be removed before them.\nSave in another folder, remove the later checkpoints, or omit `max_to_keep`."
        )
        with raises(liftnn.errors.CheckpointError, text):
            checkpoints.save(15, Affine(3.0), metrics=metrics)
    assert liftnn.saved_steps(tmp_path) == [10, 20]
    liftnn.save(tmp_path, 15, Affine(3.0))
    assert liftnn.saved_steps(tmp_path) == [10, 15, 20]


def test_a_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    text = f"The folder {tmp_path}/file/runs cannot be written: Not a directory.\nCheck its path and its permissions."
    with raises(liftnn.errors.CheckpointError, text):
        liftnn.save(tmp_path / "file" / "runs", 1, Affine(0.0))


@pytest.mark.parametrize("count, what", [(2.5, "a float"), ("2", "a str"), (True, "a bool")])
def test_max_to_keep_must_be_an_int(tmp_path, count, what):
    text = f"max_to_keep is {what}, not a number; at least one checkpoint must be kept.\n"
    text += "Pass 1 or more, or None to keep all."
    with raises(liftnn.errors.ArgumentError, text):
        liftnn.Checkpoints(tmp_path, max_to_keep=count)
