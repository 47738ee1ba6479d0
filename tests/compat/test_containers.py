"""List and Dict are Modules: sharing, cycles, fast paths, exceptions and copies act as for any Module."""

import copy
import inspect
import itertools
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from liftnn.compat import nnx

X = jnp.ones((2, 2))


def layers(*sizes):
    pairs = itertools.pairwise(sizes)
    return nnx.List([nnx.Linear(n, m, rngs=nnx.Rngs(i)) for i, (n, m) in enumerate(pairs)])


def test_a_jitted_function_sees_every_change_and_traces_once_for_each_structure():
    traces = []

    @nnx.jit
    def run(layers, x):
        traces.append(len(layers))
        for layer in layers:
            x = layer(x)
        return x

    stack = layers(2, 2, 2)
    for _ in range(3):
        run(stack, X)
    stack.append(nnx.Linear(2, 3, rngs=nnx.Rngs(7)))
    stack[0] = stack[1]
    np.testing.assert_allclose(run(stack, X), stack[2](stack[1](stack[1](X))), rtol=1e-6)
    assert traces == [2, 3]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), nnx.clone])
def test_a_copy_keeps_sharing(duplicate):
    stack = layers(2, 2)
    stack.append(stack[0])
    copied = duplicate(stack)
    assert copied[0] is copied[1] is not stack[0]
    np.testing.assert_array_equal(copied[0].kernel[...], stack[0].kernel[...])


def test_a_shallow_copy_holds_the_same_elements():
    stack = layers(2, 2)
    copied = copy.copy(stack)
    copied.append(1)
    assert copied[0] is stack[0]
    assert len(stack) == 1


def test_a_cycle_through_both():
    tree = nnx.Dict()
    tree.children = nnx.List([tree])
    merged = nnx.merge(*nnx.split(tree))
    assert merged.children[0] is merged
    nnx.jit(lambda tree: tree.children.append(nnx.Param(jnp.ones(2))))(tree)
    assert len(tree.children) == 2


def test_an_exception_leaves_everything_as_it_was():
    stack = layers(2, 2)
    before = list(stack)

    @nnx.jit
    def fail(stack):
        stack.append(1)
        stack[0] = 5
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(stack)
    assert all(x is y for x, y in zip(stack, before, strict=True))


def test_a_list_that_is_captured_and_passed_is_one_object():
    stack = nnx.List([nnx.Param(jnp.zeros(2))])

    @nnx.jit
    def twice(passed):
        passed[0][...] += 1
        stack[0][...] += 1

    twice(stack)
    assert stack[0][...].tolist() == [2.0, 2.0]


def test_the_variables_of_a_state_that_is_captured_or_passed_are_those_of_the_module():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    state = nnx.state(model)

    @nnx.jit
    def passed(model, state):
        state["bias"][...] += 1
        return model.bias[...]

    @nnx.jit
    def captured(model):
        state["bias"][...] += 1
        return model.bias[...]

    assert passed(model, state).tolist() == [1.0] * 3
    assert captured(model).tolist() == model.bias[...].tolist() == [2.0] * 3


def test_merge_inside_jit_shares_the_variables():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))

    @nnx.jit
    def make(model):
        merged = nnx.merge(*nnx.split(model))
        merged.bias[...] += 1
        return merged

    made = make(model)
    assert made.bias is model.bias
    assert model.bias[...].tolist() == [1.0] * 3


def test_tools_can_list_the_attributes():
    layers = nnx.List([nnx.Param(1.0), "static"])
    for holder in (layers, nnx.Dict(a=nnx.Param(1.0)), nnx.state(layers)):
        assert {"pop", "clear"} <= {*dir(holder)}
        assert ("pop", holder.pop) in inspect.getmembers(holder, inspect.ismethod)


def test_empty_ones():
    for empty in (nnx.List(), nnx.Dict()):
        assert len(nnx.merge(*nnx.split(empty))) == len(nnx.state(empty)) == len(empty) == 0


def test_the_repr_shows_each_element():
    class Block(nnx.Module):
        def __init__(self):
            self.parts = nnx.List([nnx.relu, nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(0)), None])

    assert repr(nnx.Dict(size=3, _name="x", w=nnx.Param(jnp.ones(2)))) == (
        "Dict(w: Param f32[2], size=3, _name='x')  2 params, 8 B"
    )
    assert repr(nnx.List([1, "a"])) == "List(0=1, 1='a')"
    assert repr(Block()) == (
        "Block(parts: List(1: Linear(kernel: Param f32[2,2], use_bias=False), 0=relu, 2=None))  4 params, 16 B"
    )
