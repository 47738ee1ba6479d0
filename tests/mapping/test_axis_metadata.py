"""Metadata while an axis is mapped: `sharding` and the axis hooks, compared with Flax NNX's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import PartitionSpec
from tests.raising import raises
from tests.user_modules import Holder

import liftnn
from liftnn import errors

ENSEMBLE = {liftnn.PARTITION_NAME: "ensemble"}
X = jnp.zeros((2, 3))


def make(x, **metadata):
    return Holder(w=liftnn.Param(x, **metadata))


def init(metadata, out_axes=0, transform_metadata=ENSEMBLE, shape=(5, 2, 3)):
    """A Holder of stacked Params with this metadata."""
    f = liftnn.vmap(lambda x: make(x, **metadata), out_axes=out_axes, transform_metadata=transform_metadata)
    return f(jnp.zeros(shape))


NAMES = {
    "two axes": ("in", "out"),
    "with None": (None, "out"),
    "too short": ("in",),
    "none": (),
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_the_name_goes_into_the_sharding_where_flax_puts_it(names, axis):
    class Flax(nnx.Module):
        def __init__(self, x):
            self.w = nnx.Param(x, out_sharding=names, eager_sharding=False)

    theirs = nnx.vmap(Flax, out_axes=axis, transform_metadata={nnx.PARTITION_NAME: "ensemble"})(
        jnp.zeros((5, 2, 3))
    )
    for key in ("sharding", "out_sharding"):
        assert init({key: names}, axis).w.get_metadata(key) == theirs.w.out_sharding


@pytest.mark.parametrize("metadata", [{}, {"out_sharding": None}], ids=["nothing", "None"])
def test_as_in_flax_a_variable_that_declares_no_sharding_does_not_get_the_name(metadata):
    def run(module):
        class Layer(module.Module):
            def __init__(self, x):
                self.w = module.Param(x, **metadata)

        options = {"transform_metadata": {module.PARTITION_NAME: "ensemble"}}
        made = module.vmap(Layer, **options)(jnp.zeros((5, 2, 3)))
        seen = [made.w.get_metadata("out_sharding", "absent")]

        def use(layer):
            seen.append(layer.w.get_metadata("out_sharding", "absent"))

        module.vmap(use, **options)(made)
        module.scan(lambda carry, layer: (use(layer), carry)[1], out_axes=module.Carry, **options)(0.0, made)
        spec = module.get_partition_spec(module.state(made))["w"].get_value()
        return [*seen, made.w.get_metadata("out_sharding", "absent"), spec]

    assert run(liftnn) == run(nnx)
    assert run(liftnn)[-1] == PartitionSpec()


def test_the_name_is_the_seeds_too():
    assert liftnn.PARTITION_NAME == nnx.PARTITION_NAME


def test_inside_the_name_is_away_and_outside_it_is_back():
    seen = []

    def f(model, x):
        seen.append(model.w.sharding)
        model.w.value = model.w + x

    model = init({"sharding": ("in", "out")}, axis := 1)
    assert model.w.sharding == ("in", "ensemble", "out")
    metadata = model.w._metadata
    for _ in range(2):
        liftnn.vmap(f, in_axes=(axis, 0), transform_metadata=ENSEMBLE)(model, jnp.ones(5))
        assert model.w._metadata is metadata
    assert seen == [("in", "out")] * 2
    assert model.w.value.tolist() == jnp.full((2, 5, 3), 2.0).tolist()


def test_a_partition_spec_stays_one():
    model = init({"sharding": PartitionSpec("in", None)}, 2)
    assert model.w.sharding == PartitionSpec("in", None, "ensemble")
    seen = []
    call = liftnn.vmap(lambda m: seen.append(m.w.sharding), in_axes=2, transform_metadata=ENSEMBLE)
    call(model)
    assert seen == [PartitionSpec("in", None)]


def test_negative_axes_count_from_the_end_of_the_stacked_shape():
    model = init({"sharding": ("in", "out")}, -1)
    assert model.w.sharding == ("in", "out", "ensemble")
    assert init({"sharding": ("in", "out")}, -2).w.sharding == ("in", "ensemble", "out")
    seen = []
    liftnn.vmap(lambda m: seen.append(m.w.sharding), in_axes=-1, transform_metadata=ENSEMBLE)(model)
    assert seen == [("in", "out")]


def note_add(v, name, index):
    v.log = (*v.get_metadata("log", ()), ("add", name, index))


def note_remove(v, name, index):
    v.log = (*v.get_metadata("log", ()), ("remove", name, index))


HOOKS = {"add_axis_hooks": note_add, "remove_axis_hooks": note_remove}


@pytest.mark.filterwarnings("ignore:Variable hooks are deprecated")
def test_hooks_run_where_flax_runs_them():
    def run(module, make):
        options = {"transform_metadata": {module.PARTITION_NAME: "ensemble"}}
        made = module.vmap(make, out_axes=1, **options)(X)
        module.vmap(lambda v: None, in_axes=1, **options)(made)

    def put(log, what):
        return lambda v, *name_and_index: log.append((what, *sorted(name_and_index, key=str)))

    ours, theirs = [], []
    run(
        liftnn,
        lambda x: liftnn.Param(x, add_axis_hooks=put(ours, "add"), remove_axis_hooks=put(ours, "remove")),
    )
    run(nnx, lambda x: nnx.Param(x, on_add_axis=put(theirs, "add"), on_remove_axis=put(theirs, "remove")))
    assert theirs == [("add", 1, "ensemble"), ("remove", 1, "ensemble"), ("add", 1, "ensemble")]
    assert ours == theirs[:2]  # metadata that was left alone is put back, not added to


def test_metadata_that_the_function_leaves_alone_comes_out_as_it_was():
    v = liftnn.Param(X, sharding=("ensemble", "in"), **HOOKS)
    seen = []
    liftnn.vmap(lambda v: seen.append((v.sharding, v.log)), transform_metadata=ENSEMBLE)(v)
    assert seen == [(("in",), (("remove", "ensemble", 0),))]
    assert (v.sharding, v.has_metadata("log")) == (("ensemble", "in"), False)


def test_metadata_that_the_function_changes_gets_the_axis_added():
    def f(v):
        v.sharding = ("other",)
        v.note = "new"

    v = liftnn.Param(X, sharding=("ensemble", "in"), **HOOKS)
    liftnn.vmap(f, transform_metadata=ENSEMBLE)(v)
    assert (v.sharding, v.note) == (("ensemble", "other"), "new")
    assert v.log == (("remove", "ensemble", 0), ("add", "ensemble", 0))


def test_what_a_hook_sets_is_not_set_again():
    def add(v, name, index):
        v.sharding = (*v.sharding[:index], name, *v.sharding[index:])

    assert init({"sharding": ("in", "out"), "add_axis_hooks": add}).w.sharding == ("ensemble", "in", "out")


def test_methods_of_a_subclass_are_hooks():
    class Logged(liftnn.Param):
        def on_add_axis(self, index, name):
            note_add(self, name, index)

    v = liftnn.vmap(lambda x: Logged(x), out_axes=1, transform_metadata=ENSEMBLE)(X)
    assert v.log == (("add", "ensemble", 1),)


def test_other_entries_are_adapted_as_they_say():
    given = {**ENSEMBLE, "kinds": "stacked"}
    model = init({"kinds": ("row", "column"), "note": ("a", "b")}, 1, given)
    assert (model.w.kinds, model.w.note) == (("row", "stacked", "column"), ("a", "b"))
    seen = []
    liftnn.vmap(lambda m: seen.append(m.w.kinds), in_axes=1, transform_metadata=given)(model)
    assert seen == [("row", "column")]


def test_an_axis_without_a_name_is_none():
    assert init({"sharding": ("in",)}, transform_metadata={"kinds": "x"}).w.sharding == (None, "in")


def test_without_transform_metadata_no_metadata_is_adapted():
    for nothing in (None, {}):
        model = init({"sharding": ("in", "out"), **HOOKS}, transform_metadata=nothing)
        assert (model.w.sharding, model.w.has_metadata("log")) == (("in", "out"), False)
        liftnn.vmap(lambda m: None, transform_metadata=nothing)(model)
        assert not model.w.has_metadata("log")


def test_shared_variables_and_what_is_attached_to_them_have_no_axis():
    def f(shared, mapped):
        shared.new = liftnn.Param(jnp.zeros(2), sharding=("a",), **HOOKS)
        mapped.new = liftnn.Param(jnp.zeros(2), sharding=("a",), **HOOKS)
        assert shared.w.sharding == ("in",)

    shared = make(jnp.zeros(2), sharding=("in",), **HOOKS)
    mapped = make(X, sharding=("ensemble", "in"))
    liftnn.vmap(f, in_axes=(None, 0), transform_metadata=ENSEMBLE)(shared, mapped)
    assert (shared.new.sharding, mapped.new.sharding) == (("a",), ("ensemble", "a"))
    assert (shared.new.has_metadata("log"), mapped.new.log) == (False, (("add", "ensemble", 0),))


def test_state_axes_decide_per_variable():
    axes = liftnn.StateAxes({liftnn.Param: 1, ...: None})
    f = liftnn.vmap(
        lambda x: Holder(
            w=liftnn.Param(x, sharding=("a",)), m=liftnn.BatchStat(jnp.zeros(1), sharding=("a",))
        ),
        out_axes=axes,
        transform_metadata=ENSEMBLE,
    )
    model = f(X)
    assert (model.w.sharding, model.m.sharding) == (("a", "ensemble"), ("a",))


def test_metadata_that_can_change_in_place_is_adapted_too():
    v = liftnn.Param(X, sharding=("ensemble", "in"), notes=["a"])

    def f(v):
        assert v.sharding == ("in",)
        v.notes.append("b")
        return liftnn.Param(v.value, sharding=v.sharding, notes=["c"])

    new = liftnn.vmap(f, transform_metadata=ENSEMBLE)(v)
    assert (v.sharding, v.notes) == (("ensemble", "in"), ["a", "b"])
    assert (new.sharding, new.notes) == (("ensemble", "in"), ["c"])


def test_nested_maps_take_their_own_axis_each():
    outer, inner = {liftnn.PARTITION_NAME: "outer"}, {liftnn.PARTITION_NAME: "inner"}
    seen = []

    def f(v):
        seen.append(v.sharding)
        return liftnn.Param(v.value, sharding=v.sharding)

    both = liftnn.vmap(liftnn.vmap(f, transform_metadata=inner), transform_metadata=outer)
    v = liftnn.Param(jnp.zeros((2, 3, 4)), sharding=("outer", "inner", "in"))
    new = liftnn.jit(both)(v)
    assert seen == [("in",)]
    assert v.sharding == new.sharding == ("outer", "inner", "in")


def test_tied_variables_are_adapted_once():
    model = make(X, sharding=("ensemble", "in"), **HOOKS)
    model.again = [model.w]
    seen = []
    liftnn.vmap(lambda m: seen.append(m.again[0].log), transform_metadata=ENSEMBLE)(model)
    assert seen == [(("remove", "ensemble", 0),)]
    assert model.again[0] is model.w


@pytest.mark.parametrize("names", [("other", "in"), ("in",), ("ensemble",)], ids=repr)
def test_another_name_than_the_one_to_take_away_is_an_error(names):
    model = make(jnp.zeros((2, 2)), sharding=names)
    found = names[1] if len(names) > 1 else None
    with raises(
        errors.ArgumentError,
        f"`transform_metadata` names the mapped axis 'ensemble', but axis 1 of args[0].w (a Param) is named {found!r} "
        f"in its metadata 'sharding': {names!r}.\n"
        "Use the same name in `transform_metadata` and in the metadata of the Variable.",
    ):
        liftnn.vmap(lambda m: None, in_axes=1, transform_metadata=ENSEMBLE)(model)
    assert model.w.sharding == names


def test_an_exception_in_a_hook_changes_nothing():
    def fails(v, name, index):
        raise KeyError("my own")

    model = make(X, sharding=("ensemble", "in"), remove_axis_hooks=fails)
    with pytest.raises(KeyError, match="my own"):
        liftnn.vmap(lambda m: None, transform_metadata=ENSEMBLE)(model)
    assert model.w.sharding == ("ensemble", "in")


class Log:
    """An object with state, which a closure refers to by identity: the content of a list would be in the key."""

    def __init__(self):
        self.seen = []


def test_hooks_run_once_a_trace():
    log = Log()
    v = liftnn.Param(X, remove_axis_hooks=lambda v, name, index: log.seen.append(index))
    step = liftnn.jit(liftnn.vmap(lambda v: v.sum(), transform_metadata=ENSEMBLE))
    for _ in range(3):
        step(v)
    assert log.seen == [0]
    assert jax.tree.leaves(v)[0].shape == (2, 3)


@pytest.mark.parametrize("axis", [0, 1])
def test_scan_takes_the_name_of_the_scanned_axis_away_inside_and_puts_it_back(axis):
    def make_layer(carry, x):
        return carry, make(x, sharding=("in", "out"))

    layers = liftnn.scan(
        make_layer, out_axes=(liftnn.Carry, axis), transform_metadata={"partition_name": "layers"}
    )(0.0, jnp.ones((4, 2, 3)))[1]
    names = ("in", "out")
    assert layers.w.sharding == (*names[:axis], "layers", *names[axis:])
    metadata, seen = layers.w._metadata, []

    def double(x, layer):
        seen.append(layer.w.sharding)
        layer.w.value = 2 * layer.w
        layer.new = liftnn.Param(jnp.full(3, x), sharding=("in",))
        return x

    scanned = liftnn.scan(
        double,
        in_axes=(liftnn.Carry, axis),
        out_axes=liftnn.Carry,
        transform_metadata={"partition_name": "layers"},
    )
    scanned(1.0, layers)
    assert layers.w._metadata is metadata
    assert set(seen) == {names}
    assert layers.w.value.tolist() == jnp.full(layers.w.shape, 2.0).tolist()
    assert layers.new.sharding == ("in", "layers") if axis else ("layers", "in")
