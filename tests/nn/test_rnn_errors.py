"""Wrong arguments of recurrent layers: each error says what to pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from tests.raising import raises
from tests.recurrent import make_cell, numbers

import liftnn

CELL = "Pass a cell such as a liftnn.GRUCell, or a subclass of liftnn.RNNCellBase."
WRAP = "Wrap a cell in liftnn.RNN, as in Bidirectional(RNN(forward_cell), RNN(backward_cell))."
AXES = "Pass an array of shape (batch, time, features), or call the cell itself for one step."
SEED = "Pass rngs=liftnn.Rngs(0), where 0 is the seed."
WRONG = {
    "a layer that is not a cell": (
        lambda rnn, x: liftnn.RNN(liftnn.Linear(3, 4, rngs=liftnn.Rngs(0))),
        f"RNN applies a recurrent cell, but cell is of type Linear.\n{CELL}",
    ),
    "a seed": (
        lambda rnn, x: liftnn.RNN(rnn.cell, rngs=0),
        f"RNN needs a liftnn.Rngs or one of its streams, but rngs is of type int.\n{SEED}",
    ),
    "rngs=None": (
        lambda rnn, x: liftnn.RNN(rnn.cell, rngs=None),
        (
            "RNN needs rngs to create its initial carry, but rngs is None.\n"
            "Pass rngs=True for the seed 0, rngs=False if each call has `rngs` or `initial_carry`, or a liftnn.Rngs."
        ),
    ),
    "a key in a call": (
        lambda rnn, x: rnn(x, rngs=jax.random.key(0)),
        f"RNN needs a liftnn.Rngs or one of its streams, but rngs is of type PRNGKeyArray.\n{SEED}",
    ),
    "one step": (
        lambda rnn, x: rnn(x[0, 0]),
        "RNN needs an input with a time axis and the feature axes of its cell (1), but its input has the shape (3,).\n"
        + AXES,
    ),
    "lengths of another batch": (
        lambda rnn, x: rnn(x, seq_lengths=jnp.array([1, 2, 3])),
        (
            "`seq_lengths` has the shape (3,), but the batch axes of the input have the shape (2,).\n"
            "Pass one length for each sequence."
        ),
    ),
    "lengths with too many axes": (
        lambda rnn, x: rnn(x, seq_lengths=jnp.ones((2, 1), int)),
        (
            "`seq_lengths` has the shape (2, 1), but the batch axes of the input have the shape (2,).\n"
            "Pass one length for each sequence."
        ),
    ),
    "lengths that are a mask": (
        lambda rnn, x: rnn(x, seq_lengths=jnp.ones(2, bool)),
        (
            "`seq_lengths` must contain integers, but its dtype is bool.\n"
            "Pass the number of steps of each sequence, such as mask.sum(-1) for a boolean mask."
        ),
    ),
    "a cell in place of a layer": (
        lambda rnn, x: liftnn.Bidirectional(rnn, rnn.cell),
        f"Bidirectional applies recurrent layers, but backward_rnn is of type GRUCell.\n{WRAP}",
    ),
    "a seed for both directions": (
        lambda rnn, x: liftnn.Bidirectional(rnn, rnn, rngs=0),
        f"Bidirectional needs a liftnn.Rngs or one of its streams, but rngs is of type int.\n{SEED}",
    ),
    "a carry of another batch": (
        lambda rnn, x: rnn(x, initial_carry=jnp.ones((3, 4))),
        (
            "The `initial_carry` of this RNN has the shape (3, 4), but for steps of shape (2, 3) the carry of its "
            "cell, a GRUCell, has the shape (2, 4).\n"
            "Pass a carry from `rnn.cell.initialize_carry((2, 3))`, or one that a call with return_carry=True returned."
        ),
    ),
    "a carry of another cell": (
        lambda rnn, x: liftnn.RNN(make_cell(liftnn, "LSTMCell"))(x, initial_carry=jnp.ones((3, 4))),
        (
            "The `initial_carry` of this RNN has the shape (3, 4), but for steps of shape (2, 3) the carry of its "
            "cell, an LSTMCell, has the shape ((2, 4), (2, 4)).\n"
            "Pass a carry from `rnn.cell.initialize_carry((2, 3))`, or one that a call with return_carry=True returned."
        ),
    ),
    "one carry for both directions": (
        lambda rnn, x: liftnn.Bidirectional(rnn, rnn)(x, initial_carry=jnp.zeros((2, 4))),
        (
            "The `initial_carry` of a Bidirectional is a pair of carries, forward and backward, but that of the call "
            "is of type ArrayImpl.\n"
            "Pass a pair, or the carries that a call with return_carry=True returned."
        ),
    ),
}


@pytest.mark.parametrize("use, text", WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_an_error_that_says_what_to_pass(use, text):
    with raises(liftnn.ArgumentError, text):
        use(liftnn.RNN(make_cell(liftnn, "GRUCell")), numbers(2, 5, 3))


def test_without_any_random_keys_the_cell_asks_for_them_unless_the_carry_is_zeros():
    rnn = liftnn.RNN(make_cell(liftnn, "GRUCell"), rngs=False)
    assert rnn(numbers(2, 5, 3)).shape == (2, 5, 4)
    rnn.cell.carry_init = liftnn.initializers.normal()
    with pytest.raises(liftnn.ArgumentError, match="GRUCell has no random keys to create its initial carry"):
        rnn(numbers(2, 5, 3))


def test_lengths_need_a_carry_with_batch_axes():
    class Indexed(liftnn.RNNCellBase):
        num_feature_axes = 1

        def initialize_carry(self, input_shape, rngs=None, carry_init=None):
            return jnp.array(0)

        def __call__(self, carry, inputs):
            return carry + 1, inputs + carry

    layer, x, lengths = liftnn.RNN(Indexed()), numbers(2, 5, 3), jnp.array([1, 2])
    assert layer(x, seq_lengths=lengths).shape == x.shape
    text = (
        "With `seq_lengths`, each array of the carry needs the batch axes (2,) in front, but one has the shape ().\n"
        "Give each sequence of the batch its own carry, or call with return_carry=False."
    )
    with raises(liftnn.ArgumentError, text):
        layer(x, seq_lengths=lengths, return_carry=True)


def test_a_filter_must_be_a_filter():
    cell = make_cell(liftnn, "GRUCell")
    for options in ({"broadcast_rngs": 3.5}, {"state_axes": {3.5: 0}}):
        with pytest.raises(liftnn.FilterError):
            liftnn.RNN(cell, **options)
