"""The site shows the drawings of `liftnn.draw` as SVG: all names, boxes that do not overlap, and no script."""

import importlib.util
import pathlib
import re
import sys
import xml.etree.ElementTree as ET

import jax.numpy as jnp
import pytest

import liftnn

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawings():
    """The hook of mkdocs."""
    pytest.importorskip("mkdocs", reason="the extra `docs` installs mkdocs")
    spec = importlib.util.spec_from_file_location("_drawings", ROOT / "docs/_drawings.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class Part(liftnn.Module):
    """A module that tests fill."""


def cycle():
    model, part = Part(), Part()
    model.first, part.parent, part.me, part.other = part, model, part, Part()
    part.other.weight = model.weight = liftnn.Param(jnp.ones(3))
    part.other.back, part.name = part, 'a "quoted" <b>name</b> & more'
    return model


def wide():
    rngs, model = liftnn.Rngs(0), Part()
    for name in ("a", "a_long_name_of_an_attribute", "c"):
        part = Part()
        part.up, part.norm = liftnn.Linear(2, 300, rngs=rngs), liftnn.LayerNorm(2, rngs=rngs)
        setattr(model, name, part)
    model.tied = model.a.up
    return [model, liftnn.Linear(2, 3, rngs=rngs)]


def pages():
    """The drawings in Markdown pages."""
    texts = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md"))]
    return [drawing for text in texts for drawing in re.findall(r"^```mermaid\n(.*?)^```", text, re.M | re.S)]


SOURCES = {
    "cycle": lambda: [str(liftnn.draw(cycle()))],
    "wide": lambda: [str(liftnn.draw(wide()))],
    "layer": lambda: [str(liftnn.draw(liftnn.BatchNorm(2, rngs=liftnn.Rngs(0))))],
    "pages": pages,
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_drawing_has_all_names_and_as_many_arrows(name, drawings):
    for source in SOURCES[name]():
        root = ET.fromstring(drawings.svg_of(source))
        shown = sorted(x.text for x in root.findall(".//{*}text"))
        boxes, arrows = drawings.parse(source)
        lines = [text for box in boxes.values() for text in (box.title, *box.lines)]
        assert shown == sorted([*lines, *(arrow.name for arrow in arrows)])
        assert len(root.findall(".//{*}rect")) == len(re.findall(r"^  n\d+[\[(]", source, re.M))
        paths = [x for x in root.findall(".//{*}path") if "marker-end" in x.attrib]
        assert len(paths) == len(re.findall(r" (?:-->|-\.->)\|", source))
        assert sum("stroke-dasharray" in x.attrib for x in paths) == source.count("-.->")


@pytest.mark.parametrize("name", SOURCES)
def test_boxes_do_not_overlap_and_are_inside_of_the_drawing(name, drawings):
    for source in SOURCES[name]():
        root = ET.fromstring(drawings.svg_of(source))
        sides = ("x", "y", "width", "height")
        boxes = [tuple(float(x.get(side)) for side in sides) for x in root.findall(".//{*}rect")]
        for number, (x, y, width, height) in enumerate(boxes):
            assert min(x, y) >= 0
            assert x + width <= float(root.get("width"))
            assert y + height <= float(root.get("height"))
            for other_x, other_y, other_width, other_height in boxes[:number]:
                beside = x >= other_x + other_width or other_x >= x + width
                assert beside or y >= other_y + other_height or other_y >= y + height


def test_texts_of_mermaid_are_shown_as_they_are(drawings):
    source = str(liftnn.draw(cycle()))
    assert "&quot;" in source
    texts = [x.text for x in ET.fromstring(drawings.svg_of(source)).findall(".//{*}text")]
    assert any('"quoted" <b>name</b> &' in text for text in texts)


def test_a_drawing_with_two_roots(drawings):
    root = ET.fromstring(drawings.svg_of('flowchart TD\n  n0["<b>A</b>"]\n  n1("B")'))
    assert [x.text for x in root.findall(".//{*}text")] == ["A", "B"]


@pytest.mark.parametrize("source", ["graph LR\n  a --> b", 'flowchart TD\n  n0{"A"}'])
def test_other_programs_of_mermaid_are_refused(source, drawings):
    with pytest.raises(ValueError, match=r"is not a flowchart|is neither a box nor an arrow"):
        drawings.svg_of(source)


@pytest.mark.thorough
@pytest.mark.parametrize("page", ["guides/looking_inside", "examples/looking_inside"])
def test_the_site_shows_drawings_without_a_script(page, site):
    text = (site / page / "index.html").read_text(encoding="utf-8")
    assert '<div class="drawing"' in text
    assert 'class="mermaid"' not in text
