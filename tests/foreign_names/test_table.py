"""The table of foreign names: its code runs, its names are absent from liftnn, and it is loaded by an error only."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import liftnn
from liftnn._src.foreign_names.attributes import NAMES
from liftnn._src.foreign_names.table import by_name, rows
from liftnn.compat import nnx

ROWS = {f"{row.where}: {row.names[0]}": row for row in rows()}
EXAMPLES = {
    "param_dtype", "flat()", "__init__", "__call__", "(batch, length, heads, features)", "checkify.check",
}  # fmt: skip
"""What stands in backticks and is a part of a name, not a program."""
CLASSES = {name: getattr(liftnn, name) for name in (*NAMES, "Variable")}
PARAMETERS = {
    parameter
    for name in liftnn.__all__
    if isinstance(cls := getattr(liftnn, name), type) and issubclass(cls, liftnn.Module)
    for f in (cls.__init__, vars(cls).get("__call__"))
    if f is not None
    for parameter in inspect.signature(f).parameters
}


class Model(liftnn.Module):
    """What the programs of the table call `model`."""

    def __init__(self, rngs):
        self.first = liftnn.Linear(2, 3, rngs=rngs)
        self.scale = liftnn.Param(jnp.ones(3))

    def __call__(self, x):
        return self.first(x) * self.scale


def make():
    return Model(liftnn.Rngs(0))


def loss_fn(model, x):
    return (model(x) ** 2).mean()


def namespace(folder):
    """The names that the programs of the table use."""
    model, x = make(), jnp.ones((4, 2))
    optimizer = liftnn.Optimizer(model, optax.inject_hyperparams(optax.adam)(learning_rate=1e-3))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    file = folder / "model.safetensors"
    liftnn.save_weights(file, model)
    grads = liftnn.grad(loss_fn)(model, x)
    image, logits = jnp.ones((2, 4, 4, 3)), jnp.zeros((4, 3))
    labels, targets = jnp.zeros(4, int), jnp.zeros((4, 3))
    modules = {"liftnn": liftnn, "jax": jax, "jnp": jnp, "np": np, "optax": optax}
    modules |= {"dataclasses": dataclasses, "functools": functools}
    rngs = liftnn.Rngs(0)
    modules |= {
        "linear": liftnn.Linear(2, 3, rngs=rngs),
        "conv": liftnn.Conv(2, 3, 3, rngs=rngs),
        "embed": liftnn.Embed(5, 2, rngs=rngs),
        "norm": liftnn.BatchNorm(3, rngs=rngs),
        "dropout": liftnn.Dropout(0.5),
        "metric": liftnn.Average(),
    }
    arrays = {"sequence": jnp.ones((2, 5, 2)), "heads": jnp.ones((2, 5, 4, 8))}
    own = {
        "make": make,
        "loss_fn": loss_fn,
        "model": model,
        "x": x,
        "optimizer": optimizer,
        "mesh": mesh,
        "file": file,
        "folder": folder / "run",
    }
    return (
        modules
        | own
        | arrays
        | {"grads": grads, "image": image, "logits": logits, "labels": labels, "targets": targets}
    )


@pytest.mark.sample(4)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_code_of_a_remedy_runs(row, tmp_path):
    names = namespace(tmp_path)
    programs = [p for p in re.findall(r"`([^`]+)`", row.remedy) if p not in EXAMPLES]
    assert programs
    for program in programs:
        exec(program, names)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_remedy_is_a_sentence(row):
    assert row.remedy.endswith(".")
    assert row.remedy.count("`") % 2 == 0


def test_no_public_name_is_foreign():
    assert [name for where, name in by_name() if where == "liftnn" and name in liftnn.__all__] == []
    assert [name for where, name in by_name() if where == "liftnn" and hasattr(liftnn, name)] in ([], ["nn"])


@pytest.mark.parametrize("where", CLASSES)
def test_no_attribute_that_exists_is_foreign(where):
    assert [name for cls, name in by_name() if cls == where and hasattr(CLASSES[where], name)] == []


@pytest.mark.parametrize("where", NAMES)
def test_the_descriptors_have_the_names_of_the_table(where):
    assert list(NAMES[where]) == sorted(name for cls, name in by_name() if cls == where)


def test_the_names_of_flax_are_in_the_stand_in():
    flax = [
        name for row in rows() if row.library == "Flax NNX" and row.where == "liftnn" for name in row.names
    ]
    assert [name for name in flax if not hasattr(nnx, name)] == []


def test_each_parameter_that_an_argument_stands_for_exists():
    places = {row.where for row in rows()} - {*CLASSES, "liftnn", "call", "*"}
    assert places - PARAMETERS == set()


LOADED = """
import sys, liftnn, jax.numpy as jnp
model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
model.kernel.note = "mine"
liftnn.jit(model)(jnp.ones((1, 2)))
loaded = [m for m in sys.modules if m.startswith("liftnn") and m.rpartition(".")[2] in ("table", "explain", "mistaken")]
assert not loaded, loaded
assert not hasattr(liftnn, "Conv2d") and "liftnn._src.foreign_names.table" in sys.modules
"""


@pytest.mark.thorough
def test_the_table_is_loaded_by_an_error_only():
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
