"""A Variable works wherever an array does, also in functions that JAX has compiled; changes to a copy are refused."""

from __future__ import annotations

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

import liftnn

FUNCTIONS = (
    jnp.sum,
    jnp.exp,
    jax.nn.relu,
    jax.nn.softmax,
    jax.nn.gelu,
    lambda x: jnp.dot(x, x),
    lambda x: jnp.einsum("i,i->", x, x),
    lambda x: jnp.stack([x, x]),
    lambda x: jnp.where(x > 1, x, 0),
    lambda x: jax.lax.add(jnp.asarray(x), 1.0),
)


@pytest.mark.sample(2)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_of_arrays_takes_a_variable(function):
    x = jnp.arange(3.0)
    np.testing.assert_allclose(function(liftnn.Param(x)), function(x))


@pytest.mark.parametrize("transform", [liftnn.jit, lambda f: lambda v: liftnn.grad(f)(v).value])
def test_a_function_of_arrays_takes_a_variable_under_a_transform(transform):
    x = jnp.arange(3.0)
    expected = jax.jit(jnp.sum)(x) if transform is liftnn.jit else jax.grad(jnp.sum)(x)
    np.testing.assert_allclose(transform(lambda v: jnp.sum(v))(liftnn.Param(x)), expected)


def test_tree_map_gives_a_variable_of_the_same_kind():
    doubled = jax.tree.map(lambda x: 2 * x, liftnn.Param(jnp.ones(2), tag="lora"))
    assert type(doubled) is liftnn.Param
    assert doubled.tag == "lora"
    doubled.value = doubled + 1
    assert doubled.value.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.checkpoint])
def test_writing_the_copy_that_a_raw_transform_makes_is_refused(transform):
    def write(v):
        v.value = v * 2
        return v.value

    param = liftnn.Param(jnp.ones(2))
    with pytest.raises(liftnn.TraceContextError) as caught:
        transform(write)(param)
    assert str(caught.value) == (
        "Cannot change the value of a Param here: it is a copy that a raw JAX transform made of its argument, and "
        "the change would be lost.\nUse the liftnn transform of the same name instead."
    )
    assert param.value.tolist() == [1.0, 1.0]


def test_gradients_can_be_written():
    model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    grads = liftnn.grad(lambda m: jnp.sum(m.kernel))(model)
    grads["kernel"].value = grads["kernel"] * 2
    assert grads["kernel"].value.tolist() == [[2.0] * 3] * 2


def test_a_variable_captured_deep_inside_a_jit_is_an_input_of_it():
    param = liftnn.Param(jnp.ones(2))
    call = liftnn.jit(lambda x: liftnn.grad(lambda x: (param * x).sum())(x))
    assert call(1.0) == 2.0
    param.value = param * 3
    assert call(1.0) == 6.0
    assert call.n_traces == 1


def test_a_rule_of_a_primitive_rebuilds_a_state():
    """As in lineax: the primitive gets the leaves, and its rules rebuild the pytree, outside of any trace of JAX."""
    primitive = jax.extend.core.Primitive("sum_of_products")

    def products(treedef, leaves):
        tree = jax.tree.unflatten(treedef, leaves)
        return sum(jnp.vdot(x, x) for x in jax.tree.leaves(tree))

    def rule(*leaves, treedef):
        created = liftnn.Variable(jax.tree.unflatten(treedef, leaves)["kernel"].value)
        created.value = created.value
        return jax.core.ShapedArray((), jnp.float32)

    primitive.def_abstract_eval(rule)
    primitive.def_impl(lambda *leaves, treedef: products(treedef, leaves))

    state = liftnn.state(liftnn.Linear(2, 2, rngs=liftnn.Rngs(0)))
    leaves, treedef = jax.tree.flatten(state)
    assert jax.eval_shape(lambda *leaves: primitive.bind(*leaves, treedef=treedef), *leaves).shape == ()
    np.testing.assert_allclose(primitive.bind(*leaves, treedef=treedef), products(treedef, leaves))


def test_a_solver_that_needs_linear_solves_takes_a_state():
    x, y = jax.random.normal(jax.random.key(0), (2, 5, 2))
    linear = liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))
    graphdef, state = liftnn.split(linear)[::-1]

    def residual(params, _):
        return x @ params["kernel"] + params["bias"] - y

    solver = optimistix.LevenbergMarquardt(rtol=1e-6, atol=1e-6)
    arrays = optimistix.least_squares(residual, solver, state.to_pure_dict()).value
    found = optimistix.least_squares(lambda s, _: liftnn.merge(graphdef, s)(x) - y, solver, state).value
    for name, value in arrays.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
