"""A mapped function may capture the module that owns what is mapped, and use its other parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors

N = 3
X = jnp.linspace(0.5, 1.5, 6).reshape(2, 3)


class Block(liftnn.Module):
    """A layer with weights and a statistic that each call writes."""

    def __init__(self, seed):
        self.w = liftnn.Param(1.0 + jnp.float32(seed))
        self.mean = liftnn.BatchStat(jnp.float32(0))

    def __call__(self, x):
        self.mean.value = 0.5 * self.mean + x.mean()
        return x * self.w


class Net(liftnn.Module):
    """A stack of blocks beside other parts; `body` is what the function does with one block."""

    def __init__(self, blocks=None):
        self.scale = 2.0
        self.gain = liftnn.Param(jnp.float32(3.0))
        self.calls = liftnn.Variable(jnp.int32(0))
        self.act = jnp.tanh
        self.head = Block(5)
        self.inside = {"blocks": liftnn.vmap(Block)(jnp.arange(N)) if blocks is None else blocks}

    @property
    def blocks(self):
        return self.inside["blocks"]

    def helper(self, x):
        return x * self.gain

    def __call__(self, b, x):
        return self.helper(b(x))


def static(net, b, x):
    return net.scale * b(x)


def function(net, b, x):
    return net.act(b(x))


def read(net, b, x):
    return net.gain * b(x)


def method(net, b, x):
    return net.helper(b(x))


def called(net, b, x):
    return net(b, x)


def submodule(net, b, x):
    return net.head(b(x))


def written(net, b, x):
    net.calls += 1
    return b(x)


def in_remat(net, b, x):
    return liftnn.remat(lambda x: net.gain * b(x))(x)


def in_jit(net, b, x):
    return liftnn.jit(lambda x: net.helper(b(x)))(x)


def in_branch(net, b, x):
    return liftnn.cond(x.sum() > 0, lambda x: net.gain * b(x), lambda x: b(x) * net.scale, x)


def in_gradient(net, b, x):
    return b(x) * liftnn.grad(lambda t: net.gain * t**2 * b.w)(1.0)


BODIES = [
    static,
    function,
    read,
    method,
    called,
    submodule,
    written,
    in_remat,
    in_jit,
    in_branch,
    in_gradient,
]


def scanned(net, body, x):
    def step(x, b):
        return body(net, b, x)

    return liftnn.scan(step, in_axes=(liftnn.Carry, 0), out_axes=liftnn.Carry)(x, net.blocks)


def mapped(net, body, x):
    return liftnn.vmap(lambda b: body(net, b, x))(net.blocks).sum(0)


def looped(net, body, x):
    return liftnn.map(lambda b: body(net, b, x), net.blocks).sum(0)


def plain(net, body, x, over):
    """The same with a list of blocks in plain Python."""
    total = 0.0
    for b in net.blocks:
        y = body(net, b, x)
        x, total = (y, y) if over is scanned else (x, total + y)
    return total


def as_list(net):
    """A net with separate blocks."""
    blocks = [Block(i) for i in range(N)]
    return Net(blocks)


OUTER = {"plain": lambda f: f, "jit": liftnn.jit, "remat": liftnn.remat}


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("over", [scanned, mapped, looped])
@pytest.mark.parametrize("body", BODIES)
def test_the_other_parts_are_read_and_written(body, over, outer):
    if over is mapped and body in (written, submodule):
        pytest.skip("batch elements cannot write what they share")
    net, reference = Net(), as_list(Net())
    for _ in range(2):
        out = OUTER[outer](lambda net: over(net, body, X))(net)
        np.testing.assert_allclose(out, plain(reference, body, X, over), rtol=1e-5)
        np.testing.assert_allclose(net.blocks.mean.value, [b.mean.value for b in reference.blocks], rtol=1e-5)
        np.testing.assert_allclose(net.head.mean.value, reference.head.mean.value, rtol=1e-5)
        assert int(net.calls) == int(reference.calls)


def sowing(net, b, x):
    """A body that creates a Variable of a slice in its first step."""
    b.sow(liftnn.Intermediate, "seen", x.sum())
    return net.gain * b(x)


def sowing_below(net, b, x):
    b.inner.sow(liftnn.Intermediate, "seen", x.sum())
    return net.gain * b(x)


def remembering(net, b, x):
    if not hasattr(b, "count"):
        b.count = liftnn.Variable(jnp.float32(0))
    b.count.value = b.count + net.scale
    return net.gain * b(x) * b.count


def marking(net, b, x):
    b.mark = "seen"
    return net.gain * b(x)


def growing(net, b, x):
    if not hasattr(b, "more"):
        b.more = Block(3)
    return net.gain * b(x) * b.more.w


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("over", [scanned, mapped, looped])
@pytest.mark.parametrize("body", [sowing, sowing_below, remembering, marking, growing])
def test_a_slice_gets_new_attributes(body, over, outer):
    def with_inner(block):
        block.inner = liftnn.Module()
        return block

    net = Net(with_inner(liftnn.vmap(Block)(jnp.arange(N))))
    reference = Net([with_inner(Block(i)) for i in range(N)])
    for _ in range(3):
        out = OUTER[outer](lambda net: over(net, body, X))(net)
        np.testing.assert_allclose(out, plain(reference, body, X, over), rtol=1e-5)
        stacked = liftnn.state(net.blocks).flat()
        for path, found in stacked.items():
            expected = [liftnn.state(b).flat()[path].value for b in reference.blocks]
            jax.tree.map(lambda x, *y: np.testing.assert_allclose(x, y, rtol=1e-5), found.value, *expected)
        assert stacked.keys() == liftnn.state(reference.blocks[0]).flat().keys()
        assert vars(net.blocks).keys() == vars(reference.blocks[0]).keys()


def remarking(net, b, x):
    b.mark = (getattr(b, "mark", 0) + 1) % 2
    return net.gain * b(x)


def unmarking(net, b, x):
    del b.mark
    return net.gain * b(x)


def replacing(net, b, x):
    b.mean = liftnn.BatchStat(x.mean())
    return net.gain * x * b.w


def relabelling(net, b, x):
    b.w.set_metadata(label=1)
    return net.gain * b(x)


def marking_shared(net, b, x):
    b.shared.mark = "seen"
    return net.gain * b(x)


@pytest.mark.parametrize("over", [scanned, mapped, looped])
@pytest.mark.parametrize("body", [remarking, unmarking, replacing, relabelling, marking_shared])
def test_other_changes_of_a_slice_would_not_be_seen(body, over):
    net = Net()
    net.blocks.mark = 0
    net.shared = net.blocks.shared = liftnn.Module()
    before = liftnn.split(net)[-1]
    with pytest.raises(errors.TraceContextError, match="where the change would not be seen"):
        over(net, body, X)
    assert liftnn.split(net)[-1] == before
    np.testing.assert_allclose(over(net, read, X), plain(as_list(net), read, X, over), rtol=1e-5)


def test_a_scan_in_reverse():
    net, reference = Net(), as_list(Net())
    out = liftnn.scan(
        lambda x, b: written(net, b, x), in_axes=(liftnn.Carry, 0), out_axes=liftnn.Carry, reverse=True
    )(X, net.blocks)
    expected = X
    for b in reversed(reference.blocks):
        expected = written(reference, b, expected)
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    assert int(net.calls) == N


def test_several_axes_and_filters():
    net = Net()
    axes = liftnn.StateAxes({liftnn.Param: 0, ...: None})
    net.blocks.mean.value = jnp.float32(0)
    out = liftnn.vmap(lambda b, x: net.gain * b.w * x, in_axes=(axes, None))(net.blocks, X)
    np.testing.assert_allclose(out, 3 * net.blocks.w.value[:, None, None] * X, rtol=1e-6)
    with pytest.raises(
        errors.AliasingError, match=r"net\.inside\.blocks\.w was used, but it is also args\[0\]\.w"
    ):
        liftnn.vmap(lambda b, x: b.w * x + net.blocks.w.value.sum(), in_axes=(axes, None))(net.blocks, X)
    out = liftnn.vmap(lambda b, x: b.w * x + net.blocks.mean, in_axes=(axes, None))(net.blocks, X)
    np.testing.assert_allclose(out, net.blocks.w.value[:, None, None] * X, rtol=1e-6)


def test_sharded_parts():
    net, mesh = Net(), jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    f = liftnn.shard_map(lambda b: net.gain * b.w, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    np.testing.assert_allclose(f(net.blocks), 3 * net.blocks.w.value, rtol=1e-6)
    wrong = liftnn.shard_map(
        lambda b: net.blocks.w.value.sum() * b.w, mesh=mesh, in_specs=P("x"), out_specs=P("x")
    )
    with pytest.raises(errors.AliasingError, match=r"here only args\[0\]\.w has a value"):
        wrong(net.blocks)


def test_nested_maps_each_see_their_own_slices():
    net = Net()

    def outer(b, x):
        return liftnn.vmap(lambda row: net.gain * b.w * row)(x).sum(0)

    out = liftnn.vmap(outer, in_axes=(0, None))(net.blocks, X)
    np.testing.assert_allclose(out, 3 * net.blocks.w.value[:, None] * X.sum(0), rtol=1e-6)


def test_the_axis_of_an_argument_is_that_of_an_argument_still():
    net = Net()
    with pytest.raises(errors.AliasingError, match=r"args\[0\]\.w and args\[1\]\.w are the same Param"):
        liftnn.vmap(lambda a, b: net.scale * a.w * b.w, in_axes=(0, None))(net.blocks, net.blocks)


@pytest.mark.parametrize("over", [scanned, looped])
def test_gradients_reach_both(over):
    net = Net()

    def loss(net):
        return over(net, read, X).sum()

    grads = liftnn.grad(loss)(net)

    def by_hand(w, gain):
        x, total = X, 0.0
        for i in range(N):
            y = gain * (x * w[i])
            x, total = (y, y) if over is scanned else (x, total + y)
        return total.sum()

    of_w, of_gain = jax.grad(by_hand, argnums=(0, 1))(net.blocks.w.value, net.gain.value)
    np.testing.assert_allclose(grads["inside"]["blocks"]["w"].value, of_w, rtol=1e-5)
    np.testing.assert_allclose(grads["gain"].value, of_gain, rtol=1e-5)


def whole(net, b, x):
    return b(x) + net.blocks.w.value.sum()


def as_argument(net, b, x):
    return liftnn.remat(lambda blocks: b(x) * blocks.w.sum())(net.blocks)


def in_nested(net, b, x):
    return liftnn.remat(lambda x: net.gain * b(x) * net.blocks.w.sum())(x)


def stored(net, b, x):
    b.whole = net.blocks
    return b(x)


def returned(net, b, x):
    return b(x), net.blocks


def split_inside(net, b, x):
    liftnn.split(net)
    return b(x)


@pytest.mark.parametrize("over", [scanned, mapped, looped])
@pytest.mark.parametrize("body", [whole, in_nested, as_argument, stored, returned, split_inside])
def test_using_what_is_mapped_through_its_owner_is_an_error_and_changes_nothing(body, over):
    net = Net()
    before = jax.tree.map(np.asarray, liftnn.state(net).to_pure_dict())
    with pytest.raises(errors.AliasingError, match="was used, but it is also"):
        over(net, body, X)
    jax.tree.map(np.testing.assert_array_equal, before, liftnn.state(net).to_pure_dict())
    np.testing.assert_allclose(over(net, static, X), plain(as_list(net), static, X, over), rtol=1e-5)
