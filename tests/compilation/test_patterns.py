"""Arguments as they come: a warm call knows them again without flattening, and takes no other ones for them."""

from __future__ import annotations

import collections
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.user_modules import Affine


class Batch(NamedTuple):
    x: Any
    y: Any = 0.0


def describe(*args: Any, **kwargs: Any) -> jax.Array:
    """A number that tells all arguments apart, by their structure, names and values."""
    entries = jax.tree_util.tree_leaves_with_path(
        (args, kwargs), is_leaf=lambda x: isinstance(x, (liftnn.Module, liftnn.Variable))
    )
    total = jnp.float32(len(args))
    for i, (path, x) in enumerate(entries):
        weight = 1 + i + sum(map(ord, jax.tree_util.keystr(path))) % 101
        x = 100 * x.w.value if isinstance(x, Affine) else x
        total += weight * jnp.sum(jnp.asarray(x, jnp.float32))
    return total


ONE, OTHER, V, X = Affine(1.0), Affine(2.0), liftnn.Param(jnp.float32(7)), jnp.ones(2)
BATCHES = [
    X, {"x": X}, {"y": X}, {"x": X, "y": X}, {"x": {"x": X}}, [X], (X,), (X, X), Batch(X), Batch(X, {"x": X}), None, {},
    [], collections.OrderedDict(x=X), {"x": None}, {"x": 3}, {"x": V}, {"x": ONE}, {1: X}, (X, [ONE]), np.ones(2), 2.0,
]  # fmt: skip
CALLS = [
    *(((ONE, batch), {}) for batch in BATCHES),
    *(((ONE,), {"x": batch}) for batch in BATCHES[:6]),
    ((ONE,), {"x": X, "y": 2 * X}), ((ONE,), {"y": X, "x": 2 * X}), ((ONE,), {"y": X}), ((ONE, X), {"y": X}),
    ((), {"model": ONE, "x": X}), ((), {"x": X, "model": ONE}), ((), {"a": OTHER, "b": ONE}), ((X,), {"model": ONE}),
]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")
def test_calls_with_trees_and_keywords_in_turn_give_what_plain_python_gives():
    call = liftnn.jit(describe)
    expected = [float(describe(*args, **kwargs)) for args, kwargs in CALLS]
    order = [*np.repeat(range(len(CALLS)), 2), *np.random.default_rng(0).integers(0, len(CALLS), 300)]
    for i in order:
        args, kwargs = CALLS[i]
        assert float(call(*args, **kwargs)) == pytest.approx(expected[i]), CALLS[i]


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")
def test_a_batch_of_another_structure_is_not_taken_for_the_last_one():
    call = liftnn.jit(describe)
    expected = [float(describe(ONE, batch)) for batch in BATCHES]
    for pair in itertools.permutations(range(len(BATCHES)), 2):
        for i in (pair[0], *pair):
            assert float(call(ONE, BATCHES[i])) == pytest.approx(expected[i]), [BATCHES[j] for j in pair]


def step(model: Affine, batch: Any = None, flag: Any = None) -> jax.Array:
    model.w.value = model.w + 1
    return model.w.value.sum() + sum(x.sum() for x in jax.tree.leaves(batch)) + (2.0 if flag else 0.0)


@pytest.mark.parametrize(
    "options, args, kwargs",
    [
        ({}, ({"x": X, "y": [X, X]},), {}),
        ({}, (Batch(X, X),), {}),
        ({}, (), {"batch": {"x": X}}),
        ({"static_argnums": 2}, (X, True), {}),
        ({"static_argnames": "flag"}, (), {"flag": "yes", "batch": X}),
        ({"static_argnames": "flag"}, ((X, X),), {"flag": None}),
        ({"donate_argnums": 0}, ({"x": X},), {}),
    ],
    ids=str,
)
def test_trees_keywords_and_static_arguments_are_known_again_without_flattening(
    monkeypatch, options, args, kwargs
):
    call, model, plain = liftnn.jit(step, **options), Affine(), Affine()
    for warm in (False, False, True, True):
        if warm:
            monkeypatch.setattr(type(call), "_slow_call", None)
        assert float(call(model, *args, **kwargs)) == float(step(plain, *args, **kwargs))
    assert model.w.value.tolist() == plain.w.value.tolist()


def test_the_module_of_a_bound_method_is_known_again_without_flattening(monkeypatch):
    model, plain = Affine(), Affine()
    model.step, plain.step = step.__get__(model), step.__get__(plain)
    call = liftnn.jit(model.step)
    for warm in (False, False, True):
        if warm:
            monkeypatch.setattr(type(call), "_slow_call", None)
        assert float(call({"x": X})) == float(plain.step({"x": X}))


@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")
def test_another_static_value_is_not_taken_for_the_last_one():
    def f(model: Affine, x: jax.Array, flag: Any) -> jax.Array:
        return x * len(str(flag)) + model.w.value.sum()

    call, model = liftnn.jit(f, static_argnums=2), Affine()
    for pair in itertools.permutations((1, True, 1.0, 0, None, "x", (1,)), 2):
        for flag in (pair[0], *pair):
            assert call(model, X, flag).tolist() == f(model, X, flag).tolist(), pair


def test_a_static_value_that_is_also_passed_as_an_array_stays_both():
    def f(model: Affine, flag: int, x: Any) -> Any:
        model.w = liftnn.Param(model.w + x)  # the general way to put results back needs all leaves
        return model, x * flag

    call, model = liftnn.jit(f, static_argnums=1), Affine()
    for n in range(1, 4):
        out, x = call(model, 3, 3)
        assert out is model
        assert int(x) == 9
        assert model.w.value.tolist() == [1.0 + 3 * n] * 3


@pytest.mark.parametrize(
    "make", [lambda x: x, lambda x: {"x": x}, lambda x: (X, [x])], ids=["array", "dict", "tuple"]
)
def test_an_array_that_is_donated_and_passed_too_is_copied(make):
    call, model, plain = liftnn.jit(step, donate_argnums=0), Affine(), Affine()
    for _ in range(3):
        assert float(call(model, make(model.w.value))) == float(step(plain, make(plain.w.value)))


def test_an_error_names_the_part_of_a_tree():
    call, model = liftnn.jit(lambda model, batch: batch["x"]), Affine()
    call(model, {"x": X})
    with pytest.raises(TypeError, match=r"args\[1\]\['x'\]|args\[1\]\.x"):
        call(model, {"x": "text"})
