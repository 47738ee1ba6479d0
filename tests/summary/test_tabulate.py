"""The numbers of `tabulate` are those of Flax; its forms are equal; it shows calls, sharing and what is not called."""

import io
import re

import jax
import jax.numpy as jnp
import pytest
from flax import nnx as flax_nnx
from tests.strategies import Node

import liftnn
from liftnn._src.summary.table_text import html_table, plain_text


def make_models(nnx):
    """The models of Flax's documentation of `nnx.tabulate`, and of its tests."""

    class Block(nnx.Module):
        def __init__(self, din, dout, rngs):
            self.linear = nnx.Linear(din, dout, rngs=rngs)
            self.bn = nnx.BatchNorm(dout, rngs=rngs)
            self.dropout = nnx.Dropout(0.2, rngs=rngs)

        def __call__(self, x):
            return nnx.relu(self.dropout(self.bn(self.linear(x))))

    class Foo(nnx.Module):
        def __init__(self, rngs):
            self.block1 = Block(32, 128, rngs=rngs)
            self.block2 = Block(128, 10, rngs=rngs)

        def __call__(self, x):
            return self.block2(self.block1(x))

    class Shared(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(32, 32, rngs=rngs)
            self.b = Block(32, 32, rngs)
            self.b.linear.kernel = self.a.kernel

        def __call__(self, x):
            return self.b(self.a(self.a(x)))

    class Cnn(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
            self.norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
            self.out = nnx.LinearGeneral(32, (2, 3), rngs=rngs)

        def __call__(self, x):
            return self.out(self.norm(self.conv(x[..., None]))[..., 0])

    class Heads(nnx.Module):
        def __init__(self, rngs):
            self.attention = nnx.MultiHeadAttention(4, 32, decode=False, rngs=rngs)
            self.norm = nnx.RMSNorm(32, rngs=rngs)

        def __call__(self, x):
            return self.attention(self.norm(x))

    return {"Foo": Foo, "Shared": Shared, "Cnn": Cnn, "Heads": Heads}


INPUTS = {"Foo": (1, 32), "Shared": (3, 32), "Cnn": (2, 8, 32), "Heads": (2, 5, 32)}


COLUMNS = ("path", "type", "flops", "vjp_flops")


def flax_rows(model, *args, backward):
    """The rows of Flax's table: path, class, parameters and operations."""
    rows = []
    text = flax_nnx.tabulate(
        model,
        *args,
        compute_flops=True,
        compute_vjp_flops=backward,
        console_kwargs={"force_terminal": False, "width": 400},
    )
    lines = [[c.strip() for c in line.replace("┃", "│").split("│")[1:-1]] for line in text.splitlines()]
    lines = [line for line in lines if line]
    at = {name: lines[0].index(name) for name in lines[0]}
    for line in lines[1:]:
        if line[at["type"]]:
            rows.append([*(line[at[name]].replace(",", "") for name in COLUMNS if name in at), "0"])
        size = re.fullmatch(r"([\d,]+) \([\d.]+ \w+\)", line[at["Param"]])
        if size and "Total" not in line:
            rows[-1][-1] = size[1].replace(",", "")
    return rows


@pytest.mark.thorough
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.sample(4)
def test_the_numbers_are_those_of_flax(name):
    # Flax does not add up the gradients of a shared weight, and its attention fails there
    x, backward = jnp.ones(INPUTS[name]), name not in ("Shared", "Heads")
    expected = flax_rows(make_models(flax_nnx)[name](flax_nnx.Rngs(0)), x, backward=backward)
    table = liftnn.tabulate(make_models(liftnn)[name](liftnn.Rngs(0)), x, flops=True, grad_flops=backward)
    rows = [
        [
            "/".join(map(str, row.module_path)),
            row.type.__name__,
            *(f"{n:.0f}" for n in (row.flops, row.grad_flops) if n is not None),
            str(row.params),
        ]
        for row in table.rows
    ]
    assert rows == expected


class Model(liftnn.Module):
    def __init__(self, rngs):
        self.embed = liftnn.Embed(10, 4, rngs=rngs)
        self.layers = [liftnn.Sequential(liftnn.Linear(4, 4, rngs=rngs)) for _ in range(2)]
        self.norm = liftnn.BatchNorm(4, rngs=rngs)
        self.head = liftnn.Linear(4, 10, rngs=rngs)
        self.head.kernel = self.embed.embedding

    def __call__(self, x, *, mask=None):
        y = self.embed(x)
        for layer in self.layers:
            y = layer(y)
        return self.norm(y), self.embed.attend(y)


def model():
    return Model(liftnn.Rngs(0))


X = jax.ShapeDtypeStruct((2, 3), jnp.int32)


def test_a_row_has_path_class_inputs_and_outputs():
    rows = liftnn.tabulate(model(), X, mask=jnp.ones(3, bool)).rows
    assert [(row.path, row.type.__name__, row.inputs, row.outputs) for row in rows] == [
        ("", "Model", ("i32[2,3]", "mask: bool[3]"), ("f32[2,3,4]", "f32[2,3,10]")),
        ("embed", "Embed", ("i32[2,3]",), ("f32[2,3,4]",)),
        *(
            (f"layers[{i}]{below}", cls, ("f32[2,3,4]",), ("f32[2,3,4]",))
            for i in range(2)
            for below, cls in (("", "Sequential"), (".layers[0]", "Linear"))
        ),
        ("norm", "BatchNorm", ("f32[2,3,4]",), ("f32[2,3,4]",)),
        ("embed.attend()", "Embed", ("f32[2,3,4]",), ("f32[2,3,10]",)),
        ("head", "Linear", (), ()),
    ]


def test_shared_parameters_count_once_and_are_named_where_they_are_shared():
    table = liftnn.tabulate(model(), X)
    rows = {row.path: row for row in table.rows}
    assert [rows[path].params for path in ("", "embed", "layers[0]", "head")] == [98, 40, 20, 10]
    assert {path: row.shared for path, row in rows.items() if row.shared} == {"head": 40}
    assert table.totals == {"Param": (98, 392), "BatchStat": (8, 32)}
    assert "+40 shared" in str(table)
    assert "not called" in str(table)


@pytest.mark.parametrize(
    "depth, paths",
    [
        (0, [""]),
        (1, ["", "embed", "layers[0]", "layers[1]", "norm", "embed.attend()", "head"]),
        (2, None),
        (None, None),
    ],
)
def test_depth_is_the_number_of_modules_around(depth, paths):
    shown = [row.path for row in liftnn.tabulate(model(), X, depth=depth).rows]
    assert shown == (paths or [row.path for row in liftnn.tabulate(model(), X).rows])


def test_another_method_is_called():
    rows = liftnn.tabulate(model().embed, jnp.ones((2, 4)), method="attend").rows
    assert [(row.path, row.outputs) for row in rows] == [("attend()", ("f32[2,10]",))]


def test_without_arguments_the_table_has_all_modules_and_no_shapes():
    table = liftnn.tabulate(model())
    assert [row.path for row in table.rows] == [
        "", "embed", "layers[0]", "layers[0].layers[0]", "layers[1]", "layers[1].layers[0]", "norm", "head",
    ]  # fmt: skip
    assert "inputs" not in str(table)
    assert [row.path for row in liftnn.tabulate(Node(a=liftnn.Module(), r=liftnn.Rngs(0))).rows] == ["", "a"]


def test_a_model_that_needs_no_arguments_is_called():
    class Constant(liftnn.Module):
        def __call__(self):
            return jnp.ones(3)

    assert [(row.inputs, row.outputs) for row in liftnn.tabulate(Constant()).rows] == [((), ("f32[3]",))]
    assert "-" in str(liftnn.tabulate(Constant())).split("f32[3]")[0].split()


def test_nothing_is_computed_and_the_model_may_be_abstract():
    abstract = liftnn.eval_shape(lambda: liftnn.Linear(10**6, 10**6, rngs=liftnn.Rngs(0)))
    (row,) = liftnn.tabulate(abstract, jax.ShapeDtypeStruct((10**6, 10**6), jnp.float32)).rows
    assert (row.outputs, row.params) == (("f32[1000000,1000000]",), 10**12 + 10**6)


def test_cycles_lists_of_lists_and_stacks_are_tabulated():
    top = model()
    top.me = top
    assert len(liftnn.tabulate(top, X).rows) == len(liftnn.tabulate(model(), X).rows)
    stack = liftnn.Stack(3, lambda rngs: liftnn.Linear(4, 4, rngs=rngs), rngs=liftnn.Rngs(0))
    rows = liftnn.tabulate(stack, jnp.ones((2, 4))).rows
    assert [(row.path, row.params) for row in rows if row.type is liftnn.Linear] == [("layers", 60)]


# --- forms

TABLES = {
    "calls": lambda: liftnn.tabulate(model(), X, mask=jnp.ones(3, bool)),
    "operations": lambda: liftnn.tabulate(model().embed, X, flops=True, grad_flops=True),
    "no calls": lambda: liftnn.tabulate(model()),
    "no Variables": lambda: liftnn.tabulate(liftnn.Module()),
}


@pytest.mark.parametrize("name", TABLES)
def test_plain_text_is_laid_out_like_rich(name):
    pytest.importorskip("rich")
    table = TABLES[name]()
    assert str(table) == repr(table) == plain_text(table)


def test_a_width_wraps_the_text():
    table = liftnn.tabulate(model(), X, width=60)
    assert max(map(len, str(table).splitlines())) <= 60


def test_rich_prints_the_table():
    console = pytest.importorskip("rich.console").Console(width=200, record=True, file=io.StringIO())
    console.print(liftnn.tabulate(model(), X))
    assert "embed.attend()" in console.export_text()


def test_the_text_in_jupyter_is_that_elsewhere(monkeypatch):
    pytest.importorskip("rich")
    kernel = type("ZMQInteractiveShell", (), {})()  # what rich takes for Jupyter's
    monkeypatch.setattr("builtins.get_ipython", lambda: kernel, raising=False)
    table = TABLES["no calls"]()
    assert str(table) == plain_text(table)


def test_a_notebook_shows_html_with_every_cell_escaped():
    text = liftnn.tabulate(Node(a=liftnn.Module()))._repr_html_()
    assert text.count("<tr") == 1 + 2
    table = liftnn.tabulate(model(), X)
    assert html_table(table).count("<td") == sum(len(x.cells) for x in table.columns())
    assert "<b>" not in html_table(liftnn.tabulate(Node(**{"<b>": liftnn.Module()})))


def test_text_is_plain_without_rich(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    table = liftnn.tabulate(model(), X)
    assert str(table) == plain_text(table)


@pytest.mark.thorough
def test_a_deep_chain_of_modules_is_tabulated():
    top = chain = Node(layer=liftnn.Linear(2, 2, rngs=liftnn.Rngs(0)))
    for _ in range(1500):
        chain.next = chain = Node(w=liftnn.Param(jnp.ones(1)))

    class Model(liftnn.Module):
        def __init__(self):
            self.top = top

        def __call__(self, x):
            return self.top.layer(x)

    assert liftnn.tabulate(Model()).rows[0].params == 6 + 1500
    assert [row.params for row in liftnn.tabulate(Model(), jnp.ones((1, 2))).rows][:2] == [6 + 1500, 6]


def test_modules_that_functions_hold_are_tabulated():
    layer = liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))

    class Model(liftnn.Module):
        def __init__(self):
            self.f = lambda x, layer=layer: layer(x)

        def __call__(self, x):
            return self.f(x)

    rows = liftnn.tabulate(Model(), jnp.ones((1, 2))).rows
    assert [(row.path, row.params) for row in rows] == [("", 6), ("f.layer", 6)]
