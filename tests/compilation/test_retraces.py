"""Every trace after the first is explained by attribute path: in the log, by max_traces, and once with a warning."""

from __future__ import annotations

import logging
import types
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import liftnn
from liftnn._src.compilation.retraces import Trace, Traces
from tests.user_modules import Affine, Holder

HEAD = "liftnn.jit of forward is traced again (trace {}):\n"
UNCHANGED = (
    "the arguments are unchanged: a function in them wrote to its closure while it was traced, a cache was cleared, "
    "JAX's configuration changed, or threads trace at the same time"
)


@pytest.fixture
def log():
    """The messages of the log, in order."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("liftnn.retrace")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def jitted(f=None, **options):
    f = f or (lambda model, x: model(x))  # a new one: a function that one line wraps again keeps its traces
    f.__qualname__ = "forward"
    return liftnn.jit(f, **options)


def test_the_first_trace_is_not_logged(log):
    call = jitted()
    call(Affine(), 1.0)
    call(Affine(), 2.0)
    assert call.n_traces == 1
    assert log == []


FUNCTIONS = {
    "of a module": (Affine, lambda model, x: model(x)),
    "of arrays": (lambda: jnp.array(2.0), lambda w, x: w * x),
}
"""What makes the first argument, and a function."""


@pytest.mark.parametrize("make, f", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_that_runs_in_plain_python_is_not_traced(log, make, f):
    call, first = jitted(f, max_traces=1), make()
    with jax.disable_jit(), warnings.catch_warnings(action="error"):
        for n in range(1, 10):
            call(first, jnp.ones((n, 3)))
    assert (call.n_traces, log) == (0, [])
    call(first, jnp.ones(3))
    assert call.n_traces == 1


@pytest.mark.parametrize("make, f", FUNCTIONS.values(), ids=FUNCTIONS)
def test_the_search_for_the_line_of_a_nan_is_not_a_trace(make, f, capfd):
    call, first = jitted(lambda first, x: f(first, x) / x, max_traces=1), make()
    with jax.debug_nans(True):
        call(first, jnp.ones(3))
        with pytest.raises(FloatingPointError, match="invalid value"):
            call(first, jnp.zeros(3))
        call(first, jnp.ones(3))
    assert call.n_traces == 1


def test_a_trace_of_a_mutable_array_counts():
    call = liftnn.jit(lambda ref: ref[...] * 2)
    call(jax.new_ref(jnp.ones(3)))
    assert call.n_traces == 1


def test_another_shape_or_dtype_is_logged_with_both(log):
    call, model = jitted(), Affine()
    call(model, jnp.ones(3))
    call(model, jnp.ones((2, 3)))
    call(model, np.ones(3, np.int32))
    call(model, 1.0)
    assert log == [
        HEAD.format(2) + "args[1]: float32[3] -> float32[2, 3]",
        HEAD.format(3) + "args[1]: float32[2, 3] -> int32[3]",
        HEAD.format(4) + "args[1]: int32[3] -> weak float32[]",
    ]


def test_another_sharding_in_the_type_of_an_array_is_logged_with_both(log):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows, whole = (jax.NamedSharding(mesh, spec) for spec in (jax.P("d"), jax.P()))
    total = liftnn.Variable(jnp.zeros(()))  # not on the mesh; what the first step writes is

    def add(total, x):
        total.value += x.sum()

    call = jitted(add)
    with jax.set_mesh(mesh):
        call(total, jax.device_put(jnp.ones(4), rows))
        call(total, jax.device_put(jnp.ones(4), rows))
        call(total, jax.device_put(jnp.ones(4), whole))
    assert log == [
        HEAD.format(2) + "args[0]: float32[] without a mesh -> float32[] with P() on the mesh ('d': 2)",
        HEAD.format(3)
        + "args[1]: float32[4] with P('d',) on the mesh ('d': 2) -> float32[4] with P() on the mesh "
        "('d': 2)",
    ]


def test_another_value_of_a_variable_is_logged_with_its_path(log):
    model = Holder(layers=[Affine()])
    call = jitted(lambda model: model.layers[0].w * 1)
    call(model)
    model.layers[0].w.value = jnp.ones((1, 3))
    call(model)
    model.layers[0].w.value = {"a": jnp.ones(2)}
    with pytest.raises(TypeError, match=r"unsupported operand .*: 'dict' and 'int'"):
        call(model)
    assert log == [HEAD.format(2) + "args[0].layers[0].w: float32[3] -> float32[1, 3]"]


def test_the_nearest_earlier_trace_is_what_a_new_one_is_compared_with(log):
    call, model = jitted(lambda model, x, y: None), Affine()
    call(model, jnp.ones(1), jnp.ones(1))
    call(model, jnp.ones(2), jnp.ones(2))
    call(model, jnp.ones(2), jnp.ones(1))
    assert log[-1] == HEAD.format(3) + "args[2]: float32[2] -> float32[1]"


def test_another_structure_is_logged_with_old_and_new(log):
    call, model = jitted(), Affine()
    model.mode = "train"
    call(model, 1.0)
    model.mode = "eval"
    call(model, 1.0)
    del model.mode
    call(model, 1.0)
    assert log == [
        HEAD.format(2) + "args[0].mode: 'train' -> 'eval'",
        HEAD.format(3) + "args[0].mode: removed, was 'eval'",
    ]


def test_what_a_function_captures_is_logged_by_the_name_in_its_code(log):
    model = Holder(layers=[Affine()], scale=jnp.ones(3))
    call = jitted(lambda x: model.layers[0](x) * model.scale)
    call(1.0)
    model.layers[0].mode = 1
    call(1.0)
    model.scale = jnp.zeros(3)
    call(1.0)
    assert log == [
        HEAD.format(2) + "model.layers[0].mode: 'train' -> 1",
        HEAD.format(3) + "model.scale: an array -> an array with different content",
    ]


def test_a_cleared_cache_is_logged_as_such(log):
    call = jitted()
    call(Affine(), 1.0)
    call.clear_cache()
    call(Affine(), 1.0)
    assert log == [HEAD.format(2) + UNCHANGED]


@pytest.mark.parametrize("steps, logged", [(100.0, []), (100, [HEAD.format(2) + UNCHANGED])])
def test_a_schedule_that_writes_to_its_closure_while_it_is_traced_is_logged_as_such(log, steps, logged):
    def train(model, optimizer):
        optimizer.update(model, liftnn.grad(lambda m: (m.w**2).sum())(model))

    model, step = Affine(), jitted(train)
    optimizer = liftnn.Optimizer(model, optax.sgd(optax.cosine_decay_schedule(0.1, steps)))
    for _ in range(3):
        step(model, optimizer)
    assert log == logged


def test_a_closure_in_an_argument_that_changes_its_variable_is_among_the_causes(log):
    def make_schedule(steps):
        def schedule(x):
            nonlocal steps
            steps = float(steps)  # as optax.cosine_decay_schedule does
            return x / steps

        return schedule

    model = Holder(schedule=make_schedule(10))
    call = jitted(lambda model, x: model.schedule(x))
    for _ in range(3):
        call(model, 1.0)
    assert log == [HEAD.format(2) + UNCHANGED]


def test_the_retrace_that_is_one_too_many_raises_and_changes_nothing():
    call, model = jitted(max_traces=2), Affine()
    for n in (1, 2, 1, 2):
        call(model, jnp.ones((n, 3)))
    calls = int(model.calls.value)
    with pytest.raises(liftnn.RetraceError, match=r"args\[1\]: float32\[2, 3\] -> float32\[3, 3\]"):
        call(model, jnp.ones((3, 3)))
    assert (call.n_traces, int(model.calls.value)) == (2, calls)
    call(model, jnp.ones((1, 3)))


def test_the_fifth_retrace_warns_once_with_the_cause():
    call, model = jitted(), Affine()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(1, 10):
            call(model, jnp.ones((n, 3)))
    assert [w.category for w in caught] == [liftnn.RetraceWarning]
    assert str(caught[0].message) == (
        "liftnn.jit of forward is traced again (trace 6); this time because of\n"
        "args[1]: float32[5, 3] -> float32[6, 3]"
    )


def test_a_captured_object_that_is_found_late_counts_as_one_trace(log):
    model = Affine()
    reference = weakref.ref(model)  # no look at the function finds what it refers to
    call = jitted(lambda x: reference()(x))
    call(1.0)
    assert call.n_traces == 1
    assert log == []


class Trainer:
    """A plain object."""

    def __init__(self, model):
        self.model = model


def call_first(held, x):
    """Call the module that a container or a plain object holds."""
    while not isinstance(held, liftnn.Module):
        held = (
            held.model
            if isinstance(held, Trainer)
            else next(iter(held.values() if hasattr(held, "values") else held))
        )
    return held(x)


@pytest.mark.parametrize(
    "make, change, logged",
    [
        (
            lambda m: {"m": m},
            lambda held: held.update(rate=0.5),
            "held: a dict with 'm' -> a dict with 'm', 'rate'",
        ),
        (lambda m: [m], lambda held: held.append(0.5), "held: a list of 1 -> a list of 2"),
        (
            lambda m: [{"ms": (m, [m])}],
            lambda held: held[0]["ms"][1].append(0),
            "held[0]['ms'][1]: a list of 1 -> a list of 2",
        ),
        (lambda m: [m, m], lambda held: held.insert(0, held.pop()), None),
        (
            lambda m: {"a": m, "b": Affine()},
            lambda held: held.update(a=held.pop("a")),
            "held: a dict with 'a', 'b' -> a dict with 'b', 'a'",
        ),
        (lambda m: Trainer([m]), lambda held: held.model.append(1), "held.model: a list of 1 -> a list of 2"),
        (lambda m: [*[m] * 20], lambda held: held.append(1), "held: a list of 20 -> a list of 21"),
        (
            lambda m: dict.fromkeys("abcdefghij", m),
            lambda held: held.pop("j"),
            (
                "held: a dict with 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', and 2 more -> "
                "a dict with 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', and 1 more"
            ),
        ),
    ],
)
def test_a_container_that_holds_a_captured_module_is_named(log, make, change, logged):
    held = make(Affine())
    call = jitted(lambda x: call_first(held, x))
    call(1.0)
    change(held)
    call(1.0)
    causes = "\n".join(log).removeprefix(HEAD.format(2)).splitlines()
    assert causes[:1] == ([] if logged is None else [logged])


def test_an_array_of_a_captured_module_is_named(log):
    model = Holder(parts=[Holder(scale=jnp.ones(3), other=np.ones(3))])
    call = jitted(lambda x: model.parts[0].scale * model.parts[0].other * x)
    call(1.0)
    model.parts[0].scale = jnp.zeros(3)
    call(1.0)
    model.parts[0].other[0] = 2
    call(1.0)
    assert log == [
        HEAD.format(2) + "model.parts[0].scale: an array -> an array with different content",
        HEAD.format(3) + "model.parts[0].other: an array -> an array with different content",
    ]


def test_a_trace_that_another_thread_ends_in_the_middle_of_an_explanation_does_no_harm():
    traces = Traces("liftnn.jit of forward", None)

    class Graph:
        """A structure that takes its time to be compared: meanwhile another trace ends."""

        def __eq__(self, other: object) -> bool:
            traces._recent.append(last)
            return True

    one, two = [(jax.tree.structure(0), [((size,), jnp.float32, False)]) for size in (1, 2)]
    last = Trace(types.SimpleNamespace(graph=Graph(), slots=(0,), name=str), (one,))
    traces._end(last)
    traces._end(last._replace(types=(two,)))
    assert traces.count == 2
