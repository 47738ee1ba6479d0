"""The tutorial builds one program: each part starts where the last one ends, and the whole of it runs as a script."""

from __future__ import annotations

import itertools
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PARTS = sorted((ROOT / "docs" / "learn").glob("[1-5]_*.md"))
FOLDED = re.compile(r"<summary>(?P<title>.*?)</summary>\n\n```python\n(?P<code>.*?)^```$", re.S | re.M)
ACCURACY = re.compile(r"epoch (\d): .* test accuracy (\d\.\d\d)")


def programs(page: pathlib.Path) -> dict[str, str]:
    """The folded programs of a page, by title."""
    return {block["title"]: block["code"] for block in FOLDED.finditer(page.read_text(encoding="utf-8"))}


def test_there_are_five_parts():
    assert [part.name[0] for part in PARTS] == list("12345")


@pytest.mark.parametrize("before, part", [*itertools.pairwise(PARTS)], ids=lambda part: part.stem)
def test_a_part_starts_with_the_program_that_the_last_one_ends_with(before, part):
    title = f"The program of part {before.name[0]}, from which this page starts"
    assert programs(part)[title] == programs(before)["digits.py"]


def run(folder: pathlib.Path, devices: int) -> list[tuple[str, str]]:
    """Run the whole program as a script in a folder; return the number and the test accuracy of each epoch."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "digits.py"],
        cwd=folder,
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return ACCURACY.findall(done.stdout)


@pytest.mark.thorough
def test_the_whole_program_learns_and_goes_on_with_another_number_of_devices(tmp_path):
    program = programs(PARTS[-1])["digits.py"]
    (tmp_path / "digits.py").write_text(program.replace("epochs=6", "epochs=4"), encoding="utf-8")
    assert [number for number, _ in run(tmp_path, devices=2)] == list("1234")
    (tmp_path / "digits.py").write_text(program, encoding="utf-8")
    (fifth, _), (sixth, accuracy) = run(tmp_path, devices=1)
    assert (fifth, sixth) == ("5", "6")
    assert float(accuracy) > 0.9  # ten digits: chance is 0.1
