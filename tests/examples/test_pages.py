"""The pages of the examples show code that is in the examples."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ("ensemble", "finetune", "rnn_forecast", "train_mnist", "vae")
BLOCK = re.compile(r"^```py\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_block_of_code_of_a_page_is_in_a_file_of_the_example(name):
    blocks = BLOCK.findall((ROOT / "docs" / "examples" / f"{name}.md").read_text())
    files = [file.read_text() for file in (ROOT / "examples" / name).glob("*.py")]
    assert blocks
    for block in blocks:
        for part in block.split("\n\n\n"):
            indented = [textwrap.indent(part.strip("\n"), " " * n) for n in (0, 4, 8)]
            assert any(text in file for text in indented for file in files), part
