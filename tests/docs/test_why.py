"""The table of features in `docs/why.md`: what small programs do with liftnn, Flax NNX and Equinox."""

from __future__ import annotations

import contextlib
import pathlib

import equinox as eqx
import flax.errors
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import liftnn

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "why.md"
COLUMNS = ("liftnn", "Flax NNX", "Equinox")
LIBRARIES = {"liftnn": liftnn, "Flax NNX": nnx}


def table():
    """The cells of the table of features, by row and column."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    start = next(i for i, line in enumerate(lines) if line.startswith("| | liftnn | Flax NNX | Equinox |"))
    columns = [cell.strip() for cell in lines[start].split("|")[2:-1]]
    found = {}
    for line in lines[start + 2 :]:
        row, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        if len(cells) != len(columns):
            break
        found.update({(row, column): cell for column, cell in zip(columns, cells, strict=True)})
        if row.startswith("pretrained"):
            break
    return found


class Tree(eqx.Module):
    """A module of Equinox with one array, twice if `twin` is the same."""

    w: jax.Array
    twin: jax.Array | None = None


def make(library):
    """A module of liftnn or Flax NNX with one parameter, 1."""
    module = library.Module()
    module.w = library.Param(jnp.array(1.0))
    return module


def say(holds):
    return "yes" if holds else "no"


def changes_in_place(library):
    model = make(library)

    def step(model):
        model.w[...] = 2.0

    library.jit(step)(model)
    return say(float(model.w[...]) == 2)


def tree_changes_in_place():
    model = Tree(jnp.array(1.0))

    def step(model):
        model.w = jnp.array(2.0)

    with contextlib.suppress(AttributeError):
        eqx.filter_jit(step)(model)
    return say(float(model.w) == 2)


def sees_captured(library):
    model = make(library)
    call = library.jit(lambda x: model.w * x)
    call(1.0)
    model.w[...] = 2.0
    return say(float(call(1.0)) == 2)


def tree_sees_captured():
    models = [Tree(jnp.array(1.0))]
    call = eqx.filter_jit(lambda x: models[0].w * x)
    call(1.0)
    models[0] = Tree(jnp.array(2.0))
    return say(float(call(1.0)) == 2)


def writes_captured(library):
    model = make(library)

    def f(x):
        model.w[...] = 2.0
        return x * model.w[...]

    with contextlib.suppress(flax.errors.TraceContextError):
        library.jit(library.grad(f))(1.0)
    return say(float(model.w[...]) == 2)


def adds_a_layer(library, **mode):
    for transform in (library.jit, library.grad):
        model = make(library)

        def f(model):
            model.extra = make(library)
            return model.w * 2.0

        transform(f, **mode)(model)
        if not hasattr(model, "extra"):
            return "no"
    return "yes"


def keeps_sharing(library, **mode):
    model = make(library)
    model.twin = model.w

    def step(model):
        model.w[...] = 2.0

    with contextlib.suppress(ValueError):
        library.jit(step, **mode)(model)
    return say(float(model.twin[...]) == 2 and model.twin is model.w)


def in_graph_mode(program):
    """What a program of Flax NNX does: the same in both modes, or in one."""
    graph, tree = program(nnx, graph=True), program(nnx, graph=False)
    return graph if graph == tree else "graph mode"


def tree_keeps_sharing():
    w = jnp.array(1.0)
    model = eqx.filter_jit(lambda model: model)(Tree(w, w))
    return say(len(jax.tree.leaves(model)) == 1)


def is_as_before(library):
    model = make(library)

    def fail(model):
        model.w[...] = 2.0
        model.extra = "extra"
        raise KeyError

    with pytest.raises(KeyError):
        library.jit(fail)(model)
    return say(float(model.w[...]) == 1 and not hasattr(model, "extra"))


def traces_once(library):
    traces = []
    call = library.jit(lambda optimizer: traces.append(optimizer))
    for _ in range(3):
        call(library.Optimizer(make(library), optax.adam(1e-3), wrt=library.Param))
    return say(len(traces) == 1)


def tree_traces_once():
    traces = []
    call = eqx.filter_jit(lambda model: traces.append(model))
    for seed in range(3):
        call(eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(seed)))
    return say(len(traces) == 1)


def takes_a_plain_list(library):
    module = library.Module()
    try:
        module.layers = [make(library)]
    except ValueError:
        return "`nnx.List`"
    return say(len(jax.tree.leaves(library.state(module))) == 1)


def goes_through_jax(model):
    try:
        jax.jit(lambda model: model)(model)
    except TypeError:
        return "no"
    return "tree mode" if isinstance(model, nnx.Module) else "yes"


PROGRAMS = {
    "a step changes the model in place": (changes_in_place, tree_changes_in_place),
    "a captured model is an input, not a constant": (sees_captured, tree_sees_captured),
    "a captured model can be written under `grad` in `jit`": (writes_captured, tree_changes_in_place),
    "a function can add a layer inside `jit` and `grad`": (adds_a_layer, tree_changes_in_place),
    "one Variable in two places stays one": (keeps_sharing, tree_keeps_sharing),
    "lists of layers are plain lists": (
        takes_a_plain_list,
        lambda: say(len(jax.tree.leaves(Tree([jnp.ones(1)]))) == 1),
    ),
    "if the step raises, the model is as before": (
        is_as_before,
        lambda: say(tree_changes_in_place() == "no"),
    ),
    "a new, equal model and optimizer cause no new trace": (traces_once, tree_traces_once),
    "the model goes through `jax.jit` and `jax.tree.map`": (
        lambda library: goes_through_jax(make(library)),
        lambda: goes_through_jax(Tree(jnp.array(1.0))),
    ),
}
"""By row: the program for liftnn and Flax NNX, and that for Equinox, whose modules cannot change."""


@pytest.mark.sample(2)
@pytest.mark.parametrize("row", PROGRAMS)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_table_says_what_a_program_does(row, column):
    program, of_trees = PROGRAMS[row]
    if column == "Equinox":
        found = of_trees()
    elif column == "Flax NNX" and program in (adds_a_layer, keeps_sharing):
        found = in_graph_mode(program)
    else:
        found = program(LIBRARIES[column])
    assert table()[row, column] == found
