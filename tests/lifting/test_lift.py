"""The contract of `lift`: a transform of JAX's in a few lines acts on modules like the plain call."""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors
from tests.raising import raises
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder, Pair, step


def remat(f):
    return liftnn.lift(f, bind=lambda plan, pure: jax.checkpoint(pure))


def linearized(f):
    """Output and tangent map with respect to all values, as `jax.linearize`."""

    def bind(plan, pure):
        def call(leaves):
            n = len(plan.variables)

            def out_of(values):
                result = pure([*values, *leaves[n:]])
                return result.output, result

            out, tangent, result = jax.linearize(out_of, leaves[:n], has_aux=True)
            return result._replace(leaves=[*out, *result.leaves[len(out) :]], extra=tangent)

        return call

    return liftnn.lift(f, bind=bind, finish=lambda out, tangent: (out, tangent))


def traced(f):
    """Output and jaxpr."""

    def bind(plan, pure):
        def call(leaves):
            return pure(leaves)._replace(extra=jax.make_jaxpr(pure)(leaves))

        return call

    return liftnn.lift(f, bind=bind, finish=lambda out, jaxpr: (out, jaxpr))


def averaged(*functions):
    """The mean of the outputs of several functions; what each does to the modules starts from the same state."""

    def bind(plan, *pures):
        def call(leaves):
            first, *others = (pure(leaves) for pure in pures)
            outputs = [r.output for r in (first, *others)]
            mean = [sum(xs) / len(xs) for xs in zip(*outputs, strict=True)]
            return first._replace(leaves=[*mean, *first.leaves[len(mean) :]])

        return call

    return liftnn.lift(*functions, bind=bind)


def test_a_third_partys_transform_acts_like_the_plain_call():
    model, reference = Pair(), Pair()
    for x in (1.0, 2.0):
        assert_same(remat(step)(model, x), step(reference, x))
    assert_same(model, reference)


def test_it_nests_with_ours():
    x = jnp.array([1.0, -1.0, 2.0])

    def loss(model, x):
        return (remat(step)(model, x) ** 2).sum()

    model, reference = Pair(), Pair()
    grads = liftnn.jit(liftnn.grad(loss))(model, x)
    expected = liftnn.grad(lambda m, x: (m(x) ** 2).sum())(reference, x)
    assert_same(grads, expected)
    assert_same(model, reference)


def test_what_the_transform_makes_reaches_finish():
    model = Affine(2.0)
    out, tangent = linearized(step)(model, jnp.ones(3))
    assert out.tolist() == [2.0] * 3
    assert int(model.calls.value) == 1
    ones = [jnp.ones(3), jnp.zeros(3), np.zeros((), jax.dtypes.float0)]
    assert tangent(ones)[0].tolist() == [1.0] * 3
    assert not has_tracer(model)


def test_the_pure_call_is_one_that_jax_can_trace():
    out, jaxpr = traced(lambda m, x: m.w * x)(Affine(2.0), jnp.float32(3.0))
    assert out.tolist() == [6.0] * 3
    assert [str(v.aval) for v in jaxpr.jaxpr.invars] == ["float32[3]", "float32[3]", "int32[]", "float32[]"]


def test_several_functions_get_the_same_arguments():
    model = Affine(2.0)
    call = averaged(lambda m, x: m(x), lambda m, x: m(x) * 3)
    assert call(model, 1.0).tolist() == [4.0] * 3
    assert int(model.calls.value) == 1


def test_bind_is_called_once_for_each_structure():
    plans = []

    def bind(plan, pure):
        plans.append(plan)
        return pure

    call = liftnn.lift(step, bind=bind)
    for _ in range(3):
        call(Affine(), 1.0)
    other = Affine()
    other.mode = "eval"
    call(other, 1.0)
    call(Affine(size=5), jnp.ones(5))  # shapes are no structure
    assert len(plans) == 2


def test_a_plan_tells_types_paths_and_slots():
    seen = []

    def bind(plan, pure):
        seen.append(plan)
        return pure

    module = Holder(layers=[Affine(), {"x": jnp.ones(2)}], stat=liftnn.BatchStat(jnp.zeros(1)))
    liftnn.lift(lambda m, x, *, k: x, bind=bind)(module, jnp.ones(3), k=2.0)
    (plan,) = seen
    classes = [liftnn.Param, liftnn.Param, liftnn.Variable, liftnn.BatchStat]
    assert plan.types == [*classes, *[jax.Array] * 3]
    variables = ["args[0].layers[0].w", "args[0].layers[0].b", "args[0].layers[0].calls", "args[0].stat"]
    assert [plan.path_of(n) for n in plan.variables] == variables
    arrays = ["args[1]", "kwargs['k']", "args[0].layers[1].x"]
    assert [plan.name(slot) for slot in plan.slots] == [*variables, *arrays]
    assert plan.typed_name(plan.slots[3]) == "args[0].stat (a BatchStat)"
    positional, named = plan.arguments
    assert [a.name for a in positional] == ["args[0]", "args[1]"]
    assert list(named) == ["k"]
    assert plan.slots_of(positional[0].leaves) == [*plan.slots[:4], plan.slots[6]]


