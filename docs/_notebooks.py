"""Hook of mkdocs: the notebooks of examples/notebooks as pages, `examples/NAME.md`, from their stored outputs.

Jupyter stores them: `jupyter nbconvert --to notebook --execute --inplace examples/notebooks/*.ipynb`. Neither the site
nor the tests need it: `tests/examples/test_notebooks.py` runs the cells, and compares the stored text.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "examples/notebooks"
SOURCE = "https://github.com/liftnn/liftnn/blob/main/examples/notebooks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        files.append(File.generated(config, f"examples/{path.stem}.md", content=page_of(path.name, cells)))
    return files


def page_of(name: str, cells: list[dict[str, Any]]) -> str:
    """Return a notebook as Markdown; a link to it stands below the title."""
    title, *rest = cells
    heading, _, intro = join(title["source"]).partition("\n")
    link = f"*This page is the notebook [{name}]({SOURCE}/{name}), with the outputs of its last run.*"
    return "\n\n".join([heading, link, intro.strip(), *map(cell_of, rest)]) + "\n"


def cell_of(cell: dict[str, Any]) -> str:
    """Return a cell as Markdown: its text, or its code and what it shows."""
    source = join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    code = "\n".join(line for line in source.splitlines() if not line.startswith("%")).strip("\n")
    return "\n\n".join([f"```py\n{code}\n```", *map(output_of, cell["outputs"])])


def output_of(output: dict[str, Any]) -> str:
    """Return an output as Markdown: what the cell printed, or the richest form of its value that a page can show."""
    if output["output_type"] == "stream":
        return f"```text\n{join(output['text']).rstrip()}\n```"
    data = {kind: join(x) for kind, x in output["data"].items()}
    if "image/png" in data:
        picture = data["image/png"].replace("\n", "")
        return f'<img alt="The picture that the code draws" src="data:image/png;base64,{picture}">'
    if "text/vnd.mermaid" in data:
        return f"```mermaid\n{data['text/vnd.mermaid']}\n```"
    if "text/html" in data:
        html = "".join(
            line.strip() + " " for line in data["text/html"].splitlines()
        )  # an empty line would end it
        kind = "treescope" if "<treescope-" in html else "html"
        return f'<div class="output {kind}">{html}</div>'
    return f"```text\n{data['text/plain']}\n```"


def join(text: str | list[str]) -> str:
    """Return a text that a notebook stores as one string or as lines."""
    return text if isinstance(text, str) else "".join(text)
