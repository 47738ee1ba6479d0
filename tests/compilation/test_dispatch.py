"""Repeated calls of compiled functions run no Python code of JAX, for every signature, as with bare JAX.

JAX's dispatch is compiled code. It falls back to Python for good for a signature whose first trace has raised, so no
trace may be ended by an exception to be repeated in another way. Oracle: bare JAX.
"""

import collections
import os
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import liftnn
from tests.same import assert_same


class Affine(liftnn.Module):
    """`x * w`, counting its calls."""

    def __init__(self, value=2.0):
        self.w = liftnn.Param(jnp.asarray(value))
        self.calls = liftnn.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        self.calls.value = self.calls + 1
        return x * self.w


JAX = os.path.dirname(jax.__file__)


def python_calls(call, times=5):
    """The functions of JAX that run in Python during some calls. How often they run depends on JAX's own caches."""
    found = set()

    def profile(frame, event, arg):
        if event == "call" and frame.f_code.co_filename.startswith(JAX):
            found.add(frame.f_code.co_qualname)

    sys.setprofile(profile)
    try:
        for _ in range(times):
            call()
    finally:
        sys.setprofile(None)
    return found


def sharded(x):
    return jax.device_put(x, NamedSharding(jax.make_mesh((8,), ("x",)), PartitionSpec("x")))


FIRST = jnp.ones(8)
LATER = {
    "the first": lambda: FIRST,
    "another shape": lambda: jnp.ones(16),
    "another dtype": lambda: jnp.ones(8, jnp.int32),
    "a weak type": lambda: jnp.asarray(2.0),
    "a sharding": lambda: sharded(jnp.ones(8)),
    "a numpy array": lambda: np.ones(4, np.float32),
    "a tree": lambda: [jnp.ones(4), {"a": jnp.ones(4)}],
}


def twice(x):
    return jax.tree.map(lambda a: a * 2, x)


@pytest.mark.sample(2)
@pytest.mark.parametrize("later", LATER)
def test_each_signature_of_a_function_of_arrays_is_dispatched_as_by_jax(later):
    calls, x = {}, LATER[later]()
    for of in (jax, liftnn):
        f = of.jit(twice)
        f(FIRST), f(FIRST)
        for _ in range(3):
            f(x)
        calls[of] = python_calls(lambda f=f: f(x))
    assert calls[liftnn] <= calls[jax]


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("donate", [None, 0])
@pytest.mark.sample(4)
def test_each_signature_of_a_function_of_modules_is_dispatched_as_by_jax(donate, later):
    state, m, x = [jnp.ones(())], liftnn.Variable(jnp.ones(())), LATER[later]()
    compiled = jax.jit(lambda w, x: (w + 1, twice(x)), donate_argnums=donate)

    def by_jax(x):
        state[0], out = compiled(state[0], x)
        return out

    def f(m, x):
        m.value = m.value + 1
        return twice(x)

    call = liftnn.jit(f, donate_argnums=donate)
    calls = []
    for run in (by_jax, lambda x: call(m, x)):
        run(FIRST), run(FIRST)
        for _ in range(3):
            run(x)
        calls.append(python_calls(lambda run=run: run(x)))
    assert calls[1] <= calls[0]


@pytest.mark.parametrize("later", ["another shape", "another dtype", "a tree"])
def test_each_signature_of_a_function_that_captures_is_dispatched_as_by_jax(later):
    m, x = Affine(2.0), LATER[later]()
    call = liftnn.jit(lambda x: jax.tree.map(m, x))
    call(FIRST), call(FIRST)
    for _ in range(3):
        call(x)
    assert not python_calls(lambda: call(x))


def test_a_second_shape_of_a_mapped_function_is_dispatched_as_by_jax():
    calls = []
    for of in (jax, liftnn):
        f = of.pmap(lambda x: x * 2)
        x, y = np.ones((8, 2), np.float32), np.ones((8, 3), np.float32)
        for _ in range(3):
            f(x)
        for _ in range(3):
            f(y)
        calls.append(python_calls(lambda f=f, y=y: f(y)))
    assert calls[1] <= calls[0]


