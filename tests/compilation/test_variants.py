"""Modes and static arguments that take turns are traced once each, and then neither traced nor flattened again."""

from __future__ import annotations

import itertools
import threading

import jax.numpy as jnp
import pytest

import liftnn
from liftnn._src.lifting import lift
from tests.same import assert_same

X = jnp.ones(3)


class Net(liftnn.Module):
    """A module with a mode, layers with modes, and a few settings."""

    def __init__(self, depth=2):
        self.w = liftnn.Param(jnp.ones(3))
        self.mode = "train"
        self.scale = 1
        self.deterministic = False
        self.calls = liftnn.Variable(jnp.zeros((), jnp.int32))
        self.layers = [Net(depth - 1)] if depth else []

    def __call__(self, x, k=1):
        self.calls.value = self.calls + 1
        for layer in self.layers:
            x = layer(x)
        factor = 2 if self.deterministic else 3
        return x * self.w * self.scale * factor * len(self.mode) * k


class Twice(Net):
    """A module that sets its mode in a method of its own."""

    def train(self, **attributes):
        super().train(**attributes, mode="train")

    def eval(self, **attributes):
        super().eval(**attributes, mode="evaluate")


@pytest.fixture
def opened(monkeypatch):
    """Notes each call that flattens its arguments."""
    calls = []
    open_call = lift.Lifted._flatten_call
    monkeypatch.setattr(
        lift.Lifted, "_flatten_call", lambda self, *a: calls.append(self) or open_call(self, *a)
    )
    return calls


def switch_mode(net, i):
    net.train() if i % 2 else net.eval()


def switch_one_layer(net, i):
    net.layers[0].deterministic = bool(i % 2)


def switch_a_number(net, i):
    net.scale = i % 2


def switch_a_string(net, i):
    net.set_attributes(mode="train" if i % 2 else "eval!")


SWITCHES = (switch_mode, switch_one_layer, switch_a_number, switch_a_string)


@pytest.mark.parametrize("options", [{}, {"donate_argnums": 0}, {"donate_written": True}], ids=str)
@pytest.mark.parametrize("switch, cls", [*((s, Net) for s in SWITCHES), (switch_mode, Twice)])
@pytest.mark.sample(4)
def test_modes_in_turn_are_traced_once_each_and_not_flattened(switch, cls, options, opened):
    net, plain = cls(), cls()
    f = liftnn.jit(lambda m, x: m(x), max_traces=2, **options)
    for i in range(6):
        switch(net, i)
        switch(plain, i)
        assert_same((f(net, X), net), (plain(X), plain))
    opened.clear()
    for i in range(6):
        switch(net, i)
        switch(plain, i)
        assert_same((f(net, X), net), (plain(X), plain))
    assert f.n_traces == 2
    assert opened == []


@pytest.mark.parametrize("switch", SWITCHES)
def test_modes_of_a_captured_module_are_traced_once_each_and_not_flattened(switch, opened):
    net, plain = Net(), Net()
    f = liftnn.jit(lambda x: net(x), max_traces=2)
    for i in range(12):
        if i == 6:
            opened.clear()
        switch(net, i)
        switch(plain, i)
        assert_same((f(X), net), (plain(X), plain))
    assert f.n_traces == 2
    assert opened == []


def test_two_attributes_in_turn_are_traced_four_times(opened):
    net, plain = Net(), Net()
    f = liftnn.jit(lambda m, x: m(x), max_traces=4)
    turns = list(itertools.product((1, 2), (False, True)))
    for i in range(24):
        if i == 12:
            opened.clear()
        net.scale, net.deterministic = plain.scale, plain.deterministic = turns[i % 4]
        assert_same((f(net, X), net), (plain(X), plain))
    assert f.n_traces == 4
    assert opened == []


STATICS = ((1, 2), (1, 2.0), ("a", "bb"), (None, 3), ((1, 2), (1, 3)), (True, False), (len, sum))


@pytest.mark.parametrize("values", STATICS, ids=str)
@pytest.mark.parametrize("by", ["position", "name"])
@pytest.mark.sample(3)
def test_static_arguments_in_turn_are_traced_once_each_and_not_flattened(values, by, opened):
    net, plain = Net(), Net()

    def call(m, x, k):
        return m(x) + len(str(k))

    options = {"static_argnums": 2} if by == "position" else {"static_argnames": "k"}
    f = liftnn.jit(call, max_traces=2, **options)
    for i in range(10):
        if i == 2:
            opened.clear()
        out = f(net, X, values[i % 2]) if by == "position" else f(net, X, k=values[i % 2])
        assert_same((out, net), (call(plain, X, values[i % 2]), plain))
    assert f.n_traces == 2
    assert opened == []


