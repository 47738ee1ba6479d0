"""Runs Flax's own tests of NNX with `liftnn.compat.nnx` in the place of `flax.nnx`, and reports how many pass.

    python tests/compat/flax_suite.py [arguments of pytest]

The tests come from the source distribution of the installed version of Flax, which pip downloads once, to build/.
Tests of what liftnn does not have, or does otherwise on purpose, are listed with the reason in flax_differences/; they
run too, and one that passes after all is reported.
"""

from __future__ import annotations

import fnmatch
import os
import pathlib
import subprocess
import sys
import tarfile
import tomllib
from typing import Any

import flax
import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UNKNOWN = "neither passed nor listed"


def read_reasons() -> dict[str, str]:
    """The reason for each pattern of test names: `file::class::test`, with `*` for any text."""
    reasons: dict[str, str] = {}
    for file in sorted((HERE / "flax_differences").glob("*.toml")):
        for group in tomllib.loads(file.read_text()).values():
            reasons |= dict.fromkeys(group["tests"], group["reason"])
    return reasons


def fetch_tests() -> pathlib.Path:
    """Downloads and unpacks the source distribution; returns the folder of the tests of NNX."""
    name = f"flax-{flax.__version__}"
    folder = ROOT / "build" / name
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "flax"]
        subprocess.run([*pip, "--dest", ROOT / "build", f"flax=={flax.__version__}"], check=True)
        with tarfile.open(ROOT / "build" / f"{name}.tar.gz") as archive:
            archive.extractall(ROOT / "build", filter="data")
        (folder / "tests" / "nnx" / "__init__.py").unlink()  # so that the folder is no package
    return folder / "tests" / "nnx"


class StandIn:
    """A plugin of pytest: replaces `flax.nnx`, and counts outcomes by reason."""

    def __init__(self) -> None:
        self.reasons = read_reasons()
        self.outcomes: dict[str, dict[str, int]] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Notes the reason of each test that is listed."""
        for item in items:
            name = item.nodeid.partition("tests/nnx/")[2] or item.nodeid
            for pattern, reason in self.reasons.items():
                if fnmatch.fnmatchcase(name, pattern):
                    item.user_properties.append(("reason", reason))
                    item.add_marker(pytest.mark.xfail(reason=reason))
                    break

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Counts a test."""
        if report.when == "call" or report.failed:
            reason = dict(report.user_properties).get("reason", UNKNOWN)
            counts = self.outcomes.setdefault(reason, {"passed": 0, "failed": 0, "skipped": 0})
            differs = hasattr(report, "wasxfail") and report.skipped
            counts["failed" if differs else report.outcome] += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints the counts."""
        write = terminalreporter.write_line
        for reason, counts in sorted(self.outcomes.items()):
            if reason != UNKNOWN:
                write(f"{counts['failed']:5} differ, {counts['passed']:4} pass: {reason}")
        counts = self.outcomes.get(UNKNOWN, {"passed": 0, "failed": 0})
        ran = counts["passed"] + counts["failed"]
        share = 100 * counts["passed"] / max(ran, 1)
        write(f"of {ran} tests of what liftnn has, {counts['passed']} pass ({share:.1f} %)")


def stand_in() -> StandIn:
    """Puts the stand-in in the place of `flax.nnx`, and returns the plugin."""
    import flax.nnx
    from flax import linen  # noqa: F401  # it needs Flax's own

    from liftnn.compat import nnx

    sys.modules["flax.nnx"] = flax.nnx = nnx  # pyright: ignore[reportAttributeAccessIssue]
    return StandIn()


def main() -> int:
    """Runs pytest in the folder of the tests."""
    if any(x.startswith(("-n", "--numprocesses")) for x in sys.argv[1:]):
        sys.exit("Run it in one process, without -n: worker processes would test Flax itself.")
    tests = fetch_tests()
    os.chdir(tests)
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",  # two files have one name
        "-c",
        os.devnull,
        f"--rootdir={tests.parents[1]}",
        "--tb=short",
        "-rX",
    ]
    given = sys.argv[1:]
    chosen = given if any("_test" in x or x.startswith("test_") for x in given) else [*given, "."]
    return int(pytest.main([*options, "--continue-on-collection-errors", *chosen], plugins=[stand_in()]))


if __name__ == "__main__":
    sys.exit(main())
