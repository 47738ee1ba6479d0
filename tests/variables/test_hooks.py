"""Hooks and overrides of Variables act as in Flax NNX: at once, and through the transforms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.quick import quick
from tests.raising import raises
from tests.strategies import Node

import liftnn
from liftnn import errors

pytestmark = pytest.mark.filterwarnings(
    "ignore:Variable hooks are deprecated", "ignore:'.value':DeprecationWarning"
)

X = jnp.arange(1.0, 4.0)


def add_one(variable, value):
    return value + 1


def double(variable, value):
    return value * 2


def squared(base):
    """Returns a class that stores square roots: an override of all three methods, without `index`."""

    class Squared(base):
        def create_value(self, value):
            return jnp.sqrt(value)

        def get_value(self):
            return self.get_raw_value() ** 2

        def set_value(self, value):
            self.set_raw_value(jnp.sqrt(value))

    return Squared


def shifted(base):
    """Returns a class whose overrides take an index and use those of the base."""

    class Shifted(base):
        def get_value(self, **options):
            return super().get_value(**options) + 10

        def set_value(self, value, **options):
            super().set_value(value - 10, **options)

    return Shifted


def hooked(base):
    """Returns a class with hooks as methods."""

    class Hooked(base):
        def on_create_value(self, value):
            return value + 100

        def on_get_value(self, value):
            return value * 3

        def on_set_value(self, value):
            return value - 5

    return Hooked


PLAIN = {
    "get": (lambda base: base, {"on_get_value": double}),
    "set": (lambda base: base, {"on_set_value": add_one}),
    "create": (lambda base: base, {"on_create_value": add_one}),
    "all": (
        lambda base: base,
        {"on_get_value": (double, add_one), "on_set_value": (add_one, double), "on_create_value": double},
    ),
    "methods": (hooked, {}),
    "metadata instead of methods": (hooked, {"on_get_value": double, "on_set_value": ()}),
    "overrides": (shifted, {}),
    "overrides and hooks": (shifted, {"on_get_value": double, "on_set_value": add_one}),
}


CASES = quick(["overrides and hooks", "metadata instead of methods", *PLAIN], 2)


def make(module, case):
    cls, metadata = PLAIN[case]
    return cls(module.Param)(X, **metadata)


def store(v):
    v.set_value(X * 7)


def store_part(v):
    v[1] = 50.0


def store_whole(v):
    v[...] = X * 9


def store_by_index(v):
    v.set_value(20.0, index=0)


def store_from_itself(v):
    v.set_value(v.get_value() + v[0])


def augment(v):
    v[...] += 1
    v[2] *= 2


def past_hooks(v):
    v.set_raw_value(v.get_raw_value() + 1)


def assign(v):
    v.value = v.value * 2


WRITES = [store, store_part, store_whole, store_by_index, store_from_itself, augment, past_hooks, assign]


def contents(v):
    """What each way to read gives, as numpy arrays."""
    read = v.get_raw_value(), v.get_value(), v[...], v[1], v[:2], v.get_value(index=0), v + 0, jnp.sin(v[...])
    return [np.asarray(x) for x in read]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("row", quick([(c, w) for w in WRITES for c in reversed(PLAIN)], 24))
def test_reads_and_writes_are_those_of_flax(row):
    case, write = row
    ours, theirs = make(liftnn, case), make(nnx, case)
    assert_same(contents(ours), contents(theirs))
    write(ours)
    write(theirs)
    assert_same(contents(ours), contents(theirs))


def under_jit(module, v, write):
    module.jit(write)(v)


def under_cond(module, v, write):
    module.cond(True, write, lambda v: None, v)


def under_remat_in_jit(module, v, write):
    module.jit(lambda v: module.remat(write)(v))(v)


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("run", [under_jit, under_cond, under_remat_in_jit])
def test_transforms_act_as_flax_does(case, run):
    ours, theirs = make(liftnn, case), make(nnx, case)
    for module, v in ((liftnn, ours), (nnx, theirs)):
        run(module, v, store_from_itself)
    assert_same(contents(ours), contents(theirs))


@pytest.mark.parametrize("case", CASES)
def test_split_merge_and_update_keep_raw_values_and_hooks(case):
    node = Node(v=make(liftnn, case))
    state, graphdef = liftnn.split(node)
    merged = liftnn.merge(graphdef, state)
    store_from_itself(node.v)
    store_from_itself(merged.v)
    assert_same(contents(merged.v), contents(node.v))
    other = Node(v=make(liftnn, case))
    liftnn.update(other, liftnn.state(merged))
    assert_same(contents(other.v), contents(node.v))


@pytest.mark.parametrize("case", CASES)
def test_a_repeated_jit_acts_as_the_plain_call(case):
    expected, v, f = make(nnx, case), make(liftnn, case), liftnn.jit(store_from_itself)
    for _ in range(4):
        store_from_itself(expected)
        f(v)
    assert_same(contents(v), contents(expected))
    assert f.n_traces == 1


@pytest.mark.parametrize("case", CASES)
def test_a_captured_variable_is_read_and_written_through_hooks(case):
    expected, v = make(nnx, case), make(liftnn, case)
    f = liftnn.jit(lambda: store_from_itself(v))
    for _ in range(3):
        store_from_itself(expected)
        f()
    assert_same(contents(v), contents(expected))


@pytest.mark.parametrize("case", CASES)
def test_a_variable_passed_and_captured_is_one(case):
    expected, v = make(nnx, case), make(liftnn, case)

    def write(x):
        store_from_itself(x)
        store_part(v)

    write_plain = liftnn.jit(write)
    write_plain(v)
    store_from_itself(expected)
    store_part(expected)
    assert_same(contents(v), contents(expected))


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", CASES)
def test_vmap_and_scan_run_hooks_on_each_element(case):
    """Oracle: Flax for each element."""
    rows = jnp.stack([X, X * 2, X * 3])
    cls, metadata = PLAIN[case]
    expected = []
    for row in rows:
        v = cls(nnx.Param)(row, **metadata)
        store_from_itself(v)
        expected.append(np.asarray(v.get_raw_value()))
    for transform in (liftnn.vmap, liftnn.scan):
        made = liftnn.vmap(lambda row: cls(liftnn.Param)(row, **metadata))(rows)
        options = {"in_axes": 0, "out_axes": 0} if transform is liftnn.scan else {}
        transform(store_from_itself, **options)(made)
        np.testing.assert_allclose(made.get_raw_value(), np.stack(expected))


@pytest.mark.parametrize("case", ["get", "all", "methods", "overrides"])
def test_gradients_go_through_hooks(case):
    """Oracle: Flax."""

    def loss(v):
        return (v.get_value() ** 2).sum()

    ours = liftnn.grad(loss)(make(liftnn, case)).raw_value
    theirs = nnx.grad(loss)(make(nnx, case)).get_raw_value()
    np.testing.assert_allclose(ours, theirs)


def test_an_override_without_index_is_used_by_every_read_and_write():
    v = squared(liftnn.Param)(X**2)
    np.testing.assert_allclose(v.get_raw_value(), X)
    np.testing.assert_allclose(v.value, X**2)
    np.testing.assert_allclose(v[1], 4.0)
    np.testing.assert_allclose(v + 0, X**2)
    np.testing.assert_allclose(jnp.asarray(v), X**2)
    v[1] = 25.0
    np.testing.assert_allclose(v.get_raw_value(), [1, 5, 3], rtol=1e-6)
    v += 3
    np.testing.assert_allclose(v.get_raw_value() ** 2, [4, 28, 12], rtol=1e-6)


def test_an_override_works_in_a_shared_module_and_a_cycle_under_jit():
    node = Node(w=squared(liftnn.Param)(X**2))
    node.again, node.w2 = node, node.w

    @liftnn.jit
    def f(node):
        node.again.w2[0] = 16.0
        node.w.value = node.w.value + 0

    f(node)
    f(node)
    assert node.w is node.w2
    np.testing.assert_allclose(node.w.get_raw_value(), [4, 2, 3], rtol=1e-6)


READS = {
    "operators": lambda v: v + 1,
    "reflected": lambda v: 1 - v,
    "two": lambda v: v * v,
    "equal": lambda v: v == 1,
    "negative": lambda v: -v,
    "whole": lambda v: v[...],
    "index": lambda v: v[1],
    "attribute": lambda v: v.sum(),
    "jax.numpy": jnp.sum,
    "numpy": np.asarray,
    "iteration": lambda v: jnp.stack(list(v)),
    "length": len,
    "membership": lambda v: 1.0 in v,
}


def doubled(base):
    """Returns a class with another `value`, which looks for an attribute that is not there, as wrappers do."""

    class Doubled(base):
        @property
        def value(self):
            return getattr(self, "scale", 2.0) * self.get_raw_value()

    return Doubled


@pytest.mark.parametrize("read", READS)
def test_a_property_value_of_a_subclass_is_not_used_by_reads(read):
    ours, theirs = doubled(liftnn.Variable)(X), doubled(nnx.Variable)(X)
    assert ours.value.tolist() == theirs.value.tolist() == (2 * X).tolist()
    assert np.asarray(READS[read](ours)).tolist() == np.asarray(READS[read](theirs)).tolist()


def test_an_in_place_operator_does_not_use_a_property_value_of_a_subclass():
    v = doubled(liftnn.Variable)(X)
    v += 1
    assert v.get_raw_value().tolist() == (X + 1).tolist()


def test_a_missing_attribute_is_named_where_a_subclass_has_another_value():
    with pytest.raises(AttributeError, match="nothing"):
        _ = doubled(liftnn.Variable)(X).nothing


def test_a_mixin_can_override():
    class Absolute:
        def get_value(self, **options):
            return abs(super().get_value(**options))

    class V(Absolute, liftnn.Param):
        pass

    assert V(jnp.array([-1.0, 2.0]))[...].tolist() == [1, 2]


def test_a_captured_variable_with_an_override_is_the_copy_inside():
    v = shifted(liftnn.Param)(X)

    @liftnn.jit
    def f():
        v.set_value(v.get_value() * 2)
        return v[...]

    np.testing.assert_allclose(f(), (X + 10) * 2)
    np.testing.assert_allclose(v.get_raw_value(), (X + 10) * 2 - 10)


def test_a_failing_hook_leaves_the_value():
    def fails(v, x):
        raise RuntimeError("no")

    v = liftnn.Param(X, on_set_value=fails)
    with pytest.raises(RuntimeError, match="no"):
        v.value = X + 1
    with pytest.raises(RuntimeError, match="no"):
        liftnn.jit(lambda v: v.set_value(X + 1))(v)
    assert v.raw_value is X


def test_hooks_read_back_as_they_were_given():
    v, w = liftnn.Param(X, on_get_value=double), nnx.Param(X, on_get_value=double)
    assert v.get_metadata("on_get_value") is w.get_metadata("on_get_value") is double
    assert v.on_get_value is double
    assert liftnn.Param(X, on_get_value=[double]).on_get_value == (double,)


def test_a_hook_can_be_set_and_removed_later():
    v, f = liftnn.Param(X), liftnn.jit(lambda v: v.get_value())
    assert f(v).tolist() == [1, 2, 3]
    v.on_get_value = double
    assert f(v).tolist() == [2, 4, 6]
    del v.on_get_value
    assert f(v).tolist() == [1, 2, 3]


READS_OF_A_HOOK = {
    "value": lambda v: v.get_value(),
    "raw value": lambda v: v.get_raw_value(),
    "part": lambda v: v[0],
    "shape": lambda v: v.shape,
    "attribute of the array": lambda v: v.sum(),
    "missing attribute": lambda v: hasattr(v, "absent"),
    "operator": lambda v: v + 1,
    "numpy": np.asarray,
    "metadata": lambda v: v.note,
}


@pytest.mark.parametrize("how", READS_OF_A_HOOK)
def test_a_hook_that_runs_at_creation_reads_the_variable_as_in_flax(how):
    def run(library):
        found = []

        def look(variable, value):
            found.append(READS_OF_A_HOOK[how](variable))
            return value * 2

        variable = library.Param(X, on_create_value=look, note="n")
        return [*found, variable.get_value()]

    jax.tree.map(np.testing.assert_array_equal, run(liftnn), run(nnx))


def test_each_of_several_hooks_that_run_at_creation_reads_what_the_last_one_returned():
    found = []

    def look(variable, value):
        found.append(float(variable.value))
        return value + 1

    variable = liftnn.Param(1.0, on_create_value=(look, look))
    assert (found, variable.value) == ([1.0, 2.0], 3.0)
    assert "raw_value=1.0" in liftnn.Param(1.0, on_create_value=lambda v, _: repr(v)).value


@pytest.mark.parametrize("name", ["on_get_value", "on_set_value", "on_create_value", "on_add_axis"])
def test_a_hook_that_cannot_be_called_is_an_error(name):
    with raises(
        errors.ArgumentError,
        f"{name} must be a callable or a sequence of callables, not 3.\nPass {name}=f, or {name}=(f, g) to call f "
        "first and then g.",
    ):
        liftnn.Param(1.0, **{name: 3})


@pytest.mark.parametrize("axis", [0, 1])
def test_axis_hooks_are_called_as_in_flax(axis):
    def note(log, what):
        return lambda v, *args: log.append((what, *args))

    def run(module, log):
        hooks = {"on_add_axis": note(log, "add"), "on_remove_axis": note(log, "remove")}
        options = {"transform_metadata": {module.PARTITION_NAME: "layers"}}
        made = module.vmap(lambda x: module.Param(x, **hooks), out_axes=axis, **options)(jnp.ones((2, 3)))
        module.vmap(lambda v: None, in_axes=axis, **options)(made)
        made.add_axis(2, "b")
        made.remove_axis(2, None)

    ours, theirs = [], []
    run(liftnn, ours)
    run(nnx, theirs)
    assert theirs[-2:] == [("add", 2, "b"), ("remove", 2, None)]
    assert ours == theirs[:2] + theirs[-2:]  # metadata that was left alone is restored, not added to


def test_axis_hooks_as_methods_are_called_as_in_flax():
    def run(module):
        log = []

        class Logged(module.Param):
            def on_add_axis(self, axis_index, axis_name):
                log.append((axis_index, axis_name))

        Logged(X).add_axis(1, "a")
        Logged(X, on_add_axis=lambda v, *args: log.append(args)).add_axis(1, "b")
        return log

    assert run(liftnn) == run(nnx) == [(1, "a"), (1, "b")]


# --- copying, the class


def test_copy_from_is_that_of_flax():
    def run(module):
        a, b = module.Param(X, tag="a", note=1), module.Param(X * 2, tag="b")
        a.copy_from(b)
        a.copy_from(a)
        with pytest.raises(ValueError, match="Param"):
            a.copy_from(module.BatchStat(X))
        return np.asarray(a.get_raw_value()).tolist(), a.get_metadata("tag"), a.has_metadata("note")

    assert run(liftnn) == run(nnx) == ([2, 4, 6], "b", False)


def test_update_from_state_is_that_of_flax():
    def run(module):
        a, b = module.Param(X, tag="a"), module.BatchStat(X * 2, tag="b", on_get_value=double)
        a.update_from_state(b)
        return type(a).__name__, np.asarray(a.get_value()).tolist(), a.get_metadata("tag")

    assert run(liftnn) == run(nnx) == ("Param", [4, 8, 12], "b")


def test_copy_from_in_jit_is_propagated():
    a, b = liftnn.Param(X), liftnn.Param(X * 2, tag="b")
    liftnn.jit(lambda a, b: a.copy_from(b))(a, b)
    assert (a.value.tolist(), a.tag) == ([2, 4, 6], "b")


@pytest.mark.parametrize("write", [
    lambda v: v.set_value(X), lambda v: v.set_raw_value(X), lambda v: v.copy_from(liftnn.Param(X)),
    lambda v: v.update_from_state(liftnn.Param(X)), lambda v: v.set_value(1.0, index=0),
])  # fmt: skip
def test_no_write_is_lost_in_raw_jax(write):
    v = liftnn.Param(jnp.zeros(3))

    @jax.jit
    def f():
        write(v)

    with pytest.raises(errors.TraceContextError, match="Cannot change the value of a Param here"):
        f()
    assert v.value.tolist() == [0, 0, 0]


def test_the_type_is_the_class():
    assert liftnn.Param(X).type is liftnn.Param
    assert liftnn.Variable(X, type="mine").type is liftnn.Variable


def test_a_container_is_read_and_written_by_key():
    def run(module):
        v = module.Variable({"a": 1, "b": 2}, on_get_value=lambda v, x: x, on_set_value=lambda v, x: x)
        v["a"] = 5
        v.set_value(6, index="b")
        return v.get_value(), v.get_value(index="a"), v["b"]

    assert run(liftnn) == run(nnx) == ({"a": 5, "b": 6}, 5, 6)


def test_an_empty_array_and_a_scalar():
    def run(module):
        v, s = module.Param(jnp.zeros((0, 2))), module.Param(jnp.array(1.0))
        v[...] = jnp.zeros((0, 2))
        s[...] = 3.0
        v.set_value(jnp.ones((2, 2)))
        return v.get_value().shape, float(s.get_value()), s.get_value(index=None).shape

    assert run(liftnn) == run(nnx) == ((2, 2), 3.0, (1,))
