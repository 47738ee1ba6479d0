from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.quick import quick
from tests.recurrent import (
    CELLS,
    assert_same,
    draw,
    gradients_of,
    make_cell,
    make_pair,
    numbers,
)

import liftnn

BFLOAT16 = {
    "kernel_init": draw, "recurrent_kernel_init": draw, "param_dtype": jnp.bfloat16, "dtype": jnp.bfloat16,
}  # fmt: skip
LENGTHS = {"no lengths": None, "lengths": jnp.array([5, 1]), "a length of zero": jnp.array([0, 4])}
DIRECTIONS = {
    "ahead": {},
    "reversed": {"reverse": True},
    "reversed, in order": {"reverse": True, "keep_order": True},
}


def layers(name, options=None, **settings):
    """The same RNN from both libraries."""
    ours, theirs = make_pair(name, bias_init=draw, **options or {})
    return liftnn.RNN(ours, **settings), nnx.RNN(theirs, **settings)


class Counting(liftnn.RNNCellBase):
    """A cell with a counter, dropout and a list of how often it was traced."""

    num_feature_axes = 1

    def __init__(self, traces=None):
        self.dropout = liftnn.Dropout(0.5, rngs=liftnn.Rngs(dropout=0))
        self.steps = liftnn.Variable(jnp.array(0))
        self.note = (lambda: None) if traces is None else (lambda: traces.append(1))

    def initialize_carry(self, input_shape, rngs=None, carry_init=None):
        return jnp.zeros(input_shape)

    def __call__(self, carry, inputs):
        self.note()
        self.steps.value = self.steps.value + 1
        y = self.dropout(inputs)
        return carry + y, y


class FlaxCounting(nnx.RNNCellBase):
    """The same cell of Flax."""

    num_feature_axes = 1

    def __init__(self):
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(dropout=0))
        self.steps = nnx.Variable(jnp.array(0))

    def initialize_carry(self, input_shape, rngs=None, carry_init=None):
        return jnp.zeros(input_shape)

    def __call__(self, carry, inputs):
        self.steps[...] += 1
        y = self.dropout(inputs)
        return carry + y, y


@pytest.mark.part(2)
@pytest.mark.sample(8)
@pytest.mark.parametrize("lengths", quick(LENGTHS.values(), 2), ids=LENGTHS)
@pytest.mark.parametrize("direction", quick(DIRECTIONS.values(), 2), ids=DIRECTIONS)
@pytest.mark.parametrize("name", quick(CELLS, 2))
def test_carry_and_outputs_are_those_of_flax_bit_for_bit(name, direction, lengths):
    ours, theirs = layers(name, return_carry=True, **direction)
    x = numbers(2, 5, 3)
    assert_same(ours(x, seq_lengths=lengths), theirs(x, seq_lengths=lengths))


@pytest.mark.parametrize("lengths", [None, LENGTHS["lengths"]], ids=["no lengths", "lengths"])
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.sample(6)
def test_time_may_be_the_first_axis(time_major, lengths):
    ours, theirs = layers("GRUCell", time_major=time_major, return_carry=True, reverse=True, keep_order=True)
    x = numbers(5, 2, 3) if time_major else numbers(2, 5, 3)
    assert_same(ours(x, seq_lengths=lengths), theirs(x, seq_lengths=lengths))


@pytest.mark.thorough
@pytest.mark.parametrize("lengths", [None, LENGTHS["lengths"]], ids=["no lengths", "lengths"])
@pytest.mark.parametrize("name", quick(CELLS))
@pytest.mark.sample(2)
def test_gradients_are_those_of_flax_bit_for_bit(name, lengths):
    ours, theirs = layers(name, return_carry=True, reverse=True)
    x = numbers(2, 5, 3)

    def run(layer):
        return layer(x, seq_lengths=lengths)

    assert_same(gradients_of(liftnn, ours, run), gradients_of(nnx, theirs, run))


