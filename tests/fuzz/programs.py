"""Random programs as plain data: a graph of modules, functions that use it, and calls and changes in turn.

A program is written out as Python source, so what a function captures stands in real cells, globals and defaults.
`write` gives the source of a program, `generate` a program from a seed. What a level may contain:

- 0: functions reach modules by their arguments only;
- 1: a function reaches modules by its arguments or by what it captures, not by both;
- 2: anything.
"""

from __future__ import annotations

import dataclasses
import textwrap

TOP_LEVEL = 2


@dataclasses.dataclass(frozen=True)
class Statement:
    """Some lines of a function, the functions that stand before them, and what they do."""

    text: str
    tags: frozenset[str] = frozenset()
    nested: tuple[Function, ...] = ()
    calls: str = ""


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of two modules and an array; it returns a number and a list of anything."""

    name: str
    parameters: tuple[str, str, str]
    body: tuple[Statement, ...]
    default: str = ""


@dataclasses.dataclass(frozen=True)
class Step:
    """A call of a transformed function, or a change between two calls."""

    text: str
    calls: str = ""


@dataclasses.dataclass(frozen=True)
class Program:
    """Lines that make the graph, functions, the transforms of these, and steps."""

    in_cells: bool
    graph: tuple[str, ...]
    functions: tuple[Function, ...]
    transforms: tuple[tuple[str, str, str], ...]
    """Each the name of a transformed function, the transform, and the function."""
    steps: tuple[Step, ...]


NAMES = (
    "m0",
    "m1",
    "m2",
    "m3",
    "spare",
    "trainer",
    "box",
    "ms",
    "md",
    "queue",
    "late",
    "grown",
    "bound",
    "part",
)
"""What a program binds: modules, and objects that are no modules but hold some."""


def write(program: Program) -> str:
    """The source of a program: a generator function that yields the outcome of each step."""
    names = [name for name in NAMES if any(line.startswith(f"{name} = ") for line in program.graph)]
    scope = [] if program.in_cells or not names else ["global " + ", ".join(names)]
    lines = [*scope, *program.graph]
    for f in program.functions:
        lines += write_function(f)
    lines += [f"{name} = {transform}({f})" for name, transform, f in program.transforms]
    lines += [
        "def roots():",
        "    return {" + ", ".join(f"{name!r}: {name}" for name in names) + "}",
        "yield roots",
    ]
    for step in program.steps:
        lines.append(f"yield attempt({step.text})" if step.calls else f"{step.text}; yield")
    return "def program():\n" + textwrap.indent("\n".join(lines), "    ") + "\n"


def write_function(f: Function) -> list[str]:
    """The lines of a function."""
    a, b, x = f.parameters
    default = f", p={f.default}" if f.default else ""
    lines = [f"y = total({x})", "outs = []"]
    for statement in f.body:
        for g in statement.nested:
            lines += write_function(g)
        lines += statement.text.split("\n")
    lines.append("return wrap(y), outs")
    return [f"def {f.name}({a}, {b}, {x}{default}):", *("    " + line for line in lines)]


def tags_of(program: Program, name: str) -> frozenset[str]:
    """What the transformed function of a name, or what it calls, may do."""
    functions = {f.name: f for f in program.functions}
    found: set[str] = set()

    def look(f: Function) -> None:
        if f.default:
            found.add("captured")
        for statement in f.body:
            found.update(statement.tags)
            for g in statement.nested:
                look(g)
            if statement.calls:
                look(functions[statement.calls])

    for transformed, transform, f in program.transforms:
        if transformed == name:
            found.update(TRANSFORMS[transform])
            found.update(METHODS.get(f, ()))
            if f in functions:
                look(functions[f])
    return frozenset(found)


TRANSFORMS: dict[str, frozenset[str]] = {
    "jit": frozenset(),
    "donating_jit": frozenset(),
    "remat": frozenset(),
    "grad": frozenset(),
    "vmap": frozenset({"vmap"}),
    "scan_one": frozenset(),
    "scan": frozenset({"loop"}),
    "fori": frozenset({"loop"}),
    "repeat_while": frozenset({"loop"}),
    "bounded_while": frozenset({"loop"}),
    "cond": frozenset({"branch"}),
    "either": frozenset({"branch"}),
    "pick": frozenset({"branch"}),
    "carry": frozenset({"loop"}),
    "each": frozenset({"loop"}),
    "checked": frozenset(),
    "undone": frozenset(),
    "vjp": frozenset(),
    "linearize": frozenset(),
    "jvp": frozenset({"closure"}),
    "jacfwd": frozenset(),
    "hessian": frozenset(),
    "vmap_new": frozenset({"vmap"}),
    "scan_new": frozenset({"loop"}),
    "vmap_part": frozenset({"vmap", "owner"}),
    "scan_part": frozenset({"loop", "owner"}),
}
"""The transforms of a program, by the names they have in its source; and in what way they are strict."""

METHODS = {name: frozenset({"captured", "write"}) for name in ("trainer", "trainer.run", "m0.forward")}
"""What can be transformed that no function of the program is: callable objects and methods; and what these do."""

MAY_RAISE: dict[str, frozenset[str]] = {
    "structure of a captured object": frozenset({"captured structure"}),
    "structure of an object that may be captured and passed at once": frozenset({"structure", "captured"}),
    "structure in a loop": frozenset({"structure", "loop"}),
    "structure in a branch": frozenset({"structure", "branch"}),
    "structure of what a closure captures": frozenset({"structure", "closure"}),
    "a shared write in each lane": frozenset({"write", "vmap"}),
    "structure in each lane": frozenset({"structure", "vmap"}),
    "a holder outside of the graph": frozenset({"holder"}),
    "a change or a copy of the owner of what is mapped": frozenset({"owner"}),
}
"""What a LiftError is an answer to (see docs/limits.md): the tags that a call must have."""


def may_raise(tags: frozenset[str]) -> list[str]:
    """The reasons for which a call with these tags may end in a LiftError."""
    return [reason for reason, needed in MAY_RAISE.items() if needed <= tags]
