from __future__ import annotations

import jax.numpy as jnp
import pytest
from tests.raising import raises

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


AXES = "Pass an input with one axis for each letter; `...` in the equation stands for any further axes."
SIZES = "Create the layer with the input's sizes, or change the input."


@pytest.mark.parametrize(
    "equation, shape, text",
    [
        (
            "ab,bc->ac",
            (2, 5),
            (
                "This Einsum of 'ab,bc->ac' expects the size 4 of its kernel along axis 1, 'b', but its input of shape "
                f"(2, 5) has 5.\n{SIZES}"
            ),
        ),
        (
            "b...,...c->b...c",
            (2, 5),
            (
                "This Einsum of 'b...,...c->b...c' expects the size 4 of its kernel along axis 1, one of `...`, but "
                f"its input of shape (2, 5) has 5.\n{SIZES}"
            ),
        ),
        (
            "ab,bc->ac",
            (2, 4, 4),
            "This Einsum of 'ab,bc->ac' expects an input with the axes 'ab', but its shape is (2, 4, 4).\n"
            + AXES,
        ),
        (
            "...ab,bc->...ac",
            (4,),
            "This Einsum of '...ab,bc->...ac' expects an input with the axes '...ab', but its shape is (4,).\n"
            + AXES,
        ),
    ],
)
def test_an_input_that_does_not_fit_the_kernel_is_an_error_with_both(equation, shape, text):
    layer = liftnn.Einsum(equation, (4, 3), rngs=liftnn.Rngs(0))
    with raises(errors.ArgumentError, text):
        layer(jnp.ones(shape))


@pytest.mark.parametrize("equation, shape", [("...b,bc->...c", (2, 1)), ("b...,...c->b...c", (2, 1))])
def test_an_axis_of_size_one_broadcasts_as_in_flax(equation, shape, agrees_with_flax, rand):
    agrees_with_flax("Einsum", equation, (4, 3), x=rand(*shape))


def test_a_kernel_without_an_axis_for_each_letter_is_an_error():
    with raises(
        errors.ArgumentError,
        "The kernel of an Einsum of 'ab,bc->ac' has the axes 'bc', but its shape is (4,).\n"
        "Pass a kernel_shape with one size for each letter; `...` in the equation stands for any further axes.",
    ):
        liftnn.Einsum("ab,bc->ac", (4,), rngs=liftnn.Rngs(0))


def test_a_letter_of_the_result_that_no_operand_has_is_an_error():
    with raises(
        errors.ArgumentError,
        "The result of the equation 'ab,bc->ad' has 'd', which neither the input nor the kernel has.\n"
        "Use letters of the input and of the kernel in the result.",
    ):
        liftnn.Einsum("ab,bc->ad", (4, 3), rngs=liftnn.Rngs(0))


def test_a_bias_without_the_sizes_of_the_kernel_is_an_error_of_the_call():
    layer = liftnn.Einsum("ab,bc->ac", (4, 3), (4,), rngs=liftnn.Rngs(0))
    with raises(
        errors.ArgumentError,
        "The bias of this Einsum of 'ab,bc->ac' has the shape (4,), but it is added to a result with the kernel's "
        "sizes (1, 3).\n"
        "Pass as bias_shape the sizes of the kernel's axes that are in the result, in the order of the result.",
    ):
        layer(jnp.ones((2, 4)))
