"""The stages of `jit` ahead of time: what they tell, and that a compiled stage acts like the function."""

from __future__ import annotations

import gc
import weakref

import jax
import jax.export
import jax.numpy as jnp
import pytest
from jax.experimental import serialize_executable

import liftnn
from liftnn import errors
from tests.raising import raises
from tests.same import assert_same
from tests.user_modules import Affine, Holder, step


@pytest.fixture(scope="module")
def jitted():
    return liftnn.jit(step)


@pytest.fixture(scope="module")
def stages(jitted):
    traced = jitted.trace(Affine(2.0), 2.0)
    lowered = traced.lower()
    return traced, lowered, lowered.compile()


def plain_step(w, b, calls, x):
    return (x * w + b) * 1 * 1.0, calls + 1


@pytest.fixture(scope="module")
def of_jax():
    model = Affine(2.0)
    traced = jax.jit(plain_step).trace(model.w.value, model.b.value, model.calls.value, 2.0)
    lowered = traced.lower()
    return traced, lowered, lowered.compile()


def test_tracing_calls_the_function_once_and_changes_no_module():
    call, model = liftnn.jit(step), Affine(2.0)
    call.trace(model, 2.0).lower().compile()
    assert call.n_traces == 1
    assert_same(model, Affine(2.0))


def test_a_call_after_tracing_does_not_trace_again():
    call, model = liftnn.jit(step), Affine(2.0)
    call.lower(model, 2.0)
    call(model, 3.0)
    assert call.n_traces == 1


@pytest.mark.parametrize("number", range(3), ids=["traced", "lowered", "compiled"])
def test_out_info_is_the_output_with_shapes(number, stages, of_jax):
    ours, theirs = stages[number].out_info, of_jax[number].out_info[0]
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)


def test_out_info_of_a_module_is_a_new_module_with_shapes():
    model = Affine()
    out, again = liftnn.jit(lambda m: (m, m)).trace(model).out_info
    assert out is again
    assert out is not model
    assert [x.value.shape for x in (out.w, out.b, out.calls)] == [(3,), (3,), ()]
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(liftnn.state(out)))


@pytest.mark.parametrize("name", ["as_text", "cost_analysis", "compiler_ir"])
def test_a_lowered_stage_answers_what_jax_answers(name, stages, of_jax):
    ours, theirs = (getattr(s[1], name)() for s in (stages, of_jax))
    assert type(ours) is type(theirs)


def test_the_cost_is_that_of_the_same_program_in_jax(stages, of_jax):
    for number in (1, 2):
        ours, theirs = (s[number].cost_analysis() for s in (stages, of_jax))
        assert ours["flops"] == theirs["flops"]
        assert ours["bytes accessed"] <= theirs["bytes accessed"]


def test_the_memory_is_that_of_the_same_program_in_jax(stages, of_jax):
    ours, theirs = (s[2].memory_analysis() for s in (stages, of_jax))
    assert ours.argument_size_in_bytes == theirs.argument_size_in_bytes
    assert ours.temp_size_in_bytes == theirs.temp_size_in_bytes
    assert ours.output_size_in_bytes <= theirs.output_size_in_bytes


def test_a_compiled_stage_prints_its_program(stages):
    assert "HloModule jit_step" in stages[2].as_text()


def test_stages_print_what_they_are(stages):
    assert [repr(s) for s in stages] == [
        "<liftnn Traced of step>",
        "<liftnn Lowered of step>",
        "<liftnn Compiled of step>",
    ]


def test_the_jaxpr_of_a_traced_stage_is_that_of_the_function(stages, of_jax):
    ours, theirs = (s[0].jaxpr for s in (stages, of_jax))
    assert [e.primitive for e in ours.eqns if e.primitive.name != "add"] == [
        e.primitive for e in theirs.eqns if e.primitive.name != "add"
    ]
    assert len(ours.eqns) == len(theirs.eqns)


