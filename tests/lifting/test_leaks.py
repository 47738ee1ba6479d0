"""No tracer leaves a transform hidden in a static value: an iterator, an object of another kind.

A closure over a tracer is no static value, and comes out over the array.
"""

from __future__ import annotations

import functools
import itertools
import types
import typing

import jax
import jax.numpy as jnp
import optax
import pytest

import liftnn
from liftnn import errors
from liftnn._src.lifting.leaks import holds_tracer
from tests.raising import raises
from tests.same import assert_same
from tests.user_modules import Affine, Holder

TEXT = (
    "{0} is a {1} that holds an array computed inside the function. The array would leak as a tracer, because liftnn "
    "treats this {1} as static.\nStore the array in an attribute, a Variable, or a list, dict or dataclass of them."
)


class Box:
    """An object that liftnn does not know."""

    def __init__(self, content):
        self.content = content


class Slots:
    """An object without a dictionary."""

    __slots__ = ("content",)

    def __init__(self, content):
        self.content = content


class Pair(typing.NamedTuple):
    first: object
    second: object


def generate(x):
    yield x


HOLDERS = {
    "object": ("Box", Box),
    "object in an object": ("Box", lambda x: Box([1, {"a": Box(x)}])),
    "object with slots": ("Slots", Slots),
    "object in a named tuple in an object": ("Box", lambda x: Box(Pair(1, Box(Pair(x, 2))))),
    "named tuple of functions of a library": ("Box", lambda x: Box(optax.adam(x))),
    "closure over an object": ("function", lambda x: (lambda b: lambda: b.content)(Box(x))),
}
CLOSURES = {
    "closure": (lambda x: lambda y=3.0: x * y),
    "default": (lambda x: lambda y=x: y),
    "keyword default": (lambda x: lambda *, y=x: y),
    "closure over a closure": (lambda x: (lambda f: lambda: f())(lambda: x)),
    "closure over a list": (lambda x: (lambda y: lambda: y[0]["a"])([{"a": x}])),
    "closure over a Variable": (lambda x: (lambda y: lambda: y.value)(liftnn.Variable(x))),
    "closure over a partial": (lambda x: (lambda f: lambda: f())(functools.partial(lambda y: y, x))),
}
TRANSFORMS = {
    "jit": lambda f: liftnn.jit(f),
    "grad": lambda f: liftnn.grad(lambda m, x: (x * 1.0, f(m, x)), argnums=1, has_aux=True),
    "vmap": lambda f: lambda m, x: liftnn.vmap(f, in_axes=(None, 0))(m, jnp.stack([x, x])),
    "lift": lambda f: liftnn.lift(f, bind=lambda plan, pure: jax.checkpoint(pure)),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_static_value_with_a_tracer_cannot_be_attached(name):
    kind, build = HOLDERS[name]

    def attach(model, x):
        model.layers = [{"inner": build(x * 2)}]

    model = Affine()
    with raises(errors.StructureError, TEXT.format("args[0].layers[0].inner", kind)):
        liftnn.jit(attach)(model, 1.0)
    assert_same(model, Affine())


@pytest.mark.parametrize("build", CLOSURES.values(), ids=CLOSURES)
def test_a_closure_over_a_tracer_comes_out_over_its_value(build):
    def attach(model, x):
        model.layers = [{"inner": build(x * 2)}]
        return build(x * 3)

    model, plain = Affine(), Affine()
    call = liftnn.jit(attach)
    for x in (1.0, 2.0, 3.0):
        returned, expected = call(model, x), attach(plain, x)
        assert float(returned()) == float(expected())
        assert float(model.layers[0]["inner"]()) == float(plain.layers[0]["inner"]())
        assert not holds_tracer(returned)
        assert not holds_tracer(model.layers[0]["inner"])


def test_a_static_value_with_a_module_made_inside_cannot_be_attached():
    def attach(model, x):
        model.layers = [{"inner": Box(Affine(x * 2))}]

    model = Affine()
    with raises(
        errors.StructureError,
        "args[0].layers[0].inner is a Box that holds an Affine created inside liftnn.jit. That object would "
        "leak, because liftnn treats this Box as static.\n"
        "Store the module in an attribute, a list, a dict, a bound method or a functools.partial.",
    ):
        liftnn.jit(attach)(model, 1.0)
    assert_same(model, Affine())


@pytest.mark.parametrize("name", TRANSFORMS)
def test_no_transform_lets_one_out(name):
    def attach(model, x):
        model.box = Box(x * 2)

    model = Affine()
    with pytest.raises(errors.StructureError, match=r"^args\[0\]\.box is a Box that holds"):
        TRANSFORMS[name](attach)(model, jnp.float32(1.0))
    assert_same(model, Affine())


def test_nor_can_it_be_returned():
    with raises(errors.StructureError, TEXT.format("the output.a[1]", "Box")):
        liftnn.jit(lambda x: {"a": [x, Box(x)]})(1.0)
    with raises(errors.StructureError, TEXT.format("the output.inner.box", "Box")):
        liftnn.jit(lambda x: (lambda box: Holder(inner=lambda: (x, box)))(Box(x)))(1.0)


def test_nested_transforms_are_checked_where_the_outermost_ends():
    def attach(model, x):
        model.f = lambda y: y * x
        return model.f(3.0)

    def outer(model, x):
        out = liftnn.vmap(attach, in_axes=(None, None), axis_size=2, out_axes=None)(model, x)
        again = model.f(4.0)  # x is an array of this trace
        del model.f
        return out, again

    assert [float(y) for y in liftnn.jit(outer)(Affine(), 2.0)] == [6.0, 8.0]
    model = Affine()
    liftnn.jit(lambda m, x: liftnn.jit(attach)(m, x))(model, 2.0)
    assert float(model.f(3.0)) == 6.0


def test_arrays_that_are_no_tracers_may_be_held():
    constant = jnp.ones(2)

    def attach(model, x):
        model.box, model.f, model.g = Box(constant), lambda y: y * constant, functools.partial(max, 1)
        return x

    model = Affine()
    liftnn.jit(attach)(model, 1.0)
    assert model.box.content is constant
    assert model.f(2.0).tolist() == [2.0, 2.0]


def test_what_was_there_before_is_not_looked_at():
    model = Holder(w=liftnn.Param(jnp.ones(2)), f=jax.jit(lambda y: y))
    assert liftnn.jit(lambda m, x: m.f(m.w * x))(model, 2.0).tolist() == [2.0, 2.0]


def test_shapes_may_be_asked_of_what_could_not_come_out():
    model = liftnn.eval_shape(lambda x: Holder(f=lambda: x, w=liftnn.Param(x)), jnp.ones(2))
    assert model.w.shape == (2,)


@pytest.mark.parametrize(
    "build",
    [
        *(build for _, build in HOLDERS.values()),
        *CLOSURES.values(),
        generate,
        lambda x: iter([x]),
        lambda x: zip([x], strict=False),
        set,
    ],
)
def test_a_tracer_is_found_wherever_it_is_held(build):
    def look(x):
        assert holds_tracer(build(x if build is not set else [Box(x)]))
        return x

    jax.jit(look)(1.0)
    assert not holds_tracer(build(1.0 if build is not set else [Box(1.0)]))


def test_a_search_ends_in_cycles_and_large_structures():
    box = Box(None)
    box.content = [box, {"again": box}]
    assert not holds_tracer(box)
    assert not holds_tracer(Box([Box(i) for i in range(100_000)]))


def test_a_closure_that_is_not_filled_yet_holds_nothing():
    def outer():
        def inner():
            return later

        assert not holds_tracer(inner)
        later = 1
        return inner

    outer()


@pytest.mark.parametrize("transform", [liftnn.jit, liftnn.remat], ids=["jit", "remat"])
@pytest.mark.parametrize(
    "key", [lambda m: m, lambda m: m.w, lambda m: (m, 0)], ids=["module", "Variable", "tuple"]
)
def test_no_key_of_the_output_is_a_copy(key, transform):
    with pytest.raises(liftnn.StructureError, match="keys must be static"):
        transform(lambda m: {key(m): m.w * 2})(Affine())


@pytest.mark.parametrize(
    "hold",
    [
        lambda m: functools.partial(len, m),
        lambda m: types.MethodType(len, m),
        lambda m: lambda: m.w,
        lambda m: (lambda y: lambda: y)(m.w * 1),
    ],
    ids=["partial", "method", "closure", "array in a closure"],
)
def test_what_a_variable_holds_does_not_leak_either(hold):
    model = Affine()
    model.slot = liftnn.Variable(None)
    with pytest.raises(liftnn.StructureError, match="would leak"):
        liftnn.jit(lambda m: setattr(m.slot, "value", hold(m)))(model)
    assert model.slot.value is None


ITERATORS = {
    "list_iterator": lambda: iter([1, 2]),
    "generator": lambda: (x for x in (1, 2)),
    "map": lambda: map(str, (1, 2)),
    "zip": lambda: zip((1,), (2,), strict=True),
    "enumerate": lambda: enumerate((1, 2)),
    "range_iterator": lambda: iter(range(3)),
    "count": itertools.count,
    "cycle": lambda: itertools.cycle((1, 2)),
}
STORED = {
    "args[0].act": lambda m, x: setattr(m, "act", x),
    "args[0].act[0]": lambda m, x: setattr(m, "act", [x]),
    "args[0].act.held": lambda m, x: setattr(m, "act", Holder(held=x)),
    "args[0].w.note": lambda m, x: m.w.set_metadata("note", x),
    "the output": lambda m, x: x,
    "the output[0].a": lambda m, x: ({"a": x},),
}


@pytest.mark.filterwarnings("ignore:Python iterable type")
@pytest.mark.parametrize("place", STORED)
@pytest.mark.parametrize("kind", ITERATORS)
def test_a_new_iterator_raises_since_the_next_call_would_get_the_used_one(kind, place):
    model, before = Affine(), Affine()
    text = (
        f"{place} is {'an' if kind[0] in 'aeiou' else 'a'} {kind}, which can be read only once, but a compiled "
        "function makes one object for all of its calls.\nMake it a list or a tuple of its elements."
    )
    with raises(errors.StructureError, text):
        liftnn.jit(lambda m: STORED[place](m, ITERATORS[kind]()))(model)
    assert_same(model, before)


@pytest.mark.filterwarnings("ignore:Python iterable type")
def test_an_iterator_that_a_module_holds_already_may_be_moved_and_returned():
    model = Affine()
    model.items = iter([1, 2])
    items = model.items

    @liftnn.jit
    def move(m):
        m.again = m.items
        return m.items

    assert move(model) is items
    assert model.again is items


HIDDEN = {
    "metadata": lambda m, x: m.w.set_metadata("note", Box(x)),
    "metadata of a new Variable": lambda m, x: setattr(m, "act", liftnn.Param(jnp.ones(1), note=Box(x))),
    "a key": lambda m, x: setattr(m, "act", {Box(x): 1}),
    "a key beside others": lambda m, x: setattr(m, "act", {"a": {(1, Box(x)): m}}),
}


@pytest.mark.parametrize("what", ["module", "Variable", "tracer"])
@pytest.mark.parametrize("place", HIDDEN)
def test_nothing_leaks_in_metadata_and_keys(place, what):
    model, before = Affine(), Affine()
    parts = {"module": lambda m: m, "Variable": lambda m: m.w, "tracer": lambda m: m.w * 2}
    with pytest.raises(errors.StructureError, match="would leak"):
        liftnn.jit(lambda m: HIDDEN[place](m, parts[what](m)))(model)
    assert_same(model, before)


def test_no_module_leaks_in_the_static_part_of_a_pytree():
    model = Affine()
    with pytest.raises(errors.StructureError, match=r"the static part of args\[0\].act is a .* would leak"):
        liftnn.jit(
            lambda m: setattr(m, "act", jax.tree_util.Partial(functools.partial(max, Box(m)), jnp.ones(1)))
        )(model)
