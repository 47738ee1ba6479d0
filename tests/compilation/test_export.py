"""`export`: an exported step acts like the step, in this process and in another one."""

from __future__ import annotations

import functools
import os
import pathlib
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import liftnn
from liftnn import errors
from tests.compilation import exported_step
from tests.raising import raises
from tests.same import assert_same
from tests.user_modules import Affine, Holder, Pair, step

X = jnp.arange(3.0)
NEW = "Export the function for the new structure."


def through_bytes(exported):
    """The same function, written and read again."""
    pytest.importorskip("flatbuffers")
    return liftnn.deserialize(exported.serialize())


def through_plain_bytes(exported):
    """The same function, written and read again without pickle."""
    pytest.importorskip("flatbuffers")
    return liftnn.deserialize(exported.serialize(plain=True), plain=True)


CARRIES = {"here": lambda e: e, "through bytes": through_bytes, "through plain bytes": through_plain_bytes}


@pytest.mark.parametrize("carry", CARRIES.values(), ids=CARRIES)
def test_it_acts_like_the_function(carry):
    def f(model, x, *, k):
        model.first.b.value = model.first.b + x
        model.second.mode = "eval"
        model.layers = [model.first, Affine(3.0)]
        del model.second.calls
        return {"y": model.first(x) * k, "model": model}, model.layers[1]

    model, reference = Pair(), Pair()
    exported = carry(liftnn.export(liftnn.jit(f))(model, X, k=2.0))
    assert_same(model, Pair())
    out, new = exported.call(model, X, k=3.0)
    expected, _ = f(reference, X, k=3.0)
    assert out["model"] is model
    assert new is model.layers[1]
    assert model.layers[0] is model.first
    assert out["y"].tolist() == expected["y"].tolist()
    assert_same(model, reference)


@pytest.mark.thorough
def test_a_new_process_gets_the_numbers_and_objects_of_this_one(tmp_path):
    pytest.importorskip("flatbuffers")
    step, (model, optimizer) = liftnn.jit(exported_step.train), exported_step.make()
    examples = (exported_step.X, exported_step.Y)
    first = liftnn.export(step)(model, optimizer, *examples)
    second = liftnn.export(step)(*exported_step.grown(model, optimizer), *examples)
    blobs = {plain: [first.serialize(plain=plain), second.serialize(plain=plain)] for plain in (False, True)}
    expected = exported_step.run(step, step)
    for plain in blobs:
        losses, values, seen = run_elsewhere(tmp_path, blobs[plain])
        np.testing.assert_allclose(losses, expected[0], rtol=1e-5)
        assert seen == expected[2]
        assert len(values) == len(expected[1])
        for x, y in zip(values, expected[1], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def run_elsewhere(folder, blobs):
    """What a new process gets from exported steps."""
    written, read = folder / "in", folder / "out"
    written.write_bytes(pickle.dumps(blobs))
    root = pathlib.Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    code = "import sys; from tests.compilation import exported_step; exported_step.main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(written), str(read)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return pickle.loads(read.read_bytes())


def test_static_arguments_are_part_of_it():
    def f(k, model, *, flag, x):
        assert type(k) is int
        return model(x) * k if flag else x

    model = Affine(2.0)
    exported = through_bytes(
        liftnn.export(liftnn.jit(f, static_argnums=0, static_argnames="flag"))(3, model, flag=True, x=X)
    )
    assert exported.call(model, x=X).tolist() == (X * 6).tolist()
    assert int(model.calls.value) == 1


def test_the_module_of_a_bound_method_is_argument_0():
    model = Affine(2.0)
    exported = through_bytes(liftnn.export(liftnn.jit(model.loss))(X))
    other = Affine(3.0)
    assert float(exported.call(other, X)) == float(Affine(3.0).loss(X))
    assert int(other.calls.value) == 1
    assert int(model.calls.value) == 0


def test_symbolic_shapes_leave_a_dimension_open():
    model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    (batch,) = jax.export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, 2), jnp.float32)
    exported = through_bytes(liftnn.export(liftnn.jit(step))(model, shape))
    for size in (1, 4):
        x = jnp.ones((size, 2))
        np.testing.assert_allclose(exported.call(model, x), model(x), rtol=1e-6)


def predict(tables, model, x, k=1.0):
    model.mode = "eval"
    model.table = tables["a"][0]  # an array, which may be stored
    return {"new": Affine(2.0), "y": model(x * tables["b"].w) * k}, model


@pytest.mark.parametrize("how", ["partial", "closure"])
def test_what_a_partial_stores_and_a_closure_captures_are_constants(how):
    tables, model, reference = {"a": [X], "b": Affine(3.0)}, Affine(2.0), Affine(2.0)
    if how == "partial":
        function = functools.partial(predict, tables, k=2.0)
    else:
        b = tables["b"]

        def function(model, x):
            return predict({"a": [X], "b": b}, model, x, k=2.0)

    exported = through_bytes(liftnn.export(liftnn.jit(function))(model, X))
    assert_same(model, Affine(2.0))
    tables["b"].w.value = tables["b"].w * 100
    out, again = exported.call(model, X)
    assert again is model
    assert_same((out, model), predict({"a": [X], "b": Affine(3.0)}, reference, X, k=2.0))


