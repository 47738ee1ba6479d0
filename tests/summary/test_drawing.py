"""Drawings have a box for each object, an arrow for each attribute, and parse in their languages."""

import html
import pathlib
import re
import shutil
import subprocess
import time

import jax.numpy as jnp
import pytest
from hypothesis import given
from tests.strategies import Node, graphs

import liftnn


def linear(*sizes):
    return liftnn.Linear(*sizes, rngs=liftnn.Rngs(0))


def test_a_module_is_a_box_with_its_variables_and_settings():
    model = Node(a=liftnn.Linear(4, 8, use_bias=False, rngs=liftnn.Rngs(0)), n=3, x=jnp.ones(2))
    assert str(liftnn.draw(model)).splitlines() == [
        "flowchart TD",
        '  n0["<b>Node</b><br>x: f32[2]<br>n=3"]',
        '  n1["<b>Linear</b><br>kernel: Param f32[4,8]<br>use_bias=False"]',
        '  n0 -->|"a"| n1',
    ]


def test_shared_variables_have_boxes_and_shared_modules_and_cycles_have_dashed_arrows():
    model = Node(embed=liftnn.Embed(5, 3, rngs=liftnn.Rngs(0)), blocks={"x": Node()})
    model.head = Node(w=model.embed.embedding)
    model.again, model.blocks["x"].above = model.blocks["x"], model
    assert str(liftnn.draw(model)).splitlines() == [
        "flowchart TD",
        '  n0["<b>Node</b>"]',
        '  n1["<b>Embed</b>"]',
        '  n2("Param f32[5,3]")',
        '  n3["<b>Node</b>"]',
        '  n4["<b>Node</b>"]',
        '  n0 -->|"embed"| n1',
        '  n1 -->|"embedding"| n2',
        '  n0 -->|"blocks.x"| n3',
        '  n0 -->|"head"| n4',
        '  n3 -.->|"above"| n0',
        '  n4 -.->|"w"| n2',
        '  n0 -.->|"again"| n3',
    ]


def test_equal_neighbours_are_one_box_and_arrows_to_them_lead_there():
    model = Node(layers=[linear(2, 2) for _ in range(5)])
    model.best = model.layers[3]
    assert str(liftnn.draw(model)).splitlines() == [
        "flowchart TD",
        '  n0["<b>Node</b>"]',
        '  n1["<b>5 x Linear</b><br>kernel: Param f32[2,2]<br>bias: Param f32[2]"]',
        '  n0 -->|"layers[0:5]"| n1',
        '  n0 -.->|"best"| n1',
    ]


@pytest.mark.parametrize("depth, boxes", [(0, 1), (1, 2), (2, 3), (None, 3)])
def test_depth_limits_the_boxes(depth, boxes):
    text = str(liftnn.draw(Node(a=Node(b=Node())), depth=depth))
    assert len(re.findall(r"^  n\d+\[", text, re.M)) == boxes


def test_notebooks_show_pictures():
    drawing = liftnn.draw(Node())
    assert drawing._repr_mimebundle_() == {"text/plain": str(drawing), "text/vnd.mermaid": str(drawing)}
    assert repr(drawing) == str(drawing)


def test_the_arrows_and_boxes_of_both_languages_are_the_same():
    model = Node(a=[Node(), linear(1, 1)], b=Node())
    model.c = model.b.c = model.a[0]
    mermaid, dot = (str(liftnn.draw(model, f)) for f in ("mermaid", "dot"))
    arrows = re.findall(r'^  n(\d+) (-->|-\.->)\|"(.*)"\| n(\d+)$', mermaid, re.M)
    drawn = re.findall(r"^  n(\d+) -> n(\d+) \[label=< (.*)>(, style=dashed)?.*\];$", dot, re.M)
    assert [(a, b, name, "-.->" if dashed else "-->") for a, b, name, dashed in drawn] == [
        (a, b, name, line) for a, line, name, b in arrows
    ]
    assert len(re.findall(r"^  n\d+ \[", dot, re.M)) == len(re.findall(r"^  n\d+[\[(]", mermaid, re.M))


def test_names_are_escaped():
    model = Node(**{'a"<b>&[`': Node(), "x": 'text "<i>" & ]'})
    mermaid, dot = (str(liftnn.draw(model, f)) for f in ("mermaid", "dot"))
    assert "<i>" not in mermaid + dot
    assert mermaid.count('"') == 2 * 3
    check_dot(dot)


def test_names_are_escaped_by_the_names_of_html():
    model = Node(**{"a#lt;`": Node(), "x": "&lt; #35;"})
    mermaid = str(liftnn.draw(model, "mermaid"))
    assert "#" not in mermaid
    assert "`" not in mermaid
    shown = html.unescape(mermaid)
    assert "a#lt;`" in shown
    assert "x='&lt; #35;'" in shown


def test_the_picture_of_the_documentation_is_the_text_above_it():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "guides" / "looking_inside.md").read_text(
        encoding="utf-8"
    )
    (picture,) = re.findall(r"```mermaid\n(.*?)```", page, re.S)
    assert f"```text\n{picture}```" in page


def check_dot(text):
    """Graphviz, if it is installed, takes a text."""
    if shutil.which("dot"):
        run = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert "<svg" in run.stdout


@given(graphs())
def test_any_object_graph_is_drawn_and_named(model):
    text = str(liftnn.draw(model))
    boxes = {int(n) for n in re.findall(r"^  n(\d+)[\[(]", text, re.M)}
    assert {int(n) for pair in re.findall(r"^  n(\d+) -.*\| n(\d+)$", text, re.M) for n in pair} <= boxes
    assert len(boxes) >= 1
    assert repr(model)
    assert str(liftnn.draw(model, "dot")).endswith("}")


@pytest.mark.thorough
@pytest.mark.parametrize("format", ["mermaid", "dot"])
def test_thousands_of_modules_take_linear_time(format):
    def seconds(count):
        top = chain = Node(layers=[Node(n=i, w=liftnn.Param(1.0)) for i in range(count)])
        for _ in range(count):
            chain.next = chain = Node()
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            liftnn.draw(top, format)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(8000) < 12 * seconds(2000)
