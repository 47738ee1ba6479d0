"""The pages of the site, in a real browser: they fit a phone, show all pictures, and fetch nothing from elsewhere."""

import pathlib

import pytest
from tests.docs import browser

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(browser.find() is None, reason="needs Chromium"),
]
PHONE = 390
SOURCES = pathlib.Path(__file__).parents[2] / "docs"
PAGES = sorted(
    "/" + str(page.relative_to(SOURCES).with_suffix("")).removesuffix("index").removesuffix("/") + "/"
    for page in SOURCES.rglob("*.md")
)
MERMAID = "https://unpkg.com/mermaid@"
"""The script that draws Mermaid pictures; only pages that have one fetch it."""


@pytest.fixture(scope="session")
def seen(site):
    """What the browser saw of each page, as wide as a phone."""
    jobs = [{"kind": "page", "url": page, "width": PHONE} for page in PAGES]
    return dict(zip(PAGES, browser.look(site, jobs), strict=True))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_no_wider_than_a_phone(page, seen):
    assert seen[page]["width"] <= PHONE, seen[page]["wide"]


@pytest.mark.parametrize("page", PAGES)
def test_what_is_wide_scrolls_in_its_own_box(page, seen):
    assert seen[page]["wide"] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_its_pictures(page, seen):
    assert seen[page]["broken"] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_fetches_nothing_from_elsewhere(page, seen, site):
    drawn = 'class="mermaid"' in (site / page.lstrip("/") / "index.html").read_text(encoding="utf-8")
    assert [x for x in seen[page]["fetched"] if not (drawn and x.startswith(MERMAID))] == []
