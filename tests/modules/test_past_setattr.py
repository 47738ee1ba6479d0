"""Attributes that are written past `Module.__setattr__`: the next call sees it, or one of the next is an error."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from tests.raising import raises
from tests.same import assert_same

import liftnn

pytestmark = pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")

SMALL, LARGE = 0, 60


class Net(liftnn.Module):
    """A module with more or fewer attributes."""

    def __init__(self, more=SMALL):
        self.w = liftnn.Param(jnp.float32(2.0))
        self.k = 3
        self.array = jnp.ones(())
        for i in range(more):
            setattr(self, f"a{i}", i)

    def __call__(self, x):
        extra = getattr(self, "new", 1)
        return x * self.w * getattr(self, "k", 7) * self.array * extra


class OwnSetattr(Net):
    """A module whose class sets attributes by itself."""

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)


class OwnSetattrByDict(Net):
    """A module whose class writes into its dictionary."""

    def __setattr__(self, name, value):
        self.__dict__[name] = value

    def __delattr__(self, name):
        del self.__dict__[name]


class WritesInAMethod(Net):
    """A module with a method that writes past `__setattr__`."""

    def put(self, name, value):
        object.__setattr__(self, name, value)


class Slotted(Net):
    """A module with a slot."""

    __slots__ = ("k",)


def replace_dict(m):
    m.__dict__ = {"w": m.w, "array": m.array, "k": 11}


SEEN = {
    "vars": lambda m: vars(m).update(k=5),
    "vars new": lambda m: vars(m).update(new=5),
    "vars deleted": lambda m: vars(m).pop("k"),
    "__dict__": lambda m: m.__dict__.__setitem__("k", 5),
    "__dict__ replaced": replace_dict,
    "Variable in vars": lambda m: vars(m).update(w=liftnn.Param(jnp.float32(7.0))),
    "array in vars": lambda m: vars(m).update(array=jnp.float32(4.0)),
    "Variable that becomes a number": lambda m: vars(m).update(w=4.0),
    "__setstate__": lambda m: m.__setstate__({"k": 5, "w": liftnn.Param(jnp.float32(7.0))}),
}
PAST = {
    "object.__setattr__": lambda m: object.__setattr__(m, "k", 5),
    "object.__setattr__ new": lambda m: object.__setattr__(m, "new", 5),
    "object.__delattr__": lambda m: object.__delattr__(m, "k"),
    "Variable by object.__setattr__": lambda m: object.__setattr__(m, "w", liftnn.Param(jnp.float32(7.0))),
    "another type": lambda m: object.__setattr__(m, "k", 3.0),
}
ALWAYS = {"array by object.__setattr__": lambda m: object.__setattr__(m, "array", jnp.float32(4.0))}


def assert_seen(make, write, calls=1):
    model, plain = make(), make()
    f = liftnn.jit(lambda m, x: m(x))
    for _ in range(calls + 1):
        assert_same(f(model, 2.0), plain(2.0))
    write(model)
    write(plain)
    for _ in range(3):
        assert_same(f(model, 2.0), plain(2.0))


@pytest.mark.parametrize("write", [*SEEN, *PAST, *ALWAYS])
@pytest.mark.parametrize("calls", [0, 1, 5])
@pytest.mark.sample(12)
def test_in_a_small_model_the_next_call_sees_it(write, calls):
    assert_seen(Net, {**SEEN, **PAST, **ALWAYS}[write], calls)


@pytest.mark.sample(2)
@pytest.mark.parametrize("write", [*SEEN, *ALWAYS])
def test_in_a_large_model_the_next_call_sees_what_was_written_by_vars(write):
    assert_seen(lambda: Net(LARGE), {**SEEN, **ALWAYS}[write])


@pytest.mark.parametrize("write", [*SEEN, *PAST, *ALWAYS])
@pytest.mark.parametrize("cls", [OwnSetattr, OwnSetattrByDict, WritesInAMethod])
@pytest.mark.parametrize("more", [SMALL, LARGE])
@pytest.mark.sample(16)
def test_of_a_class_that_could_write_past_setattr_the_next_call_sees_it(more, cls, write):
    assert_seen(lambda: cls(more), {**SEEN, **PAST, **ALWAYS}[write])


@pytest.mark.sample(2)
@pytest.mark.parametrize("more", [SMALL, LARGE])
@pytest.mark.parametrize("cls", [OwnSetattr, OwnSetattrByDict, WritesInAMethod])
def test_setting_an_attribute_of_such_a_class_is_seen(cls, more):
    assert_seen(lambda: cls(more), lambda m: setattr(m, "k", 5))
    assert_seen(lambda: cls(more), lambda m: delattr(m, "k"))


@pytest.mark.parametrize(
    "write", [lambda m: object.__setattr__(m, "k", 5), lambda m: object.__delattr__(m, "k")]
)
def test_a_slot_written_past_setattr_is_seen(write):
    assert_seen(Slotted, write)


@pytest.mark.parametrize("write", PAST)
def test_in_a_submodule_of_a_small_model_the_next_call_sees_it(write):
    class Parent(liftnn.Module):
        def __init__(self):
            self.child = Net()

        def __call__(self, x):
            return self.child(x)

    assert_seen(Parent, lambda m: PAST[write](m.child))


class Replacing(Net):
    """A module that replaces its Variable in each call."""

    def __call__(self, x):
        out = super().__call__(x)
        self.w = liftnn.Param(self.w + 1)
        return out


@pytest.mark.parametrize("write", [*SEEN, *PAST, *ALWAYS])
@pytest.mark.parametrize("calls", [0, 1, 5])
@pytest.mark.sample(12)
def test_in_a_small_model_whose_variables_are_replaced_the_next_call_sees_it(write, calls):
    if write != "Variable that becomes a number":
        assert_seen(Replacing, {**SEEN, **PAST, **ALWAYS}[write], calls)


@pytest.mark.parametrize("write", PAST)
def test_a_function_beside_one_that_replaces_variables_sees_it(write):
    model, plain = Replacing(), Replacing()
    f, replace = liftnn.jit(Net.__call__), liftnn.jit(Replacing.__call__)
    for _ in range(3):
        assert_same(f(model, 2.0), Net.__call__(plain, 2.0))
        assert_same(replace(model, 2.0), plain(2.0))
    PAST[write](model)
    PAST[write](plain)
    for _ in range(3):
        assert_same(f(model, 2.0), Net.__call__(plain, 2.0))


# --- in a large model: an error, at the latest when each attribute has had its turn


def late_text(name, path="args[0]"):
    what = (
        f"The attribute {name!r} of {path} was set"
        if name
        else f"An attribute of {path} was added or deleted"
    )
    return (
        f"{what} without Module.__setattr__, for example by object.__setattr__. The last calls of this compiled "
        "function may have used the old value.\n"
        "Use setattr or vars(module) instead; liftnn detects both."
    )


NAMES = {
    "object.__setattr__": "k",
    "object.__setattr__ new": None,
    "object.__delattr__": "k",
    "Variable by object.__setattr__": "w",
    "another type": "k",
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("write", PAST)
@pytest.mark.parametrize("more", [LARGE, 300])
@pytest.mark.parametrize("cls", [Net, Replacing])
def test_in_a_large_model_one_of_the_next_calls_is_an_error(cls, more, write):
    model, plain = cls(more), cls(more)
    f = liftnn.jit(lambda m, x: m(x))
    for _ in range(2):
        f(model, 2.0)
    PAST[write](model)
    PAST[write](plain)
    within = 2 + (more + 6) // 3  # three attributes a call, at least
    with raises(liftnn.StructureError, late_text(NAMES[write])):
        for _ in range(within):
            f(model, 2.0)
    plain.w.value = model.w.value  # the calls before the error have written it
    for _ in range(within):
        assert_same(f(model, 2.0), plain(2.0))


def test_the_error_comes_before_anything_is_written():
    class Counting(Net):
        def __init__(self):
            super().__init__(LARGE)
            self.calls = liftnn.Variable(jnp.zeros((), jnp.int32))

        def __call__(self, x):
            self.calls.value = self.calls + 1
            return super().__call__(x)

    model = Counting()
    f = liftnn.jit(lambda m, x: m(x))
    f(model, 2.0)
    object.__setattr__(model, "k", 5)
    made = 1
    with raises(liftnn.StructureError, late_text("k")):
        for _ in range(30):
            f(model, 2.0)
            made += 1
    assert int(model.calls.value) == made


def test_the_error_names_the_path_of_a_submodule():
    model = liftnn.Module()
    model.layers = [Net(LARGE), Net(LARGE)]
    f = liftnn.jit(lambda m, x: m.layers[1](x))
    f(model, 2.0)
    object.__setattr__(model.layers[1], "k", 5)
    with raises(liftnn.StructureError, late_text("k", "args[0].layers[1]")):
        for _ in range(60):
            f(model, 2.0)


@pytest.mark.parametrize("more", [SMALL, LARGE])
def test_in_a_captured_model_it_is_seen_or_an_error(more):
    model = Net(more)
    f = liftnn.jit(lambda x: model(x))
    f(2.0)
    object.__setattr__(model, "k", 5)
    if more == SMALL:
        assert_same(f(2.0), model(2.0))
        return
    with raises(liftnn.StructureError, late_text("k", "model")):
        for _ in range(30):
            f(2.0)
    assert_same(f(2.0), model(2.0))


def test_no_error_where_the_very_value_is_put_back():
    model = Net(LARGE)
    f = liftnn.jit(lambda m, x: m(x))
    f(model, 2.0)
    for _ in range(30):
        object.__setattr__(model, "k", model.k)
        f(model, 2.0)
    assert f.n_traces == 1


@pytest.mark.thorough
def test_no_error_where_setattr_is_used_between_the_calls():
    model, plain = Net(LARGE), Net(LARGE)
    f = liftnn.jit(lambda m, x: m(x), max_traces=100)
    for i in range(30):
        model.k = plain.k = i
        model.w.value = plain.w.value = jnp.float32(i)
        assert_same(f(model, 2.0), plain(2.0))


@pytest.mark.parametrize("more", [SMALL, LARGE])
def test_looking_at_vars_costs_no_retrace(more):
    model = Net(more)
    f = liftnn.jit(lambda m, x: m(x))
    for _ in range(5):
        f(model, 2.0)
        assert vars(model)["k"] == 3
    assert f.n_traces == 1
