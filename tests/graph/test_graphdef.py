"""split, state, merge and apply on any tree of modules, and what a GraphDef is equal to."""

from __future__ import annotations

import gc
import weakref

import jax
import jax.numpy as jnp
import optax
import pytest
from tests.alike import find_difference
from tests.raising import raises
from tests.strategies import Node, Point, Sub

import liftnn
from liftnn import errors

NAME_BOTH = "Compare the paths above with those of the module: both sides must have the same Variables."


def make_model(n=1):
    model = Node(
        a=Sub(w=liftnn.Param(jnp.ones((2, n))), s=liftnn.BatchStat(jnp.zeros(2))),
        n=n,
        x=jnp.arange(3.0),
    )
    model.tied, model.me = model.a.w, model
    return model


# --- split and state


def test_split_gives_a_state_of_all_and_the_graphdef():
    state, graphdef = liftnn.split(make_model())
    assert type(state) is liftnn.State
    assert type(graphdef) is liftnn.GraphDef
    assert list(state.flat()) == [("a", "w"), ("a", "s"), ("x",)]


def test_split_gives_a_state_for_each_filter():
    params, stats, rest, _ = liftnn.split(make_model(), liftnn.Param, liftnn.BatchStat, ...)
    assert [list(s.flat()) for s in (params, stats, rest)] == [[("a", "w")], [("a", "s")], [("x",)]]


def test_split_with_something_left_over_lists_it():
    with raises(
        errors.FilterError,
        "These Variables match none of the filters:\n"
        "  a.s\n"
        "  x\n"
        "Add `...` as the last filter to match the remaining Variables, or change a filter to match them.",
    ):
        liftnn.split(make_model(), liftnn.Param)


def test_state_leaves_out_what_matches_no_filter():
    model = make_model()
    assert list(liftnn.state(model, liftnn.Param).flat()) == [("a", "w")]
    stats, arrays = liftnn.state(model, liftnn.BatchStat, jax.Array)
    assert (list(stats.flat()), list(arrays.flat())) == ([("a", "s")], [("x",)])


def test_the_variables_of_a_state_are_copies():
    model = make_model()
    state = liftnn.state(model)
    assert state["a"]["w"] is not model.a.w
    assert state["a"]["w"].value is model.a.w.value


# --- merge


@pytest.mark.parametrize(
    "merge",
    [
        lambda state, graphdef: graphdef.merge(state),
        lambda state, graphdef: liftnn.merge(graphdef, state),
        lambda state, graphdef: liftnn.merge(graphdef, *state.split(liftnn.Param, ...)),
        lambda state, graphdef: graphdef.merge(*reversed(state.split(liftnn.BatchStat, ...))),
    ],
)
def test_merge_is_the_inverse_of_split(merge):
    model = make_model()
    new = merge(*liftnn.split(model))
    assert find_difference(model, new) is None
    assert new.tied is new.a.w
    assert new.me is new


def test_merge_twice_gives_independent_modules():
    state, graphdef = liftnn.split(make_model())
    one, two = graphdef.merge(state), graphdef.merge(state)
    one.a.w.value = jnp.zeros(1)
    one.a.new = 1
    assert find_difference(two, make_model()) is None
    assert state["a"]["w"].value.tolist() == [[1], [1]]


def test_merge_takes_the_metadata_of_the_state():
    model = make_model()
    state, graphdef = liftnn.split(model)
    state["a"]["w"].tag = "new"
    assert graphdef.merge(state).a.w.tag == "new"


def test_merge_gives_metadata_that_can_change_to_each_module_of_its_own():
    model = Node(w=liftnn.Param(1.0, axes=[1]))
    model.w.owner = model
    state, graphdef = liftnn.split(model)
    new = graphdef.merge(state)
    assert new.w.owner is new
    new.w.axes.append(2)
    assert model.w.axes == [1]
    state["w"].set_metadata(axes=[7])
    newer = graphdef.merge(state)
    assert newer.w.axes == [7]
    newer.w.axes.append(8)
    assert state["w"].axes == [7]


def test_merge_with_metadata_arrays_takes_those_of_the_state():
    state, graphdef = liftnn.split(Node(w=liftnn.Param(jnp.ones(1), scale=jnp.ones(1))))
    new = graphdef.merge(jax.tree.map(lambda x: 2 * x, state))
    assert (new.w.value.tolist(), new.w.scale.tolist()) == ([2], [2])


def test_merge_with_something_missing_lists_it():
    params, _, _, graphdef = liftnn.split(make_model(), liftnn.Param, liftnn.BatchStat, ...)
    with raises(
        errors.StructureError,
        f"The States do not fit the GraphDef:\nmissing:\n  a.s\n  x\n{NAME_BOTH}",
    ):
        graphdef.merge(params)


