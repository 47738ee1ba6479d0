"""What is captured changes in the values of Variables only: any other change raises, and everything is as before."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.raising import raises
from tests.same import assert_same, has_tracer

REMEDY = (
    "Make it an attribute of a module if it is not one, and pass that module as an argument to the function given to "
    "liftnn."
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Batch:
    """A registered pytree."""

    x: object


@jax.tree_util.register_dataclass
@dataclasses.dataclass(slots=True)
class Slotted:
    """A registered pytree without an attribute dictionary."""

    x: object


@jax.tree_util.register_pytree_node_class
class Table(dict):
    """A registered pytree that is a dict."""

    def tree_flatten(self):
        return tuple(self.values()), tuple(self)

    @classmethod
    def tree_unflatten(cls, keys, children):
        return cls(zip(keys, children, strict=True))


@dataclasses.dataclass
class Record:
    """A dataclass that is not registered."""

    x: object = 1


class Net(liftnn.Module):
    """A module with containers of all kinds."""

    def __init__(self):
        self.w = liftnn.Param(jnp.ones(2))
        self.k = 1
        self.seen = {1}
        self.items = [1, liftnn.Param(jnp.ones(1))]
        self.options = {"a": 1, "b": [2]}
        self.ordered = collections.OrderedDict(a=1, b=2)
        self.queue = collections.deque([1], maxlen=3)
        self.record = Record()
        self.space = types.SimpleNamespace(a=1)
        self.batch = Batch(jnp.ones(2))
        self.slotted = Slotted(jnp.ones(2))
        self.state = liftnn.State({"a": liftnn.Param(jnp.ones(2)), "b": {"c": jnp.ones(2)}})
        self.entries = Table(a=jnp.ones(2))
        self.table = np.arange(3.0)
        self.array = jnp.ones(2)

    @functools.cached_property
    def frequencies(self):
        return jnp.arange(2.0) * 2

    @functools.cached_property
    def size(self):
        return len(self.items)


CHANGES = {
    "static attribute": (
        lambda m, x: setattr(m, "k", 2),
        "Cannot change the attribute 'k' of ",
    ),
    "past setattr": (lambda m, x: object.__setattr__(m, "k", 2), "net.k (a Net)"),
    "vars": (lambda m, x: vars(m).update(k=2), "net.k (a Net)"),
    "new in vars": (lambda m, x: vars(m).update(new=x), "net.new (a Net)"),
    "deleted in vars": (lambda m, x: vars(m).pop("k"), "net.k (a Net)"),
    "set": (lambda m, x: m.seen.add(2), "net.seen (a set)"),
    "list append": (lambda m, x: m.items.append(x), "net.items (a list)"),
    "list item": (lambda m, x: m.items.__setitem__(0, 5), "net.items (a list)"),
    "list order": (lambda m, x: m.items.reverse(), "net.items (a list)"),
    "dict": (lambda m, x: m.options.update(c=x), "net.options (a dict)"),
    "dict order": (lambda m, x: m.options.update(a=m.options.pop("a")), "net.options (a dict)"),
    "inner list": (lambda m, x: m.options["b"].append(3), "net.options.b (a list)"),
    "ordered dict": (lambda m, x: m.ordered.move_to_end("a"), "net.ordered (an OrderedDict)"),
    "deque": (lambda m, x: m.queue.append(x), "net.queue (a deque)"),
    "dataclass": (lambda m, x: setattr(m.record, "x", x), "net.record (a Record)"),
    "new in a dataclass": (lambda m, x: setattr(m.record, "y", x), "net.record (a Record)"),
    "namespace": (lambda m, x: setattr(m.space, "b", x), "net.space (a SimpleNamespace)"),
    "registered pytree": (lambda m, x: setattr(m.batch, "x", x), "net.batch (a Batch)"),
    "registered pytree with slots": (lambda m, x: setattr(m.slotted, "x", x), "net.slotted (a Slotted)"),
    "registered dict": (lambda m, x: m.entries.update(a=x), "net.entries (a Table)"),
    "State": (lambda m, x: m.state.update(a=x), "net.state (a State)"),
    "new in a State": (lambda m, x: setattr(m.state, "new", liftnn.Param(x)), "net.state (a State)"),
    "deleted in a State": (lambda m, x: m.state.pop("a"), "net.state (a State)"),
    "inner State": (lambda m, x: m.state["b"].update(c=x), "net.state.b (a State)"),
    "numpy in place": (lambda m, x: m.table.fill(7), "A numpy array that a captured module holds"),
    "one element": (lambda m, x: m.table.__setitem__(0, 7), "A numpy array that a captured module holds"),
    "array": (lambda m, x: setattr(m, "array", x), "Cannot change the attribute 'array' of "),
}
TRANSFORMS = {
    "jit": liftnn.jit,
    "remat": liftnn.remat,
    "grad": lambda f: liftnn.grad(lambda x: (f(x), x.sum())[1]),
    "vmap": lambda f: lambda x: liftnn.vmap(f)(x[None]),
    "scan": lambda f: lambda x: liftnn.scan(lambda c, y: (c, f(y)))(0.0, x[None]),
    "jit of remat": lambda f: liftnn.jit(liftnn.remat(f)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.sample(5)
def test_a_change_of_a_captured_module_is_refused_and_undone(change, name):
    net = Net()
    act, words = CHANGES[change]

    def f(x):
        net.w.value = net.w * 2
        act(net, x)

    with pytest.raises(liftnn.TraceContextError) as caught:
        TRANSFORMS[name](f)(jnp.ones(2))
    assert words in str(caught.value)
    assert_same(net, Net())
    assert not has_tracer(net)


@pytest.mark.parametrize("change", [c for c in CHANGES if not CHANGES[c][1].startswith("Cannot")])
def test_the_whole_text_says_what_was_changed(change):
    net = Net()
    act, words = CHANGES[change]
    text = (
        f"{words} was changed in liftnn.remat. The function captures it, and only the values of captured Variables "
        f"can be changed.\n{REMEDY}remat."
    )
    with raises(liftnn.TraceContextError, text):
        liftnn.remat(lambda x: act(net, x))(jnp.ones(2))


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.sample(5)
def test_a_change_is_undone_if_the_function_raises_something_else(change, name):
    net = Net()

    def f(x):
        with contextlib.suppress(liftnn.TraceContextError):
            CHANGES[change][0](net, x)
        net.w.value = net.w * 2
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        TRANSFORMS[name](f)(jnp.ones(2))
    assert_same(net, Net())


@pytest.mark.parametrize("change", ["static attribute", "array"])
def test_an_attribute_of_what_was_not_found_beforehand_cannot_be_set(change):
    net = Net()
    nets = itertools.repeat(net)

    def f(x):
        CHANGES[change][0](next(nets), x)
        return next(nets).w * x

    with pytest.raises(liftnn.TraceContextError, match="Cannot change the attribute"):
        liftnn.jit(f)(jnp.ones(2))
    assert_same(net, Net())


@pytest.mark.parametrize("name", ["jit", "remat", "vmap", "jit of remat"])
def test_a_cached_property_of_a_captured_module_is_computed_again(name):
    net, plain = Net(), Net()
    call = TRANSFORMS[name](lambda x: x * net.frequencies * net.size)
    for _ in range(3):
        assert_same(jnp.ravel(call(jnp.ones(2))), plain.frequencies * plain.size)
        assert not has_tracer(net)
    assert_same(net.frequencies, plain.frequencies)


def test_a_cached_property_that_was_computed_before_is_kept():
    net = Net()
    before = net.frequencies
    liftnn.jit(lambda x: x * net.frequencies)(jnp.ones(2))
    assert net.frequencies is before


# --- what leads to a captured module


def leads(make):
    """A holder of a captured module: `make` gives the function, what to look at, and how the message names it."""
    HOLDERS[make.__name__] = make
    return make


HOLDERS = {}


@leads
def plain_list(net):
    nets = [net]
    return lambda: nets.append(nets[0]), lambda: list(nets), "A list that holds captured modules"


@leads
def plain_dict(net):
    nets = {"a": net}
    return lambda: nets.update(a=nets["a"].w), lambda: dict(nets), "A dict that holds captured modules"


@leads
def plain_set(net):
    nets = {net}
    return lambda: nets.clear(), lambda: set(nets), "A set that holds captured modules"


@leads
def plain_deque(net):
    nets = collections.deque([net])
    return lambda: nets.append(1), lambda: list(nets), "A deque that holds captured modules"


@leads
def plain_ordered_dict(net):
    nets = collections.OrderedDict(a=net, b=1)
    return (
        lambda: nets.move_to_end("a"),
        lambda: list(nets.items()),
        "An OrderedDict that holds captured modules",
    )


@leads
def factory_of_a_defaultdict(net):
    CURRENT["net"] = net
    nets = collections.defaultdict(lambda: CURRENT["net"])
    return (
        lambda: setattr(nets, "default_factory", None),
        lambda: nets.default_factory,
        "'default_factory', which holds captured modules,",
    )


CURRENT = {}


@leads
def plain_object(net):
    class Trainer:
        pass

    trainer = Trainer()
    trainer.model = net
    return (
        lambda: setattr(trainer, "model", None),
        lambda: trainer.model,
        "'model', which holds captured modules,",
    )


@leads
def deleted_from_a_plain_object(net):
    class Trainer:
        pass

    trainer = Trainer()
    trainer.model = net
    return lambda: delattr(trainer, "model"), lambda: trainer.model, "'model', which holds captured modules,"


@leads
def plain_class(net):
    class Trainer:
        model = net

    return (
        lambda: setattr(Trainer, "model", None),
        lambda: Trainer.model,
        "'model', which holds captured modules,",
    )


@leads
def slot_of_a_plain_object(net):
    class Trainer:
        __slots__ = ("model",)

    trainer = Trainer()
    trainer.model = net
    return (
        lambda: setattr(trainer, "model", None),
        lambda: trainer.model,
        "'model', which holds captured modules,",
    )


@leads
def cell(net):
    model = net

    def rebind():
        nonlocal model
        model = None

    return rebind, lambda: model, "A variable that holds captured modules"


@leads
def function_default(net):
    def f(*, model=net):
        return model

    return (
        lambda: f.__kwdefaults__.update(model=None),
        lambda: f.__kwdefaults__["model"],
        "'model', which holds captured modules,",
    )


@leads
def function_attribute(net):
    def f():
        return f.model

    f.model = net
    return lambda: f() and setattr(f, "model", None), f, "'model', which holds captured modules,"


@leads
def simple_namespace(net):
    space = types.SimpleNamespace(model=net)
    return (
        lambda: setattr(space, "model", None),
        lambda: space.model,
        "'model', which holds captured modules,",
    )


@leads
def context_variable(net):
    CONTEXT.set(net)
    return lambda: CONTEXT.set(None), CONTEXT.get, "A context variable that holds captured modules"


CONTEXT = contextvars.ContextVar("model")


@pytest.mark.parametrize("name", ["jit", "remat", "grad"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_change_of_what_leads_to_a_captured_module_is_refused_and_undone(holder, name):
    net = Net()
    change, look, words = HOLDERS[holder](net)
    before = look()

    def f(x):
        look()
        change()
        return x

    text = (
        f"{words} was changed in liftnn.{name}. The function captures it, and only the values of captured Variables "
        f"can be changed.\n{REMEDY}{name}."
    )
    with raises(liftnn.TraceContextError, text):
        TRANSFORMS[name](f)(jnp.ones(2))
    assert look() == before


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_leads_to_a_captured_module_is_put_back_if_the_function_raises_something_else(holder):
    net = Net()
    change, look, _ = HOLDERS[holder](net)
    before = look()

    def f(x):
        look()
        change()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        liftnn.jit(f)(jnp.ones(2))
    assert look() == before


# --- numpy arrays, which change in place


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, bool, np.complex64])
def test_a_captured_numpy_array_that_was_changed_in_place_is_seen_by_the_next_call(dtype):
    net = liftnn.Module()
    net.w = liftnn.Param(jnp.ones(2))
    net.table = np.zeros(3, dtype)

    def f(x):
        return x * net.w * sum(hash(str(i)) % 7 for i in net.table.tolist())

    call = liftnn.jit(f)
    for value in (0, 1, 0):
        net.table[1] = value
        assert_same(call(1.0), f(1.0))
        assert_same(call(1.0), f(1.0))


TABLES = {
    "an attribute": (lambda table: table, lambda net: net.table),
    "an element of a tuple": (lambda table: (table, 1), lambda net: net.table[0]),
    "a value": (liftnn.Variable, lambda net: net.table.value),
    "an entry of a value": (lambda table: liftnn.Variable({"t": table}), lambda net: net.table.value["t"]),
    "a value beside a static one": (
        lambda table: liftnn.Variable((table, "static")),
        lambda net: net.table.value[0],
    ),
}
"""Where a module holds a numpy array, and how code reaches it."""


def net_with_table(place):
    net = Net()
    net.table = TABLES[place][0](np.zeros(3))
    return net


@pytest.mark.parametrize("place", TABLES)
@pytest.mark.parametrize("transform", [liftnn.grad, liftnn.value_and_grad, liftnn.jacrev])
def test_a_numpy_array_of_an_argument_is_as_before_if_the_function_raises(transform, place):
    _, table_of = TABLES[place]

    def f(x, net):
        table_of(net)[0] += 1
        raise KeyError("mine")

    net = net_with_table(place)
    with pytest.raises(KeyError, match="mine"):
        transform(f)(1.0, net)
    assert table_of(net).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("place", TABLES)
def test_a_numpy_array_that_a_function_changes_is_changed_once(place):
    hidden = itertools.repeat(Net())
    _, table_of = TABLES[place]

    def f(x, net):
        table_of(net)[0] += 1
        return x * next(hidden).w.sum()

    net = net_with_table(place)
    liftnn.grad(f)(1.0, net)
    assert table_of(net).tolist() == [1.0, 0.0, 0.0]