@pytest.mark.thorough
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.sample(4)
def test_bfloat16_gives_the_numbers_of_flax_bit_for_bit(name):
    ours, theirs = layers(name, BFLOAT16, return_carry=True)
    x = numbers(2, 5, 3, dtype=jnp.bfloat16)
    assert_same(ours(x), theirs(x))

    def run(layer):
        return layer(x)

    assert_same(gradients_of(liftnn, ours, run), gradients_of(nnx, theirs, run))


@pytest.mark.parametrize("unroll", [1, 2, 5, True])
@pytest.mark.sample(4)
def test_unrolled_steps_give_the_numbers_of_flax(unroll):
    ours, theirs = layers("LSTMCell", unroll=unroll)
    assert_same(ours(numbers(2, 5, 3)), theirs(numbers(2, 5, 3)))


@pytest.mark.parametrize("shape", [(5, 3), (2, 1, 5, 3), (2, 0, 3), (0, 5, 3), (2, 1, 3)])
@pytest.mark.sample(6)
def test_any_number_of_batch_axes_and_steps_also_none(shape):
    ours, theirs = layers("GRUCell", return_carry=True)
    assert_same(ours(numbers(*shape)), theirs(numbers(*shape)))


@pytest.mark.parametrize("setting", ["return_carry", "time_major", "reverse", "keep_order"])
@pytest.mark.sample(4)
def test_the_call_has_precedence_over_the_layer(setting):
    kept = {"reverse": True} if setting == "keep_order" else {}
    x = numbers(4, 4, 3)
    for layer in (False, True):
        ours, theirs = layers("GRUCell", **{setting: layer, **kept})
        assert_same(ours(x, **{setting: not layer}), theirs(x, **{setting: not layer}))
        opposite, _ = layers("GRUCell", **{setting: not layer, **kept})
        assert_same(ours(x, **{setting: not layer}), opposite(x))


def test_the_given_first_carry_is_used():
    ours, theirs = layers("LSTMCell", return_carry=True)
    x, carry = numbers(2, 5, 3), (numbers(2, 4, seed=1), numbers(2, 4, seed=2))
    assert_same(ours(x, initial_carry=carry), theirs(x, initial_carry=carry))


def test_two_halves_of_a_sequence_joined_by_the_carry_are_the_whole():
    layer = layers("GRUCell", return_carry=True)[0]
    x = numbers(2, 6, 3)
    carry, first = layer(x[:, :3])
    carry, second = layer(x[:, 3:], initial_carry=carry)
    assert_same((carry, jnp.concatenate([first, second], 1)), layer(x))


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint32])
@pytest.mark.sample(3)
def test_lengths_may_have_any_integer_dtype(dtype, direction):
    layer = layers("GRUCell", return_carry=True, **direction)[0]
    x, lengths = numbers(3, 130, 3), np.array([0, 5, 127])
    assert_same(layer(x, seq_lengths=lengths.astype(dtype)), layer(x, seq_lengths=lengths))


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.sample(2)
def test_sequences_without_steps_return_the_first_carry(direction):
    layer = layers("LSTMCell", return_carry=True, **direction)[0]
    first = (numbers(2, 4, seed=1), numbers(2, 4, seed=2))
    carry, outputs = layer(numbers(2, 0, 3), seq_lengths=jnp.zeros(2, int), initial_carry=first)
    assert_same(carry, first)
    assert outputs.shape == (2, 0, 4)


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.parametrize("batch", quick([(), (3,), (1, 3), (2, 3)], 2))
@pytest.mark.part(2)
@pytest.mark.sample(10)
def test_lengths_give_what_each_sequence_gives_alone(batch, direction):
    layer = layers("LSTMCell", return_carry=True, **direction)[0]
    x = numbers(*batch, 5, 3)
    lengths = np.random.default_rng(0).integers(1, 6, batch)
    carry, outputs = layer(x, seq_lengths=lengths)
    for place in np.ndindex(*batch):
        alone, y = layer(x[place][: lengths[place]])
        np.testing.assert_allclose(outputs[place][: lengths[place]], y, rtol=1e-6, atol=1e-6)
        for a, b in zip(carry, alone, strict=True):
            np.testing.assert_allclose(a[place], b, rtol=1e-6, atol=1e-6)


