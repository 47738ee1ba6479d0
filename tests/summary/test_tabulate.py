"""The numbers of `tabulate` are those of Flax; its forms are equal; it shows calls, sharing and what is not called."""

import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx as flax_nnx
from tests.strategies import Node

import liftnn
from liftnn._src.summary.table_text import plain_text


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


def test_keyword_arguments_that_are_none_are_left_out():
    attention = liftnn.MultiHeadAttention(2, 4, rngs=liftnn.Rngs(0))
    rows = liftnn.tabulate(attention, jnp.ones((3, 4)), mask=None).rows
    assert {row.path: row.inputs for row in rows} == {
        "": ("f32[3,4]",),
        **dict.fromkeys(("query", "key", "value"), ("f32[3,4]",)),
        "out": ("f32[3,2,2]",),
    }


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


@pytest.mark.parametrize(
    "decorate", [liftnn.jit, liftnn.remat, liftnn.checkpoint], ids=["jit", "remat", "checkpoint"]
)
def test_calls_of_decorated_methods_have_rows(decorate):
    """Oracle: the same method without decorator."""

    def rows(decorate):
        class Coder(liftnn.Module):
            def __init__(self):
                self.linear = liftnn.Linear(3, 2, rngs=liftnn.Rngs(0))

            @decorate
            def encode(self, x):
                return self.linear(x)

        class Net(liftnn.Module):
            def __init__(self):
                self.coder = Coder()

            def __call__(self, x):
                return self.coder.encode(x)

        table = liftnn.tabulate(Net(), jnp.ones((2, 3)))
        return {row.path: (row.inputs, row.outputs, row.params) for row in table.rows}

    assert rows(decorate) == rows(lambda f: f)


def test_without_arguments_the_table_has_all_modules_and_no_shapes():
    table = liftnn.tabulate(model())
    assert [row.path for row in table.rows] == [
        "", "embed", "layers[0]", "layers[0].layers[0]", "layers[1]", "layers[1].layers[0]", "norm", "head",
    ]  # fmt: skip
    assert "inputs" not in str(table)
    assert [row.path for row in liftnn.tabulate(Node(a=liftnn.Module(), r=liftnn.Rngs(0))).rows] == ["", "a"]


@pytest.mark.parametrize(
    "rngs", [liftnn.Rngs(), liftnn.Rngs(0), liftnn.Rngs(params=0), liftnn.Rngs(0).default]
)
def test_random_keys_have_sizes_and_no_calls(rngs):
    table = liftnn.tabulate(rngs)
    assert (table.rows, "inputs" in str(table)) == ([], False)
    expected = sum(x.size for x in jax.tree.leaves(liftnn.state(rngs).to_pure_dict()))
    assert sum(size.elements for size in table.totals.values()) == expected


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


@pytest.mark.parametrize("x", [["a", "b"], [b"a"], [None, {}], ["2020-01-01"], [(1, 2.0)]], ids=str)
def test_arrays_of_text_and_objects_are_there_as_in_the_plain_call(x):
    dtype = "M8[D]" if x == ["2020-01-01"] else "i4,f4" if type(x[0]) is tuple else None
    names = np.array(x, dtype)

    class Named(liftnn.Module):
        def __init__(self):
            self.linear = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
            self.names, self.variable = names, liftnn.Variable(names)

        def __call__(self, x):
            assert self.names.tolist() == names.tolist()
            assert self.variable.value.tolist() == names.tolist()
            return self.linear(x)

    rows = [[row.path, row.outputs] for row in liftnn.tabulate(Named(), jnp.ones(2)).rows]
    assert rows == [["", ("f32[3]",)], ["linear", ("f32[3]",)]]


NOISE = liftnn.Rngs(noise=0)


@pytest.mark.parametrize("options", [{}, {"flops": True, "grad_flops": True}], ids=["", "flops"])
def test_a_model_may_write_to_modules_that_it_gets_or_captures(options):
    class Noisy(liftnn.Module):
        def __init__(self):
            self.linear = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))

        def __call__(self, x, norm, seen, *, rngs):
            seen.value += 1
            return norm(self.linear(x)) + jax.random.normal(rngs()) + jax.random.normal(NOISE.noise())

    norm, seen, rngs = liftnn.BatchNorm(3, rngs=liftnn.Rngs(0)), liftnn.Variable(0), liftnn.Rngs(0)
    table = liftnn.tabulate(Noisy(), jnp.ones((4, 2)), norm, seen, rngs=rngs, **options)
    assert [(row.path, row.outputs) for row in table.rows] == [("", ("f32[4,3]",)), ("linear", ("f32[4,3]",))]
    assert [int(seen), int(rngs.default.count), int(NOISE.noise.count)] == [0, 0, 0]
    assert norm.mean.tolist() == [0, 0, 0]