def test_a_module_that_is_captured_and_passed_is_an_argument():
    model = Affine(2.0)
    exported = liftnn.export(liftnn.jit(lambda m, x: m(x) + model(x)))(model, X)
    assert exported.call(other := Affine(3.0), X).tolist() == (6 * X).tolist()
    assert (int(other.calls.value), int(model.calls.value)) == (2, 0)


@pytest.mark.parametrize("options", [{"donate_argnums": 0}, {"donate_written": True}], ids=str)
def test_what_is_donated_is_gone_and_what_shares_a_buffer_is_copied(options):
    def count(pair, x):
        pair.first.calls.value = pair.first.calls + 1
        pair.tree.value = {"a": pair.tree["a"] + x}
        return pair.first(x)

    def make():
        pair = Pair()
        pair.tree = liftnn.Variable({"a": X + 0})
        return pair

    pair, reference = make(), make()
    exported = through_bytes(liftnn.export(liftnn.jit(count, **options))(pair, X))
    pair.first.calls.value = pair.second.calls.value  # one buffer for both
    old, weight = pair.tree["a"], pair.first.w.value
    for _ in range(2):
        assert_same(exported.call(pair, X), count(reference, X))
    assert_same(pair, reference)
    assert old.is_deleted()
    assert weight.is_deleted() is ("donate_argnums" in options)
    pair.tree.value = {"a": old}
    with pytest.raises(errors.DonatedError, match=r"args\[0\].tree"):
        exported.call(pair, X)


def test_inside_another_transform_nothing_is_donated():
    model = Affine(2.0)
    exported = liftnn.export(liftnn.jit(Affine.loss, donate_argnums=0))(model, X)
    kept = model.w.value
    liftnn.grad(exported.call)(model, X)
    assert not kept.is_deleted()
    assert int(model.calls.value) == 1


def test_an_abstract_model_is_enough():
    model = liftnn.eval_shape(lambda: liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
    exported = liftnn.export(liftnn.jit(step))(model, jax.ShapeDtypeStruct((1, 2), jnp.float32))
    real = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    np.testing.assert_allclose(exported.call(real, jnp.ones((1, 2))), real(jnp.ones((1, 2))), rtol=1e-6)


def test_donation_and_other_options_do_no_harm():
    jitted = liftnn.jit(step, donate_argnums=0, keep_unused=True)
    model, reference = Affine(2.0), Affine(2.0)
    exported = liftnn.export(jitted, platforms=["cpu", "cuda"])(model, X)
    assert exported.platforms == ("cpu", "cuda")
    assert exported.call(model, X).tolist() == reference(X).tolist()
    assert_same(model, reference)
    assert "loss" not in repr(exported)
    assert repr(exported) == "<liftnn Exported of step>"


def test_a_sharded_step_keeps_its_shardings():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P("x"))
    model = Holder(w=liftnn.Param(jax.device_put(jnp.arange(8.0), rows)))

    def double(model):
        model.w.value = model.w * 2

    exported = through_bytes(liftnn.export(liftnn.jit(double, in_shardings=rows))(model))
    assert exported.nr_devices == 8
    exported.call(model)
    assert model.w.value.tolist() == (2 * jnp.arange(8.0)).tolist()
    assert model.w.value.sharding.is_equivalent_to(rows, 1)


def test_it_works_inside_other_transforms():
    exported = through_bytes(liftnn.export(liftnn.jit(Affine.loss))(Affine(2.0), X))
    model, reference = Affine(2.0), Affine(2.0)
    assert float(liftnn.jit(exported.call)(model, X)) == float(reference.loss(X))
    assert_same(model, reference)


def test_it_can_be_differentiated_if_asked_for():
    pytest.importorskip("flatbuffers")
    exported = liftnn.export(liftnn.jit(Affine.loss))(Affine(2.0), X)
    read = liftnn.deserialize(exported.serialize(vjp_order=1))
    expected = liftnn.grad(Affine.loss)(Affine(2.0), X)
    for each in (exported, read):
        assert liftnn.grad(each.call)(Affine(2.0), X)["w"].value.tolist() == expected["w"].value.tolist()


def test_what_an_exported_call_has_written_can_be_exported_with_derivatives():
    pytest.importorskip("flatbuffers")
    model = Affine(2.0)
    export = liftnn.export(liftnn.jit(Affine.loss))
    export(model, X).call(model, X)
    read = liftnn.deserialize(export(model, X).serialize(vjp_order=1))
    expected = liftnn.grad(Affine.loss)(Affine(2.0), X)
    assert liftnn.grad(read.call)(model, X)["w"].value.tolist() == expected["w"].value.tolist()


