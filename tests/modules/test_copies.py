"""view, with_attributes and view_info, as in Flax NNX: other modules, the same Variables."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.strategies import Node

import liftnn

X = jnp.linspace(-1.0, 1.0, 6).reshape(3, 2)


def build(library):
    class Block(library.Module):
        def __init__(self):
            rngs = library.Rngs(0)
            self.norm = library.BatchNorm(2, rngs=rngs)
            drop = library.Dropout(0.5, rngs=rngs)
            self.layers = library.List([drop, drop]) if library is nnx else [drop, drop]
            self.linear = library.Linear(2, 2, rngs=rngs)

        def __call__(self, x):
            return self.layers[1](self.layers[0](self.linear(self.norm(x))))

    return Block()


def modes(model):
    return model.norm.use_running_average, model.layers[0].deterministic, model.layers[1].deterministic


CASES = {
    "both": lambda lib, m: lib.view(m, deterministic=True, use_running_average=True),
    "one class": lambda lib, m: lib.view(m, only=lib.Dropout, deterministic=True),
    "none": lambda lib, m: lib.view(m, raise_if_not_found=False, unknown=1),
    "attributes": lambda lib, m: lib.with_attributes(m, deterministic=True),
    "attributes of a class": lambda lib, m: lib.with_attributes(
        m, only=lib.BatchNorm, use_running_average=True
    ),
    "attributes by path": lambda lib, m: lib.with_attributes(m, only=lib.PathContains("norm"), momentum=0.5),
    "no attributes": lambda lib, m: lib.with_attributes(m, raise_if_not_found=False, unknown=1),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", CASES)
def test_copies_are_those_of_flax(case):
    ours, theirs = build(liftnn), build(nnx)
    our_copy, their_copy = CASES[case](liftnn, ours), CASES[case](nnx, theirs)
    assert modes(our_copy) == modes(their_copy)
    assert modes(ours) == modes(theirs) == (False, False, False)
    assert our_copy.norm.momentum == their_copy.norm.momentum
    assert our_copy.linear.kernel is ours.linear.kernel
    assert our_copy.layers[0] is our_copy.layers[1] is not ours.layers[0]
    assert our_copy.layers is not ours.layers
    np.testing.assert_array_equal(our_copy(X), their_copy(X))
    np.testing.assert_array_equal(ours.norm.mean.value, theirs.norm.mean.get_value())


@pytest.mark.parametrize("verb", ["view", "with_attributes"])
def test_a_name_that_no_module_has_is_an_error_in_flax_too(verb):
    for library in (liftnn, nnx):
        with pytest.raises(ValueError, match="unknown"):
            getattr(library, verb)(build(library), unknown=1, deterministic=True)


@pytest.mark.thorough
def test_attention_decodes_in_a_view_as_in_flax():
    """Oracle: a layer of Flax with a cache made by hand, since its view makes one for no layer without a cache."""

    def decode(layer):
        return np.concatenate([layer(x[:, None]) for x in jnp.arange(24.0).reshape(3, 2, 4)], 1)

    theirs = nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0), decode=True)
    theirs.init_cache((2, 3, 4))
    ours = liftnn.MultiHeadAttention(2, 4, rngs=liftnn.Rngs(0), decode=False)
    decoding = liftnn.view(ours, decode=True, batch_size=2, max_length=3, deterministic=True)
    assert (ours.decode, ours.cached_key, decoding.cached_key.shape) == (False, None, (2, 3, 2, 2))
    np.testing.assert_array_equal(decode(decoding), decode(theirs))
    again = liftnn.view(decoding, decode=True)
    assert again.cached_key is decoding.cached_key


def test_a_view_for_decoding_needs_a_size():
    layer = liftnn.MultiHeadAttention(2, 4, rngs=liftnn.Rngs(0))
    with pytest.raises(liftnn.ArgumentError, match="batch_size and max_length"):
        liftnn.view(layer, decode=True)
    assert not layer.decode


def test_a_view_that_does_not_decode_needs_no_size_as_in_flax():
    for library in (liftnn, nnx):
        layer = library.MultiHeadAttention(2, 4, decode=True, rngs=library.Rngs(0))
        assert library.view(layer, decode=False)(jnp.ones((2, 3, 4))).shape == (2, 3, 4)


def test_the_arguments_of_set_view_are_those_of_flax():
    def run(library):
        log = []

        class One(library.Module):
            def set_view(self, a=None, *, b=None):
                log.append((a, b))

        class Every(library.Module):
            def set_view(self, **kwargs):
                log.append(sorted(kwargs.items()))

        library.view(One(), a=1, b=2, raise_if_not_found=False, c=3)
        library.view(Every(), a=1, c=3)
        return log

    assert run(liftnn) == run(nnx) == [(1, 2), [("a", 1), ("c", 3)]]


def test_view_info_is_that_of_flax():
    def run(library):
        class Plain(library.Module):
            def set_view(self, mode: str, size: int | None = None):
                self.mode = mode

        class Described(library.Module):
            def set_view(self, fast: bool | None = None, kind: "str" = "a", **kwargs):  # noqa: UP037
                """Set something.

                Args:
                  fast: whether to be fast,
                    or slow.
                  kind: the kind.
                """

        class Both(library.Module):
            def __init__(self):
                self.plain, self.described, self.other = Plain(), Described(), library.Module()

        text = library.view_info(Both()), library.view_info(Both(), only=Plain)
        return [t.replace("<class 'str'>", "str").replace("    or slow", "or slow") for t in text]

    ours, theirs = run(liftnn), run(nnx)
    strip = [[line.strip() for line in text.splitlines()] for text in theirs]
    assert [[line.strip() for line in text.splitlines()] for text in ours] == strip
    assert liftnn.view_info(liftnn.Module()) == nnx.view_info(nnx.Module()) == ""


def test_cycles_trees_empty_modules_and_metadata():
    node = Node(w=liftnn.Param(1.0, held=[liftnn.Dropout(0.5)]), drop=liftnn.Dropout(0.5))
    node.me = node
    one, two = liftnn.with_attributes((node, {"a": node.drop}), deterministic=True)
    assert one.me is one
    assert one.drop is two["a"] is not node.drop
    assert one.w is node.w
    assert one.drop.deterministic
    assert not node.drop.deterministic
    assert not node.w.held[0].deterministic  # the Variable is shared, and so is what its metadata hold
    assert type(liftnn.with_attributes(liftnn.Module())) is liftnn.Module


def test_a_view_of_a_captured_module_writes_to_the_original():
    model, expected = build(liftnn), build(liftnn)

    @liftnn.jit
    def f(x):
        return liftnn.view(model, deterministic=True)(x)

    for _ in range(3):
        np.testing.assert_allclose(f(X), liftnn.view(expected, deterministic=True)(X), rtol=1e-6)
    np.testing.assert_allclose(model.norm.mean.value, expected.norm.mean.value, rtol=1e-6)
    assert f.n_traces == 1


@pytest.mark.thorough
def test_a_view_can_be_returned_and_differentiated():
    model = build(liftnn)
    view = liftnn.jit(lambda model: liftnn.view(model, deterministic=True))(model)
    assert view.linear.kernel is model.linear.kernel
    assert view.layers[0].deterministic

    def loss(model):
        return (liftnn.view(model, deterministic=True, use_running_average=True)(X) ** 2).sum()

    grads = liftnn.grad(loss)(model)
    expected = liftnn.grad(lambda model: (model(X) ** 2).sum())(build(liftnn).eval())
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_view_in_a_program_of_its_own_shares_what_is_learned():
    model = build(liftnn)
    evaluated = liftnn.view(model, deterministic=True, use_running_average=True)
    f = liftnn.jit(lambda model, x: model(x))
    before = f(evaluated, X)
    model.linear.bias.value += 1.0
    np.testing.assert_allclose(f(evaluated, X), before + 1.0, rtol=1e-5)


class Counting(liftnn.Module):
    def __init__(self, transform):
        self.n = liftnn.Variable(jnp.zeros(()))
        self.step = transform(self.count)

    def count(self):
        self.n.value = self.n.value + 1


@pytest.mark.parametrize("copy", [liftnn.clone, copy.deepcopy], ids=["clone", "deepcopy"])
@pytest.mark.parametrize("transform", [lambda method: method, liftnn.jit, liftnn.remat, liftnn.trace_once])
def test_a_method_is_bound_to_the_copy(transform, copy):
    model = Counting(transform)
    made = copy(model)
    made.step()
    assert (float(model.n.value), float(made.n.value)) == (0, 1)