def test_random_keys_may_be_an_argument():
    (row,) = liftnn.tabulate(liftnn.Dropout(0.5), jnp.ones(3), rngs=liftnn.Rngs(0)).rows
    assert row.outputs == ("f32[3]",)


def test_variables_may_hold_text():
    layer = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    layer.name, layer.parts = liftnn.Variable("first"), liftnn.Variable((1, "a", None))
    (row,) = liftnn.tabulate(layer, jnp.ones(2)).rows
    assert row.outputs == ("f32[3]",)


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
    assert str(table) == repr(table) == plain_text(table._layout())


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
    assert str(table) == plain_text(table._layout())


def test_a_notebook_shows_html_with_every_cell_escaped():
    text = liftnn.tabulate(Node(a=liftnn.Module()))._repr_html_()
    assert text.count("<tr") == 1 + 2
    table = liftnn.tabulate(model(), X)
    assert table._repr_html_().count("<td") == sum(len(x.cells) for x in table.columns())
    assert "<b>" not in liftnn.tabulate(Node(**{"<b>": liftnn.Module()}))._repr_html_()


def test_text_is_plain_without_rich(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    table = liftnn.tabulate(model(), X)
    assert str(table) == plain_text(table._layout())


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


# --- the operations


def gru():
    return liftnn.RNN(liftnn.GRUCell(2, 3, rngs=liftnn.Rngs(0)))


class Gate(liftnn.Module):
    """A module whose argument is a flag, and whose output is not only arrays."""

    def __init__(self):
        self.layer = liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))

    def __call__(self, x, train, *, shape=(4,), mode="same", scale=lambda x: x):
        y = scale(self.layer(x)) if train and mode == "same" else x
        return y, mode, len(shape)


class Gated(liftnn.Module):
    """A module that calls another one with a flag, a text, a shape and a function that holds a module."""

    def __init__(self):
        self.gate, self.last = Gate(), liftnn.Linear(2, 2, rngs=liftnn.Rngs(1))

    def __call__(self, x):
        y, mode, n = self.gate(x, True, shape=(1, 1), mode="same", scale=lambda y: self.last(y))
        return y.reshape((1,) * n + (-1,)) if mode == "same" else y


def linears(n):
    return liftnn.Stack(n, lambda rngs: liftnn.Linear(2, 2, rngs=rngs), rngs=liftnn.Rngs(0))


@pytest.mark.parametrize(
    "make, args",
    [
        (gru, (jnp.ones((1, 7, 2)),)),
        (lambda: liftnn.Bidirectional(gru(), gru()), (jnp.ones((1, 7, 2)),)),
        (lambda: linears(3), (jnp.ones((1, 2)),)),
        (Gated, (jnp.ones((1, 2)),)),
        (Gate, (jnp.ones((1, 2)), True)),
    ],
    ids=["RNN", "Bidirectional", "Stack", "flag inside", "flag"],
)
@pytest.mark.parametrize("options", [{"flops": True}, {"grad_flops": True}], ids=str)
def test_the_rows_are_the_same_when_operations_are_counted(make, args, options):
    plain, counted = liftnn.tabulate(make(), *args), liftnn.tabulate(make(), *args, **options)
    assert [row[:8] for row in counted.rows] == [row[:8] for row in plain.rows]
    assert (counted.rows[0].flops or counted.rows[0].grad_flops) > 0


class Layers(liftnn.Module):
    """One layer, applied several times."""

    def __init__(self, n):
        self.layer = liftnn.Linear(16, 16, rngs=liftnn.Rngs(0))
        self.n = n


class PythonLoop(Layers):
    def __call__(self, x):
        for _ in range(self.n):
            x = self.layer(x)
        return x


class ForiLoop(Layers):
    def __call__(self, x):
        return liftnn.fori_loop(0, self.n, lambda i, x: self.layer(x), x)


