"""Modules of the stand-in in JAX's own functions: the results are those of Flax NNX, where modules are pytrees too."""

from __future__ import annotations

import abc
import pickle

import jax
import jax.numpy as jnp
import pytest
from tests.compat.oracle import find_difference, run, to_plain

import liftnn
from liftnn.compat import nnx

PROGRAM = """
import jax.flatten_util

class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)])
        self.scale = nnx.Param(jnp.arange(2.0))
        self.factor = nnx.Variable(jnp.float32(2.0))
        self.offset = jnp.ones(2)
        self.name = "net"

    def __call__(self, x):
        return self.layers[1](jnp.tanh(self.layers[0](x))) * self.scale * self.factor + self.offset

class Point(nnx.Pytree):
    def __init__(self, x, y):
        self.y, self.x = y, x

x = jnp.arange(6.0).reshape(3, 2) / 6
net = Net(nnx.Rngs(0))
several = jax.vmap(lambda key: Net(nnx.Rngs(key)))(jax.random.split(jax.random.key(0), 3))

def loss(net, x):
    return (net(x) ** 2).mean()

def train(tx):
    net = Net(nnx.Rngs(1))
    state = tx.init(net)
    @jax.jit
    def step(net, state, x):
        value, grads = jax.value_and_grad(loss)(net, x)
        updates, state = tx.update(grads, state, net)
        return optax.apply_updates(net, updates), state, value
    for _ in range(3):
        net, state, value = step(net, state, x)
    return jax.tree.leaves(net), value, step._cache_size()

def update_by_optimizer():
    net = Net(nnx.Rngs(2))
    optimizer = nnx.Optimizer(net, optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(net, jax.grad(loss)(net, x))
    return jax.tree.leaves(net)

def place():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        point = Point(nnx.Param(jnp.ones((2, 2)), out_sharding=("d", None)), jnp.ones(2))
        specs, shardings = nnx.get_partition_spec(point), nnx.get_named_sharding(point, mesh)
        placed = [
            jax.device_put(point, shardings),
            jax.jit(lambda p: p, in_shardings=(shardings,), out_shardings=shardings)(point),
            nnx.jit(lambda p: p.x * 2, in_shardings=(shardings,), graph=False)(point),
            jax.lax.with_sharding_constraint(jax.device_put(point, shardings), specs),
        ]
    return type(specs).__name__, [str(s) for s in jax.tree.leaves(specs)], [
        str(w.sharding.spec) for w in jax.tree.leaves(placed)
    ]
"""
RESULTS = {
    "paths": "[jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(net)]",
    "names in paths": "[[k.name for k in path] for path, _ in jax.tree.leaves_with_path(net) if len(path) < 3]",
    "leaves": "jax.tree.leaves(net)",
    "jit": "jax.jit(lambda net, x: net(x))(net, x)",
    "grad": "jax.tree.leaves(jax.grad(loss)(net, x))",
    "class of the gradient": "type(jax.grad(loss)(net, x)).__name__",
    "map": "jax.tree.map(lambda w: 2 * w, net)(x)",
    "map by path": "jax.tree.map_with_path(lambda p, w: w * ('kernel' in jax.tree_util.keystr(p)), net)(x)",
    "vmap": "jax.vmap(lambda net, x: net(x), in_axes=(0, None))(several, x)",
    "created by vmap": "jax.tree.leaves(several)",
    "vmap of nnx": "nnx.vmap(lambda net, x: net(x), in_axes=(0, None))(several, x)",
    "scan": "jax.lax.scan(lambda y, net: (net(y), None), x, several)[0]",
    "cond": "jax.lax.cond(True, lambda net: net(x), lambda net: -net(x), net)",
    "fori_loop": "jax.tree.leaves(jax.lax.fori_loop(0, 2, lambda i, n: jax.tree.map(lambda w: w / 2, n), net))",
    "checkpoint": "jax.checkpoint(lambda net: net(x))(net)",
    "eval_shape": "[w.shape for w in jax.tree.leaves(nnx.state(jax.eval_shape(lambda: Net(nnx.Rngs(0))), nnx.Param))]",
    "ravel": "jax.flatten_util.ravel_pytree(net)[0]",
    "back from a vector": "(lambda v, back: back(2 * v)(x))(*jax.flatten_util.ravel_pytree(net))",
    "state of a map": "nnx.to_pure_dict(nnx.state(jax.tree.map(lambda w: 2 * w, net), nnx.Param))",
    "nnx.jit": "nnx.jit(lambda net: jax.tree.map(lambda w: 2 * w, net))(net)(x)",
    "nnx.grad": "nnx.to_pure_dict(nnx.grad(lambda n: loss(jax.tree.map(lambda w: 2 * w, n), x))(net))",
    "train": "train(optax.adamw(0.1))",
    "train with a mask": "train(optax.adamw(0.1, mask=jax.tree.map(lambda w: w.ndim > 1, net)))",
    "optimizer": "update_by_optimizer()",
    "gradient in tree mode": "jax.tree.leaves(nnx.grad(loss, graph=False)(net, x))",
    "class of it": "type(nnx.grad(loss, graph_updates=False)(net, x)).__name__",
    "gradients of two": "jax.tree.leaves(nnx.grad(lambda a, y, b: (a(y) * b(y)).sum(), argnums=(0, 2), graph=False)"
    "(net, x, jax.tree.map(lambda w: 2 * w, net)))",
    "value and gradient": "[jax.tree.leaves(y) for y in nnx.value_and_grad(loss, graph=False)(net, x)]",
    "with an auxiliary": "[jax.tree.leaves(y) for y in "
    "nnx.grad(lambda n, y: (loss(n, y), y), has_aux=True, graph=False)(net, x)]",
    "decorated": "jax.tree.leaves(nnx.grad(argnums=0, graph=False)(loss)(net, x))",
    "pulled back": "jax.tree.leaves(nnx.vjp(loss, net, x, graph=False)[1](jnp.float32(1.0)))",
    "pulled back, with an integer": "[(y.dtype, y.shape) for y in jax.tree.leaves("
    "nnx.vjp(lambda p: p.x.sum() * 2, Point(nnx.Param(x), nnx.Variable(jnp.arange(3))), graph=False)[1](1.0))]",
    "variables": "[jax.tree.leaves(nnx.grad(lambda v: v[0][...] * v[1][...], graph=graph)"
    "([nnx.BatchStat(jnp.float32(3.0)), nnx.Param(jnp.float32(2.0))])) for graph in (True, False)]",
    "a module and a variable": "jax.tree.leaves(nnx.grad(lambda p: loss(p[0], x) * p[1][...], graph=False)"
    "([net, nnx.Variable(jnp.float32(3.0))]))",
    "descent in tree mode": "loss(jax.tree.map(lambda w, g: w - 0.1 * g, net, nnx.grad(loss, graph=False)(net, x)), x)",
    "shardings": "place()",
    "pytree": "jax.tree.leaves(jax.jit(lambda p: p)(Point(jnp.ones(2), jnp.zeros(1))))",
    "list": "jax.tree.leaves(jax.jit(lambda p: p)(nnx.List([jnp.ones(2), nnx.Param(jnp.zeros(1))])))",
    "sequential": "jax.jit(lambda net: net(x))(nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), jnp.tanh))",
    "metric": "jax.tree.leaves(jax.tree.map(lambda w: w + 1, nnx.metrics.Average()))",
}  # fmt: skip


