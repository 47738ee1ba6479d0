"""Loops and branches in plain Python are traced once, and each call does what the Python loop does."""

from __future__ import annotations

import gc
import warnings
import weakref

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn import Carry

TRACES: list[str] = []


class Counter(liftnn.Module):
    def __init__(self, step=1.0):
        self.total = liftnn.Variable(jnp.zeros(()))
        self.step = step
        self.others: list[liftnn.Variable] = []

    def add(self, x):
        TRACES.append("add")
        self.total.value = self.total + self.step * x + sum(v.value for v in self.others)
        return x

    def add_and_return(self, x):
        self.add(x)
        return self


def add(counter, x):
    return counter, counter.add(x)


def add_index(i, counter):
    return counter.add_and_return(1.0)


def is_small(counter):
    return counter.total < 3.0


def add_one(counter):
    return counter.add_and_return(1.0)


def leave(counter):
    return counter


def add_captured(i, x):
    CAPTURED.add(1.0)
    return x


CAPTURED = Counter()
XS = jnp.ones(3)

CALLS = {
    "scan": (lambda m: liftnn.scan(add)(m, XS), lambda m: [m.add(1.0) for _ in range(3)]),
    "scan of a method": (
        lambda m: liftnn.scan(m.add, in_axes=0, out_axes=0)(XS),
        lambda m: [m.add(1.0) for _ in range(3)],
    ),
    "fori_loop": (
        lambda m: liftnn.fori_loop(0, 3, add_index, m),
        lambda m: [m.add(1.0) for _ in range(3)],
    ),
    "while_loop": (
        lambda m: liftnn.while_loop(is_small, add_one, m),
        lambda m: [m.add(1.0) for _ in range(10) if m.total < 3.0],
    ),
    "while_loop with max_steps": (
        lambda m: liftnn.while_loop(is_small, add_one, m, max_steps=2),
        lambda m: [m.add(1.0) for _ in range(2) if m.total < 3.0],
    ),
    "cond": (lambda m: liftnn.cond(m.total < 3.0, add_one, leave, m), lambda m: m.total < 3.0 and m.add(1.0)),
    "switch": (lambda m: liftnn.switch(jnp.array(1), [leave, add_one], m), lambda m: m.add(1.0)),
    "cond of methods": (
        lambda m: liftnn.cond(m.total < 3.0, m.add_and_return, m.add_and_return, 1.0),
        lambda m: m.add(1.0),
    ),
}


def change_value(m):
    m.total.value = jnp.float32(-2.0)


def change_static(m):
    m.step = 2.0


def change_structure(m):
    m.others.append(liftnn.Variable(jnp.ones(())))


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_traces_nothing_and_sees_every_change(name):
    call, plain = CALLS[name]
    m, expected = Counter(), Counter()

    def both():
        before = len(TRACES)
        call(m)
        traces = len(TRACES) - before
        plain(expected)
        assert float(m.total.value) == float(expected.total.value)
        return traces

    both()
    assert both() == 0
    for change in (change_value, change_static, change_structure):
        change(m)
        change(expected)
        both()
    assert both() == 0


def test_calls_of_other_instances_share_the_trace():
    call, _ = CALLS["scan"]
    call(Counter())
    before = len(TRACES)
    call(Counter())
    assert len(TRACES) == before


def test_a_captured_module_is_read_and_written_in_each_call():
    CAPTURED.total.value = jnp.zeros(())
    x = liftnn.Variable(jnp.ones(()))
    for n in range(1, 4):
        liftnn.fori_loop(0, 2, add_captured, x)
        assert float(CAPTURED.total.value) == 2.0 * n


def test_another_shape_is_traced_once_more():
    m = Counter()
    for n in (3, 4, 3, 4):
        liftnn.scan(add)(m, jnp.ones(n))
    assert float(m.total.value) == 14.0
    before = len(TRACES)
    liftnn.scan(add)(m, jnp.ones(4))
    assert len(TRACES) == before


def test_many_shapes_give_no_warning_since_all_calls_of_a_layer_may_share_a_step():
    m = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(2, 10):
            liftnn.scan(add)(m, jnp.ones(n))
    assert float(m.total.value) == sum(range(2, 10))


def test_an_exception_changes_nothing_and_the_next_call_works():
    m = Counter()
    fails = [True]

    def step(m, x):
        m.add(x)
        if fails:
            raise ValueError("no")
        return m, x

    with pytest.raises(ValueError, match="no"):
        liftnn.scan(step)(m, XS)
    assert float(m.total.value) == 0.0
    fails.clear()
    liftnn.scan(step)(m, XS)
    assert float(m.total.value) == 3.0


