"""Plain values of any size in a checkpoint."""

from __future__ import annotations

import pytest
from tests.user_modules import Holder

import liftnn


@pytest.mark.parametrize("digits", [18, 19, 100, 600, 700, 4300, 5000])
def test_an_int_of_any_size_comes_back(tmp_path, digits):
    values = {"n": 10**digits, "nested": [(-(10**digits),), {"k": 10**digits}]}
    liftnn.save(tmp_path, 1, Holder(n=liftnn.Variable(10**digits)), values=values)
    model = Holder(n=liftnn.Variable(0))
    assert liftnn.restore(tmp_path, model).values == values
    assert model.n.raw_value == 10**digits
