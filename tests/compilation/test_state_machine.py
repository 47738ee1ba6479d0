"""Between calls of jitted functions a user changes modules in every way he can; results equal plain Python's.

A Hypothesis state machine keeps two worlds of modules that are changed alike. In the one, functions are jitted, in the
other they are called plainly; after each call outputs and worlds must be the same. What goes wrong here is a plan that
was used although the structure had changed, or a commit that missed something.

`make slow` tries 200,000 sequences.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis
import hypothesis.stateful as stateful
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.same import assert_same

SEQUENCES = int(os.environ.get("LIFTNN_SEQUENCES", "500"))
PART = 125
"""Sequences are tried in parts, each with a seed of its own: a process can hold only so many compiled programs."""
STATICS = (0, 1, True, 0.5, "x", (1, 2), None)
NAMES = ("p", "q", "r")


class Node(liftnn.Module):
    """A module to be changed."""

    def __init__(self):
        self.w = liftnn.Param(jnp.ones(2))
        self.training = True

    def train(self, **attributes: Any) -> None:
        self.set_attributes(training=True)

    def eval(self, **attributes: Any) -> None:
        self.set_attributes(training=False)


class World(liftnn.Module):
    """Two models that may share parts."""

    def __init__(self):
        self.a, self.b = Node(), Node()
        self.a.items = [liftnn.Variable(jnp.zeros(2)), 3]
        self.a.options = {"k": 1, "deep": [Node()]}
        self.a.array = jnp.arange(2.0)
        self.b.tags = {1, 2}


def parts(world: World, kind: type) -> list[Any]:
    """Everything of one kind that the world reaches, in an order that two equal worlds share."""
    return [x for _, x in liftnn.iter_graph(world) if type(x) is kind]


# --- the functions under test


def total(*models: Any) -> jax.Array:
    """A number that depends on all values, static values, metadata, and on the order of everything.

    It is one product: what XLA needs for a program grows with the operations in it, and nearly all time is XLA's.
    """
    numbers: list[Any] = []
    factors: list[float] = []
    constant, weight = 0.0, 1.0
    for path, x in liftnn.iter_graph(models):
        weight += 0.5 + len(path)
        if isinstance(x, (liftnn.Variable, jax.Array, np.ndarray)):
            array = x.value if isinstance(x, liftnn.Variable) else x
            scale = x.get_metadata("scale") or 1 if isinstance(x, liftnn.Variable) else 1
            numbers.append(array if array.ndim else array[None])
            factors += [weight * scale] * array.size
        elif isinstance(x, (bool, int, float, set, tuple, list)):
            constant += weight * (x if isinstance(x, (bool, int, float)) else len(x))
    return jnp.concatenate(numbers) @ np.array(factors, np.float32) + constant


def bump(model: Any) -> Any:
    """Writes values only."""
    model.w.value = model.w * 2 + model.training
    if hasattr(model, "array"):
        model.array = model.array + 1
    return model.w.value.sum(), total(model)


def rebuild(model: Any) -> Any:
    """Replaces a Variable by a new one of the same kind."""
    model.w = liftnn.Param(model.w + 1)
    model.seen = liftnn.Intermediate(model.w.value.sum())
    return model.w.value


def grow(model: Any) -> Any:
    """Changes structure, metadata and static values, and returns old and new objects."""
    model.training = not model.training
    model.w.scale = 3 if model.training else 2
    if isinstance(getattr(model, "items", None), list):
        model.items.append(liftnn.Variable(model.w.value.sum()))
        if len(model.items) > 4:
            del model.items[:3]
    made = Node()
    model.child = made
    return model, made, model.w


def exchange(one: Any, other: Any) -> Any:
    """Swaps Variables between two models."""
    one.w, other.w = other.w, one.w
    one.w.value = one.w + 1
    return total(one, other)


class Current:
    """What the functions without arguments capture."""

    world: Any = None


def total_of_current() -> jax.Array:
    """Reads a captured world."""
    return total(Current.world)


def bump_current(model: Any) -> Any:
    """Writes values to a captured module, which may be passed as well."""
    captured = Current.world.b
    captured.w.value = captured.w + model.w.sum()
    model.w.value = model.w * 2
    return captured.w.value, total(captured)


def step_of_current() -> Any:
    """Differentiates a captured module, and descends."""
    model = Current.world.a
    grads = liftnn.grad(lambda model: (model.w**2).sum() * (1 + model.training))(model)
    model.w.value = model.w - 0.1 * grads["w"].value
    return grads["w"].value


class Trainer:
    """A plain object with a method, and a module in an attribute that is set before each call."""

    def __init__(self):
        self.model: Any = None

    def total(self, factor: Any) -> jax.Array:
        return total([self.model]) * factor


trainer = Trainer()


def total_of_trainer() -> jax.Array:
    """Reads a module through a method of a plain object."""
    return trainer.total(2.0)


def double(_: Any, model: Any) -> Any:
    """A step of a loop, which writes values."""
    model.w.value = model.w * (1 + model.training)
    return model


def plain_loop(model: Any) -> Any:
    """Two steps in Python."""
    for i in range(2):
        model = double(i, model)
    return model.w.value


def kept_loop(model: Any) -> Any:
    """Two steps in a loop that is compiled once, outside of other transforms."""
    return liftnn.fori_loop(0, 2, double, model).w.value


def scaled_by_current(x: jax.Array) -> jax.Array:
    """A branch that captures a module."""
    model = Current.world.b
    model.w.value = model.w + 1
    return x * model.w.sum()


def plain_branch(model: Any) -> Any:
    """A branch in Python."""
    return scaled_by_current(model.w.value) if model.training else jnp.negative(model.w.value)


def kept_branch(model: Any) -> Any:
    """A branch that is compiled once."""
    return liftnn.cond(model.training, scaled_by_current, jnp.negative, model.w.value)


class Use(NamedTuple):
    """A use of a function, compiled and plain.

    Args:
      plain: The function.
      compiled: The same, compiled.
      count: The number of modules that it gets.
      call: Calls one of both with the modules.
    """

    plain: Callable[..., Any]
    compiled: Any
    count: int
    call: Callable[..., Any]


def call_plainly(f: Callable[..., Any], *models: Any) -> Any:
    """Call a function with modules by position."""
    return f(*models)


def use(f: Callable[..., Any], count: int, call: Callable[..., Any] = call_plainly, **options: Any) -> Use:
    """A use of a function with `count` modules."""
    return Use(f, liftnn.jit(f, **options), count, call)


USES = {
    "total": use(total, 1),
    "total of both": use(total, 2),
    "total of a dict": use(
        lambda models: total(models), 2, lambda f, one, other: f({"one": one, "other": other})
    ),
    "total by keyword": use(lambda *, model: total(model), 1, lambda f, model: f(model=model)),
    "total of current": use(total_of_current, 0),
    "total of trainer": use(total_of_trainer, 0),
    "bump": use(bump, 1),
    "donating bump": use(bump, 1, donate_argnums=0),
    "bump current": use(bump_current, 1),
    "step of current": use(step_of_current, 0),
    "loop": Use(plain_loop, kept_loop, 1, call_plainly),
    "branch": Use(plain_branch, kept_branch, 1, call_plainly),
    "rebuild": use(rebuild, 1),
    "grow": use(grow, 1),
    "exchange": use(exchange, 2),
}


# --- what a user does between calls


def make_value(choice: int, world: World) -> Any:
    """Something to put somewhere: static value, Variable, module, container, or a part of the world itself."""
    makers: list[Callable[[], Any]] = [
        *(lambda x=x: x for x in STATICS),
        lambda: liftnn.Param(jnp.full(2, 2.0)),
        lambda: liftnn.BatchStat(jnp.full(2, 3.0), scale=2),
        Node,
        lambda: [1, liftnn.Param(jnp.ones(1))],
        lambda: {"k": [2], "v": 0.0},
        lambda: jnp.full(3, 4.0),
        lambda: {3, 4},
        lambda: parts(world, liftnn.Param)[0],
        lambda: world.b,
        lambda: world.a,
        lambda: (parts(world, Node)[-1], 5),
    ]
    return makers[choice % len(makers)]()


def at(found: list[Any], index: int) -> Any:
    """One of the parts found."""
    return found[index % len(found)]


def variables(world: World) -> list[Any]:
    return [x for _, x in liftnn.iter_graph(world) if isinstance(x, liftnn.Variable)]


def set_attribute(world: World, i: int, j: int, k: int) -> None:
    setattr(at(parts(world, Node), i), NAMES[j % 3], make_value(k, world))


def delete_attribute(world: World, i: int, j: int, k: int) -> None:
    node = at(parts(world, Node), i)
    if hasattr(node, NAMES[j % 3]):
        delattr(node, NAMES[j % 3])


def set_variable_value(world: World, i: int, j: int, k: int) -> None:
    at(variables(world), i).value = jnp.full(2, float(k))


def set_metadata(world: World, i: int, j: int, k: int) -> None:
    variable = at(variables(world), i)
    if j % 3:
        variable.scale = k % 3 + 1
    elif variable.has_metadata("scale"):
        del variable.scale


def replace_variable(world: World, i: int, j: int, k: int) -> None:
    at(parts(world, Node), i).w = liftnn.Param(jnp.full(2, float(k)))


def tie(world: World, i: int, j: int, k: int) -> None:
    at(parts(world, Node), i).w = at(parts(world, liftnn.Param), j)


def swap_nodes(world: World, i: int, j: int, k: int) -> None:
    world.a, world.b = world.b, world.a


def fresh_model(world: World, i: int, j: int, k: int) -> None:
    fresh = World()
    world.a, world.b = (fresh.a, world.b) if i % 2 else (world.a, fresh.b)


def edit_list(world: World, i: int, j: int, k: int) -> None:
    found = parts(world, list)
    if not found:
        return
    x = at(found, i)
    if j % 4 == 0:
        x.append(make_value(k, world))
    elif j % 4 == 1 and x:
        x.pop(k % len(x))
    elif j % 4 == 2 and x:
        x[k % len(x)] = make_value(k, world)
    else:
        x.reverse()


def edit_dict(world: World, i: int, j: int, k: int) -> None:
    found = parts(world, dict)
    if not found:
        return
    x = at(found, i)
    key = ("k", "n", 3)[j % 3]
    if k % 5 == 0:
        x.pop(key, None)
    else:
        x[key] = make_value(k, world)


def edit_set(world: World, i: int, j: int, k: int) -> None:
    for _, x in liftnn.iter_graph(world):
        if isinstance(x, set):
            x.symmetric_difference_update({k % 3})
            return


def set_array(world: World, i: int, j: int, k: int) -> None:
    world.a.array = jnp.full(2, float(k)) if j % 3 else np.full(2, float(k), np.float32)


def flip_mode(world: World, i: int, j: int, k: int) -> None:
    node = at(parts(world, Node), i)
    node.eval() if k % 2 else node.train()


CHANGES = (
    set_attribute,
    delete_attribute,
    set_variable_value,
    set_metadata,
    replace_variable,
    tie,
    swap_nodes,
    fresh_model,
    edit_list,
    edit_dict,
    edit_set,
    set_array,
    flip_mode,
)

_small = st.integers(0, 40)


class Machine(stateful.RuleBasedStateMachine):
    """Two worlds changed alike: one called through jit, one plainly."""

    def __init__(self):
        super().__init__()
        self.jitted, self.plain = World(), World()

    @stateful.rule(change=st.sampled_from(CHANGES), i=_small, j=_small, k=_small)
    def change(self, change: Callable[..., None], i: int, j: int, k: int) -> None:
        change(self.jitted, i, j, k)
        change(self.plain, i, j, k)

    @stateful.rule(name=st.sampled_from(list(USES)), times=st.integers(1, 3), order=st.booleans())
    def call(self, name: str, times: int, order: bool) -> None:
        chosen = USES[name]
        for _ in range(times):
            expected = called_with(self.plain, chosen, chosen.plain, order)
            actual = called_with(self.jitted, chosen, chosen.compiled, order)
            assert_same((actual, self.jitted), (expected, self.plain))

    def teardown(self) -> None:
        assert_same(self.jitted, self.plain)


def called_with(world: World, chosen: Use, f: Callable[..., Any], order: bool) -> Any:
    """The output of a function of modules of a world, which it may capture, too."""
    models = (world.a, world.b) if order else (world.b, world.a)
    Current.world, trainer.model = world, models[0]
    return chosen.call(f, *models[: chosen.count])


PARTS = [pytest.param(i, marks=pytest.mark.thorough if i else ()) for i in range(SEQUENCES // PART)]


@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning", "ignore::liftnn.AttributeWarning")
@pytest.mark.parametrize("part", PARTS)
def test_between_any_changes_a_jitted_function_acts_like_the_plain_one(part: int):
    for chosen in USES.values():
        getattr(chosen.compiled, "clear_cache", int)()
    jax.clear_caches()
    machine = hypothesis.seed(part)(type("Machine", (Machine,), {}))
    settings = hypothesis.settings(
        max_examples=PART,
        stateful_step_count=8,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    stateful.run_state_machine_as_test(machine, settings=settings)
