"""What a function may do to a module: the rows of the conformance table.

Each effect is a plain Python function `(model, x) -> output`; run directly it is its own oracle. Extend the table
when a new kind of effect becomes possible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import liftnn


class Block(liftnn.Module):
    """A layer with a Variable of each sort, containers and static values."""

    def __init__(self, seed: int):
        key = jax.random.key(seed)
        self.size = 3
        self.w = liftnn.Param(jax.random.normal(key, (3, 3)), axis="both")
        self.b = liftnn.Param(jnp.zeros(3))
        self.calls = liftnn.Variable(jnp.zeros((), jnp.int32))
        self.mean = liftnn.BatchStat(jnp.zeros(3))
        self.scale = jnp.full(3, 0.5)

    def __call__(self, x: jax.Array) -> jax.Array:
        self.calls.value = self.calls.value + 1
        return jnp.tanh(x @ self.w + self.b) * self.scale


class Wide(Block):
    """What a Block may become."""


class Model(liftnn.Module):
    """Blocks with tied weights, a cycle, lists and dicts."""

    def __init__(self):
        self.first = Block(0)
        self.second = Block(1)
        self.second.w = self.first.w
        self.layers = [Block(2), Block(3)]
        self.options = {"rate": 0.5, "names": ["a", "b"], "inner": {"block": self.layers[0]}}
        self.pair = (self.first, 7)
        self.owner = self
        self.rngs = liftnn.Rngs(0, dropout=1)
        self.mode = "train"

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in (self.first, self.second, *self.layers):
            x = block(x)
        return x


Effect = Callable[[Model, jax.Array], Any]


def read_only(model: Model, x: jax.Array) -> Any:
    return x @ model.first.w + model.layers[1].b


def set_value(model: Model, x: jax.Array) -> Any:
    model.first.b.value = model.first.b + 1
    return model(x)


def set_shared_value(model: Model, x: jax.Array) -> Any:
    model.second.w.value = model.first.w * 2
    return x @ model.first.w


def write_back_and_forth(model: Model, x: jax.Array) -> Any:
    old = model.first.b.value
    model.first.b.value = old + 1
    model.first.b.value = old
    return x + model.first.b


def set_other_kinds_of_value(model: Model, x: jax.Array) -> Any:
    model.first.mean.value = None
    model.second.mean.value = {"a": (jnp.ones(2), None), "b": "text"}
    model.layers[0].mean.value = ()
    return x


def add_variable(model: Model, x: jax.Array) -> Any:
    model.extra = liftnn.Param(jnp.arange(4.0), tag="new")
    return x.sum()


def add_static(model: Model, x: jax.Array) -> Any:
    model.note = ("text", 1, None)
    return x


def delete_attribute(model: Model, x: jax.Array) -> Any:
    del model.first.mean, model.pair
    return model(x)


def replace_variable(model: Model, x: jax.Array) -> Any:
    model.first.b = liftnn.Param(model.first.b + 2)
    return model(x)


def swap_modules(model: Model, x: jax.Array) -> Any:
    model.first, model.second = model.second, model.first
    model.layers.reverse()
    return model(x)


def grow_lists(model: Model, x: jax.Array) -> Any:
    model.layers.append(Block(4))
    model.layers.insert(0, model.second)
    model.options["names"].append("c")
    del model.options["names"][0]
    return model(x)


def edit_dicts(model: Model, x: jax.Array) -> Any:
    model.options["new"] = {"block": Block(5), 3: [model.first]}
    model.options["inner"].pop("block")
    model.options["rate"] += 0.25
    return x


def change_static(model: Model, x: jax.Array) -> Any:
    model.mode = "eval"
    model.first.size = 4.5
    model.second.size = True
    return model(x)


def change_class(model: Model, x: jax.Array) -> Any:
    model.first.__class__ = Wide
    model.second.b.__class__ = liftnn.BatchStat
    return model(x)


def change_metadata(model: Model, x: jax.Array) -> Any:
    model.first.w.axis = "rows"
    model.first.b.set_metadata(frozen=True, names=("a", "b"))
    return model(x)


def rewire(model: Model, x: jax.Array) -> Any:
    model.second.w = liftnn.Param(model.first.w.value)
    model.layers[1].w = model.layers[0].w
    model.layers[0].parent = model
    model.owner = model.layers
    return model(x)


def set_bare_array(model: Model, x: jax.Array) -> Any:
    model.first.scale = model.first.scale * 3
    model.arrays = (jnp.ones(2), [jnp.zeros(3)])
    return model(x)


def replace_tuple(model: Model, x: jax.Array) -> Any:
    model.pair = (*model.pair, Block(6), {"deep": model.first.w})
    return model(x)


def draw_randomness(model: Model, x: jax.Array) -> Any:
    noise = jax.random.normal(model.rngs.dropout(), (3,))
    return x + noise + jax.random.normal(model.rngs.params(), (3,))


def sow_and_pop(model: Model, x: jax.Array) -> Any:
    model.first.sow(liftnn.Intermediate, "seen", jnp.ones(2))
    popped = liftnn.pop(model, liftnn.Intermediate)
    model.second.sow(liftnn.Intermediate, "kept", jnp.full(2, 3.0))
    return x, popped


def return_input(model: Model, x: jax.Array) -> Any:
    model.first.b.value = model.first.b - 1
    return model.layers[0], {"again": model, "w": model.second.w}


def return_new(model: Model, x: jax.Array) -> Any:
    made = Block(7)
    made.parent = model
    model.made = [made, made]
    return made, model(x)


EFFECTS: tuple[Effect, ...] = (
    read_only,
    set_value,
    set_shared_value,
    write_back_and_forth,
    set_other_kinds_of_value,
    add_variable,
    add_static,
    delete_attribute,
    replace_variable,
    swap_modules,
    grow_lists,
    edit_dicts,
    change_static,
    change_class,
    change_metadata,
    rewire,
    set_bare_array,
    replace_tuple,
    draw_randomness,
    sow_and_pop,
    return_input,
    return_new,
)


def everything(model: Model, x: jax.Array) -> Any:
    """All effects that go together, one after the other."""
    order = (
        set_value,
        change_metadata,
        grow_lists,
        edit_dicts,
        change_static,
        rewire,
        set_bare_array,
        swap_modules,
    )
    outputs = [
        effect(model, x) for effect in (*order, add_variable, draw_randomness, sow_and_pop, replace_variable)
    ]
    return outputs, model.layers[0], return_new(model, x)
