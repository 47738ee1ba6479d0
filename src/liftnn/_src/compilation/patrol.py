"""Finds attributes that were written past `Module.__setattr__`, by `object.__setattr__`, a few in each call.

Nothing in Python notifies of such a write, and to compare all attributes in each call would cost more than the call.
So the fast path compares some of them, in turn. The attributes of a small model are all compared in each call: then a
write past `Module.__setattr__` is seen by the next call, like any other. In a larger model it is found some calls
later, and is an error, since the calls in between may have used the old value.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from liftnn import errors
from liftnn._src.graph.attributes import attributes_of, is_exposed
from liftnn._src.graph.checks import ABSENT
from liftnn._src.graph.kinds import MODULE
from liftnn._src.graph.slots import ARRAY
from liftnn._src.lifting.lift import Call
from liftnn._src.static_values.static import SIMPLE_TYPES
from liftnn._src.variables.variable import Variable

_SMALL = 12
"""A model with no more attributes and modules than this is compared as a whole in each call."""
_MOST = 4
"""How many attributes and modules are compared in one call of a larger one."""


class Beat(NamedTuple):
    """Some attributes of one module.

    Args:
      number: The module's number.
      attributes: All its attributes; of an argument a weak reference to the module, which may die.
      size: How many there are.
      kept: Those to compare.
    """

    number: int
    attributes: dict[str, Any] | weakref.ref[Any]
    size: int
    kept: dict[str, Any]

    def changed(self) -> str | None:
        """The name of an attribute that was written, None if none was."""
        where = self.attributes
        attributes = attributes_of(where()) if isinstance(where, weakref.ref) else where
        for name, x in self.kept.items():
            if attributes.get(name, ABSENT) is not x:
                return name
        return None if len(attributes) == self.size else "(one was added or deleted)"


def plan_rounds(call: Call, varying: frozenset[str]) -> list[list[Beat]]:
    """The attributes to compare, divided into rounds.

    Args:
      call: The call.
      varying: Names of static attributes that are compared in each call anyway.

    Returns:
      For each round what to compare; the rounds take turns.
    """
    beats: list[Beat] = []
    roots = call.plan.argument_roots
    others = set(roots[1:])  # the first of them owns the fast path
    for number, (x, spec) in enumerate(zip(call.objects, call.plan.graph.specs, strict=True)):
        if spec.kind is not MODULE or is_exposed(x):
            continue
        attributes, edges = attributes_of(x), dict(zip(spec.keys, spec.edges, strict=True))
        kept = {
            name: value
            for name, value in attributes.items()
            if name not in varying
            and edges.get(name, ARRAY) is not ARRAY
            and not (number in others and _may_lead_back(value))
        }
        where = weakref.ref(x) if number in others else attributes
        beats.append(Beat(number, where, len(attributes), kept))
    is_small = sum(1 + len(beat.kept) for beat in beats) <= _SMALL
    return [beats] if is_small else _divide([part for beat in beats for part in _parts(beat)])


def _may_lead_back(x: Any) -> bool:
    """Whether an attribute's value may hold the module itself, and so keep it alive."""
    return not (isinstance(x, Variable) or type(x) in SIMPLE_TYPES or type(x) is float)


def _parts(beat: Beat) -> list[Beat]:
    """A module with many attributes, in parts for one call each."""
    names = list(beat.kept)
    starts = range(0, max(1, len(names)), _MOST - 1)
    return [beat._replace(kept={n: beat.kept[n] for n in names[i : i + _MOST - 1]}) for i in starts]


def _divide(beats: Sequence[Beat]) -> list[list[Beat]]:
    """Puts as many into each round as are compared in one call."""
    rounds: list[list[Beat]] = []
    room = 0
    for beat in beats:
        cost = 1 + len(beat.kept)
        if not rounds or cost > room:
            rounds.append([])
            room = _MOST
        rounds[-1].append(beat)
        room -= cost
    return rounds


def take_turns(checks: Sequence[Callable[[], bool]]) -> Callable[[], Callable[[], bool]]:
    """Gives the next check each time that it is called.

    Args:
      checks: The checks.

    Returns:
      The function.
    """
    return itertools.cycle(checks).__next__


def late_error(call: Call, rounds: Sequence[Sequence[Beat]]) -> errors.StructureError:
    """The error for a write that is found when calls may have missed it.

    Args:
      call: The call.
      rounds: What was compared.

    Returns:
      The error, with the attribute's path.
    """
    for beat in itertools.chain(*rounds):
        name = beat.changed()
        if name is not None:
            return errors.StructureError(
                f"The attribute {name!r} of {call.plan.path_of(beat.number)} was written past Module.__setattr__, by "
                "object.__setattr__ or the like, and the last calls of this compiled function may not have seen it.",
                "Use setattr, or vars(module), which liftnn notices.",
            )
    raise AssertionError
