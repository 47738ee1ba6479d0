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


def address(page):
    """The path of a page in the built site."""
    parts = page.relative_to(SOURCES).with_suffix("").parts
    return "/" + "".join(f"{part}/" for part in parts if part != "index")


PAGES = sorted(map(address, SOURCES.rglob("*.md")))


@pytest.fixture(scope="session")
def seen(site):
    """What the browser saw of each page, as wide as a phone."""
    jobs = [{"kind": "page", "url": page, "width": PHONE} for page in PAGES]
    return dict(zip(PAGES, browser.look(site, jobs), strict=True))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_a_title(page, seen):
    assert seen[page]["title"].endswith("liftnn")


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
def test_a_page_fetches_nothing_from_elsewhere(page, seen):
    assert seen[page]["fetched"] == []


def test_a_wide_page_that_fetches_from_elsewhere_is_seen(tmp_path):
    picture = "https://elsewhere.invalid/picture.png"
    body = f'<div class="md-content"><pre style="width: {PHONE + 10}px">wide</pre><img src="{picture}"></div>'
    (tmp_path / "index.html").write_text(f"<!doctype html><body style='margin: 0'>{body}</body>")
    (seen,) = browser.look(tmp_path, [{"kind": "page", "url": "/", "width": PHONE}])
    assert seen["width"] == PHONE + 10
    assert len(seen["wide"]) == 1
    assert seen["broken"] == seen["fetched"] == [picture]
