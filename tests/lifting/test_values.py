"""Values of Variables on their way through JAX: `decode` undoes `encode`, and JAX can take what is in between."""

from __future__ import annotations

import collections
import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors
from liftnn._src.lifting.values import decode, encode, has_encoded
from liftnn._src.trees import an
from tests.raising import raises
from tests.user_modules import Affine

ARRAYS = {
    "array": lambda: jnp.ones(2),
    "number": lambda: 3,
    "numpy": lambda: np.ones(2),
    "key": lambda: jax.random.key(0),
    "shape": lambda: jax.ShapeDtypeStruct((2,), jnp.float32),
    "dict": lambda: {"a": jnp.ones(2), "b": [1.0, None]},
    "empty": lambda: liftnn.Empty,
    "empty tuple": lambda: (),
}
OTHERS = {
    "none": lambda: None,
    "text": lambda: "text",
    "type": lambda: int,
    "set": lambda: {1, 2},
    "text in a dict": lambda: {"a": jnp.ones(2), "b": ["text", (None, "more")]},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_values_of_arrays_are_left_as_they_are(name):
    value = ARRAYS[name]()
    assert encode(value, None) is value
    assert decode(value) is value
    assert not has_encoded(value)


@pytest.mark.parametrize("name", OTHERS)
def test_other_values_have_array_leaves_only_and_come_back(name):
    value = OTHERS[name]()
    encoded = encode(value, None)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(encoded))
    assert has_encoded([encoded])
    back = decode(jax.jit(lambda x: x)(encoded))
    assert jax.tree.structure(back) == jax.tree.structure(value)
    assert str(back) == str(value)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Named:
    """Checks its leaves, one of which is no array."""

    x: Any
    name: Any

    def __post_init__(self):
        assert isinstance(self.name, str)


def test_a_class_that_checks_its_leaves_may_hold_text():
    def scale(v):
        v.value = Named(v.value.x * 2, v.value.name)
        return v.value.x.sum()

    v = liftnn.Param(Named(jnp.ones(2), "a"))
    assert liftnn.jit(scale)(v) == 4
    assert v.value.name == "a"
    grad = liftnn.grad(lambda v: (v.value.x**2).sum())(v).value
    assert (grad.name, grad.x.tolist()) == ("a", [4, 4])
    assert liftnn.jvp(lambda v: v.value.x, (v,), (Named(jnp.ones(2), "a"),))[1].tolist() == [1, 1]
    with pytest.raises(errors.StructureError, match="has the structure"):
        liftnn.jvp(lambda v: v.value.x, (v,), (Named(jnp.ones(2), "b"),))
    assert liftnn.jacrev(lambda v: v.value.x)(v).value.x.tolist() == [[1, 0], [0, 1]]


def test_equal_values_have_equal_structure():
    structures = [jax.tree.structure(encode({"a": 1.0, "b": text}, None)) for text in ("x", "x", "y")]
    assert structures[0] == structures[1] != structures[2]


@pytest.mark.parametrize("build", [Affine, lambda: liftnn.Param(1.0)], ids=["module", "variable"])
def test_objects_in_a_value_are_refused_by_path(build):
    def note(v):
        v.value = {"inner": [build()]}

    made = build()
    with raises(
        errors.StructureError,
        f"args[0]: the value of this Variable contains {an(type(made))}. A Variable holds arrays, not modules "
        f"or Variables.\nStore the {type(made).__name__} as an attribute of a Module instead.",
    ):
        liftnn.jit(note)(liftnn.Variable(jnp.ones(1)))


@dataclasses.dataclass
class Settings:
    rate: object = 1


CHANGES = {
    "set": (lambda: {1}, lambda x: x.add(2)),
    "deque": (lambda: collections.deque([1]), lambda x: x.append(2)),
    "counter": (lambda: collections.Counter(a=1), lambda x: x.update("a")),
    "namespace": (lambda: types.SimpleNamespace(a=[1]), lambda x: x.a.append(2)),
    "dataclass": (Settings, lambda x: setattr(x, "rate", 2)),
    "bytes": (lambda: bytearray(b"a"), lambda x: x.append(1)),
}
PLACES = {
    "the value": (lambda x: x, lambda value: value),
    "in a dict": (lambda x: {"a": x, "b": jnp.ones(2)}, lambda value: value["a"]),
    "in a tuple": (lambda x: (x, "text"), lambda value: value[0]),
}
CALLS = {
    "jit": lambda f, m: liftnn.jit(f)(m),
    "jit of remat": lambda f, m: liftnn.jit(liftnn.remat(f))(m),
    "vmap": lambda f, m: liftnn.vmap(f, in_axes=None, axis_size=2)(m),
    "cond": lambda f, m: liftnn.cond(True, f, f, m),
    "captured": lambda f, m: liftnn.jit(lambda: f(m))(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("wrap, find", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("make, change", CHANGES.values(), ids=CHANGES)
def test_a_value_that_is_changed_in_place_is_as_in_plain_python(make, change, wrap, find, call):
    expected, model = make(), Affine()
    change(expected)
    model.v = liftnn.Variable(wrap(make()))
    call(lambda model: change(find(model.v.value)), model)
    assert repr(find(model.v.value)) == repr(expected)
    other = model.v.value
    call(lambda model: model.w.set_value(model.w * 2), model)
    assert model.v.value is other
