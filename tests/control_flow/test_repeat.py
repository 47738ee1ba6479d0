"""`repeat(step, n)` does what a loop over the compiled step does; the loop is the oracle."""

from __future__ import annotations

import contextlib
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests.raising import caught
from tests.same import assert_same

import liftnn
from liftnn import errors

N = 5
XS = jnp.sin(jnp.arange(N * 24.0)).reshape(N, 6, 4)
YS = XS.sum(-1, keepdims=True)


class Model(liftnn.Module):
    """A model with everything that a step changes: weights, statistics, a random stream, a count."""

    def __init__(self):
        rngs = liftnn.Rngs(0)
        self.up = liftnn.Linear(4, 4, rngs=rngs)
        self.norm = liftnn.BatchNorm(4, rngs=rngs)
        self.dropout = liftnn.Dropout(0.3, rngs=rngs)
        self.head = liftnn.Linear(4, 1, rngs=rngs)
        self.calls = liftnn.Variable(jnp.array(0))

    def __call__(self, x):
        self.calls += 1
        return self.head(self.dropout(self.norm(jnp.tanh(self.up(x)))))


def train(model, optimizer, x, y):
    loss, grads = liftnn.value_and_grad(lambda model: ((model(x) - y) ** 2).mean())(model)
    optimizer.update(model, grads)
    return {"loss": loss, "count": model.calls.value}


def make():
    model = Model()
    return model, liftnn.Optimizer(model, optax.adam(1e-2))


def loop(step, modules, *arrays):
    outputs = [step(*modules, *(x[i] for x in arrays)) for i in range(len(arrays[0]))]
    return jax.tree.map(lambda *xs: jnp.stack(xs), *outputs)


def arrays_of(*trees):
    leaves = jax.tree.leaves(liftnn.state(trees))
    return [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]


def assert_equal(ours, theirs):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"unroll": 2}, {"donate_argnums": (0, 1)}, {"donate_written": True}], ids=str
)
@pytest.mark.sample(4)
def test_it_trains_as_single_steps_do(options):
    ours, theirs = make(), make()
    many, single = liftnn.repeat(train, N, **options), liftnn.jit(train)
    for _ in range(2):
        assert_equal(many(*ours, XS, YS), loop(single, theirs, XS, YS))
    assert_equal(arrays_of(*ours), arrays_of(*theirs))
    assert int(ours[0].calls.value) == 2 * N


def test_a_captured_model_and_keyword_arguments():
    model, other = Model(), Model()
    many = liftnn.repeat(lambda *, x, scale: model(x) * scale, N)
    single = liftnn.jit(lambda x, scale: other(x) * scale)
    ours = many(x=XS, scale=jnp.arange(N * 1.0))
    assert_equal(ours, loop(single, (), XS, jnp.arange(N * 1.0)))
    assert_equal(arrays_of(model), arrays_of(other))


@pytest.mark.thorough
def test_a_method_a_partial_and_static_arguments():
    class Counted(Model):
        def step(self, x, power):
            return (self(x) ** power).sum()

    ours, theirs = Counted(), Counted()
    many = liftnn.repeat(functools.partial(ours.step, power=2), N)
    assert_equal(many(XS), loop(liftnn.jit(functools.partial(theirs.step, power=2)), (), XS))
    static = liftnn.repeat(lambda model, x, power: model.step(x, power), N, static_argnums=2)
    assert_equal(static(ours, XS, 3), loop(liftnn.jit(lambda x: theirs.step(x, 3)), (), XS))
    assert_equal(arrays_of(ours), arrays_of(theirs))


@pytest.mark.parametrize("options", [{"static_argnums": (2, 3)}, {"static_argnames": ("train", "size")}])
def test_static_numbers_and_flags_are_values_in_each_step(options):
    def step(model, x, train, size):
        return model(x).sum() * jnp.ones(size) if train else jnp.zeros(size)

    ours, theirs = Model(), Model()
    many = liftnn.repeat(step, N, **options)
    single = liftnn.jit(step, **options)
    for train, size in [(True, 2), (False, 3)]:
        expected = jnp.stack([single(theirs, x, train, size) for x in XS])
        assert_equal(many(ours, XS, train, size), expected)
    assert_equal(arrays_of(ours), arrays_of(theirs))
    assert many.n_traces == 2
    with jax.disable_jit():
        assert many(ours, XS, False, size=1).tolist() == [[0.0]] * N


def test_batches_may_be_trees_and_there_may_be_none():
    model = Model()
    sums = liftnn.repeat(lambda model, batch: model(batch["x"]).sum() + batch["y"][0].sum(), N)
    assert sums(model, {"x": XS, "y": (YS, None)}).shape == (N,)
    assert liftnn.repeat(lambda model: model.calls + 1, N)(model).shape == (N,)
    assert liftnn.repeat(lambda model: None, N)(model) is None