def test_one_length_may_stand_for_all_sequences():
    layer = layers("GRUCell", return_carry=True, reverse=True)[0]
    x = numbers(2, 5, 3)
    assert_same(layer(x, seq_lengths=3), layer(x, seq_lengths=jnp.array([3, 3])))


@pytest.mark.thorough
def test_a_carry_of_random_numbers_comes_from_the_stream_of_the_layer_as_in_flax():
    options = {"carry_init": jax.nn.initializers.normal()}
    for seeds in ({"default": 0}, {"default": 0, "carry": 1}):
        cells = make_pair("LSTMCell", **options)
        given, flax = liftnn.Rngs(**seeds), nnx.Rngs(**seeds)
        for ours, theirs in [
            (liftnn.RNN(cells[0]), nnx.RNN(cells[1])),
            (liftnn.RNN(cells[0], rngs=given), nnx.RNN(cells[1], rngs=flax)),
        ]:
            x = numbers(2, 5, 3)
            for _ in range(2):
                assert_same(ours(x), theirs(x))
            assert_same(ours(x, rngs=given), theirs(x, rngs=flax))
            assert_same(ours(x, rngs=given.carry), theirs(x, rngs=flax.carry))
            carry = cells[0].initialize_carry((2, 3), given), cells[1].initialize_carry((2, 3), flax)
            assert_same(
                ours(x, rngs=given, initial_carry=carry[0]), theirs(x, rngs=flax, initial_carry=carry[1])
            )
            assert int(given.carry.count) == int(flax.carry.count[...])


def test_without_a_stream_of_the_layer_the_cell_uses_its_own():
    options = {"carry_init": jax.nn.initializers.normal(), "keep_rngs": True}
    ours, theirs = make_pair("GRUCell", **options)
    ours, theirs = liftnn.RNN(ours, rngs=False), nnx.RNN(theirs, rngs=False)
    for _ in range(2):
        assert_same(ours(numbers(2, 5, 3)), theirs(numbers(2, 5, 3)))


@pytest.mark.thorough
@pytest.mark.parametrize("broadcast_rngs", [None, "dropout", ..., "RngState"])
@pytest.mark.sample(4)
def test_steps_draw_successive_keys_or_the_same_as_in_flax(broadcast_rngs):
    filters = [
        library.RngState if broadcast_rngs == "RngState" else broadcast_rngs for library in (liftnn, nnx)
    ]
    cell, flax_cell = Counting(), FlaxCounting()
    ours, theirs = liftnn.RNN(cell, broadcast_rngs=filters[0]), nnx.RNN(flax_cell, broadcast_rngs=filters[1])
    for _ in range(2):
        y = ours(jnp.ones((1, 4, 8)))
        assert_same(y, theirs(jnp.ones((1, 4, 8))))
        assert bool((y == y[:, :1]).all()) == (broadcast_rngs is not None)
    assert int(cell.dropout.rngs.count) == int(flax_cell.dropout.rngs.count[...])
    assert int(cell.steps) == int(flax_cell.steps[...]) == 8


def test_a_filter_that_selects_no_stream_changes_nothing():
    x = numbers(2, 5, 3)
    assert_same(layers("GRUCell", broadcast_rngs="dropout")[0](x), layers("GRUCell")[0](x))


