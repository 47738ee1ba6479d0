"""The repr of a module: state by shape, settings that are not defaults, sharing and cycles; it never fails."""

import dataclasses
import functools
import gc
import queue
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.strategies import Node, Point

import liftnn


def linear(*sizes, **options):
    return liftnn.Linear(*sizes, rngs=liftnn.Rngs(0), **options)


class Block(liftnn.Module):
    def __init__(self, width, dropout=0.0, *, rngs):
        self.linear = liftnn.Linear(width, width, rngs=rngs)
        self.norm = liftnn.LayerNorm(width, rngs=rngs)
        self.dropout = dropout
        self.width = width


# --- what is shown


def test_a_layer_shows_its_variables_and_its_size():
    assert repr(linear(4, 8)) == "Linear(kernel: Param f32[4,8], bias: Param f32[8])  40 params, 160 B"


@pytest.mark.parametrize(
    "options, shown",
    [
        ({"param_dtype": jnp.bfloat16}, "kernel: Param bf16[4,8], bias: Param bf16[8], param_dtype=bfloat16"),
        ({"use_bias": False}, "kernel: Param f32[4,8], use_bias=False"),
        ({"dtype": jnp.float16}, "kernel: Param f32[4,8], bias: Param f32[8], dtype=float16"),
        (
            {"kernel_metadata": {"sharding": ("in", "out")}},
            "kernel: Param f32[4,8] sharding=('in', 'out'), bias: Param f32[8]",
        ),
    ],
)
def test_settings_are_shown_if_they_differ_from_the_default(options, shown):
    assert repr(linear(4, 8, **options)).startswith(f"Linear({shown})")


def test_a_size_that_the_constructor_requires_is_shown_unless_a_shape_of_the_module_has_it():
    class Scale(liftnn.Module):
        def __init__(self, size, steps, grid, mode="a"):
            self.size, self.steps, self.grid, self.mode = size, steps, grid, mode
            self.w = liftnn.Param(jnp.ones((size, 5, 6)))

    assert repr(Scale(3, 4, (5, 6))) == "Scale(w: Param f32[3,5,6], steps=4)  90 params, 360 B"
    assert repr(Scale(3, 4, (6, 5), "b")).startswith(
        "Scale(w: Param f32[3,5,6], steps=4, grid=(6, 5), mode='b')"
    )


def test_other_attributes_are_shown_unless_they_are_private_or_none():
    assert repr(Node(n=1, name="x", _hidden=2, nothing=None)) == "Node(n=1, name='x')"
    assert repr(Node(_w=liftnn.Param(jnp.ones(2)))) == "Node(_w: Param f32[2])  2 params, 8 B"


def test_a_long_text_is_divided_into_lines_and_equal_neighbours_are_collapsed():
    rngs = liftnn.Rngs(0)
    model = Node(layers=[Block(4, rngs=rngs) for _ in range(12)], head=liftnn.Linear(4, 2, rngs=rngs))
    model.layers.append(Block(4, 0.5, rngs=rngs))
    assert repr(model) == (
        "Node(\n"
        "  layers: [\n"
        "    12 x Block(\n"
        "      linear: Linear(kernel: Param f32[4,4], bias: Param f32[4])\n"
        "      norm: LayerNorm(scale: Param f32[4], bias: Param f32[4])\n"
        "      width=4\n"
        "    )\n"
        "    Block(\n"
        "      linear: Linear(kernel: Param f32[4,4], bias: Param f32[4])\n"
        "      norm: LayerNorm(scale: Param f32[4], bias: Param f32[4])\n"
        "      dropout=0.5\n"
        "      width=4\n"
        "    )\n"
        "  ]\n"
        "  head: Linear(kernel: Param f32[4,2], bias: Param f32[2])\n"
        ")  374 params, 1.5 KB"
    )


def test_a_list_of_equal_entries_is_a_count():
    model = Node(layers=[linear(2, 2) for _ in range(3)])
    assert (
        repr(model) == "Node(layers: 3 x Linear(kernel: Param f32[2,2], bias: Param f32[2]))  18 params, 72 B"
    )


def test_what_is_shared_names_the_path_of_the_first_and_counts_once():
    model = Node(embed=liftnn.Embed(5, 3, rngs=liftnn.Rngs(0)), layers=[linear(2, 2)])
    model.head, model.best = Node(w=model.embed.embedding), model.layers[0]
    assert repr(model) == (
        "Node(\n"
        "  embed: Embed(embedding: Param f32[5,3])\n"
        "  layers: [Linear(kernel: Param f32[2,2], bias: Param f32[2])]\n"
        "  head: Node(w: Param (shared with embed.embedding))\n"
        "  best: Linear (shared with layers[0])\n"
        ")  21 params, 84 B"
    )


def test_cycles_are_named():
    model = Node(below=Node(), items=[])
    model.below.above = model.me = model
    model.items.append(model.items)
    assert repr(model) == (
        "Node(below: Node(above: Node (cycle to <root>)), me: Node (cycle to <root>), items=[[[[[[...]]]]]])"
    )


