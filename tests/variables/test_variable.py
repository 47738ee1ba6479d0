"""Variables: values, metadata, hooks, and where they stop."""

from __future__ import annotations

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises
from tests.user_modules import Holder

import liftnn
from liftnn import errors
from liftnn._src.variables.metadata import HOOK_NAMES


def test_a_variable_has_slots_and_no_dict():
    assert not hasattr(liftnn.Param(jnp.ones(2)), "__dict__")


def test_value_is_what_it_was_made_with():
    x = jnp.arange(3.0)
    assert liftnn.Param(x).value is x


def test_a_variable_made_from_a_variable_takes_its_value():
    inner = liftnn.BatchStat(jnp.arange(3.0))
    outer = liftnn.Param(inner)
    assert outer.value is inner.value
    outer.value = outer.value + 1
    assert inner.value.tolist() == [0, 1, 2]


def test_assigning_a_variable_stores_its_value():
    v, other = liftnn.Param(jnp.zeros(2)), liftnn.Param(jnp.ones(2))
    v.value = other
    assert v.value is other.value


def test_a_module_is_no_value():
    text = "A Variable holds arrays, not a Module.\nAssign it to an attribute of a Module instead."
    with raises(errors.ArgumentError, text):
        liftnn.Param(liftnn.Module())
    v = liftnn.Param(1.0)
    with raises(errors.ArgumentError, text):
        v.value = liftnn.Module()
    with raises(errors.ArgumentError, text):
        v.raw_value = liftnn.Module()
    assert v.value == 1.0


@pytest.mark.parametrize(
    "value",
    [
        jnp.zeros((0, 2)),
        np.ones(3),
        1,
        2.5,
        None,
        {"a": jnp.ones(2), "b": [jnp.zeros(1), None]},
        (jnp.ones(2), {"c": 1}),
        jax.ShapeDtypeStruct((2,), jnp.float32),
    ],
    ids=repr,
)
def test_any_pytree_is_a_value(value):
    assert liftnn.Variable(value).value is value


# --- metadata


def test_metadata_are_keywords_and_attributes():
    v = liftnn.Param(1.0, sharding=("x",), tag="lora")
    assert (v.sharding, v.tag) == (("x",), "lora")
    assert v.get_metadata() == {"sharding": ("x",), "tag": "lora"}


def test_setting_an_unknown_attribute_sets_metadata():
    v = liftnn.Param(1.0)
    v.layout = "NHWC"
    assert v.get_metadata() == {"layout": "NHWC"}
    del v.layout
    assert v.get_metadata() == {}


def test_set_metadata_keeps_the_other_entries():
    v = liftnn.Param(1.0, a=1, b=2)
    v.set_metadata(b=3, c=4)
    assert v.get_metadata() == {"a": 1, "b": 3, "c": 4}


def test_set_metadata_takes_a_name_and_a_value():
    v = liftnn.Param(1.0, a=1)
    v.set_metadata("name with spaces", 2)
    v.set_metadata("a", None)
    assert v.get_metadata() == {"a": None, "name with spaces": 2}


def test_set_metadata_with_a_mapping_replaces_all():
    v = liftnn.Param(1.0, a=1, on_set_value=lambda v, x: 2 * x)
    new = {"b": 2}
    v.set_metadata(new)
    new["c"] = 3
    v.value = 5.0
    assert (v.get_metadata(), v.value) == ({"b": 2}, 5.0)


@pytest.mark.parametrize("args", [("a",), (1, 2), ("a", 1, 2), ({"a": 1}, 2), (None,)])
def test_set_metadata_takes_no_other_arguments(args):
    v = liftnn.Param(1.0, a=1)
    text = (
        "set_metadata takes entries by keyword, or a name and a value, or one mapping that replaces all metadata.\n"
        "Write `variable.set_metadata(name=value)`."
    )
    for more in ({}, {"b": 1}):
        with pytest.raises(liftnn.ArgumentTypeError) as error:
            v.set_metadata(*args, **more)
        assert str(error.value) == text
    with pytest.raises(liftnn.ArgumentTypeError):
        v.set_metadata("a", 1, b=2)
    assert v.get_metadata() == {"a": 1}


