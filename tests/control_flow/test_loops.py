"""`while_loop` and `fori_loop` against the Python loops that they stand for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder

import liftnn

X = jnp.linspace(-1.0, 1.0, 3)


class Net(liftnn.Module):
    """A step that reads, writes, draws and replaces."""

    def __init__(self):
        self.w = liftnn.Param(jnp.array([1.5, 0.5, 2.0]))
        self.steps = liftnn.Variable(0)
        self.scale = jnp.ones(3)
        self.last = liftnn.Intermediate(jnp.zeros(3))
        self.rngs = liftnn.Rngs(0)

    def __call__(self, x):
        self.steps.value = self.steps + 1
        self.scale = self.scale * 0.5
        x = jnp.tanh(x * self.w) + self.scale + 0.01 * jax.random.normal(self.rngs(), (3,))
        self.last = liftnn.Intermediate(x)
        return x


def body(state):
    net, x = state
    return net, net(x)


def below(limit):
    return lambda state: state[0].steps < limit


LOOPS = {
    "while": lambda n, state: liftnn.while_loop(below(n), body, state),
    "bounded": lambda n, state: liftnn.while_loop(below(n), body, state, max_steps=7),
    "for": lambda n, state: liftnn.fori_loop(0, n, lambda i, s: body(s), state),
}


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.sample(12)
def test_a_loop_is_the_python_loop(name, n):
    net, reference = Net(), Net()
    out, x = LOOPS[name](n, (net, X))
    expected = X
    for _ in range(n):
        expected = reference(expected)
    assert out is net
    assert_same((net, x), (reference, expected))
    assert not has_tracer(net)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", LOOPS)
def test_under_jit_with_a_number_of_steps_known_only_there(name):
    net, reference = Net(), Net()
    run = liftnn.jit(lambda net, n, x: LOOPS[name](n, (net, x)))
    out, x = run(net, 3, X)
    expected = X
    for _ in range(3):
        expected = reference(expected)
    assert out is net
    assert_same((net, x), (reference, expected))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["bounded", "for"])
@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.sample(10)
def test_reverse_mode_through_a_loop(name, n):
    def loss(net, x):
        return (LOOPS[name](n, (net, x))[1] ** 2).sum()

    def plain(net, x):
        for _ in range(n):
            x = net(x)
        return (x**2).sum()

    net, reference = Net(), Net()
    grads = liftnn.jit(liftnn.grad(loss, argnums=(0, 1)))(net, X)
    assert_same(grads, liftnn.grad(plain, argnums=(0, 1))(reference, X))
    assert_same(net, reference)


@pytest.mark.sample(2)
@pytest.mark.parametrize("most", [0, 1, 2, 3, 4, 5, 9, 10, 11])
def test_a_bounded_loop_stops_after_so_many_steps(most):
    counter = liftnn.Variable(jnp.array(0))

    def count(counter):
        counter.value = counter + 1
        return counter

    assert liftnn.while_loop(lambda c: c < 10, count, counter, max_steps=most) is counter
    assert int(counter.value) == min(most, 10)


def test_what_a_bounded_loop_keeps_for_the_gradient_grows_with_the_root_of_the_bound():
    def loss(x, most):
        return liftnn.while_loop(lambda x: x.sum() < 1e9, lambda x: jnp.sin(x) + x, x, max_steps=most).sum()

    def kept(most):
        _, pullback = jax.vjp(lambda x: loss(x, most), jnp.ones(64))
        return sum(x.size for x in jax.tree.leaves(pullback))

    small, large = kept(16), kept(1600)
    assert large < 15 * small


def test_forward_mode_through_an_unbounded_loop():
    def f(x):
        return liftnn.while_loop(lambda x: x < 100.0, lambda x: x * x, x)

    _, tangent = jax.jvp(f, (3.0,), (1.0,))
    assert float(tangent) == 8 * 3.0**7


def test_the_index_is_that_of_jax():
    total = liftnn.Variable(jnp.zeros((), jnp.int32))

    def add(i, total):
        total.value = total * 10 + i
        return total

    for lower, upper in [(3, 7), (jnp.int32(3), 7), (3, liftnn.Variable(jnp.int32(7)))]:
        total.value = jnp.zeros((), jnp.int32)
        assert int(liftnn.fori_loop(lower, upper, add, total).value) == 3456
    assert int(liftnn.fori_loop(5, 2, add, total).value) == 3456


@pytest.mark.parametrize("carry", [jnp.float32(0), jnp.int32(1), jnp.int8(1)])
@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("bound", [int, np.int16, np.uint8, jnp.int16, jnp.uint8, jnp.int32])
def test_the_index_has_the_type_of_jax_whatever_the_type_of_the_bounds(bound, steps, carry):
    def square(i, value):
        return value + i * i

    def written(i, net):
        net.value = square(i, net)
        return net

    def written_to_a_first_new_one(i, holder):
        if not hasattr(holder, "copy"):
            holder.copy = liftnn.Variable(holder.layer.value)
        written(i, holder.copy)
        return holder

    bounds = bound(200), bound(200 + steps)
    expected = jax.lax.fori_loop(*bounds, square, carry)
    variable, holder = liftnn.Variable(carry), Holder(layer=liftnn.Variable(carry))
    liftnn.fori_loop(*bounds, written, variable)
    liftnn.jit(lambda holder: liftnn.fori_loop(*bounds, written_to_a_first_new_one, holder))(holder)
    for value in (variable, getattr(holder, "copy", variable)):
        assert (value.tolist(), value.dtype) == (expected.tolist(), expected.dtype)


@pytest.mark.sample(3)
@pytest.mark.parametrize("unroll", [1, 2, True])
def test_unroll(unroll):
    net, reference = Net(), Net()
    _, x = liftnn.fori_loop(0, 4, lambda i, s: body(s), (net, X), unroll=unroll)
    _, expected = liftnn.fori_loop(0, 4, lambda i, s: body(s), (reference, X))
    assert_same((net, x), (reference, expected))


def test_bound_methods_and_modules_as_functions_are_lifted():
    class Search(liftnn.Module):
        def __init__(self):
            self.limit = liftnn.Variable(jnp.array(50.0))
            self.calls = liftnn.Variable(0)

        def goes_on(self, x):
            return x < self.limit.value

        def __call__(self, x):
            self.calls.value = self.calls + 1
            return x * 2

    search = Search()
    assert float(liftnn.while_loop(search.goes_on, search, 1.0)) == 64.0
    assert int(search.calls.value) == 6


def test_a_new_module_in_each_step_leaves_the_first_as_it_was():
    def shrink(model):
        new = Affine()
        new.w.value, new.b.value, new.calls.value = model.w / 2, model.b, model.calls
        return new

    first = Affine(8.0)
    last = liftnn.while_loop(lambda m: m.w[0] > 1.0, shrink, first)
    assert last is not first
    assert (float(first.w[0]), float(last.w[0])) == (8.0, 1.0)


def test_weakly_typed_values_settle_as_in_jax():
    box = liftnn.Variable(0)

    def add(i, box):
        box.value = box + jnp.float32(0.5)
        return box

    assert liftnn.fori_loop(0, 3, add, box).value.dtype == jnp.float32
    assert float(box.value) == 1.5
    assert float(liftnn.while_loop(lambda x: x < 2, lambda x: x + 0.5, 0)) == 2.0


def test_only_what_is_written_is_carried():
    net = Net()
    state, graphdef = liftnn.split(net)

    def f(state, n):
        def step(net):
            net.steps.value = net.steps + net.w.sum().astype(int)
            return net

        return liftnn.while_loop(lambda net: net.steps < n, step, graphdef.merge(state)).steps.value

    (loop,) = [e for e in jax.make_jaxpr(f)(state, 3).jaxpr.eqns if e.primitive.name == "while"]
    assert [v.aval.shape for v in loop.outvars] == [()]


def test_loops_in_vmap():
    def run(net, n):
        return liftnn.while_loop(lambda s: s[0].steps < n, lambda s: (s[0], s[0](s[1])), (net, X))[1]

    nets = liftnn.vmap(lambda _: Net(), in_axes=None, axis_size=3)(0)
    counts = jnp.array([0, 2, 3])
    out = liftnn.vmap(run)(nets, counts)
    for lane, n in enumerate(counts):
        reference, x = Net(), X
        for _ in range(n):
            x = reference(x)
        np.testing.assert_allclose(out[lane], x, rtol=1e-6)
        np.testing.assert_allclose(nets.last.value[lane], reference.last.value, rtol=1e-6)


def test_outer_tracers_may_be_closed_over():
    def f(s):
        scaled = liftnn.while_loop(
            lambda m: m.w[0] < 10, lambda m: Holder(w=m.w * s), Holder(w=X + 2), max_steps=4
        )
        return scaled.w.sum()

    with jax.checking_leaks():
        assert float(liftnn.grad(f)(2.0)) == (1 + 2 + 3) * 4 * 2.0**3


def test_an_exception_in_the_body_leaves_everything_as_it_was():
    net, reference = Net(), Net()

    def fails(i, net):
        net(X)
        raise KeyError("half way")

    for upper in (1, 3, jnp.array(3)):
        with pytest.raises(KeyError, match="half way"):
            liftnn.fori_loop(0, upper, fails, net)
    with pytest.raises(KeyError, match="half way"):
        liftnn.while_loop(lambda net: True, lambda net: fails(0, net), net)
    assert_same(net, reference)


def test_a_bound_that_is_no_integer_is_refused_as_by_jax():
    with pytest.raises(TypeError, match="not understood"):
        liftnn.fori_loop(0, "1", lambda i, x: x, 1.0)
    with pytest.raises(TypeError, match="equal types, got int8 and int32"):
        liftnn.fori_loop(jnp.int8(0), jnp.int32(3), lambda i, x: x, 1.0)
