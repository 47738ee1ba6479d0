"""Makes a program that fails smaller, as long as it fails in the same way."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.fuzz.programs import Function, Program, Statement


def shrink(program: Program, fails: Callable[[Program], bool], seconds: float = 30.0) -> Program:
    """The smallest program that was found in some time.

    Args:
      program: A program that fails.
      fails: Whether a smaller one fails in the same way.
      seconds: When to stop.
    """
    stop = time.monotonic() + seconds
    found = True
    while found:
        found = False
        for smaller in smaller_programs(program):
            if time.monotonic() > stop:
                return program
            if fails(smaller):
                program, found = smaller, True
                break
    return program


def smaller_programs(program: Program) -> Iterator[Program]:
    """Programs in which one part is left out, the big parts first."""
    for steps in without_some(program.steps):
        yield dataclasses.replace(program, steps=steps)
    for transforms in without_one(program.transforms):
        yield dataclasses.replace(program, transforms=transforms)
    for functions in without_one(program.functions):
        yield dataclasses.replace(program, functions=functions)
    for functions in with_one_changed(program.functions, smaller_functions):
        yield dataclasses.replace(program, functions=functions)
    for graph in without_one(program.graph):
        yield dataclasses.replace(program, graph=graph)


def smaller_functions(f: Function) -> Iterator[Function]:
    for body in without_one(f.body):
        yield dataclasses.replace(f, body=body)
    for body in with_one_changed(f.body, smaller_statements):
        yield dataclasses.replace(f, body=body)
    if f.default:
        yield dataclasses.replace(f, default="")


def smaller_statements(statement: Statement) -> Iterator[Statement]:
    for nested in with_one_changed(statement.nested, smaller_functions):
        yield dataclasses.replace(statement, nested=nested)


def without_some(parts: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Without the second half, then without one part."""
    if len(parts) > 2:
        yield parts[: len(parts) // 2]
    yield from without_one(parts)


def without_one(parts: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for i in reversed(range(len(parts))):
        yield parts[:i] + parts[i + 1 :]


def with_one_changed(
    parts: tuple[Any, ...], smaller: Callable[[Any], Iterator[Any]]
) -> Iterator[tuple[Any, ...]]:
    for i, part in enumerate(parts):
        for other in smaller(part):
            yield (*parts[:i], other, *parts[i + 1 :])
