"""Operators of a Variable: numpy says what each gives, Flax NNX what `v[...]` does."""

from __future__ import annotations

import copy
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import pallas

import liftnn

FLOATS = np.array([[1.5, -2.0], [3.0, 0.5]], np.float32), np.array([[2.0, 4.0], [0.5, 2.0]], np.float32)
INTS = np.array([6, 5, 12], np.int32), np.array([1, 2, 3], np.int32)
BOOLS = np.array([True, False, True]), np.array([True, True, False])

BINARY = [
    *((op, FLOATS) for op in (operator.add, operator.sub, operator.mul, operator.truediv, operator.matmul)),
    *((op, FLOATS) for op in (operator.floordiv, operator.mod)),
    (operator.pow, (np.abs(FLOATS[0]), FLOATS[1])),
    *((op, INTS) for op in (operator.lshift, operator.rshift, operator.and_, operator.or_, operator.xor)),
    *((op, BOOLS) for op in (operator.and_, operator.or_, operator.xor)),
    *((op, FLOATS) for op in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)),
]
IDS = [f"{op.__name__}-{x.dtype}" for op, (x, _) in BINARY]


def in_place_name(op):
    return f"i{op.__name__.rstrip('_')}"


def assert_same(ours, numpy_result):
    assert not isinstance(ours, liftnn.Variable)
    assert ours.dtype == numpy_result.dtype
    np.testing.assert_allclose(np.asarray(ours), numpy_result, rtol=1e-6)


@pytest.mark.sample(4)
@pytest.mark.parametrize("op, operands", BINARY, ids=IDS)
def test_a_binary_operator_gives_what_numpy_gives(op, operands):
    x, y = operands
    v, w = liftnn.Param(jnp.asarray(x)), liftnn.Param(jnp.asarray(y))
    for ours in (op(v, jnp.asarray(y)), op(v, y), op(v, w), op(jnp.asarray(x), w), op(x, w)):
        assert_same(ours, op(x, y))


@pytest.mark.sample(4)
@pytest.mark.parametrize("op, operands", [row for row in BINARY if row[0] is not operator.matmul])
def test_a_binary_operator_takes_python_numbers(op, operands):
    x = operands[0]
    number = x.dtype.type(1).item()
    v = liftnn.Param(jnp.asarray(x))
    assert_same(op(v, number), op(x, number))
    assert_same(op(number, v), op(number, x))


@pytest.mark.parametrize("op, operands", [row for row in BINARY if hasattr(operator, in_place_name(row[0]))])
def test_an_in_place_operator_writes_the_result_into_the_same_variable(op, operands):
    x, y = operands
    v = before = liftnn.Param(jnp.asarray(x), tag="kept")
    v = getattr(operator, in_place_name(op))(v, liftnn.Param(jnp.asarray(y)))
    assert v is before
    assert v.tag == "kept"
    assert_same(v.value, op(x, y))


def test_an_in_place_operator_runs_the_hooks_once():
    log = []
    v = liftnn.Param(
        1.0,
        get_value_hooks=lambda v, x: log.append("get") or x,
        set_value_hooks=lambda v, x: log.append("set") or x,
    )
    v += 2.0
    assert (log, v.raw_value) == (["get", "set"], 3.0)


@pytest.mark.parametrize("op", [operator.neg, operator.pos, abs, np.asarray])
def test_a_unary_operator_gives_what_numpy_gives(op):
    np.testing.assert_array_equal(op(liftnn.Param(jnp.asarray(FLOATS[0]))), op(FLOATS[0]))


@pytest.mark.parametrize("x", [INTS[0], BOOLS[0]], ids=["int", "bool"])
def test_invert_gives_what_numpy_gives(x):
    np.testing.assert_array_equal(~liftnn.Param(jnp.asarray(x)), ~x)


def test_round_gives_what_numpy_gives():
    x = np.array([1.256, -2.5], np.float32)
    np.testing.assert_allclose(round(liftnn.Param(jnp.asarray(x)), 1), np.round(x, 1), rtol=1e-6)
    np.testing.assert_array_equal(round(liftnn.Param(jnp.asarray(x))), np.round(x))