def test_options_of_the_stages_are_jaxs():
    call = liftnn.jit(step)
    traced = call.trace(Affine(), 1.0)
    compiled = traced.lower(lowering_platforms=("cpu",)).compile(
        compiler_options={"xla_cpu_enable_fast_math": False}
    )
    assert compiled(Affine(2.0), 3.0).tolist() == [6.0] * 3
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        traced.lower().compile(compiler_options={"nope": True})


def test_a_compiled_stage_updates_the_module_like_a_call(stages):
    model, reference = Affine(4.0), Affine(4.0)
    for x in (2.0, 3.0):
        assert_same(stages[2](model, x), step(reference, jnp.float32(x)))
    assert_same(model, reference)


def test_a_compiled_stage_changes_structure_like_a_call():
    def grow(model, x):
        model.extra = Holder(w=liftnn.Param(model.w * x))
        del model.b
        model.mode = "eval"
        return model, model.extra

    model, reference = Affine(4.0), Affine(4.0)
    compiled = liftnn.jit(grow).lower(model, 2.0).compile()
    out, extra = compiled(model, 3.0)
    grow(reference, jnp.float32(3.0))
    assert_same(model, reference)
    assert out is model
    assert extra is model.extra


@pytest.mark.parametrize("number", range(3), ids=["traced", "lowered", "compiled"])
def test_a_stage_keeps_neither_module_nor_arrays_alive(number, jitted):
    model = Affine(2.0)
    model.tree = liftnn.Variable({"a": jnp.ones(2)})
    traced = jitted.trace(model, 2.0)
    lowered = traced.lower()
    stage = (traced, lowered, lowered.compile())[number]
    del traced, lowered
    alive = [weakref.ref(x) for x in (model, model.w.value, model.tree.value["a"])]
    del model
    gc.collect()
    assert [x() for x in alive] == [None] * 3
    assert stage.out_info.shape == (3,)


@pytest.mark.parametrize("options", [{}, {"donate_written": True}], ids=str)
def test_a_compiled_stage_outlives_the_cache_of_its_function(options):
    call, model, reference = liftnn.jit(step, **options), Affine(4.0), Affine(4.0)
    compiled = call.lower(model, 2.0).compile()
    call.clear_cache()
    assert_same(compiled(model, 3.0), step(reference, jnp.float32(3.0)))
    assert_same(model, reference)


def test_an_abstract_module_can_be_compiled_for():
    abstract = liftnn.eval_shape(lambda: Affine())
    compiled = liftnn.jit(step).lower(abstract, jax.ShapeDtypeStruct((), jnp.float32)).compile()
    model = Affine(2.0)
    assert compiled(model, jnp.float32(3.0)).tolist() == [6.0] * 3
    assert int(model.calls.value) == 1


STATIC = {
    "first": (lambda k, m, x: m(x) * k, {"static_argnums": 0}, lambda m, x: (2, m, x)),
    "in the middle": (lambda m, k, x: m(x) * k, {"static_argnums": 1}, lambda m, x: (m, 2, x)),
    "last": (lambda m, x, k: m(x) * k, {"static_argnums": 2}, lambda m, x: (m, x, 2)),
    "several": (lambda a, m, b, x: m(x) * a * b, {"static_argnums": (0, 2)}, lambda m, x: (1, m, 2, x)),
    "default": (lambda m, x, k=2: m(x) * k, {"static_argnums": 2}, lambda m, x: (m, x)),
}


@pytest.mark.parametrize("name", STATIC)
def test_a_compiled_stage_is_called_without_static_arguments(name):
    function, options, arguments = STATIC[name]
    model = Affine(3.0)
    compiled = liftnn.jit(function, **options).lower(*arguments(model, 1.0)).compile()
    assert compiled(model, 2.0).tolist() == [12.0] * 3
    assert int(model.calls.value) == 1


def test_a_static_keyword_is_left_out_too():
    model = Affine(3.0)
    compiled = liftnn.jit(lambda m, x, *, k: m(x) * k, static_argnames="k").lower(model, 1.0, k=2).compile()
    assert compiled(model, 2.0).tolist() == [12.0] * 3
    by_name = liftnn.jit(lambda k, m, x: m(x) * k, static_argnames="k").lower(k=2, m=model, x=1.0).compile()
    assert by_name(m=model, x=2.0).tolist() == [12.0] * 3


