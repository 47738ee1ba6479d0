"""The *patrol*: detects attributes that were set without `Module.__setattr__`, for example by `object.__setattr__`.

Python gives no notification of such a write, and comparing all attributes in each call would cost more than the call
itself. So the fast path compares only some attributes in each call, by identity. A `Beat` is a group of attributes of
one module, and a *round* is the list of beats that one call compares; the rounds take turns.

A small model has a single round: the next call sees the write, like any other change. In a larger model the write is
detected some calls later. That raises an error, since the calls in between may have used the old value.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from liftnn import errors
from liftnn._src.graph.attributes import attributes_of, is_exposed
from liftnn._src.graph.checks import ABSENT
from liftnn._src.graph.kinds import MODULE
from liftnn._src.graph.slots import ARRAY
from liftnn._src.lifting.call import Call
from liftnn._src.variables.watch import is_simple

_SMALL_MODEL = 12
"""A model with at most this many attributes and modules is compared as a whole in each call."""
_MOST_COMPARED = 4
"""The number of attributes and modules of a larger model to compare in one call."""


_ANOTHER = ""
"""Stands for the name of an attribute that was added or deleted."""


class Beat(NamedTuple):
    """A group of attributes of one module, compared in the same call.

    Args:
      number: The module's number.
      attributes: All attributes of the module; for an argument, a weak reference to the module, which may die.
      size: The number of attributes of the module.
      kept: The attributes to compare.
    """

    number: int
    attributes: dict[str, Any] | weakref.ref[Any]
    size: int
    kept: dict[str, Any]

    def changed(self) -> str | None:
        """Return the name of an attribute that was written; None if there is none."""
        where = self.attributes
        attributes = attributes_of(where()) if isinstance(where, weakref.ref) else where
        for name, x in self.kept.items():
            if attributes.get(name, ABSENT) is not x:
                return name
        return None if len(attributes) == self.size else _ANOTHER

    def follow(self, old: Any, new: Any) -> None:
        """Expect a new object in place of an old one from now on."""
        for name, x in self.kept.items():
            if x is old:
                self.kept[name] = new


def plan_rounds(call: Call, varying: frozenset[str], lent: Mapping[int, Any]) -> list[list[Beat]]:
    """Divide the attributes to compare into rounds.

    Args:
      call: The call.
      varying: The names of static attributes that every call compares anyway.
      lent: The objects that must not be kept alive, by number; the first of them owns the fast path.

    Returns:
      The beats of each round.
    """
    beats: list[Beat] = []
    others, weak = set(itertools.islice(lent, 1, None)), set(map(id, lent.values()))
    for number, (x, spec) in enumerate(zip(call.objects, call.plan.graph.specs, strict=True)):
        if spec.kind is not MODULE or is_exposed(x):
            continue
        attributes, edges = attributes_of(x), dict(zip(spec.keys, spec.edges, strict=True))
        kept = {
            name: value
            for name, value in attributes.items()
            if not (name in varying and is_simple(value))
            and edges.get(name, ARRAY) is not ARRAY
            and not (number in others and id(value) in weak)
        }
        where = weakref.ref(x) if number in others else attributes
        beats.append(Beat(number, where, len(attributes), kept))
    is_small = sum(1 + len(beat.kept) for beat in beats) <= _SMALL_MODEL
    return [beats] if is_small else _divide([part for beat in beats for part in _parts(beat)])


def _parts(beat: Beat) -> list[Beat]:
    """Divide a module with many attributes into beats for one call each."""
    names = list(beat.kept)
    starts = range(0, max(1, len(names)), _MOST_COMPARED - 1)
    return [beat._replace(kept={n: beat.kept[n] for n in names[i : i + _MOST_COMPARED - 1]}) for i in starts]


def _divide(beats: Sequence[Beat]) -> list[list[Beat]]:
    """Fill rounds with as many beats as one call compares."""
    rounds: list[list[Beat]] = []
    room = 0
    for beat in beats:
        cost = 1 + len(beat.kept)
        if not rounds or cost > room:
            rounds.append([])
            room = _MOST_COMPARED
        rounds[-1].append(beat)
        room -= cost
    return rounds


def has_changed(beats: Iterable[Beat]) -> bool:
    """Return whether an attribute of some beats was written."""
    return any(beat.changed() is not None for beat in beats)


def take_turns(checks: Sequence[Callable[[], bool]]) -> Callable[[], Callable[[], bool]]:
    """Return a function that returns the next check in each call, cyclically.

    Args:
      checks: The checks.

    Returns:
      The function.
    """
    return itertools.cycle(checks).__next__


def late_error(call: Call, rounds: Sequence[Sequence[Beat]]) -> errors.StructureError:
    """Return the error for a write that was detected after calls that may have missed it.

    Args:
      call: The call.
      rounds: The beats of each round.

    Returns:
      The error, which names the path of the attribute.
    """
    for beat in itertools.chain(*rounds):
        name = beat.changed()
        if name is not None:
            path = call.plan.path_of(beat.number)
            what = f"The attribute {name!r} of {path} was set"
            if name == _ANOTHER:
                what = f"An attribute of {path} was added or deleted"
            return errors.StructureError(
                f"{what} without Module.__setattr__, for example by object.__setattr__. The last calls of this "
                "compiled function may have used the old value.",
                "Use setattr or vars(module) instead; liftnn detects both.",
            )
    raise AssertionError
