"""Every relative link in the prose leads to a file, and every anchor to a heading."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])
LINK = re.compile(r"\]\(([^)]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
OWN = re.compile(r"https://github\.com/liftnn/liftnn/(blob|raw)/main/")
"""How the README, which is shown elsewhere too, refers to files of the repository."""


def anchors(page):
    """The anchors of the headings of a page, as Markdown renderers make them."""
    found = set()
    for line in page.read_text().splitlines():
        if line.startswith("#"):
            text = re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower())
            found.add(text.strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for link in map("".join, LINK.findall(prose)):
        own = OWN.match(link)
        target = link[own.end() :] if own else link
        assert not own or page == ROOT / "README.md", "a relative link does"
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


def linked(page, folder):
    """The files of a folder that a page links to."""
    files = {
        (page.parent / "".join(link).partition("#")[0]).resolve() for link in LINK.findall(page.read_text())
    }
    return {file for file in files if file.parent == ROOT / "docs" / folder}


GUIDES = {page for page in PAGES if page.parent == ROOT / "docs/guides"} - {ROOT / "docs/guides/index.md"}
API = {page for page in PAGES if page.parent == ROOT / "docs/api"} - {
    ROOT / "docs/api" / name
    for name in ("index.md", "compat.md", "errors.md")  # other pages are their guides
}


def test_guides_and_api_pages_lead_to_each_other():
    assert {page.name for page in API if not linked(page, "guides")} == set()
    assert {page.name for page in GUIDES if not linked(page, "api")} == set()
    assert GUIDES - set().union(*(linked(page, "guides") for page in API)) == set()
