"""Modules of a class with `pytree=True` in JAX's own functions: the same as bare JAX on their State, and read-only."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.alike import find_difference

import liftnn
from liftnn import errors

X = jnp.arange(6.0).reshape(3, 2)


class Part(liftnn.Module):
    """A layer that is not a pytree itself."""

    def __init__(self, factor):
        self.w = liftnn.Param(jnp.full((2, 2), factor), note="kept")
        self.b = liftnn.Param(jnp.zeros(2))

    def __call__(self, x):
        return x @ self.w + self.b


class Net(liftnn.Module, pytree=True):
    def __init__(self, factor=1.0):
        self.parts = [Part(factor), {"last": Part(2.0)}]
        self.tied = self.parts[0]
        self.itself = self
        self.scale = jnp.ones(2)
        self.steps = liftnn.Variable(jnp.float32(3.0))
        self.name = "net"

    def __call__(self, x):
        return self.parts[1]["last"](jnp.tanh(self.tied(x))) * self.scale * self.steps


class Below(Net):
    """It inherits that it is a pytree."""


class Refused(Net, pytree=False):
    """A class below that JAX's functions do not take."""


def on_state(f):
    """The same function of a State of a Net, in bare JAX."""
    graphdef = liftnn.split(Net())[-1]
    return lambda state, *args: f(graphdef.merge(state), *args)


def values(tree):
    return jax.tree.leaves(tree)


def test_its_leaves_are_those_of_its_state_in_the_same_order():
    net = Net()
    paths = [
        ".parts[0].b.value", ".parts[0].w.value", ".parts[1].last.b.value", ".parts[1].last.w.value", ".scale",
        ".steps.value",
    ]  # fmt: skip
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(net)] == paths
    assert [x is y for x, y in zip(values(net), values(liftnn.state(net)), strict=True)] == [True] * 6
    variables = jax.tree.leaves(net, is_leaf=lambda x: isinstance(x, liftnn.Variable))
    assert variables[1] is net.tied.w


def test_a_map_gives_a_new_module_of_the_same_structure():
    net = Below(2.0)
    before = liftnn.state(net)
    new = jax.tree.map(lambda x: 10 * x, net)
    assert type(new) is Below
    assert new.itself is new
    assert new.tied is new.parts[0]
    assert (new.name, new.tied.w.note) == ("net", "kept")
    assert liftnn.split(new)[-1] == liftnn.split(net)[-1]
    jax.tree.map(np.testing.assert_array_equal, liftnn.state(new), jax.tree.map(lambda x: 10 * x, before))
    jax.tree.map(np.testing.assert_array_equal, liftnn.state(net), before)
    new.tied.w.value += 1
    new.parts.append(1)
    assert (len(net.parts), float(net.tied.w.value[0, 0])) == (2, 2.0)


USES = {
    "jit": lambda f, net: jax.jit(f)(net, X),
    "grad": lambda f, net: values(jax.grad(lambda net: f(net, X).sum())(net)),
    "jvp": lambda f, net: jax.jvp(lambda net: f(net, X), (net,), (net,)),
    "vjp": lambda f, net: values(jax.vjp(lambda net: f(net, X), net)[1](X)),
    "vmap of inputs": lambda f, net: jax.vmap(f, in_axes=(None, 0))(net, X),
    "vmap of models": lambda f, net: jax.vmap(f, in_axes=(0, None))(
        jax.tree.map(lambda x: jnp.stack([x, 2 * x]), net), X
    ),
    "scan over models": lambda f, net: jax.lax.scan(
        lambda x, net: (f(net, x), None), X, jax.tree.map(lambda x: jnp.stack([x, 2 * x]), net)
    )[0],
    "scan with a carried model": lambda f, net: values(
        jax.lax.scan(lambda net, x: (jax.tree.map(lambda w: w / 2, net), f(net, x)), net, X)
    ),
    "fori_loop": lambda f, net: values(
        jax.lax.fori_loop(0, 3, lambda i, net: jax.tree.map(lambda w: w * i, net), net)
    ),
    "cond": lambda f, net: jax.lax.cond(True, f, lambda net, x: x, net, X),
    "checkpoint": lambda f, net: values(jax.grad(lambda net: jax.checkpoint(f)(net, X).sum())(net)),
    "linearize": lambda f, net: jax.linearize(f, net, X)[1](net, X),
    "eval_shape": lambda f, net: [x.shape for x in values(jax.eval_shape(lambda net: net, net))],
    "hessian": lambda f, net: values(jax.hessian(lambda net: f(net, X[0]).sum())(net)),
    "ravel_pytree": lambda f, net: jax.flatten_util.ravel_pytree(net)[0],
    "reduce": lambda f, net: jax.tree.reduce(lambda total, x: total + x.sum(), net, 0.0),
    "norm of optax": lambda f, net: optax.tree.norm(net),
    "train step of optax": lambda f, net: values(train(f, net, optax.adamw(0.1))),
    "masked weight decay": lambda f, net: values(
        train(f, net, optax.adamw(0.1, mask=jax.tree.map(lambda x: x.ndim > 1, net)))
    ),
    "grad of equinox": lambda f, net: values(eqx.filter_grad(lambda net: f(net, X).sum())(net)),
    "jit of equinox": lambda f, net: eqx.filter_jit(f)(net, X),
    "partition of equinox": lambda f, net: f(eqx.combine(*eqx.partition(net, lambda x: x.ndim > 1)), X),
}


