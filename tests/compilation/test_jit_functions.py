"""Everything that can be called can be given to `jit`, and modules may be anywhere in arguments and results."""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import liftnn
from liftnn import errors
from tests.raising import raises
from tests.same import assert_same
from tests.user_modules import Affine, Holder, step


class Methods(liftnn.Module):
    """Methods decorated in every way."""

    def __init__(self):
        self.w = liftnn.Param(jnp.full(2, 2.0))
        self.calls = liftnn.Variable(jnp.array(0))

    @liftnn.jit
    def __call__(self, x):
        return self.plain(x)

    @liftnn.jit(static_argnums=2)
    def times(self, x, k=1):
        return self.plain(x) * k

    @staticmethod
    @liftnn.jit
    def static(x):
        return x + 1

    @classmethod
    @liftnn.jit(static_argnums=0)
    def name_and(cls, x):
        return cls.__name__, x

    def plain(self, x):
        self.calls.value = self.calls + 1
        return self.w * x

    @functools.cached_property
    def jitted(self):
        return liftnn.jit(self.plain)


def subtract(model, x, /, y=1.0, *rest, k=0.0, **others):
    return model(x) - y - sum(rest) - k - sum(others.values())


WAYS = {
    "jit(f)": lambda: liftnn.jit(step),
    "@jit()": lambda: liftnn.jit()(step),
    "@jit(inline=True)": lambda: liftnn.jit(inline=True)(step),
    "jit(f, inline=True)": lambda: liftnn.jit(step, inline=True),
    "lambda": lambda: liftnn.jit(lambda model, x: model(x)),
    "jit of jit": lambda: liftnn.jit(liftnn.jit(step)),
    "partial of jit": lambda: functools.partial(liftnn.jit(lambda _, model, x: model(x)), 0),
    "jit of partial": lambda: liftnn.jit(functools.partial(lambda _, model, x: model(x), "text")),
    "function of a class": lambda: liftnn.jit(Affine.__call__),
    "callable object": lambda: liftnn.jit(Caller()),
}


class Caller:
    """A callable that is no function."""

    def __call__(self, model, x):
        return model(x)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_jit_a_function_acts_like_the_function(way):
    model, reference = Affine(2.0), Affine(2.0)
    call = WAYS[way]()
    for x in (2.0, 3.0):
        assert_same(call(model, x), step(reference, x))
    assert_same(model, reference)