def test_stages_of_bound_methods_and_instances():
    model = Affine(2.0)
    assert float(liftnn.jit(model.loss).lower(1.0).compile()(1.0)) == 12.0
    assert liftnn.jit(model).trace(1.0).lower().compile()(3.0).tolist() == [6.0] * 3
    assert int(model.calls.value) == 2


def test_eval_shape_is_that_of_jax_jit_and_changes_nothing(jitted):
    model = Affine()
    shape = jitted.eval_shape(model, jnp.ones((2, 3)))
    assert shape == jax.jit(plain_step).eval_shape(model.w.value, model.b.value, 0, jnp.ones((2, 3)))[0]
    assert_same(model, Affine())


def test_another_structure_is_an_error_that_lists_the_differences(stages):
    model = Affine()
    model.mode, model.extra, model.again = "eval", liftnn.Param(jnp.ones(1)), model.w
    del model.calls
    with raises(
        errors.StructureError,
        "This program was compiled for arguments of another structure:\n"
        "args[0].mode: 'train' -> 'eval'\n"
        "args[0].calls: removed, was Variable\n"
        "args[0].again: added, the same object as args[0].w\n"
        "args[0].extra: added, Param\n"
        "Lower and compile again for the new structure, or call the jitted function itself.",
    ):
        stages[2](model, 2.0)


def test_another_order_of_attributes_is_an_error_that_shows_it():
    compiled = liftnn.jit(lambda m: m.x).lower(Holder(x=1, y=2)).compile()
    with raises(
        errors.StructureError,
        "This program was compiled for arguments of another structure:\n"
        "args[0]: the order x, y -> y, x\n"
        "Lower and compile again for the new structure, or call the jitted function itself.",
    ):
        compiled(Holder(y=2, x=1))


def test_other_metadata_are_an_error_that_shows_them():
    model = Affine()
    compiled = liftnn.jit(lambda m: m.w).lower(model).compile()
    model.w.set_metadata(axis="rows", frozen=True)
    with raises(
        errors.StructureError,
        "This program was compiled for arguments of another structure:\n"
        "args[0].w.axis: added, 'rows'\n"
        "args[0].w.frozen: added, True\n"
        "Lower and compile again for the new structure, or call the jitted function itself.",
    ):
        compiled(model)


def test_functions_that_do_the_same_are_no_difference():
    def build():
        return Holder(f=lambda x: x * 2, mode="train")

    compiled = liftnn.jit(lambda m: m.f(1.0)).lower(build()).compile()
    other = build()
    other.mode = "eval"
    with raises(
        errors.StructureError,
        "This program was compiled for arguments of another structure:\n"
        "args[0].mode: 'train' -> 'eval'\n"
        "Lower and compile again for the new structure, or call the jitted function itself.",
    ):
        compiled(other)


def test_a_missing_argument_is_an_error_that_names_it(stages):
    with raises(
        errors.StructureError,
        "This program was compiled for arguments of another structure:\n"
        "args[1]: removed, was an array\n"
        "Lower and compile again for the new structure, or call the jitted function itself.",
    ):
        stages[2](Affine())


def test_another_static_argument_is_an_error_that_names_it():
    model = Affine()
    compiled = liftnn.jit(lambda m, k: m.w * k, static_argnums=1).lower(model, 2).compile()
    with raises(
        errors.StructureError,
        "This program was compiled for arguments of another structure:\n"
        "args[1]: 2 -> 3\n"
        "Lower and compile again for the new structure, or call the jitted function itself.",
    ):
        compiled(model, 3)


def test_another_container_is_an_error_that_shows_it():
    compiled = liftnn.jit(lambda model, x: x[0] * model.w).lower(Affine(), [1.0]).compile()
    with raises(
        errors.StructureError,
        "This program was compiled for arguments of another structure:\n"
        "args[1]: [*] -> (*,)\n"
        "Lower and compile again for the new structure, or call the jitted function itself.",
    ):
        compiled(Affine(), (1.0,))