def train(f, net, tx):
    """Train as with pytrees, in bare JAX."""
    state = tx.init(net)

    @jax.jit
    def step(net, state):
        gradient = jax.grad(lambda net: (f(net, X) ** 2).mean())(net)
        updates, state = tx.update(gradient, state, net)
        return optax.apply_updates(net, updates), state

    for _ in range(3):
        net, state = step(net, state)
    return net


@pytest.mark.parametrize("use", USES)
def test_jax_computes_with_a_module_what_it_computes_with_its_state(use):
    def f(net, x):
        return net(x)

    found = USES[use](f, Net())
    expected = USES[use](on_state(f), liftnn.state(Net()))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_a_model_of_the_same_structure_needs_no_new_trace():
    traces = []

    @jax.jit
    def f(net, x):
        traces.append(net.name)
        return net(x)

    for factor in (1.0, 2.0):
        np.testing.assert_allclose(f(Net(factor), X), Net(factor)(X), rtol=1e-6)
    assert traces == ["net"]
    other = Net()
    other.name = "other"
    f(other, X)
    other.tied = Part(1.0)
    np.testing.assert_allclose(f(other, X), other(X), rtol=1e-6)
    assert traces == ["net", "other", "other"]


def test_a_model_that_is_created_under_a_transform_of_jax_is_a_plain_one_outside():
    made = jax.jit(Net)(2.0)
    made.tied.w.value += 1
    made.extra = 1
    assert made.itself is made
    assert made.parts[0].w.value.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    several = jax.vmap(Net)(jnp.arange(3.0))
    assert several.tied.w.shape == (3, 2, 2)
    assert several.tied is several.parts[0]
    assert liftnn.vmap(lambda net, x: net(x), in_axes=(0, None))(several, X).shape == (3, 3, 2)


COPIED = "it is a copy that a raw JAX transform made of its argument, and the change would be lost."


