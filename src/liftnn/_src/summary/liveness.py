"""The equations of a program that its outputs need, also inside of loops, as the compiler keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def used_equations(jaxpr: Any, outputs: Sequence[bool]) -> tuple[list[tuple[Any, list[bool]]], list[bool]]:
    """Return the equations of a program that some of its outputs need.

    Args:
      jaxpr: The program.
      outputs: Which outputs are needed.

    Returns:
      Pairs of an equation and which of its outputs are needed, from the last one to the first, and which inputs of the
      program are needed.
    """
    needed = {x for x, is_needed in zip(jaxpr.outvars, outputs, strict=True) if is_needed and _is_variable(x)}
    used: list[tuple[Any, list[bool]]] = []
    for equation in reversed(jaxpr.eqns):
        outs = [x in needed for x in equation.outvars]
        if any(outs) or equation.effects:
            used.append((equation, outs))
            inputs = zip(equation.invars, _needed_inputs(equation, outs), strict=True)
            needed.update(x for x, is_needed in inputs if is_needed and _is_variable(x))
    return used, [x in needed for x in jaxpr.invars]


def programs_in(equation: Any) -> Iterator[Any]:
    """Yield the programs in an equation, such as the body of a loop."""
    for value in equation.params.values():
        for x in value if isinstance(value, (list, tuple)) else [value]:
            below = getattr(x, "jaxpr", x)
            if hasattr(below, "eqns"):
                yield below


def needed_below(equation: Any, program: Any, outputs: Sequence[bool]) -> list[bool]:
    """Return which outputs of a program in an equation are needed, given which outputs of the equation are.

    Args:
      equation: The equation.
      program: The program in it.
      outputs: Which outputs of the equation are needed.
    """
    if equation.primitive.name == "scan":
        return _needed_in_scan(equation, program, outputs)
    is_call = len(program.outvars) == len(outputs) and len(program.invars) == len(equation.invars)
    return list(outputs) if is_call and _has_one_program(equation) else [True] * len(program.outvars)


def _needed_inputs(equation: Any, outputs: Sequence[bool]) -> list[bool]:
    """Return which inputs of an equation are needed for some of its outputs."""
    if not _has_one_program(equation):
        return [True] * len(equation.invars)
    (program,) = programs_in(equation)
    if len(program.invars) != len(equation.invars):
        return [True] * len(equation.invars)
    return used_equations(program, needed_below(equation, program, outputs))[1]


def _needed_in_scan(equation: Any, body: Any, outputs: Sequence[bool]) -> list[bool]:
    """Return which outputs of one iteration are needed: also what a later iteration needs of the carry."""
    carried = sum(_is_unsliced(x, y) for x, y in zip(equation.outvars, body.outvars, strict=True))
    whole = sum(_is_unsliced(x, y) for x, y in zip(equation.invars, body.invars, strict=True))
    needed = list(outputs)
    while True:
        inputs = used_equations(body, needed)[1][whole - carried : whole]
        after = [a or b for a, b in zip(needed, inputs, strict=False)] + needed[carried:]
        if after == needed:
            return needed
        needed = after


def _is_unsliced(outside: Any, inside: Any) -> bool:
    """Return whether each iteration has a whole value of a scan, a constant or the carry, and not a slice of it."""
    return len(outside.aval.shape) == len(inside.aval.shape)


def _has_one_program(equation: Any) -> bool:
    return len(list(programs_in(equation))) == 1


def _is_variable(x: Any) -> bool:
    """Return whether an input of an equation is a variable of the program, not a literal, which has no hash."""
    return not hasattr(x, "val")
