"""What `vmap` refuses, by path; the function's own errors come out as they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from tests.raising import raises
from tests.same import assert_same
from tests.user_modules import Affine, Holder

import liftnn
from liftnn import errors

LANES = jnp.arange(2.0)
PREFIX = (
    "{} is not a tree prefix of {}: {}.\nGive one entry for the whole tree, or one for each subtree. A module counts "
    "as one leaf; use StateAxes (or StateSharding) to give its Variables different entries."
)
SHARED = (
    "Map the Variable as well (an axis in `in_axes`, or `StateAxes`), reduce the value over the axis "
    "before writing it (for example with `jax.lax.pmean` and an `axis_name`), or specify in "
    "`reduce_writes` how to reduce it."
)
SIZE = "Pass arrays of the same size, or use None in `in_axes` for those that all batch elements share."
AXIS = "Use another axis for it in `in_axes`, or None to share it between the batch elements."


def mapped(n=2):
    return liftnn.vmap(Affine)(jnp.arange(1.0, n + 1))


def write(model, x):
    model.b.value = model.b * 2
    model.layers[0].w.value = model.w * x


def attach(model, x):
    model.layers[0].new = Holder(v=liftnn.Param(x))


def attach_array(model, x):
    model.layers.append(x)


WROTE = "{} is shared by all batch elements of this vmap, but they write different values to it."
PUT = "{} was attached to a module that all batch elements of this vmap share, but its value differs between them."
WRITES = {
    "a value": (write, WROTE.format("args[0].layers[0].w (a Param)")),
    "a new variable": (attach, PUT.format("args[0].layers[0].new.v (a Param)")),
    "an array leaf": (attach_array, PUT.format("args[0].layers[1]")),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("outer", [lambda f: f, liftnn.jit], ids=["plain", "jit"])
def test_a_value_that_differs_between_elements_cannot_be_shared(outer, name):
    change, text = WRITES[name]
    model = Affine()
    model.layers = [Affine()]
    before = liftnn.clone(model)
    with raises(errors.SharedWriteError, f"{text}\n{SHARED}"):
        outer(liftnn.vmap(change, in_axes=(None, 0)))(model, LANES)
    assert_same(model, before)


def test_the_one_wrong_write_among_many_is_named():
    model = Holder(layers=[Affine() for _ in range(9)])

    def f(model, x):
        for i, layer in enumerate(model.layers):
            layer.w.value = layer.w * (x if i == 6 else 2)

    with raises(
        errors.SharedWriteError,
        f"{WROTE.format('args[0].layers[6].w (a Param)')}\n{SHARED}",
    ):
        liftnn.vmap(f, in_axes=(None, 0))(model, LANES)


def test_batch_norm_cannot_be_shared_without_an_axis_name():
    layer = liftnn.BatchNorm(2, rngs=liftnn.Rngs(0))
    with raises(
        errors.SharedWriteError,
        f"{WROTE.format('args[0].mean (a BatchStat)')}\n{SHARED}",
    ):
        liftnn.vmap(lambda m, x: m(x), in_axes=(None, 0))(layer, jnp.arange(12.0).reshape(3, 2, 2))


OUTPUTS = {
    "all": (lambda x: x, None, "the output"),
    "a part": (lambda x: {"a": 1.0, "b": [x]}, {"a": 0, "b": None}, "the output.b[0]"),
    "a new variable": (lambda x: (0.0, Holder(v=liftnn.Param(x))), (0, None), "the output[1].v (a Param)"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_differs_between_elements_needs_an_axis(name):
    function, out_axes, path = OUTPUTS[name]
    with raises(
        errors.ArgumentError,
        f"`out_axes` is None for {path}, but its value differs between the batch elements.\n"
        "Use an axis in `out_axes`, or reduce the value over the batch elements (for example with `jax.lax.pmean` "
        "and an `axis_name`).",
    ):
        liftnn.vmap(lambda model, x: function(x), in_axes=(None, 0), out_axes=out_axes)(Affine(), LANES)


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, errors.StructureError])
def test_the_functions_own_error_is_left_alone(error):
    def fails(model, x):
        raise error("my own")

    with pytest.raises(error) as caught:
        liftnn.vmap(fails, in_axes=(None, 0))(Affine(), LANES)
    assert type(caught.value) is error
    assert "my own" in str(caught.value)


def test_a_shape_error_of_jax_in_the_function_is_left_alone():
    def f(model, x):
        return model.w @ jnp.ones(7)

    texts = []
    for call in (lambda: f(Affine(), 0.0), lambda: liftnn.vmap(f, in_axes=(None, 0))(Affine(), LANES)):
        with pytest.raises(TypeError) as caught:
            call()
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


SIZES = {
    "two arrays": ({}, lambda: (LANES, jnp.ones(3)), "  2: axis 0 of args[0]\n  3: axis 0 of args[1]"),
    "module and array": (
        {},
        lambda: (mapped(3), LANES),
        "  3: axis 0 of args[0].w (a Param)\n  2: axis 0 of args[1]",
    ),
    "axis_size": ({"axis_size": 5}, lambda: (LANES, LANES), "  5: axis_size\n  2: axis 0 of args[0]"),
    "two axes": (
        {"in_axes": (0, -1)},
        lambda: (LANES, jnp.ones((2, 4))),
        "  2: axis 0 of args[0]\n  4: axis -1 of args[1]",
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_mapped_axes_of_different_sizes_are_listed(name):
    options, build, lines = SIZES[name]
    with raises(
        errors.ArgumentError,
        f"The arguments of vmap have different sizes along their mapped axes:\n{lines}\n{SIZE}",
    ):
        liftnn.vmap(lambda a, b: b, **options)(*build())


RANKS = {
    "a variable": (5, mapped, "args[0].w (a Param) cannot be mapped over axis 5: its shape is (2, 3)."),
    "a scalar variable": (
        0,
        lambda: Holder(layers=[Affine(), {"n": liftnn.Variable(1.0)}], first=jnp.ones((3, 2))),
        "args[0].layers[0].calls (a Variable) cannot be mapped over axis 0: its shape is ().",
    ),
    "an array leaf": (
        1,
        lambda: Holder(x=jnp.ones(3)),
        "args[0].x cannot be mapped over axis 1: its shape is (3,).",
    ),
    "a number": (0, lambda: 2.0, "args[0] cannot be mapped over axis 0: its shape is ()."),
    "a negative axis": (
        -3,
        lambda: jnp.ones((2, 2)),
        "args[0] cannot be mapped over axis -3: its shape is (2, 2).",
    ),
}


@pytest.mark.parametrize("name", RANKS)
def test_an_axis_that_an_argument_does_not_have_is_named(name):
    axis, build, text = RANKS[name]
    with raises(errors.ArgumentError, f"{text}\n{AXIS}"):
        liftnn.vmap(lambda x: 0.0, in_axes=(axis,), axis_size=3)(build())


def test_an_output_without_room_for_the_axis_is_named():
    with raises(
        errors.ArgumentError,
        "Cannot stack the output.a along axis 2: its shape in each batch element is (3,).\n"
        "Use an axis from -2 to 1 in `out_axes` or, for a part of an argument, in `in_axes`.",
    ):
        liftnn.vmap(lambda model, x: {"a": x * jnp.ones(3)}, in_axes=(None, 0), out_axes=2)(Affine(), LANES)


def test_a_variable_without_room_for_its_axis_is_named():
    def shrink(v):
        v.value = v.sum()

    with raises(
        errors.ArgumentError,
        "Cannot stack args[0] (a Param) along axis 1: its shape in each batch element is ().\n"
        "Use an axis from -1 to 0 in `out_axes` or, for a part of an argument, in `in_axes`.",
    ):
        liftnn.vmap(shrink, in_axes=1)(liftnn.Param(jnp.ones((3, 2))))


@pytest.mark.parametrize("axes", ["a", 0.5, True, (0, "a"), ({"x": 1.5},)])
@pytest.mark.parametrize("option", ["in_axes", "out_axes"])
def test_what_is_no_axis_is_refused(option, axes):
    wrong = next(a for a in jax.tree.leaves(axes) if type(a) is not int)
    with raises(
        errors.ArgumentTypeError,
        f"`{option}` contains {wrong!r}, which is not an axis.\n"
        "An axis is an int or None (not mapped), for a module also liftnn.StateAxes, and in a scan also "
        "liftnn.Carry.",
    ):
        liftnn.vmap(lambda x: x, **{option: axes})


def test_an_axis_in_state_axes_that_is_none_is_refused():
    with raises(
        errors.ArgumentTypeError,
        "`in_axes` contains 'a', which is not an axis.\n"
        "An axis is an int or None (not mapped), for a module also liftnn.StateAxes, and in a scan also "
        "liftnn.Carry.",
    ):
        liftnn.vmap(lambda x: x, in_axes=(liftnn.StateAxes({...: "a"}),))


PREFIXES = {
    "too few": ({"in_axes": (0,)}, ("(0,)", "the positional arguments", "(*, *)")),
    "into a module": ({"in_axes": ({"w": 0}, 0)}, ("({'w': 0}, 0)", "the positional arguments", "(*, *)")),
    "output": ({"out_axes": {"y": 0}, "in_axes": (None, 0)}, ("{'y': 0}", "the output", "*")),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_axes_that_do_not_fit_are_refused(name):
    options, words = PREFIXES[name]
    with raises(errors.ArgumentError, PREFIX.format(*words)):
        liftnn.vmap(lambda m, x: m(x), **options)(Affine(), LANES)


def test_axes_of_more_arguments_than_there_are_are_refused():
    with raises(
        errors.ArgumentError,
        "(0, 0, 0) has 3 entries, but the call has 2 positional arguments.\n"
        "Pass an argument for each entry: None where there is nothing, such as the slices of a `scan` with `length`.",
    ):
        liftnn.vmap(lambda m, x: m(x), in_axes=(0, 0, 0))(Affine(), LANES)


@pytest.mark.parametrize("args", [(), (1.0,)])
def test_nothing_to_map_is_an_error(args):
    with raises(
        errors.ArgumentError,
        "vmap has nothing to map: no argument with an axis contains an array.\n"
        "Set an axis in `in_axes` for an argument with arrays, or pass `axis_size`.",
    ):
        liftnn.vmap(lambda *args: 0.0, in_axes=None)(*args)


ALIASES = {
    "arguments": (lambda m: (m, m), "args[0].w", "args[1].w"),
    "containers": (lambda m: (Holder(sub=[m]), {"k": m}), "args[0].sub[0].w", "args[1].k.w"),
    "a variable": (lambda m: (m, Holder(tied=m.w)), "args[0].w", "args[1].tied"),
}


@pytest.mark.parametrize("name", ALIASES)
def test_one_variable_with_two_axes_is_an_error_with_both_paths(name):
    build, first, second = ALIASES[name]
    with raises(
        errors.AliasingError,
        f"{first} and {second} are the same Param, but they have different prefixes: 0 and None.\n"
        "Use the same prefix for both, or pass `liftnn.clone(module)` for one of them.",
    ):
        liftnn.vmap(lambda a, b: 0.0, in_axes=(0, None))(*build(mapped()))


def test_a_new_variable_put_into_a_shared_and_a_mapped_module_is_an_error():
    def f(a, b, x):
        a.v = b.v = liftnn.Param(x)

    with raises(
        errors.AliasingError,
        "args[0].v and args[1].v are the same Param, but they have different prefixes: 0 and None.\n"
        "Use the same prefix for both, or pass `liftnn.clone(module)` for one of them.",
    ):
        liftnn.vmap(f, in_axes=(0, None, 0))(mapped(), Affine(), LANES)


def test_a_shared_variable_put_into_a_mapped_module_is_an_error():
    def f(a, b):
        a.tied = b.w

    with pytest.raises(errors.AliasingError, match=r"args\[0\]\.tied"):
        liftnn.vmap(f, in_axes=(0, None))(mapped(), Affine())


def test_a_variable_that_no_filter_matches_is_an_error():
    with raises(
        errors.FilterError,
        "args[0].layers[0].calls (a Variable) matches none of the filters of the StateAxes.\n"
        "Add `...` as the last filter to match the remaining Variables, or change a filter to match them.",
    ):
        liftnn.vmap(lambda m: 0.0, in_axes=(liftnn.StateAxes({liftnn.Param: 0}),))(Holder(layers=[mapped()]))


def test_an_array_that_no_filter_matches_is_an_error():
    with raises(
        errors.FilterError,
        "args[0].x (an array) matches none of the filters of the StateAxes.\n"
        "Add `...` as the last filter to match the remaining Variables, or change a filter to match them.",
    ):
        liftnn.vmap(lambda m: 0.0, in_axes=(liftnn.StateAxes({liftnn.Param: 0}),))(Holder(x=jnp.ones(2)))