def test_a_function_that_reads_the_value_of_a_shared_array_works_as_in_jax():
    m = Counter()

    def step(m, x, flag):
        return m, x * (2.0 if flag else 1.0)

    loop = liftnn.scan(step, in_axes=(0, 0, None), out_axes=(0, 0))
    layers = liftnn.vmap(lambda i: Counter(), axis_size=3, in_axes=None)(0)
    for flag in (True, False, True):
        _, y = loop(layers, XS, jnp.array(flag))
        assert y.tolist() == [2.0 if flag else 1.0] * 3
    del m


def test_nothing_is_kept_when_function_and_module_are_gone():
    class Local(Counter):
        pass

    m = Local()

    def step(m, x):
        m.self = m  # a cycle
        m.add(x)
        return m, x

    for _ in range(3):
        liftnn.scan(step)(m, XS)
    references = weakref.ref(m), weakref.ref(step)
    del m, step
    gc.collect()
    assert [r() for r in references] == [None, None]


def test_under_disable_jit_the_steps_run_in_python():
    m = Counter()
    with jax.disable_jit():
        before = len(TRACES)
        liftnn.fori_loop(0, 3, add_index, m)
        assert len(TRACES) == before + 3
    assert float(m.total.value) == 3.0


def test_a_keyword_and_a_static_argument_are_accepted():
    m = Counter()

    def step(m, x, *, by, name=None):
        m.add(by * x)
        assert name in (None, "static")
        return m, x

    for _ in range(2):
        loop = liftnn.scan(step, in_axes=(Carry, 0))
        loop(m, XS, by=jnp.full(3, 2.0))
    assert float(m.total.value) == 12.0


@pytest.mark.parametrize(
    "call",
    [
        lambda body: liftnn.scan(body, in_axes=(liftnn.Carry, 0), out_axes=liftnn.Carry)(
            jnp.ones(()), jnp.ones(3)
        ),
        lambda body: liftnn.fori_loop(0, 3, lambda i, c: body(c, i), jnp.ones(())),
        lambda body: liftnn.cond(jnp.array(True), lambda c: body(c, 1), lambda c: c, jnp.ones(())),
    ],
    ids=["scan", "fori_loop", "cond"],
)
def test_a_body_that_branches_on_its_carry_is_run_once_before_the_error(call):
    runs = []

    def body(carry, x):
        runs.append(x)
        return carry if carry > 0 else carry + x

    with pytest.raises(jax.errors.TracerBoolConversionError, match="while tracing the function"):
        call(body)

    assert len(runs) == 1


class WithSet(liftnn.Module):
    """A module that no transform takes."""

    def __init__(self):
        self.parts = {liftnn.Module()}

    def __call__(self, x):
        return x

    def scanned(self, carry, x):
        return carry, x

    def body(self, i, x):
        return x


NAMED = {
    "cond": (lambda m: liftnn.cond(True, add, add, m, 1.0), "operands[0]"),
    "cond of a method": (lambda m: liftnn.cond(True, abs_of, m.__call__, 1.0), "false_fun.__self__"),
    "cond of a module": (lambda m: liftnn.cond(True, m, abs_of, 1.0), "true_fun"),
    "switch": (lambda m: liftnn.switch(0, [add], 1.0, m), "operands[1]"),
    "switch of a method": (lambda m: liftnn.switch(0, [abs_of, m.__call__], 1.0), "branches[1].__self__"),
    "fori_loop": (lambda m: liftnn.fori_loop(0, 3, add_index, m), "init_val"),
    "fori_loop of a method": (lambda m: liftnn.fori_loop(0, 3, m.body, 1.0), "body_fun.__self__"),
    "while_loop": (lambda m: liftnn.while_loop(is_small, leave, (1.0, m)), "init_val[1]"),
    "while_loop of a method": (lambda m: liftnn.while_loop(is_small, m.__call__, 1.0), "body_fun.__self__"),
    "scan": (lambda m: liftnn.scan(add)(m, XS), "args[0]"),
    "scan, by keyword": (lambda m: liftnn.scan(add)(1.0, XS, m=m), "kwargs['m']"),
    "scan of a method": (lambda m: liftnn.scan(m.scanned)(1.0, XS), "args[0]"),
    "argument of a scan of a method": (lambda m: liftnn.scan(Counter().add)(m, XS), "args[1]"),
    "map": (lambda m: liftnn.map(leave, {"m": m}), "args[0].m"),
    "map of a module": (lambda m: liftnn.map(m, XS), "args[0]"),
}


def abs_of(x):
    return abs(x)


@pytest.mark.parametrize("case", NAMED)
def test_messages_name_the_arguments_of_the_loop_or_branch(case):
    call, name = NAMED[case]
    with pytest.raises(liftnn.StructureError) as caught:
        call(WithSet())
    assert str(caught.value).partition(":")[0] == f"{name}.parts"