def test_get_metadata_gives_a_default_for_an_entry_that_is_not_there():
    v = liftnn.Param(1.0, a=1)
    assert (v.get_metadata("a"), v.get_metadata("b"), v.get_metadata("b", 5)) == (1, None, 5)


def test_get_metadata_gives_a_copy():
    v = liftnn.Param(1.0, a=1)
    v.get_metadata()["a"] = 2
    assert v.a == 1


def test_has_metadata_tells_what_was_set():
    v = liftnn.Param(1.0, a=None)
    assert v.has_metadata("a")
    assert not v.has_metadata("get_value_hooks")


def test_deleting_metadata_that_is_not_there_is_an_error():
    with raises(
        errors.AttributeNameError,
        "A Param has no metadata 'tag'.\n"
        "Check the spelling; a Variable forwards unknown names to its metadata and then to its value.",
    ):
        del liftnn.Param(1.0).tag


def test_metadata_comes_before_attributes_of_the_value():
    assert liftnn.Param(jnp.ones(2), shape="mine").shape == "mine"


def test_unknown_names_are_looked_up_on_the_value():
    v = liftnn.Param(jnp.ones((2, 3), jnp.bfloat16))
    assert (v.shape, v.dtype, v.ndim, v.size) == ((2, 3), jnp.bfloat16, 2, 6)
    assert v.sum() == 6
    assert v.T.shape == (3, 2)


def test_a_name_that_nobody_knows_is_an_attribute_error():
    with raises(
        errors.AttributeNameError,
        "A Param has no attribute 'weight': it is neither a metadata entry nor an attribute of the value "
        "(float).\n"
        "Check the spelling; a Variable forwards unknown names to its metadata and then to its value.",
    ):
        liftnn.Param(1.0).weight  # noqa: B018
    assert not hasattr(liftnn.Param(1.0), "weight")


def test_slots_of_a_subclass_are_metadata():
    class Tagged(liftnn.Param):
        __slots__ = ("note",)

    v = Tagged(1.0)
    v.note = "kept"
    assert v.copy().note == "kept"
    assert v.get_metadata() == {"note": "kept"}


def test_a_property_of_a_subclass_is_no_metadata():
    class Scaled(liftnn.Param):
        @property
        def half(self):
            return self.value / 2

        @half.setter
        def half(self, half):
            self.value = 2 * half

    v = Scaled(1.0)
    v.half = 3.0
    assert (v.value, v.get_metadata()) == (6.0, {})


class WithUnit:
    """A base of a class of Variables that is not one itself."""

    unit = "m"


class Quantized(WithUnit, liftnn.Param):
    bits = 8
    on_get_value = functools.partial(lambda variable, value: value)

    def levels(self):
        return 2**self.bits


class Half(Quantized):
    bits = 16


SET_METADATA = {
    "at first": lambda v, **metadata: type(v)(1.0, **metadata),
    "as attributes": lambda v, **metadata: [setattr(v, name, x) for name, x in metadata.items()] and v,
    "by set_metadata": lambda v, **metadata: v.set_metadata(**metadata) or v,
    "by replace": lambda v, **metadata: v.replace(2.0, **metadata),
}


@pytest.mark.parametrize("set_all", SET_METADATA.values(), ids=SET_METADATA)
def test_metadata_replace_an_attribute_of_the_class_as_in_python(set_all):
    for cls, bits in ((Quantized, 8), (Half, 16)):
        assert (cls.bits, cls.unit, cls(1.0).bits, cls(1.0).unit) == (bits, "m", bits, "m")
        v = set_all(cls(1.0), bits=4, unit="s")
        copies = v.copy(), pickle.loads(pickle.dumps(v)), jax.tree.map(lambda x: x, v), liftnn.clone(v)
        for x in (v, *copies):
            assert (x.bits, x.unit, x.levels(), x.get_metadata("bits")) == (4, "s", 16, 4)
        holder = Holder(v=v)
        assert int(liftnn.jit(lambda m: m.v.levels() + jnp.zeros(()))(holder)) == 16
        del v.bits
        assert (v.bits, v.levels(), cls.bits) == (bits, 2**bits, bits)


