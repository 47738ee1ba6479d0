"""recursive_map: a copy with replacements, as in Flax NNX, and through cycles, tuples and closures."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from flax import nnx
from tests.strategies import Node

import liftnn


def build(library):
    class Net(library.Module):
        def __init__(self):
            self.a = library.Linear(2, 2, rngs=library.Rngs(0))
            self.again, self.n, self.x = self.a, 3, jnp.ones(2)
            self.drop = library.Dropout(0.5)

    return Net()


def test_the_objects_and_their_order_are_those_of_flax():
    """But for the attributes, which Flax visits by name, and its own bookkeeping."""

    def seen(library):
        log = []

        def note(path, x):
            if not any(str(k).startswith("_") for k in path):
                log.append((path, type(x).__name__))
            return x

        library.recursive_map(note, build(library))
        return log

    ours, theirs = seen(liftnn), seen(nnx)
    common = ("a", "kernel"), ("a", "bias"), ("a",), ("n",), ("x",), ("drop",), ("drop", "rate"), ()
    assert {x for x in ours if x[0] in common} == {x for x in theirs if x[0] in common}
    assert len(ours) == len(set(ours))
    assert ours[-1] == theirs[-1] == ((), "Net")
    for log in (ours, theirs):
        paths = [path for path, _ in log]
        assert paths.index(("a", "kernel")) < paths.index(("a",)) < paths.index(())
        assert ("again",) not in paths  # met by its first path


def test_replacements_are_those_of_flax():
    def run(library):
        def replace(path, x):
            if isinstance(x, library.Dropout):
                return "no dropout"
            return x + 1 if path == ("n",) else x

        model = build(library)
        new = library.recursive_map(replace, model)
        return (
            (new.drop, new.n, new.a is new.again, new.a is model.a),
            (model.n, type(model.drop).__name__),
        )

    assert run(liftnn) == run(nnx)


def test_a_variable_can_be_replaced_and_the_original_keeps_its_own():
    model = build(liftnn)
    kernel = model.a.kernel
    new = liftnn.recursive_map(
        lambda path, x: liftnn.BatchStat(x.value * 2) if isinstance(x, liftnn.Param) else x, model
    )
    assert (new.a.kernel.value == kernel.value * 2).all()
    assert type(new.again.kernel) is liftnn.BatchStat
    assert model.a.kernel is kernel


def test_the_copy_shares_variables_and_arrays():
    model = build(liftnn)
    new = liftnn.recursive_map(lambda path, x: x, model)
    assert new is not model
    assert new.a is new.again is not model.a
    assert new.a.kernel is model.a.kernel
    assert new.x is model.x


def test_containers_tuples_and_closures_are_rebuilt():
    scale = liftnn.Param(2.0)

    def f():
        return scale

    node = Node(t=(Node(), [Node()]), d={"k": Node()}, f=f)
    new = liftnn.recursive_map(lambda path, x: "gone" if type(x) is Node and path else x, node)
    assert (new.t, new.d) == (("gone", ["gone"]), {"k": "gone"})
    assert new.f() is scale
    assert type(node.t[0]) is Node
    assert liftnn.recursive_map(lambda path, x: 5 if x is scale else x, node).f() == 5


def test_an_object_in_a_cycle_can_be_kept_or_replaced():
    node = Node(child=Node(), items=[])
    node.child.parent = node
    node.items.append(node)
    kept = liftnn.recursive_map(lambda path, x: x, node)
    assert kept.child.parent is kept.items[0] is kept
    other = Node()
    new = liftnn.recursive_map(lambda path, x: Node(was=x) if path == () else x, node)
    assert new.was.child.parent is new
    assert new.was.items[0] is new
    assert node.child.parent is node
    assert liftnn.recursive_map(lambda path, x: other if path == () else x, node) is other


def test_trees_and_empty_modules():
    node = Node()
    new = liftnn.recursive_map(lambda path, x: x, {"a": [node, node]})
    assert new["a"][0] is new["a"][1] is not node
    assert liftnn.recursive_map(lambda path, x: (path, type(x)), node) == ((), Node)


def test_a_failing_function_leaves_the_model_as_it_was():
    model = build(liftnn)
    before = liftnn.split(model)[-1]

    def fails(path, x):
        if path == ("drop",):
            raise RuntimeError("no")
        return 0 if path[-1:] == ("kernel",) else x

    with pytest.raises(RuntimeError, match="no"):
        liftnn.recursive_map(fails, model)
    assert liftnn.split(model)[-1] == before
