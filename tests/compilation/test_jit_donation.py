"""Donated arguments of `jit`: the buffers are given away, and the module holds new ones."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn._src.compilation import source
from liftnn._src.trees import are_distinct
from tests.user_modules import Affine, Holder, step


def values_of(model):
    return jax.tree.leaves(liftnn.state(model))


@pytest.fixture(scope="module")
def donating():
    return liftnn.jit(step, donate_argnums=0)


def test_buffers_of_a_donated_module_are_deleted_and_it_is_usable(donating):
    model = Affine(2.0)
    old = values_of(model)
    assert donating(model, 3.0).tolist() == [6.0, 6.0, 6.0]
    assert all(x.is_deleted() for x in old)
    assert donating(model, 1.0).tolist() == [2.0, 2.0, 2.0]
    assert int(model.calls.value) == 2


def test_without_donation_no_buffer_is_deleted():
    model = Affine(2.0)
    old = values_of(model)
    liftnn.jit(step)(model, 3.0)
    assert not any(x.is_deleted() for x in old)


def test_a_tied_variable_is_donated_once_and_stays_tied(donating):
    model = Affine(2.0)
    model.again = [model.w]
    old = model.w.value
    for _ in range(2):
        assert donating(model, 1.0).tolist() == [2.0, 2.0, 2.0]
    assert old.is_deleted()
    assert model.again[0] is model.w


def test_a_module_may_be_donated_and_passed_again():
    model = Affine(2.0)
    call = liftnn.jit(lambda a, b: a(1.0) + b(1.0), donate_argnums=0)
    for _ in range(2):
        assert call(model, model).tolist() == [4.0, 4.0, 4.0]
    assert int(model.calls.value) == 4


def test_donation_by_name_holds_by_position_too():
    call = liftnn.jit(lambda model, x: model(x), donate_argnames="model")
    for args, kwargs in (((), {"x": 1.0}), ((1.0,), {})):
        model = Affine()
        old = model.w.value
        call(model, *args, **kwargs)
        assert old.is_deleted()
        old = model.w.value
        call(model=model, x=1.0)
        assert old.is_deleted()


def test_the_module_of_a_bound_method_is_argument_0():
    for bound in ("loss", "__call__"):
        model = Affine()
        old = model.w.value
        liftnn.jit(getattr(model, bound), donate_argnums=0)(1.0)
        assert old.is_deleted()


def test_a_module_instance_can_be_donated_by_name():
    model = Affine()
    old = model.w.value
    liftnn.jit(model, donate_argnames="self")(1.0)
    assert old.is_deleted()
    assert model.w.value.tolist() == [1.0, 1.0, 1.0]


def test_only_the_chosen_arguments_are_donated():
    x, y = jnp.ones(3), jnp.ones(3)
    liftnn.jit(lambda x, y: x + y, donate_argnums=1)(x, y)
    assert (x.is_deleted(), y.is_deleted()) == (False, True)


def test_positions_of_a_partial_count_what_the_call_passes():
    model, x = Affine(), jnp.ones(3)
    old = model.w.value
    liftnn.jit(functools.partial(Affine.__call__, model), donate_argnums=0)(x)
    assert (x.is_deleted(), old.is_deleted()) == (True, False)


def test_static_and_donated_arguments_go_together():
    x = jnp.ones(3)
    call = liftnn.jit(lambda n, x: x * n, static_argnums=0, donate_argnums=1)
    assert call(3, x).tolist() == [3.0, 3.0, 3.0]
    assert x.is_deleted()


def test_array_leaves_of_a_donated_module_are_donated_and_come_back(donating):
    model = Affine()
    model.scale, model.items = jnp.arange(3.0), [jnp.ones(2)]
    old = model.scale, model.items[0]
    for _ in range(2):
        donating(model, 1.0)
    assert all(x.is_deleted() for x in old)
    assert (model.scale.tolist(), model.items[0].tolist()) == ([0.0, 1.0, 2.0], [1.0, 1.0])


def test_pytree_values_are_donated_and_come_back(donating):
    model = Affine()
    model.cache = liftnn.Variable({"a": jnp.ones(2), "b": (jnp.zeros(1), None)})
    old = model.cache.value["a"]
    for _ in range(2):
        donating(model, 1.0)
    assert old.is_deleted()
    assert jax.tree.map(lambda x: x.tolist(), model.cache.value) == {"a": [1.0, 1.0], "b": ([0.0], None)}


def test_a_variable_deleted_or_replaced_inside_keeps_its_last_value():
    def drop(model):
        del model.w
        model.b = liftnn.Param(model.b + 1)

    model = Affine()
    w, b = model.w, model.b
    liftnn.jit(drop, donate_argnums=0)(model)
    assert w.value.tolist() == [1.0, 1.0, 1.0]
    assert (b.value.tolist(), model.b.value.tolist()) == ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])


def test_numbers_and_numpy_arrays_can_be_donated(donating):
    model = Affine()
    model.w.value, model.b.value = np.full(3, 2.0, np.float32), 1.0
    for _ in range(2):
        assert donating(model, 1.0).tolist() == [3.0, 3.0, 3.0]


def test_an_error_while_tracing_deletes_nothing():
    def fails(model):
        model.w.value = model.w * 2
        raise KeyError("half way")

    model = Affine()
    with pytest.raises(KeyError, match="half way"):
        liftnn.jit(fails, donate_argnums=0)(model)
    assert model.w.value.tolist() == [1.0, 1.0, 1.0]


NESTED = {
    "jit": lambda inner: liftnn.jit(lambda m: inner(m, 2.0).sum()),
    "grad": lambda inner: liftnn.grad(lambda m: inner(m, 2.0).sum()),
    "value_and_grad": lambda inner: liftnn.value_and_grad(lambda m: inner(m, 2.0).sum()),
    "vmap": lambda inner: lambda m: liftnn.vmap(inner, in_axes=(None, 0))(m, jnp.arange(2.0)),
    "eval_shape": lambda inner: lambda m: liftnn.eval_shape(inner, m, 2.0),
}


@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")  # all cases share one function
@pytest.mark.parametrize("name", NESTED)
def test_donation_is_ignored_inside_another_transform(name, donating):
    model = Affine()
    old = values_of(model)
    NESTED[name](donating)(model)
    assert not any(x.is_deleted() for x in old)
    assert donating(model, 1.0).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("n", [1, 200], ids=["written out", "in a loop"])
def test_a_donated_model_with_random_keys_is_not_searched_for_shared_arrays(n, monkeypatch):
    """Nothing but the storages holds the arrays and keys; so a call need not compare all of them."""
    searches = []
    monkeypatch.setitem(
        source._GLOBALS, "are_distinct", lambda tree: searches.append(tree) or are_distinct(tree)
    )
    model = Holder(streams=[liftnn.Rngs(i) for i in range(n)], affine=Affine())

    @functools.partial(liftnn.jit, donate_argnums=0)
    def count(model):
        model.affine.w.value += 1
        for rngs in model.streams:
            rngs()

    for _ in range(4):
        count(model)
    assert not searches
    held = model.affine.w.value
    model.affine.w.value = held  # now a local variable holds it too
    count(model)
    assert len(searches) == 1


@pytest.mark.parametrize("has_shardings", [False, True])
def test_a_written_variable_gets_its_own_donated_buffer_before_the_output_does(has_shardings):
    """As in JAX by hand, where the state comes first; the output has the same shape and would fit too."""
    model, w, x = Holder(w=liftnn.Param(jnp.arange(3.0))), jnp.arange(3.0), jnp.ones(3)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    options = {"in_shardings": one, "out_shardings": one} if has_shardings else {}

    @functools.partial(liftnn.jit, donate_argnums=0, **options)
    def train(model, x):
        model.w.value = jnp.sin(model.w) * x
        return x + 1

    @functools.partial(jax.jit, donate_argnums=0, **options)
    def by_hand(w, x):
        return jnp.sin(w) * x, x + 1

    address = w.unsafe_buffer_pointer()
    assert by_hand(w, x)[0].unsafe_buffer_pointer() == address
    address = model.w.value.unsafe_buffer_pointer()
    train(model, x)
    assert model.w.value.unsafe_buffer_pointer() == address


def test_a_compiled_stage_donates_too(donating):
    model = Affine(2.0)
    compiled = donating.lower(model, 3.0).compile()
    for _ in range(2):
        old = model.w.value
        assert compiled(model, 3.0).tolist() == [6.0, 6.0, 6.0]
        assert old.is_deleted()
    assert int(model.calls.value) == 2


def test_two_structures_that_differ_in_sharing_are_donated_apart():
    call = liftnn.jit(lambda m: m.a.w + m.b.w, donate_argnums=0)
    shared, apart = Holder(a=Affine(2.0)), Holder(a=Affine(2.0), b=Affine(3.0))
    shared.b = shared.a
    for _ in range(2):
        assert call(shared).tolist() == [4.0, 4.0, 4.0]
        assert call(apart).tolist() == [5.0, 5.0, 5.0]


def test_an_array_that_was_deleted_by_hand_is_said_to_be_deleted_as_in_jax():
    for of in (jax, liftnn):
        x = jnp.ones(3)
        call = of.jit(lambda x: x * 2)
        call(x)
        x.delete()
        with pytest.raises(RuntimeError, match="Array has been deleted") as caught:
            call(x)
        assert not isinstance(caught.value, liftnn.LiftError)
