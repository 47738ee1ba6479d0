"""How things are timed: contenders take turns in rounds, and what counts is the median of the ratios within a round.

A machine that others use gets faster and slower; contenders that run next to each other share that, so a ratio within
one round is worth more than two times taken apart. Python's garbage is collected between the rounds, not in them.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import pathlib
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from machine import environment, environment_line

Run = Callable[[int], Any]
"""Makes as many calls as it is told, and waits for the last one; may give its output."""
RESULTS = pathlib.Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A median and an interval that covers it in 95 of 100 runs.

    Args:
      value: The median.
      low: Lower end.
      high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclasses.dataclass
class Row:
    """One line of a table.

    Args:
      name: What was measured.
      figure: The figure that the target is for.
      target: The most that it may be; None if there is no target.
      unit: `"x"` for a ratio, otherwise what follows the number.
      peers: Other figures, by name.
      microseconds: Absolute medians, by name.
      retraces: How often liftnn traced after its first calls; None where that is no question.
      at_best: The same figure between the fastest tenths of the rounds, which a busy machine disturbs least.
      note: A remark.
    """

    name: str
    figure: Figure
    target: float | None
    unit: str = "x"
    peers: dict[str, float] = dataclasses.field(default_factory=dict)
    microseconds: dict[str, float] = dataclasses.field(default_factory=dict)
    retraces: int | None = None
    at_best: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        return None if self.target is None else self.figure.value <= self.target and not self.retraces


def median(samples: Sequence[float]) -> Figure:
    """The median of samples, with the interval that order statistics give."""
    ordered = sorted(samples)
    n = len(ordered)
    half = 0.98 * n**0.5
    low, high = max(0, int(n / 2 - half)), min(n - 1, int(n / 2 + half))
    return Figure(statistics.median(ordered), ordered[low], ordered[high])


class Times:
    """Seconds a call, by contender and round.

    Args:
      seconds: One list for each contender; rounds in order.
    """

    def __init__(self, seconds: Mapping[str, list[float]]):
        self.seconds = seconds

    def ratio(self, name: str, base: str) -> Figure:
        """The median of one contender over another."""
        return median([a / b for a, b in zip(self.seconds[name], self.seconds[base], strict=True)])

    def excess(self, name: str, base: str, scale: float) -> Figure:
        """The median of one contender minus another, times a scale."""
        return median([(a - b) * scale for a, b in zip(self.seconds[name], self.seconds[base], strict=True)])

    def at_best(self, name: str, base: str) -> float:
        """The ratio between the fastest tenths of the rounds."""
        tenth = {k: sorted(self.seconds[k])[len(self.seconds[k]) // 10] for k in (name, base)}
        return tenth[name] / tenth[base]

    def microseconds(self) -> dict[str, float]:
        """The median of each contender."""
        return {name: round(statistics.median(x) * 1e6, 3) for name, x in self.seconds.items()}


def take_single_turns(contenders: Mapping[str, Run], rounds: int) -> Times:
    """Times contenders, one call each a round."""
    return take_turns(contenders, rounds, slice_seconds=0.0)


def take_turns(
    contenders: Mapping[str, Run],
    rounds: int,
    slice_seconds: float = 0.004,
    prepare: Callable[[], None] | None = None,
) -> Times:
    """Times contenders in rounds, in a new order each round.

    Args:
      contenders: Functions that make as many calls as they are told, and wait for the last one.
      rounds: How many rounds.
      slice_seconds: How long one contender runs in one round; at least one call.
      prepare: What is done before each turn and is not timed. The default, None, means nothing.

    Returns:
      The times.
    """
    counts = {name: _count(run, slice_seconds) for name, run in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                run, n = contenders[name], counts[name]
                if prepare is not None:
                    prepare()
                start = time.perf_counter()
                run(n)
                seconds[name].append((time.perf_counter() - start) / n)
            gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
    return Times(seconds)


def _count(run: Run, slice_seconds: float) -> int:
    """How many calls fill a slice, after a warm-up."""
    run(3)
    best = min(_clock(run, 1) for _ in range(3))
    n = max(1, min(2000, int(slice_seconds / best)))
    best = min(_clock(run, n) / n for _ in range(2))
    return max(1, min(2000, int(slice_seconds / best)))


def _clock(run: Run, n: int) -> float:
    start = time.perf_counter()
    run(n)
    return time.perf_counter() - start


def options(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options that every script has.

    Args:
      description: What the script does.
      argv: The command line; None for that of the process.

    Returns:
      `rounds`, `quick` and `output`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, help="rounds of each comparison (default: 101, quick: 31)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and fewer calls")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS, help="folder for the results")
    chosen = parser.parse_args(argv)
    if chosen.rounds is None:
        chosen.rounds = 31 if chosen.quick else 101
    return chosen


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table, the target beside each figure."""
    peers = list(dict.fromkeys(name for row in rows for name in row.peers))
    head = ["benchmark", "liftnn", "fastest rounds", "target", "", *peers, "retraces"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        f = row.figure
        spread = "" if f.low == f.high else f" ({_number(f.low, '')} to {_number(f.high, '')})"
        cells = [
            row.name + (f" ({row.note})" if row.note else ""),
            _number(f.value, row.unit) + spread,
            "" if row.at_best is None else _number(row.at_best, row.unit),
            "" if row.target is None else _number(row.target, row.unit),
            {None: "", True: "met", False: "**missed**"}[row.met],
            *[_number(row.peers[p], row.unit) if p in row.peers else "" for p in peers],
            "" if row.retraces is None else str(row.retraces),
        ]
        lines.append(cells)
    # A column that says nothing is left out.
    shown = [i for i in range(len(head)) if any(line[i] for line in lines[2:])]
    return "\n".join("| " + " | ".join(line[i] for i in shown) + " |" for line in lines)


def _number(x: float, unit: str) -> str:
    digits = f"{x:.2f}" if abs(x) < 10 and x != int(x) else f"{x:,.0f}"
    return digits if unit in ("x", "") else f"{digits} {unit}"


def report(name: str, rows: Sequence[Row], output: pathlib.Path, started: Mapping[str, Any]) -> None:
    """Prints the table and writes it with the figures.

    Args:
      name: Name of the files, without ending.
      rows: The rows.
      output: The folder.
      started: `environment()` from before the measurements.
    """
    text = table(rows)
    load = {"before": started["load"], "after": environment()["load"]}
    found = {**started, "load": load}
    print(f"\n{environment_line(found)}\n\n{text}\n", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    record = {**found, "rows": [{**dataclasses.asdict(row), "met": row.met} for row in rows]}
    (output / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (output / f"{name}.md").write_text(text + "\n")