def remember(model, x):
    if not hasattr(model, "last"):
        model.last = liftnn.Variable(jnp.zeros(()))
    model.last.value = model.last + x.sum()
    return model.last.value


def test_the_first_step_may_change_the_structure():
    ours, theirs = Model(), Model()
    assert_equal(liftnn.repeat(remember, N)(ours, XS), loop(remember, (theirs,), XS))
    assert_equal(ours.last.value, theirs.last.value)


def grow(model, x):
    model.seen = [*getattr(model, "seen", []), liftnn.Variable(x.sum())]
    return x.mean()


def test_steps_that_all_change_the_structure_run_one_by_one_with_a_warning_that_names_it():
    ours, theirs = Model(), Model()
    with pytest.warns(errors.StructureWarning, match=r"(?s)compiles 5 steps one by one.*args\[0\]\.seen"):
        out = liftnn.repeat(grow, N)(ours, XS)
    assert_equal(out, loop(grow, (theirs,), XS))
    assert_equal(arrays_of(ours), arrays_of(theirs))
    assert len(ours.seen) == N


def new_variable(model, x):
    return liftnn.Variable(x), x


def new_module(model, x):
    layer = liftnn.Linear(4, 1, rngs=liftnn.Rngs(model.dropout.rngs()))
    return {"layer": layer, "again": (layer, layer.bias)}, layer(x)


def new_state(model, x):
    return liftnn.grad(lambda model: (model.head(x) ** 2).sum())(model)


def the_model(model, x):
    return model, model.head, x


def static_values(model, x):
    return "text", jnp.tanh, x, None, liftnn.Variable({"x": x, "name": "text"})


@pytest.mark.parametrize("step", [new_variable, new_module, new_state, the_model, static_values])
def test_steps_that_run_one_by_one_return_what_a_loop_of_them_returns(step):
    def grown(model, x):
        grow(model, x)
        return step(model, x)

    one_by_one, in_a_loop = Model(), Model()
    with pytest.warns(errors.StructureWarning):
        out = liftnn.repeat(grown, N)(one_by_one, XS)
    expected = liftnn.repeat(step, N)(in_a_loop, XS)
    del one_by_one.seen
    assert_same((out, one_by_one), (expected, in_a_loop))


def shapes(items):
    return jnp.zeros(len(items))


def trees(items):
    return {len(items): 1.0}


def kinds(items):
    return None if len(items) == 1 else jnp.ones(())


def variables(items):
    return liftnn.Variable(jnp.zeros(len(items)))


@pytest.mark.parametrize(
    "output, line",
    [
        (shapes, "the output: float32[1], in step 1 float32[2]"),
        (trees, "the output: {1: *}, in step 1 {2: *}"),
        (kinds, "the output: None, in step 1 *"),
        (variables, "the output.value: float32[1], in step 1 float32[2]"),
    ],
)
def test_outputs_that_cannot_be_stacked_are_named_and_nothing_changes(output, line):
    def grown(model, x):
        grow(model, x)
        return output(model.seen)

    model = Model()
    with pytest.warns(errors.StructureWarning), pytest.raises(errors.StructureError) as error:
        liftnn.repeat(grown, N)(model, XS)
    assert line in str(error.value)
    assert_same(model, Model())


@pytest.mark.parametrize("container", [{"x": XS}, [XS]], ids=["dict", "list"])
def test_a_change_of_a_container_argument_is_an_error_as_in_jit(container):
    def step(model, batch):
        batch.update(y=1) if isinstance(batch, dict) else batch.append(1)
        return model.calls + 1

    model = Model()
    expected = caught(lambda: liftnn.jit(step)(model, container))
    with pytest.warns(errors.StructureWarning):
        error = caught(lambda: liftnn.repeat(step, N)(model, container))
    assert (type(error), str(error)) == (type(expected), str(expected))


def test_another_number_or_shape_of_arrays_is_named_and_nothing_changes():
    ours = make()
    before = arrays_of(*ours)
    error = caught(lambda: liftnn.repeat(train, N)(*ours, XS[:3], YS[0, 0, 0]))
    assert isinstance(error, errors.ArgumentError)
    assert "args[2]: float32[3,6,4]" in str(error)
    assert "args[3]: float32[]" in str(error)
    assert_equal(arrays_of(*ours), before)


def test_an_exception_in_a_step_changes_nothing():
    def fail(model, x):
        model.calls += 1
        raise KeyError("in a step")

    model = Model()
    with pytest.raises(KeyError, match="in a step"):
        liftnn.repeat(fail, N)(model, XS)
    assert int(model.calls.value) == 0


