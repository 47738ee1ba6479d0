"""The prose speaks the field's language: private words stay out of docstrings, comments, messages and documentation."""

from __future__ import annotations

import pathlib
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PRIVATE = {
    r"bare arrays?": "array leaf",
    r"pure calls?": "pure function",
    r"lanes?": "batch element, device or shard",
    r"(take|takes|taken|taking|took) apart": "flatten",
    r"puts? together again": "unflatten",
    r"(goes|go|went) around JAX": "is static",
    r"(comes?|came) out (as|of|like|whichever)": "is propagated to the caller's objects",
    r"told by path": "the message names the attribute path",
    r"(hands?|handed) on": "carry, or pass on",
    r"anew": "again",
    r"renew(s|ed)?": "untraced copy",
    r"(un)?foreseen": "known carry, carry mismatch",
    r"[Rr]efuses?": "raises X if ...",
    r"(?<!there )(is|are) no (array|module|pytree|axis|spec|function|mapping|pair|filter)": "is not a ...",
    r"that it has no": "without",
    r"the general way": "the slow path",
    r"[Ww]arm plans?": "fast path",
    r"Correct it\.": "what is valid",
    r"Correct `\w+`\.": "what is valid",
    r"made in a call which is over": "created in a transform that has returned",
}
PATTERN = re.compile("|".join(rf"(?<!\w)(?:{pattern})(?!\w)" for pattern in PRIVATE))
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("README.md")]
)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def prose_of(file: pathlib.Path) -> list[tuple[int, str]]:
    """Line number and text of every comment and string of a file; strings of several lines line by line."""
    found = []
    with tokenize.open(file) as lines:
        for token in tokenize.generate_tokens(lines.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING) or token.type == getattr(
                tokenize, "FSTRING_MIDDLE", -1
            ):
                found += [(token.start[0] + i, text) for i, text in enumerate(token.string.splitlines())]
    return found


def private_words(lines) -> list[str]:
    return [
        f"{number}: {match[0]!r} in {text.strip()!r}"
        for number, text in lines
        for match in PATTERN.finditer(text)
    ]


@pytest.mark.parametrize("file", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_docstrings_comments_and_messages_have_no_private_words(file):
    assert private_words(prose_of(file)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_documentation_has_no_private_words(page):
    text = FENCE.sub(lambda m: "\n" * m[0].count("\n"), page.read_text())
    assert private_words(enumerate(text.splitlines(), 1)) == []


@pytest.mark.parametrize(
    "word", ["a bare array", "all lanes", "it is taken apart", "what comes out of it", "Refuses a leaf"]
)
def test_a_private_word_is_found(word):
    assert private_words([(1, word)])


@pytest.mark.parametrize(
    "text", ["planes", "an array leaf", "it comes outside", "is not an array", "handed only once"]
)
def test_plain_words_are_not(text):
    assert not private_words([(1, text)])