def test_a_later_change_of_a_base_is_seen(monkeypatch):
    v, with_unit = Half(1.0), Half(1.0, unit="s")
    monkeypatch.setattr(WithUnit, "unit", "km")
    monkeypatch.setattr(Quantized, "bits", 2)
    assert (v.unit, Half.unit, with_unit.unit, Quantized(1.0).bits, v.bits) == ("km", "km", "s", 2, 16)


# --- hooks


def double(variable, x):
    return 2 * x


def note(log, name, result=None):
    """A hook that writes down its call."""

    def hook(variable, *args):
        log.append((name, *args))
        return result(*args) if result else None

    return hook


@pytest.mark.parametrize("many", [False, True], ids=["callable", "sequence"])
def test_get_hooks_give_what_is_read(many):
    hooks = [double, lambda v, x: x + 1] if many else double
    v = liftnn.Param(3.0, get_value_hooks=hooks)
    assert v.value == (7.0 if many else 6.0)
    assert v + 0 == v.value
    assert v.raw_value == 3.0


@pytest.mark.parametrize("many", [False, True], ids=["callable", "sequence"])
def test_set_hooks_give_what_is_stored(many):
    hooks = (double, lambda v, x: x + 1) if many else double
    v = liftnn.Param(3.0, set_value_hooks=hooks)
    assert v.raw_value == 3.0
    v.value = 5.0
    assert v.raw_value == (11.0 if many else 10.0)


@pytest.mark.parametrize("many", [False, True], ids=["callable", "sequence"])
def test_create_hooks_give_what_is_stored_first(many):
    hooks = (double, lambda v, x: x + 1) if many else double
    v = liftnn.Param(3.0, create_value_hooks=hooks)
    assert v.raw_value == (7.0 if many else 6.0)
    v.value = 5.0
    assert v.raw_value == 5.0


@pytest.mark.parametrize("verb", ["add_axis", "remove_axis"])
@pytest.mark.parametrize("many", [False, True], ids=["callable", "sequence"])
def test_axis_hooks_get_name_and_index(verb, many):
    log = []
    hooks = [note(log, "first"), note(log, "second")] if many else note(log, "first")
    v = liftnn.Param(3.0, **{f"{verb}_hooks": hooks})
    getattr(v, verb)(1, "batch")
    assert log == [("first", "batch", 1), ("second", "batch", 1)][: 1 + many]


def test_an_axis_hook_may_set_metadata():
    def add(v, name, index):
        v.sharding = (*v.sharding[:index], name, *v.sharding[index:])

    v = liftnn.Param(1.0, sharding=("in", "out"), add_axis_hooks=add)
    v.add_axis(1, "layers")
    assert v.sharding == ("in", "layers", "out")


def test_hooks_get_the_variable():
    v = liftnn.Param(3.0, scale=10, get_value_hooks=lambda v, x: v.scale * x)
    assert v.value == 30.0


def test_methods_of_a_subclass_run_before_the_hooks():
    log = []

    class Logged(liftnn.Param):
        def on_get_value(self, value):
            log.append("on_get_value")
            return value + 1

        def on_set_value(self, value):
            log.append("on_set_value")
            return value + 10

        def on_create_value(self, value):
            log.append("on_create_value")
            return value + 100

        def on_add_axis(self, index, name):
            log.append(("on_add_axis", index, name))

        def on_remove_axis(self, index, name):
            log.append(("on_remove_axis", index, name))

    v = Logged(
        0,
        get_value_hooks=note(log, "get", lambda x: x),
        set_value_hooks=note(log, "set", lambda x: x),
        create_value_hooks=note(log, "create", lambda x: x),
        add_axis_hooks=note(log, "add"),
        remove_axis_hooks=note(log, "remove"),
    )
    assert v.raw_value == 100
    v.value = 5
    assert v.raw_value == 15
    assert v.value == 16
    v.add_axis(0, "n")
    v.remove_axis(0, "n")
    assert log == [
        "on_create_value", ("create", 100),
        "on_set_value", ("set", 15),
        "on_get_value", ("get", 16),
        ("on_add_axis", 0, "n"), ("add", "n", 0),
        ("on_remove_axis", 0, "n"), ("remove", "n", 0),
    ]  # fmt: skip


