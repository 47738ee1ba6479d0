"""The order in which frozen nodes are built: each after its children."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from liftnn import errors
from liftnn._src.trees import an, at_start


def in_build_order(specs: Sequence[Any], frozen: Iterable[int]) -> list[int]:
    """Order frozen nodes so that each comes after those among them that it holds.

    Args:
      specs: Node specs by number; None for a node that is still visited.
      frozen: The numbers of the nodes.

    Returns:
      The numbers in the new order.

    Raises:
      StructureError: If the nodes contain a cycle.
    """
    remaining, opened, ordered = dict.fromkeys(frozen), set[int](), list[int]()
    while remaining:
        stack = [next(iter(remaining))]
        while stack:
            number = stack[-1]
            if number not in remaining:
                stack.pop()
                continue
            spec = specs[number]
            opened.add(number)
            children = [e for e in (spec.edges if spec else ()) if type(e) is int and e in remaining]
            if spec and not opened.isdisjoint(children):
                raise cycle_error(spec.type)
            stack += children
            if not children:
                ordered.append(stack.pop())
                opened.remove(number)
                del remaining[number]
    return ordered


def cycle_error(cls: type) -> errors.StructureError:
    """Return the error for a cycle of frozen nodes only.

    Args:
      cls: The class of one of them.

    Returns:
      The error.
    """
    return errors.StructureError(
        f"{at_start(an(cls))} is part of a cycle of immutable objects, which a transform cannot rebuild.",
        "Put a list, a dict or a Module into the cycle.",
    )
