"""A mapped function may get the module that owns what is mapped: as argument, itself, in a bound method or partial."""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.mapping import test_captured_owner as captured
from tests.mapping.test_captured_owner import (
    BODIES,
    OUTER,
    Block,
    Net,
    X,
    as_list,
    method,
    plain,
    read,
    static,
    submodule,
    written,
)

import liftnn
from liftnn import errors

HOW = {
    "method": lambda f, net: types.MethodType(f, net),
    "partial": lambda f, net: functools.partial(f, net),
    "partial of a method": lambda f, net: functools.partial(types.MethodType(f, net)),
    "keyword of a partial": lambda f, net: functools.partial(lambda *args, net: f(net, *args), net=net),
    "module": lambda f, net: as_module(f, net),
}


def as_module(f, net):
    """The net itself, whose call is the function."""
    net.__class__ = type("Called", (Net,), {"__call__": f})
    return net


def scanned(net, body, x, how):
    step = HOW[how](lambda net, x, b: body(net, b, x), net)
    return liftnn.scan(step, in_axes=(liftnn.Carry, 0), out_axes=liftnn.Carry)(x, net.blocks)


def scanned_in_reverse(net, body, x, how):
    """As `jax.lax.scan`; over the blocks from the last to the first."""
    step = HOW[how](lambda net, x, b: (body(net, b, x), None), net)
    return liftnn.scan(step, reverse=True)(x, net.blocks)[0]


def mapped(net, body, x, how):
    return liftnn.vmap(HOW[how](lambda net, b, x: body(net, b, x), net), in_axes=(0, None))(
        net.blocks, x
    ).sum(0)


def looped(net, body, x, how):
    return liftnn.map(HOW[how](lambda net, b: body(net, b, x), net), net.blocks).sum(0)


OVER = [scanned, scanned_in_reverse, mapped, looped]


def oracle(net, body, x, over):
    """The same in plain Python, with a list of blocks."""
    if over is scanned_in_reverse:
        net.blocks.reverse()
        try:
            return oracle(net, body, x, scanned)
        finally:
            net.blocks.reverse()
    return plain(net, body, x, captured.scanned if over is scanned else captured.mapped)


CASES = [
    (over, body, how, outer)
    for over in OVER
    for body in BODIES
    for how, outer in [*((how, "plain") for how in HOW), ("method", "jit"), ("method", "remat")]
    if (how, outer) == ("method", "plain") or body in (read, written, method)
    if over is not mapped or body not in (written, submodule)  # batch elements cannot write what they share
]


@pytest.mark.parametrize("over, body, how, outer", CASES)
def test_the_other_parts_are_read_and_written(over, body, how, outer):
    net, reference = Net(), as_list(Net())
    for _ in range(2):
        out = OUTER[outer](lambda net: over(net, body, X, how))(net)
        np.testing.assert_allclose(out, oracle(reference, body, X, over), rtol=1e-5)
        np.testing.assert_allclose(net.blocks.mean.value, [b.mean.value for b in reference.blocks], rtol=1e-5)
        np.testing.assert_allclose(net.head.mean.value, reference.head.mean.value, rtol=1e-5)
        assert int(net.calls) == int(reference.calls)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("over", OVER)
def test_what_is_mapped_cannot_be_used_through_its_owner(over, how):
    def whole(net, b, x):
        return b(x) + net.blocks.w.value.sum()

    net = Net()
    before = jax.tree.map(np.asarray, liftnn.state(net).to_pure_dict())
    with pytest.raises(errors.AliasingError, match=r"blocks\.w was used, but"):
        over(net, whole, X, how)
    jax.tree.map(np.testing.assert_array_equal, before, liftnn.state(net).to_pure_dict())
    np.testing.assert_allclose(over(net, static, X, how), oracle(as_list(net), static, X, over), rtol=1e-5)


def by_argument(over, net, body, x):
    """The map with the net as an argument without an axis."""
    if over is looped:
        pytest.skip("map has one argument")
    if over is mapped:
        return liftnn.vmap(body, in_axes=(None, 0, None))(net, net.blocks, x).sum(0)

    def step(net, x, b):
        return body(net, b, x)

    options = {"in_axes": (None, liftnn.Carry, 0), "out_axes": liftnn.Carry}
    return liftnn.scan(step, reverse=over is scanned_in_reverse, **options)(net, x, net.blocks)


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("body", [read, written, method])
def test_the_module_can_be_an_argument_without_an_axis(body, over, outer):
    if over is mapped and body is written:
        pytest.skip("batch elements cannot write what they share")
    net, reference = Net(), as_list(Net())
    for _ in range(2):
        out = OUTER[outer](lambda net: by_argument(over, net, body, X))(net)
        np.testing.assert_allclose(out, oracle(reference, body, X, over), rtol=1e-5)
        np.testing.assert_allclose(net.blocks.mean.value, [b.mean.value for b in reference.blocks], rtol=1e-5)
        assert int(net.calls) == int(reference.calls)