@pytest.fixture(scope="module")
def programs():
    return {library: run(PROGRAM, library) for library in ("flax", "liftnn")}


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_is_that_of_flax(programs, result):
    expected, actual = (to_plain(eval(RESULTS[result], programs[name])) for name in ("flax", "liftnn"))
    assert find_difference(expected, actual) is None


def test_shared_parts_stay_shared_where_flax_copies_them():
    class Tied(nnx.Module):
        def __init__(self):
            self.left = self.right = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

    inside = []
    new = jax.jit(lambda m: inside.append(m.left is m.right) or m)(Tied())
    assert inside == [True]
    assert new.left is new.right
    assert len(jax.tree.leaves(new)) == 2


class Base(nnx.Module, abc.ABC):
    @abc.abstractmethod
    def size(self): ...


class Own(nnx.Linear, nnx.Module):
    """A layer of one's own that is a pytree."""


def test_the_modules_of_liftnn_are_instances_and_subclasses_of_its_base_class():
    layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    assert isinstance(layer, nnx.Module)
    assert isinstance(layer, nnx.Pytree)
    assert isinstance(nnx.List([]), liftnn.Module)
    assert issubclass(nnx.Linear, nnx.Module)
    assert issubclass(nnx.Module, liftnn.Module)
    assert not isinstance(layer, Base)
    assert not isinstance(1.0, nnx.Module)
    assert not issubclass(int, nnx.Module)
    assert nnx.Pytree is nnx.Module
    with pytest.raises(TypeError, match="abstract"):
        Base()


def test_a_class_says_whether_it_is_a_pytree():
    class Whole(nnx.Module, pytree=False):
        pass

    for module in (Whole(), nnx.Object(), nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Rngs(0)):
        with pytest.raises(liftnn.ArgumentTypeError, match="was passed to a JAX function"):
            jax.tree.map(lambda x: x, module)
    own = Own(2, 2, rngs=nnx.Rngs(0))
    assert jax.tree.map(lambda x: x + 1, own).bias.value.tolist() == [1.0, 1.0]


def test_it_is_pickled_under_its_public_name():
    assert nnx.Module.__module__ == "liftnn.compat.nnx"
    assert type(pickle.loads(pickle.dumps(nnx.Module()))) is nnx.Module
    own = Own(2, 2, rngs=nnx.Rngs(0))
    assert pickle.loads(pickle.dumps(own)).kernel.value.tolist() == own.kernel.value.tolist()


def test_a_write_would_be_lost_and_is_an_error():
    class Counter(nnx.Module):
        def __init__(self):
            self.count = nnx.Variable(jnp.array(0))

        def __call__(self):
            self.count[...] += 1

    counter = Counter()
    with pytest.raises(
        liftnn.TraceContextError, match="a copy that a raw JAX transform made of its argument"
    ):
        jax.jit(lambda counter: counter())(counter)
    nnx.jit(lambda counter: counter())(counter)
    assert int(counter.count[...]) == 1


def test_the_gradient_of_a_layer_of_liftnn_is_a_state_in_tree_mode_too():
    layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    grads = nnx.grad(lambda layer: layer(jnp.ones(2)).sum(), graph=False)(layer)
    assert isinstance(grads, nnx.State)
    assert jax.tree.map(lambda g: 2 * g, grads).bias.value.tolist() == [2.0, 2.0]