def test_state_axes_give_each_step_its_slice_of_a_variable():
    class Biased(liftnn.RNNCellBase):
        num_feature_axes = 1

        def __init__(self):
            self.bias = liftnn.Param(jnp.arange(3.0))
            self.seen = liftnn.Variable(jnp.zeros(3))
            self.total = liftnn.Cache(jnp.array(0.0))

        def initialize_carry(self, input_shape, rngs=None, carry_init=None):
            return jnp.zeros(input_shape)

        def __call__(self, carry, inputs):
            self.seen.value = inputs.sum()
            self.total.value = self.total.value + inputs.sum()
            return carry, inputs + self.bias.value

    for shared in ({liftnn.Cache: liftnn.Carry}, {liftnn.Cache: None}):
        cell = Biased()
        y = liftnn.RNN(cell, state_axes={**shared, ...: 0})(jnp.ones((3, 2)))
        assert y.tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
        assert cell.seen.value.tolist() == [2.0, 2.0, 2.0]
        assert float(cell.total.value) == 6.0


def test_the_cell_is_traced_once():
    traces = []
    layer = liftnn.RNN(Counting(traces))
    liftnn.jit(lambda layer, x: layer(x))(layer, jnp.ones((2, 5, 3)))
    assert len(traces) == 1


def test_writes_of_the_cell_stay_under_every_transform():
    def run(layer, x):
        return layer(x).sum()

    x = jnp.ones((2, 5, 3))
    for transformed in (
        run,
        liftnn.jit(run),
        liftnn.grad(run, argnums=1),
        liftnn.remat(run),
        lambda m, x: liftnn.jit(lambda: run(m, x))(),
    ):
        layer = liftnn.RNN(Counting())
        transformed(layer, x)
        assert int(layer.cell.steps) == 5
        assert int(layer.cell.dropout.rngs.count) == 5


@pytest.mark.thorough
def test_a_layer_in_two_places_is_one_layer():
    class Twice(liftnn.RNNCellBase):
        num_feature_axes = 1

        def __init__(self):
            self.first = make_cell(liftnn, "SimpleCell")
            self.second = self.first

        def initialize_carry(self, input_shape, rngs=None, carry_init=None):
            return jnp.zeros((*input_shape[:-1], 4))

        def __call__(self, carry, inputs):
            carry, _ = self.first(carry, inputs)
            return self.second(carry, inputs)

    layer, x = liftnn.RNN(Twice()), numbers(2, 5, 3)
    gradient = liftnn.grad(lambda m: m(x).sum())(layer)
    assert layer.cell.first is layer.cell.second
    carry = jnp.zeros((2, 4))
    for i in range(5):
        for _ in range(2):
            carry, _ = layer.cell.first(carry, x[:, i])
    np.testing.assert_allclose(layer(x)[:, -1], carry, rtol=1e-5, atol=1e-6)
    assert len(jax.tree.leaves(gradient)) == 3


@pytest.mark.thorough
def test_vmap_over_an_ensemble_is_each_layer_alone():
    def make(key):
        return liftnn.RNN(liftnn.GRUCell(3, 4, rngs=liftnn.Rngs(key)), rngs=False)

    keys, x = jax.random.split(jax.random.key(0), 3), numbers(2, 5, 3)
    carry = jnp.zeros((2, 4))
    ensemble = liftnn.vmap(make)(keys)
    y = liftnn.vmap(lambda layer, x: layer(x, initial_carry=carry), in_axes=(0, None))(ensemble, x)
    for key, each in zip(keys, y, strict=True):
        np.testing.assert_allclose(each, make(key)(x, initial_carry=carry), rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_a_cell_whose_dtype_differs_from_that_of_its_carry_gives_what_the_loop_in_python_gives():
    cell = make_cell(liftnn, "SimpleCell", dtype=jnp.bfloat16)
    x = numbers(2, 5, 3)
    carry, outputs = liftnn.RNN(cell, return_carry=True)(x)
    expected = cell.initialize_carry((2, 3), liftnn.Rngs(0))
    for i in range(5):
        expected, y = cell(expected, x[:, i])
        np.testing.assert_allclose(
            np.asarray(outputs[:, i], np.float32), np.asarray(y, np.float32), rtol=2e-2, atol=2e-2
        )
    assert (carry.dtype, outputs.dtype) == (jnp.bfloat16, jnp.bfloat16)


@pytest.mark.thorough
@pytest.mark.parametrize("lengths", [None, LENGTHS["lengths"]], ids=["no lengths", "lengths"])
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("options", quick([{}, {"merge_fn": jnp.add}]))
@pytest.mark.part(2)
@pytest.mark.sample(4)
def test_both_directions_give_the_numbers_of_flax_bit_for_bit(options, time_major, lengths):
    def build(library):
        forward, backward = (
            library.RNN(getattr(library, name)(3, 4, rngs=library.Rngs(seed)))
            for seed, name in enumerate(("GRUCell", "LSTMCell"))
        )
        return library.Bidirectional(forward, backward, time_major=time_major, **options)

    x = numbers(5, 2, 3) if time_major else numbers(2, 5, 3)
    ours, theirs = build(liftnn), build(nnx)
    assert_same(ours(x, seq_lengths=lengths), theirs(x, seq_lengths=lengths))
    pair = ours(x, seq_lengths=lengths, return_carry=True)
    assert_same(pair, theirs(x, seq_lengths=lengths, return_carry=True))
    given = {"initial_carry": pair[0], "seq_lengths": lengths}
    assert_same(ours(x, **given), theirs(x, **given))

    def run(layer):
        return layer(x, seq_lengths=lengths)

    assert_same(gradients_of(liftnn, ours, run), gradients_of(nnx, theirs, run))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [True, False, "rngs"])