class Scan(Layers):
    unroll = 1

    def __call__(self, x):
        axes = {"in_axes": (liftnn.Carry, None), "out_axes": (liftnn.Carry, 0)}
        scan = liftnn.scan(lambda x, m: (m(x), None), length=self.n, unroll=self.unroll, **axes)
        return scan(x, self.layer)[0]


class UnrolledScan(Scan):
    unroll = 3


class NestedScan(Layers):
    def __call__(self, x):
        def half(x):
            return liftnn.fori_loop(0, self.n // 2, lambda i, x: self.layer(x), x)

        return liftnn.fori_loop(0, 2, lambda i, x: half(x), x)


class LoopInBranch(Layers):
    def __call__(self, x):
        def loop(x):
            return liftnn.fori_loop(0, self.n, lambda i, x: self.layer(x), x)

        return liftnn.cond(x.sum() > 0, loop, lambda x: x, x)


class JitOfLoop(Layers):
    def __call__(self, x):
        return liftnn.jit(lambda m, x: liftnn.fori_loop(0, self.n, lambda i, x: m(x), x))(self.layer, x)


@pytest.mark.parametrize("loop", [ForiLoop, Scan, UnrolledScan, NestedScan, LoopInBranch, JitOfLoop])
@pytest.mark.parametrize("n", [2, 10, 100])
def test_a_loop_has_the_operations_of_the_same_loop_in_python(loop, n):
    x = jnp.ones((4, 16))
    (expected, *_), (row, *_) = (liftnn.tabulate(c(n), x, flops=True).rows for c in (PythonLoop, loop))
    assert row.flops == pytest.approx(expected.flops, rel=0.02)
    assert not row.has_unknown_loops


@pytest.mark.parametrize("loop", [ForiLoop, Scan])
def test_the_gradient_of_a_loop_has_the_operations_of_the_same_loop_in_python(loop):
    x = jnp.ones((4, 16))
    (expected, *_), (row, *_) = (liftnn.tabulate(c(10), x, grad_flops=True).rows for c in (PythonLoop, loop))
    assert row.grad_flops == pytest.approx(expected.grad_flops, rel=0.1)


def test_a_stack_has_the_operations_of_a_list_of_layers():
    x = jnp.ones((4, 2))
    stack = liftnn.tabulate(linears(12), x, flops=True).rows
    layers = liftnn.tabulate(liftnn.Sequential(*linears(12).to_list()), x, flops=True).rows
    assert stack[0].flops == pytest.approx(layers[0].flops, rel=0.1)
    assert stack[1].flops == layers[1].flops


INSIDE = {
    "grad": lambda m, x: liftnn.grad(lambda m, x: m(x).sum())(m, x)["kernel"].value,
    "jax.grad": lambda m, x: jax.grad(lambda x: m(x).sum())(x),
    "jacrev": lambda m, x: liftnn.jacrev(m)(x),
    "jvp": lambda m, x: jax.jvp(m, (x,), (x,)),
    "vmap": lambda m, x: liftnn.vmap(lambda m, x: m(x), in_axes=(None, 0))(m, x),
    "jax.vmap of jax.grad": lambda m, x: jax.vmap(jax.grad(lambda x: m(x).sum()))(x),
    "map": lambda m, x: liftnn.map(m, x),
    "scan": lambda m, x: liftnn.scan(lambda x, m: m(x), **CARRY)(x, m),
    "eval_shape": lambda m, x: jnp.zeros(jax.eval_shape(m, x).shape),
    "remat": lambda m, x: jax.grad(lambda x: liftnn.remat(lambda m, x: m(x))(m, x).sum())(x),
}
CARRY = {"length": 3, "in_axes": (liftnn.Carry, None), "out_axes": liftnn.Carry}


@pytest.mark.parametrize("transform", INSIDE)
@pytest.mark.parametrize("option", ["flops", "grad_flops"])
@pytest.mark.sample(3)
def test_a_call_inside_a_transform_has_the_operations_of_a_plain_call_with_its_shapes(transform, option):
    class Transformed(Layers):
        def __call__(self, x):
            return INSIDE[transform](self.layer, x)

    row = liftnn.tabulate(Transformed(1), jnp.ones((4, 16)), **{option: True}).rows[1]
    x = jnp.ones((4, 16) if row.inputs == ("f32[4,16]",) else 16)
    (plain,) = liftnn.tabulate(Layers(1).layer, x, **{option: True}).rows
    assert row.inputs == plain.inputs
    assert getattr(row, option) == getattr(plain, option)


class Steps(liftnn.Module):
    """A module with methods that are no calls of it, or return what runs later."""

    def __init__(self):
        self.layer = liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))

    def __call__(self, x):
        later = self.bound()
        return sum(self.each(x)) + later(x)

    def each(self, x):
        for _ in range(2):
            yield self.layer(x)

    def bound(self):
        return lambda x: self.layer(x)

    @property
    def first(self):
        return self.layer

    @staticmethod
    def doubled(x):
        return 2 * x

    @classmethod
    def named(cls, x):
        return cls.__name__


