"""`load_weights`: a module is filled in place with what the file has, or nothing is changed."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

import liftnn
from tests.user_modules import Affine, Holder, Pair

Param = liftnn.Param


@pytest.fixture
def file(tmp_path):
    return str(tmp_path / "model.safetensors")


def bits(x):
    is_key = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x).tobytes()


def loaded(file, saved, module, *rules, **options):
    """Save one module and load another one, which is returned."""
    liftnn.save_weights(file, saved)
    assert not liftnn.load_weights(file, module, list(rules), **options)
    return module


def test_a_file_of_the_safetensors_library_is_read(file):
    numbers = np.random.default_rng(0)
    tensors = {
        "layers.0.kernel": numbers.standard_normal((3, 4), np.float32),
        "layers.0.bias": numbers.standard_normal(4, np.float32),
        "n": np.arange(6, dtype=np.int16).reshape(2, 3),
        "empty": np.zeros((0, 5)),
        "flag": np.array(True),
    }
    save_file(tensors, file, {"format": "np"})
    module = Holder(
        layers=[liftnn.Linear(3, 4, rngs=liftnn.Rngs(0))],
        n=np.zeros((2, 3), np.int16),
        empty=np.ones((0, 5)),
        flag=liftnn.Variable(jnp.array(False)),
    )
    report = liftnn.load_weights(file, module)
    found = [*(x.value for x in (module.layers[0].kernel, module.layers[0].bias)), module.n, module.empty]
    for x, expected in zip([*found, module.flag.value], tensors.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(x), expected, strict=True)
    assert (report, report.metadata) == (liftnn.LoadReport(metadata={"format": "np"}), {"format": "np"})


@pytest.mark.parametrize(
    "dtype",
    [
        "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "bfloat16", "float32", "complex64",
        "int4", "uint4", "int2", "uint2", "float4_e2m1fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz",
        "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 2)])
@pytest.mark.sample(16)
def test_every_dtype_is_loaded_bit_for_bit(file, dtype, shape):
    small = dtype.startswith(("int2", "int4", "uint2", "uint4", "float4", "bool"))
    numbers = np.random.default_rng(0).integers(0, 2 if small else 100, shape)
    x = np.asarray(numbers).astype(dtype)
    module = loaded(
        file,
        Holder(a=Param(jnp.asarray(x)), b=x),
        Holder(a=Param(jnp.zeros(shape, dtype)), b=np.zeros(shape, dtype)),
    )
    assert (module.a.value.dtype, module.a.value.shape) == (x.dtype, shape)
    assert (module.b.dtype, module.b.shape) == (x.dtype, shape)
    assert bits(module.a.value) == bits(x) == bits(module.b)
    assert isinstance(module.a.value, jax.Array)
    assert type(module.b) is np.ndarray
    module.b[...] = np.zeros((), dtype)  # it can be written


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64"])
def test_numpy_arrays_of_64_bits_keep_them(file, dtype):
    x = np.array([1, 2**53 - 1], dtype)
    assert loaded(file, Holder(x=x), Holder(x=np.zeros(2, dtype))).x.tobytes() == x.tobytes()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 2)])
@pytest.mark.sample(15)
def test_typed_keys_are_loaded(file, impl, shape):
    def keys(seed):
        return jax.random.split(jax.random.key(seed, impl=impl), shape)

    module = loaded(file, Holder(k=liftnn.Variable(keys(1))), Holder(k=liftnn.Variable(keys(2))))
    assert (module.k.value.dtype, module.k.value.shape) == (keys(1).dtype, shape)
    assert bits(module.k.value) == bits(keys(1))


def test_numbers_scalars_trees_and_empty_variables(file):
    def make(x):
        return Holder(
            empty=liftnn.Variable(liftnn.Empty),
            none=Holder(),
            int=liftnn.Variable(int(x)),
            float=liftnn.Variable(float(x)),
            bool=liftnn.Variable(x > 1),
            complex=liftnn.Variable(np.complex64(x)),
            half=liftnn.Variable(np.float16(x)),
            tree=liftnn.Variable({"a": jnp.full(2, x), "b": [np.full(2, x), x], "c": None}),
        )

    module = loaded(file, make(2.5), make(0.5))
    values = [module.int, module.float, module.bool, module.complex, module.half]
    assert [x.raw_value for x in values] == [2, 2.5, True, 2.5, 2.5]
    assert [type(x.raw_value) for x in values] == [int, float, bool, np.complex64, np.float16]
    tree = module.tree.raw_value
    assert (tree["a"].tolist(), tree["b"][0].tolist(), tree["b"][1], tree["c"]) == (
        [2.5] * 2,
        [2.5] * 2,
        2.5,
        None,
    )
    assert module.empty.value is liftnn.Empty


def test_lists_past_ten_and_keys_of_other_types_find_their_values(file):
    def make(start):
        names = {key: Param(jnp.float32(start + i)) for i, key in enumerate([1, "1", -1, "a.b", "", "['1']"])}
        return Holder(layers=[Param(jnp.float32(start - i)) for i in range(12)], names=names)

    module = loaded(file, make(100), make(0))
    assert [float(x.value) for x in module.layers] == [100.0 - i for i in range(12)]
    assert [float(x.value) for x in module.names.values()] == [100.0 + i for i in range(6)]


def test_the_objects_are_filled_in_place_past_their_hooks(file):
    def fail(variable, value):
        raise AssertionError

    other = Affine(5.0)
    other.w.set_metadata(on_set_value=fail)
    variable = other.w
    loaded(file, Affine(2.0), other)
    assert other.w is variable
    assert variable.value.tolist() == [2, 2, 2]


def test_modules_in_trees_states_and_single_variables_are_filled(file):
    liftnn.save_weights(file, {"a": [Affine(2.0)]})
    model, state = Affine(0.0), liftnn.state({"a": [Affine(1.0)]})
    liftnn.load_weights(file, {"a": [model]})
    liftnn.load_weights(file, state)
    assert model.w.value.tolist() == state["a"][0]["w"].value.tolist() == [2, 2, 2]
    variable = Param(jnp.zeros(2))
    assert loaded(file, Param(jnp.ones(2)), variable).value.tolist() == [1, 1]


def test_an_optimizer_is_loaded_and_goes_on(file):
    def make(seed):
        model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(seed))
        return {"model": model, "optimizer": liftnn.Optimizer(model, optax.adam(0.1), wrt=Param)}

    @liftnn.jit
    def train(run):
        grads = liftnn.grad(lambda m: (m(jnp.ones((1, 2))) ** 2).sum())(run["model"])
        run["optimizer"].update(run["model"], grads)

    run, other = make(0), make(1)
    train(run)
    train(other)
    loaded(file, run, other)
    train(run)
    train(other)
    assert train.n_traces == 1
    assert bits(run["model"].kernel.value) == bits(other["model"].kernel.value)


def test_tied_weights_are_loaded_tied_and_into_modules_without_ties(file):
    tied = Pair()
    tied.first.w.value = jnp.arange(3.0)
    other = loaded(file, tied, Pair())
    assert other.first.w is other.second.w
    separate = loaded(file, tied, Holder(first=Affine(), second=Affine()))
    for module in (other, separate):
        assert [x.w.value.tolist() for x in (module.first, module.second)] == [[0, 1, 2]] * 2


def test_every_path_of_a_shared_weight_of_a_shared_module_can_be_loaded(file):
    weight = Param(jnp.arange(2.0))
    shared = Holder(x=weight, y=weight)
    model = Holder(a=shared, b=[shared])
    model.me = model
    separate = Holder(
        a=Holder(x=Param(jnp.ones(2)), y=Param(jnp.ones(2))),
        b=[Holder(x=Param(jnp.ones(2)), y=Param(jnp.ones(2)))],
    )
    loaded(file, model, separate)
    for module in (separate.a, separate.b[0]):
        assert (module.x.value.tolist(), module.y.value.tolist()) == ([0, 1], [0, 1])


def test_a_shared_weight_is_found_whatever_its_first_path_is(file):
    one, two = Param(jnp.ones(2)), Param(jnp.zeros(2))
    assert loaded(file, Holder(a=one, b=one), Holder(b=two, a=two)).a.value.tolist() == [1, 1]


def test_weights_that_are_stored_separately_fit_a_tie_if_they_are_equal(file):
    x = np.array([1.0, np.nan, -0.0], np.float32)
    tied = Param(jnp.zeros(3))
    module = Holder(a=tied, b=tied)
    save_file({"a": x, "b": x.copy()}, file)
    liftnn.load_weights(file, module)
    assert bits(tied.value) == x.tobytes()
    for other in (x * np.float32(-1), x.astype(np.float16), x[:2]):
        save_file({"a": x, "b": other}, file)
        report = liftnn.load_weights(file, module, strict=False)
        assert report.mismatched == ("a: is shared in the module, but 'a' and 'b' have different values",)


def test_modules_that_contain_themselves_are_loaded(file):
    def make(x):
        model, child = Affine(x), Affine(x + 1)
        model.child, child.parent = child, model
        return model

    model = loaded(file, make(5.0), make(1.0))
    assert (model.w.value.tolist(), model.child.w.value.tolist()) == ([5] * 3, [6] * 3)
    without = Affine(0.0)
    without.child = Affine(0.0)
    loaded(file, make(5.0), without)
    assert (without.w.value.tolist(), without.child.w.value.tolist()) == ([5] * 3, [6] * 3)


def test_a_weak_type_stays_and_an_array_that_is_not_committed_stays_so(file):
    def make(x):
        return Holder(
            a=Param(jnp.ones(2) * x), w=Param(jnp.asarray(float(x))), v=Param(jnp.full(3, float(x)))
        )

    module = loaded(file, make(2), make(3))
    values = [module.a.value, module.w.value, module.v.value]
    assert [x.committed for x in values] == [False] * 3
    assert [x.weak_type for x in values] == [False, True, True]
    assert [x.tolist() for x in values] == [[2, 2], 2, [2, 2, 2]]


@pytest.mark.sample(3)
@pytest.mark.parametrize("save_on, load_on", [(8, 2), (2, 8), (8, 1)])
def test_arrays_get_the_sharding_of_those_that_they_replace(file, save_on, load_on):
    def make(n, x):
        mesh = jax.make_mesh((n,), ("d",), devices=jax.devices()[:n])
        rows = jax.NamedSharding(mesh, jax.P("d"))
        return Holder(
            w=Param(jax.device_put(jnp.arange(32.0).reshape(16, 2) + x, rows)),
            small=Param(jax.device_put(jnp.full(8, x, jnp.float8_e4m3fn), rows)),
            k=liftnn.Variable(jax.device_put(jax.random.split(jax.random.key(x), 8), rows)),
            one=Param(jax.device_put(jnp.full(3, x), jax.devices()[n - 1])),
        )

    module = make(load_on, 0)
    abstract = liftnn.eval_shape(lambda: make(load_on, 0))
    names = ("w", "small", "k", "one")
    for name in names:
        x = getattr(module, name).value
        getattr(abstract, name).value = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    expected = [getattr(module, name).value.sharding for name in names]
    for target in (module, abstract):
        loaded(file, make(save_on, 1), target)
        assert [getattr(target, name).value.sharding for name in names] == expected
        for name in names:
            assert bits(getattr(target, name).value) == bits(getattr(make(1, 1), name).value)


def test_an_abstract_model_of_a_mesh_without_devices_gets_those_of_the_current_mesh(file):
    mesh = jax.make_mesh((8,), ("d",))
    liftnn.save_weights(file, Holder(w=Param(jnp.arange(16.0))))

    def abstract():
        x = jax.ShapeDtypeStruct(
            (16,), jnp.float32, sharding=jax.NamedSharding(mesh.abstract_mesh, jax.P("d"))
        )
        return Holder(w=Param(x))

    outside, inside = abstract(), abstract()
    liftnn.load_weights(file, outside)
    with jax.set_mesh(mesh):
        liftnn.load_weights(file, inside)
    assert not outside.w.value.committed
    assert inside.w.value.sharding == jax.NamedSharding(mesh, jax.P("d"))
    assert outside.w.value.tolist() == inside.w.value.tolist() == list(range(16))


def test_an_abstract_model_is_filled_and_runs(file):
    def make():
        return liftnn.Sequential(
            liftnn.Linear(3, 4, rngs=liftnn.Rngs(0)), liftnn.BatchNorm(4, rngs=liftnn.Rngs(0))
        )

    model, abstract = make(), liftnn.eval_shape(make)
    loaded(file, model, abstract)
    x = jnp.ones((2, 3))
    assert bits(model(x)) == bits(abstract(x))


def test_a_donated_module_is_filled(file):
    module = Affine(1.0)
    module.w.value.delete()
    assert loaded(file, Affine(2.0), module).w.value.tolist() == [2, 2, 2]


@pytest.mark.parametrize("size", [None, 1, 40])
def test_shards_are_found_from_the_path_of_the_model_and_of_the_index(file, size):
    liftnn.save_weights(file, Pair(), max_shard_size=size, metadata={"epoch": "7"})
    for path in (file, file + ".index.json"):
        if os.path.exists(path) or size is not None:
            module = Pair()
            module.first.w.value = jnp.zeros(3)
            assert liftnn.load_weights(path, module).metadata == {"epoch": "7"}
            assert module.second.w.value.tolist() == [2, 2, 2]
