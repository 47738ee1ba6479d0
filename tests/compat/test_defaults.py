"""Arguments that a call leaves out."""

import pytest
from tests.compat.oracle import assert_equal_in_both

import liftnn
from liftnn.compat import nnx


def test_first_from_returns_the_first_value_that_is_given():
    assert_equal_in_both(
        "result = [nnx.module.first_from(None, x, 2, error_msg='') for x in (0, None, False)]"
    )


def test_first_from_raises_the_message_if_nothing_is_given():
    with pytest.raises(liftnn.ArgumentError) as error:
        nnx.nn.normalization.first_from(None, None, error_msg="No use of the average is given.")
    assert str(error.value) == "No use of the average is given.\nGive one of them a value that is not None."
    assert isinstance(error.value, ValueError)