def test_merge_with_something_unknown_lists_it():
    state, graphdef = liftnn.split(make_model())
    with raises(
        errors.StructureError,
        f"The States do not fit the GraphDef:\nunexpected:\n  tied\n  b[0]\n{NAME_BOTH}",
    ):
        graphdef.merge(state, liftnn.State({"tied": liftnn.Param(1.0), "b": {0: liftnn.Param(1.0)}}))


def test_merge_with_something_given_twice_lists_it():
    state, graphdef = liftnn.split(make_model())
    with raises(
        errors.StructureError,
        "More than one State has a value for:\n"
        "  a.w\n"
        "Keep each path in one State only, or join the States with `|`: the last one wins.",
    ):
        graphdef.merge(state, state.filter(liftnn.Param))


def test_merge_takes_states():
    graphdef = liftnn.split(make_model())[-1]
    with raises(
        errors.ArgumentTypeError,
        "merge takes States or nested dicts, not a list.\n"
        "Write `*states, graphdef = split(model)`: `split` returns the GraphDef last, and `merge(graphdef, "
        "*states)` takes it first. `State.from_flat` creates a State from values by path.",
    ):
        graphdef.merge([1])


def test_the_order_of_flax_is_refused():
    graphdef, state = liftnn.split(make_model())  # as in Flax NNX: it is the other way round
    with raises(
        errors.ArgumentTypeError,
        "merge takes a GraphDef as its first argument, not a State.\n"
        "Write `*states, graphdef = split(model)` and `merge(graphdef, *states)`: `split` returns the "
        "GraphDef last.",
    ):
        liftnn.merge(graphdef, state)


def test_one_graphdef_is_enough():
    state, graphdef = liftnn.split(make_model())
    with raises(
        errors.ArgumentTypeError,
        "merge takes States or nested dicts, not a GraphDef.\n"
        "Write `*states, graphdef = split(model)`: `split` returns the GraphDef last, and `merge(graphdef, "
        "*states)` takes it first. `State.from_flat` creates a State from values by path.",
    ):
        liftnn.merge(graphdef, graphdef, state)


# --- trees

TREES = {
    "module": lambda m: m,
    "variable": lambda m: m.a.w,
    "tuple": lambda m: (m, m.a),
    "dict": lambda m: {"a": [m, 1, "text", None], "b": m.a},
    "namedtuple": lambda m: Point(m, jnp.ones(2)),
    "arrays": lambda m: {"m": m, "x": jnp.ones(2), "y": (jnp.zeros(1), 2.5)},
    "no module": lambda m: [jnp.ones(1), 3],
    "empty": lambda m: (),
    "State": lambda m: (liftnn.state(m), m),
    "optax state": lambda m: (m, optax.adam(0.1).init({"w": jnp.ones(2)})),
}


@pytest.mark.parametrize("make_tree", TREES.values(), ids=TREES)
def test_any_tree_of_modules_is_split_and_merged(make_tree):
    tree = make_tree(make_model())
    state, graphdef = liftnn.split(tree)
    assert find_difference(tree, graphdef.merge(state)) is None
    assert find_difference(tree, liftnn.clone(tree)) is None


def test_paths_start_at_the_root_of_the_tree():
    tree = {"b": Node(w=liftnn.Param(1.0)), "a": (Node(v=liftnn.Param(2.0)), jnp.ones(1))}
    assert list(liftnn.state(tree).flat()) == [("a", 0, "v"), ("a", 1), ("b", "w")]


# --- apply


class Model(Node):
    def __call__(self, x):
        self.calls.value = self.calls.value + 1
        return x * self.scale, self.calls.value

    def encode(self, x, *, times=1):
        return self(x)[0] * times


def make_callable():
    return Model(
        scale=2.0,
        calls=liftnn.Variable(jnp.int32(0)),
        inner=[Model(scale=3.0, calls=liftnn.Variable(jnp.int32(5)))],
    )


def test_apply_calls_the_module_and_returns_the_new_state():
    state, graphdef = liftnn.split(make_callable())
    (y, calls), (new_state, new_graphdef) = graphdef.apply(state)(4.0)
    assert (y, calls) == (8.0, 1)
    assert new_state["calls"].value == 1
    assert new_graphdef == graphdef
    assert state["calls"].value == 0


def test_apply_calls_methods_and_parts_by_path():
    state, graphdef = liftnn.split(make_callable())
    assert graphdef.apply(state).encode(4.0, times=10)[0] == 80.0
    out, (new_state, _) = graphdef.apply(state).inner[0].encode(1.0)
    assert out == 3.0
    assert new_state["inner"][0]["calls"].value == 6


def test_apply_is_pure_under_jit():
    state, graphdef = liftnn.split(make_callable())
    step = jax.jit(lambda state, x: graphdef.apply(state)(x))
    (y, _), (state, _) = step(state, 1.0)
    (y, calls), (state, _) = step(state, 1.0)
    assert (y, calls, state["calls"].value) == (2.0, 2, 2)