@pytest.mark.parametrize("options", [{}, {"flops": True}], ids=str)
def test_methods_that_return_what_runs_later_are_called(options):
    rows = liftnn.tabulate(Steps(), jnp.ones((1, 2)), **options).rows
    assert [row.path for row in rows] == ["", "bound()", "layer"]
    assert rows[0].outputs == ("f32[1,2]",)


@pytest.mark.parametrize("method, paths", [("first", ["layer"]), ("doubled", []), ("named", [])])
def test_properties_and_methods_without_the_module_are_called(method, paths):
    rows = liftnn.tabulate(Steps(), jnp.ones((1, 2)), method=method).rows
    assert [row.path for row in rows if row.outputs] == paths


@pytest.mark.parametrize("options", [{}, {"flops": True}], ids=str)
def test_a_model_may_tabulate_or_capture_in_its_call(options):
    class Reports(Gated):
        def __call__(self, x):
            found.append([row.path for row in liftnn.tabulate(self.gate, x, True).rows])
            y, _ = liftnn.capture(self.gate, liftnn.Intermediate, method_outputs=liftnn.Intermediate)(x, True)
            return super().__call__(y[0])

    found = []
    rows = liftnn.tabulate(Reports(), jnp.ones((1, 2)), **options).rows
    assert {*map(tuple, found)} == {("", "layer")}
    assert {row.path for row in rows} == {"", "gate", "gate.layer", "last"}


def test_a_loop_whose_result_is_not_used_does_not_count():
    class Unused(Layers):
        def __call__(self, x):
            liftnn.fori_loop(0, self.n, lambda i, x: self.layer(x), x)
            return self.layer(x)

    used, unused = (
        liftnn.tabulate(c(n), jnp.ones((4, 16)), flops=True).rows[0]
        for c, n in ((PythonLoop, 1), (Unused, 9))
    )
    assert unused.flops == used.flops


def test_in_a_loop_only_what_the_result_needs_counts():
    class WithStatistics(liftnn.Module):
        def __init__(self, rngs):
            self.layer = liftnn.Linear(2, 2, rngs=rngs)
            self.seen = liftnn.BatchStat(jnp.zeros((2, 2)))

        def __call__(self, x):
            self.seen.value = self.seen.value @ (x.T @ x)
            return self.layer(x)

    x = jnp.ones((4, 2))
    stack = liftnn.Stack(12, WithStatistics, rngs=liftnn.Rngs(0))
    found, expected = (liftnn.tabulate(m, x, flops=True).rows[0].flops for m in (stack, linears(12)))
    assert found == pytest.approx(expected, rel=0.05)


def test_a_loop_of_unknown_length_counts_once_and_the_table_says_so():
    class Unknown(Layers):
        def __call__(self, x):
            return liftnn.while_loop(lambda x: x.sum() < 9, lambda x: self.layer(x), x)

    table = liftnn.tabulate(Unknown(1), jnp.ones((4, 16)), flops=True)
    once = liftnn.tabulate(PythonLoop(1), jnp.ones((4, 16)), flops=True)
    assert [row.has_unknown_loops for row in table.rows] == [True, False]
    assert once.rows[0].flops <= table.rows[0].flops < 1.1 * once.rows[0].flops
    assert "a loop counted once" in str(table)
    assert "a loop counted once" not in str(once)


# --- without arguments


