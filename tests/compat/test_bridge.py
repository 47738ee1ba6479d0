"""Linen modules in modules, by `ToNNX`: the same program with Flax's own bridge gives the same numbers."""

from __future__ import annotations

import sys

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx as flax_nnx
from tests.compat.linen_programs import X, pair, same
from tests.raising import raises

from liftnn import errors
from liftnn.compat import nnx


class Net(linen.Module):
    """Nested layers, statistics, dropout, a named submodule and a method beside `__call__`."""

    size: int = 3

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.Dense(self.size, name="inner")(x)
        x = linen.BatchNorm(use_running_average=not train)(x)
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return x * self.param("scale", linen.initializers.normal(), (self.size,))

    def double(self, x):
        return 2 * self(x)


def values(state):
    """The values of a State by path, without those of streams of keys."""
    flat = {"/".join(map(str, path)): x for path, x in nnx.to_flat_state(state)}
    return {path: np.asarray(x.value) for path, x in flat.items() if "rngs" not in path}


def flax_values(model):
    flat = {"/".join(map(str, path)): x for path, x in flax_nnx.to_flat_state(flax_nnx.state(model))}
    return {path: np.asarray(x[...]) for path, x in flat.items() if "rngs" not in path}


def net(library, seed=0):
    rngs = library.Rngs(params=seed, dropout=seed + 1)
    return library.bridge.ToNNX(Net(), rngs=rngs).lazy_init(X)


def test_the_variables_are_those_of_flax():
    ours, theirs = pair(net)
    same(values(nnx.state(ours)), flax_values(theirs))
    assert {p: type(x).__name__ for p, x in nnx.to_flat_state(nnx.state(ours, nnx.Not(nnx.RngState)))} == {
        ("BatchNorm_0", "bias"): "Param",
        ("BatchNorm_0", "mean"): "BatchStat",
        ("BatchNorm_0", "scale"): "Param",
        ("BatchNorm_0", "var"): "BatchStat",
        ("inner", "bias"): "Param",
        ("inner", "kernel"): "Param",
        ("scale",): "Param",
    }


@pytest.mark.parametrize("jitted", [False, True])
def test_calls_compute_what_they_compute_in_flax_and_draw_the_same_keys(jitted):
    def program(library):
        model = net(library)

        def step(model, x):
            return model(x, train=True, mutable=["batch_stats"])

        step = library.jit(step) if jitted else step
        return [step(model, X), step(model, X), model(X), model.double(X)]

    same(*pair(program))


def test_a_train_step_with_its_gradient_is_that_of_flax():
    import optax

    def program(library):
        model = net(library)
        optimizer = library.Optimizer(model, optax.adam(0.1), wrt=library.Param)

        @library.jit
        def step(model, optimizer):
            def loss(model):
                return (model(X, train=True, mutable=["batch_stats"]) ** 2).mean()

            value, grads = library.value_and_grad(loss)(model)
            optimizer.update(model, grads)
            return value

        return [step(model, optimizer) for _ in range(3)], model

    (ours, model), (theirs, flax_model) = pair(program)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    expected = flax_values(flax_model)
    for path, x in values(nnx.state(model)).items():
        np.testing.assert_allclose(x, expected[path], rtol=1e-5, atol=1e-6)


def test_updates_are_written_to_the_same_variables():
    model = net(nnx)
    mean = model.BatchNorm_0["mean"]
    before = np.asarray(mean.value)
    model(X, train=True, mutable=["batch_stats"])
    assert model.BatchNorm_0["mean"] is mean
    assert not np.array_equal(before, mean.value)


def test_only_the_collections_that_are_mutable_are_written():
    model = net(nnx)
    with pytest.raises(Exception, match="batch_stats"):  # of Flax
        model(X, train=True)


