"""Threads: models of their own do not disturb each other, and one shared model is never corrupted."""

from __future__ import annotations

import ast
import collections
import concurrent.futures
import dis
import inspect
import pathlib
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn._src.compilation import programs
from liftnn._src.variables import frames
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder

N = 8


@pytest.fixture(autouse=True)
def _switch_often():
    """Threads take turns every few instructions."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def run(function):
    """What `function(number)` returns in each of eight threads that start at once; raises what one of them raises."""
    barrier = threading.Barrier(N)

    def start(number):
        barrier.wait()
        return function(number)

    with concurrent.futures.ThreadPoolExecutor(N) as executor:
        return [f.result() for f in [executor.submit(start, i) for i in range(N)]]


def train(model, x):
    grads = liftnn.grad(lambda m: m.loss(x))(model)
    model.w.value = model.w - 0.01 * grads["w"]
    return model(x)


def grow(model, x):
    model.layers.append(Affine())
    model.w = liftnn.Param(model.w * x)
    model.steps = len(model.layers)
    return x


def grown(value):
    model = Affine(value)
    model.layers = []
    return model


def repeated(call, model, times):
    for _ in range(times):
        call(model, 2.0)
    return model


WAYS = {
    "one jitted function": lambda f: (lambda jitted: lambda: jitted)(liftnn.jit(f)),
    "a jitted function each": lambda f: lambda: liftnn.jit(lambda m, x: f(m, x)),
    "donating": lambda f: (lambda jitted: lambda: jitted)(liftnn.jit(f, donate_argnums=0)),
    "vmap": lambda f: (
        lambda: (
            lambda m, x: liftnn.vmap(lambda m, x, y: f(m, x), in_axes=(None, None, 0))(m, x, jnp.arange(2.0))
        )
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("f, build", [(train, Affine), (grow, grown)], ids=["train", "grow"])
@pytest.mark.sample(9)
def test_threads_with_models_of_their_own_do_what_one_thread_does(f, build, way):
    make = WAYS[way](f)
    models = run(lambda i: repeated(make(), build(float(i)), 3))
    for i, model in enumerate(models):
        assert_same(model, repeated(f, build(float(i)), 3))
        assert not has_tracer(model)


def test_threads_that_bind_one_call_at_once_share_the_program(monkeypatch):
    barrier, make = threading.Barrier(N), programs.Program

    def make_together(*args, **options):
        barrier.wait(timeout=60)
        return make(*args, **options)

    monkeypatch.setattr(programs, "Program", make_together)
    models = [Affine(float(i)) for i in range(N)]
    f = liftnn.jit(lambda m, x: m(x))
    out = run(lambda i: f(models[i], 2.0).tolist())
    assert out == [Affine(float(i))(2.0).tolist() for i in range(N)]
    assert f.n_traces == 1


def test_one_jitted_function_is_traced_once_as_in_jax_however_many_threads_meet():
    call = liftnn.jit(train)
    run(lambda i: repeated(call, Affine(float(i)), 5))
    assert call.n_traces == 1
    run(lambda i: repeated(call, Affine(float(i)), 5))
    assert call.n_traces == 1


@pytest.mark.sample(3)
@pytest.mark.parametrize("way", [name for name in WAYS if name != "donating"])
def test_threads_that_train_one_shared_model_leave_a_model_that_steps_made(way):
    make, model = WAYS[way](train), Affine(2.0)
    run(lambda i: repeated(make(), model, 3))
    assert not has_tracer(model)
    assert 2 <= int(model.calls.value) <= 2 * N * 3
    reached, reference = [], Affine(2.0)
    for _ in range(N * 3):
        train(reference, 2.0)
        reached.append(float(reference.w[0]))
    assert np.isclose(reached, float(model.w[0]), rtol=1e-4).any()
    assert_same(liftnn.jit(lambda m: m.w * 2)(model), model.w.value * 2)


def test_a_model_that_others_train_can_be_read_and_written_in_plain_python():
    model = Affine(2.0)

    def work(i):
        if i < N // 2:
            repeated(liftnn.jit(lambda m, x: train(m, x) + i), model, 2)
            return False
        seen = []
        for _ in range(500):
            seen.append(isinstance(model.w.value, jax.core.Tracer))
            mine = Affine()
            mine.w.value = mine.w + model.b.value
            assert mine.w.value.tolist() == [1.0] * 3
        return any(seen)

    assert not any(run(work))
    assert not has_tracer(model)


def test_threads_that_read_one_model_share_it_freely():
    model, call = Affine(2.0), liftnn.jit(lambda m, x: m.w * x)
    for i, out in enumerate(run(lambda i: call(model, float(i)))):
        assert out.tolist() == [2.0 * i] * 3


def test_the_frame_of_one_thread_is_not_seen_by_another():
    inside, seen = threading.Event(), threading.Event()

    def hold(model):
        inside.set()
        assert seen.wait(30)
        return model.w * 2

    def look(i):
        if i == 0:
            return liftnn.jit(hold)(Affine())
        assert inside.wait(30)
        model = Affine()
        model.w.value, model.mode = model.w + 1, "eval"
        found = frames.current_frame(), model._owner, frames.is_plain()
        if i == N - 1:
            seen.set()
        return found

    outer = run(look)[1:]
    assert all(frame is frames.PLAIN and owner is frames.PLAIN and plain for frame, owner, plain in outer)


def test_a_thread_started_inside_a_transform_is_in_plain_python():
    def f(model):
        found = []

        def look():
            found.append((frames.current_frame() is frames.PLAIN, Affine().w.value.tolist()))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert found == [(True, [1.0] * 3)]
        return model.w * 2

    assert liftnn.jit(f)(Affine()).tolist() == [2.0] * 3


@pytest.mark.parametrize(
    "change", [lambda m: m.names.append("b"), lambda m: m.names.clear()], ids=["grow", "shrink"]
)
def test_a_list_that_another_thread_changes_during_a_call_is_as_that_thread_left_it(change):
    model = Holder(w=liftnn.Param(jnp.ones(2)), names=["a"])
    now, done = threading.Event(), threading.Event()

    def wait_and_change():
        now.wait()
        change(model)
        done.set()

    threading.Thread(target=wait_and_change).start()

    def double(inner):
        now.set()
        done.wait()
        inner.w.value = inner.w * 2
        return len(inner.names)

    other = Holder(names=["a"])
    change(other)
    assert int(liftnn.jit(double)(model)) == 1
    assert model.names == other.names
    assert model.w.value.tolist() == [2.0, 2.0]


REPLACED = {
    "deque": (lambda n: collections.deque(range(n), maxlen=n), lambda x, i: x.append(str(i))),
    "dict": (lambda n: dict.fromkeys(range(n)), lambda x, i: (x.pop(next(iter(x))), x.update({str(i): i}))),
    "set": (lambda n: set(range(n)), lambda x, i: (x.pop(), x.add(str(i)))),
}


@pytest.mark.parametrize("size", [40, 20_000])
@pytest.mark.parametrize("kind", REPLACED)
def test_a_function_may_capture_what_another_thread_changes_all_the_time(kind, size):
    make, replace = REPLACED[kind]
    container, done = make(size), threading.Event()

    def change():
        i = 0
        while not done.is_set():
            i += 1
            replace(container, i)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(10):
            model = Affine(2.0)
            assert liftnn.jit(lambda x, model=model: model(x) + 0 * len(container))(1.0).tolist() == [2.0] * 3
    finally:
        done.set()
        thread.join()


def test_an_error_in_one_thread_leaves_the_others_alone():
    def fails(model, x):
        model.w.value = model.w * 2
        raise KeyError("half way")

    def work(i):
        model = Affine(float(i))
        if i % 2:
            for _ in range(3):
                with pytest.raises(KeyError, match="half way"):
                    liftnn.jit(fails)(model, 1.0)
            assert_same(model, Affine(float(i)))
        else:
            repeated(liftnn.jit(train), model, 3)
            assert_same(model, repeated(train, Affine(float(i)), 3))

    run(work)


def test_plans_of_models_that_die_in_other_threads_are_forgotten():
    call = liftnn.jit(lambda m, x: m.w * x)

    def work(i):
        for j in range(20):
            model = Holder(w=liftnn.Param(jnp.full(2, float(i + j))))
            assert call(model, 2.0).tolist() == [2.0 * (i + j)] * 2
            del model

    run(work)
    assert len(call._fast_paths.by_module) == 0


# --- signals


def signal_points(code):
    """Yields the lines of a function at which an exception of a signal handler passes by the handlers around them.

    Python runs the handlers at jumps backward. The compiler of some versions (3.12, 3.13) leaves a jump that is the
    whole branch of an `if` in a loop out of the exception table, so an exception there passes by a `with` around it.
    """
    table = dis._parse_exception_table(code)
    for instruction in dis.get_instructions(code):
        if instruction.opname == "JUMP_BACKWARD":
            covered = [
                any(e.start <= x < e.end for e in table) for x in (instruction.offset, instruction.argval)
            ]
            if covered == [False, True]:
                yield instruction.positions.lineno


def functions_of(code):
    yield code
    for x in code.co_consts:
        if isinstance(x, types.CodeType):
            yield from functions_of(x)


def protected_lines(tree):
    """Yields the lines under a lock, in a frame, and before `finally` or `except BaseException`."""
    for x in ast.walk(tree):
        if isinstance(x, ast.With):
            texts = [ast.unparse(item.context_expr) for item in x.items]
            is_protected = any(text.endswith("lock") or "push_frame" in text for text in texts)
        else:
            handlers = [h.type and ast.unparse(h.type) for h in x.handlers] if isinstance(x, ast.Try) else []
            is_protected = isinstance(x, ast.Try) and (x.finalbody or "BaseException" in handlers)
        if is_protected:
            yield from range(x.body[0].lineno, x.body[-1].end_lineno + 1)


def test_an_exception_of_a_signal_handler_cannot_pass_by_what_must_be_undone():
    """Else a lock would stay held, and the next call would wait forever, or a thread would stay in a transform."""
    protected, passing = 0, []
    for file in sorted(pathlib.Path(liftnn.__file__).parent.rglob("*.py")):
        tree = ast.parse(file.read_text())
        lines = set(protected_lines(tree))
        protected += len(lines)
        functions = [
            f for f in functions_of(compile(tree, file, "exec")) if not f.co_flags & inspect.CO_GENERATOR
        ]
        passing += [(file.name, i) for f in functions for i in signal_points(f) if i in lines]
    assert protected > 100
    assert passing == []