def test_divmod_gives_what_numpy_gives():
    x, y = INTS
    v = liftnn.Param(jnp.asarray(x))
    for ours, numpy_result in ((divmod(v, y), divmod(x, y)), (divmod(100, v), divmod(np.int32(100), x))):
        np.testing.assert_array_equal(ours, numpy_result)


@pytest.mark.parametrize(
    "convert", [bool, int, float, complex, operator.index, "{:d}".format, "{:>6.1f}".format]
)
def test_a_scalar_converts_as_its_value_does(convert):
    value = jnp.int32(3)
    converted = convert(liftnn.Param(value))
    assert (type(converted), converted) == (type(convert(value)), convert(value))


def test_len_iteration_and_membership_are_those_of_the_value():
    v = liftnn.Param(jnp.arange(3.0))
    assert len(v) == 3
    assert [float(x) for x in v] == [0, 1, 2]
    assert 2.0 in v
    assert 3.0 not in v


def test_a_variable_indexes_a_list_and_arrays():
    i = liftnn.Variable(jnp.int32(1))
    assert ["a", "b"][i] == "b"
    assert np.arange(3.0)[i] == 1
    assert liftnn.Param(jnp.arange(3.0))[i] == 1


# --- v[...] and v[i]

INDEXES = [
    ...,
    0,
    -1,
    slice(1, 3),
    (slice(None), 1),
    (0, 1),
    np.array([0, 2]),
    (..., None),
    np.array([True, False, True]),
]


@pytest.mark.sample(2)
@pytest.mark.parametrize("index", INDEXES, ids=repr)
def test_reading_an_index_gives_what_flax_gives(index):
    x = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(liftnn.Param(x)[index], nnx.Param(x)[index])


ITEMS = {
    "number": 7,
    "same": jnp.full((3, 2), 7.0),
    "numpy": np.full((3, 2), 7.0, np.float32),
    "int": jnp.full((3, 2), 7),
    "row": jnp.array([8.0, 9.0]),
    "wrong shape": jnp.ones((4, 5)),
}


@pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types")
@pytest.mark.parametrize("index", [..., 0, slice(1, 3), (slice(None), 1)], ids=repr)
@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize("asarray", [jnp.asarray, np.array], ids=["jax", "numpy"])
def test_setting_an_index_does_what_flax_does(asarray, index, item):
    outcomes = []
    for cls in (liftnn.Param, nnx.Param):
        v = cls(asarray(np.arange(6.0, dtype=np.float32).reshape(3, 2)))
        try:
            v[index] = item
        except Exception as error:
            outcomes.append((type(error), str(error)))
        else:
            outcomes.append((v[...].dtype, v[...].tolist()))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("index", [..., 0, (slice(None), 1)], ids=repr)
def test_a_traced_item_is_set_in_a_numpy_array_as_in_one_of_jax(index):
    def fill(zeros, x):
        v = liftnn.Param(zeros)
        v[index] = x
        return v[...]

    numpy = liftnn.jit(lambda x: fill(np.zeros((3, 2), np.float32), x))
    assert numpy(5).tolist() == fill(jnp.zeros((3, 2)), 5).tolist()
    at = liftnn.jit(lambda i: fill_at(np.zeros(3, np.float32), i))
    assert at(1).tolist() == [0, 5, 0]


def fill_at(zeros, i):
    v = liftnn.Param(zeros)
    v[i] = 5
    return v[...]


def test_setting_an_item_of_a_tuple_is_the_error_of_python():
    with pytest.raises(TypeError, match="'tuple' object does not support item assignment"):
        liftnn.Variable((1, 2))[0] = 3


def test_setting_the_whole_to_an_array_of_the_same_kind_stores_that_array():
    x, y = jnp.zeros(2), jnp.ones(2)
    v = liftnn.Param(x)
    v[...] = y
    assert v.value is y


def test_setting_an_index_leaves_the_array_that_was_given_as_it_was():
    x = jnp.zeros(2)
    v = liftnn.Param(x)
    v[0] = 1.0
    assert (v.value.tolist(), x.tolist()) == ([1, 0], [0, 0])


