"""Who may write and read what: frames, raw JAX transforms, threads, exceptions."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import warnings

import jax
import jax.numpy as jnp
import pytest
from tests.raising import raises
from tests.strategies import Node

import liftnn
from liftnn import errors
from liftnn._src.variables import frames

RAW = "which would lose the change or leak a tracer.\nUse the liftnn transform of the same name instead."


def test_plain_python_is_the_innermost_frame():
    assert frames.current_frame() is frames.PLAIN
    assert frames.owner_now() is frames.PLAIN
    assert frames.is_plain()
    assert frames.open_frames == 0


def test_an_open_frame_owns_what_is_made_in_it():
    with frames.push_frame("scan") as frame:
        assert frames.current_frame() is frame
        assert not frames.is_plain()
        assert frames.open_frames == 1
        v = liftnn.Param(1.0)
        v.value = 2.0
        with frames.push_frame("grad") as inner:
            assert frames.current_frame() is inner
            assert frames.may_write(frames.owner_now())
            assert not frames.may_write(v._owner)
        assert frames.may_write(v._owner)
    assert frames.is_plain()
    assert not frames.may_write(frame)


def test_an_exception_closes_the_frame():
    with (
        pytest.raises(ZeroDivisionError, match="division"),
        frames.push_frame("scan"),
        frames.push_frame("grad"),
    ):
        1 / 0  # noqa: B018
    assert frames.current_frame() is frames.PLAIN
    assert frames.open_frames == 0


def test_an_object_of_an_outer_frame_that_was_not_foreseen_has_a_stand_in_and_is_noted():
    v = liftnn.Param(1.0)
    with frames.push_frame("vmap") as outer:
        with frames.push_frame("grad") as inner:
            assert v.value == 1.0
            v.value = 2.0
            assert (v.value, v.raw_value) == (2.0, 2.0)
            assert len(inner.missing) == 1
        assert outer.missing == [v]
        assert v.value == 1.0
    assert v.value == 1.0


def test_an_object_of_an_outer_frame_is_used_through_its_copy():
    v, copy, deeper = liftnn.Param(1.0), None, None
    with frames.push_frame("vmap") as outer:
        copy = liftnn.Param(5.0)
        outer.admit([v], [copy], lambda number: "model.v")
        with frames.push_frame("grad") as inner:
            deeper = liftnn.Param(6.0)
            inner.admit([copy], [deeper], lambda number: "model.v")
            assert frames.resolve(v) is deeper
            v.value = 7.0
            assert deeper.value == copy.value == 7.0
        assert v.value == copy.value == 5.0
        assert not outer.missing
        assert not inner.missing
    assert v.value == 1.0


def test_the_structure_of_an_object_of_an_outer_frame_cannot_be_changed():
    with frames.push_frame("jit"):
        model = Node()
        with (
            frames.push_frame("grad"),
            raises(
                errors.TraceContextError,
                "Cannot change the attribute 'n' of a Node here: it comes from liftnn.jit and reached liftnn.grad "
                "through a closure, where only values of Variables can be changed.\n"
                "Pass the object as an argument of the function given to liftnn.grad.",
            ),
        ):
            model.n = 1


RAW_TRANSFORMS = {
    "jit": lambda f: jax.jit(f)(1.0),
    "grad": lambda f: jax.grad(f)(1.0),
    "vmap": lambda f: jax.vmap(f)(jnp.ones(2)),
    "scan": lambda f: jax.lax.scan(lambda c, x: (c, f(x)), 0.0, jnp.ones(2)),
    "cond": lambda f: jax.lax.cond(True, f, lambda x: x, 1.0),
    "while_loop": lambda f: jax.lax.while_loop(lambda x: x < 1, f, 1.0),
    "checkpoint": lambda f: jax.checkpoint(f)(1.0),
    "eval_shape": lambda f: jax.eval_shape(f, 1.0),
    "jvp": lambda f: jax.jvp(f, (1.0,), (1.0,)),
}


@pytest.mark.parametrize("transform", RAW_TRANSFORMS.values(), ids=RAW_TRANSFORMS)
def test_a_write_under_a_raw_jax_transform_is_an_error_that_leaves_all_as_it_was(transform):
    model = Node(w=liftnn.Param(1.0), n=1)
    writes = []

    def f(x):
        for write in (lambda: setattr(model.w, "value", x), lambda: setattr(model, "n", x)):
            with pytest.raises(errors.TraceContextError) as error:
                write()
            writes.append(str(error.value))
        return x * model.w

    transform(f)
    assert writes[0] == (
        "Cannot change the value of a Param here: it comes from plain Python, and this code runs under a raw JAX "
        f"transform (jax.jit, jax.grad, jax.vmap, jax.lax.scan ...), {RAW}"
    )
    assert (model.w.value, model.n) == (1.0, 1)
    model.w.value = 2.0
    assert model.w.value == 2.0


@pytest.mark.sample(2)
@pytest.mark.parametrize("transform", RAW_TRANSFORMS.values(), ids=RAW_TRANSFORMS)
def test_objects_made_under_a_raw_jax_transform_can_be_written_in_it(transform):
    def f(x):
        model = Node(w=liftnn.Param(x))
        model.w.value = model.w.value * 2
        model.n = liftnn.clone(model)
        model.n.w.value = x
        return (model.w + model.n.w).sum()

    transform(f)


def test_a_raw_jax_transform_inside_a_liftnn_transform_is_told_from_it():
    def outer(model, x):
        def inner(x):
            with raises(
                errors.TraceContextError,
                "Cannot change the value of a Param here: it comes from liftnn.jit, and this code runs under a "
                f"raw JAX transform (jax.jit, jax.grad, jax.vmap, jax.lax.scan ...), {RAW}",
            ):
                model.w.value = x
            return x

        model.w.value = model.w.value + jax.grad(inner)(x)
        return x

    model = Node(w=liftnn.Param(1.0))
    liftnn.jit(outer)(model, 1.0)
    assert model.w.value == 2.0


def test_an_object_that_leaks_out_of_a_raw_transform_cannot_be_written():
    leaked = []
    jax.jit(lambda x: leaked.append(liftnn.Param(0.0)) or x)(1.0)
    with pytest.raises(errors.TraceContextError, match=r"^Cannot change the value of a Param here"):
        leaked[0].value = 1.0


CONTEXTS = {
    "set_mesh": lambda: jax.set_mesh(jax.make_mesh((2,), ("x",))),
    "default_device": lambda: jax.default_device(jax.devices()[1]),
    "debug_nans": lambda: jax.debug_nans(True),
    "disable_jit": jax.disable_jit,
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "matmul precision": lambda: jax.default_matmul_precision("float32"),
    "checking_leaks": jax.checking_leaks,
    "named_scope": lambda: jax.named_scope("name"),
    "transfer_guard": lambda: jax.transfer_guard("allow"),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_a_context_of_jax_is_no_trace(context):
    v = liftnn.Param(jnp.float32(1))
    with context():
        v.value = v.value * 2
        inner = Node(v=v)
    inner.n = 1
    assert v.value == 2


# --- Variables as pytrees of raw JAX


def test_a_raw_jax_function_takes_a_variable_and_cannot_write_it():
    v = liftnn.Param(jnp.arange(3.0), tag="t")

    def f(v):
        assert v.tag == "t"
        with raises(
            errors.TraceContextError,
            "Cannot change the value of a Param here: it is a copy that a raw JAX transform made of its argument, and "
            "the change would be lost.\nUse the liftnn transform of the same name instead.",
        ):
            v.value = 2 * v.value
        return v * 2

    assert jax.jit(f)(v).tolist() == [0, 2, 4]
    assert jnp.sin(v).tolist() == jnp.sin(v.value).tolist()


# --- threads


def run_in_threads(n, f):
    """Runs `f(i)` in n threads at once; gives the results."""
    barrier, results = threading.Barrier(n), [None] * n

    def run(i):
        barrier.wait()
        try:
            results[i] = f(i)
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_another_thread_is_in_plain_python_while_this_one_is_in_a_frame():
    v = liftnn.Param(1.0)
    with frames.push_frame("jit"):

        def write(i):
            v.value = 5.0
            return frames.is_plain() and v.value

        assert run_in_threads(1, write) == [5.0]


def test_threads_trace_their_own_models_at_once():
    def train(i):
        model = Node(w=liftnn.Param(jnp.float32(i)), calls=0)

        @liftnn.jit
        def step(model, x):
            model.calls += 1
            model.w.value = model.w.value + x
            return liftnn.grad(lambda m: m.w**2)(model)["w"].value

        out = [float(step(model, 1.0)) for _ in range(5)]
        return out, model.calls, float(model.w.value)

    expected = [([2.0 * (i + k) for k in range(1, 6)], 5, i + 5.0) for i in range(4)]
    assert run_in_threads(4, train) == expected


def test_threads_that_share_a_model_never_corrupt_it():
    model = Node(w=liftnn.Param(jnp.float32(0)), v=liftnn.Param(jnp.float32(0)))

    @liftnn.jit
    def step(model):
        model.w.value, model.v.value = model.w.value + 1, model.v.value + 1

    results = run_in_threads(4, lambda i: [step(model) for _ in range(50)] and None)
    assert results == [None] * 4
    assert 1 <= model.w.value <= 200
    assert frames.open_frames == 0


SCRIPT = """
    import jax

    def f(x):
        import liftnn
        v = liftnn.Param(x)
        v.value = v.value + 1
        return v.value

    assert jax.jit(f)(1.0) == 2.0
    import liftnn
    from liftnn._src.variables import frames
    assert frames.is_plain()
    v = liftnn.Param(1.0)
    v.value = 3.0
    liftnn.jit(lambda v: setattr(v, "value", v.value + 1))(v)
    assert v.value == 4.0
"""


@pytest.mark.thorough
def test_liftnn_may_be_imported_first_inside_a_trace():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_checking_leaks_finds_nothing():
    model = Node(w=liftnn.Param(jnp.ones(2)), n=0)

    def step(model, x):
        model.n += 1
        model.new = liftnn.Param(x)
        return liftnn.grad(lambda m: (m.w * m.new).sum())(model)

    with warnings.catch_warnings(), jax.checking_leaks():
        grads = liftnn.jit(step)(model, jnp.ones(2))
    assert grads["w"].value.tolist() == [1, 1]
    assert model.n == 1


def test_a_frame_that_a_signal_interrupts_before_it_is_open_is_not_counted(monkeypatch):
    start = frames.Opening.start

    def interrupted(self):
        start(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(frames.Opening, "start", interrupted)
        with pytest.raises(KeyboardInterrupt), frames.push_frame("jit"):
            pass
    assert frames.current_frame() is frames.PLAIN
    assert frames.open_frames == 0


def test_what_counts_as_open_and_is_dropped_counts_no_more():
    opening = frames.Opening()
    opening.start()
    assert frames.open_frames == 1
    del opening
    assert frames.open_frames == 0
