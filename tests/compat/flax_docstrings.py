"""Runs the examples in the docstrings of Flax NNX, with Flax or with `liftnn.compat.nnx` in its place.

    python tests/compat/flax_docstrings.py [--stand-in]

Prints a JSON object: for each docstring the texts of the examples whose output is another one.
"""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import sys
import warnings
from typing import Any

import flax.nnx
from flax import linen  # noqa: F401  # it needs Flax's own

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Checker(doctest.OutputChecker):
    """Compares outputs apart from what a repr calls the value of a Variable, and the sizes in its comments."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """Return whether two outputs say the same."""
        return super().check_output(_plain(want), _plain(got), optionflags)


def _plain(text: str) -> str:
    return re.sub(r" # [\w: ]*\d[\d,]* \(.*?\)", "", text.replace("raw_value=", "value="))


def find_examples() -> list[doctest.DocTest]:
    """Return the docstrings with examples of the public modules of Flax NNX."""
    finder, found = doctest.DocTestFinder(), dict[str, doctest.DocTest]()
    for file in pkgutil.walk_packages(flax.nnx.__path__, "flax.nnx."):
        if file.name != "flax.nnx.bridge.module":
            module = importlib.import_module(file.name)
            found |= {test.name: test for test in finder.find(module, file.name) if test.examples}
    return [found[name] for name in sorted(found)]


def run(test: doctest.DocTest) -> list[str]:
    """Run the examples of a docstring; return those that fail."""
    failed: list[str] = []

    class Runner(doctest.DocTestRunner):
        def report_failure(self, out: Any, test: Any, example: Any, got: str) -> None:
            failed.append(example.source)

        def report_unexpected_exception(self, out: Any, test: Any, example: Any, exc_info: Any) -> None:
            failed.append(f"{example.source}raises {exc_info[1]!r}")

    test.globs = {"__name__": "__main__"}
    Runner(Checker(), optionflags=OPTIONS, verbose=False).run(test, out=lambda text: None)
    return failed


def main() -> None:
    """Run all and print."""
    warnings.simplefilter("ignore")
    tests = find_examples()
    if "--stand-in" in sys.argv[1:]:
        from liftnn.compat import nnx

        sys.modules["flax.nnx"] = flax.nnx = nnx  # pyright: ignore[reportAttributeAccessIssue]
    sys.stdout.write(json.dumps({test.name: run(test) for test in tests}) + "\n")


if __name__ == "__main__":
    main()
