from __future__ import annotations

import jax.numpy as jnp
import pytest

import liftnn
from liftnn import errors


@pytest.mark.thorough
@pytest.mark.parametrize(
    "equation, kernel, bias, shape",
    [
        ("nta,hab->nthb", (8, 2, 4), (8, 4), (3, 5, 2)),
        ("ab,bc->ac", (3, 4), (4,), (2, 3)),
        ("ab, bc -> ac", (3, 4), None, (2, 3)),
        ("...a,ab->...b", (3, 4), (4,), (2, 5, 3)),
        ("...a,ab->...b", (3, 4), (4,), (3,)),
        ("a...,ab->b...", (3, 4), (4,), (3, 5, 6)),
        ("ij,j->i", (3,), (), (2, 3)),
        ("...ab,bc...->ac...", (4, 5, 3), (5, 3), (3, 2, 4)),
        ("...ab,bc...->...ac", (4, 5, 3), (3, 5), (7, 3, 2, 4)),
        ("ab,b...c->a...c", (4, 2, 3, 5), (2, 3, 5), (6, 4)),
    ],
)
@pytest.mark.sample(12)
def test_outputs_and_gradients_are_those_of_flax(
    equation, kernel, bias, shape, agrees_with_flax, rand, drawn
):
    agrees_with_flax("Einsum", equation, kernel, bias, **drawn, x=rand(*shape), grad=True)


@pytest.mark.sample(3)
@pytest.mark.parametrize("dtypes", [{}, {"dtype": jnp.bfloat16}, {"param_dtype": jnp.bfloat16}])
def test_initial_weights_and_dtypes_are_those_of_flax(dtypes, agrees_with_flax, rand):
    agrees_with_flax("Einsum", "ab,bc->ac", (3, 4), (4,), x=rand(2, 3), **dtypes)


def test_a_call_can_use_another_equation(rand, close):
    layer = liftnn.Einsum("ab,bc->ac", (3, 4), rngs=liftnn.Rngs(0))
    x = rand(2, 5, 3)
    close(layer(x, "abd,dc->bac"), jnp.einsum("abd,dc->bac", x, layer.kernel.value))


@pytest.mark.parametrize("equation", ["ab,bc", "ab->ba", "a,b,c->abc"])
def test_equations_without_two_operands_and_a_result_are_refused(equation):
    with pytest.raises(errors.ArgumentError, match=f"its equation is '{equation}'"):
        liftnn.Einsum(equation, (3, 4), rngs=liftnn.Rngs(0))
