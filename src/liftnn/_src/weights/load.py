"""Fill a module with the tensors of safetensors files, or of a mapping, under names that rules may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from liftnn import errors
from liftnn._src.filters import Filter, to_predicate
from liftnn._src.trees import an, is_tracer
from liftnn._src.weights.entries import Entry, check_match, find_entries, holds_arrays
from liftnn._src.weights.fill import Options, Target, TensorSource, fill
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
    if not isinstance(rules, Sequence | None):
        raise errors.ArgumentTypeError(
            f"load_weights takes one module and a list of rules, but the rules are {an(type(rules))}.",
            "Pass several modules as a dict, to load_weights as to save_weights.",
        )
    chosen, parsed = to_predicate(only), Rules.of(rules)
    entries = find_entries("load_weights", module, only)
    if not entries:
        check_match("load", " as `only`", module, only)
    others = find_entries("load_weights", module, lambda path, x: not chosen(path, x) and holds_arrays(x))
    names = {name for entry in others for o in _origins(entry, parsed, by_name) for name in o.names}
    _check_traces(entries)
    with Files("load_weights", file) as files:
        if verify:
            files.verify()
        return fill_by_rules(files, entries, rules, by_name, options, names.__contains__)


def _check_traces(entries: Sequence[Entry]) -> None:
    """Raise TraceContextError if a value is a tracer: the compiled function would not read the file when it runs."""
    for entry in entries:
        if is_tracer(entry.value()):
            raise errors.TraceContextError(
                f"load_weights cannot fill {entry.text}: it is a tracer, since load_weights was called inside a "
                "transform, which would read the file only once.",
                "Call load_weights outside of the compiled function.",
            )


def fill_by_rules(
    source: TensorSource,
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
      skips: Whether a tensor need not be used, by name.

    Returns:
      The report.

    Raises:
      ArgumentError: If a Rule matches no Variable.
      CheckpointError: If something does not fit. Nothing is changed then.
    """
    parsed = Rules.of(rules)
    parsed.check_match(entries, options.tree)
    targets = [Target(entry, _origins(entry, parsed, locate)) for entry in entries]
    skipped = [name for name in source.names() if parsed.skips(name) or skips(name)]
    return fill(source, targets, skipped, options)


def _origins(entry: Entry, rules: Rules, locate: Locate) -> list[Origin | StackedOrigin]:
    """Return where an entry comes from, under each of its paths."""
    named = [entry, *(entry.at(path) for path in entry.aliases)]
    found = [rules.origin(e, locate(e)) for e in named]
    return [found[0], *(origin for origin in found[1:] if origin.names and origin != found[0])]
