"""Arrays in a checkpoint: each comes back as it was, or is not saved."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises
from tests.user_modules import Holder

import liftnn


class WithUnit(np.ndarray):
    """An array that means more than its elements."""


@pytest.mark.sample(8)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8", "c8", "c16"])
@pytest.mark.parametrize("shape", [(3, 2), (), (0, 2)])
def test_arrays_of_either_byte_order_are_restored(tmp_path, dtype, shape):
    arrays = {order: np.full(shape, 3, order + dtype) for order in "<>"}
    liftnn.save(tmp_path, 1, Holder(**arrays), values=arrays)
    other = Holder(**{order: np.zeros(shape, other + dtype) for order, other in ("<>", "><")})
    found = liftnn.restore(tmp_path, other)
    for order, x in arrays.items():
        assert (found.values[order].dtype, found.values[order].tobytes()) == (x.dtype, x.tobytes())
        replaced = getattr(other, order)
        assert (replaced.dtype, replaced.tolist()) == (x.dtype.newbyteorder(), x.tolist())


def test_a_jax_array_takes_numbers_of_the_other_byte_order(tmp_path):
    liftnn.save(tmp_path, 1, Holder(a=liftnn.Variable(np.arange(3, dtype=">f4"))))
    other = Holder(a=liftnn.Variable(jnp.zeros(3)))
    liftnn.restore(tmp_path, other)
    assert isinstance(other.a.value, jax.Array)
    assert other.a.value.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "x, what",
    [
        (np.ones(2, np.longdouble), f"an array of dtype {np.dtype(np.longdouble)}"),
        (np.clongdouble(1), f"an array of dtype {np.dtype(np.clongdouble)}"),
        (np.ones(2, "m8[s]"), "an array of dtype timedelta64[s]"),
        (np.ones(2, "M8[s]"), "an array of dtype datetime64[s]"),
        (np.array(["a"]), "an array of dtype <U1"),
        (np.ones(2, [("x", "f4")]), "an array of dtype [('x', '<f4')]"),
        (np.ma.masked_array([1.0, 2.0], [False, True]), "a MaskedArray"),
        (np.ones(2).view(WithUnit), "a WithUnit"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)  # fmt: skip
@pytest.mark.parametrize("place", ["values", "variable"])
def test_an_array_that_would_not_come_back_is_not_saved(tmp_path, x, what, place):
    remedy = "Store numbers, strings, or arrays of numbers in Variables."
    path = "values.x" if place == "values" else "modules[0].x"
    with raises(liftnn.ArgumentTypeError, f"{path} holds {what}, which a checkpoint cannot hold.\n{remedy}"):
        if place == "values":
            liftnn.save(tmp_path, 1, values={"x": x})
        else:
            liftnn.save(tmp_path, 1, Holder(x=liftnn.Variable(x)))
    assert not list(tmp_path.iterdir())


def test_a_mapped_array_is_saved_as_its_elements(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(4.0))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    liftnn.save(tmp_path / "run", 1, values={"x": x})
    assert liftnn.restore(tmp_path / "run").values["x"].tolist() == [0, 1, 2, 3]