def test_setting_an_index_runs_the_set_hooks_on_the_part():
    v = liftnn.Param(jnp.zeros(2), set_value_hooks=lambda v, x: x + 10)
    v[0] = 1.0
    assert v.raw_value.tolist() == [11, 0]


def test_an_augmented_index_writes_back():
    v = liftnn.Param(jnp.arange(3.0))
    v[...] += 1
    v[0] *= 5
    assert v.value.tolist() == [5, 2, 3]


def test_an_index_or_item_may_be_a_variable():
    v = liftnn.Param(jnp.arange(3.0))
    v[liftnn.Variable(jnp.int32(2))] = liftnn.Param(9.0)
    assert v.value.tolist() == [0, 1, 9]


@pytest.mark.parametrize(
    "value", [{"a": 1, "b": 2}, [1, 2], np.array([1, 2])], ids=lambda x: type(x).__name__
)
def test_setting_an_item_of_a_container_leaves_the_one_that_was_given_as_it_was(value):
    key = "a" if isinstance(value, dict) else 0
    before = copy.deepcopy(value)
    v = liftnn.Variable(value)
    v[key] = 5
    assert v[key] == 5
    np.testing.assert_equal(value, before)


def test_setting_the_whole_of_a_container_replaces_it():
    v = liftnn.Variable({"a": 1})
    v[...] = {"b": 2}
    assert v.value == {"b": 2}
    assert v[...] is v.value


# --- arrays

JNP_FUNCTIONS = {
    "asarray": jnp.asarray,
    "array": lambda v: jnp.array(v, jnp.bfloat16),
    "stack": lambda v: jnp.stack([v, v]),
    "concatenate": lambda v: jnp.concatenate([v, v], axis=1),
    "einsum": lambda v: jnp.einsum("ij,kj->ik", v, v),
    "zeros_like": jnp.zeros_like,
    "shape": jnp.shape,
    "matmul": lambda v: jnp.ones((2, 2)) @ v,
    "at": lambda v: jnp.zeros((2, 2)).at[0].set(v[1]),
}


@pytest.mark.parametrize("function", JNP_FUNCTIONS.values(), ids=JNP_FUNCTIONS)
def test_a_jax_function_that_converts_its_argument_takes_a_variable_as_its_value(function):
    x = jnp.asarray(FLOATS[0])
    np.testing.assert_array_equal(function(liftnn.Param(x)), function(x))


NUMPY_FUNCTIONS = {
    "add": lambda v: np.add(FLOATS[1], v),
    "sin": np.sin,
    "sum": np.sum,
    "stack": lambda v: np.stack([v, v]),
    "allclose": lambda v: np.allclose(v, FLOATS[0]),
    "array": lambda v: np.array(v),
    "dtype": lambda v: np.asarray(v, np.float16),
}


@pytest.mark.parametrize("function", NUMPY_FUNCTIONS.values(), ids=NUMPY_FUNCTIONS)
def test_a_numpy_function_takes_a_variable_as_its_value(function):
    np.testing.assert_allclose(function(liftnn.Param(jnp.asarray(FLOATS[0]))), function(FLOATS[0]), rtol=1e-6)


def test_numpy_gives_numpy_arrays_of_a_variable():
    v = liftnn.Param(jnp.ones(2))
    assert type(np.asarray(v)) is type(np.sin(v)) is type(np.stack([v, v])) is np.ndarray


def test_a_copy_asked_for_by_numpy_is_one():
    x = np.arange(3.0)
    np.array(liftnn.Variable(x))[0] = 5
    assert x[0] == 0
    assert np.asarray(liftnn.Variable(x)) is x


def test_numpy_adds_a_variable_in_place():
    x = np.ones(2, np.float32)
    x += liftnn.Param(jnp.arange(2.0))
    assert x.tolist() == [1, 2]


def test_a_numpy_scalar_on_the_left_gives_a_jax_array():
    y = np.float32(2) * liftnn.Param(jnp.arange(2.0))
    assert isinstance(y, jax.Array)
    assert y.tolist() == [0, 2]