@pytest.mark.parametrize(
    "write, text",
    [
        (lambda net: setattr(net.tied.w, "value", 2.0), f"Cannot change the value of a Param here: {COPIED}"),
        (lambda net: setattr(net, "scale", 2.0), f"Cannot change the attribute 'scale' of a Net here: {COPIED}"),
        (lambda net: delattr(net, "name"), f"Cannot change the attribute 'name' of a Net here: {COPIED}"),
        (
            lambda net: setattr(net.tied, "new", 2.0),
            f"Cannot change the attribute 'new' of a Part here: {COPIED}",
        ),
        (lambda net: net.steps.set_metadata(a=1), f"Cannot change the metadata of a Variable here: {COPIED}"),
        (lambda net: liftnn.jit(lambda net: setattr(net.steps, "value", 1.0))(net), "Cannot change"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "transform",
    [jax.jit, jax.grad, jax.vmap, jax.checkpoint, lambda f: lambda net: jax.lax.cond(True, f, f, net)],
    ids=["jit", "grad", "vmap", "checkpoint", "cond"],
)
def test_a_write_under_a_transform_of_jax_is_an_error_that_changes_nothing(transform, write, text):
    net = jax.tree.map(lambda x: jnp.stack([x] * 2), Net())
    before = liftnn.clone(net)

    def f(net):
        write(net)
        return 0.0

    with pytest.raises(errors.TraceContextError) as caught:
        transform(f)(net)
    assert text in str(caught.value)
    assert "Use the liftnn transform of the same name" in str(caught.value)
    assert find_difference(net, before) is None


def test_leaves_can_be_anything():
    net = Net()
    shapes = jax.tree.map(jnp.shape, net)
    assert (shapes.tied.w.value, shapes.scale, shapes.steps.value) == ((2, 2), (2,), ())
    nothing = jax.tree.map(lambda x: None, net)
    assert (nothing.tied.w.value, nothing.scale) == (None, None)
    labels = jax.tree.map_with_path(lambda path, x: jax.tree_util.keystr(path), net)
    assert (labels.tied.w.value, labels.scale) == (".parts[0].w.value", ".scale")
    arrays = jax.tree.map(
        lambda x: x.value if isinstance(x, liftnn.Variable) else x,
        net,
        is_leaf=lambda x: isinstance(x, liftnn.Variable),
    )
    assert isinstance(arrays.tied.w, jax.Array)
    assert arrays.tied is arrays.parts[0]
    np.testing.assert_array_equal(arrays(X), net(X))
    gone = jax.tree.map(lambda x: None, net, is_leaf=lambda x: isinstance(x, liftnn.Variable))
    assert (gone.tied.w, gone.steps) == (None, None)


def test_transforms_of_liftnn_take_it_as_any_module():
    net = Net()

    @liftnn.jit
    def step(net):
        net.steps.value += 1
        net.seen = True
        doubled = jax.tree.map(lambda x: 2 * x, net)
        doubled.steps.value += 1
        return doubled, jax.jit(lambda net: net(X))(net)

    doubled, out = step(net)
    assert (float(net.steps), float(doubled.steps), net.seen, doubled.seen) == (4.0, 9.0, True, True)
    np.testing.assert_allclose(out, net(X), rtol=1e-6)
    assert isinstance(liftnn.grad(lambda net: net(X).sum())(net), liftnn.State)
    captured = liftnn.jit(lambda: jax.tree.map(lambda x: 2 * x, net))
    assert float(captured().steps) == 8.0
    net.steps.value += 1
    assert float(captured().steps) == 10.0
    gradient = liftnn.grad(lambda net: jax.tree.map(lambda x: 2 * x, net)(X).sum())(net)
    expected = jax.grad(
        lambda state: on_state(lambda net: net(X).sum())(jax.tree.map(lambda x: 2 * x, state))
    )(liftnn.state(net))
    np.testing.assert_allclose(gradient.parts[0].w.value, expected.parts[0].w.value, rtol=1e-6)


def test_a_gradient_of_jax_updates_the_model():
    net, same = Net(), Net()
    gradient = jax.grad(lambda net: net(X).sum())(net)
    liftnn.Optimizer(net, optax.sgd(0.1)).update(net, liftnn.state(gradient, liftnn.Param))
    optimizer = liftnn.Optimizer(same, optax.sgd(0.1))
    optimizer.update(same, liftnn.grad(lambda net: net(X).sum())(same))
    assert find_difference(net, same) is None


def test_a_module_that_holds_shardings_places_a_module_as_its_state_does():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    shardings = jax.tree.map(
        lambda x: jax.sharding.NamedSharding(mesh, jax.P("d") if x.ndim == 2 else jax.P()), Net()
    )
    made = [
        liftnn.jit(Net, out_shardings=shardings)(),
        liftnn.jit(
            lambda net: jax.tree.map(jnp.add, net, net), in_shardings=(shardings,), out_shardings=shardings
        )(Net()),
        liftnn.device_put(Net(), shardings),
        jax.device_put(Net(), shardings),
    ]
    for net in made:
        assert [w.sharding.spec for w in values(net)] == [s.spec for s in values(shardings)]
    whole = liftnn.shard_map(
        lambda net: net(X),
        mesh=mesh,
        in_specs=(jax.tree.map(lambda s: s.spec, shardings),),
        out_specs=jax.P("d"),
    )
    in_a_dict = liftnn.jit(lambda nets: nets["a"](X), in_shardings=({"a": shardings},))
    np.testing.assert_allclose(whole(Net()), Net()(X), rtol=1e-6)
    np.testing.assert_allclose(in_a_dict({"a": Net()}), Net()(X), rtol=1e-6)


def test_a_class_says_whether_it_is_a_pytree():
    assert len(values(Below())) == 6
    for net in (Refused(), Part(1.0)):
        with pytest.raises(errors.ArgumentTypeError, match="was passed to a JAX function"):
            jax.tree.map(lambda x: x, net)
    assert [type(x) for x in jax.tree.leaves([Net(), 1], is_leaf=lambda x: isinstance(x, Net))] == [Net, int]


@dataclasses.dataclass(frozen=True)
class Pair:
    first: object
    second: object


def test_it_holds_what_any_module_may_hold():
    class Empty(liftnn.Module, pytree=True):
        pass

    empty = jax.jit(lambda x: x)(Empty())
    assert (type(empty), values(empty)) == (Empty, [])
    empty.zero = liftnn.Param(jnp.zeros((0, 3)))
    empty.pair = Pair(empty.zero, jnp.ones(2))
    empty.layers = liftnn.Stack(3, lambda rngs: liftnn.Linear(2, 2, rngs=rngs), rngs=liftnn.Rngs(0))
    empty.rngs = liftnn.Rngs(0)
    empty.method = empty.layers.__call__
    empty.noted = liftnn.Variable(jnp.ones(1), holds=liftnn.Param(jnp.ones(2)))
    new = jax.jit(lambda x: x)(empty)
    assert new.pair.first is new.zero
    assert new.method.__self__ is new.layers
    del new.method, empty.method  # two bound methods are never alike
    assert find_difference(new, empty) is None
    assert len(values(new)) == len(values(liftnn.state(empty)))
    new.rngs()
    assert int(new.rngs.default.count.value) == 1


def test_it_is_copied_and_pickled_as_any_module():
    net = Net(3.0)
    for new in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), liftnn.clone(net)):
        assert find_difference(new, net) is None
        assert jax.tree.structure(new) == jax.tree.structure(net)