def test_hooks_do_not_run_on_raw_value_copy_and_replace():
    hooks = {name: lambda v, x: 1 / 0 for name in HOOK_NAMES if name != "create_value_hooks"}
    v = liftnn.Param(3.0, **hooks)
    v.raw_value = 4.0
    assert v.raw_value == v.copy().raw_value == 4.0
    assert v.replace(5.0).raw_value == 5.0


@pytest.mark.parametrize("name", HOOK_NAMES)
def test_every_hook_kind_is_the_empty_tuple_unless_given(name):
    assert getattr(liftnn.Param(1.0), name) == ()


@pytest.mark.parametrize("name", HOOK_NAMES)
def test_one_hook_reads_back_as_a_tuple(name):
    assert getattr(liftnn.Param(1.0, **{name: double}), name) == (double,)


@pytest.mark.parametrize("name", HOOK_NAMES)
def test_a_hook_that_is_not_callable_is_an_error(name):
    with raises(
        errors.ArgumentError,
        f"{name} must be a callable or a sequence of callables, not [3].\nPass {name}=f, or {name}=(f, g) "
        f"to call f first and then g.",
    ):
        liftnn.Param(1.0, **{name: [3]})


# --- copies


def test_replace_keeps_type_and_metadata():
    v = liftnn.BatchStat(1.0, tag="a", note="b")
    new = v.replace(2.0, tag="c")
    assert (type(new), new.value, new.get_metadata()) == (liftnn.BatchStat, 2.0, {"tag": "c", "note": "b"})
    assert (v.value, v.tag) == (1.0, "a")


def test_a_copy_is_independent():
    v = liftnn.Param(1.0, tag="a")
    new = v.copy()
    new.value, new.tag = 2.0, "b"
    assert (v.value, v.tag) == (1.0, "a")


def test_a_copy_has_dicts_and_lists_of_its_own():
    v = liftnn.Variable({"k": [1, 2]})
    new = v.copy()
    new.value["k"].append(3)
    assert (v.value, new.value) == ({"k": [1, 2]}, {"k": [1, 2, 3]})


@pytest.mark.parametrize(
    "take_over",
    [
        liftnn.Variable.copy_from,
        liftnn.Variable.update_from_state,
        lambda v, other: liftnn.update(Holder(child=v), liftnn.State({"child": other})),
    ],
)
def test_a_value_that_is_taken_over_has_dicts_and_lists_of_its_own(take_over):
    one, two = (liftnn.Variable({"k": [jnp.zeros(2)]}) for _ in range(2))
    new = liftnn.Variable({"k": [jnp.ones(2)]})
    take_over(one, new)
    take_over(two, new)
    assert liftnn.jit(lambda a, b, c: a["k"][0] + b["k"][0] + c["k"][0])(one, two, new).tolist() == [3, 3]
    one.value["k"][0] = jnp.zeros(2)
    assert (two.value["k"][0].tolist(), new.value["k"][0].tolist()) == ([1, 1], [1, 1])


@pytest.mark.parametrize(
    "value",
    [{1: jnp.ones(2), "b": [jnp.zeros(1)]}, ({"b": 1, "a": 2}, [{2: None, "a": 1}])],
    ids=["mixed", "nested"],
)
def test_a_copy_of_a_dict_has_its_keys_in_their_order(value):
    """JAX sorts keys, and cannot sort those of several types."""
    v, other = liftnn.Variable(value), liftnn.Variable(0)
    other.update_from_state(v)
    copied, model = v.copy(), Holder(v=v)
    pure = liftnn.state(model).to_pure_dict()["v"]
    popped = liftnn.pop(model, liftnn.Variable)["v"]
    assert [repr(x) for x in (copied.value, other.value, popped.value, pure)] == [repr(value)] * 4


