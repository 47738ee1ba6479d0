"""An exception names the layer that raised it, by its path from the outermost module."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import pytest
from tests.raising import caught
from tests.transform_table import TRANSFORMS

import liftnn

X = jnp.ones(3)


class Failing(liftnn.Module):
    """A layer of the user's that fails."""

    def __init__(self):
        self.weight = liftnn.Param(jnp.ones(3))

    def __call__(self, x):
        raise KeyError("half way")


class Encoder(liftnn.Module):
    """A model with layers in containers, a cycle and a shared layer."""

    def __init__(self):
        good = liftnn.Linear(3, 3, rngs=liftnn.Rngs(0))
        self.root = self
        self.blocks = {"a": liftnn.Sequential(good, good, Failing())}

    def __call__(self, x):
        return self.encode(x)

    def encode(self, x):
        return self.blocks["a"](x)


def note(error):
    """The only note about a layer."""
    [found] = [x for x in getattr(error, "__notes__", []) if x.startswith("raised in")] or [None]
    return found


NAMED = "raised in {}.blocks.a.layers[2] (a Failing)"


def call(encoder, x):
    return encoder(x)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: f,
        liftnn.jit,
        lambda f: liftnn.jit(liftnn.remat(f)),
        lambda f: liftnn.grad(lambda m, x: f(m, x).sum()),
        lambda f: liftnn.vmap(f, in_axes=(None, 0), axis_size=3),
        lambda f: liftnn.jit(lambda model, x: liftnn.cond(True, f, f, model, x)),
    ],
)
def test_the_path_starts_with_the_name_of_the_argument(wrap):
    error = caught(wrap(call), Encoder(), jnp.ones((3, 3)))
    assert type(error) is KeyError
    assert note(error) in (NAMED.format("encoder"), NAMED.format("m"))


def test_the_path_starts_with_the_class_of_a_module_without_a_name():
    assert note(caught(liftnn.jit(Encoder()), X)) == NAMED.format("Encoder")
    assert note(caught(lambda: Encoder()(X))) == NAMED.format("Encoder")


def test_methods_are_looked_through():
    encoder = Encoder()
    assert note(caught(lambda: encoder.encode(X))) == NAMED.format("encoder")
    assert note(caught(liftnn.jit(lambda: encoder.encode(X)))) == NAMED.format("encoder")


def test_a_model_of_another_transform_continues_the_path():
    class Outer(liftnn.Module):
        def __init__(self):
            self.inner = Encoder()

        def __call__(self, x):
            return liftnn.jit(lambda part, x: liftnn.remat(part)(x))(self.inner, x)

    outer = Outer()
    assert note(caught(lambda: Outer()(X))) == NAMED.format("Outer.inner")
    assert note(caught(liftnn.jit(lambda x: outer(x)), X)) == NAMED.format("outer.inner")
    assert note(caught(jax.jit(lambda x: outer(x)), X)) == NAMED.format("outer.inner")


def test_a_layer_in_a_loop_of_the_caller_is_found():
    model = liftnn.Sequential(liftnn.Linear(3, 2, rngs=liftnn.Rngs(0)), Failing())

    def run(model, x):
        for layer in model.layers:
            x = layer(x)
        return x

    assert note(caught(run, model, X)) == "raised in model.layers[1] (a Failing)"
    assert note(caught(liftnn.jit(run), model, X)) == "raised in model.layers[1] (a Failing)"


def test_a_layer_of_a_stack_is_named():
    model = liftnn.Stack(2, Encoder)
    assert note(caught(liftnn.jit(call), model, X)) == NAMED.format("encoder.layers")


def test_a_layer_of_liftnns_is_named():
    model = liftnn.Sequential(
        liftnn.Linear(3, 4, rngs=liftnn.Rngs(0)), liftnn.LayerNorm(5, rngs=liftnn.Rngs(0))
    )
    assert note(caught(lambda: model(X))) == "raised in model.layers[1] (a LayerNorm)"


@pytest.mark.parametrize("f", [lambda: Failing()(X), liftnn.jit(Failing()).lower, lambda: Failing().nothing])
def test_a_single_layer_gets_no_note(f):
    assert note(caught(f, *([] if f.__name__ == "<lambda>" else [X]))) is None


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.sample(4)
def test_an_exception_that_is_handled_leaves_nothing(name):
    def f(encoder, x):
        with pytest.raises(KeyError):
            encoder(x)
        raise ValueError("outside")

    assert note(caught(TRANSFORMS[name](f), Encoder(), X)) is None


def test_an_exception_with_a_note_pickles_and_copies():
    error = caught(call, Encoder(), X)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(other), other.args, other.__notes__) == (KeyError, ("half way",), error.__notes__)


def test_a_frozen_exception_is_raised_unchanged():
    class FrozenError(Exception):
        def __setattr__(self, name, value):
            raise AttributeError(name)

    class Frozen(Failing):
        def __call__(self, x):
            raise FrozenError("mine")

    assert type(caught(liftnn.Sequential(Frozen()), X)) is FrozenError


def test_the_same_exception_in_the_next_call_names_the_next_layer():
    model, x = Encoder(), X
    for _ in range(2):
        assert note(caught(call, model, x)) == NAMED.format("encoder")
        model.blocks["a"].layers.insert(0, liftnn.relu)
        assert note(caught(call, model, x)) == "raised in encoder.blocks.a.layers[3] (a Failing)"
        del model.blocks["a"].layers[0]


DECORATORS = {
    "remat": liftnn.remat,
    "jit": liftnn.jit,
    "jit of remat": lambda f: liftnn.jit(liftnn.remat(f)),
    "vmap": liftnn.vmap(in_axes=(None, 0)),
}


@pytest.mark.parametrize("around", [lambda f: f, liftnn.jit], ids=["eager", "in jit"])
@pytest.mark.parametrize("decorate", DECORATORS.values(), ids=DECORATORS)
def test_a_layer_whose_call_is_decorated_is_named(decorate, around):
    """Oracle: the layer without decorator."""

    def model(decorate):
        class Failing(liftnn.Module):
            def __init__(self):
                self.weight = liftnn.Param(jnp.ones(3))

            @decorate
            def __call__(self, x):
                raise KeyError("half way")

        encoder = Encoder()
        encoder.blocks["a"].layers[2] = Failing()
        return encoder

    assert note(caught(around(call), model(lambda f: f), jnp.ones((2, 3)))) == NAMED.format("encoder")
    assert note(caught(around(call), model(decorate), jnp.ones((2, 3)))) == NAMED.format("encoder")