def test_it_is_traced_once_and_has_the_stages_of_jit():
    n_traces = 0

    def step(model, x):
        nonlocal n_traces
        n_traces += 1
        return model.head(x)

    model, many = Model(), liftnn.repeat(step, N)
    for _ in range(3):
        many(model, XS)
    assert n_traces == 1
    assert many.lower(model, XS).compile()(model, XS).shape == (N, 6, 1)


@pytest.mark.thorough
def test_shardings_stay():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    ours = make()
    placed = NamedSharding(mesh, P(None, "x"))
    ours[0].up.kernel.value = jax.device_put(ours[0].up.kernel.value, placed)
    theirs = make()
    losses = liftnn.repeat(train, N)(*ours, XS, YS)
    np.testing.assert_allclose(losses["loss"], loop(liftnn.jit(train), theirs, XS, YS)["loss"], rtol=1e-5)
    assert ours[0].up.kernel.value.sharding == placed


def test_zero_size_arrays_and_one_step():
    model = Model()
    assert liftnn.repeat(lambda model, x: x * 2, N)(model, jnp.zeros((N, 0))).shape == (N, 0)
    assert liftnn.repeat(lambda model, x: model(x), 1)(model, XS[:1]).shape == (1, 6, 1)


@pytest.mark.parametrize("stack", [jnp.asarray, np.asarray, lambda x: {"x": np.asarray(x)}])
def test_arrays_of_any_kind_have_a_slice_for_each_step_also_without_jit(stack):
    def step(model, x):
        model.calls += 1
        return jax.tree.map(lambda x: (model.calls * x).sum(), x)

    def grow(model, x):
        model.seen = [*getattr(model, "seen", []), liftnn.Variable(jnp.float32(0))]
        return step(model, x)

    xs = stack(YS)
    for f in (step, grow):
        expected = jax.tree.map(lambda x: (jnp.arange(1.0, N + 1) * x.sum((1, 2))).tolist(), xs)
        for context in (contextlib.nullcontext(), jax.disable_jit()):
            with context, warnings.catch_warnings():
                warnings.simplefilter("ignore", errors.StructureWarning)
                out = liftnn.repeat(f, N)(Model(), xs)
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), out, expected)
    with jax.disable_jit(), pytest.raises(errors.ArgumentError, match="no leading axis"):
        liftnn.repeat(step, N + 1)(Model(), xs)


class Owner(liftnn.Module):
    """A module with steps of all kinds as methods."""

    def __init__(self):
        self.w = liftnn.Variable(jnp.float32(1))
        self.seen = []

    def step(self, x, mode="add"):
        self.w.value = self.w + x if mode == "add" else self.w * x
        return self.w.value

    def __call__(self, x):
        return self.step(x)

    def create(self, x):
        if not hasattr(self, "first"):
            self.first = liftnn.Variable(x)
        return self.step(x)

    def grow(self, x):
        self.seen.append(liftnn.Variable(x))
        return self.step(x)

    @liftnn.jit
    def compiled(self, x):
        return self.create(x)


@pytest.mark.parametrize(
    "bind",
    [
        lambda m: m,
        lambda m: m.step,
        lambda m: m.__call__,
        lambda m: m.create,
        lambda m: m.grow,
        lambda m: m.compiled,
    ],
    ids=["module", "method", "call", "create", "grow", "compiled"],
)
def test_a_step_may_be_a_method_that_changes_its_module(bind):
    xs = jnp.arange(1.0, 4.0)
    ours, reference = Owner(), Owner()
    expected = [float(bind(reference)(x)) for x in xs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.StructureWarning)
        assert liftnn.repeat(bind(ours), 3)(xs).tolist() == expected
    assert_same(ours, reference)


def test_the_options_count_the_module_of_a_method_as_jit_does():
    xs = jnp.arange(1.0, 4.0)
    for options in ({"static_argnums": 2}, {"static_argnames": "mode"}):
        owner = Owner()
        assert liftnn.repeat(owner.step, 3, **options)(xs, "multiply").tolist() == [1.0, 2.0, 6.0]
        assert liftnn.repeat(owner.step, 3, **options)(xs, mode="add").tolist() == [7.0, 9.0, 12.0]
    owner, old = Owner(), jnp.float32(1) + 1
    owner.w.value = old
    liftnn.repeat(owner.step, 3, donate_argnums=0)(xs)
    assert old.is_deleted()
    assert not xs.is_deleted()


def test_a_stored_repeated_method_acts_on_a_copy_of_its_module():
    owner, xs = Owner(), jnp.arange(1.0, 4.0)
    owner.run = liftnn.repeat(owner.step, 3)
    owner.run(xs)
    copy = liftnn.clone(owner)
    copy.run(xs)
    assert (float(owner.w), float(copy.w)) == (7.0, 13.0)
