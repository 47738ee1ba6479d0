"""treescope shows modules, Variables and States; notebooks show them without set-up, with and without treescope."""

import subprocess
import sys
import types
import warnings

import jax.numpy as jnp
import optax
import pytest
from tests.strategies import Node

import liftnn

treescope = pytest.importorskip("treescope")


def linear(*sizes):
    return liftnn.Linear(*sizes, rngs=liftnn.Rngs(0))


def test_a_layer_shows_its_variables_and_its_size():
    lines = treescope.render_to_text(linear(4, 8)).splitlines()
    assert lines[0] == "Linear( # 40 params, 160 B"
    assert lines[1].startswith("  kernel=Param(")
    assert "in_features" not in "".join(lines)
    assert "float32(4, 8)" in "".join(lines)


def test_only_the_outermost_module_has_a_total():
    text = treescope.render_to_text(liftnn.Sequential(linear(2, 2), liftnn.relu, linear(2, 2)))
    assert (text.count("params"), text.count("kernel="), text.count("relu")) == (1, 2, 1)


def test_states_and_gradients_are_shown_by_key():
    model = liftnn.Sequential(linear(2, 2))
    grads = liftnn.grad(lambda m: m.layers[0].kernel.sum())(model)
    for state in (liftnn.state(model), grads):
        text = treescope.render_to_text(state)
        assert text.startswith("State({")
        assert "'kernel': Param(" in text


def test_metadata_and_settings_are_shown():
    v = liftnn.Param(jnp.ones(2), sharding=("x",))
    assert treescope.render_to_text(v) == (
        "Param(\n  value=<jax.Array([1., 1.], dtype=float32)>,\n  sharding=('x',),\n)"
    )
    assert "use_bias=False" in treescope.render_to_text(
        liftnn.Linear(2, 2, use_bias=False, rngs=liftnn.Rngs(0))
    )


def test_shared_objects_are_marked_and_cycles_end():
    model = Node(a=linear(2, 2))
    model.me, model.b = model, Node(w=model.a.kernel)
    text = treescope.render_to_text(model)
    assert "me=<cyclic reference" in text
    assert text.count("Repeated python obj") == 4


@pytest.mark.parametrize(
    "x",
    [
        liftnn.Module(),
        Node(a=[], b={}, c=(), d=liftnn.Param(None), e=liftnn.Param(jnp.zeros((0, 3))), f=liftnn.Empty),
        liftnn.Rngs(0),
        liftnn.Optimizer(linear(2, 2), optax.adam(1e-3)),
        liftnn.Stack(3, lambda rngs: liftnn.Linear(2, 2, rngs=rngs), rngs=liftnn.Rngs(0)),
        liftnn.eval_shape(lambda: linear(2, 2)),
        liftnn.split(linear(2, 2)),
        [linear(2, 2), {"a": liftnn.BatchNorm(2, rngs=liftnn.Rngs(0))}],
        liftnn.Linear.__new__(liftnn.Linear),
    ],
    ids=lambda x: type(x).__name__,
)
def test_anything_is_shown_without_an_error(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(x).__name__.strip("_") in treescope.render_to_text(x) or isinstance(x, (list, tuple))
        assert treescope.render_to_html(x)


def test_traced_and_deleted_values_are_shown():
    texts = []
    liftnn.jit(lambda m: texts.append(treescope.render_to_text(m)))(linear(2, 2))
    model = linear(2, 2)
    model.kernel.value.delete()
    texts.append(treescope.render_to_text(model))
    assert "Tracer" in texts[0]
    assert "deleted" in texts[1]


def test_a_deep_chain_is_cut():
    top = chain = Node()
    for _ in range(3000):
        chain.next = chain = Node()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "Node(...)" in treescope.render_to_text(top)
        assert top._repr_mimebundle_()["text/html"]


# --- notebooks


@pytest.mark.parametrize("x", [linear(2, 3), liftnn.Param(jnp.ones(2)), liftnn.state(linear(2, 3))])
def test_a_notebook_gets_html_and_text(x):
    bundle = x._repr_mimebundle_()
    assert bundle["text/plain"] == repr(x)
    assert "treescope" in bundle["text/html"]


def test_without_treescope_a_module_is_a_table_and_others_are_text(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = linear(2, 3)
    assert model._repr_mimebundle_()["text/html"] == liftnn.tabulate(model)._repr_html_()
    html = liftnn.Param("<b>")._repr_mimebundle_()["text/html"]
    assert html.startswith("<pre")
    assert "&lt;b&gt;" in html


def test_a_model_that_cannot_be_flattened_is_shown_as_text(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = Node(a=frozenset([linear(1, 1)]))
    assert model._repr_mimebundle_()["text/html"].startswith("<pre")


class Shell:
    """An IPython that shows some MIME types."""

    def __init__(self, *active):
        self.display_formatter = types.SimpleNamespace(active_types=active)
        self.displayed = []


def run_in(monkeypatch, shell):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    display = types.ModuleType("IPython.display")
    display.display = lambda *xs: shell.displayed.extend(xs)
    monkeypatch.setitem(sys.modules, "IPython.display", display)


def test_a_terminal_gets_no_html(monkeypatch):
    run_in(monkeypatch, Shell("text/plain"))
    assert list(linear(2, 2)._repr_mimebundle_()) == ["text/plain"]


def test_display_uses_the_notebook_or_prints(monkeypatch, capsys):
    x = linear(2, 2)
    liftnn.display(x, 1)
    assert capsys.readouterr().out == f"{x!r}\n1\n"
    shell = Shell("text/plain", "text/html")
    run_in(monkeypatch, shell)
    liftnn.display(x, 1)
    assert shell.displayed == [x, 1]


@pytest.mark.thorough
def test_nothing_of_this_is_loaded_by_the_import():
    code = (
        "import sys, liftnn; names = ('treescope', 'rich', 'liftnn._src.summary.'); "
        "print([name for name in sys.modules if name.startswith(names)])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
