"""`capture` returns what Flax NNX returns, in and around transforms, and leaves the model as it was."""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors
from tests.alike import find_difference
from tests.quick import quick

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

X = jnp.array([0.5, 1.0, 2.0])


def build(library):
    class Inner(library.Module):
        def __init__(self):
            self.w = library.Param(jnp.arange(3.0))
            self.calls = library.Variable(jnp.array(0))

        def __call__(self, x):
            y = self.w * x
            self.calls.set_value(self.calls.get_value() + 1)
            self.sow(library.Intermediate, "y", y)
            self.sow(library.Intermediate, "sum", y, reduce_fn=lambda a, b: a + b, init_fn=lambda: 0)
            return y

    class Net(library.Module):
        def __init__(self):
            self.first = self.second = Inner()
            self.other = Inner()

        def __call__(self, x):
            x = self.perturb("p", x)
            return self.helper(self.second(self.first(x)) + self.other(x))

        def helper(self, x):
            self.sow(library.Intermediate, "helped", x)
            return jnp.sin(x)

    return Net()


def plain(x):
    """Nested lists and dicts, by which two libraries can be compared."""
    if type(x) in (list, tuple):
        return [plain(y) for y in x]
    if isinstance(x, nnx.State):
        x = nnx.to_pure_dict(x)
    elif isinstance(x, liftnn.State):
        x = x.to_pure_dict()
    return jax.tree.map(lambda a: np.asarray(a).tolist(), x)


def perturbed(lib, model):
    _, perturbations = lib.capture(model, lib.Perturbation)(X)

    def loss(model, perturbations, x):
        out, noted = lib.capture(model, lib.Intermediate, init=perturbations)(x)
        return (out**2).sum(), noted

    (_, grads), noted = lib.grad(loss, argnums=(0, 1), has_aux=True)(model, perturbations, X)
    return grads, noted


CASES = {
    "jit inside": lambda lib, m: lib.capture(lib.jit(lambda m, x: m(x)), lib.Intermediate)(m, X),
    "outputs": lambda lib, m: lib.capture(m, lib.Intermediate, method_outputs=lib.Intermediate)(X),
    "perturbations": perturbed,
    "nothing": lambda lib, m: [lib.capture(m)(X)],
    "module": lambda lib, m: lib.capture(m, lib.Intermediate)(X),
    "function": lambda lib, m: lib.capture(lambda m, x: m(x), lib.Intermediate)(m, X),
    "decorator": lambda lib, m: lib.capture(lib.Intermediate)(lambda m, *, x: m(x))(m, x=X),
    "method": lambda lib, m: lib.capture(m.helper, lib.Intermediate)(X),
    "several": lambda lib, m: lib.capture(m, lib.Perturbation, lib.BatchStat)(X),
    "jit outside": lambda lib, m: lib.jit(lambda m, x: lib.capture(m, lib.Intermediate)(x))(m, X),
    "jit and outputs": lambda lib, m: lib.capture(
        lib.jit(lambda m, x: m(x)), lib.Intermediate, method_outputs=lib.Intermediate
    )(m, X),
    "remat": lambda lib, m: lib.capture(lambda m, x: lib.remat(lambda m, x: m(x))(m, x), lib.Intermediate)(m, X),
    "cond": lambda lib, m: lib.capture(
        lambda m, x: lib.cond(True, lambda m, x: m(x), lambda m, x: m(2 * x), m, x), lib.Intermediate
    )(m, X),
    "grad": lambda lib, m: lib.grad(
        lambda m, x: (lambda out, noted: (out.sum(), noted))(*lib.capture(m, lib.Intermediate)(x)), has_aux=True
    )(m, X),
}  # fmt: skip


@pytest.mark.parametrize("case", quick(CASES, 5))
def test_capture_returns_what_flax_returns(case):
    ours, theirs = build(liftnn), build(nnx)
    before = liftnn.split(ours)[-1]
    assert plain(list(CASES[case](liftnn, ours))) == plain(list(CASES[case](nnx, theirs)))
    assert plain(ours.first.calls.value) == plain(theirs.first.calls.get_value())
    assert liftnn.split(ours)[-1] == before


