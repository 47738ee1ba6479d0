"""Hooks of mkdocs: the version, files from outside of `docs/`, and the words that each page is searched by."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[1]
PICTURES = "benchmarks/results"
"""The folder whose pictures the pages show: `../benchmarks/results/x.png`, which other readers of Markdown show too."""
PICTURE_LINK = re.compile(rf"\]\(\.\./((\.\./)*{PICTURES}/)")
SEARCH: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docs/_search.yml").read_text(encoding="utf-8"))
"""By page, folder or section: weight and further words, as in the front matter `search` and `tags` of a page."""
INTERNAL_TITLE = re.compile(r' title="liftnn\._src[^"]*"')
"""The tooltip of a type that has no entry in the API reference: the path of the file that defines it."""
NAME = re.compile(r"api/(?!compat/|errors/)\w+/#liftnn\.(\w+)")
"""The location of a name of the API; group 1 is the name."""
CALL_HEADING = re.compile(r'<h\d id="[^"]*\.__call__"')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Read the version that the header shows from the only place that has it."""
    source = (ROOT / "src/liftnn/__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    assert version is not None
    config.extra["release"] = version[1]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures of the benchmarks, and check that each page of the search table exists."""
    for picture in sorted((ROOT / PICTURES).glob("*.png")):
        files.append(File.generated(config, f"{PICTURES}/{picture.name}", abs_src_path=str(picture)))
    pages = [x for x in SEARCH if x.endswith(".md")]
    if missing := [x for x in pages if files.get_file_from_path(x) is None]:
        raise ValueError(f"docs/_search.yml has pages that do not exist: {', '.join(missing)}")
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Apply the search table, and let links to pictures of the benchmarks lead to their copies in the site."""
    folder = page.file.src_uri.rpartition("/")[0] + "/"
    row = SEARCH.get(folder, {}) | SEARCH.get(page.file.src_uri, {})
    page.meta.setdefault("search", {}).update({key: row[key] for key in ("boost", "exclude") if key in row})
    if "words" in row:
        page.meta["tags"] = [*page.meta.get("tags", []), *row["words"]]
    return PICTURE_LINK.sub(r"](\1", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Leave `__call__` out of the search, where each layer would be a result of the same name."""
    return CALL_HEADING.sub(lambda heading: heading[0] + " data-search-exclude", html)


def on_post_page(output: str, **_: Any) -> str:
    """Remove the paths of internal files from tooltips."""
    return INTERNAL_TITLE.sub("", output)


def on_post_build(config: MkDocsConfig) -> None:
    """Complete the index of the search: the words of sections, and of names of the API."""
    file = pathlib.Path(config.site_dir, "search/search_index.json")
    index = json.loads(file.read_text(encoding="utf-8"))
    sections = {x["location"]: x for x in index["docs"]}
    words = {location: row["words"] for location, row in SEARCH.items() if "#" in location}
    for location, found_by in [*words.items(), *names_first(sections)]:
        sections[location].setdefault("tags", []).extend(found_by)
    file.write_text(json.dumps(index, separators=(",", ":")), encoding="utf-8")


def names_first(sections: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the words by which a name of the API is found before headings with it, and before longer names.

    The search takes each word as the start of a word, and a rare word weighs more: `jit` would find `Jitted` first. So
    a longer name has no such word, unless a still longer one starts with it.
    """
    names = {match[1].lower(): x for x in sections if (match := NAME.fullmatch(x))}
    for name, location in names.items():
        others = names.keys() - {name}
        if any(other.startswith(name) for other in others) or not any(map(name.startswith, others)):
            yield location, [name]
