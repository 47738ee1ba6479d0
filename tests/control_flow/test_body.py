"""The body of a scan: where steps share nothing that they could write it is traced in the loop only."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from tests.jaxprs import scan_sizes

import liftnn

OVER_LAYERS = {"in_axes": (liftnn.Carry, 0), "out_axes": liftnn.Carry}


@pytest.fixture
def layers():
    """Five layers, stacked."""
    init = liftnn.vmap(lambda key: liftnn.Linear(3, 3, rngs=liftnn.Rngs(key)))
    return init(jax.random.split(jax.random.key(0), 5))


def by_hand(layers, x):
    """What a scan over the layers gives in plain JAX."""

    def step(x, weights):
        kernel, bias = weights
        return jnp.tanh(x @ kernel + bias), None

    return jax.lax.scan(step, x, (layers.kernel.value, layers.bias.value))[0]


def loops_in(jaxpr):
    """The scans in a jaxpr, outermost first."""
    return [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]


@pytest.mark.thorough
def test_layers_that_share_nothing_are_traced_once_in_the_loop(layers):
    calls = []

    def step(x, layer):
        calls.append(type(x))
        return jnp.tanh(layer(x))

    f = liftnn.scan(step, **OVER_LAYERS)
    assert jnp.allclose(f(jnp.ones(3), layers), by_hand(layers, jnp.ones(3)), atol=1e-6)
    assert len(calls) == 1


def test_what_a_step_writes_to_its_layer_is_stacked(layers):
    def step(x, layer):
        layer.bias.value = layer.bias + x
        layer.seen = liftnn.Intermediate(x.sum())
        layer.mode = "seen"
        return x + 1

    assert liftnn.scan(step, **OVER_LAYERS)(jnp.zeros(3), layers).tolist() == [5.0] * 3
    assert layers.bias.value.tolist() == [[float(i)] * 3 for i in range(5)]
    assert layers.seen.value.tolist() == [0.0, 3.0, 6.0, 9.0, 12.0]
    assert layers.mode == "seen"


@pytest.mark.parametrize("start", [0, 0.0, jnp.float32(0), jnp.zeros(3), (0, jnp.ones(2))], ids=str)
def test_a_carry_of_any_type_is_what_jax_makes_of_it(start):
    def step(carry, x):
        return jax.tree.map(lambda c: c * x + x, carry), carry

    xs = jnp.arange(4.0)
    ours, theirs = liftnn.scan(step)(start, xs), jax.lax.scan(step, start, xs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == two.dtype
        assert one.tolist() == two.tolist()


def test_a_first_step_that_alone_changes_structure_is_made_by_itself(layers):
    def step(x, layer):
        return {"x": x["x"] + layer.bias.sum(), **({} if "n" in x else {"n": jnp.ones(())})}

    def twice(x, layer):
        holder, value = x
        holder.n = 1
        return holder, value + layer.bias.sum()

    holder = liftnn.Module()
    out, value = liftnn.scan(twice, **OVER_LAYERS)((holder, jnp.zeros(())), layers)
    assert out is holder
    assert (holder.n, float(value)) == (1, 0.0)
    with pytest.raises(liftnn.StructureError, match=r"carry of .*{'x': \*} before a step, but {'n': \*, 'x'"):
        liftnn.scan(step, **OVER_LAYERS)({"x": jnp.zeros(())}, layers)


def test_an_error_of_jax_names_the_attribute(layers):
    def step(x, layer):
        return x if layer.kernel.sum() > 0 else -x

    with pytest.raises(jax.errors.TracerBoolConversionError, match=r"argument args\[1\]\.kernel"):
        liftnn.scan(step, **OVER_LAYERS)(jnp.ones(3), layers)


def test_what_steps_share_and_only_read_is_no_carry(layers):
    shared = liftnn.Linear(3, 3, rngs=liftnn.Rngs(1))

    def step(x, layer, shared):
        return shared(layer(x))

    f = liftnn.scan(step, in_axes=(liftnn.Carry, 0, None), out_axes=liftnn.Carry)
    (loop,) = loops_in(liftnn.make_jaxpr(f)(jnp.ones(3), layers, shared).jaxpr)
    assert scan_sizes(loop)[1] == 1
