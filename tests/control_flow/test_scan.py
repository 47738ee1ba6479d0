"""`scan` against the Python loop that it stands for, value and gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.control_flow.stacks import STEPS, Cell, X, stacked
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder

import liftnn
from liftnn import Carry

# --- carry and axes


def test_the_carry_may_stand_in_several_places():
    def body(parts, x, count):
        model, total = parts["model"], parts["total"]
        return {"model": model, "total": total + model(x)}, (x * count, count + 1)

    run = liftnn.scan(body, in_axes=(Carry, 0, Carry), out_axes=(Carry, (0, Carry)))
    model, reference = Affine(2.0), Affine(2.0)
    xs = jnp.arange(6.0).reshape(2, 3)
    parts, (ys, count) = run({"model": model, "total": X}, xs, 1)
    assert parts["model"] is model
    assert_same(parts["total"], X + reference(xs[0]) + reference(xs[1]))
    assert_same(model, reference)
    assert ys.tolist() == [[0.0, 1.0, 2.0], [6.0, 8.0, 10.0]]
    assert int(count) == 3


def test_axes_other_than_the_first():
    xs = jnp.arange(24.0).reshape(2, 3, 4)
    run = liftnn.scan(lambda c, x: (c + x.sum(), x * 2), in_axes=(Carry, -1), out_axes=(Carry, 1))
    total, ys = run(0.0, xs)
    expected, expected_ys = jax.lax.scan(lambda c, x: (c + x.sum(), x * 2), 0.0, jnp.moveaxis(xs, -1, 0))
    assert_same((total, ys), (expected, jnp.moveaxis(expected_ys, 0, 1)))


def test_axes_by_filter():
    axes = liftnn.StateAxes({liftnn.Param: 1, liftnn.BatchStat: Carry, ...: None})

    class Net(liftnn.Module):
        def __init__(self):
            self.w = liftnn.Param(jnp.arange(6.0).reshape(3, 2))
            self.mean = liftnn.BatchStat(jnp.zeros(3))
            self.k = liftnn.Variable(2.0)

    def body(net, x):
        net.mean.value = net.mean + net.w
        net.w.value = net.w * net.k
        return x + net.w.value.sum()

    net = Net()
    out = liftnn.scan(body, in_axes=(axes, Carry), out_axes=Carry)(net, 0.0)
    assert float(out) == 30.0
    assert net.mean.value.tolist() == [1.0, 5.0, 9.0]
    assert net.w.value.tolist() == [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]


def test_keyword_arguments_are_scanned_over_their_first_axis():
    run = liftnn.scan(lambda c, *, x, model: (c + model(x), None), in_axes=(Carry,))
    model = liftnn.vmap(Affine)(jnp.arange(1.0, 3.0))
    c, _ = run(X, x=jnp.ones((2, 3)), model=model)
    assert c.tolist() == (X + 3).tolist()
    assert model.calls.value.tolist() == [1, 1]


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_any_number_of_steps(length):
    cell, reference = Cell(), Cell()
    xs = jnp.ones((length, 3))
    h, ys = liftnn.scan(cell)(X, xs)
    expected = X
    for x in xs:
        expected, _ = reference(expected, x)
    assert_same(h, expected)
    assert ys.shape == (length,)
    assert_same(cell, reference)


def test_no_step_changes_nothing_even_where_steps_would_make_something_new():
    layers = liftnn.vmap(Affine)(jnp.zeros(0))
    first = Affine()

    def body(model, layer):
        layer.note = liftnn.Param(jnp.ones(2))
        return Affine(), layer.w.value

    before = vars(layers).copy()
    model, ys = liftnn.scan(body)(first, layers)
    assert model is first
    assert ys.shape == (0, 3)
    assert vars(layers) == before


def test_a_length_without_anything_to_scan():
    model = Affine(2.0)
    out, ys = liftnn.scan(lambda x, _: (model.w * x, None), length=3)(jnp.ones(3), None)
    assert out.tolist() == [8.0] * 3
    assert ys is None


def test_a_module_that_each_step_makes_is_stacked_or_carried():
    def body(model, x):
        made = Affine(3.0)
        made.b.value = x
        new = Affine()
        new.w.value, new.calls.value = model.w * 2, model.calls + 1
        return new, made

    first = Affine()
    last, made = liftnn.scan(body)(first, jnp.arange(6.0).reshape(2, 3))
    assert last is not first
    assert last.w.value.tolist() == [4.0] * 3
    assert first.w.value.tolist() == [1.0] * 3
    assert int(last.calls.value) == 2
    assert made.b.value.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert made.w.value.shape == (2, 3)


def test_a_variable_made_anew_in_each_step_stands_in_the_place_of_the_old_one():
    class Net(liftnn.Module):
        def __init__(self):
            self.seen = liftnn.Intermediate(0.0)
            self.pair = (jnp.zeros(()), [liftnn.Variable(1.0)])

        def step(self, x):
            self.seen = liftnn.Intermediate(self.seen + x)
            self.pair = (self.pair[0] + x, [liftnn.Variable(self.pair[1][0] * 2)])

    net, reference = Net(), Net()
    old = net.seen
    liftnn.scan(net.step, in_axes=0, out_axes=0)(jnp.arange(3.0))
    for x in jnp.arange(3.0):
        reference.step(x)
    assert_same(net, reference)
    assert net.seen is not old
    assert float(old.value) == 0.0


# --- randomness


def test_a_shared_stream_draws_what_the_loop_would_draw():
    rngs, reference = liftnn.Rngs(0), liftnn.Rngs(0)
    draw = liftnn.scan(lambda rngs, x: jax.random.normal(rngs()), in_axes=(None, 0), out_axes=0)
    for _ in range(2):
        assert_same(draw(rngs, X), jnp.stack([jax.random.normal(reference()) for _ in range(3)]))
    assert_same(rngs, reference)


def test_split_streams_draw_what_the_elements_of_a_vmap_draw():
    rngs, reference = liftnn.Rngs(0), liftnn.Rngs(0)

    def draw(rngs, x):
        return jax.random.normal(rngs()) + jax.random.normal(rngs())

    scanned = liftnn.scan(draw, in_axes=(None, 0), out_axes=0, split_rngs=True)
    mapped = liftnn.vmap(draw, in_axes=(None, 0))
    for _ in range(2):
        assert_same(scanned(rngs, X), mapped(reference, X))
    assert_same(rngs, reference)


def test_dropout_in_scanned_layers_differs_from_layer_to_layer():
    layers = stacked(lambda key: liftnn.Dropout(0.5, rngs=liftnn.Rngs(key)))
    masks = liftnn.scan(lambda layer: layer(jnp.ones(64)), in_axes=0, out_axes=0)(layers)
    assert len({tuple(m) for m in masks.tolist()}) == STEPS


# --- nesting


@pytest.mark.thorough
def test_scans_in_scans_in_vmap_in_grad_in_jit():
    cell, reference = Cell(), Cell()
    xs = jnp.arange(24.0).reshape(2, 2, 2, 3) / 10

    def run(cell, xs):
        inner = liftnn.scan(lambda cell, h, x: cell(h, x), in_axes=(None, Carry, 0))
        return liftnn.scan(inner, in_axes=(None, Carry, 0))(cell, X, xs)[0]

    def loss(cell, xs):
        return liftnn.vmap(run, in_axes=(liftnn.StateAxes({liftnn.Param: None, ...: 0}), 0))(cell, xs).sum()

    def batched(cell):
        """The cell with statistics for each lane."""
        cell.steps.value = jnp.zeros(2)
        cell.last.value = jnp.zeros((2, 3))
        cell.rngs = liftnn.Rngs(1).split(2)
        return cell

    cell = batched(cell)
    grads = liftnn.jit(liftnn.grad(loss))(cell, xs)
    keys = cell.rngs.default.key.value

    def plain(net, lane):
        h = X
        for x in xs[lane].reshape(-1, 3):
            h, _ = net(h, x)
        return h.sum()

    expected = []
    for lane in range(2):
        reference = Cell()
        reference.rngs = liftnn.Rngs(keys[lane])
        expected.append(liftnn.grad(plain)(reference, lane))
        np.testing.assert_allclose(cell.last.value[lane], reference.last.value, rtol=1e-5)
    assert_same(grads, jax.tree.map(jnp.add, *expected))
    assert cell.steps.value.tolist() == [4, 4]
    assert not has_tracer(cell)


def test_outer_tracers_and_outer_modules_may_be_read():
    model = Affine(2.0)

    def f(scale, x):
        return liftnn.scan(lambda c, x: (c + model.w * x * scale, None))(jnp.zeros(3), x)[0].sum()

    with jax.checking_leaks():
        assert float(liftnn.grad(f)(3.0, jnp.ones((2, 3)))) == 12.0


def test_as_a_decorator_on_a_method_the_module_is_shared_by_all_steps():
    class Net(liftnn.Module):
        def __init__(self):
            self.w = liftnn.Param(jnp.array(2.0))
            self.calls = liftnn.Variable(0)

        @liftnn.scan(in_axes=(None, Carry, 0), out_axes=(Carry, 0))
        def run(self, c, x):
            self.calls.value = self.calls + 1
            return c * self.w, c + x

    net = Net()
    c, ys = net.run(1.0, X)
    assert float(c) == 8.0
    assert ys.tolist() == [0.0, 2.0, 5.0]
    assert int(net.calls.value) == 3


# --- failure


def test_an_exception_in_the_body_leaves_everything_as_it_was():
    cell, reference = Cell(), Cell()

    def body(cell, h, x):
        cell(h, x)
        raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        liftnn.scan(body, in_axes=(None, Carry, 0))(cell, X, jnp.ones((5, 3)))
    assert_same(cell, reference)


def test_a_step_may_replace_a_variable_that_stands_elsewhere_in_the_first_step():
    net = Holder(a=liftnn.Param(1.0))
    net.b = shared = net.a

    def body(net):
        net.a = liftnn.Param(2 * net.a)

    liftnn.scan(body, in_axes=None, out_axes=None, length=3)(net)
    assert net.b is shared
    assert (float(net.a), float(net.b)) == (8.0, 1.0)


def test_modules_that_change_places_are_refused():
    a, b = Affine(), Affine()
    with pytest.raises(
        liftnn.StructureError, match="replaced by an object that is or was at another path too"
    ):
        liftnn.scan(lambda pair: pair[::-1], in_axes=(Carry,), out_axes=Carry, length=3)((a, b))
