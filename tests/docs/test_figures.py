"""The figures in the prose of the README and the pages are those of `benchmarks/results/`."""

from __future__ import annotations

import functools
import json
import math
import pathlib
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DEPTHS = (2, 16, 128)
PEERS = {
    "README.md": ("nnx.jit", "nnx.cached_partial", "eqx.filter_jit", "brainstate.jit"),
    "docs/why.md": ("nnx.jit", "nnx.cached_partial", "nnx.jit_partial", "eqx.filter_jit", "brainstate.jit"),
}
"""The columns behind that of liftnn, by page."""


@functools.cache
def rows(file: str) -> dict[str, Any]:
    """The rows of a file of results, by name."""
    text = (ROOT / "benchmarks/results" / f"{file}.json").read_text(encoding="utf-8")
    return {row["name"]: row for row in json.loads(text)["rows"]}


def of(file: str, row: str) -> str:
    """The figure of liftnn in a row, with two digits behind the point."""
    return f"{rows(file)[row]['figure']['value']:.2f}"


def of_peer(row: str, peer: str) -> str:
    """The figure of another library in a row of the repeated calls, with two digits."""
    value = rows("dispatch")[row]["peers"][peer]
    return f"{value:.1f}" if float(f"{value:.1f}") < 10 else f"{value:.0f}"


def at_depths(step: str, library: str = "liftnn") -> str:
    """The figures of a step at each depth, as in `1.06 / 0.97 / 0.95`."""
    names = [f"{step}, depth {depth}" for depth in DEPTHS]
    return " / ".join(of("dispatch", x) if library == "liftnn" else of_peer(x, library) for x in names)


def example(name: str) -> str:
    """The figure of an example with its interval."""
    found = next(
        row["figure"] for row_name, row in rows("example_steps").items() if row_name.startswith(name)
    )
    return "{value:.2f} times that of Flax NNX ({low:.2f} to {high:.2f})".format(**found)


def in_readme(step: str) -> str:
    """A row of the table in the README."""
    cells = [at_depths(step), *(at_depths(step, peer) for peer in PEERS["README.md"])]
    return f"| {step}, depth 2 / 16 / 128 | {' | '.join(cells)} |"


def row_of_mixed() -> str:
    """The last row of the table in the README."""
    peers = [of_peer(MIXED, peer) for peer in ("nnx.jit", "nnx.cached_partial")]
    return f"| {MIXED} | {of('dispatch', MIXED)} | {' | '.join(peers)} |"


def in_why(step: str, depth: int) -> str:
    """A row of the table in `why.md`."""
    row = f"{step}, depth {depth}"
    cells = [of("dispatch", row), *(of_peer(row, peer) for peer in PEERS["docs/why.md"])]
    return f"| {row} | {' | '.join(cells)} |"


def extremes_of_peers() -> str:
    """The smallest and the largest figure of another library that the picture shows."""
    shown = [row for name, row in rows("dispatch").items() if len(row["peers"]) > 2 and "donated" not in name]
    values = [x for row in shown for peer, x in row["peers"].items() if peer != "jax, flat"]
    return f"between {min(values):.1f} and {max(values):.0f}"


def share_of_flax() -> str:
    """The range of the times of whole programs for Flax, in percent."""
    values = [100 * row["figure"]["value"] for row in rows("programs").values()]
    return f"{math.floor(min(values) + 0.5)} to {math.floor(max(values) + 0.5)} % of the time"


MIXED = "BatchNorm, Dropout, sow, metrics"
DECODER = "a decoder of 6.74 billion parameters: "


def seconds(row: str) -> str:
    """The time of a step with the large decoder."""
    return f"{rows('sharded')[DECODER + row]['figure']['value']:.1f} s"


CLAIMS = [
    ("README.md", in_readme("train")),
    ("README.md", in_readme("infer")),
    ("README.md", row_of_mixed()),
    ("README.md", f"their steps take {share_of_flax()}"),
    *(("docs/why.md", in_why(step, depth)) for step in ("train", "infer") for depth in DEPTHS),
    ("docs/why.md", f"a train step of 64 layers takes {of('tracing', 'trace a train step of 64 layers')} times"),
    ("docs/why.md", f"liftnn and optax {of('imports', 'import liftnn, optax / import jax, optax')} times"),
    ("docs/why.md", f"takes {of('checkpoints', 'save, 1,000 MB')} and {of('checkpoints', 'restore, 1,000 MB')} times"),
    ("docs/index.md", f"those of other libraries {extremes_of_peers()}."),
    ("docs/coming_from/equinox.md", f"`eqx.filter_jit` takes {at_depths('train', 'eqx.filter_jit')} times"),
    ("docs/coming_from/equinox.md", f"depth 2 / 16 / 128, `liftnn.jit` {at_depths('train')} ("),
    ("docs/coming_from/flax_nnx.md", f"A train step takes {at_depths('train')} times"),
    ("docs/coming_from/flax_nnx.md", f"`nnx.jit` takes {at_depths('train', 'nnx.jit')} times"),
    ("docs/coming_from/flax_nnx.md", f"`nnx.cached_partial` {at_depths('train', 'nnx.cached_partial')} times"),
    ("docs/faq.md", f"costs [{of('dispatch', '10,000 Variables, overhead per Variable over JAX')} us per Variable]"),
    ("docs/faq.md", f"described in {seconds('describe')} and traced in {seconds('trace')} on"),
    ("docs/benchmarks.md", f"Training: {at_depths('train')} at depth 2 / 16 / 128"),
    ("docs/benchmarks.md", f"a vmap of 64 layers {of('tracing', 'trace vmap of 64 layers')}, target"),
    ("docs/benchmarks.md", f"a scan {of('tracing', 'trace scan of 64 layers')}, target"),
    ("docs/benchmarks.md", f"optax: {of('imports', 'import liftnn, optax / import jax, optax')}, target"),
    ("docs/benchmarks.md", f"eager `vjp` {of('arrays', 'eager vjp')} and"),
    *((f"docs/examples/{x}.md", example(x)) for x in ("ensemble", "finetune", "rnn_forecast", "vae")),
]  # fmt: skip
"""What a page says, with the figures of the results."""


@pytest.mark.parametrize("page, claim", CLAIMS)
def test_a_figure_in_prose_is_that_of_the_results(page, claim):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert claim in text
