"""The specs of `shard_map` mean what they mean in JAX; with a module the same as for the arrays around it."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec as P
from tests.raising import caught
from tests.user_modules import Affine

import liftnn

AUTO = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
EXPLICIT = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Explicit,))
X = jnp.arange(4.0)


class Unhashable:
    """An object that cannot be a key, and is equal to nothing."""

    def __hash__(self):
        raise TypeError

    def __eq__(self, other):
        raise TypeError


def kind_of(x):
    """The type of an object; arrays may be traced."""
    return "array" if isinstance(x, (jax.Array, np.ndarray)) else type(x)


OBJECTS = {
    "a number": lambda: 2,
    "a string": lambda: "train",
    "a dict": lambda: {"mode": "train", "k": 2},
    "a function": lambda: jnp.sin,
    "an object that is not hashable": Unhashable,
    "a list with an array": lambda: [2, np.arange(2.0)],
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize(
    "wrap", [lambda of, f: f, lambda of, f: lambda *args: of.jit(lambda x: f(*args[:-1], x))(args[-1])]
)
@pytest.mark.sample(12)
def test_an_object_with_the_spec_none_is_passed_as_it_is_as_in_jax(kind, wrap):
    given = OBJECTS[kind]()

    def run(of):
        seen = []

        def f(mode, given, x):
            seen.extend((mode, *map(type, jax.tree.leaves(given))))
            return x * 2

        out = wrap(of, of.shard_map(f, mesh=AUTO, in_specs=(None, None, P("x")), out_specs=P("x")))(
            "a", given, X
        )
        return seen, out.tolist()

    assert run(liftnn) == run(jax)


@pytest.mark.parametrize("kind", [kind for kind in OBJECTS if kind != "an object that is not hashable"])
@pytest.mark.parametrize("bound", [False, True], ids=["argument", "bound method"])
@pytest.mark.sample(12)
def test_beside_a_module_it_is_passed_as_it_is_too(kind, bound):
    given, seen = OBJECTS[kind](), []

    class Scale(liftnn.Module):
        def __init__(self):
            self.factor = liftnn.Param(jnp.array(3.0))

        def __call__(self, given, x):
            seen.extend(map(kind_of, jax.tree.leaves(given)))
            self.factor.value = self.factor + 1
            return x * self.factor

    scale = Scale()
    specs = (None, P("x")) if bound else (None, None, P("x"))
    args = (given, X) if bound else (scale, given, X)
    mapped = liftnn.shard_map(scale if bound else Scale.__call__, mesh=AUTO, in_specs=specs, out_specs=P("x"))
    assert mapped(*args).tolist() == (X * 4).tolist()
    assert seen == list(map(kind_of, jax.tree.leaves(given)))
    assert float(scale.factor.value) == 4.0


@pytest.mark.parametrize(
    "args, kwargs", [((2,), {"x": X}), ((), {"factor": 2, "x": X}), ((), {"x": X, "factor": 2})]
)
def test_beside_a_module_it_may_be_a_keyword_argument(args, kwargs):
    seen = []

    def scaled(model, factor, x):
        seen.append(factor)
        return model.w * x * factor

    model = Affine()
    mapped = liftnn.shard_map(scaled, mesh=AUTO, in_specs=(P(), None, P("x")), out_specs=P("x"))
    model.w.value = jnp.array(3.0)
    assert mapped(model, *args, **kwargs).tolist() == (X * 6).tolist()
    assert all(type(factor) is int for factor in seen)


def dot_in_parts(x):
    """A sum over a sharded axis that is not reduced yet."""
    return jnp.einsum("i,i->", x, x, out_sharding=P(unreduced={"x"}))


WITH_REDUCTIONS = {
    "unreduced": (
        lambda x: jax.jit(dot_in_parts)(jax.reshard(x, P("x"))),
        lambda x: jax.lax.psum(x, "x"),
        P(),
    ),
    "reduced": (lambda x: jax.reshard(x, P(reduced={"x"})), jnp.sin, P(reduced={"x"})),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", WITH_REDUCTIONS)
def test_specs_with_unreduced_and_reduced_axes_work_beside_a_module_as_in_jax(name):
    place, f, out_specs = WITH_REDUCTIONS[name]
    in_specs = P(**{name: {"x"}})

    def with_module(model, x):
        model.w.value = model.w * 2
        return f(x)

    with jax.set_mesh(EXPLICIT):
        x, model = place(X), Affine(1.0)
        expected = jax.shard_map(f, in_specs=in_specs, out_specs=out_specs)(x)
        mapped = liftnn.shard_map(with_module, in_specs=(P(), in_specs), out_specs=out_specs)
        out = mapped(model, x)
    assert jax.typeof(out) == jax.typeof(expected)
    assert out.tolist() == expected.tolist()
    assert model.w.value.tolist() == [2.0] * 3


WRONG = {
    "a mesh that is not a mesh": {"mesh": "m", "in_specs": P(), "out_specs": P()},
    "unreduced on an automatic axis": {"mesh": AUTO, "in_specs": P(unreduced={"x"}), "out_specs": P()},
    "unreduced output on an automatic axis": {"mesh": AUTO, "in_specs": P(), "out_specs": P(unreduced={"x"})},
    "an unknown axis of the output": {"mesh": AUTO, "in_specs": P(), "out_specs": P("q")},
    "an unknown axis": {"mesh": AUTO, "in_specs": P("q"), "out_specs": P()},
    "an unknown axis name": {"mesh": AUTO, "in_specs": P(), "out_specs": P(), "axis_names": {"q"}},
    "no tree prefix": {"mesh": AUTO, "in_specs": (P(), P()), "out_specs": P()},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_specs_raise_the_same_builtin_error_as_in_jax(name):
    theirs, ours = (caught(of.shard_map(lambda x: x, **WRONG[name]), X) for of in (jax, liftnn))
    assert isinstance(ours, type(theirs))


@pytest.mark.parametrize("name", [name for name in WRONG if "unreduced" in name or "mesh" in name])
def test_errors_that_name_no_argument_have_the_text_of_jax(name):
    theirs, ours = (caught(of.shard_map(lambda x: x, **WRONG[name]), X) for of in (jax, liftnn))
    without_paths = re.compile(r"(in|out)_specs\S*")
    assert (
        without_paths.sub("specs", str(ours)).splitlines()[0]
        == without_paths.sub("specs", str(theirs)).splitlines()[0]
    )