class Optional(liftnn.Module):
    """A module that fails without its optional argument."""

    def __init__(self):
        self.layer = liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))

    def __call__(self, x=None):
        return self.layer(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: liftnn.Sequential(liftnn.Linear(2, 2, rngs=liftnn.Rngs(0)), liftnn.relu),
        lambda: linears(2),
        Optional,
    ],
    ids=["Sequential", "Stack", "Optional"],
)
def test_without_arguments_that_it_can_take_a_module_has_the_table_of_sizes(make):
    table = liftnn.tabulate(make())
    assert not table.has_calls
    assert [row.params for row in table.rows] == [table.totals["Param"].elements] * 2


def test_a_module_that_works_without_its_optional_arguments_is_called():
    class Constant(liftnn.Module):
        def __call__(self, n=3):
            return jnp.ones(n)

    assert [row.outputs for row in liftnn.tabulate(Constant()).rows] == [("f32[3]",)]


def test_an_error_of_a_module_without_parameters_is_raised():
    class Broken(liftnn.Module):
        def __call__(self):
            raise ZeroDivisionError("broken")

    with pytest.raises(ZeroDivisionError, match=r"\Abroken"):
        liftnn.tabulate(Broken())


# --- internal calls


def test_a_call_of_a_stack_has_one_row_and_apply_is_shown_when_it_is_called():
    rows = liftnn.tabulate(linears(3), jnp.ones((2, 2))).rows
    assert [row.path for row in rows] == ["", "layers"]
    rows = liftnn.tabulate(linears(3), liftnn.Linear.__call__, jnp.ones((2, 2)), method="apply").rows
    assert [row.path for row in rows] == ["apply()", "layers"]


@pytest.mark.parametrize("flops", [False, True])
@pytest.mark.parametrize("name", INPUTS)
def test_a_table_keeps_no_tracer(name, flops):
    def text():
        model = make_models(liftnn)[name](liftnn.Rngs(0))
        return str(liftnn.tabulate(model, jnp.ones(INPUTS[name]), flops=flops, grad_flops=flops))

    with jax.checking_leaks():
        found = text()
    assert found == text()


@pytest.mark.parametrize("options", [{}, {"flops": True}], ids=str)
@pytest.mark.parametrize("make", [Gated, Steps])
def test_a_table_keeps_no_tracer_of_functions_that_are_inputs_or_results(make, options):
    expected = liftnn.tabulate(make(), jnp.ones((1, 2)), **options)
    with jax.checking_leaks():
        assert liftnn.tabulate(make(), jnp.ones((1, 2)), **options).rows == expected.rows
    assert "<lambda>" in str(expected)


class Repeats(liftnn.Module):
    """A module that calls another one several times, each time with a new function of the same name."""

    def __init__(self):
        self.gate = Gate()

    def __call__(self, x):
        functions = [lambda y, i=i: y * self.gate.layer.kernel[0, i] for i in range(2)]
        return sum(self.gate(x, True, scale=f)[0] for f in [*functions, lambda y: y])


@pytest.mark.parametrize("options", [{}, {"flops": True}], ids=str)
def test_calls_that_differ_in_functions_of_one_name_have_one_row(options):
    rows = liftnn.tabulate(Repeats(), jnp.ones((1, 2)), **options).rows
    assert [row.path for row in rows if row.inputs] == ["", "gate", "gate.layer"]


class Given(liftnn.Module):
    """A module that passes modules on to the calls of another."""

    def __init__(self):
        self.layer, self.given = Applied(), liftnn.Linear(3, 3, rngs=liftnn.Rngs(0))

    def __call__(self, x):
        return self.layer(x, {"layer": self.given}, liftnn.Rngs(0))


class Applied(liftnn.Module):
    def __call__(self, x, layers, rngs):
        return layers["layer"](x) + rngs.normal(x.shape)


@pytest.mark.parametrize("flops", [False, True])
@pytest.mark.parametrize("make", [Given, lambda: liftnn.RNN(liftnn.GRUCell(3, 3, rngs=liftnn.Rngs(0)))])
def test_a_table_keeps_no_tracer_of_modules_that_are_inputs(make, flops):
    expected = str(liftnn.tabulate(make(), jnp.ones((2, 5, 3)), flops=flops))
    with jax.checking_leaks():
        assert str(liftnn.tabulate(make(), jnp.ones((2, 5, 3)), flops=flops)) == expected
