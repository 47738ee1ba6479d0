"""Fill a module with the tensors of safetensors files, or of a mapping, under names that rules may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from liftnn._src.filters import Filter
from liftnn._src.weights.entries import Entry, find_entries
from liftnn._src.weights.fill import Options, Source, Target, fill
from liftnn._src.weights.index import Files
from liftnn._src.weights.origins import Origin, StackedOrigin
from liftnn._src.weights.report import LoadReport
from liftnn._src.weights.rule import Renaming, Rule
from liftnn._src.weights.rules import Rules

Locate = Callable[[Entry], Origin | StackedOrigin]
"""A function that says where an entry comes from without rules."""

REMEDY = (
    "Change the module or the rules to fit. A rule (pattern, None) skips tensors, `only` selects Variables, "
    "`cast=True` converts dtypes, and `strict=False` loads what fits and returns the rest as a report."
)


def by_name(entry: Entry) -> Origin:
    """Return the tensor with the name of an entry."""
    return Origin((entry.name,))


def load(
    file: str,
    module: Any,
    rules: Sequence[Rule | Renaming] | None,
    only: Filter,
    options: Options,
    verify: bool,
) -> LoadReport:
    """Fill a module with the tensors of files; see `liftnn.load_weights`."""
    entries = find_entries("load_weights", module, only)
    with Files("load_weights", file) as files:
        if verify:
            files.verify()
        return fill_by_rules(files, entries, rules, by_name, options)


def fill_by_rules(
    source: Source,
    entries: Sequence[Entry],
    rules: Sequence[Rule | Renaming] | None,
    locate: Locate,
    options: Options,
    skips: Callable[[str], bool] = lambda name: False,
) -> LoadReport:
    """Fill the entries of a module with tensors.

    Args:
      source: The tensors.
      entries: The entries.
      rules: The user's rules.
      locate: Where an entry comes from without rules.
      options: What to do about differences.
      skips: Whether a tensor is not needed, by name.

    Returns:
      The report.

    Raises:
      CheckpointError: If something does not fit. Nothing is changed then.
    """
    parsed = Rules.of(rules)
    targets = [Target(entry, _origins(entry, parsed, locate)) for entry in entries]
    skipped = [name for name in source.names() if parsed.skips(name) or skips(name)]
    return fill(source, targets, skipped, options)


def _origins(entry: Entry, rules: Rules, locate: Locate) -> list[Origin | StackedOrigin]:
    """Return where an entry comes from, under each of its paths."""
    named = [entry, *(entry.at(path) for path in entry.aliases)]
    found = [rules.origin(e, locate(e)) for e in named]
    return [found[0], *(origin for origin in found[1:] if origin.names and origin != found[0])]
