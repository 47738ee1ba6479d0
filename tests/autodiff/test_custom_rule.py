"""What a custom function captures is an input without a derivative."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.user_modules import Affine

import liftnn
from liftnn import errors


def test_what_the_function_captures_is_used_where_it_is_not_differentiated():
    model = Affine(2.0)
    f = liftnn.custom_vjp(lambda x: (model.w * x).sum())
    f.defvjp(lambda x: (f(x), None), lambda _, ct: (7.0 * ct,))
    derivative = liftnn.jit(liftnn.grad(f))
    assert float(derivative(1.0)) == 7.0
    assert float(f(1.0)) == 6.0
    model.w.value = model.w * 2
    assert (float(derivative(1.0)), float(f(1.0))) == (7.0, 12.0)
    with pytest.raises(errors.TraceContextError, match=r"^model.w is differentiated"):
        liftnn.jit(liftnn.grad(lambda w: (setattr(model.w, "value", w), f(1.0))[1]))(jnp.ones(3))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("place", ["attribute", "value", "inside"])
@pytest.mark.parametrize("transform", [liftnn.custom_vjp, liftnn.custom_jvp])
def test_a_numpy_array_is_not_changed_in_a_copy(transform, place, dtype):
    """JAX passes the function a copy if the dtype changes; a change of the copy would be lost."""
    model, array = Affine(2.0), np.arange(3, dtype=dtype)
    if place == "attribute":
        model.numbers = array
    else:
        model.numbers = liftnn.Variable(array if place == "value" else {"a": array})

    def change(x, model):
        numbers = model.numbers if place == "attribute" else model.numbers.value
        (numbers["a"] if place == "inside" else numbers)[0] += 1
        return x

    f = transform(change)
    if transform is liftnn.custom_vjp:
        f.defvjp(lambda x, model: (f(x, model), None), lambda _, ct: (ct, None))
    else:
        f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    with pytest.raises(TypeError, match="JAX arrays are immutable"):
        f(1.0, model)
    assert array.tolist() == [0, 1, 2]


@dataclasses.dataclass
class Scaled:
    """A dataclass that JAX does not know, with a number, an array or a model."""

    by: object

    def act(self, x, y):
        return (self.by if not isinstance(self.by, Affine) else self.by.w).sum() * x + y


OWNERS = {
    "number": lambda: Scaled(np.float32(2)),
    "array": lambda: Scaled(jnp.array(2.0)),
    "model": lambda: Scaled(Affine(2.0)),
}


@pytest.mark.parametrize("options", [{}, {"nondiff_argnums": (1,)}, {"nondiff_argnames": ("y",)}], ids=repr)
@pytest.mark.parametrize("make", OWNERS.values(), ids=OWNERS)
def test_the_rules_of_a_bound_method_do_not_get_its_dataclass_as_in_jax(make, options):
    def by_vjp(library):
        f = library.custom_vjp(make().act, **options)
        if options:
            f.defvjp(lambda x, y: (x * y, None), lambda y, _, ct: (3 * ct,))
        else:
            f.defvjp(lambda x, y: (x * y, None), lambda _, ct: (3 * ct, ct))
        return f

    def by_jvp(library):
        f = library.custom_jvp(make().act, **options)
        if options:
            f.defjvp(lambda y, primals, tangents: (primals[0] * y, 3 * tangents[0]))
        else:
            f.defjvp(lambda primals, tangents: (primals[0] * primals[1], 3 * tangents[0] + tangents[1]))
        return f

    for rule in (by_vjp, by_jvp):
        found = [
            (float(f(5.0, 7.0)), *map(float, library.value_and_grad(f)(5.0, 7.0)))
            for library in (jax, liftnn)
            for f in [rule(library)]
        ]
        assert found[0] == found[1]


def test_a_model_in_the_dataclass_of_a_method_with_a_rule_is_not_stale():
    owner = OWNERS["model"]()
    f = liftnn.custom_vjp(owner.act)
    f.defvjp(lambda x, y: (owner.act(x, y), None), lambda _, ct: (3 * ct, ct))
    call = liftnn.jit(liftnn.value_and_grad(f))
    before = owner.act(1.0, 0.0)
    assert tuple(map(float, call(1.0, 0.0))) == (float(before), 3.0)
    owner.by.w.value = owner.by.w * 2
    assert tuple(map(float, call(1.0, 0.0))) == (2 * float(before), 3.0)