def test_a_model_that_jit_captures_is_captured():
    model, expected = build(liftnn), build(liftnn)
    f = liftnn.jit(lambda x: liftnn.capture(model, liftnn.Intermediate)(x))
    for _ in range(3):
        noted, wanted = f(X)[1], liftnn.capture(expected, liftnn.Intermediate)(X)[1]
        assert jax.tree.structure(noted) == jax.tree.structure(wanted)
        for a, b in zip(jax.tree.leaves(noted), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert f.n_traces == 1
    assert model.first.calls.value == 6


class Layer(liftnn.Module):
    """Records its output."""

    def __init__(self, key):
        self.w = liftnn.Param(jax.random.normal(key, (3, 3)))

    def __call__(self, x):
        x = jnp.sin(x @ self.w)
        self.sow(liftnn.Intermediate, "h", x)
        return x


def test_scanned_layers_record_stacked_values():
    """Oracle: the loop over the layers."""
    layers = liftnn.vmap(Layer)(jax.random.split(jax.random.key(0), 4))
    scan = liftnn.scan(lambda layer, x: layer(x), in_axes=(0, liftnn.Carry), out_axes=liftnn.Carry)
    out, noted = liftnn.capture(scan, liftnn.Intermediate)(layers, X)
    x, expected = X, []
    for w in layers.w.value:
        x = jnp.sin(x @ w)
        expected.append(x)
    np.testing.assert_allclose(out, x, rtol=1e-6)
    np.testing.assert_allclose(noted["h"].value[0], jnp.stack(expected), rtol=1e-6)


def test_a_transform_over_a_closure_inside_the_module_records():
    class Outer(liftnn.Module):
        def __init__(self):
            self.layer = Layer(jax.random.key(0))

        def __call__(self, x):
            return liftnn.jit(lambda x: self.layer(x))(x)

    model = Outer()
    out, noted = liftnn.capture(model, liftnn.Intermediate)(X)
    np.testing.assert_array_equal(noted["layer"]["h"].value[0], out)


def test_a_shared_module_under_vmap_is_an_error_that_says_so():
    f = liftnn.vmap(lambda layer, x: layer(x), in_axes=(None, 0))
    with pytest.raises(liftnn.SharedWriteError, match="an Intermediate"):
        liftnn.capture(f, liftnn.Intermediate)(Layer(jax.random.key(0)), jnp.ones((4, 3)))


def test_a_nested_call_takes_its_types_and_leaves_the_others():
    class Inner(liftnn.Module):
        def __call__(self, x):
            self.sow(liftnn.Intermediate, "i", x)
            self.sow(liftnn.BatchStat, "b", x)
            return x

    class Outer(liftnn.Module):
        def __init__(self):
            self.inner = Inner()

        def __call__(self, x):
            out, noted = liftnn.capture(self.inner, liftnn.BatchStat)(x)
            self.sow(liftnn.Intermediate, "noted", noted["b"].value[0] + 1)
            return out

    _, noted = liftnn.capture(Outer(), liftnn.Intermediate)(X)
    assert plain(noted) == {"noted": (plain(X + 1),), "inner": {"i": (plain(X),)}}


def test_methods_of_bases_record_their_outputs_too():
    class Base(liftnn.Module):
        def twice(self, x):
            return 2 * x

        def name(self):
            return "base"

        def _hidden(self, x):
            return x

    class Derived(Base):
        def __call__(self, x):
            assert self.name() == "base"
            return super().twice(self._hidden(x)) + self.twice(x)

    model = Derived()
    _, noted = liftnn.capture(model, method_outputs=liftnn.Intermediate)(X)
    assert plain(noted) == {"twice": (plain(2 * X),), "__call__": (plain(4 * X),)}
    assert type(model) is Derived


def test_a_function_that_runs_after_its_call_is_an_error():
    class Lazy(liftnn.Module):
        async def __call__(self, x):
            self.sow(liftnn.Intermediate, "x", x)

        def each(self, x):
            yield self.sow(liftnn.Intermediate, "x", x)

    for function in (Lazy(), Lazy().each):
        with pytest.raises(
            errors.ArgumentTypeError, match=r"^liftnn.capture got an? .* computes nothing when called"
        ):
            liftnn.capture(function, liftnn.Intermediate)


def test_a_failing_call_leaves_the_model_as_it_was():
    model = build(liftnn)
    before = liftnn.clone(model)

    def fails(model, x):
        model(x)
        model.new = 1
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        liftnn.capture(fails, liftnn.Intermediate, method_outputs=liftnn.Intermediate)(model, X)
    assert find_difference(model, before) is None
    assert type(model) is type(before)


def test_changes_of_the_model_are_kept():
    """Oracle: the plain call."""

    def f(model, x):
        model.first.w.value = x
        model.layers = [model.first]
        model.mode = "new"
        return model

    model, expected = build(liftnn), f(build(liftnn), X)
    out, noted = liftnn.capture(f, liftnn.Intermediate)(model, X)
    assert out is model
    assert model.layers[0] is model.first
    assert model.mode == expected.mode
    assert model.first.w.value.tolist() == X.tolist()
    assert plain(noted) == {}


def test_cycles_and_empty_modules():
    empty = liftnn.Module()
    empty.me = empty
    out, noted = liftnn.capture(lambda m, x: m.me.sow(liftnn.Intermediate, "x", x), liftnn.Intermediate)(
        empty, X
    )
    assert out
    assert plain(noted) == {"x": (plain(X),)}
    assert not hasattr(empty, "x")


def test_outside_of_capture_sow_is_as_before():
    model = build(liftnn)
    model(X)
    assert len(model.first.y.value) == 2
    _, noted = liftnn.capture(model, liftnn.Intermediate)(X)
    assert len(model.first.y.value) == 2
    assert len(noted["first"]["y"].value) == 2


def test_a_variable_is_recorded_as_its_value():
    class Model(liftnn.Module):
        def __init__(self):
            self.w = liftnn.Param(jnp.arange(2.0))

        def __call__(self):
            self.sow(liftnn.Intermediate, "y", self.w)
            return self.perturb("p", self.w)

    model = Model()
    out, noted, zeros = liftnn.capture(model, liftnn.Intermediate, liftnn.Perturbation)()
    assert [out.tolist(), plain(noted), plain(zeros)] == [[0, 1], {"y": ([0, 1],)}, {"p": [0, 0]}]
    run = liftnn.jit(lambda model: model())
    assert [run(model).tolist(), run(model).tolist()] == [[0, 1], [0, 1]]
    assert plain(model.y.value) == [[0, 1], [0, 1]]


def untold(method):
    """Decorate a method without telling the name of what it calls."""

    def wrapper(self, x):
        return method(self, x)

    return wrapper


class Coder(liftnn.Module):
    """Has methods of all kinds."""

    def encode(self, x):
        self.sow(liftnn.Intermediate, "base", x)
        return x + 1


class TwoCoders(Coder):
    """Overrides a method."""

    def encode(self, x):
        self.sow(liftnn.Intermediate, "derived", x)
        return super().encode(10 * x)

    decorated = untold(encode)
    unnamed = lambda self, x: self.encode(x)  # noqa: E731  # a method without a name
    alias = encode

    @liftnn.jit
    def compiled(self, x):
        return self.encode(x)

    @liftnn.remat
    def rematerialized(self, x):
        return self.encode(x)


def encode(model, x):
    """Be a function with the name of a method."""
    model.sow(liftnn.Intermediate, "function", x)
    return -x


BOUND = {
    "method": lambda m: m.encode,
    "of the base": lambda m: super(TwoCoders, m).encode,
    "of the base by type": lambda m: types.MethodType(Coder.encode, m),
    "decorated": lambda m: m.decorated,
    "lambda": lambda m: m.unnamed,
    "alias": lambda m: m.alias,
    "compiled": lambda m: m.compiled,
    "rematerialized": lambda m: m.rematerialized,
    "function": lambda m: types.MethodType(encode, m),
    "compiled function": lambda m: types.MethodType(liftnn.jit(encode), m),
}


@pytest.mark.parametrize("outputs", [None, liftnn.BatchStat])
@pytest.mark.parametrize("bind", BOUND.values(), ids=BOUND)
def test_a_bound_method_is_called_whatever_the_class_has_under_its_name(bind, outputs):
    """Oracle: the plain call, whose module keeps what it records."""
    model, plain_model = TwoCoders(), TwoCoders()
    out, noted, *_ = liftnn.capture(bind(model), liftnn.Intermediate, method_outputs=outputs)(X)
    assert plain(out) == plain(bind(plain_model)(X))
    assert plain(noted) == plain(liftnn.state(plain_model, liftnn.Intermediate))


@pytest.mark.parametrize(
    "decorate", [liftnn.jit, jax.jit, liftnn.remat, functools.cache], ids=["jit", "jax.jit", "remat", "cache"]
)
def test_outputs_of_decorated_methods_are_recorded(decorate):
    """Oracle: Flax NNX, and the method without decorator."""

    def build(library, decorate):
        class Net(library.Module):
            __hash__ = object.__hash__
            size: type = int
            twice = decorate(lambda self, x=3.0: 2 * jnp.asarray(x))

            def __call__(self, x):
                return self.twice() * x

            @staticmethod
            def static(x):
                return x

            @classmethod
            def of_class(cls, x):
                return x

        return Net()

    def noted(library, decorate):
        model = build(library, decorate)
        return plain(library.capture(model, library.Intermediate, method_outputs=library.Intermediate)(X)[1])

    if decorate is jax.jit:  # which takes no modules
        decorate = lambda f: jax.jit(f, static_argnums=0)  # noqa: E731
    assert noted(liftnn, decorate) == noted(liftnn, lambda f: f) == noted(nnx, lambda f: f)


def capture_from(lib, init):
    class Net(lib.Module):
        def __call__(self, x):
            return self.perturb("h", x) ** 2

    return lib.capture(Net(), lib.Perturbation, init=init(lib.Perturbation(jnp.ones(2))))(jnp.arange(2.0))


INITIAL = {
    "a State": lambda h: liftnn.State({"h": h}),
    "a dict": lambda h: {"h": h},
    "a mapping": lambda h: types.MappingProxyType({"h": h}),
}


@pytest.mark.parametrize("init", INITIAL)
def test_initial_values_are_a_state_or_dicts_as_in_flax(init):
    out, state = capture_from(liftnn, INITIAL[init])
    expected, flax_state = capture_from(nnx, lambda h: {"h": h})
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(state["h"].value, flax_state["h"].get_value())


@pytest.mark.parametrize("init", [3, [1], lambda: None])
def test_other_initial_values_are_an_error(init):
    with pytest.raises(errors.ArgumentTypeError, match="capture takes States or nested dicts, not a"):
        capture_from(liftnn, lambda h: init)