def test_a_failed_call_changes_nothing():
    model = Affine(2.0)
    exported = liftnn.export(liftnn.jit(step))(model, X)
    with pytest.raises(errors.ArgumentError, match=r"float32\[4\], exported for float32\[3\]"):
        exported.call(model, jnp.ones(4))
    assert_same(model, Affine(2.0))


def scaled(k):
    """A closure over a number."""
    return lambda x: x * k


def apply(holder, x):
    return holder.f(x)


def test_closures_are_compared_by_what_they_hold():
    exported = through_bytes(liftnn.export(liftnn.jit(apply))(Holder(f=scaled(2.0)), X))
    assert exported.call(Holder(f=scaled(2.0)), X).tolist() == (2 * X).tolist()
    with raises(
        errors.StructureError,
        "This program was exported for arguments of another structure:\n"
        "args[0].f: <function scaled.<locals>.<lambda>> -> <function scaled.<locals>.<lambda>> with "
        "different content\n" + NEW,
    ):
        exported.call(Holder(f=scaled(3.0)), X)


def not_filled():
    def f(x):
        return later(x) if x is None else 2 * x

    if f is None:
        later = f
    return f


def test_a_function_whose_closure_is_not_filled_yet_is_exported():
    exported = through_bytes(liftnn.export(liftnn.jit(apply))(Holder(f=not_filled()), X))
    assert exported.call(Holder(f=not_filled()), X).tolist() == (2 * X).tolist()


def test_what_it_declares_for_type_checkers_is_there():
    exported = liftnn.export(liftnn.jit(lambda x: 2 * x))(X)
    assert [name for name in liftnn.Exported.__annotations__ if not hasattr(exported, name)] == []


def test_a_closure_that_a_module_holds_is_exported_by_name():
    def build(w):
        model, other = Affine(w), Affine(3.0)
        model.act = lambda x: other(x) * model.w
        return model

    model = build(2.0)
    exported = through_bytes(liftnn.export(liftnn.jit(lambda m, x: m.act(x)))(model, X))
    for w in (2.0, 5.0):
        assert_same(exported.call(build(w), X), build(w).act(X))


@pytest.mark.parametrize(
    "transform", [liftnn.jit, functools.partial(liftnn.jit, donate_argnums=[]), liftnn.remat]
)
@pytest.mark.parametrize("carry", list(CARRIES.values())[:2], ids=list(CARRIES)[:2])
def test_a_transformed_method_that_a_module_holds_is_the_method_of_the_module(carry, transform):
    def build(w):
        model = Affine(w)
        model.act = transform(model.__call__)
        return model

    exported = carry(liftnn.export(liftnn.jit(lambda m, x: m.act(x)))(build(2.0), X))
    for w in (2.0, 5.0):
        assert_same(exported.call(build(w), X), Affine(w)(X))
    other = Affine(2.0)
    other.act = liftnn.jit(other.__call__, inline=True)
    with pytest.raises(errors.StructureError, match=r"args\[0\]\.act: "):
        exported.call(other, X)


def test_a_closure_made_inside_cannot_be_written():
    exported = liftnn.export(liftnn.jit(lambda m, x: lambda: m.w * x))(Affine(2.0), X)
    assert_same(exported.call(Affine(2.0), X)(), 2.0 * X)
    with pytest.raises(
        liftnn.errors.StructureError, match="the static part of what the function returns or changes"
    ):
        exported.serialize()


class Compiled(liftnn.Module):
    """A module with a method that is compiled in its class."""

    def __init__(self):
        self.w = liftnn.Param(jnp.ones(()))

    @liftnn.jit
    def double(self, x):
        self.w.value = self.w + x.sum()
        return 2 * x


def test_a_method_that_is_compiled_in_its_class_is_exported_with_its_module_as_argument_0():
    module, other = Compiled(), Compiled()
    exported = liftnn.export(module.double)(X)
    np.testing.assert_array_equal(exported.call(module, X), other.double(X))
    assert_same(module, other)


@pytest.mark.parametrize("carry", CARRIES.values(), ids=CARRIES)
def test_a_static_argument_may_be_passed_by_name_with_the_value_that_was_exported_only(carry):
    exported = carry(liftnn.export(liftnn.jit(lambda x, n=2: x * n, static_argnames="n"))(X, n=3))
    np.testing.assert_array_equal(exported.call(X, n=3), 3 * X)
    for n, text in ((4, "4"), (3.0, "3.0")):
        text = (
            f"The argument 'n' is static: the function was exported with n=3, and the call has n={text}.\n"
            "Leave 'n' out, or export the function again with the other value."
        )
        with raises(errors.ArgumentError, text):
            exported.call(X, n=n)