@pytest.mark.parametrize("held", [Holder(), liftnn.Param(1.0)], ids=["module", "Variable"])
def test_a_module_in_a_value_is_named_by_the_transform_and_not_before(held):
    model = Holder(v=liftnn.Variable({"k": [held]}))
    assert liftnn.state(model)["v"].value["k"] == [held]
    with pytest.raises(errors.StructureError, match=r"^args\[0\]\.v: the value of this Variable contains a"):
        liftnn.jit(lambda model: None)(model)


def test_a_copy_of_a_dict_may_be_beside_it_in_a_module():
    model = Holder(a=liftnn.Variable({"k": jnp.zeros(2)}))
    model.b = model.a.copy()

    @liftnn.jit
    def step(model):
        model.b.value["k"] += 1

    step(model)
    assert (model.a["k"].tolist(), model.b["k"].tolist()) == ([0, 0], [1, 1])


class Quantity(liftnn.Param):
    def __new__(cls, value, unit):
        assert unit
        return super().__new__(cls)

    def __init__(self, value, unit):
        super().__init__(value, unit=unit)


@pytest.mark.parametrize(
    "copied",
    [
        liftnn.clone,
        liftnn.Variable.copy,
        copy.deepcopy,
        lambda v: pickle.loads(pickle.dumps(v)),
        lambda v: jax.tree.map(lambda x: x, v),
        liftnn.jit(lambda v: Quantity(v.value, "kg")),
    ],
)
def test_a_class_may_have_a_new_with_arguments(copied):
    mass = Quantity(jnp.ones(2), "kg")
    liftnn.jit(lambda v: v.set_value(2 * v))(mass)
    new = copied(mass)
    assert (type(new), new.value.tolist(), new.unit) == (Quantity, [2, 2], "kg")


@pytest.mark.parametrize("value", [jnp.ones(2), np.ones(2), {"a": 1}, "text", None], ids=repr)
def test_dir_lists_methods_metadata_and_attributes_of_the_value(value):
    """For completion in a notebook."""
    v = liftnn.Param(value, unit="kg")
    assert {"copy_from", "unit", *(n for n in dir(value) if not n.startswith("_"))} <= {*dir(v)}


# --- identity and printing


def test_a_variable_hashes_by_identity():
    a, b = liftnn.Param(1.0), liftnn.Param(1.0)
    assert {a: "a", b: "b"}[b] == "b"
    a.value = 2.0
    assert {a: "a", b: "b"}[a] == "a"


def test_printing_shows_value_and_given_metadata():
    v = liftnn.Param(jnp.zeros(2), sharding=("x",))
    assert repr(v) == "Param(\n  raw_value=Array([0., 0.], dtype=float32),\n  sharding=('x',)\n)"


# --- traces


def test_a_write_under_a_raw_jax_transform_is_an_error():
    v, tagged = liftnn.Param(jnp.ones(2)), liftnn.Param(1.0, tag="a")
    text = (
        "Cannot change {} of a Param here: it comes from plain Python, and this code runs under a raw JAX transform "
        "(jax.jit, jax.grad, jax.vmap, jax.lax.scan ...), which would lose the change or leak a tracer.\n"
        "Use the liftnn transform of the same name instead."
    )

    def write(attribute):
        def f(x):
            setattr(v, attribute, x)
            return x

        return f

    with raises(errors.TraceContextError, text.format("the value")):
        jax.jit(write("value"))(1.0)
    with raises(errors.TraceContextError, text.format("the value")):
        jax.grad(write("raw_value"))(1.0)
    with raises(errors.TraceContextError, text.format("the metadata")):
        jax.jit(write("note"))(1.0)
    with raises(errors.TraceContextError, text.format("the metadata")):
        jax.jit(lambda x: delattr(tagged, "tag"))(1.0)
    assert v.value.tolist() == [1, 1]
    assert (v.get_metadata(), tagged.tag) == ({}, "a")


def test_a_variable_made_under_a_raw_jax_transform_can_be_written_there():
    def f(x):
        v = liftnn.Param(x)
        v.value = v.value * 2
        v.note = "mine"
        return v.value

    assert jax.jit(f)(3.0) == 6.0
    assert jax.grad(f)(3.0) == 2.0
