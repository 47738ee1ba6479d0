"""The merge: new objects own what they hold, and a result that cannot be put back changes nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.alike import find_difference
from tests.strategies import Frozen, Node

import liftnn
from liftnn.graph.graphdef import walk_tree
from liftnn.graph.merge import merge_all, own_value, set_frozen_arrays
from liftnn.variables import frames


@jax.tree_util.register_pytree_node_class
class Touchy:
    """A pytree that takes tracers, and no arrays."""

    def __init__(self, x):
        self.x = x

    def tree_flatten(self):
        return (self.x,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        if hasattr(children[0], "addressable_shards"):
            raise ValueError("not this")
        return cls(children[0])


def make_model():
    return Node(w=liftnn.Param(jnp.ones(2)), items=[1], n=1, t=None, sub=Node(k=1))


def change_everything(model, x):
    model.w.value = model.w.value + x
    model.w.tag = "new"
    model.items.append(2)
    model.n = 2
    del model.sub.k
    model.sub.new = liftnn.Param(x)
    model.t = Touchy(x)


def test_a_result_that_cannot_be_built_changes_nothing():
    model = make_model()
    with pytest.raises(ValueError, match="not this"):
        liftnn.jit(change_everything)(model, jnp.ones(2))
    assert find_difference(model, make_model()) is None


def test_new_objects_belong_to_the_owner_that_is_given():
    model = make_model()
    graphdef, _, arrays = walk_tree(model)
    with frames.open_frame("jit") as frame:
        new, merged = merge_all(graphdef, [model.w.value], arrays, frame)
        new.n = 2
        new.w.value = jnp.zeros(2)
    assert merged.objects[0] is new
    assert (model.n, model.w.value.tolist()) == (1, [1, 1])


def test_an_array_is_given_as_it_is():
    for x in (jnp.ones(2), np.ones(2), 1.5):
        given = own_value(x)
        assert given.value is x
        assert given.leaves is None


@pytest.mark.parametrize("value", [{"a": [1]}, [[1], {"b": 2}], {"a": {}}], ids=repr)
def test_a_container_is_given_as_a_copy_all_the_way_down(value):
    before = repr(value)
    given = own_value(value).value
    assert repr(given) == before
    inner = given["a"] if isinstance(given, dict) else given[0]
    (inner.update(z=1) if isinstance(inner, dict) else inner.append(9))
    assert repr(value) == before


def test_arrays_in_frozen_nodes_are_set_by_building_them_anew():
    shared = (jnp.ones(1), "kept")
    model = Node(a=Frozen(shared, [shared]), b=shared, keep=[1])
    items, keep = model.a.b, model.keep
    graphdef, walk, _ = walk_tree(model)
    number = walk.numbers[id(shared)]
    set_frozen_arrays(graphdef, walk.objects, {number: {0: jnp.zeros(1)}}, frames.PLAIN)
    assert (model.b[0].tolist(), model.b[1]) == ([0], "kept")
    assert model.a.a is model.b
    assert model.a.b is items
    assert items[0] is model.b
    assert model.keep is keep
    assert shared[0].tolist() == [1]
