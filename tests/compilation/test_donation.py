"""What a jit may reuse: exactly the buffers that are donated, and never one that somebody else still holds."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.user_modules import Holder


class Model(liftnn.Module):
    """A trained weight, tied, a frozen one, and a counter."""

    def __init__(self):
        self.w = liftnn.Param(jnp.arange(3.0))
        self.tied = self.w
        self.frozen = liftnn.Param(jnp.ones(4))
        self.count = liftnn.Variable(jnp.zeros((), jnp.int32))


def train(model: Model, x: jax.Array) -> jax.Array:
    model.w.value = model.w * x
    model.count += 1
    return model.frozen.sum()


def test_donate_written_gives_away_what_is_overwritten_and_nothing_else():
    model, step = Model(), liftnn.jit(train, donate_written=True)
    for _ in range(3):
        w, frozen, count = model.w.value, model.frozen.value, model.count.value
        assert float(step(model, 2.0)) == 4.0
        assert w.is_deleted()
        assert count.is_deleted()
        assert model.frozen.value is frozen
        assert model.tied is model.w
    # Read last: on CPU, JAX 0.11 keeps a buffer that numpy has looked at.
    assert model.w.value.tolist() == [0.0, 8.0, 16.0]
    assert step.n_traces == 1


def test_donate_written_follows_each_structure():
    step = liftnn.jit(
        lambda m: setattr(m[m["which"]], "value", m[m["which"]] + 1) or None, donate_written=True
    )

    class Choice(liftnn.Module):
        def __init__(self, which):
            self.which, self.a, self.b = which, liftnn.Param(jnp.ones(2)), liftnn.Param(jnp.ones(2))

        def __getitem__(self, name):
            return getattr(self, name)

    for which, other in (("a", "b"), ("b", "a")):
        choice = Choice(which)
        written, kept = choice[which].value, choice[other].value
        step(choice)
        assert written.is_deleted()
        assert choice[other].value is kept


@pytest.mark.parametrize("options", [{"donate_argnums": 0}, {"donate_written": True}])
def test_a_clone_is_safe_from_the_donation_of_the_original(options):
    model = Model()
    twin = liftnn.clone(model)
    liftnn.jit(train, **options)(model, 2.0)
    assert twin.w.value.tolist() == [0.0, 1.0, 2.0]
    assert twin.tied is twin.w


def double(model, *others):
    """Doubles all that a model holds; returns the sum of the arrays that come with it."""
    for x in (model.w, model.other):
        x.value = jax.tree.map(lambda leaf: leaf * 2, x.value)
    return sum(x.sum() for x in others)


def tie(model):
    model.other.value = model.w.value
    return (jnp.ones(3),)


def tie_in_a_dict(model):
    model.other.value = {"a": model.w.value}
    return (jnp.ones(3),)


def pass_a_weight(model):
    return (model.w.value,)


def pass_an_array_of_a_dict(model):
    model.other.value = {"a": jnp.full(3, 5.0)}
    return (model.other.value["a"],)


def pass_a_weight_in_a_dict(model):
    return ({"x": model.other.value}["x"],)


@pytest.mark.parametrize(
    "share", [tie, tie_in_a_dict, pass_a_weight, pass_an_array_of_a_dict, pass_a_weight_in_a_dict]
)
def test_an_array_that_is_shared_between_two_fast_calls_is_not_given_away(share):
    def make():
        model = Model()
        model.other = liftnn.Param(jnp.arange(3.0) + 7)
        return model

    plain, model, step = make(), make(), liftnn.jit(double, donate_argnums=0)
    for _ in range(3):
        double(plain, jnp.ones(3)), step(model, jnp.ones(3))
    for _ in range(3):
        given, expected = share(model), share(plain)
        assert float(step(model, *given)) == float(double(plain, *expected))
        assert [x.tolist() for x in given] == [x.tolist() for x in expected]
        for one, two in ((model.w, plain.w), (model.other, plain.other)):
            assert jax.tree.all(jax.tree.map(jnp.array_equal, one.value, two.value))
    alone = model.w.value
    step(model, jnp.ones(3))
    del given
    assert alone.is_deleted()


def test_an_array_that_two_variables_and_an_argument_hold_is_not_given_away():
    shared = jnp.ones(3)
    model = Model()
    model.w.value, model.other = shared, liftnn.Param(shared)
    step = liftnn.jit(lambda m, x: setattr(m.w, "value", m.w * 2) or x.sum(), donate_argnums=0)
    assert float(step(model, shared)) == 3.0
    assert (model.w.value.tolist(), model.other.value.tolist(), shared.tolist()) == (
        [2.0] * 3,
        [1.0] * 3,
        [1.0] * 3,
    )


def test_the_same_module_as_donated_and_as_other_argument_stays_whole():
    model = Model()
    step = liftnn.jit(lambda one, other, x: train(one, x) + other.w.sum(), donate_argnums=0)
    assert float(step(model, model, 2.0)) == 10.0
    assert model.w.value.tolist() == [0.0, 2.0, 4.0]


def test_using_a_donated_value_names_its_path():
    model, step = Model(), liftnn.jit(train, donate_argnums=0)
    before = model.w.value
    step(model, 2.0)
    model.w.value = before
    with pytest.raises(liftnn.DonatedError) as caught:
        step(model, 2.0)
    assert str(caught.value) == (
        "The buffer of args[0].w (a Param) was donated earlier and is gone.\n"
        "Use the Variable of the module that the call has updated, make a `liftnn.clone` before the call, "
        "or do not donate the argument."
    )


def test_the_program_aliases_exactly_the_written_buffers():
    model = Model()
    plain = liftnn.jit(train).lower(model, 2.0).compile().memory_analysis()
    donating = liftnn.jit(train, donate_written=True).lower(model, 2.0).compile().memory_analysis()
    assert plain.alias_size_in_bytes == 0
    assert donating.alias_size_in_bytes == model.w.value.nbytes + model.count.value.nbytes


BIG = 2**40 + 1


@pytest.mark.parametrize("options", [{"donate_argnums": 0}, {"donate_written": True}, {}], ids=str)
def test_a_numpy_array_that_jax_would_truncate_is_kept(options):
    """JAX computes with 32 bits of it; what the function does not write stays as it is, as in plain Python."""
    held = [np.array([BIG]) for _ in range(3)]
    model = Holder(w=liftnn.Param(jnp.ones(2)), ids=held[0], v=liftnn.Variable(held[1]), items=[held[2]])
    step = liftnn.jit(lambda m: m.w.set_value(m.w * 2), **options)
    for i in range(3):
        step(model)
        assert model.w.value.tolist() == [2.0 ** (i + 1)] * 2
        assert [x is y for x, y in zip(held, [model.ids, model.v.value, model.items[0]], strict=True)] == [
            True
        ] * 3
        assert [int(x[0]) for x in held] == [BIG] * 3


@pytest.mark.parametrize("other", [1.5, "a", None])
def test_a_numpy_array_in_a_pytree_that_jax_would_truncate_is_kept(other):
    held = np.array([BIG])
    model = Holder(w=liftnn.Param(jnp.ones(2)), v=liftnn.Variable({"a": held, "b": [jnp.ones(2), other]}))
    step = liftnn.jit(lambda m: m.w.set_value(m.w * 2), donate_argnums=0)
    for i in range(3):
        step(model)
        assert model.w.value.tolist() == [2.0 ** (i + 1)] * 2
        assert model.v.value["a"] is held
        assert model.v.value["b"][0].tolist() == [1.0, 1.0]
        assert model.v.value["b"][1] == other


def test_a_donated_numpy_array_that_is_written_gets_the_new_value():
    model = Holder(v=liftnn.Variable(np.array([3, 4])), a=np.array([5, 6]))

    @functools.partial(liftnn.jit, donate_argnums=0)
    def step(m):
        m.v.value = m.v.value + 1
        m.a = m.a + 1

    for i in range(3):
        step(model)
        assert (model.v.value.tolist(), jnp.asarray(model.a).tolist()) == ([4 + i, 5 + i], [6 + i, 7 + i])
