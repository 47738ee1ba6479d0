"""The API reference of the built site: each public name once, with signatures and sources, and nothing internal."""

import html.parser
import inspect
import pathlib
import re

import pytest

import liftnn

pytestmark = pytest.mark.thorough

ROOT = pathlib.Path(__file__).parents[2]
SOURCE = re.compile(r"https://github\.com/liftnn/liftnn/blob/main/(.+)#L(\d+)-L(\d+)")
SIGNATURE = '<div class="language-python doc-signature '
LAYERS = sorted(
    name
    for name in liftnn.__all__
    if inspect.isclass(x := getattr(liftnn, name)) and issubclass(x, liftnn.Module) and "__call__" in vars(x)
    if not issubclass(x, liftnn.Rngs | liftnn.RngStream)
)


class Page(html.parser.HTMLParser):
    """The anchors, links and text of a page."""

    def __init__(self, file):
        super().__init__()
        self.name = str(file.parent)
        self.html = file.read_text(encoding="utf-8")
        self.anchors, self.links, self.text, self.titles = [], [], [], []
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors += filter(None, [attrs.get("id")])
        self.links += filter(None, [attrs.get("href")])
        self.titles += filter(None, [attrs.get("title")])

    def handle_data(self, data):
        self.text.append(data)

    def section(self, anchor):
        """The HTML from a heading to the next one."""
        start = self.html.index(f'id="{anchor}"')
        return re.split(r"<h[1-6] ", self.html[start:], maxsplit=1)[0]


@pytest.fixture(scope="session")
def pages(site):
    """The pages of the API reference."""
    return [Page(file) for file in sorted((site / "api").rglob("index.html"))]


@pytest.fixture(scope="session")
def layers(site):
    """The page of the layers."""
    return Page(site / "api/layers/index.html")


def test_each_public_name_has_one_anchor(pages):
    anchors = [anchor for page in pages for anchor in page.anchors]
    assert {name: anchors.count(f"liftnn.{name}") for name in liftnn.__all__} == dict.fromkeys(
        liftnn.__all__, 1
    )


def test_nothing_internal_is_shown(pages):
    for page in pages:
        shown = [*page.text, *page.anchors, *page.titles, *(x for x in page.links if not SOURCE.fullmatch(x))]
        assert [x for x in shown if "_src" in x] == [], page.name


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_shows_its_arguments_and_its_call(name, layers):
    if "__init__" in vars(getattr(liftnn, name)):
        assert SIGNATURE in layers.section(f"liftnn.{name}")
    call = layers.section(f"liftnn.{name}.__call__")
    assert SIGNATURE in call
    assert "Returns:" in call


def test_sources_are_where_the_links_lead(pages):
    links = [
        (link, SOURCE.fullmatch(link)) for page in pages for link in page.links if "/blob/main/src/" in link
    ]
    assert len(links) > len(liftnn.__all__) - 50  # not the constants and the functions of jax.nn
    for link, match in links:
        assert match, link
        lines = (ROOT / match[1]).read_text(encoding="utf-8").splitlines()[int(match[2]) - 1 : int(match[3])]
        assert re.match(r"\s*(@|def |class |async def |[\w.]+(: .*)? =|\w+:)", lines[0]), (link, lines[0])
