"""An array that JAX does not take is named by its path, whether it is an argument, returned or stored."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors
from tests.raising import raises
from tests.user_modules import Affine, Holder

NAMES = np.array(["cat", "dog"])


def make():
    return Holder(layer=Holder(names=liftnn.Variable(NAMES)))


RETURNED = {
    "jit": lambda: liftnn.jit(make)(),
    "remat": lambda: liftnn.remat(make)(),
    "vmap": lambda: liftnn.vmap(lambda x: make())(jnp.ones(3)),
    "cond": lambda: liftnn.cond(True, make, make),
    "map": lambda: liftnn.map(lambda x: make(), jnp.ones(3)),
    "eval_shape": lambda: liftnn.eval_shape(make),
}


def text(name, path):
    return (
        f"liftnn.{name} cannot return {path}, which is a numpy array of strings, objects or dates: arrays of JAX hold "
        "numbers.\nStore a tuple, which is static, as in `tuple(x.tolist())`."
    )


@pytest.mark.parametrize("name", RETURNED)
def test_text_in_a_new_module_is_named(name):
    with raises(errors.ArgumentTypeError, text(name, "the output.layer.names (a Variable)")):
        RETURNED[name]()


def test_text_that_is_stored_is_named_and_the_model_is_as_before():
    model = Affine(2.0)
    with raises(errors.ArgumentTypeError, text("jit", "args[0].names")):
        liftnn.jit(lambda model: setattr(model, "names", NAMES))(model)
    assert not hasattr(model, "names")


def test_transforms_that_compute_with_numpy_return_it():
    _, made = liftnn.grad(lambda x: (x, make()), has_aux=True)(1.0)
    assert made.layer.names.value.tolist() == ["cat", "dog"]