def test_apply_has_no_private_names():
    state, graphdef = liftnn.split(make_callable())
    with pytest.raises(AttributeError, match=r"^__wrapped__$"):
        graphdef.apply(state).__wrapped__  # noqa: B018


# --- equality


def test_equal_models_have_equal_graphdefs():
    one, two = liftnn.split(make_model())[-1], liftnn.split(make_model())[-1]
    assert one == two
    assert hash(one) == hash(two)
    assert one is two


def test_values_and_shapes_are_no_structure():
    other = make_model()
    other.a.w.value, other.x = jnp.zeros((5, 5)), jnp.ones(1, jnp.int32)
    assert liftnn.split(other)[-1] == liftnn.split(make_model())[-1]


CHANGES = {
    "static value": lambda m: setattr(m, "n", 2),
    "static type": lambda m: setattr(m, "n", True),
    "attribute added": lambda m: setattr(m, "new", 1),
    "attribute deleted": lambda m: delattr(m, "n"),
    "attribute order": lambda m: (delattr(m, "n"), setattr(m, "n", 1)),
    "class": lambda m: setattr(m, "a", Node(w=m.a.w, s=m.a.s)),
    "Variable type": lambda m: setattr(m.a, "s", liftnn.Param(1.0)),
    "metadata": lambda m: setattr(m.a.w, "tag", "t"),
    "untied": lambda m: setattr(m, "tied", m.a.w.copy()),
    "rewired": lambda m: setattr(m, "me", m.a),
    "array to static": lambda m: setattr(m, "x", 1.0),
    "array to Variable": lambda m: setattr(m, "x", liftnn.Variable(m.x)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_change_of_structure_makes_graphdefs_differ(change):
    other = make_model()
    change(other)
    one, two = liftnn.split(make_model())[-1], liftnn.split(other)[-1]
    assert one != two
    assert one.diff(two)


def test_a_graphdef_is_a_pytree_without_leaves():
    graphdef = liftnn.split(make_model())[-1]
    leaves, treedef = jax.tree.flatten(graphdef)
    assert leaves == []
    assert treedef.unflatten([]) is graphdef


def test_a_graphdef_and_its_state_go_through_jit():
    state, graphdef = liftnn.split(make_callable())
    out, new_graphdef = jax.jit(lambda s, g: (g.merge(s)(3.0)[0], g))(state, graphdef)
    assert out == 6.0
    assert new_graphdef == graphdef


def test_graphdefs_of_other_trees_differ():
    model = make_model()
    graphdefs = [
        liftnn.split(tree)[-1] for tree in (model, (model,), [model], {"a": model}, (model, 1), (model, True))
    ]
    for i, one in enumerate(graphdefs):
        for j, two in enumerate(graphdefs):
            assert (one == two) == (i == j)
            assert bool(one.diff(two)) == (i != j)


def test_a_graphdef_holds_no_module_and_no_array():
    model = make_model()
    graphdef = liftnn.split(model)[-1]
    references = [weakref.ref(x) for x in (model, model.a, model.a.w, model.a.w.value)]
    del model
    gc.collect()
    assert [r() for r in references] == [None] * 4
    assert graphdef.attributes == ("a", "n", "x", "tied", "me")


def test_graphdefs_that_nobody_holds_are_forgotten():
    graphdef = liftnn.split(Node(unheard_of=1))[-1]
    reference = weakref.ref(graphdef)
    del graphdef
    gc.collect()
    assert reference() is None


def test_type_and_attributes_are_those_of_the_module():
    graphdef = liftnn.split(make_model())[-1]
    assert graphdef.type is Node
    assert graphdef.attributes == ("a", "n", "x", "tied", "me")
    tree = (make_model(),)
    assert liftnn.split(tree)[-1].type == jax.tree.structure((0,))
    assert liftnn.split(tree)[-1].attributes == ()


@pytest.mark.parametrize("other", [(0, (2, 1)), (1, (0, 2)), (2, (0, 1))])
def test_a_variable_in_the_place_of_an_array_passes_on_its_value_alone(other):
    position, beside = other
    tree = [liftnn.Param(jnp.zeros(2), tag=str(i)) for i in range(3)]
    tree[position] = jnp.zeros(2)
    state, graphdef = liftnn.split(tuple(tree))
    flat = {**state.flat(), (position,): liftnn.BatchStat(jnp.full(2, 5.0), tag="another")}
    merged = liftnn.merge(graphdef, liftnn.State.from_flat(flat))
    assert merged[position].tolist() == [5.0, 5.0]
    assert [(type(merged[i]), merged[i].tag) for i in beside] == [(liftnn.Param, str(i)) for i in beside]
