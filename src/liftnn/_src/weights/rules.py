"""All rules of one call: conversions of Variables, renamings of tensors, and tensors to skip."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any

from liftnn import errors
from liftnn._src.trees import an
from liftnn._src.weights.entries import Entry, find_names, name_of
from liftnn._src.weights.origins import Join, LayoutStep, Origin, Part, Reshape, StackedOrigin, Transpose
from liftnn._src.weights.rule import Renaming, Rule, Template, checked_pattern


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of one call.

    Args:
      conversions: The rules with a class.
      renamings: Pairs of pattern and template, applied to the names of tensors.
      skipped: Patterns of names of tensors that no Variable needs.
    """

    conversions: tuple[Rule, ...] = ()
    renamings: tuple[tuple[str, Template], ...] = ()
    skipped: tuple[str, ...] = ()

    @staticmethod
    def of(rules: Sequence[Rule | Renaming] | None) -> Rules:
        """Return rules sorted by kind; raise ArgumentError if one is neither a Rule nor a pair."""
        conversions: list[Rule] = []
        renamings: list[tuple[str, Template]] = []
        skipped: list[str] = []
        if isinstance(rules, Rule):
            raise errors.ArgumentError(
                "The rules must be a sequence, not a single Rule.",
                'Pass a list such as [Rule("kernel", "weight")].',
            )
        for rule in rules or ():
            if isinstance(rule, Rule):
                conversions.append(rule)
                continue
            if not isinstance(rule, tuple) or len(rule) != 2 or not isinstance(rule[0], str):
                raise errors.ArgumentError(
                    f"A rule is a liftnn.Rule or a pair (pattern, template), not {an(type(rule))}.",
                    'Pass a list such as [("^encoder", "bert.encoder")].',
                )
            pattern, template = checked_pattern(rule[0]), rule[1]
            if template is None:
                skipped.append(pattern)
            else:
                renamings.append((pattern, template))
        return Rules(tuple(conversions), tuple(renamings), tuple(skipped))

    def check_match(self, entries: Sequence[Entry], tree: Any) -> None:
        """Raise an error for a Rule that matches no Variable.

        Args:
          entries: The entries to convert.
          tree: The module, whose other Variables count too.

        Raises:
          ArgumentError: If there is such a Rule.
        """
        names = [name_of(path) for entry in entries for path in (entry.path, *entry.aliases)]
        unmatched = [rule for rule in self.conversions if not _matches(rule, names)]
        if not unmatched:
            return
        names = find_names(tree)
        for rule in unmatched:
            if not _matches(rule, names):
                similar = difflib.get_close_matches(rule.pattern.replace("\\", ""), names, 1)
                raise errors.ArgumentError(
                    f"The pattern {rule.pattern!r} of a Rule matches no Variable of the module"
                    + (f"; the most similar name is {similar[0]!r}." if similar else "."),
                    "Write a pattern that matches the whole name of a Variable, or remove the Rule.",
                )

    def origin(self, entry: Entry, default: Origin | StackedOrigin) -> Origin | StackedOrigin:
        """Return where an entry comes from.

        Args:
          entry: The entry.
          default: Where it comes from without rules; pairs rename it.

        Returns:
          The origin; without names if the entry keeps its value.
        """
        for rule in self.conversions:
            found = _origin(rule, entry)
            if found is not None:
                return found
        return default.renamed(self.rename)

    def rename(self, name: str) -> str:
        """Return the name of a tensor after all pairs, each applied once to the result of the one before."""
        for pattern, template in self.renamings:
            match = re.search(pattern, name)
            if match is not None:
                name = name[: match.start()] + _expand(match, template) + name[match.end() :]
        return name

    def skips(self, name: str) -> bool:
        """Return whether a tensor need not have a Variable."""
        return any(re.fullmatch(pattern, name) for pattern in self.skipped)


def _matches(rule: Rule, names: Sequence[str]) -> bool:
    """Return whether the pattern of a rule matches one of some names."""
    return any(re.fullmatch(rule.pattern, name) for name in names)


def _expand(match: re.Match[str], template: Template) -> str:
    """Return the name that a template makes of a match; raise ArgumentError if it does not make one."""
    try:
        name: Any = match.expand(template) if isinstance(template, str) else template
    except (re.error, IndexError) as error:
        raise errors.ArgumentError(
            f"The template {template!r} does not fit the pattern {match.re.pattern!r}: {error}.",
            r"Number the groups from 1, as in (r'layers\.(\d+)', r'blocks.\1').",
        ) from None
    name = name(match) if callable(name) else name
    if not isinstance(name, str):
        raise errors.ArgumentError(
            "The template of a rule must be a string or a function that returns one, but that of "
            f"{match.re.pattern!r} gives {an(type(name))}.",
            "Pass a string such as 'encoder.weight', or None to skip.",
        )
    return name


def _origin(rule: Rule, entry: Entry) -> Origin | None:
    """Return where an entry comes from, if the pattern matches; without names, it keeps its value."""
    match = re.fullmatch(rule.pattern, entry.name)
    if match is None:
        return None
    names: Any = () if rule.names is None else rule.names
    names = names if isinstance(names, (list, tuple)) else (names,)
    steps: list[LayoutStep] = []
    if rule.transpose is not None:
        steps.append(Transpose(tuple(rule.transpose)))
    if rule.reshape is not None:
        steps.append(Reshape(tuple(rule.reshape), entry.spec.shape))
    part = None if rule.part is None else Part(*rule.part, rule.axis)
    return Origin(tuple(_expand(match, n) for n in names), tuple(steps), part, Join(rule.axis))