def test_another_shape_is_an_error_that_names_the_path(stages):
    model = Affine(size=5)
    with pytest.raises(TypeError) as caught:
        stages[2](model, 2.0)
    assert "Argument 'args[0].w' compiled with float32[3] and called with float32[5]" in str(caught.value)
    assert_same(model, Affine(size=5))


def test_the_error_of_a_python_branch_names_the_path_and_the_function(jitted):
    def branch(model, x):
        return x if model.layers[0].w[0] > 0 else -x

    model = Holder(layers=[Affine()])
    call = liftnn.jit(branch)
    for attempt in (call, call.trace, call.lower):
        with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
            attempt(model, 1.0)
        text = str(caught.value)
        assert "depends on the value of the argument args[0].layers[0].w." in text
        assert f"while tracing the function branch at {__file__}:" in text


def test_the_error_of_a_nested_jit_names_its_own_argument():
    inner = liftnn.jit(lambda model, x: x if x > 0 else model(x))
    with pytest.raises(jax.errors.TracerBoolConversionError, match=r"the argument args\[1\]\."):
        liftnn.grad(lambda holder, x: inner(holder.inner, x))(Holder(inner=Affine()), 1.0)


def test_the_text_of_the_functions_own_error_is_left_alone():
    def fails(model):
        raise ValueError("see values[7], arrays[0] and kept[0][1]")

    for options in ({}, {"donate_argnums": 0}):
        with pytest.raises(ValueError, match=r"^see values\[7\], arrays\[0\] and kept\[0\]\[1\]"):
            liftnn.jit(fails, **options)(Affine())


def test_what_a_stage_declares_for_type_checkers_is_what_jaxs_stage_has(stages, of_jax):
    for ours, theirs in zip(stages, of_jax, strict=True):
        declared = {name for cls in type(ours).__mro__ for name in vars(cls).get("__annotations__", {})}
        public = {name for name in dir(type(theirs)) if not name.startswith("_")}
        undocumented = {"call", "lojax", "effects", "closure_convert", "physicalize", "with_consts_as_arg"}
        assert public - declared - {*dir(type(ours))} <= undocumented
        assert [name for name in declared if not hasattr(ours, name)] == []


def test_jax_exports_and_serializes_a_program_without_modules():
    double = liftnn.jit(lambda x: 2 * x)
    exported = jax.export.export(double)(jax.ShapeDtypeStruct((3,), jnp.float32))
    assert exported.call(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]
    compiled = double.lower(jnp.ones(3)).compile()
    serialized = serialize_executable.serialize(compiled)
    loaded = serialize_executable.deserialize_and_load(*serialized, execution_devices=jax.devices()[:1])
    assert loaded(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_jax_does_not_export_or_serialize_a_program_with_modules():
    model = Affine(2.0)
    text = (
        "JAX cannot export or serialize a program that liftnn.jit compiled for modules.\n"
        "Use `liftnn.export(liftnn.jit(f))`, whose result is called with modules, and has `serialize()`."
    )
    with raises(errors.ArgumentTypeError, text):
        jax.export.export(liftnn.jit(lambda x: x * model.w))(jax.ShapeDtypeStruct((3,), jnp.float32))
    with raises(errors.AttributeNameError, text):
        serialize_executable.serialize(liftnn.jit(step).lower(model, 1.0).compile())


@pytest.mark.parametrize("f", [jax.make_jaxpr, jax.jit, lambda f: lambda x: jax.eval_shape(f, x)])
def test_other_functions_of_jax_see_what_a_compiled_function_captures(f):
    model = Affine(2.0)
    of_modules = f(liftnn.jit(lambda x: x * model.w))(3.0)
    of_arrays = f(jax.jit(lambda x: x * model.w.value))(3.0)
    assert jax.tree.structure(of_modules) == jax.tree.structure(of_arrays)