def test_shared_containers_are_shared():
    layers = [linear(1, 1)]
    assert repr(Node(a=layers, b=layers)).splitlines() == [
        "Node(a: [Linear(kernel: Param f32[1,1], bias: Param f32[1])], b: list (shared with a))  2 params, 8 B"
    ]


def test_sizes_are_told_by_type_of_variable():
    text = repr(Node(a=linear(2, 3), b=liftnn.BatchNorm(3, rngs=liftnn.Rngs(0)), r=liftnn.Rngs(0)))
    assert text.splitlines()[-1] == ")  15 params, 60 B; BatchStat 6, 24 B; RngState 2, 12 B"


@pytest.mark.parametrize(
    "x, shown",
    [
        (np.zeros((2, 0), np.int8), "x: i8[2,0]"),
        (jax.random.key(0), "x: key<fry>[]"),
        (jnp.ones((), jnp.complex64), "x: c64[]"),
        (jax.ShapeDtypeStruct((3,), jnp.uint8), "x: u8[3]"),
        ({"a": jnp.ones(2), 1: None}, "x: {'a': f32[2], 1: None}"),
        ((jnp.ones(2), 3), "x: (f32[2], 3)"),
        (Point(jnp.ones(2), 1), "x: Point(x: f32[2], y=1)"),
        (liftnn.Empty, "x=Empty"),
        (jax.nn.gelu, "x=gelu"),
        (lambda: 0, "x=<lambda>"),
        (functools.partial(max, 1, key=len), "x=partial(max, 1, key=len)"),
        (int, "x=int"),
        (jnp.float32, "x=float32"),
        (np.dtype("int8"), "x=int8"),
        (object(), "x=<object>"),
        (list(range(10**5)), "x=[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        ("long " * 20, f"x='{'long ' * 11}...'"),
        (1.5, "x=1.5"),
        (liftnn.Param({"a": jnp.ones(2), "b": (1, None)}), "x: Param {'a': f32[2], 'b': (1, None)}"),
        (liftnn.Param(None), "x: Param None"),
    ],
)
def test_a_value_is_on_one_line_without_values_of_arrays(x, shown):
    assert repr(Node(x=x)).startswith(f"Node({shown})")


def test_an_optimizer_a_stack_metrics_and_random_streams_are_shown():
    model = linear(2, 2)
    optimizer = repr(liftnn.Optimizer(model, optax.adam(1e-3)))
    assert "mu: State({'bias': OptState f32[2], 'kernel': OptState f32[2,2]})" in optimizer
    assert optimizer.endswith("OptState 14, 56 B")
    stack = liftnn.Stack(3, lambda rngs: liftnn.Linear(4, 4, rngs=rngs), rngs=liftnn.Rngs(0))
    assert (
        repr(stack)
        == "Stack(layers: Linear(kernel: Param f32[3,4,4], bias: Param f32[3,4]), n=3)  60 params, 240 B"
    )
    assert repr(liftnn.Average("loss")) == (
        "Average(total: MetricState f32[], count: MetricState i32[], argname='loss')  MetricState 2, 8 B"
    )
    assert repr(liftnn.Rngs(params=0)).startswith(
        "Rngs(\n  params: RngStream(key: RngKey key<fry>[] tag='params'"
    )


def test_functions_that_hold_modules_show_them():
    layer = linear(1, 1)
    inner = "Linear(kernel: Param f32[1,1], bias: Param f32[1])"
    assert repr(Node(f=lambda x: layer(x))).startswith(f"Node(f: <lambda>(layer: {inner}))")
    assert repr(Node(f=layer.__call__)).startswith(f"Node(f: __call__(__self__: {inner}))")
    assert repr(Node(f=functools.partial(max, layer))).startswith(f"Node(f: partial(func=max, 0: {inner}))")


def test_print_and_str_are_as_before():
    assert str(Node(n=1, w=liftnn.Param(1.0))) == "Node(\n  n=1\n)" == f"{Node(n=1)}"


def test_a_class_with_its_own_repr_is_shown_by_it():
    class Mine(liftnn.Module):
        def __repr__(self):
            return "mine"

    assert (repr(Mine()), str(Mine()), repr(Node(a=Mine()))) == ("mine", "mine", "Node(a: mine)")


@pytest.mark.thorough
def test_an_own_repr_may_call_that_of_module_in_cycles_and_chains():
    class Mine(liftnn.Module):
        def __repr__(self):
            return f"<{super().__repr__()}>"

    a, b = Mine(), Mine()
    a.b, b.a = b, a
    assert repr(a) == "<Mine(b: <Mine(a: <Mine(b: Mine(...))>)>)>"
    for _ in range(2000):
        b, b.above = Mine(), b
    assert len(repr(b)) < 10**6


def test_a_module_that_is_a_dataclass_is_shown_like_others_inside_a_module():
    @dataclasses.dataclass
    class Data(liftnn.Module):
        w: liftnn.Param
        n: int = 0

    assert (
        repr(Node(a=Data(liftnn.Param(jnp.ones(2)), 1)))
        == "Node(a: Data(w: Param f32[2], n=1))  2 params, 8 B"
    )


# --- it never fails


class Hostile:
    def __repr__(self):
        raise RuntimeError("no")

    def __eq__(self, other):
        raise RuntimeError("no")

    __hash__ = None


class HostileModule(liftnn.Module):
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "x, shown",
    [(Hostile(), "x=<Hostile>"), ([Hostile()], "x=[<Hostile>]"), (HostileModule(), "x: HostileModule(...)")],
)
def test_a_repr_that_raises_is_replaced_by_the_class(x, shown):
    assert repr(Node(x=x)) == f"Node({shown})"