def test_a_method_that_is_not_a_call_initializes_its_own_variables():
    class Two(linen.Module):
        @linen.compact
        def __call__(self, x):
            return self.dot(x) + self.param("b", linen.initializers.zeros, (3,))

        @linen.compact
        def dot(self, x):
            return x @ self.param("w", linen.initializers.normal(), (4, 3))

    model = nnx.bridge.ToNNX(Two(), rngs=nnx.Rngs(0))
    nnx.bridge.lazy_init(model.dot, X)
    same(model.dot(X), X @ model.w.value)
    with pytest.raises(Exception, match="b"):  # of Flax: the parameter does not exist
        model(X)


def test_lazy_init_reaches_wrappers_in_other_modules_and_creates_them_inside_transforms():
    class Outer(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.bridge.ToNNX(linen.Dense(3), rngs=rngs)

        def __call__(self, x):
            @nnx.split_rngs(splits=5)
            @nnx.vmap(in_axes=(0, None), axis_size=5)
            def each(inner, x):
                return inner(x)

            return each(self.inner, x)

    model = nnx.bridge.lazy_init(Outer(nnx.Rngs(0)), X)
    assert model.inner.kernel.shape == (5, 4, 3)
    assert model(X).shape == (5, 2, 3)
    expected = X @ model.inner.kernel.value[1] + model.inner.bias.value[1]
    np.testing.assert_allclose(model(X)[1], expected, rtol=1e-5)
    jitted = nnx.jit(lambda: nnx.bridge.lazy_init(Outer(nnx.Rngs(0)), X))()
    same(values(nnx.state(jitted)), values(nnx.state(model)))


def test_the_model_is_a_module_like_any_other():
    import pickle

    model = net(nnx)
    y = model(X)
    graphdef, state = nnx.split(model)
    same(nnx.merge(graphdef, state)(X), y)
    same(nnx.clone(model)(X), y)
    same(pickle.loads(pickle.dumps(model))(X), y)
    other = net(nnx, seed=5)
    nnx.update(other, nnx.state(model))
    same(other(X), y)
    assert graphdef == nnx.graphdef(other)


def test_metadata_of_linen_declares_shardings():
    init = linen.with_partitioning(linen.initializers.lecun_normal(), ("in", "out"))
    logical = linen.with_logical_partitioning(linen.initializers.zeros, ("rows",), rules=(("rows", "out"),))

    def program(library):
        model = library.bridge.ToNNX(
            linen.Dense(3, kernel_init=init, bias_init=logical), rngs=library.Rngs(0)
        )
        with jax.set_mesh(jax.make_mesh((1, 1), ("in", "out"), axis_types=(jax.sharding.AxisType.Auto,) * 2)):
            model.lazy_init(X)
        return model, (model(X), model(X))

    (ours, out), (theirs, flax_out) = pair(program)
    same(out, flax_out)
    for name in ("kernel", "bias"):
        x, y = getattr(ours, name), getattr(theirs, name)
        assert x.out_sharding == y.out_sharding
        spec = flax_nnx.get_partition_spec(flax_nnx.state(theirs))[name].get_value()
        assert nnx.get_partition_spec(nnx.state(ours))[name].value == spec
    assert ours.bias.sharding_rules == (("rows", "out"),)


def test_an_exception_in_lazy_init_ends_it():
    class Fails(linen.Module):
        @linen.compact
        def __call__(self, x, fail=False):
            w = self.param("w", linen.initializers.ones, (4,))
            if fail:
                raise ZeroDivisionError
            return x * w

    model = nnx.bridge.ToNNX(Fails(), rngs=nnx.Rngs(0))
    before = nnx.graphdef(model)
    with pytest.raises(ZeroDivisionError):
        model.lazy_init(X, fail=True)
    assert nnx.graphdef(model) == before
    same(model.lazy_init(X)(X), X)


def test_a_collection_of_an_unknown_name_gets_a_type():
    class Counts(linen.Module):
        @linen.compact
        def __call__(self):
            count = self.variable("bridge_counts", "count", lambda: jnp.zeros((), jnp.int32))
            if not self.is_initializing():
                count.value += 1
            return count.value

    model = nnx.bridge.ToNNX(Counts()).lazy_init()
    assert [int(model(mutable=True)), int(model(mutable=True)), int(model.count.value)] == [1, 2, 2]
    assert type(model.count) is nnx.variable_type_from_name("bridge_counts")


def test_a_dict_of_keys_and_single_keys_are_accepted_as_streams():
    key = jax.random.key(3)
    ours = nnx.bridge.ToNNX(linen.Dense(3), rngs=key).lazy_init(X)
    theirs = flax_nnx.bridge.ToNNX(linen.Dense(3), rngs=key).lazy_init(X)
    same(ours.kernel.value, theirs.kernel[...])
    again = nnx.bridge.ToNNX(linen.Dense(3))
    nnx.bridge.lazy_init(again, X, rngs=key)
    expected = linen.Dense(3).init(key, X)["params"]["kernel"]
    same(again.kernel.value, expected)


# --- errors


class Twice(linen.Module):
    """Two variables of one name, in two collections."""

    @linen.compact
    def __call__(self):
        self.variable("batch_stats", "w", jnp.zeros, ())
        return self.variable("cache", "w", jnp.zeros, ()).value


def foreign_attribute():
    model = nnx.bridge.ToNNX(linen.Dense(3), rngs=nnx.Rngs(0)).lazy_init(X)
    model.scale = 2.0
    model(X)


def other_box():
    box = nnx.bridge.NNXMeta(nnx.BatchStat, jnp.ones(3), {})

    class Boxed(linen.Module):
        @linen.compact
        def __call__(self):
            return self.param("w", lambda key: box)

    nnx.bridge.ToNNX(Boxed(), rngs=nnx.Rngs(0)).lazy_init()


ERRORS = [
    (
        lambda: nnx.bridge.ToNNX(linen.Dense(3), rngs=nnx.Rngs(0)).kernel,
        errors.AttributeNameError,
        (
            "This ToNNX of a Dense has no attribute 'kernel'.\n`lazy_init` creates the variables of a Linen module: "
            "call it with the inputs of a call."
        ),
    ),
    (
        lambda: nnx.bridge.lazy_init({}, X),
        errors.ArgumentTypeError,
        (
            "nnx.bridge.lazy_init got a dict, which is neither a module nor a method of one.\nPass the module, and the "
            "arguments of a call: `lazy_init(model, x)`."
        ),
    ),
    (
        foreign_attribute,
        errors.StructureError,
        (
            "scale is a float, and cannot be passed to the Linen module, whose variables are the attributes of a "
            "ToNNX.\nMake it a Variable, or an attribute of the module that holds this one."
        ),
    ),
    (
        lambda: nnx.bridge.ToNNX(Twice()).lazy_init(),
        errors.StructureError,
        (
            "The Linen module has two variables w: in the collection 'cache', and in that of BatchStat. A module has "
            "one attribute for both.\nGive one of them another name."
        ),
    ),
    (
        other_box,
        errors.StructureError,
        (
            "A BatchStat is in the collection 'params' of Linen, which is that of Param.\nRegister the name of "
            "the collection for one type, with nnx.register_variable_name."
        ),
    ),
]


@pytest.mark.parametrize("cause, cls, text", ERRORS)
def test_the_text_of_an_error_is_this(cause, cls, text):
    with raises(cls, text):
        cause()


def test_a_call_without_variables_says_what_creates_them():
    with pytest.raises(flax.errors.ScopeCollectionNotFound) as error:
        nnx.bridge.ToNNX(linen.Dense(3), rngs=nnx.Rngs(0))(X)
    remedy = "`lazy_init` creates the variables of a Linen module: call it with the inputs of a call."
    assert f"This ToNNX has no variables yet. {remedy}" in error.value.__notes__


def test_without_flax_the_bridge_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "liftnn._src.compat.linen.to_module", None)
    monkeypatch.delitem(vars(nnx.bridge), "ToNNX", raising=False)
    text = "nnx.bridge.ToNNX wraps modules of Flax Linen, and the package flax is not installed."
    with raises(errors.MissingPackageError, f"{text}\nRun `pip install flax`."):
        nnx.bridge.ToNNX  # noqa: B018