def test_formatting_without_a_format_prints_the_variable():
    v = liftnn.Param(jnp.float32(1))
    assert f"{v}" == repr(v)


def test_a_typed_key_is_a_value():
    v = liftnn.RngKey(jax.random.key(0))
    assert jax.random.normal(v.value) == jax.random.normal(jax.random.key(0))
    assert jnp.issubdtype(v.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize(
    "index",
    [(slice(None), 1), (0, 1), 1, (..., 1), (None, 1), (1, slice(2, 4)), (jnp.array([0, 1]), 1)],
    ids=str,
)
@pytest.mark.parametrize("is_traced", [False, True])
def test_a_variable_in_an_index_is_its_value(index, is_traced):
    """The oracle is the array with a number in place of the Variable."""
    array = jnp.arange(10.0).reshape(2, 5)
    one = liftnn.Variable(jnp.array(1))
    key = tuple(one if type(x) is int and x == 1 else x for x in index) if isinstance(index, tuple) else one

    def run(cache):
        read, updated, added = cache[key], cache.at[key].set(7.0), cache.at[key].add(1.0)
        cache[key] = -1.0
        return read, updated, added, cache.at[key].get()

    cache = liftnn.Variable(array)
    read, updated, added, last = (liftnn.jit(run) if is_traced else run)(cache)
    np.testing.assert_array_equal(read, array[index])
    np.testing.assert_array_equal(updated, array.at[index].set(7.0))
    np.testing.assert_array_equal(added, array.at[index].add(1.0))
    np.testing.assert_array_equal(cache.value, array.at[index].set(-1.0))
    np.testing.assert_array_equal(last, cache.value[index])


@pytest.mark.parametrize("is_traced", [False, True])
def test_the_whole_of_a_mutable_array_is_read_and_written_in_place(is_traced):
    """The oracle is the mutable array itself."""

    def change(x):
        x[...] = jnp.arange(3.0)
        x[...] += 1
        x[0] = 7.0

    ours, theirs = jax.new_ref(jnp.zeros(3)), jax.new_ref(jnp.zeros(3))
    v = liftnn.Variable(ours)
    (liftnn.jit(change) if is_traced else change)(v)
    (jax.jit(change) if is_traced else change)(theirs)
    assert v.value is ours
    assert ours[...].tolist() == theirs[...].tolist() == [7, 2, 3]


def test_a_variable_of_an_array_is_an_input_of_a_kernel_of_pallas():
    """In the kernel it holds a mutable array, and a tracer of that has the class of a tracer of an array."""
    scale, x = liftnn.Param(jnp.array([2.0, 3.0])), jnp.array([5.0, 7.0])

    def kernel(x_ref, scale_ref, out_ref):
        out_ref[...] = x_ref[...] * scale_ref[...]

    def scaled(scale, x):
        assert scale[...].shape == (2,)  # an array, of which the class of tracers is known from here on
        return pallas.pallas_call(kernel, jax.ShapeDtypeStruct((2,), x.dtype), interpret=True)(x, scale)

    assert liftnn.jit(scaled)(scale, x).tolist() == [10, 21]
    assert liftnn.vmap(scaled, in_axes=(None, 0))(scale, x[None]).tolist() == [[10, 21]]


@pytest.mark.parametrize(
    "value, index", [({"a": 1, "b": 2}, "a"), ([1, 2, 3], 0), ([1, 2, 3], slice(1, None))], ids=str
)
@pytest.mark.parametrize("is_traced", [False, True])
def test_an_entry_of_a_container_is_deleted(value, index, is_traced):
    """The oracle is the container itself."""

    def delete(x):
        del x[index]

    v, expected = liftnn.Variable(value), copy.copy(value)
    (liftnn.jit(delete) if is_traced else delete)(v)
    delete(expected)
    assert v.value == expected != value


def test_an_entry_that_does_not_exist_cannot_be_deleted():
    with pytest.raises(KeyError, match="b"):
        del liftnn.Variable({"a": 1})["b"]


def test_a_number_is_truncated():
    assert math.trunc(liftnn.Variable(-1.7)) == math.trunc(-1.7)
