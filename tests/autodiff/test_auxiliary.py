"""What `has_aux=True` passes on: with modules it is what the same function of arrays gets from JAX."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.user_modules import Holder

import liftnn

AUXILIARY = {
    "int": 3,
    "bool": False,
    "float": 1.5,
    "complex": 1j,
    "nested": ({"n": [7]}, None),
    "empty": (),
}

WAYS = {
    "grad": lambda lib, f, m: lib.grad(f, has_aux=True)(m)[1],
    "value_and_grad": lambda lib, f, m: lib.value_and_grad(f, has_aux=True)(m)[0][1],
    "vjp": lambda lib, f, m: lib.vjp(f, m, has_aux=True)[2],
    "jvp": lambda lib, f, m: lib.jvp(f, (m,), (_tangent(m),), has_aux=True)[2],
    "linearize": lambda lib, f, m: lib.linearize(f, m, has_aux=True)[2],
    "jacfwd": lambda lib, f, m: lib.jacfwd(f, has_aux=True)(m)[1],
    "jacrev": lambda lib, f, m: lib.jacrev(f, has_aux=True)(m)[1],
    "hessian": lambda lib, f, m: lib.hessian(f, has_aux=True)(m)[1],
}


def _tangent(m):
    return None if isinstance(m, liftnn.Module) else jnp.ones_like(m)


def square(m):
    return (m.w.value if isinstance(m, liftnn.Module) else m) ** 2


def types_of(tree):
    return jax.tree.map(lambda x: (type(x), x), tree)


@pytest.mark.parametrize("way", WAYS)
def test_python_values_are_passed_on_as_by_jax(way):
    def with_values(m):
        return square(m), AUXILIARY

    expected = WAYS[way](jax, with_values, jnp.float32(2.0))
    assert types_of(WAYS[way](liftnn, with_values, Holder(w=liftnn.Param(jnp.float32(2.0))))) == types_of(
        expected
    )


class Scored(NamedTuple):
    score: Any
    n: int


@pytest.mark.parametrize("kind", [list, Scored._make])
@pytest.mark.parametrize("way", WAYS)
def test_the_pair_may_be_a_list_or_a_named_tuple_as_in_jax(way, kind):
    def pair(m):
        return kind([square(m), 3])

    expected = WAYS[way](jax, pair, jnp.float32(2.0))
    assert types_of(WAYS[way](liftnn, pair, Holder(w=liftnn.Param(jnp.float32(2.0))))) == types_of(expected)


def test_the_pair_of_value_and_grad_is_a_plain_tuple_as_in_jax():
    model = Holder(w=liftnn.Param(jnp.float32(2.0)))
    for kind in (list, Scored._make):
        out, _ = liftnn.value_and_grad(lambda m, kind=kind: kind([square(m), 3]), has_aux=True)(model)
        expected, _ = jax.value_and_grad(lambda w, kind=kind: kind([square(w), 3]), has_aux=True)(2.0)
        assert type(out) is type(expected)


@pytest.mark.parametrize("way", WAYS)
def test_numbers_are_static_inside_jit(way):
    def sizes(m):
        return square(m), {"n": 3, "debug": False}

    def outer(m):
        aux = WAYS[way](liftnn, sizes, m)
        assert aux["debug"] is False
        return jnp.zeros(aux["n"]), aux

    zeros, aux = liftnn.jit(outer)(Holder(w=liftnn.Param(jnp.float32(2.0))))
    np.testing.assert_array_equal(zeros, np.zeros(3))
    assert all(isinstance(x, jax.Array) for x in aux.values())  # jit returns arrays, as in JAX


@pytest.mark.parametrize("way", ["grad", "value_and_grad", "vjp", "jvp", "linearize", "jacrev"])
def test_text_is_passed_on(way):
    assert (
        WAYS[way](liftnn, lambda m: (square(m), "loss"), Holder(w=liftnn.Param(jnp.float32(2.0)))) == "loss"
    )


def test_numbers_beside_arrays_and_modules_are_passed_on():
    model = Holder(w=liftnn.Param(jnp.float32(2.0)), count=liftnn.Variable(0))

    def loss(m):
        m.count.value += 1
        return square(m), (4, m, m.w.value, Holder(k=5))

    (value, (number, returned, array, new)), grads = liftnn.value_and_grad(loss, has_aux=True)(model)
    assert (float(value), type(number), number, float(array), new.k) == (4.0, int, 4, 2.0, 5)
    assert returned is model
    assert (model.count.value, grads["w"].value) == (1, 4.0)


@pytest.mark.parametrize("transform", ["vmap", "scan"])
def test_a_number_in_a_mapped_function_is_an_array_of_the_batch(transform):
    model = Holder(w=liftnn.Param(jnp.float32(2.0)))

    def body(m, x):
        grads, number = liftnn.grad(lambda m: (m.w * x, 3), has_aux=True)(m)
        return grads["w"].value, number

    if transform == "vmap":
        grads, numbers = liftnn.vmap(body, in_axes=(None, 0))(model, jnp.arange(2.0))
    else:
        _, (grads, numbers) = liftnn.scan(lambda m, x: (m, body(m, x)))(model, jnp.arange(2.0))
    np.testing.assert_array_equal(grads, [0.0, 1.0])
    np.testing.assert_array_equal(numbers, [3, 3])


def test_an_output_that_is_not_auxiliary_must_be_an_array():
    with pytest.raises(liftnn.LiftError, match="must return a scalar array"):
        liftnn.grad(lambda m: "text")(Holder(w=liftnn.Param(jnp.float32(2.0))))