@pytest.mark.sample(3)
def test_both_directions_draw_their_carries_as_in_flax(kind):
    def build(library):
        options = {"carry_init": jax.nn.initializers.normal()}
        forward, backward = (library.RNN(make_cell(library, "GRUCell", **options)) for _ in range(2))
        return library.Bidirectional(forward, backward, rngs=library.Rngs(3) if kind == "rngs" else kind)

    ours, theirs, x = build(liftnn), build(nnx), numbers(2, 5, 3)
    for _ in range(2):
        assert_same(ours(x), theirs(x))
    given, flax = liftnn.Rngs(5), nnx.Rngs(5)
    assert_same(ours(x, rngs=given), theirs(x, rngs=flax))
    assert int(given.default.count) == int(flax.default.count[...])


def test_both_directions_may_share_one_layer():
    layer, x = liftnn.RNN(make_cell(liftnn, "GRUCell")), numbers(2, 5, 3)
    y = liftnn.Bidirectional(layer, layer)(x)
    np.testing.assert_array_equal(y[..., :4], layer(x))
    np.testing.assert_array_equal(y[..., 4:], layer(x, reverse=True, keep_order=True))


@pytest.mark.parametrize("name", ["RNN", "Bidirectional"])
@pytest.mark.parametrize("method", ["__init__", "__call__"])
def test_parameters_have_the_names_kinds_and_defaults_of_flax(name, method):
    ours, theirs = (
        inspect.signature(getattr(getattr(library, name), method)).parameters.values()
        for library in (liftnn, nnx)
    )
    assert [(p.name, p.kind) for p in ours] == [(p.name, p.kind) for p in theirs]
    defaults = [[p.default for p in each if p.name != "merge_fn"] for each in (ours, theirs)]
    assert defaults[0] == defaults[1]


@pytest.mark.thorough
def test_a_cell_with_two_feature_axes_takes_time_before_both():
    class Grid(liftnn.RNNCellBase):
        num_feature_axes = 2

        def initialize_carry(self, input_shape, rngs=None, carry_init=None):
            return jnp.zeros(input_shape)

        def __call__(self, carry, inputs):
            return carry + inputs, carry + inputs

    x = numbers(2, 5, 3, 3)
    np.testing.assert_allclose(liftnn.RNN(Grid())(x), jnp.cumsum(x, 1), rtol=1e-5, atol=1e-6)
    lengths = jnp.array([2, 4])
    carry, _ = liftnn.RNN(Grid(), return_carry=True)(x, seq_lengths=lengths)
    np.testing.assert_allclose(carry, jnp.stack([x[0, :2].sum(0), x[1, :4].sum(0)]), rtol=1e-5, atol=1e-6)