BOUND = {
    "method": lambda model: liftnn.jit(model.loss),
    "instance": lambda model: liftnn.jit(model),
    "partial of a function": lambda model: liftnn.jit(functools.partial(Affine.__call__, model)),
    "partial of a method": lambda model: liftnn.jit(functools.partial(model.__call__, scale=2.0)),
    "partial of an instance": lambda model: liftnn.jit(functools.partial(model, k=3)),
    "nested partial": lambda model: liftnn.jit(
        functools.partial(functools.partial(lambda a, b, x, *, c: a(x) + b(x) + c(x), model), model, c=model)
    ),
    "partial of a jitted function": lambda model: functools.partial(liftnn.jit(step), model),
}
PLAIN = {
    "method": lambda model: model.loss,
    "instance": lambda model: model,
    "partial of a function": lambda model: model,
    "partial of a method": lambda model: functools.partial(model, scale=2.0),
    "partial of an instance": lambda model: functools.partial(model, k=3),
    "nested partial": lambda model: lambda x: model(x) + model(x) + model(x),
    "partial of a jitted function": lambda model: model,
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("way", BOUND)
def test_a_module_bound_to_what_is_jitted_is_read_and_written(way):
    model, reference = Affine(2.0), Affine(2.0)
    call = BOUND[way](model)
    for x in (2.0, 3.0):
        assert_same(call(x), PLAIN[way](reference)(x))
        model.b.value = reference.b.value = model.b + 1  # seen by the next call
    assert_same(model, reference)


def test_decorated_methods_act_like_methods():
    model = Methods()
    assert model(3.0).tolist() == [6.0, 6.0]
    assert model.times(3.0, 2).tolist() == Methods.times(model, 3.0, k=2).tolist() == [12.0, 12.0]
    assert model.jitted(1.0).tolist() == [2.0, 2.0]
    assert (float(model.static(1.0)), float(Methods.static(1.0))) == (2.0, 2.0)
    assert int(model.calls.value) == 4


def test_a_class_method_gets_its_class():
    assert Methods.name_and(1.0) == Methods().name_and(1.0) == ("Methods", 1.0)


def test_a_class_can_be_jitted_and_makes_a_module():
    model = liftnn.jit(Affine, static_argnames="size")(2.0, size=4)
    assert model.w.value.tolist() == [2.0] * 4
    assert model.mode == "train"


def test_defaults_keyword_only_and_variadic_arguments():
    for args, kwargs in (((2.0,), {}), ((2.0, 3.0, 4.0, 5.0), {"k": 1.0, "z": 2.0}), ((2.0,), {"y": 0.5})):
        model, reference = Affine(3.0), Affine(3.0)
        call = liftnn.jit(subtract)
        assert_same(call(model, *args, **kwargs), subtract(reference, *args, **kwargs))


def test_modules_may_be_keyword_and_variadic_arguments():
    def total(*models, x, **more):
        return sum(m(x) for m in (*models, *more.values()))

    models = [Affine(float(i)) for i in range(4)]
    out = liftnn.jit(total)(*models[:2], x=2.0, c=models[2], d=models[3])
    assert out.tolist() == [12.0] * 3
    assert [int(m.calls.value) for m in models] == [1, 1, 1, 1]


Point = collections.namedtuple("Point", "model x")


@dataclasses.dataclass
class Record:
    """A dataclass that JAX does not know: an object with identity."""

    model: Any
    x: Any
    count: int = 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Node:
    """A dataclass that JAX knows as a pytree."""

    model: Any
    x: Any


PYTREES = {
    "dict": (lambda m: {"model": m, "x": 2.0}, lambda t: t["model"](t["x"])),
    "namedtuple": (lambda m: Point(m, 2.0), lambda t: t.model(t.x)),
    "nested": (lambda m: {"a": [Point(m, 1.0), (None, 2.0)]}, lambda t: t["a"][0].model(t["a"][1][1])),
    "ordered dict": (
        lambda m: collections.OrderedDict(z=m, a=2.0),
        lambda t: t["z"](t["a"]),
    ),
    "dataclass": (lambda m: Record(m, 2.0), lambda t: t.model(t.x)),
    "registered dataclass": (lambda m: Node(m, jnp.array(2.0)), lambda t: t.model(t.x)),
    "module": (lambda m: Holder(model=m, x=2.0), lambda t: t.model(t.x)),
    "list with one module twice": (lambda m: [m, m, 2.0], lambda t: t[0](t[2]) + t[1](t[2])),
}


@pytest.mark.parametrize("name", PYTREES)
def test_modules_in_a_pytree_are_read_and_written(name):
    build, call = PYTREES[name]
    model, reference = Affine(2.0), Affine(2.0)
    for _ in range(2):
        assert_same(liftnn.jit(call)(build(model)), call(build(reference)))
    assert_same(model, reference)


def test_a_dataclass_argument_is_changed_in_place():
    def change(record):
        record.count += 1
        record.more = Affine()
        return record

    record = Record(Affine(), jnp.ones(2))
    assert liftnn.jit(change)(record) is record
    assert (record.count, record.more.mode) == (1, "train")


OUTPUTS = {
    "none": lambda m, x: None,
    "nothing but None": lambda m, x: (None, [None], {}),
    "numbers": lambda m, x: [True, 3, 2.5, 1j],
    "static values": lambda m, x: ("text", int, {"mode": m.mode}, frozenset([1])),
    "a new module": lambda m, x: Holder(w=liftnn.Param(m.w * x), inner=[Affine(4.0)], note="new"),
    "a module twice": lambda m, x: (lambda new: (new, {"again": new}))(Affine(4.0)),
    "a new module around the argument": lambda m, x: Holder(inner=m, w=m.w),
    "a variable": lambda m, x: liftnn.BatchStat(m.w * x, tag="stat"),
    "a namedtuple": lambda m, x: Point(m, x),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_are_those_of_the_plain_call(name):
    model, reference = Affine(2.0), Affine(2.0)
    call = liftnn.jit(OUTPUTS[name])
    for _ in range(2):
        out, expected = call(model, 3.0), OUTPUTS[name](reference, jnp.float32(3.0))
        assert_same((arrays(out), model), (arrays(expected), reference))
    if not isinstance(out, liftnn.Module):
        assert type(out) is type(expected)


def arrays(out):
    """Numbers as the arrays that a compiled function makes of them."""
    return jax.tree.map(
        lambda x: jnp.asarray(x) if isinstance(x, (bool, int, float, complex)) else x,
        out,
        is_leaf=lambda x: isinstance(x, liftnn.Module),
    )


@pytest.mark.parametrize("value", ["text", int, None, print])
def test_a_static_output_is_handed_out_as_it_is(value):
    assert liftnn.jit(lambda: value)() is value


def test_a_static_output_follows_the_structure_of_the_module():
    model, call = Affine(), liftnn.jit(lambda m: m.mode)
    assert call(model) == "train"
    model.mode = "eval"
    assert call(model) == "eval"


def test_a_function_without_arguments():
    assert liftnn.jit(lambda: jnp.ones(2))().tolist() == [1.0, 1.0]


def grow(modules):
    modules.append(Affine())


def add(modules):
    modules["new"] = modules["old"]


LOST_CHANGE = (
    "A list, dict or other container that was passed as an argument was changed inside the function. The function gets "
    "a copy of the container, as in JAX, so the change would be lost.\n"
    "Return the container, change a copy of it (`batch = dict(batch)`), or make it an attribute of a module and pass "
    "that module."
)


@pytest.mark.parametrize("change, build", [(grow, lambda m: [m]), (add, lambda m: {"old": m})])
def test_a_container_of_modules_that_was_passed_cannot_be_changed(change, build):
    model = Affine()
    container = build(model)
    with raises(errors.StructureError, LOST_CHANGE):
        liftnn.jit(change)(container)
    assert len(container) == 1


@pytest.mark.parametrize(
    "make, change",
    [
        (lambda: {1}, lambda x: x.add(2)),
        (lambda: [collections.deque([1])], lambda x: x[0].append(2)),
        (lambda: collections.Counter("a"), lambda x: x.update("a")),
        (lambda: bytearray(b"a"), lambda x: x.append(1)),
    ],
)
def test_nor_can_another_container_that_was_passed_beside_a_module(make, change):
    container = make()
    with pytest.raises(errors.StructureError, match="the change would be lost"):
        liftnn.remat(lambda model, x: change(x))(Affine(), container)
    with pytest.raises(errors.StructureError, match="the change would be lost"):
        liftnn.remat(functools.partial(lambda x, model: change(x), container))(Affine())
    assert container == make()


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class TrainingState:
    model: Affine
    count: jax.Array


def count_up(state, x):
    state.count = state.count + 0 * state.model(x).sum() + 1
    return state


def put(batch, model):
    batch["x"] = model(batch["x"])
    batch["done"] = None
    return {"batch": batch, "done": None}


def test_a_container_that_was_passed_may_be_changed_if_it_is_returned():
    model = Affine()
    state = TrainingState(model, jnp.zeros(()))
    after = liftnn.jit(count_up)(state, 1.0)
    assert (after.model, after.count, state.count) == (model, 1, 0)
    last, _ = liftnn.scan(lambda state, x: (count_up(state, x), None))(state, jnp.ones(3))
    assert (last.model, last.count, state.count) == (model, 3, 0)
    out = liftnn.jit(put)({"x": jnp.ones(3)}, model)
    assert out["batch"]["x"].tolist() == model(jnp.ones(3)).tolist()


@pytest.mark.parametrize(
    "change",
    [
        lambda batch, model: batch.update(y=model(batch["x"])),
        lambda batch, model: {**batch, "x": batch.pop("x")},
        lambda batch, model: batch.setdefault("y", model(batch["x"])),
        lambda batch, model: batch.update(x=None),
        lambda batch, model: (batch["inner"].update(y=model(batch["x"])), batch["x"]),
    ],
)
def test_a_change_of_a_container_that_is_not_returned_raises(change):
    with raises(errors.StructureError, LOST_CHANGE):
        liftnn.jit(change)({"x": jnp.ones(3), "inner": {}}, Affine())


def test_a_container_of_arrays_that_was_passed_is_a_copy_as_in_jax():
    for jit in (liftnn.jit, jax.jit):
        x = [jnp.ones(2)]
        assert jit(lambda x: x.append(0.0) or x[0])(x).tolist() == [1.0, 1.0]
        assert len(x) == 1


def documented(model: Affine, x: float, *, k: int = 1) -> jax.Array:
    """What it does."""
    return model(x, k)


documented.mark = 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["jit", "grad", "value_and_grad", "vmap"])
def test_the_function_can_be_looked_up_on_what_is_made_of_it(name):
    made = getattr(liftnn, name)(documented)
    assert made.__wrapped__ is documented
    assert inspect.signature(made) == inspect.signature(documented)
    assert repr(made) == f"<liftnn.{name} of documented>"


def test_the_signature_of_a_bound_module_is_without_self():
    model = Affine()
    assert str(inspect.signature(liftnn.jit(model.loss))) == "(x)"
    assert str(inspect.signature(liftnn.jit(model))) == "(x, k=1, *, scale=1.0)"
    assert str(inspect.signature(liftnn.jit(functools.partial(documented, k=2)))) == str(
        inspect.signature(functools.partial(documented, k=2))
    )


def test_the_compiled_program_has_the_name_of_the_function():
    assert liftnn.jit(step).lower(Affine(), 1.0).as_text().startswith("module @jit_step ")
