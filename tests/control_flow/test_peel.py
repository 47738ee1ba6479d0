"""A loop whose first step alone changes structure is the Python loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from tests.control_flow.stacks import stack
from tests.same import assert_same
from tests.user_modules import Affine, Holder

import liftnn
from liftnn import Carry

XS = jnp.sin(jnp.arange(12.0)).reshape(4, 3)


class Memory(liftnn.Module):
    """A module that makes most of itself in its first call."""

    def __init__(self):
        self.scale = liftnn.Param(jnp.array(2.0))
        self.calls = liftnn.Variable(jnp.zeros((), jnp.int32))
        self.parts = (self.scale, [])
        self.late = liftnn.Variable(None)
        self.spare = liftnn.Variable(jnp.zeros(()))
        self.rngs = liftnn.Rngs(0)

    def start(self, x):
        self.cache = liftnn.Cache(jnp.zeros_like(x), kind="lazy")
        self.inner = Affine(3.0)
        self.inner.owner = self
        self.parts[1].append(self.cache)
        self.parts = (*self.parts, self.inner, {"scale": self.scale})
        self.total = jnp.zeros(())
        self.mode = "running"
        self.scale.set_metadata(seen=True)
        self.spare.value = self.spare + 1
        del self.spare

    def __call__(self, x):
        self.calls.value = self.calls + 1
        if not hasattr(self, "cache"):
            self.start(x)
        self.cache.value = self.cache * 0.5 + x
        self.total = self.total + self.cache.sum()
        self.late.value = {"x": x}
        self.last = liftnn.Intermediate(x)
        return self.inner(self.cache.value) * self.scale + jax.random.normal(self.rngs(), x.shape)


def python_loop(memory, xs, reverse=False):
    ys = [memory(x) for x in (xs[::-1] if reverse else xs)]
    return jnp.stack(ys[::-1] if reverse else ys)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "wrap, options",
    [(lambda f: f, {"unroll": 2}), (liftnn.jit, {"reverse": True}), (liftnn.remat, {"length": 4})],
)
def test_a_scan_is_the_python_loop(wrap, options):
    scanned = wrap(liftnn.scan(lambda memory, x: memory(x), in_axes=(None, 0), out_axes=0, **options))
    memory, reference = Memory(), Memory()
    kept = memory.parts[1], memory.spare
    for _ in range(2):  # the second time there is nothing left to make
        ys = scanned(memory, XS)
        assert_same((ys, memory), (python_loop(reference, XS, options.get("reverse", False)), reference))
    assert memory.parts[1] is kept[0]
    assert memory.parts[1][0] is memory.cache
    assert memory.inner.owner is memory
    assert float(kept[1].value) == 1.0


@pytest.mark.sample(4)
@pytest.mark.parametrize("steps", range(4))
def test_it_is_whatever_the_number_of_steps(steps):
    memory, reference = Memory(), Memory()
    ys = liftnn.scan(memory, in_axes=0, out_axes=0)(XS[:steps])
    expected = python_loop(reference, XS[:steps]) if steps else jnp.zeros((0, 3))
    assert_same((ys, memory), (expected, reference))


@pytest.mark.sample(4)
@pytest.mark.parametrize("steps", range(4))
def test_a_fori_loop_is_the_python_loop(steps):
    def body(i, state):
        memory, x = state
        return memory, memory(x) * i

    memory, reference = Memory(), Memory()
    out = liftnn.jit(lambda memory, x: liftnn.fori_loop(1, 1 + steps, body, (memory, x)))(memory, XS[0])
    expected = reference, XS[0]
    for i in range(1, 1 + steps):
        expected = body(i, expected)
    assert out[0] is memory
    assert_same(out, expected)


@pytest.mark.sample(2)
@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_scanned_beside_it_is_stacked_for_all_steps(reverse):
    def body(memory, h, layer, x):
        h = layer(h) + memory(x)
        layer.seen = liftnn.Intermediate(h)
        layer.made = Holder(v=liftnn.Param(x), parts=[layer.seen, x])
        layer.mode = memory.mode
        return h, {"made": layer.made, "new": liftnn.Variable(h)}

    memory, layers = Memory(), liftnn.vmap(Affine)(jnp.arange(4.0))
    run = liftnn.scan(body, in_axes=(None, Carry, 0, 0), out_axes=(Carry, 0), reverse=reverse)
    h, ys = run(memory, XS[0], layers, XS)
    reference, listed = Memory(), [Affine(float(i)) for i in range(4)]
    expected, made = XS[0], [None] * 4
    for i in range(4)[::-1] if reverse else range(4):
        expected, made[i] = body(reference, expected, listed[i], XS[i])
    assert_same((h, memory), (expected, reference))
    assert layers.made is ys["made"]
    assert_same((layers, ys["new"]), (stack(listed), stack([y["new"] for y in made])))


def test_variables_of_one_module_can_be_scanned_or_shared():
    def body(layer, x):
        if not hasattr(layer.calls, "first"):
            layer.calls.set_metadata(first=True)
        layer.made = liftnn.Param(x)
        return layer(x)

    axes = liftnn.StateAxes({liftnn.Param: 0, ...: None})
    layers, listed = liftnn.vmap(Affine, out_axes=axes)(jnp.arange(4.0)), [Affine(float(i)) for i in range(4)]
    for layer in listed[1:]:
        layer.calls = listed[0].calls
    ys = liftnn.scan(body, in_axes=(axes, 0), out_axes=0)(layers, XS)
    assert_same(ys, jnp.stack([body(layer, x) for layer, x in zip(listed, XS, strict=True)]))
    assert int(layers.calls.value) == 4
    assert layers.calls.first is True
    assert layers.made.value.tolist() == XS.tolist()


def test_shapes_and_dtypes_may_change_once():
    def body(carry, v, x):
        v.value = v.value + x if v.value.ndim else x
        return carry + x.sum(), v.value

    v, reference = liftnn.Variable(jnp.array(7)), liftnn.Variable(jnp.array(7))
    carry, ys = liftnn.scan(body, in_axes=(Carry, None, 0), out_axes=(Carry, 0))(jnp.array(1), v, XS)
    expected = jnp.array(1)
    for i, x in enumerate(XS):
        expected, y = body(expected, reference, x)
        assert jnp.allclose(ys[i], y, rtol=1e-5)
    assert_same((carry, v), (expected, reference))


@pytest.mark.thorough
def test_gradients_are_those_of_the_python_loop():
    def loss(loop, memory, xs):
        return (loop(memory, xs) ** 2).sum()

    def scan(memory, xs):
        return liftnn.scan(memory, in_axes=0, out_axes=0)(xs)

    memory, reference = Memory(), Memory()
    both = liftnn.jit(liftnn.value_and_grad(loss, argnums=(1, 2)), static_argnums=0)
    assert_same(both(scan, memory, XS), both(python_loop, reference, XS))
    assert_same(memory, reference)


@pytest.mark.thorough
def test_loops_in_loops():
    def outer(memory, xs):
        return liftnn.scan(memory, in_axes=0, out_axes=0)(xs)

    memory, reference = Memory(), Memory()
    xs = jnp.stack([XS, XS + 1, XS + 2])
    ys = liftnn.scan(outer, in_axes=(None, 0), out_axes=0)(memory, xs)
    expected = liftnn.jit(lambda memory, xs: jnp.stack([python_loop(memory, x) for x in xs]))(reference, xs)
    assert_same((ys, memory), (expected, reference))


@pytest.mark.thorough
def test_keys_that_are_split_are_those_of_a_loop_that_makes_nothing():
    def body(lazy, model, x):
        if lazy and not hasattr(model, "cache"):
            model.cache = liftnn.Cache(x)
        return x + jax.random.normal(model.rngs(), x.shape)

    models = [Holder(rngs=liftnn.Rngs(0)) for _ in range(2)]
    run = liftnn.scan(body, in_axes=(None, None, 0), out_axes=0, split_rngs=True)
    one, two = (run(lazy, model, XS) for lazy, model in zip(("yes", ""), models, strict=True))
    assert one.tolist() == two.tolist()
    assert int(models[0].rngs.default.count) == int(models[1].rngs.default.count) == 1


def test_metadata_follow_the_axis_in_all_steps():
    def body(memory, x):
        return memory(x), liftnn.Param(x, sharding=("features",))

    names = {liftnn.PARTITION_NAME: "time"}
    run = liftnn.scan(body, in_axes=(None, 0), out_axes=0, transform_metadata=names)
    memory = Memory()
    _, made = run(memory, XS)
    assert made.sharding == ("time", "features")
    assert made.value.tolist() == XS.tolist()
    assert memory.cache.kind == "lazy"


def test_the_function_is_traced_once_for_each_of_the_two_structures():
    traces = []

    def body(memory, x):
        traces.append(hasattr(memory, "cache"))
        return memory(x)

    liftnn.scan(body, in_axes=(None, 0), out_axes=0)(Memory(), XS)
    assert traces == [False, True]


def grows(memory, x):
    memory.parts[1].append(liftnn.Param(x))
    return memory(x)


def returns_something_else_at_first(memory, x):
    y = liftnn.Param(x) if hasattr(memory, "cache") else {"other": x}
    memory(x)
    return y


def returns_one_object_twice_at_first(memory, x):
    first = liftnn.Param(x)
    second = liftnn.Param(x) if hasattr(memory, "cache") else first
    memory(x)
    return first, second


def writes_to_a_slice_at_first(memory, layer):
    if not hasattr(memory, "cache"):
        layer.b.value = layer.b + 1
    return memory(layer.w.value)


@pytest.mark.parametrize(
    "body",
    [grows, returns_something_else_at_first, returns_one_object_twice_at_first, writes_to_a_slice_at_first],
)
def test_what_is_no_loop_is_refused_and_leaves_everything_as_it_was(body):
    memory = Memory()
    scanned = Holder(w=liftnn.Param(XS), b=liftnn.Param(XS)) if body is writes_to_a_slice_at_first else XS
    with pytest.raises(
        liftnn.StructureError, match=r"A step of liftnn.scan changes structure, shapes or dtypes"
    ):
        liftnn.scan(body, in_axes=(None, 0), out_axes=0)(memory, scanned)
    assert_same(memory, Memory())


def test_a_while_loop_may_have_no_step_so_nothing_can_be_made_in_the_first_one():
    memory = Memory()
    with pytest.raises(liftnn.StructureError, match=r"init_val\[0\].mode: added, 'running'"):
        liftnn.while_loop(lambda s: s[1].sum() < 3, lambda s: (s[0], s[0](s[1])), (memory, XS[0]))
    assert_same(memory, Memory())