def test_traced_abstract_deleted_and_unfinished_modules_are_shown():
    texts = []
    leaked = queue.SimpleQueue()  # liftnn does not look into it

    @liftnn.jit
    def f(model):
        texts.append(repr(model))
        leaked.put(liftnn.clone(model))

    model = linear(2, 2)
    f(model)
    shown = "Linear(kernel: Param f32[2,2], bias: Param f32[2])  6 params, 24 B"
    assert texts == [f"{shown}, traced"]
    assert repr(leaked.get()) == f"{shown}, traced"
    assert repr(liftnn.eval_shape(lambda: linear(2, 2))) == f"{shown}, abstract"
    model.bias.value.delete()
    assert repr(model) == "Linear(kernel: Param f32[2,2], bias: Param f32[2] deleted)  6 params, 24 B"
    assert repr(Node(w=liftnn.Param.__new__(liftnn.Param))) == "Node(w: Param None)  0 params, 0 B"
    assert repr(liftnn.Linear.__new__(liftnn.Linear)) == "Linear()"


def test_a_captured_module_is_shown_without_becoming_an_input():
    model = linear(2, 2)
    texts = []

    @liftnn.jit
    def f(x):
        texts.append(repr(eval("model", {"model": model})))
        return x

    f(1.0)
    assert texts == ["Linear(kernel: Param f32[2,2], bias: Param f32[2])  6 params, 24 B"]


def test_modules_in_vmap_show_the_shapes_of_one_of_them():
    texts = []
    layers = liftnn.vmap(lambda key: liftnn.Linear(2, 3, rngs=liftnn.Rngs(key)))(
        jax.random.split(jax.random.key(0), 4)
    )
    liftnn.vmap(lambda model: texts.append(repr(model)))(layers)
    assert texts[0] == "Linear(kernel: Param f32[2,3], bias: Param f32[3])  9 params, 36 B, traced"
    assert repr(layers) == "Linear(kernel: Param f32[4,2,3], bias: Param f32[4,3])  36 params, 144 B"


def test_no_array_is_computed_or_transferred(monkeypatch):
    def refuse(*_):
        raise AssertionError

    big = jnp.ones(2000)
    for name in ("__array__", "_value", "tolist"):
        monkeypatch.setattr(type(big), name, property(refuse))
    model = Node(w=liftnn.Param(big), s={"x": big})
    assert repr(model) == "Node(w: Param f32[2000], s: {'x': f32[2000]})  2,000 params, 8.0 KB"
    assert repr(model.w) == "Param(\n  raw_value=Array(float32[2000])\n)"
    state = "State({\n  'w': Param(\n    raw_value=Array(float32[2000])\n  )\n})"
    assert repr(liftnn.state(Node(w=model.w))) == state
    assert repr(liftnn.State({"x": big})) == "State({\n  'x': Array(float32[2000])\n})"
    assert repr(liftnn.Param({"a": big})) == "Param(\n  raw_value={'a': Array(float32[2000])}\n)"


def test_a_deleted_array_prints_in_a_variable():
    v = liftnn.Param(jnp.ones(2))
    v.value.delete()
    assert repr(v) == "Param(\n  raw_value=Array(float32[2])\n)"


@pytest.mark.parametrize("n", [3000])
def test_thousands_of_layers_take_linear_time(n):
    def seconds(count):
        chain = top = Node(layers=[Node(w=liftnn.Param(1.0)) for _ in range(count)])
        for _ in range(count):
            chain.next = chain = Node()
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            repr(top)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(4 * n) < 12 * seconds(n)


@pytest.mark.parametrize("show", [repr, str, lambda model: liftnn.tabulate(model, jnp.ones((1, 2)))])
def test_a_model_that_was_shown_is_freed_as_soon_as_it_is_deleted(show):
    model = liftnn.Sequential(liftnn.Linear(2, 2, rngs=liftnn.Rngs(0)))
    died = weakref.ref(model.layers[0])
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        show(model)
        del model
        assert died() is None
    finally:
        if was_enabled:
            gc.enable()
