"""The code of the documentation and the README runs as a reader would run it, and does what the page shows.

Each ```` ```python ```` block is a snippet; those of one page run in order and share one module. Three ways to show
what a snippet does are checked:

- a ```` ```text ```` block right after it is what the snippet prints;
- a ```` ```pytb ```` block right after it says that the snippet raises: the error's class, a colon, and the message;
- an expression with `# -> x` at the end of its last line has the representation `x`.

A snippet without any of these must neither raise nor print.
"""

import ast
import contextlib
import dataclasses
import io
import itertools
import pathlib
import re
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "```python\n" in page.read_text(encoding="utf-8")
]
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence) *$", re.S | re.M)
OPTIONAL = ("onnx", "onnxruntime", "silero-vad")
"""What a snippet may need that is not there on each machine: `make test` installs it."""
THOROUGH = "<!-- snippets: thorough -->"
"""The comment in a page whose snippets take more than some seconds."""
ARROW = re.compile(r"#\s*->\s*(.*?)\s*$")


@dataclasses.dataclass(frozen=True)
class Snippet:
    """A block of code, the line of the page before its first, and what the page says that it prints or raises."""

    page: pathlib.Path
    line: int
    code: str
    output: str
    error: str | None

    def fail_unless(self, equal, message):
        """Fails with the place of the snippet."""
        assert equal, f"{self.page.relative_to(ROOT)}:{self.line}: {message}"

    def compare(self, actual, shown, what):
        """Fails unless the page shows what is."""
        self.fail_unless(actual == shown, f"{what}\n--- is\n{actual}\n--- the page shows\n{shown}")


def find_snippets(page, text):
    """The snippets of a page, each with the block that follows it directly."""
    blocks = list(FENCE.finditer(text))
    for block, following in itertools.pairwise([*blocks, None]):
        shown = {}
        if following is not None and not text[block.end() : following.start()].strip():
            shown[following["language"]] = following["text"].strip("\n")
        if block["language"] == "python":
            line = text.count("\n", 0, block.start("text"))
            yield Snippet(page, line, block["text"], shown.get("text", ""), shown.get("pytb"))


def run(snippet, module):
    """Runs a snippet in a module and compares what it does with what the page shows."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if snippet.error is None:
            run_statements(snippet, module)
        else:
            run_until_it_raises(snippet, module)
    snippet.compare(printed.getvalue().strip("\n"), snippet.output, "what it prints")


def run_statements(snippet, module):
    """Runs a snippet statement by statement, so that expressions can be compared with their comments."""
    lines = snippet.code.splitlines()
    for node in ast.parse(snippet.code).body:
        arrow = ARROW.search(lines[node.end_lineno - 1])
        if arrow is None:
            execute(ast.Module([node], []), snippet, module, "exec")
            continue
        snippet.fail_unless(isinstance(node, ast.Expr), f"no expression: {ast.unparse(node)}")
        value = execute(ast.Expression(node.value), snippet, module, "eval")
        snippet.compare(repr(value), arrow[1], ast.unparse(node))


def run_until_it_raises(snippet, module):
    """Runs a snippet that raises."""
    try:
        execute(ast.parse(snippet.code), snippet, module, "exec")
    except Exception as error:
        text = f"{type(error).__module__}.{type(error).__qualname__}: {error}".removeprefix("builtins.")
        snippet.compare(text, snippet.error, "what it raises")
    else:
        snippet.fail_unless(False, "it does not raise")


def execute(tree, snippet, module, mode):
    """Runs code in a module; a traceback names the line of the page."""
    code = compile(ast.increment_lineno(tree, snippet.line), str(snippet.page), mode, dont_inherit=True)
    return {"eval": eval, "exec": exec}[mode](code, vars(module))


def _case(page):
    """A page as a parameter; one that says that it takes long is left to the thorough run."""
    long = THOROUGH in page.read_text(encoding="utf-8")
    return pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.thorough] * long)


@pytest.mark.parametrize("page", [_case(page) for page in PAGES])
def test_the_snippets_of_a_page_do_what_it_shows(page, monkeypatch, tmp_path):
    module = types.ModuleType("page_" + re.sub(r"\W", "_", page.stem))
    monkeypatch.setitem(sys.modules, module.__name__, module)  # pickle finds the classes of the page there
    monkeypatch.chdir(tmp_path)
    for snippet in find_snippets(page, page.read_text(encoding="utf-8")):
        try:
            run(snippet, module)
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            pytest.skip(
                f"{page.name}:{snippet.line} needs {error.name}, and the snippets before it have passed"
            )


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n\n```text\n2\n```",
        "```python\nprint(1)\n```",
        "```python\n1 + 1  # -> 3\n```",
        "```python\n1 / 0\n```",
        "```python\n1 / 0\n```\n```pytb\nZeroDivisionError: another message\n```",
        "```python\n1 / 1\n```\n```pytb\nZeroDivisionError: division by zero\n```",
        "```python\nx = 1  # -> 1\n```",
    ],
)
def test_a_page_that_shows_something_else_fails(text):
    (snippet,) = find_snippets(ROOT / "page.md", text)
    with pytest.raises((AssertionError, ZeroDivisionError), match=r"page\.md:1|division by zero"):
        run(snippet, types.ModuleType("page"))
