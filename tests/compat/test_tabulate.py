"""`tabulate` shows the rows of Flax's table, as plain text, and traces a model once."""

import jax
import jax.numpy as jnp
import pytest
from tests.compat.oracle import run

import liftnn
from liftnn.compat import nnx

SETUP = """
class Block(nnx.Module):
    def __init__(self, linear, *, rngs):
        self.linear = linear
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
    def forward(self, x, scale=None, *, shift=None):
        y = self.dropout(nnx.relu(self.norm(self.linear(x))))
        return y if shift is None else y + shift['by']
class Model(nnx.Module):
    def __init__(self, *, rngs):
        shared = nnx.Linear(4, 4, rngs=rngs)
        self.blocks = nnx.List([Block(shared, rngs=rngs), Block(shared, rngs=rngs)])
        self.head = nnx.Linear(4, 2, use_bias=False, rngs=rngs)
        self.scale = nnx.Param(jnp.ones(2), note='learned')
    def encode(self, x, *, shift):
        x = self.blocks[0].forward(x, shift=shift)
        return self.blocks[1].forward(x, {})
    def __call__(self, x, mask):
        y = self.head(self.encode(x, shift={'by': jnp.ones(4)})) * self.scale
        return y, y.sum()
model = Model(rngs=nnx.Rngs(0))
x = jnp.ones((3, 4))
"""

TABLES = {
    "all": "nnx.tabulate(model, x, jnp.ones((3, 4), bool), console_kwargs=console)",
    "down to a depth": "nnx.tabulate(model, x, None, depth=1, console_kwargs=console)",
    "another method": "nnx.tabulate(model, x, method='encode', shift={'by': jnp.ones(4)}, console_kwargs=console)",
    "some rows": "nnx.tabulate(model, x, None, row_filter=lambda row: row.type is nnx.Linear, console_kwargs=console)",
    "operations": "nnx.tabulate(model.head, x, compute_flops=True, compute_vjp_flops=True, console_kwargs=console)",
}


def cells(text, columns):
    """Return the cells of each line of a table, without lines, and the captions."""
    lines = [line.replace("┃", "│").strip() for line in text.splitlines()]
    rows = [
        [cell.strip().replace(",", "") for cell in line.split("│")[1:-1]] for line in lines if line[:1] == "│"
    ]
    keep = [i for i, name in enumerate(rows[0]) if name in columns]
    return [lines[0], lines[-1], *[[row[i] for i in keep] for row in rows]]


def table(library, call):
    call = f"result = {call}".replace(
        "console_kwargs=console", "console_kwargs={'force_terminal': False, 'width': 300}"
    )
    return run(SETUP + call, library)["result"].strip("\n")


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_that_of_flax(name):
    columns = ["path", "type", "flops", "vjp_flops", "RngState"]
    ours, flax_table = (cells(table(library, TABLES[name]), columns) for library in ("liftnn", "flax"))
    assert [row for row in ours if row[0] or "Total" in row] == [
        row for row in flax_table if row[0] or "Total" in row
    ]


def test_a_row_has_shapes_variables_and_their_metadata():
    text = table("liftnn", TABLES["all"])
    rows = cells(text, ["path", "inputs", "outputs", "Param"])[3:]
    assert rows[:5] == [
        ["", "float32[34]", "float32[32]", "scale:"],
        ["", "bool[34]", "float32[]", "value: float32[2]"],
        ["", "", "", "note: learned"],
        ["", "", "", ""],
        ["", "", "", "46 (184 B)"],
    ]
    assert ["encode", "float32[34]", "float32[34]", "scale:"] in rows
    assert "shift: {by: float32[4]}" in text
    assert "│ {} " in text
    assert text.count("blocks/0/linear") == 1  # a repeated call with the same shapes has no row
    assert "blocks/1/linear" not in text


def test_operations_are_counted_in_one_trace():
    calls = []

    class Model(nnx.Module):
        def __init__(self, depth):
            self.linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
            self.below = Model(depth - 1) if depth else None

        def __call__(self, x):
            calls.append(x.shape)
            return self.linear(x if self.below is None else self.below(x))

    text = nnx.tabulate(Model(3), jnp.ones((1, 2)), compute_flops=True, compute_vjp_flops=True)
    assert len(calls) == 4
    one = (
        jax.jit(lambda x, w, b: x @ w + b).lower(*(jnp.ones(s) for s in [(1, 2), (2, 2), 2])).cost_analysis()
    )
    flops = {row[0]: row[1] for row in cells(text, ["path", "flops"])[3:] if row[0] or row[1]}
    assert flops["below/below/below/linear"] == f"{one['flops']:.0f}"
    assert flops["below/below"] == f"{2 * one['flops']:.0f}"


def test_nothing_is_changed():
    model = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
    cls, before = type(model), model.mean.value
    nnx.tabulate(model, jnp.ones((3, 2)), compute_flops=True)
    assert type(model) is cls
    assert model.mean.value is before


def test_a_module_that_fails_raises_its_error_and_records_nothing_afterwards():
    class Bad(nnx.Module):
        def __call__(self, x):
            raise KeyError(x.shape)

    with pytest.raises(KeyError):
        nnx.tabulate(Bad(), jnp.ones(2))
    assert nnx.tabulate(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), jnp.ones((1, 2))).count("Linear") == 2


def test_the_classes_of_rows_are_those_of_the_modules():
    rows = []
    nnx.tabulate(nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0))), jnp.ones((1, 2)), row_filter=rows.append)
    assert [(row.path, row.type) for row in rows] == [((), nnx.Sequential), (("layers", 0), liftnn.Linear)]
