"""The state of a transformation as users see it: its paths and types against Flax NNX, its values against optax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flax import nnx
from tests.quick import quick
from tests.raising import raises
from tests.strategies import Node

import liftnn
from liftnn import errors

X = jnp.ones((1, 2))
OTHER_TREE = "pytree|^Mismatch custom node|^Custom node type mismatch"  # as JAX says it since, and in, 0.10.0


def build(library):
    class Model(library.Module):
        def __init__(self):
            self.linear = library.Linear(2, 2, rngs=library.Rngs(0))
            layers = [library.Linear(2, 2, rngs=library.Rngs(i)) for i in range(2)]
            self.layers = layers if library is liftnn else library.List(layers)

        def __call__(self, x):
            return self.layers[1](self.layers[0](self.linear(x)))

    return Model()


def labels(params):
    return jax.tree.map(lambda x: "a" if x.ndim == 2 else "b", params)


MAKERS = {
    "adam": lambda: optax.adam(0.1),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)),
    "multi_transform": lambda: optax.multi_transform(
        {"a": optax.adam(0.1), "b": optax.sgd(0.1, 0.9)}, labels
    ),
    "MultiSteps": lambda: optax.MultiSteps(optax.adam(0.1), 2),
    "adafactor": lambda: optax.adafactor(0.1, momentum=0.9),
    "schedule_free": lambda: optax.contrib.schedule_free_adamw(0.1),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(0.1), 2),
    "lbfgs": lambda: optax.lbfgs(0.1, linesearch=None),
}


@pytest.mark.parametrize("name", quick(MAKERS, 3))
def test_the_paths_of_its_values_are_those_of_flax(name):
    ours = liftnn.Optimizer(build(liftnn), MAKERS[name]())
    theirs = nnx.Optimizer(build(nnx), MAKERS[name](), wrt=nnx.Param)
    expected = {path: x.get_value() for path, x in nnx.to_flat_state(nnx.state(theirs))}
    found = {path: x.value for path, x in liftnn.state(ours).flat().items()}
    assert found.keys() == expected.keys()
    for path, x in found.items():  # optax's MaskedNode is a tree without arrays
        assert jax.tree.map(jax.typeof, x) == jax.tree.map(jax.typeof, expected[path])


@pytest.mark.thorough
@pytest.mark.parametrize("library", [liftnn, nnx])
def test_its_parts_are_reached_in_the_same_way_as_in_flax(library):
    model = build(library)
    optimizer = library.Optimizer(
        model, optax.inject_hyperparams(optax.adam)(learning_rate=0.1), wrt=library.Param
    )
    optimizer.update(model, library.grad(lambda m: m(X).sum())(model))
    state = optimizer.opt_state
    assert isinstance(state.hyperparams, dict)
    assert isinstance(state.hyperparams["learning_rate"], library.OptState)
    assert int(state.inner_state[0].count[...]) == 1
    mu = state.inner_state[0].mu
    assert isinstance(mu, library.State)
    assert mu.layers[0].kernel is mu["layers"][0]["kernel"]
    assert mu.linear.bias[...].tolist() == state.inner_state[0].mu["linear"]["bias"][...].tolist()
    assert float(mu.linear.bias[...][0]) != 0


def test_the_variables_stay_the_same_objects():
    model = build(liftnn)
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    state, kernel = optimizer.opt_state, optimizer.opt_state[0].mu.linear.kernel
    step = liftnn.jit(lambda m, o: o.update(m, liftnn.grad(lambda m: m(X).sum())(m)))
    optimizer.update(model, liftnn.grad(lambda m: m(X).sum())(model))
    step(model, optimizer)
    step(model, optimizer)
    assert optimizer.opt_state is state
    assert optimizer.opt_state[0].mu.linear.kernel is kernel
    assert int(state[0].count) == 3


def test_it_is_set_from_a_tree_of_plain_dicts():
    model = build(liftnn)
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    variable = optimizer.opt_state[0].mu.linear.bias
    adam, rest = optimizer.opt_state
    restored = adam._replace(
        count=np.int32(5),
        mu=jax.tree.map(lambda x: np.asarray(x) + 1, adam.mu.to_pure_dict()),
    )
    optimizer.opt_state = (restored, rest)
    assert optimizer.opt_state[0].mu.linear.bias is variable
    assert variable.value.tolist() == [1, 1]
    assert int(optimizer.opt_state[0].count) == 5
    optimizer.update(model, liftnn.grad(lambda m: m(X).sum())(model))
    assert int(optimizer.opt_state[0].count) == 6


def test_it_is_set_with_other_dtypes():
    model = build(liftnn)
    optimizer = liftnn.Optimizer(model, optax.sgd(0.1, momentum=0.9))
    optimizer.opt_state = jax.tree.map(lambda x: x.astype(jnp.bfloat16), optimizer.opt_state)
    assert optimizer.opt_state[0].trace.linear.kernel.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "count, mu, text",
    [
        (7, 1j, "opt_state[0].mu.linear.bias is float32[2] and cannot be set to complex64[]."),
        (7, 1.0, "opt_state[0].mu.linear.bias is float32[2] and cannot be set to float32[]."),
        (2.7, jnp.ones(2), "opt_state[0].count is int32[] and cannot be set to float32[]."),
    ],
)
def test_a_number_that_does_not_fit_is_an_error_and_sets_nothing(count, mu, text):
    optimizer = liftnn.Optimizer(build(liftnn), optax.adam(0.1))
    adam, rest = optimizer.optax_state()
    linear = {"kernel": adam.mu.linear.kernel + 1, "bias": mu}
    new = adam._replace(count=count, mu={**adam.mu.to_pure_dict(), "linear": linear})
    with raises(
        errors.StructureError,
        text + "\nConvert it, or set the `value` of the Variable, which takes any array.",
    ):
        optimizer.opt_state = (new, rest)
    assert int(optimizer.opt_state[0].count) == 0
    assert float(optimizer.opt_state[0].mu.linear.kernel.sum()) == 0


def test_it_declares_the_shardings_of_the_parameters():
    model = Node(
        a=liftnn.Param(jnp.ones((2, 3)), sharding=("x", None)),
        b=liftnn.Param(jnp.ones(3), sharding=("x",), optimizer_sharding=("y",)),
        c=liftnn.Param(jnp.ones(3), tag="t"),
    )
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    mu = optimizer.opt_state[0].mu
    assert mu.a.get_metadata() == {"sharding": ("x", None)}
    assert mu.b.get_metadata() == {"out_sharding": ("y",)}
    assert mu.c.get_metadata() == optimizer.opt_state[0].count.get_metadata() == {}


def test_a_model_in_a_tuple_has_no_effect_on_positions_in_the_state():
    a = liftnn.Param(jnp.ones(2))
    optimizer = liftnn.Optimizer((Node(w=a), liftnn.Param(jnp.ones(3), sharding=("x",))), optax.adam(0.1))
    paths = liftnn.state(optimizer, liftnn.OptState).flat()
    assert [p for p in paths if "mu" in p] == [("opt_state", 0, "mu", 0, "w"), ("opt_state", 0, "mu", 1)]
    assert optimizer.opt_state[0].mu[1].get_metadata() == {"sharding": ("x",)}


def test_a_list_in_the_state_of_a_transformation_may_change():
    def update(updates, state, params=None):
        return jax.tree.map(lambda g: -state[0] * g, updates), [state[0] / 2]

    model = Node(w=liftnn.Param(jnp.zeros(1)))
    optimizer = liftnn.Optimizer(model, optax.GradientTransformation(lambda params: [jnp.float32(1)], update))
    step = liftnn.jit(lambda m, o: o.update(m, liftnn.grad(lambda m: m.w.sum())(m)))
    step(model, optimizer)
    assert (model.w.value.tolist(), float(optimizer.opt_state[0])) == ([-1], 0.5)
    optimizer.opt_state[0] = jnp.float32(2)
    step(model, optimizer)
    assert (model.w.value.tolist(), float(optimizer.opt_state[0])) == ([-3], 1)


def test_a_state_whose_structure_changes_with_a_step_is_replaced():
    def update(updates, state, params=None):
        return updates, (*state, jnp.zeros(()))

    model = Node(w=liftnn.Param(jnp.zeros(1)))
    optimizer = liftnn.Optimizer(model, optax.GradientTransformation(lambda params: (), update))
    step = liftnn.jit(lambda m, o: o.update(m, liftnn.grad(lambda m: m.w.sum())(m)))
    for n in range(1, 3):
        step(model, optimizer)
        assert len(optimizer.opt_state) == n
        assert all(type(x) is liftnn.OptState for x in optimizer.opt_state)


@pytest.mark.parametrize("transform", [lambda f: f, liftnn.jit], ids=["eager", "jit"])
def test_a_state_that_a_step_creates_is_that_of_one_created_at_first(transform):
    def update(updates, state, params=None):
        return updates, (updates,)

    def make():
        return Node(w=liftnn.Param(jnp.zeros(2), sharding=("x",)))

    model = make()
    tx = optax.GradientTransformation(lambda params: (), update)
    optimizer = liftnn.Optimizer(model, tx)
    first = liftnn.Optimizer(make(), optax.GradientTransformation(lambda params: (params,), update))
    step = transform(lambda m, o: o.update(m, liftnn.grad(lambda m: m.w.sum())(m)))
    step(model, optimizer)
    expected = first.opt_state[0].w.get_metadata()
    assert optimizer.opt_state[0].w.get_metadata() == expected == {"sharding": ("x",)}
    step(model, optimizer)
    model.w.value = jnp.zeros(3)
    with pytest.raises(errors.StructureError, match=r"opt_state\[0\].w: \(2,\), but w is \(3,\)"):
        optimizer.update(model, {"w": jnp.zeros(3)})


def test_values_in_the_metadata_of_a_parameter_are_no_obstacle():
    model = Node(w=liftnn.Param(jnp.ones(2), mask=jnp.ones(2), scale=liftnn.Param(jnp.ones(1))))
    optimizer = liftnn.Optimizer(model, optax.adam(0.5))

    def loss(m):
        return (m.w * m.w.scale).sum()

    step = liftnn.jit(lambda m, o: o.update(m, liftnn.grad(loss)(m)))
    step(model, optimizer)
    params = {"w": jnp.ones(2), "scale": jnp.ones(1)}
    tx = optax.adam(0.5)
    grads = jax.grad(lambda p: (p["w"] * p["scale"]).sum())(params)
    expected = optax.apply_updates(params, tx.update(grads, tx.init(params), params)[0])
    np.testing.assert_allclose(model.w.value, expected["w"], rtol=1e-6)
    np.testing.assert_allclose(model.w.scale.value, expected["scale"], rtol=1e-6)


def test_a_state_is_written_to_the_optimizer_by_path():
    model = build(liftnn)
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    liftnn.update(optimizer, {"opt_state": {0: {"mu": {"linear": {"bias": jnp.ones(2)}}}}})
    assert optimizer.opt_state[0].mu.linear.bias.value.tolist() == [1, 1]
    with pytest.raises(errors.StructureError, match=r"opt_state\[0\].mu.linear.bias: shape \(3,\)"):
        liftnn.update(optimizer, {"opt_state": {0: {"mu": {"linear": {"bias": jnp.ones(3)}}}}})


def encoder_and_decoder(*names):
    return Node(**{name: liftnn.Param(jnp.zeros(2)) for name in names})


@pytest.mark.parametrize("schedule", [0.1, lambda count: 0.1], ids=["of optax", "of the user"])
@pytest.mark.parametrize("jitted", [False, True])
def test_a_state_of_another_model_is_an_error(schedule, jitted):
    tx = optax.adam(schedule)
    ours, other = encoder_and_decoder("decoder", "encoder"), encoder_and_decoder("out", "inp")
    optimizer, another = liftnn.Optimizer(ours, tx), liftnn.Optimizer(other, tx)
    another.update(other, {"out": jnp.ones(2), "inp": -jnp.ones(2)})
    optimizer.opt_state = another.opt_state
    update = liftnn.jit(lambda m, o, g: o.update(m, g)) if jitted else lambda m, o, g: o.update(m, g)
    with pytest.raises(ValueError, match=OTHER_TREE):
        update(ours, optimizer, {"decoder": jnp.zeros(2), "encoder": jnp.zeros(2)})
    assert int(optimizer.step.value) == 0


def test_a_state_made_from_lists_is_an_error():
    model = encoder_and_decoder("a", "b")
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    optimizer.opt_state = optax.adam(0.1).init([jnp.zeros(2), jnp.ones(2)])
    with pytest.raises(ValueError, match=OTHER_TREE):
        optimizer.update(model, {"a": jnp.zeros(2), "b": jnp.zeros(2)})


@pytest.mark.parametrize(
    "tx",
    [
        optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05)),
        optax.contrib.prodigy(),
        optax.lbfgs(linesearch=None),
    ],
    ids=["sam", "prodigy", "lbfgs"],
)
def test_a_value_that_is_a_dict_is_not_shared_with_the_state(tx):
    model = Node(w=liftnn.Param({"a": jnp.ones(2)}))
    optimizer = liftnn.Optimizer(model, tx)
    params, opt_state = {"a": jnp.ones(2)}, tx.init({"a": jnp.ones(2)})
    step = liftnn.jit(lambda m, o: o.update(m, liftnn.grad(lambda m: (m.w.value["a"] ** 2).sum())(m)))
    for _ in range(3):
        step(model, optimizer)
        grads = jax.grad(lambda p: (p["a"] ** 2).sum())(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(model.w.value["a"], params["a"], rtol=1e-5)


def test_keys_that_cannot_be_sorted_can_be_assigned():
    model = Node(d={"k": liftnn.Param(jnp.ones(2)), 3: liftnn.Param(jnp.ones(3))})
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    optimizer.opt_state = jax.tree.map(jnp.ones_like, optimizer.opt_state)
    assert optimizer.opt_state[0].mu["d"][3].value.tolist() == [1, 1, 1]
    optimizer.opt_state[0].mu["d"] = {"k": jnp.zeros(2), 3: jnp.full(3, 2.0)}
    assert optimizer.opt_state[0].mu["d"][3].value.tolist() == [2, 2, 2]


def test_functions_of_optax_read_the_state():
    model = Node(w=liftnn.Param(jnp.arange(3.0)))
    tx = optax.contrib.schedule_free_sgd(0.1)
    optimizer = liftnn.Optimizer(model, tx)
    params, opt_state = {"w": jnp.arange(3.0)}, tx.init({"w": jnp.arange(3.0)})
    for _ in range(2):
        optimizer.update(model, {"w": jnp.ones(3)})
        updates, opt_state = tx.update({"w": jnp.ones(3)}, opt_state, params)
        params = optax.apply_updates(params, updates)
    actual = optax.contrib.schedule_free_eval_params(optimizer.optax_state(), liftnn.state(model))
    expected = optax.contrib.schedule_free_eval_params(opt_state, params)
    np.testing.assert_array_equal(actual.w.value, expected["w"])
    assert type(actual.w) is liftnn.Param


def test_optax_maps_over_the_state():
    model = Node(w=liftnn.Param(jnp.arange(3.0)))
    optimizer = liftnn.Optimizer(model, optax.inject_hyperparams(optax.adam)(0.1))
    optimizer.update(model, {"w": jnp.ones(3)})
    optimizer.opt_state = optax.tree.map_params(optimizer.tx, jnp.zeros_like, optimizer.optax_state())
    assert optimizer.opt_state.inner_state[0].mu.w.value.tolist() == [0, 0, 0]
    assert float(optimizer.opt_state.hyperparams["learning_rate"].value) == pytest.approx(0.1)
