"""A compiled function sees a change of structure even if a signal handler has raised while it was made."""

from __future__ import annotations

import warnings

import jax.numpy as jnp
import pytest
from tests.interrupted import interruptions
from tests.strategies import Node

import liftnn
from liftnn.compat import nnx

FILES = (
    "modules/module.py",
    "modules/parts.py",
    "variables/watch.py",
    "variables/metadata.py",
    "variables/metadata_methods.py",
    "variables/variable.py",
    "graph/attributes.py",
    "compat/containers.py",
)
CHANGES = {
    "a static attribute": lambda model: setattr(model.sub, "mode", 7),
    "another static attribute": lambda model: setattr(model.sub, "mode", "abc"),
    "a new attribute": lambda model: setattr(model.sub, "extra", 5),
    "no attribute": lambda model: delattr(model.sub, "bias"),
    "another Variable": lambda model: setattr(model.sub, "w", liftnn.Param(jnp.ones(2))),
    "another module": lambda model: setattr(model, "sub", make().sub),
    "eval": lambda model: model.eval(),
    "vars": lambda model: vars(model.sub).update(mode=9),
    "all attributes": lambda model: setattr(model.sub, "__dict__", {**vars(model.sub), "mode": 4}),
    "metadata": lambda model: model.sub.w.set_metadata(tag=3),
    "the class of a Variable": lambda model: setattr(model.sub.w, "__class__", liftnn.BatchStat),
    "an element of a List": lambda model: model.items.__setitem__(0, 6),
    "one more element of a List": lambda model: model.items.append(8),
}


def make():
    fillers = [Node(n=i, w=liftnn.Param(jnp.zeros(1))) for i in range(8)]
    sub = Node(mode=1, bias=2, w=liftnn.Param(jnp.zeros(2), tag=1))
    items = nnx.List([1, 2])
    return Node(fillers=fillers, sub=sub, items=items, dropout=liftnn.Dropout(0.5, rngs=liftnn.Rngs(0)))


def describe(model):
    """Numbers that say what the structure of a model is."""
    sub = model.sub
    found = [
        len(str(sub.mode)) * 100 + (sub.mode if type(sub.mode) is int else 0),
        getattr(sub, "bias", -1),
        getattr(sub, "extra", -1),
        sub.w.get_metadata().get("tag", -1),
        isinstance(sub.w, liftnn.Param),
        model.dropout.deterministic,
        sum(model.items),
    ]
    return jnp.asarray([int(x) for x in found], jnp.float32) + sub.w.value.sum()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_next_call_sees_what_an_interrupted_change_has_done(change):
    compiled, models = liftnn.jit(describe), []

    def warm():
        model = make()
        models.append(model)
        for _ in range(3):
            compiled(model)
        return lambda: change(model)

    for at in interruptions(warm, *FILES):
        for _ in range(2):
            assert compiled(models[-1]).tolist() == describe(models[-1]).tolist(), f"line event {at}"
        if at > 40:
            break


@pytest.mark.parametrize(
    "name, value", [("bias", jnp.ones(2)), ("trainable", False)], ids=["a Param", "no Param"]
)
def test_an_assignment_whose_warning_is_an_error_changes_nothing(name, value):
    layers = [liftnn.Linear(2, 2, rngs=liftnn.Rngs(0)) for _ in range(8)]
    model, last = Node(layers=layers), layers[-1]
    bias, total = last.bias, liftnn.jit(lambda model: model.layers[-1].bias.sum())
    for _ in range(3):
        total(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(liftnn.AttributeWarning, match=r"An array has replaced|freezes nothing"):
            setattr(last, name, value)
    assert last.bias is bias
    assert not hasattr(last, "trainable")
    assert float(total(model)) == 0.0