@pytest.mark.thorough
def test_calls_after_clear_caches_and_in_another_configuration_are_dispatched_as_by_jax():
    calls = collections.defaultdict(list)
    for of in (jax, liftnn):
        f = of.jit(lambda x: x @ x)
        x = jnp.ones((4, 4))
        f(x), f(x)
        jax.clear_caches()
        for _ in range(3):
            f(x)
        calls[of].append(python_calls(lambda f=f, x=x: f(x)))
        with jax.default_matmul_precision("float32"):
            for _ in range(3):
                f(x)
            calls[of].append(python_calls(lambda f=f, x=x: f(x)))
    assert all(ours <= theirs for ours, theirs in zip(calls[liftnn], calls[jax], strict=True))


def test_a_function_that_is_wrapped_in_each_call_is_dispatched_as_by_jax():
    calls = []
    for of in (jax, liftnn):
        f = lambda x: x * 2  # noqa: E731
        for x in (FIRST, FIRST, jnp.ones(16), jnp.ones(16)):
            of.jit(f)(x)
        once, x = of.jit(f), jnp.ones(16)
        once(x), once(x)
        calls.append(python_calls(lambda once=once, x=x: once(x)))
    assert calls[1] <= calls[0]


# --- a trace in a call on the fast path


def test_a_trace_on_the_fast_path_runs_the_function_once():
    ran = []

    def f(m, x):
        ran.append(x.shape)
        m.calls.value = m.calls + 1
        return m(x)

    call, m = liftnn.jit(f), Affine(2.0)
    for n in (3, 3, 4, 4, 5):
        call(m, jnp.ones(n))
    assert ran == [(3,), (4,), (5,)]
    assert call.n_traces == 3


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", [TypeError, ValueError, KeyError, liftnn.StructureError])
@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("arrays", [False, True])
def test_an_exception_in_a_trace_on_the_fast_path_comes_through_and_changes_nothing(arrays, captured, kind):
    m, ran = Affine(2.0), []

    def body(m, x):
        ran.append(x.shape)
        if m is not None:
            m.w.value = m.w + 1
        if x.shape == (4,):
            raise kind("my own")
        return x * 2 if m is None else m.w * x

    if arrays:
        call = liftnn.jit(lambda x: body(None, x))
    elif captured:
        call = liftnn.jit(lambda x: body(m, x))
    else:
        passed = liftnn.jit(body)
        call = lambda x: passed(m, x)  # noqa: E731
    call(jnp.ones(3)), call(jnp.ones(3))
    before = np.asarray(m.w.value)
    for _ in range(2):
        with pytest.raises(kind, match="my own"):
            call(jnp.ones(4))
    assert_same(m.w.value, before)
    call(jnp.ones(3))
    assert ran == [(3,), (4,), (4,)]


def test_a_module_that_only_another_shape_returns_or_captures_is_found():
    m = Affine(2.0)
    hidden = {"of": [m]}

    def f(x):
        if x.shape == (3,):
            return x * 2
        return liftnn.Variable(x) if x.shape == (4,) else next(iter(hidden.values()))[0](x)

    call = liftnn.jit(f)
    call(jnp.ones(3)), call(jnp.ones(3))
    assert_same(call(jnp.ones(4)).value, jnp.ones(4))
    expected = Affine(2.0)(jnp.ones(5))
    assert_same(call(jnp.ones(5)), expected)
    assert_same(call(jnp.ones(3)), 2 * jnp.ones(3))


def test_an_output_of_another_structure_on_the_fast_path():
    m = Affine(2.0)
    call = liftnn.jit(lambda m, x: m(x) if x.shape == (3,) else {"n": 1, "out": m(x)})
    plain = Affine(2.0)
    for n in (3, 3, 4, 3, 4, 5):
        out = call(m, jnp.ones(n))
        expected = plain(jnp.ones(n))
        assert_same(out, expected if n == 3 else {"n": jnp.asarray(1), "out": expected})


def test_the_last_call_keeps_no_module_alive():
    m = Affine(2.0)
    call = liftnn.jit(lambda m, x: m(x))
    call(m, FIRST), call(m, FIRST)
    alive = weakref.ref(m)
    del m
    assert alive() is None


@pytest.mark.thorough
def test_repeated_calls_convert_64_bit_numpy_integers_in_a_process_that_has_converted_none():
    """numpy's C code imports modules at the first conversion, by the builtins of the Python function that calls it."""
    code = """
import liftnn, numpy as np
layer = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
add = liftnn.jit(lambda layer, y: layer.bias + y)
outputs = [add(layer, np.arange(3)) for _ in range(4)]
print([x.tolist() for x in outputs])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([[0.0, 1.0, 2.0]] * 4), done.stderr
