"""Functions that hold modules in states, GraphDefs, derivatives and loops; and the functions that stay static."""

from __future__ import annotations

import functools
import pickle
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.closure_models import (
    BUILDS,
    Box,
    Counter,
    close,
    counting,
    read,
    self_capturing,
    set_statics,
    set_values,
)
from tests.raising import raises

import liftnn
from liftnn import errors
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import CELL, FUNCTION, STATIC, classify, kind_by_type


@pytest.mark.parametrize("build", BUILDS, ids=lambda f: f.__name__)
def test_split_merge_and_clone_make_closures_of_their_own(build):
    model = build()
    for new in (liftnn.clone(model), liftnn.merge(*reversed(liftnn.split(model)))):
        close(read(new), read(model))
        assert new.act is not model.act
        set_values(new)
        set_statics(new)
        close(read(model), read(build()))
        with pytest.raises(AssertionError):
            close(read(new), read(model))
    first, second = liftnn.split(build())[1], liftnn.split(build())[1]
    assert first == second
    assert hash(first) == hash(second)


def test_the_variables_of_a_closure_are_part_of_the_state():
    m, other = Counter(), Counter(3.0)
    m.act = lambda x: x * other.n
    assert list(liftnn.state(m).flat()) == [("n",), ("act", "other", "cell", "n")]
    paths = []
    liftnn.lift(
        lambda m: None, bind=lambda plan, pure: paths.extend(map(plan.path_of, plan.variables)) or pure
    )(m)
    assert paths == ["args[0].n", "args[0].act.other.n"]
    state = liftnn.state(m)
    other.n.value = jnp.array(8.0)
    liftnn.update(m, state)
    assert float(other.n.value) == 3.0


def test_other_functions_stay_static():
    def users(x, y=2):
        return x + y

    values = [1, 2]
    plain = (
        users,
        lambda: values,
        lambda: users,
        jax.nn.initializers.normal(1.0),
        Counter.train,
        jnp.sum,
        max,
    )
    assert all(classify(f) is STATIC for f in plain)
    m = Counter()
    m.functions = list(plain)
    assert not any(isinstance(x, types.FunctionType) for x in walk_tree(m).objects)
    held = [m, m.n, jnp.ones(1), np.ones(1), [m], {"a": (m,)}, Box(m), m.train, functools.partial(max, m)]
    assert all(classify(lambda x=x: x) is FUNCTION for x in held)
    assert kind_by_type(types.CellType) is CELL


def test_a_difference_of_closures_is_told_by_path():
    def build(k):
        m, other = Counter(), Counter(3.0, k)
        m.act = lambda x: x * other.k
        return m

    assert liftnn.split(build(1))[1].diff(liftnn.split(build(2))[1]) == "act.other.k: 1 -> 2"


def test_code_that_holds_modules_cannot_be_pickled():
    graphdef = liftnn.split(self_capturing())[1]
    with raises(
        errors.StructureError,
        "The code of the function self_capturing.<locals>.<lambda> cannot be pickled. The function is part of the "
        "model's structure, since it holds a module, a Variable, an array or a container of the model.\n"
        "Use a method of a module, or a functools.partial of a function at the top level of a file.",
    ):
        pickle.dumps(graphdef)


def test_a_loop_is_not_given_what_its_functions_close_over():
    m, x = Counter(), jnp.array(2.0)
    assert float(liftnn.cond(True, lambda y: y * m.n * x, lambda y: y * x, 3.0)) == 6.0
    assert (
        float(liftnn.jit(lambda z: liftnn.cond(z > 0, lambda y: y * m.n * z, lambda y: y * z, 3.0))(2.0))
        == 6.0
    )
    total = liftnn.fori_loop(0, 3, functools.partial(lambda s, i, c: c + m.n * x * s, 2.0), 0.0)
    assert float(total) == 12.0
    m.n.value = jnp.array(5.0)
    assert float(liftnn.while_loop(lambda c: c < m.n, lambda c: c + x, 0.0)) == 6.0


def test_derivatives_by_what_a_closure_reaches():
    m, other = Counter(), Counter(3.0)
    m.act = lambda x: x * other.n**2
    grads = liftnn.grad(lambda m, x: m.act(x) * m.n)(m, 2.0)
    assert float(grads["act"]["other"]["cell"]["n"].value) == 12.0
    assert float(grads["n"].value) == 18.0


def test_each_step_of_a_scan_sees_the_last_one():
    def build():
        m = counting(Counter())
        m.act = lambda x: x * m.n + m.k
        return m

    def step(m, x):
        m.n.value = m.act(m.n) + x
        return m.n.value + 0

    model, plain = build(), build()
    out = liftnn.scan(step, in_axes=(None, 0), out_axes=0)(model, jnp.arange(3.0))
    assert out.tolist() == [float(step(plain, float(i))) for i in range(3)]
    assert float(model.act(1.0)) == float(plain.act(1.0))
