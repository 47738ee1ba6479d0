"""`grad` and `value_and_grad` give JAX's gradients, and do to modules what the function does, once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder, Pair

import liftnn


def loss(model, x):
    return model.loss(x)


def plain_loss(params, x):
    return ((x * params["w"] + params["b"]) ** 2).sum()


def params_of(model):
    return {"w": model.w.value, "b": model.b.value}


def assert_gradients(grads, expected):
    assert list(grads.flat()) == [("w",), ("b",)]
    for name, x in expected.items():
        assert type(grads[name]) is liftnn.Param
        np.testing.assert_allclose(grads[name].value, x, rtol=1e-6)


def test_the_gradient_of_a_module_is_jaxs_over_its_params():
    model, x = Affine(2.0), jnp.array([1.0, -2.0, 3.0])
    assert_gradients(liftnn.grad(loss)(model, x), jax.grad(plain_loss)(params_of(model), x))
    assert int(model.calls.value) == 1


def test_value_and_gradient_are_jaxs():
    model, x = Affine(2.0), jnp.array([1.0, -2.0, 3.0])
    value, grads = liftnn.value_and_grad(loss)(model, x)
    expected, expected_grads = jax.value_and_grad(plain_loss)(params_of(model), x)
    assert float(value) == float(expected)
    assert_gradients(grads, expected_grads)


@pytest.mark.parametrize("name", ["loss", "__call__"])
def test_the_module_of_a_bound_method_is_differentiated(name):
    class Scalar(Affine):
        def __call__(self, x):
            return super().__call__(x).sum()

    model, reference = Scalar(2.0), Scalar(2.0)
    bound, free = getattr(model, name), getattr(Scalar, name)
    assert_same(liftnn.grad(bound)(3.0), liftnn.grad(free)(reference, 3.0))
    assert_same(model, reference)


def test_a_module_instance_can_be_differentiated():
    class Square(Affine):
        def __call__(self, x):
            return (self.w**2).sum() * x

    model = Square(3.0)
    assert liftnn.grad(model)(2.0)["w"].value.tolist() == [12.0] * 3
    assert float(liftnn.grad(model, argnums=1)(2.0)) == 27.0


def test_a_shared_param_has_one_gradient_the_sum_at_its_first_path():
    def plain(w, b1, b2, x):
        return (((x * w + b1) * w + b2) ** 2).sum()

    model, x = Pair(), jnp.array([1.0, 2.0, 3.0])
    grads = liftnn.grad(lambda m, x: (m(x) ** 2).sum())(model, x)
    expected = jax.grad(plain, argnums=(0, 1, 2))(model.first.w.value, jnp.zeros(3), jnp.zeros(3), x)
    assert list(grads.flat()) == [("first", "w"), ("first", "b"), ("second", "b")]
    for got, wanted in zip(grads.flat().values(), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_a_param_shared_by_two_arguments_has_its_gradient_at_the_first():
    model = Pair()
    both = liftnn.grad(lambda a, b: (a.w * 2 + b.w * 3 + b.b).sum(), argnums=(0, 1))(
        model.first, model.second
    )
    assert [[p[0] for p in g.flat()] for g in both] == [["w", "b"], ["b"]]
    assert both[0]["w"].value.tolist() == [5.0] * 3
    one = liftnn.grad(lambda a, b: (a.w * 2 + b.w * 3).sum(), argnums=1)(model.first, model.second)
    assert one["w"].value.tolist() == [5.0] * 3


def test_a_variable_can_be_the_argument():
    v = liftnn.Param(jnp.arange(3.0), tag="mine")
    grad = liftnn.grad(lambda v: (v**2).sum())(v)
    assert type(grad) is liftnn.Param
    assert grad.tag == "mine"
    assert grad.value.tolist() == [0.0, 2.0, 4.0]


def test_a_pytree_value_has_a_gradient_of_its_structure():
    model = Holder(p=liftnn.Param({"a": jnp.ones(2), "b": (jnp.full(1, 3.0), None)}))
    grads = liftnn.grad(lambda m: (m.p.value["a"] ** 2).sum() + m.p.value["b"][0][0] ** 2)(model)
    assert jax.tree.map(lambda x: x.tolist(), grads["p"].value) == {"a": [2.0, 2.0], "b": ([6.0], None)}


def test_a_popped_variable_is_left_out():
    model = Affine()
    model.gone = liftnn.Param(liftnn.Empty)
    assert list(liftnn.grad(loss)(model, 1.0)) == ["w", "b"]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_gradients_have_the_dtype_of_the_params(dtype):
    model = Holder(w=liftnn.Param(jnp.ones(2, dtype)))
    grads = liftnn.grad(lambda m: m.w.sum().astype(jnp.float32))(model)
    assert grads["w"].dtype == dtype


def test_gradients_keep_types_and_metadata():
    class Mine(liftnn.Param):
        pass

    model = Holder(w=Mine(jnp.ones(2), sharding=("in",), note={"a": 1}))
    grad = liftnn.grad(lambda m: m.w.sum())(model)["w"]
    assert type(grad) is Mine
    assert grad.get_metadata() == {"sharding": ("in",), "note": {"a": 1}}


def test_gradients_work_with_tree_map_and_optax():
    model = Affine(2.0)
    grads, params = liftnn.grad(loss)(model, 3.0), liftnn.state(model, liftnn.Param)
    plain = jax.grad(plain_loss)(params_of(model), 3.0)
    doubled = jax.tree.map(lambda g: 2 * g, grads)
    assert doubled["w"].value.tolist() == (2 * plain["w"]).tolist()
    assert float(optax.tree.norm(grads)) == pytest.approx(float(optax.tree.norm(plain)))
    tx = optax.adam(0.1)
    updates, _ = tx.update(grads, tx.init(params), params)
    plain_updates, _ = tx.update(plain, tx.init(params_of(model)), params_of(model))
    liftnn.update(model, optax.apply_updates(params, updates))
    expected = optax.apply_updates({"w": jnp.full(3, 2.0), "b": jnp.zeros(3)}, plain_updates)
    np.testing.assert_allclose(model.w.value, expected["w"])


CHANGES = {
    "add": lambda m: setattr(m, "new", liftnn.Param(m.w * 2)),
    "delete": lambda m: delattr(m, "b"),
    "replace": lambda m: setattr(m, "w", liftnn.Param(m.w * 2)),
    "write": lambda m: setattr(m.w, "value", m.w * 2),
    "static": lambda m: setattr(m, "mode", "eval"),
    "list": lambda m: setattr(m, "layers", [Affine(), {"again": m.w}]),
    "metadata": lambda m: m.w.set_metadata(seen=True),
    "tie": lambda m: setattr(m, "b", m.w),
    "sow": lambda m: m.sow(liftnn.Intermediate, "seen", m.w * 3),
    "array leaf": lambda m: setattr(m, "array", m.w.sum()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_of_structure_come_out_and_do_not_disturb_the_gradient(name):
    def f(model, w):
        CHANGES[name](model)
        return (w**3).sum()

    def lifted(model):
        return f(model, model.w.value)

    model, reference = Affine(2.0), Affine(2.0)
    grads = liftnn.grad(lifted)(model)
    lifted(reference)
    assert_same(model, reference)
    assert not has_tracer(model)
    assert grads["w"].value.tolist() == [12.0] * 3
    assert list(grads) == ["w", "b"]


def test_what_was_written_has_the_value_of_one_call():
    def f(model):
        model.b.value = model.b + model.w * 2
        return model.b.value.sum()

    model = Affine(3.0)
    grads = liftnn.grad(f)(model)
    assert model.b.value.tolist() == [6.0] * 3
    assert (grads["w"].value.tolist(), grads["b"].value.tolist()) == ([2.0] * 3, [1.0] * 3)


class Net(liftnn.Module):
    """Layers whose calls change statistics and counts."""

    def __init__(self, rngs):
        self.linear = liftnn.Linear(3, 4, rngs=rngs)
        self.norm = liftnn.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.drop = liftnn.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.norm(self.linear(x)))


@pytest.mark.thorough
def test_statistics_and_counts_inside_value_and_grad_inside_jit_come_out_once():
    x = jax.random.normal(jax.random.key(2), (5, 3))

    @liftnn.jit
    def train(model, x):
        return liftnn.value_and_grad(lambda m: (m(x) ** 3).sum())(model)

    model, reference = (Net(liftnn.Rngs(0, dropout=1)) for _ in range(2))
    for calls in (1, 2, 3):
        value, _ = train(model, x)
        np.testing.assert_allclose(value, (reference(x) ** 3).sum(), rtol=1e-4)
        assert int(model.drop.rngs.count.value) == calls
        assert_same(model, reference)


def test_gradient_of_a_gradient_through_a_state():
    def cubed(params, model):
        liftnn.update(model, params)
        return (model.w**3).sum()

    def inner(params, model):
        return (liftnn.grad(cubed)(params, model)["w"].value ** 2).sum()

    model = Affine(2.0)
    grads = liftnn.grad(inner)(liftnn.state(model, liftnn.Param), model)
    assert isinstance(grads, liftnn.State)
    assert grads["w"].value.tolist() == [36 * 2.0**3] * 3


def test_gradient_of_a_gradient_of_a_module():
    def inner(model):
        return (liftnn.grad(lambda m: (m.w**3).sum())(model)["w"].value ** 2).sum()

    assert liftnn.grad(inner)(Affine(2.0))["w"].value.tolist() == [36 * 2.0**3] * 3


def test_nested_gradients_act_on_the_module_once_each():
    def outer(model, x):
        grads = liftnn.grad(loss)(model, x)
        return (grads["w"].value ** 2).sum() + model.loss(x)

    model = Affine(2.0)
    liftnn.grad(outer)(model, 3.0)
    assert int(model.calls.value) == 2


def test_a_training_step_of_plain_jax_and_ours_agree_over_many_steps():
    model, x = Affine(2.0), jnp.array([1.0, -2.0, 3.0])
    params = params_of(model)

    @liftnn.jit
    def train(model, x):
        grads = liftnn.grad(loss)(model, x)
        for name in ("w", "b"):
            variable = getattr(model, name)
            variable.value = variable - 0.01 * grads[name]

    @jax.jit
    def train_plain(params, x):
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(plain_loss)(params, x))

    for _ in range(20):
        train(model, x)
        params = train_plain(params, x)
    np.testing.assert_allclose(model.w.value, params["w"], rtol=1e-5)
    np.testing.assert_allclose(model.b.value, params["b"], rtol=1e-5)


def test_an_exception_in_the_function_changes_nothing():
    def fails(model):
        model.w.value, model.mode = model.w * 2, "eval"
        raise KeyError("half way")

    model = Affine()
    with pytest.raises(KeyError, match="half way"):
        liftnn.grad(fails)(model)
    assert_same(model, Affine())


def test_the_functions_own_value_error_is_left_alone():
    def fails(model):
        raise ValueError("my own")

    with pytest.raises(ValueError, match="my own") as caught:
        liftnn.grad(fails)(Affine())
    assert type(caught.value) is ValueError


# --- States: as in JAX, all their leaves are differentiated, whatever `wrt` is


def make_state():
    return liftnn.State({"a": {0: liftnn.Param(jnp.ones(2))}, "b": liftnn.BatchStat(jnp.arange(2.0))})


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: [s, jnp.ones(2)], lambda s: {"in": (s,)}])
@pytest.mark.parametrize("wrt", [liftnn.Param, liftnn.BatchStat])
def test_a_state_has_the_gradient_that_jax_gives_it(wrt, wrap):
    def loss(tree):
        return sum((x**3).sum() for x in jax.tree.leaves(tree))

    tree = wrap(make_state())
    grads = liftnn.grad(loss, wrt=wrt)(tree)
    expected = jax.grad(loss)(tree)
    assert jax.tree.structure(grads) == jax.tree.structure(expected)
    assert_same(jax.tree.leaves(grads), jax.tree.leaves(expected))


def test_a_state_of_integers_is_rejected_as_by_jax():
    state = liftnn.State({"n": liftnn.Param(1)})
    for of in (jax, liftnn):
        with pytest.raises(TypeError, match="int32"):
            of.grad(lambda s: s.n.value * 1.0)(state)


def test_a_state_beside_a_module():
    model, state = Pair(), make_state()
    of_model, of_state = liftnn.grad(lambda m, s: m(s.b.value.sum()).sum(), argnums=(0, 1))(model, state)
    assert set(of_model.flat()) == {("first", "w"), ("first", "b"), ("second", "b")}
    assert set(of_state.flat()) == {("a", 0), ("b",)}


def test_vjp_and_jvp_of_states_are_those_of_jax():
    state = make_state()
    f = lambda s: s.a[0].value * s.b.value  # noqa: E731
    for of in (jax, liftnn):
        _, pull = of.vjp(f, state)
        (cotangent,) = pull(jnp.ones(2))
        assert_same(jax.tree.leaves(cotangent), [jnp.arange(2.0), jnp.ones(2)])
        _, tangent = of.jvp(f, (state,), (jax.tree.map(jnp.ones_like, state),))
        assert_same(tangent, jnp.arange(2.0) + 1)
