"""A module that is passed and captured may change its values; any other change is refused, and undone."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

import liftnn
from tests.raising import raises
from tests.same import assert_same, has_tracer


class Net(liftnn.Module):
    """A module with something of each kind."""

    def __init__(self):
        self.w = liftnn.Param(jnp.ones(2))
        self.k = 1
        self.scale = jnp.ones(2)
        self.layers = [liftnn.Param(jnp.ones(2)), 3]
        self.options = {"rate": 0.5}
        self.seen = {1}


def set_static(m):
    m.k = 5


def delete_static(m):
    del m.k


def add_attribute(m):
    m.new = 1


def replace_variable(m):
    m.w = liftnn.Param(jnp.zeros(2))


def add_variable(m):
    m.state = liftnn.Variable(jnp.zeros(2))


def set_metadata(m):
    m.w.axis = "rows"


def set_array(m):
    m.scale = m.scale + 1


def append(m):
    m.layers.append(4)


def set_entry(m):
    m.options["rate"] = 0.1


def add_to_set(m):
    m.seen.add(2)


def change_class(m):
    m.__class__ = Other


def make_cycle(m):
    m.me = m


class Other(Net):
    """What a Net may become."""


CHANGES = {
    set_static: ("args[0]", "Net", "net"),
    delete_static: ("args[0]", "Net", "net"),
    add_attribute: ("args[0]", "Net", "net"),
    replace_variable: ("args[0]", "Net", "net"),
    add_variable: ("args[0]", "Net", "net"),
    set_metadata: ("args[0].w", "Param", "net.w"),
    set_array: ("args[0]", "Net", "net"),
    append: ("args[0].layers", "list", "net.layers"),
    set_entry: ("args[0].options", "dict", "net.options"),
    change_class: ("args[0]", "Net", "net"),
    make_cycle: ("args[0]", "Net", "net"),
}
TRANSFORMS = {
    "jit": liftnn.jit,
    "remat": liftnn.remat,
    "grad": lambda f: lambda m: liftnn.grad(lambda m: (f(m), 0.0)[1])(m),
    "vmap": lambda f: liftnn.vmap(f, in_axes=None, out_axes=None, axis_size=1),
}


def text(change, name):
    path, cls, captured = CHANGES[change]
    return (
        f"The structure, the metadata or an array leaf of {path} (a {cls}) was changed in liftnn.{name}. The "
        f"function also captures it as {captured}, where the change would not be seen.\n"
        "Use only the argument inside the function, or change only the values of Variables."
    )


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_through_the_argument_is_refused_and_undone(change, name):
    net = Net()

    def f(m):
        change(m)
        m.layers[0].value = net.layers[0] * 2

    with raises(liftnn.TraceContextError, text(change, name)):
        TRANSFORMS[name](f)(net)
    assert_same(net, Net())
    assert not has_tracer(net)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_a_nested_transform_is_refused_and_undone(change):
    net = Net()

    def inner(m):
        change(m)
        net.w.value = net.w * 2

    with pytest.raises(liftnn.TraceContextError, match="would not be seen"):
        liftnn.jit(lambda m: liftnn.remat(inner)(m))(net)
    assert_same(net, Net())


@pytest.mark.sample(2)
@pytest.mark.parametrize("change", CHANGES)
def test_the_call_after_it_works(change):
    net = Net()

    @liftnn.jit
    def f(m, x):
        if x.shape == (2,):
            change(m)
        net.w.value = m.w * 2
        return net.w * x.sum()

    for n in (1, 2, 1):
        if n == 2:
            with pytest.raises(liftnn.TraceContextError):
                f(net, jnp.ones(n))
        else:
            f(net, jnp.ones(n))
    plain = Net()
    plain.w.value = plain.w * 4
    assert_same(net, plain)


@pytest.mark.sample(2)
@pytest.mark.parametrize("change", [*CHANGES, add_to_set])
def test_the_same_change_is_made_where_nothing_is_captured(change):
    net, plain = Net(), Net()
    change(plain)
    liftnn.jit(change)(net)
    assert_same(net, plain)


def test_values_change_through_either_name():
    net, plain = Net(), Net()

    def f(m, other):
        m.w.value = other.w + 1
        other.w.value = m.w * 2
        return m.w.value - other.w.value

    liftnn.jit(lambda m: f(m, net))(net)
    f(plain, plain)
    assert_same(net, plain)


def test_a_part_that_is_captured_leaves_the_rest_of_the_argument_free():
    net, plain = Net(), Net()
    weight, plain_weight = net.w, plain.w

    def f(m, w):
        m.k = 7
        m.layers.append(m.w)
        w.value = m.w + 1

    liftnn.jit(lambda m: f(m, weight))(net)
    f(plain, plain_weight)
    assert_same(net, plain)


def replace_for_a_while(m, read):
    old, m.w = m.w, liftnn.Param(jnp.full(2, 7.0))
    read()
    m.w = old


def set_for_a_while(m, read):
    m.k = 5
    read()
    m.k = 1


def delete_for_a_while(m, read):
    del m.k
    read()
    m.k = 1


def add_for_a_while(m, read):
    m.new = 1
    read()
    del m.new


def set_mode_for_a_while(m, read):
    m.set_attributes(k=9)
    read()
    m.set_attributes(k=1)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize(
    "change",
    [replace_for_a_while, set_for_a_while, delete_for_a_while, add_for_a_while, set_mode_for_a_while],
)
def test_a_change_that_is_taken_back_is_refused_too_since_the_captured_name_did_not_show_it(change, name):
    net = Net()

    def f(m):
        change(m, lambda: net.k)
        return jnp.sum(m.w.value)

    with raises(
        liftnn.TraceContextError,
        f"The structure, the metadata or an array leaf of args[0] (a Net) was changed in liftnn.{name}. The "
        "function also captures it as net, where the change would not be seen.\n"
        "Use only the argument inside the function, or change only the values of Variables.",
    ):
        TRANSFORMS[name](f)(net)
    assert_same(net, Net())


def test_an_attribute_may_be_set_to_what_it_was():
    net, plain = Net(), Net()
    net.rate = plain.rate = float("0.5")
    net.name = plain.name = "".join(["a", "b"])

    def f(m, other):
        m.rate, m.name, m.k, m.w = float("0.5"), "".join(["a", "b"]), 1, m.w
        m.w.value = other.w * 2

    liftnn.jit(lambda m: f(m, net))(net)
    f(plain, plain)
    assert_same(net, plain)


def test_to_look_at_the_attributes_is_no_change():
    net, plain = Net(), Net()

    def f(m, other):
        m.w.value = other.w * len(vars(m))
        m.w.value = m.w + len(other.__dict__)

    liftnn.jit(lambda m: f(m, net))(net)
    f(plain, plain)
    assert_same(net, plain)
