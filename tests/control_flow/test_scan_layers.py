"""Scan over layers, and over time, is the unrolled loop: values, gradients, effects, memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.control_flow.stacks import (
    BATCH,
    STEPS,
    Cell,
    X,
    keys,
    listed,
    loop,
    over_layers,
    remat,
    stack,
    stacked,
    unrolled,
)
from tests.jaxprs import scan_sizes
from tests.same import assert_same
from tests.user_modules import Affine, Holder

import liftnn
from liftnn import Carry


def test_scan_over_layers_is_the_unrolled_loop():
    x = BATCH
    layers, reference = stacked(), listed()
    assert_same(over_layers(x, layers), unrolled(x, reference))
    assert_same(layers, stack(reference))
    assert_same(over_layers(x, layers), unrolled(x, reference))
    assert_same(layers, stack(reference))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "wrap",
    [lambda f: f, *(pytest.param(w, marks=pytest.mark.thorough) for w in (remat, liftnn.jit))],
    ids=["plain", "remat", "jit"],
)
def test_gradients_of_scanned_layers_are_those_of_the_unrolled_loop(wrap):
    x = BATCH
    body = wrap(lambda x, layer: layer(x))
    run = liftnn.scan(body, in_axes=(Carry, 0), out_axes=Carry)
    layers, reference = stacked(), listed()
    loss = liftnn.jit(liftnn.value_and_grad(lambda layers, x: (run(x, layers) ** 2).sum()))
    value, grads = loss(layers, x)
    expected, by_layer = liftnn.value_and_grad(lambda model, x: (unrolled(x, model.layers) ** 2).sum())(
        Holder(layers=reference), x
    )
    assert_same(value, expected)
    by_layer = [by_layer["layers"][i] for i in range(STEPS)]
    assert_same(dict(grads.flat()), dict(jax.tree.map(lambda *xs: jnp.stack(xs), *by_layer).flat()))
    assert_same(layers, stack(reference))


def test_weights_that_all_layers_share_are_carried_once_and_their_gradients_summed():
    class Tied(liftnn.Module):
        def __init__(self, key, shared=None):
            self.own = liftnn.Param(jax.random.normal(key, (3,)))
            self.shared = liftnn.Param(jnp.full(3, 0.5), tied=True) if shared is None else shared
            self.seen = liftnn.BatchStat(jnp.zeros(3), tied=True)

        def __call__(self, x):
            self.seen.value = self.seen + x
            return jnp.tanh(x * self.own + self.shared)

    def is_tied(path, x):
        return getattr(x, "tied", False)

    axes = liftnn.StateAxes({is_tied: None, ...: 0})
    layers = liftnn.vmap(Tied, out_axes=axes)(keys())
    reference = [Tied(key) for key in keys()]
    for layer in reference[1:]:
        layer.shared, layer.seen = reference[0].shared, reference[0].seen
    run = liftnn.scan(lambda layer, x: layer(x), in_axes=(axes, Carry), out_axes=Carry)
    grads = liftnn.grad(lambda layers: run(layers, X).sum())(layers)
    expected = liftnn.grad(lambda h: unrolled(X, h.layers).sum())(Holder(layers=reference))["layers"]
    np.testing.assert_allclose(grads["shared"].value, expected[0]["shared"].value, rtol=1e-5)
    own = [expected[i]["own"].value for i in range(STEPS)]
    np.testing.assert_allclose(grads["own"].value, jnp.stack(own), rtol=1e-5)
    np.testing.assert_allclose(layers.seen.value, reference[0].seen.value, rtol=1e-5)


@pytest.mark.sample(8)
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"unroll": 2}, {"unroll": True}], ids=str)
@pytest.mark.parametrize("wrap", [lambda f: f, liftnn.jit], ids=["plain", "jit"])
def test_scan_over_time_with_a_cell_that_all_steps_share(options, wrap):
    xs = jnp.arange(15.0).reshape(5, 3) / 10
    cell, reference = Cell(), Cell()
    run = wrap(lambda cell, h, xs: liftnn.scan(cell, **options)(h, xs))
    for _ in range(2):
        out = run(cell, X, xs)
        assert_same(out, loop(reference, X, xs, reverse=options.get("reverse", False)))
        assert_same(cell, reference)


def test_what_is_only_read_is_neither_carried_nor_stacked():
    cell, xs = Cell(), jnp.ones((5, 3))

    def run(x):
        return liftnn.scan(lambda cell, h, x: (jnp.tanh(cell.inner(h) + x), None), in_axes=(None, Carry, 0))(
            cell, X, x
        )[0]

    def run_by_hand(x):
        def step(values, h, x):
            return jnp.tanh(h @ values["inner", "kernel"] + values["inner", "bias"] + x)

        values = {path: variable.value for path, variable in liftnn.state(cell).flat().items()}
        return jax.lax.scan(lambda h, x: (step(values, h, x), None), X, x)[0]

    def scan_of(f):
        (scan,) = [e for e in jax.make_jaxpr(f)(xs).jaxpr.eqns if e.primitive.name == "scan"]
        n_consts, n_carry = scan_sizes(scan)
        shapes = [v.aval.shape for v in scan.invars]
        return sorted(shapes[:n_consts]), shapes[n_consts:], [v.aval.shape for v in scan.outvars], n_carry

    assert scan_of(run) == scan_of(run_by_hand)
    consts, _, out, n_carry = scan_of(run)
    assert (consts, out, n_carry) == ([(3,), (3, 3)], [(3,)], 1)


def test_read_only_weights_of_scanned_layers_do_not_come_out():
    layers = stacked(lambda key: liftnn.Linear(3, 3, rngs=liftnn.Rngs(key)))
    state, graphdef = liftnn.split(layers)

    def run(state, x):
        return over_layers(x, graphdef.merge(state))

    (scan,) = [e for e in jax.make_jaxpr(run)(state, X).jaxpr.eqns if e.primitive.name == "scan"]
    assert scan_sizes(scan) == (0, 1)
    assert [v.aval.shape for v in scan.outvars] == [(3,)]


def test_the_body_is_traced_once_for_all_levels():
    traces = 0

    def body(model, x):
        nonlocal traces
        traces += 1
        model.calls.value = model.calls + 1
        return model(x)

    f = body
    for _ in range(3):
        f = liftnn.scan(f, length=2, in_axes=(None, Carry), out_axes=Carry)
    model = Affine()
    liftnn.jit(f)(model, X)
    assert traces == 1
    assert int(model.calls.value) == 16


def test_a_train_step_over_scanned_layers_takes_the_memory_of_hand_written_jax():
    def init(key):
        return liftnn.Linear(32, 32, rngs=liftnn.Rngs(key))

    def train(layers, x):
        grads = liftnn.grad(lambda layers, x: (over_layers(x, layers) ** 2).sum())(layers, x)
        liftnn.update(layers, jax.tree.map(lambda p, g: p - g, liftnn.state(layers), grads))

    def loss(params, x):
        return (jax.lax.scan(lambda x, p: (x @ p[0] + p[1], None), x, params)[0] ** 2).sum()

    def train_by_hand(params, x):
        return jax.tree.map(lambda p, g: p - g, params, jax.grad(loss)(params, x))

    layers, x = stacked(init), jnp.ones((8, 32))
    params = (layers.kernel.value, layers.bias.value)  # the same order: XLA's memory depends on it
    ours = liftnn.jit(train, donate_argnums=0).lower(layers, x).compile().memory_analysis()
    theirs = jax.jit(train_by_hand, donate_argnums=0).lower(params, x).compile().memory_analysis()
    for kind in ("temp", "argument", "output", "alias"):
        ratio = getattr(ours, f"{kind}_size_in_bytes") / getattr(theirs, f"{kind}_size_in_bytes")
        assert 0.99 <= ratio <= 1.01, kind