def test_equal_values_of_other_types_are_told_apart(opened):
    net = Net()
    f = liftnn.jit(lambda m, x, k: x * (2 if k is True else 3 if type(k) is int else 4), static_argnums=2)
    for k, factor in [(1, 3), (True, 2), (1.0, 4)] * 3:
        assert f(net, 1.0, k) == factor
        net.scale = k
    g = liftnn.jit(lambda m, x: x * (2 if m.scale is True else 3 if type(m.scale) is int else 4))
    for k, factor in [(1, 3), (True, 2), (1.0, 4)] * 3:
        net.scale = k
        assert g(net, 1.0) == factor


def test_modules_in_turn_are_not_flattened(opened):
    nets, plains = [Net() for _ in range(4)], [Net() for _ in range(4)]
    f = liftnn.jit(lambda m, x: m(x), max_traces=2)
    for i in range(24):
        if i == 12:
            opened.clear()
        net, plain = nets[i % 4], plains[i % 4]
        switch_mode(net, i // 4)
        switch_mode(plain, i // 4)
        assert_same((f(net, X), net), (plain(X), plain))
    assert f.n_traces == 2
    assert opened == []


def test_a_second_module_whose_mode_switches_is_not_flattened(opened):
    student, teacher, plains = Net(), Net(), (Net(), Net())
    f = liftnn.jit(lambda m, t, x: m(x) - t(x), max_traces=2)
    for i in range(12):
        if i == 6:
            opened.clear()
        switch_mode(teacher, i)
        switch_mode(plains[1], i)
        assert_same(f(student, teacher, X), plains[0](X) - plains[1](X))
    assert f.n_traces == 2
    assert opened == []


@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")
def test_a_structural_change_between_two_switches_is_seen():
    net, plain = Net(), Net()
    f = liftnn.jit(lambda m, x: m(x), max_traces=20)
    for i in range(12):
        switch_mode(net, i)
        switch_mode(plain, i)
        if i % 4 == 3:
            for m in (net, plain):
                m.layers.append(Net(0))
        if i % 4 == 1:
            for m in (net, plain):
                m.layers[0].w = liftnn.Param(jnp.full(3, float(i)))
        assert_same((f(net, X), net), (plain(X), plain))


def test_a_switch_inside_of_the_function_is_seen_outside():
    net, plain = Net(), Net()

    def toggle(m, x):
        m.eval() if not m.deterministic else m.train()
        return m(x)

    f = liftnn.jit(toggle, max_traces=2)
    for _ in range(6):
        assert_same((f(net, X), net), (toggle(plain, X), plain))


def test_threads_with_models_of_their_own_in_both_modes_get_what_plain_python_gives():
    f = liftnn.jit(lambda m, x: m(x))
    wrong = []

    def work(start):
        net, plain = Net(1), Net(1)
        for i in range(start, start + 40):
            switch_mode(net, i)
            switch_mode(plain, i)
            if f(net, X).tolist() != plain(X).tolist():
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert f.n_traces == 2


def test_threads_that_read_one_model_with_static_arguments_in_turn_get_what_plain_python_gives():
    net = Net(1)
    f = liftnn.jit(lambda m, x, k: x * m.w * k, static_argnums=2)
    wrong = []

    def work(start):
        for i in range(start, start + 60):
            if f(net, X, i % 3).tolist() != [float(i % 3)] * 3:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert f.n_traces == 3


def test_a_variable_that_each_call_replaces_in_a_model_whose_mode_is_set():
    class Block(liftnn.Module):
        def __init__(self):
            self.w = liftnn.Param(jnp.ones(2))
            self.drop = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))

    def renew(model):
        model.w = liftnn.Param(model.w * 2)
        return model.w.value

    model, reference = Block(), Block()
    call = liftnn.jit(renew)
    for change in (Block.eval, Block.train, Block.eval, lambda model: None) * 3:
        change(model), change(reference)
        for _ in range(2):
            assert_same(call(model), renew(reference))
            assert_same(model, reference)
