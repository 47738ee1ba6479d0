"""Plain objects in modules: instances of the user's classes, which may change between calls without liftnn's notice."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import logging
import threading
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.user_modules import Holder


class Config:
    """A plain class without `__eq__`, as users write it for options."""

    def __init__(self, **options):
        self.__dict__.update(options)


class Slotted:
    __slots__ = ("rate",)

    def __init__(self, rate):
        self.rate = rate


class Proxy:
    """A class that reads its attributes elsewhere."""

    def __init__(self, **options):
        self._options = options

    def __getattr__(self, name):
        return self._options[name]


class Schedule:
    """A class with a method that reads an attribute."""

    def __init__(self):
        self.count = 1

    def rate(self):
        return 1.0 / self.count


class Rates(list):
    """A list with attributes."""


class Table(dict):
    """A dict with attributes."""


class Pair(tuple):
    """A tuple with attributes."""


class Indexed:
    def __init__(self):
        self._entries = {"rate": 2.0}

    def __getitem__(self, key):
        return self._entries[key]

    def __setitem__(self, key, value):
        self._entries[key] = value


@dataclasses.dataclass(frozen=True)
class Frozen:
    inner: Config


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


def rate_of(config):
    """A function that a method calls: it reads the attribute for the method."""
    return config.rate


class Noted:
    """A class with `__eq__` and `__hash__` by name, as configuration libraries have it."""

    def __init__(self, rate):
        self.name, self.rate = "noted", rate

    def __eq__(self, other):
        return isinstance(other, Noted) and self.name == other.name

    def __hash__(self):
        return hash(self.name)


class Unhashable(Noted):
    """A class with `__eq__` by name, and so without a hash."""

    __hash__ = None


CASES = {}


def case(make):
    """A case gives an object, what a method computes from it, and changes of it; the plain method is the oracle."""
    CASES[make.__name__] = make
    return make


@case
def attribute():
    config = Config(rate=2.0)
    return (
        config,
        lambda c, x: c.rate * x,
        [lambda: setattr(config, "rate", 3.0), lambda: vars(config).update(rate=4)],
    )


@case
def type_of_an_attribute():
    config = Config(rate=1)
    return (
        config,
        lambda c, x: x * len(repr(c.rate)),
        [
            lambda: setattr(config, "rate", 1.0),
            lambda: setattr(config, "rate", True),
        ],
    )


@case
def attribute_in_a_helper():
    config = Config(rate=2.0)
    return config, lambda c, x: rate_of(c) * x, [lambda: setattr(config, "rate", 3.0)]


@case
def attributes_by_names_in_a_set():
    config = Config(rate=2.0, scale=1.0)
    return (
        config,
        lambda c, x: sum(getattr(c, name) for name in {"rate", "scale"}) * x,
        [lambda: setattr(config, "rate", 3.0)],
    )


@case
def attributes_of_containers_in_an_object():
    config = Config(rates=Rates([1.0]), table=Table(a=2.0), pair=Pair((1.0, 2.0)))
    config.rates.factor = config.table.factor = config.pair.factor = 1.0
    return (
        config,
        lambda c, x: (
            (c.rates[0] * c.rates.factor + c.table["a"] * c.table.factor + c.pair[0] * c.pair.factor) * x
        ),
        [
            lambda: setattr(config.rates, "factor", 2.0),
            lambda: setattr(config.table, "factor", 3.0),
            lambda: setattr(config.pair, "factor", 4.0),
        ],
    )


@case
def attribute_by_getattr():
    config = Config(rate=2.0)
    return (
        config,
        lambda c, x: getattr(c, "rate", 0.5) * x,
        [
            lambda: setattr(config, "rate", 3.0),
            lambda: delattr(config, "rate"),
            lambda: setattr(config, "rate", 4.0),
        ],
    )


@case
def attribute_by_vars():
    config = Config(rate=2.0)
    return (
        config,
        lambda c, x: sum(vars(c).values()) * x,
        [
            lambda: setattr(config, "rate", 3.0),
            lambda: setattr(config, "other", 1.0),
        ],
    )


@case
def new_attribute_dictionary():
    config = Config(rate=2.0)
    return config, lambda c, x: c.rate * x, [lambda: setattr(config, "__dict__", {"rate": 3.0})]


@case
def attribute_over_that_of_the_class():
    class Options:
        rate = 2.0

    config = Options()
    return (
        config,
        lambda c, x: c.rate * x,
        [
            lambda: setattr(config, "rate", 3.0),
            lambda: delattr(config, "rate"),
        ],
    )


@case
def slot():
    config = Slotted(2.0)
    return config, lambda c, x: c.rate * x, [lambda: setattr(config, "rate", 3.0)]


@case
def method():
    schedule = Schedule()
    return schedule, lambda s, x: s.rate() * x, [lambda: setattr(schedule, "count", 2)]


@case
def attributes_read_elsewhere():
    proxy = Proxy(rate=2.0)
    return proxy, lambda p, x: p.rate * x, [lambda: proxy._options.update(rate=3.0)]


@case
def items():
    indexed = Indexed()
    return indexed, lambda i, x: i["rate"] * x, [lambda: indexed.__setitem__("rate", 3.0)]


@case
def object_in_an_object():
    config = Config(optimizer=Config(rate=2.0))
    return (
        config,
        lambda c, x: c.optimizer.rate * x,
        [
            lambda: setattr(config.optimizer, "rate", 3.0),
            lambda: setattr(config, "optimizer", Config(rate=4.0)),
            lambda: setattr(config.optimizer, "rate", 5.0),
        ],
    )


@case
def list_in_an_object():
    config = Config(sizes=[2, 3])
    return (
        config,
        lambda c, x: sum(c.sizes) * x,
        [
            lambda: config.sizes.append(4),
            lambda: config.sizes.__setitem__(0, 7),
            lambda: setattr(config, "sizes", [1]),
        ],
    )


@case
def nested_containers():
    config = Config(table={"a": [1, {"b": (2, [3])}]})
    return (
        config,
        lambda c, x: c.table["a"][1]["b"][1][0] * x,
        [
            lambda: config.table["a"][1]["b"][1].__setitem__(0, 4),
            lambda: config.table.update(a=[0, {"b": (2, [5])}]),
        ],
    )


@case
def objects_in_a_list_of_an_object():
    config = Config(stages=[Config(rate=2.0), Config(rate=3.0)])
    return (
        config,
        lambda c, x: sum(s.rate for s in c.stages) * x,
        [
            lambda: setattr(config.stages[1], "rate", 5.0),
            lambda: config.stages.append(Config(rate=1.0)),
        ],
    )


@case
def set_and_deque():
    config = Config(names={"a"}, recent=collections.deque([1]))
    return (
        config,
        lambda c, x: (len(c.names) + sum(c.recent)) * x,
        [
            lambda: config.names.add("b"),
            lambda: config.recent.append(5),
        ],
    )


@case
def namespaces_in_an_object():
    config = Config(
        a=types.SimpleNamespace(k=2.0), b=argparse.Namespace(k=3.0), d=collections.UserDict(k=1.0)
    )
    return (
        config,
        lambda c, x: (c.a.k + c.b.k + c.d["k"]) * x,
        [
            lambda: setattr(config.a, "k", 5.0),
            lambda: setattr(config.b, "k", 7.0),
            lambda: config.d.update(k=9.0),
        ],
    )


@case
def proxy_of_a_dict_in_an_object():
    options = {"rate": 2.0}
    config = Config(options=types.MappingProxyType(options))
    return config, lambda c, x: c.options["rate"] * x, [lambda: options.update(rate=3.0)]


@case
def frozen_dataclass_in_an_object():
    inner = Config(rate=2.0)
    config = Config(frozen=Frozen(inner))
    return config, lambda c, x: c.frozen.inner.rate * x, [lambda: setattr(inner, "rate", 3.0)]


@case
def function_in_an_object():
    config = Config(activation=double)
    return config, lambda c, x: c.activation(x), [lambda: setattr(config, "activation", triple)]


@case
def closure_in_an_object():
    rate = 2.0

    def scale(x):
        return rate * x

    def change():
        nonlocal rate
        rate = 3.0

    return Config(scale=scale), lambda c, x: c.scale(x), [change]


@case
def defaults_by_name_and_attributes_of_a_function_in_an_object():
    def scale(x, *, rate=2.0):
        return rate * x * scale.factor

    def replace_defaults():
        scale.__kwdefaults__ = {"rate": 5.0}

    scale.factor = 1.0
    changes = [
        lambda: scale.__kwdefaults__.update(rate=3.0),
        replace_defaults,
        lambda: setattr(scale, "factor", 4.0),
    ]
    return Config(scale=scale), lambda c, x: c.scale(x), changes


@case
def cycle_of_objects():
    config = Config(rate=2.0)
    config.me = config
    config.all = [config]
    config.all.append(config.all)
    return config, lambda c, x: c.me.all[0].rate * x, [lambda: setattr(config, "rate", 3.0)]


@case
def none_that_becomes_an_object():
    config = Config(inner=None)
    return (
        config,
        lambda c, x: x if c.inner is None else c.inner.rate * x,
        [
            lambda: setattr(config, "inner", Config(rate=3.0)),
            lambda: setattr(config.inner, "rate", 4.0),
            lambda: setattr(config, "inner", None),
        ],
    )


@case
def in_a_tuple():
    config = Config(rate=2.0)
    return (config, 1), lambda pair, x: pair[0].rate * x, [lambda: setattr(config, "rate", 3.0)]


@case
def in_a_list():
    config = Config(rate=2.0)
    return [config], lambda configs, x: configs[0].rate * x, [lambda: setattr(config, "rate", 3.0)]


@case
def in_a_function():
    config = Config(rate=2.0)
    return (lambda x: config.rate * x), lambda f, x: f(x), [lambda: setattr(config, "rate", 3.0)]


@case
def in_a_partial():
    config = Config(rate=2.0)
    return (
        functools.partial(lambda c, x: c.rate * x, config),
        lambda f, x: f(x),
        [lambda: setattr(config, "rate", 3.0)],
    )


@case
def weak_reference():
    config = Config(rate=2.0)
    model_of = weakref.ref(config)
    return model_of, lambda reference, x: reference().rate * x, [lambda: setattr(config, "rate", 3.0)]


@case
def bound_method():
    schedule = Schedule()
    return schedule.rate, lambda rate, x: rate() * x, [lambda: setattr(schedule, "count", 2)]


@case
def equal_by_name():
    config = Noted(2.0)
    return config, lambda c, x: c.rate * x, [lambda: setattr(config, "rate", 3.0)]


@case
def equal_by_name_and_unhashable():
    config = Unhashable(2.0)
    return config, lambda c, x: c.rate * x, [lambda: setattr(config, "rate", 3.0)]


class Model(liftnn.Module):
    def __init__(self, config, compute):
        self.config = config
        self.compute = compute
        self.w = liftnn.Param(jnp.float32(1.0))

    def __call__(self, x):
        return self.compute(self.config, x) + 0 * self.w


def passed(model):
    return liftnn.jit(lambda m, x: m(x)), (model,)


def captured(model):
    return liftnn.jit(lambda x: model(x)), ()


def bound(model):
    return liftnn.jit(model.__call__), ()


def in_a_dict(model):
    return liftnn.jit(lambda ms, x: ms["a"](x)), ({"a": model},)


def nested(model):
    return liftnn.jit(lambda m, x: liftnn.remat(lambda m, x: m(x))(m, x)), (model,)


WAYS = (passed, captured, bound, in_a_dict, nested)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(3)
def test_a_change_of_a_plain_object_is_seen(name, way):
    config, compute, changes = CASES[name]()
    model = Model(config, compute)
    f, args = way(model)
    x = jnp.float32(3.0)
    for change in (lambda: None, *changes):
        change()
        for _ in range(3):  # the first call, one on the slow path, and one on the fast path
            np.testing.assert_allclose(f(*args, x), compute(config, x))


class Logger:
    def __init__(self):
        self.count = 0
        self.history = []

    def log(self, x):
        self.count += 1
        self.history.append(x.shape)


def test_what_a_trace_writes_causes_no_retrace():
    model = Model(Logger(), lambda logger, x: logger.log(x) or x)
    f = liftnn.jit(lambda m, x: m(x))
    for _ in range(4):
        f(model, jnp.float32(1.0))
    assert f.n_traces == 1
    assert model.config.count == 1
    f(model, jnp.ones(3))
    assert f.n_traces == 2
    f(model, jnp.float32(1.0))
    f(model, jnp.ones(3))
    assert f.n_traces == 2


def test_what_the_code_does_not_name_causes_no_retrace():
    config = Config(rate=2.0, steps_so_far=0, lock=threading.Lock())
    model = Model(config, lambda c, x: c.rate * x)
    f = liftnn.jit(lambda m, x: m(x))
    for _ in range(4):
        f(model, jnp.float32(1.0))
        config.steps_so_far += 1
        config.lock = threading.Lock()
    assert f.n_traces == 1


def test_a_trace_may_drop_the_object():
    config = Config(rate=2.0)

    def scale(x):
        nonlocal config
        rate = 1.0 if config is None else config.rate
        config = None
        return rate * x

    model = Holder(scale=scale, w=liftnn.Param(jnp.float32(1.0)))
    f = liftnn.jit(lambda m, x: m.scale(x) * m.w)
    assert f(model, 1.0) == 2.0
    assert [f(model, 1.0) for _ in range(3)] == [1.0, 1.0, 1.0]


def test_an_object_that_the_code_does_not_read_causes_no_retrace():
    trainer = Config(rate=2.0, config=None)
    model = Model(Config(rate=2.0), lambda c, x: c.rate * x)
    model.trainer = trainer
    f = liftnn.jit(lambda m, x: m(x))
    for i in range(4):
        trainer.rate = i
        f(model, jnp.float32(1.0))
    assert f.n_traces == 1


class Slope:
    """An activation function with a number."""

    def __init__(self):
        self.slope = 2.0

    def __call__(self, x):
        return self.slope * x


def sequential(slope):
    return liftnn.Sequential(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), slope)


def recurrent(slope):
    cell = liftnn.SimpleCell(2, 3, activation_fn=slope, rngs=liftnn.Rngs(0))
    return Holder(cell=cell)


@pytest.mark.parametrize("make", [sequential, recurrent])
def test_an_object_that_a_layer_of_liftnn_calls_is_compared(make):
    slope = Slope()
    model = make(slope)

    def compute(model, x):
        return model(x) if make is sequential else model.cell(jnp.ones(3), x)[1]

    f = liftnn.jit(compute)
    for value in (2.0, 3.0):
        slope.slope = value
        np.testing.assert_allclose(f(model, jnp.ones(2)), compute(model, jnp.ones(2)), rtol=1e-6)
    assert f.n_traces == 2


def test_each_content_is_traced_once():
    config = Config(is_training=True)
    model = Model(config, lambda c, x: x if c.is_training else 2 * x)
    f = liftnn.jit(lambda m, x: m(x))
    for i in range(8):
        config.is_training = i % 2 == 0
        assert f(model, 1.0) == (1.0 if config.is_training else 2.0)
    assert f.n_traces == 2


def test_an_equal_value_causes_no_retrace():
    config = Config(sizes=[1, 2], rate=0.5)
    model = Model(config, lambda c, x: sum(c.sizes) * x * c.rate)
    f = liftnn.jit(lambda m, x: m(x))
    for _ in range(4):
        config.sizes = [1, 2]
        config.rate = float("0.5")
        f(model, 1.0)
    assert f.n_traces == 1


def test_the_cause_of_the_retrace_is_named(caplog):
    config = Config(optimizer=Config(rate=0.5))
    model = Model(config, lambda c, x: c.optimizer.rate * x)
    f = liftnn.jit(lambda m, x: m(x))
    f(model, 1.0)
    config.optimizer.rate = 0.25
    with caplog.at_level(logging.INFO, logger="liftnn.retrace"):
        f(model, 1.0)
    assert caplog.messages[-1].endswith("\nargs[0].config.optimizer.rate: 0.5 -> 0.25")


def test_a_loop_outside_of_jit_sees_a_change():
    config = Config(rate=2.0)
    model = Model(config, lambda c, x: c.rate * x)

    def body(model, x):
        return model, model(x)

    scan = liftnn.scan(body)
    np.testing.assert_allclose(scan(model, jnp.ones(2))[1], [2.0, 2.0])
    config.rate = 3.0
    np.testing.assert_allclose(scan(model, jnp.ones(2))[1], [3.0, 3.0])


def test_objects_that_are_equal_by_their_own_rule_share_a_trace():
    f = liftnn.jit(lambda m, x: m(x))
    compute = rate_times
    for _ in range(2):
        f(Model(Noted(2.0), compute), 1.0)
    assert f.n_traces == 1


def rate_times(config, x):
    return config.rate * x


def test_no_user_code_runs_to_compare():
    class Touchy:
        def __init__(self):
            object.__setattr__(self, "rate", 2.0)

        def __getattribute__(self, name):
            if name in ("rate", "__class__"):
                return object.__getattribute__(self, name)
            raise AssertionError(name)

        __hash__ = object.__hash__

        def __eq__(self, other):
            return self is other

    model = Model(Touchy(), rate_times)
    f = liftnn.jit(lambda m, x: m(x))
    assert [f(model, 1.0) for _ in range(3)] == [2.0] * 3


def test_a_changed_object_does_not_keep_its_old_arrays():
    config = Config(mean=jnp.ones(3))
    model = Model(config, lambda c, x: c.mean.sum() * x)
    f = liftnn.jit(lambda m, x: m(x))
    old = weakref.ref(config.mean)
    f(model, 1.0)
    config.mean = jnp.zeros(3)
    assert f(model, 1.0) == 0.0
    del model
    f.clear_cache()
    jax.clear_caches()
    assert old() is None


def test_a_static_mutable_mapping_with_a_hash_is_compared_by_content():
    class Mapping(collections.abc.MutableMapping):
        """A mapping as in OmegaConf: hashable by content, which can change."""

        def __init__(self, **entries):
            self._entries = entries

        def __getitem__(self, key):
            return self._entries[key]

        def __setitem__(self, key, value):
            self._entries[key] = value

        def __delitem__(self, key):
            del self._entries[key]

        def __iter__(self):
            return iter(self._entries)

        def __len__(self):
            return len(self._entries)

        def __hash__(self):
            return hash(tuple(self._entries.items()))

    mapping = Mapping(rate=2.0)
    model = Model(mapping, lambda c, x: c["rate"] * x)
    f = liftnn.jit(lambda m, x: m(x))
    for rate in (2.0, 3.0, 3.0, 2.0):
        mapping["rate"] = rate
        assert f(model, 1.0) == rate


def test_an_object_that_is_compared_by_its_own_rule_is_not_copied_in_each_call():
    n_copies = 0

    class Options:
        """Unhashable, since it defines `__eq__`, as argparse.Namespace and the configurations of many libraries."""

        def __init__(self, rate):
            self.rate = rate

        def __eq__(self, other):
            return isinstance(other, Options) and self.rate == other.rate

        def __deepcopy__(self, memo):
            nonlocal n_copies
            n_copies += 1
            return Options(self.rate)

    options = Options(2.0)
    model = Model(options, rate_times)
    f = liftnn.jit(lambda m, x: m(x))
    results = [f(model, 1.0) for _ in range(3)]
    before = n_copies
    results += [f(model, 1.0) for _ in range(3)]
    assert n_copies == before
    options.rate = 3.0
    assert [*results, f(model, 1.0)] == [2.0] * 6 + [3.0]


def test_a_holder_of_thousands_of_numbers_is_cheap_to_compare():
    config = Config(data=list(range(2_000_000)), rate=2.0)
    model = Holder(config=config, w=liftnn.Param(jnp.float32(1.0)))
    f = liftnn.jit(lambda m, x: m.config.rate * m.config.data[0] * x)
    assert f(model, 1.0) == 0.0
    config.rate = 3.0
    assert f(model, 1.0) == 0.0
    config.data.append(1)
    assert f(model, 1.0) == 0.0
    assert f.n_traces == 3