def test_a_variable_of_the_module_can_be_mapped():
    net = Net()
    f = liftnn.vmap(lambda net, w: net.gain * w, in_axes=(None, 0))
    np.testing.assert_allclose(f(net, net.blocks.w), net.gain * net.blocks.w.value, rtol=1e-6)


def test_a_decorated_method_maps_over_a_part():
    class Decorated(Net):
        @liftnn.vmap(in_axes=(None, 0, None))
        def one(self, b, x):
            return self.gain * b(x)

    net = Decorated()
    expected = [net.gain * b(X) for b in as_list(net).blocks]
    np.testing.assert_allclose(net.one(net.blocks, X), expected, rtol=1e-6)


@pytest.mark.parametrize("outer", OUTER)
def test_the_owner_cannot_be_carried(outer):
    net = Net()
    loop = liftnn.scan(lambda c, b: ((c[0], c[0].gain * b(c[1])), None))
    with pytest.raises(errors.AliasingError, match="was used, but it is also"):
        OUTER[outer](lambda net: loop((net, X), net.blocks)[0][1])(net)


def test_one_mapped_method_for_parts_and_for_other_modules():
    class Named(Net):
        def one(self, b, x):
            self.last = type(b).__name__
            return self.scale * b(x)

        def two(self, b, x):
            return self.scale * b(x)

    net, other = Named(), Net().blocks
    of_one, of_two = (liftnn.vmap(f, in_axes=(0, None)) for f in (net.one, net.two))
    expected = [net.scale * b(X) for b in as_list(net).blocks]
    for _ in range(2):
        np.testing.assert_allclose(of_one(other, X), expected, rtol=1e-6)  # not a part: the module may change
        assert net.last == "Block"
        np.testing.assert_allclose(of_two(net.blocks, X), expected, rtol=1e-6)
        np.testing.assert_allclose(of_two(other, X), expected, rtol=1e-6)
        net.last = None
        with pytest.raises(errors.TraceContextError, match="Cannot change the attribute 'last'"):
            of_one(net.blocks, X)
    net.scale = 3.0
    np.testing.assert_allclose(of_two(net.blocks, X), [1.5 * y for y in expected], rtol=1e-6)


def test_a_keyword_has_its_axis():
    net = Net()
    call = liftnn.vmap(types.MethodType(static, net), in_axes=(0, None))
    expected = [net.scale * b(X) for b in as_list(net).blocks]
    np.testing.assert_allclose(call(net.blocks, x=X), expected, rtol=1e-6)


def test_gradients_reach_both():
    def by_hand(w, gain):
        return sum((gain * (X * w[i])).sum() for i in range(len(w)))

    def loss(net):
        return liftnn.vmap(types.MethodType(read, net), in_axes=(0, None))(net.blocks, X).sum()

    net = Net()
    grads = liftnn.grad(loss)(net)
    of_w, of_gain = jax.grad(by_hand, argnums=(0, 1))(net.blocks.w.value, net.gain.value)
    np.testing.assert_allclose(grads["inside"]["blocks"]["w"].value, of_w, rtol=1e-5)
    np.testing.assert_allclose(grads["gain"].value, of_gain, rtol=1e-5)


@pytest.mark.parametrize("spec", [jax.sharding.PartitionSpec(), None])
def test_sharded_parts_of_an_argument_that_is_whole(spec):
    net, mesh = Net(), jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    f = liftnn.shard_map(lambda net, b: net.gain * b.w, mesh=mesh, in_specs=(spec, P("x")), out_specs=P("x"))
    np.testing.assert_allclose(f(net, net.blocks), 3 * net.blocks.w.value, rtol=1e-6)


@pytest.mark.parametrize("how", HOW)
def test_sharded_parts(how):
    net, mesh = Net(), jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    f = HOW[how](lambda net, b: net.gain * b.w, net)
    out = liftnn.shard_map(f, mesh=mesh, in_specs=P("x"), out_specs=P("x"))(net.blocks)
    np.testing.assert_allclose(out, 3 * net.blocks.w.value, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*pmap")
def test_parts_on_devices_in_warm_calls_and_other_shapes():
    net = Net(liftnn.vmap(Block)(jnp.arange(1)))
    f = liftnn.pmap(
        types.MethodType(lambda net, b, x: net.gain * net.scale * b.w * x, net), in_axes=(0, None)
    )
    for x in (X, X, X, X[:1], X, X[:, :2]):
        net.gain.value = net.gain + 1
        net.scale += 1.0
        for _ in range(2):
            expected = float(net.gain.value) * net.scale * net.blocks.w.value[0] * x
            np.testing.assert_allclose(f(net.blocks, x)[0], expected, rtol=1e-6)
