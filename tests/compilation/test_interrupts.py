"""An exception out of a signal's handler, at any moment of a call, leaves a model as before it or as after it."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import threading
import time

import jax.numpy as jnp
import pytest

import liftnn
from tests.user_modules import Holder

N = 200


class StopError(BaseException):
    """What the handler raises."""


def raise_stop(*_):
    raise StopError


def make():
    return Holder(
        many=[liftnn.Variable(jnp.zeros((), jnp.int32)) for _ in range(N)], array=jnp.zeros((), jnp.int32)
    )


def add_one(model):
    for v in model.many:
        v.value = v + 1


def add_one_to_few(model):
    for v in model.many[:10]:
        v.value = v + 1


def set_arrays(model):
    add_one(model)
    model.array = model.array + 1


def replace_all(model):
    model.many = [liftnn.Variable(v + 1) for v in model.many]


STEPS = {
    "written out": (add_one_to_few, {}),
    "in a loop": (add_one, {}),
    "with an array": (set_arrays, {}),
    "replaced": (replace_all, {}),
    "written out, donated": (add_one_to_few, {"donate_argnums": 0}),
    "in a loop, donated": (add_one, {"donate_argnums": 0}),
    "with an array, donated": (set_arrays, {"donate_argnums": 0}),
    "replaced, donated": (replace_all, {"donate_argnums": 0}),
}


def is_whole(model, step):
    """Whether all values were written alike."""
    values = {int(v.value) for v in (model.many[:10] if step is add_one_to_few else model.many)}
    return len(values) == 1 and (step is not set_arrays or values == {int(model.array)})


@pytest.fixture
def alarm():
    """Calls the handler after some seconds."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals go to the main thread")
    before = signal.signal(signal.SIGALRM, raise_stop)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    with contextlib.suppress(StopError):
        signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def interrupted(alarm, call, seconds):
    """Makes a call that is interrupted after some seconds, unless it has ended; whether it was interrupted."""
    try:
        alarm(seconds)
        call()
        time.sleep(2 * seconds)
    except StopError:
        return True
    finally:
        with contextlib.suppress(StopError):
            alarm(0)
    return False


@pytest.mark.sample(4)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", STEPS)
def test_a_signal_at_any_moment_leaves_a_whole_model(name, alarm):
    step, options = STEPS[name]
    model = make()
    f = liftnn.jit(step, **options)
    for _ in range(3):
        f(model)
    start = time.perf_counter()
    f(model)
    length, rng = time.perf_counter() - start, random.Random(0)
    stopped = 0
    for _ in range(100):
        stopped += interrupted(alarm, lambda: f(model), max(1e-5, 1.3 * length * rng.random()))
        assert is_whole(model, step)
    assert stopped
    before = int(model.many[0].value)
    f(model)
    assert int(model.many[0].value) == before + 1


# --- the same at each line of the write itself. Code without calls and loops, as it is written out for a few Variables,
# is left out: there Python calls no handler.


class Trace:
    """Raises at one line event in liftnn's files; counts them.

    Args:
      at: Which event; None for none.
      files: Parts of the names of the files.
    """

    def __init__(self, at, files):
        self.at = at
        self.files = files
        self.count = 0

    def __call__(self, frame, event, arg):
        if not any(part in frame.f_code.co_filename for part in self.files):
            return None
        if event == "line":
            self.count += 1
            if self.count - 1 == self.at:
                raise StopError
        return self


WRITING = ("<liftnn fast path>", "compilation/write_back.py")


def traced(call, at=None):
    trace = Trace(at, WRITING)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return trace.count


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", [name for name in STEPS if name != "written out"])
def test_an_exception_at_any_line_of_the_fast_path_leaves_a_whole_model(name):
    step, options = STEPS[name]
    model = make()
    f = liftnn.jit(step, **options)
    for _ in range(3):
        f(model)
    lines = traced(lambda: f(model))
    assert lines
    every = range(lines)
    for at in every if lines < 80 else random.Random(0).sample(every, 80):
        with contextlib.suppress(StopError):
            traced(lambda: f(model), at)
        assert is_whole(model, step), f"line event {at} of {lines}"
    before = int(model.many[0].value)
    f(model)
    assert int(model.many[0].value) == before + 1
