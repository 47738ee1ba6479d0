"""EMA against Flax NNX, and against the formula."""

from __future__ import annotations

import copy
import pickle
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.alike import find_difference
from tests.interrupted import interruptions
from tests.raising import raises
from tests.strategies import Node

import liftnn
from liftnn import errors


def build(library, dtype=jnp.float32):
    class Model(library.Module):
        def __init__(self):
            self.linear = library.Linear(2, 2, rngs=library.Rngs(0), param_dtype=dtype)
            self.norm = library.BatchNorm(2, rngs=library.Rngs(0))

        def __call__(self, x):
            return self.norm(self.linear(x), use_running_average=True)

    return Model()


@pytest.mark.sample(4)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("only", [..., "Param"])
def test_averages_are_those_of_flax(dtype, only):
    found = {}
    for library in (liftnn, nnx):
        model = build(library, dtype)
        ema = library.EMA(model, 0.9, only=library.Param if only == "Param" else ...)
        for i in range(3):
            model.linear.kernel[...] += i
            model.norm.mean[...] -= i
            ema.update(model)
        averaged = ema.apply_to(model)
        found[library] = [
            averaged.linear.kernel[...],
            averaged.linear.bias[...],
            averaged.norm.mean[...],
            averaged(jnp.ones((1, 2))),
        ]
    for ours, theirs in zip(found[liftnn], found[nnx], strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("library", [liftnn, nnx])
def test_the_averaged_model_shares_the_averages_with_the_ema_and_the_rest_with_the_model(library):
    model = build(library)
    ema = library.EMA(model, decay=0.5, only=library.Param)
    averaged = ema.apply_to(model)
    assert type(averaged) is type(model)
    assert averaged.linear is not model.linear
    assert averaged.linear.kernel is ema.params.linear.kernel
    assert averaged.linear.kernel is ema.params["linear"]["kernel"]
    assert averaged.norm.mean is model.norm.mean
    before = averaged.linear.kernel[...]
    model.linear.kernel[...] = before + 2
    ema.update(model)
    np.testing.assert_array_equal(averaged.linear.kernel[...], 0.5 * before + 0.5 * (before + 2))


def test_updates_in_a_compiled_step_are_those_outside_and_compile_once():
    plain, jitted = build(liftnn), build(liftnn)
    emas = [liftnn.EMA(m, 0.75) for m in (plain, jitted)]
    averaged = emas[1].apply_to(jitted)

    def step(model, ema):
        model.linear.kernel.value = model.linear.kernel.value + 1
        ema.update(model)

    jit_step, evaluate = liftnn.jit(step), liftnn.jit(lambda model, x: model(x))
    for _ in range(3):
        step(plain, emas[0])
        jit_step(jitted, emas[1])
        expected = emas[0].apply_to(plain)(jnp.ones((1, 2)))
        np.testing.assert_allclose(evaluate(averaged, jnp.ones((1, 2))), expected, rtol=1e-6)
    assert (jit_step.n_traces, evaluate.n_traces) == (1, 1)


def test_captured_objects_work_and_a_model_can_be_made_inside():
    model = build(liftnn)
    ema = liftnn.EMA(model, 0.5, only=liftnn.Param)
    model.linear.kernel.value = model.linear.kernel.value + 1

    @liftnn.jit
    def evaluate(x):
        ema.update(model)
        return ema.apply_to(model)(x)

    found = evaluate(jnp.ones((1, 2)))
    np.testing.assert_allclose(found, ema.apply_to(model)(jnp.ones((1, 2))), rtol=1e-6)


def test_shared_variables_modules_and_cycles_stay():
    model = Node(w=liftnn.Param(jnp.ones(2)), constant=jnp.ones(1))
    model.again, model.child, model.itself = model.w, Node(w=model.w), model
    model.parts = (model.child, [model.child])
    ema = liftnn.EMA(model, 0.5, only=liftnn.Variable)
    averaged = ema.apply_to(model)
    assert averaged.w is averaged.again is averaged.child.w is ema.params.w
    assert averaged.itself is averaged
    assert averaged.parts[0] is averaged.parts[1][0] is averaged.child
    assert averaged.constant is model.constant
    assert list(ema.params.flat()) == [("w",)]


class Config:
    """A plain object."""

    def __init__(self):
        self.bias = 1.0


class Stateful(Node):
    """A class that says itself what is copied and pickled of it."""

    def __getstate__(self):
        return {name: x for name, x in super().__getstate__().items() if name != "cache"}

    def __deepcopy__(self, memo):
        return Stateful()


def test_functions_and_static_values_of_the_averaged_model_are_those_of_a_view():
    inner = Node(w=liftnn.Param(jnp.ones(())))
    model = Stateful(inner=inner, cache={"a": inner}, lock=threading.Lock(), config=Config())
    model.function, model.default = lambda x: x * inner.w, lambda x, part=inner: x * part.w
    ema = liftnn.EMA(model, 0.5)
    inner.w.value = jnp.array(5.0)
    ema.update(model)
    evaluate = liftnn.jit(lambda m, x: m.function(x) + m.default(x) + m.config.bias)
    for _ in range(2):
        averaged = ema.apply_to(model)
        found = averaged.function(2.0), averaged.default(2.0), evaluate(averaged, 2.0)
        assert list(map(float, found)) == [6, 6, 13]
        assert averaged.cache["a"] is averaged.inner
        assert averaged.lock is model.lock
    assert evaluate.n_traces == 1


def test_counts_and_random_keys_stay_those_of_the_model():
    model = Node(w=liftnn.Param(jnp.ones(2)), n=liftnn.Variable(jnp.array(3)), rngs=liftnn.Rngs(0))
    ema = liftnn.EMA(model, 0.5)
    averaged = ema.apply_to(model)
    ema.update(model)
    assert averaged.n is model.n
    first, second = averaged.rngs(), model.rngs()  # drawn from one stream
    assert (jax.random.key_data(first) != jax.random.key_data(second)).any()


def test_a_state_and_a_tree_of_models_can_be_averaged():
    a, b = Node(w=liftnn.Param(jnp.zeros(1))), Node(w=liftnn.Param(jnp.zeros(1)))
    ema = liftnn.EMA({"a": a, "b": b}, 0.5)
    b.w.value = jnp.ones(1)
    ema.update({"a": a, "b": b})
    assert ema.params.b.w.value.tolist() == [0.5]
    averaged = ema.apply_to({"a": a, "b": b})
    assert averaged["b"].w is ema.params.b.w
    ema.update(liftnn.state({"a": a, "b": b}))
    assert averaged["b"].w.value.tolist() == [0.75]


def test_averages_have_their_own_arrays():
    model = Node(w=liftnn.Param(jnp.ones(2)))
    ema = liftnn.EMA(model, 0.5)
    step = liftnn.jit(lambda model, ema: ema.update(model), donate_argnums=(0, 1))
    step(model, ema)
    step(model, ema)
    assert ema.params.w.value.tolist() == [1, 1]


def test_an_average_can_be_set():
    model = Node(w=liftnn.Param(jnp.ones(2)))
    ema = liftnn.EMA(model, 0.5)
    variable = ema.params.w
    ema.params.w = jnp.zeros(2)
    ema.update(model)
    assert variable.value.tolist() == [0.5, 0.5]


def test_the_decay_may_be_a_variable():
    model = Node(w=liftnn.Param(jnp.zeros(2, jnp.bfloat16)))
    ema = liftnn.EMA(model, liftnn.Variable(jnp.float32(0.75)))
    model.w.value = jnp.ones(2, jnp.bfloat16)
    ema.update(model)
    assert ema.params.w.value.tolist() == [0.25, 0.25]
    assert ema.params.w.dtype == jnp.bfloat16


@pytest.mark.parametrize("copied", [copy.deepcopy, liftnn.clone, lambda x: pickle.loads(pickle.dumps(x))])
def test_it_is_copied_and_pickled(copied):
    model = Node(w=liftnn.Param(jnp.zeros(1)))
    ema = liftnn.EMA(model, 0.5)
    new = copied(ema)
    model.w.value = jnp.ones(1)
    new.update(model)
    assert (new.params.w.value.tolist(), ema.params.w.value.tolist()) == ([0.5], [0.0])


def test_its_state_has_the_paths_of_the_model():
    model = build(liftnn)
    ours = set(liftnn.state(liftnn.EMA(model, 0.5)).flat())
    theirs = {path for path, _ in nnx.to_flat_state(nnx.state(nnx.EMA(build(nnx), 0.5)))}
    assert ours == theirs


# --- errors


@pytest.mark.parametrize("decay", [-0.1, 1.5, 2, float("nan")])
def test_a_decay_outside_of_its_range_is_an_error(decay):
    with raises(
        errors.ArgumentError,
        f"`decay` must be from 0 to 1, not {decay!r}.\nPass the weight of the average so far, such as 0.999.",
    ):
        liftnn.EMA(build(liftnn), decay)


@pytest.mark.parametrize(
    "decay, found",
    [(None, "a NoneType"), ("0.9", "a str"), (lambda step: 0.9, "a function")],
    ids=["None", "text", "schedule"],
)
def test_a_decay_that_is_no_number_is_an_error(decay, found):
    with raises(
        errors.ArgumentTypeError,
        f"`decay` must be a number, or a Variable that holds one, not {found}.\n"
        "Pass a number such as 0.999. If it changes with the steps, pass a Variable, and set its value.",
    ):
        liftnn.EMA(build(liftnn), decay)


def test_nothing_to_average_is_an_error():
    model = Node(n=liftnn.Param(jnp.array(1)))
    with raises(
        errors.FilterError,
        "Nothing to average: no Variable with floating-point values is in the model.\n"
        "Pass a module with Variables, not a function.",
    ):
        liftnn.EMA(model, 0.5)
    with raises(
        errors.FilterError,
        "Nothing to average: no Variable with floating-point values matches OfType(Cache).\n"
        "Pass a filter as `only` that matches Variables of the model, such as liftnn.Param.",
    ):
        liftnn.EMA(model, 0.5, only=liftnn.Cache)


def test_an_array_that_is_no_variable_is_an_error():
    model = Node(w=liftnn.Param(jnp.ones(1)), table=jnp.ones(2))
    text = (
        "EMA averages only Variables, but these are arrays:\n  table\n"
        "Store them in Variables, or select Variables only, such as `only=liftnn.Variable`."
    )
    with raises(errors.ArgumentTypeError, text):
        liftnn.EMA(model, 0.5)

    class Table(nnx.Module):
        def __init__(self):
            self.table = nnx.data(jnp.ones(2))

    with pytest.raises(TypeError, match="only supports Variable"):
        nnx.EMA(Table(), 0.5)


@pytest.mark.parametrize("method", ["update", "apply_to"])
def test_another_model_is_an_error_by_path_and_changes_nothing(method):
    model = Node(w=liftnn.Param(jnp.ones(2)), b=liftnn.Param(jnp.ones(2)))
    ema = liftnn.EMA(model, 0.5)
    remedy = "Pass the model that the EMA was created for, or create a new EMA for the changed model."
    with raises(
        errors.StructureError,
        "The model does not have the Variables that the EMA averages:\nmissing:\n  b\nunexpected:\n  c\n"
        + remedy,
    ):
        getattr(ema, method)(Node(w=liftnn.Param(jnp.zeros(2)), c=liftnn.Param(jnp.ones(2))))
    with raises(
        errors.StructureError,
        "The model does not have the shapes that the EMA averages:\n  b: (1,) in the model, (2,) in the EMA\n"
        + remedy,
    ):
        getattr(ema, method)(Node(w=liftnn.Param(jnp.zeros(2)), b=liftnn.Param(jnp.ones(1))))
    assert ema.params.w.value.tolist() == [1, 1]


def test_an_abstract_model_has_no_values_to_average():
    model = Node(w=liftnn.Param(jnp.ones(2)))
    abstract, ema = liftnn.eval_shape(lambda: model), liftnn.EMA(model, 0.5)
    for call in (lambda: liftnn.EMA(abstract, 0.5), lambda: ema.update(abstract)):
        with raises(
            errors.ArgumentTypeError,
            "w is abstract: it has a shape and a dtype, but no value, so an EMA cannot average it.\n"
            "Create the model without `eval_shape`, or set all its Variables first, for example by "
            "`update(model, state)`.",
        ):
            call()
    assert ema.apply_to(abstract).w is ema.params.w


@pytest.mark.parametrize("method", ["update", "apply_to"])
def test_a_tree_of_another_structure_is_an_error_by_path(method):
    model = Node(w=liftnn.Param({"a": jnp.ones(2)}))
    ema = liftnn.EMA(model, 0.5)
    model.w.value = {"b": jnp.ones(2)}
    with raises(
        errors.StructureError,
        "The model does not have the shapes that the EMA averages:\n"
        "  w: dict(b: (2,)) in the model, dict(a: (2,)) in the EMA\n"
        "Pass the model that the EMA was created for, or create a new EMA for the changed model.",
    ):
        getattr(ema, method)(model)


def test_an_interrupted_update_has_moved_all_averages_or_none():
    averages = []

    def make():
        model = build(liftnn)
        averages.append(liftnn.EMA(model, 0.5))
        liftnn.update(model, jax.tree.map(lambda x: x + 1, liftnn.state(model)))
        return lambda ema=averages[-1]: ema.update(model)

    make()
    make()()
    old, new = averages
    for at in interruptions(make, "optim/ema.py", "variables/variable.py", "graph/undo.py"):
        assert any(find_difference(averages[-1], x) is None for x in (old, new)), f"line event {at}"
