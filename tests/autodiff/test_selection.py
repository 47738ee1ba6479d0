"""`argnums` selects the arguments that it selects in JAX, whatever kind of integer and of sequence it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.alike import find_difference
from tests.raising import caught

import liftnn

ARGNUMS = {
    "int": lambda: 1,
    "numpy int": lambda: np.int64(1),
    "array of rank 0": lambda: np.array(1),
    "jax array": lambda: jnp.array(1),
    "bool": lambda: True,
    "list": lambda: [1, 0],
    "numpy ints": lambda: (np.int32(1), np.int8(0)),
    "array": lambda: np.array([1, 0]),
    "range": lambda: range(2),
    "set": lambda: {1},
}
TRANSFORMS = ["grad", "value_and_grad", "jacfwd", "jacrev", "hessian"]


def f(x, y):
    return x * y**2


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", ARGNUMS)
@pytest.mark.sample(6)
def test_argnums_of_any_integer_type_give_what_jax_gives(kind, transform):
    def call(of):
        return getattr(of, transform)(f, argnums=ARGNUMS[kind]())(2.0, 3.0)

    try:
        theirs = call(jax)
    except TypeError:
        pytest.skip("JAX 0.10.0 takes only ints in jacrev and hessian")
    assert find_difference(call(liftnn), theirs) is None


@pytest.mark.parametrize("kind", ARGNUMS)
def test_argnums_of_any_integer_type_select_the_same_arguments_of_a_call_with_modules(kind):
    def loss(x, y, module):
        return f(x, y) * module.scale

    module = type(
        "Scale", (liftnn.Module,), {"__init__": lambda self: setattr(self, "scale", liftnn.Param(1.0))}
    )()
    ours = liftnn.grad(loss, argnums=ARGNUMS[kind]())(2.0, 3.0, module)
    assert find_difference(ours, jax.grad(f, argnums=ARGNUMS[kind]())(2.0, 3.0)) is None


@pytest.mark.parametrize("argnums", ["x", 1.0, (0, 1.0), None, np.array([0.0])], ids=repr)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_argnums_of_another_type_are_a_type_error_as_in_jax(transform, argnums):
    ours, theirs = (
        caught(lambda of=of: getattr(of, transform)(f, argnums=argnums)(2.0, 3.0)) for of in (liftnn, jax)
    )
    assert isinstance(theirs, TypeError)
    assert isinstance(ours, TypeError)


@pytest.mark.parametrize("transform", TRANSFORMS[:2])
@pytest.mark.parametrize("args, kwargs", [((2.0, 3.0), {}), ((), {"x": 2.0, "y": 3.0})])
def test_an_argument_that_was_not_passed_by_position_is_a_type_error_as_in_jax(transform, args, kwargs):
    argnums = 2 if args else 0
    for of in (jax, liftnn):
        with pytest.raises(TypeError):
            getattr(of, transform)(f, argnums=argnums)(*args, **kwargs)


VARIABLES = {
    "alone": (lambda v: v, lambda x: x),
    "in a list": (lambda v: [v, liftnn.Param(2.0)], lambda x: [x, 2.0]),
    "in a dict": (lambda v: {"v": v, "a": jnp.float32(4.0)}, lambda x: {"v": x, "a": 4.0}),
    "of a dict": (lambda v: type(v)({"v": v.value, "w": jnp.ones(2)}), lambda x: {"v": x, "w": jnp.ones(2)}),
}  # fmt: skip
DERIVATIVES = {
    "grad": lambda of, f, x: of.grad(f)(x),
    "vjp": lambda of, f, x: of.vjp(f, x)[1](jnp.float32(1.0))[0],
    "jacrev": lambda of, f, x: of.jacrev(f)(x),
    "jacfwd": lambda of, f, x: of.jacfwd(f)(x),
}


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("where", VARIABLES)
@pytest.mark.parametrize("cls", [liftnn.Variable, liftnn.BatchStat, liftnn.Param], ids=lambda c: c.__name__)
def test_a_variable_that_is_an_argument_itself_is_differentiated_whatever_its_type(cls, where, derivative):
    def f(x):
        return sum((jnp.sin(leaf) ** 2).sum() for leaf in jax.tree.leaves(x))

    variables, arrays = VARIABLES[where]
    tree = variables(cls(jnp.float32(3.0)))
    ours = DERIVATIVES[derivative](liftnn, f, tree)
    theirs = DERIVATIVES[derivative](jax, f, jax.tree.map(jnp.float32, arrays(3.0)))
    assert jax.tree.map(type, ours, is_leaf=is_variable) == jax.tree.map(type, tree, is_leaf=is_variable)
    assert find_difference(jax.tree.leaves(ours), jax.tree.leaves(theirs)) is None


def is_variable(x):
    return isinstance(x, liftnn.Variable)


def test_a_variable_of_integers_or_of_a_module_is_not():
    norm = liftnn.BatchNorm(2, rngs=liftnn.Rngs(0))
    count = liftnn.Variable(jnp.int32(3))
    grads = liftnn.grad(lambda n, c, m: (n(jnp.ones((1, 2))) * m * c).sum(), argnums=(0, 1, 2))(
        norm, count, norm.mean
    )
    assert sorted(grads[0]) == ["bias", "scale"]
    assert len(grads[1]) == 0
    assert type(grads[2]) is liftnn.BatchStat
    with pytest.raises(liftnn.FilterError, match="Nothing to differentiate"):
        liftnn.grad(lambda c: c * 2.0)(count)


def test_a_filter_holds_for_variables_that_are_arguments_too():
    variables = {"mean": liftnn.BatchStat(1.0), "kernel": liftnn.Param(2.0)}
    grads = liftnn.grad(lambda v: v["mean"] * v["kernel"], wrt=liftnn.PathContains("kernel"))(variables)
    assert len(grads["mean"]) == 0
    assert float(grads["kernel"]) == 1.0