def test_a_plan_holds_no_object_of_the_caller():
    seen = []
    model = Holder(w=liftnn.Param(jnp.ones(2)), note=[1, 2])
    liftnn.lift(lambda m: m.w, bind=lambda plan, pure: seen.append(plan) or pure)(model)
    referred = {id(x) for spec in seen[0].graph.specs for x in (spec.extra, *spec.edges)}
    assert not referred & {id(model), id(model.w), id(model.note)}


def test_static_leaves_are_part_of_the_structure():
    call = remat(lambda name, x: x * len(name))
    assert [float(call("abc", 2.0)), float(call("abcd", 2.0))] == [6.0, 8.0]


def test_static_leaves_can_be_refused():
    def strict(f):
        return liftnn.lift(f, bind=lambda plan, pure: pure, static_leaves=False)

    with raises(
        errors.ArgumentTypeError,
        "args[0].name of liftnn.strict is a str, not an array or a module: 'abc'.\n"
        "Pass the value through `static_argnums` or `static_argnames`, or store it as an attribute of a module.",
    ):
        strict(lambda d: d["x"])({"x": 1.0, "name": "abc"})


def test_the_transform_is_called_by_the_name_it_was_given():
    named = liftnn.lift(step, bind=lambda plan, pure: pure, name="mine")
    assert repr(named) == "<liftnn.mine of step>"
    assert repr(remat(step)) == "<liftnn.remat of step>"
    assert repr((lambda f: liftnn.lift(f, bind=lambda plan, pure: pure))(step)) == "<liftnn.lift of step>"


def test_the_function_can_be_looked_up():
    made = remat(step)
    assert made.__wrapped__ is step
    assert inspect.signature(made) == inspect.signature(step)
    assert made.__doc__ == step.__doc__


def test_bound_methods_instances_and_partials_are_lifted():
    model = Affine(2.0)
    for call in (remat(model), remat(model.__call__), remat(functools.partial(Affine.__call__, model))):
        assert call(3.0).tolist() == [6.0] * 3
    assert int(model.calls.value) == 3


def test_a_lifted_function_is_a_method_of_a_class():
    class Own(Affine):
        @remat
        def __call__(self, x):
            return super().__call__(x)

    model = Own(2.0)
    assert model(3.0).tolist() == [6.0] * 3
    assert int(model.calls.value) == 1


def change(model, x):
    model.w.value, model.mode = model.w * x, "eval"
    model.layers = [Affine()]
    return x


def binding(before=False, after=False):
    def bind(plan, pure):
        if before:
            raise KeyError("half way")

        def call(leaves):
            result = pure(leaves)
            if after:
                raise KeyError("half way")
            return result

        return call

    return bind


def fails(model, x):
    change(model, x)
    raise KeyError("half way")


@pytest.mark.parametrize(
    "function, bind",
    [(fails, binding()), (change, binding(before=True)), (change, binding(after=True))],
    ids=["function", "bind", "call"],
)
def test_whatever_raises_nothing_is_changed(function, bind):
    model = Affine()
    call = liftnn.lift(function, bind=bind)
    for _ in range(2):
        with pytest.raises(KeyError, match="half way"):
            call(model, 2.0)
        assert_same(model, Affine())


def test_a_call_works_after_one_that_failed():
    failed = []

    def f(model, x):
        if not failed:
            failed.append(True)
            raise KeyError("half way")
        return change(model, x)

    model, reference = Affine(), Affine()
    call = remat(f)
    with pytest.raises(KeyError, match="half way"):
        call(model, 2.0)
    x = jnp.float32(2.0)
    assert_same(call(model, x), change(reference, x))
    assert_same(model, reference)


def test_no_function_is_an_error():
    with raises(
        errors.ArgumentError,
        "liftnn.mine needs a function.\nPass a callable.",
    ):
        liftnn.lift(bind=lambda plan: None, name="mine")


@pytest.mark.parametrize("transform", ["jit", "grad", "value_and_grad", "vmap"])
@pytest.mark.parametrize(
    "function, text",
    [
        (3, "liftnn.{} needs a function, not an int.\nPass a callable."),
        (None, "liftnn.{} needs a function, not a NoneType.\nPass a callable."),
        (
            classmethod(step),
            "liftnn.{} needs a function, not a classmethod.\nPut @classmethod above the transform.",
        ),
    ],
    ids=["number", "None", "classmethod"],
)
def test_what_cannot_be_called_is_refused(transform, function, text):
    with raises(errors.ArgumentTypeError, text.format(transform)):
        getattr(liftnn, transform)(function)
