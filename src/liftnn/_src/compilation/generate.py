"""Code generation for a fast path: one straight-line function that does the same as `FastPath.call` does in loops.

The code runs just after a compiled program, which has evicted most of Python from the processor's caches. So the cost
depends on the number of calls and loops; in straight-line code a step takes 10 to 30 ns. Two fast paths of the same
shape have the same source, which is compiled once. For more than `MOST` elements the code uses loops: straight-line
code would be long, and the overhead of one loop hardly matters.

Up to `MOST` values are written back without a call or a loop in between, so no signal handler and no other thread can
see a partial update.
"""

from __future__ import annotations

import types

from liftnn._src.compilation.conditions import check, match, patrol, read
from liftnn._src.compilation.source import MOST, Remembered, Source, build
from liftnn._src.compilation.write_back import WriteBack
from liftnn._src.trees import LEAF


def generate(path: Remembered) -> types.FunctionType | None:
    """Generate the function that makes the calls of a fast path.

    Args:
      path: The fast path, after its first call.

    Returns:
      A function of positional and keyword arguments; None if no code can be generated, so `FastPath.call` is used.
    """
    if len(path.writer.write_backs) != 1:
        return None
    ((number, write_back),) = path.writer.write_backs.items()
    if write_back.rebind is not None and write_back.rebind.new_variables:
        return None  # each call replaces Variables, so the storages change
    source = Source(path)
    units: list[str] = []
    if not match(source, units):
        return None
    source.miss_if(f"not {source.name(path.watch)}.valid")
    check(source)
    patrol(source)
    if len(path.readers) <= MOST:
        read_units = [read(source, reader) for reader in path.readers]
        source.add(*[f"u{i} = {unit}" for i, unit in enumerate(read_units)])
        units += [f"u{i}" for i in range(len(read_units))]
    else:
        source.add(f"units = [{''.join(f'{read(source, r)}, ' for r in path.readers)}]")
        units.append("*units")
    source.lines = ["try:", *(f"  {line}" for line in source.lines), "except Exception: return MISS"]
    if len(path.rounds) > 1:
        source.add(f"if written: {source.name(path.report)}()")
    checks = source.lines
    source.lines = []
    _call(source, units)
    _write_back(source, number, write_back)
    if path.writer.program.donates:
        source.lines = _protect_donated(source, source.lines)
    source.lines = checks + source.lines
    return build("args, kwargs", source.lines, source.constants)


# --- the program


def _call(source: Source[Remembered], units: list[str]) -> None:
    """Generate the code that reads the values and runs the program."""
    path, program = source.path, source.path.writer.program
    storages = path.writer.storages
    values = [f"v{i}" for i in range(len(storages))]
    if len(storages) <= MOST:
        source.add(*[f"v{i} = {source.name(x)}.value" for i, x in enumerate(storages)])
    else:
        source.add(f"values = [x.value for x in {source.name(storages)}]")
        values = ["*values"]
    if program.donates:
        source.add("shared = False")
        if len(storages) <= MOST:
            source.add(
                *[
                    f"if type({v}) is not {source.name(kind)} or getrefcount({source.name(x)}.value) > HELD_ONCE: "
                    "shared = True"
                    for v, kind, x in zip(values, path.array_types, storages, strict=True)
                ]
            )
        else:
            kinds = source.name(tuple(set(path.array_types) - {None}))
            source.add(
                f"for x in {source.name(storages)}:",  # the list of values holds one reference, and no variable does
                f"  if type(x.value) not in {kinds} or getrefcount(x.value) > HELD_ONCE: shared = True",
            )
    every, trees = f"[{', '.join(values)}]", f"[{', '.join(units)}]"
    inputs = [*values, *units]
    if program.inputs.is_sorted:
        arguments = ", ".join(inputs)
    elif len(inputs) == len(program.inputs.order):
        arguments = ", ".join([inputs[i] for i in program.inputs.order])
    else:
        arguments = f"*{source.name(program.inputs)}.sort({every}, {trees})"
    arguments = ", ".join([arguments, *map(source.name, path.placement)])
    run, jitted = source.name(program), source.name(program.jitted)
    if not program.donates:
        source.add(
            f"try: returned = {jitted}({arguments})",
            "except Exception as error:",
            "  if is_rejection(error): return MISS",
            f"  returned = {run}.recover(error, [*{every}, *leaves({trees})])",
        )
        return
    source.add(
        "try:",
        f"  if shared and not are_distinct(({every}, {trees})): {run}.run_units({every}, {trees}, done)",
        f"  else: done.extend(starmap({jitted}, (({arguments},),)))",
        "except Exception as error:",
        "  if done: raise",
        "  if is_rejection(error): return MISS",
        f"  done.append({run}.recover(error, [*{every}, *leaves({trees})]))",
        "returned = done[0]",
    )


def _protect_donated(source: Source[Remembered], lines: list[str]) -> list[str]:
    """Let a donating call write back its result even if a signal handler raises: the old values are gone.

    The compiled program is called from `list.extend`, so its result is in `done` before Python runs the handler.
    """
    return [
        "done = []",
        "try:",
        *[f"  {line}" for line in lines],
        "except BaseException:",
        f"  if done: {source.name(source.path.writer)}.commit(done[0])",
        "  raise",
    ]


def _write_back(source: Source[Remembered], number: int, write_back: WriteBack) -> None:
    """Generate the write-back of values; `Writer.commit` handles other specs, and changes other than values."""
    path, grouped = source.path, source.path.writer.program.grouped
    commit = f"{source.name(path.writer)}.commit"
    if not write_back.simple or write_back.rebind is not None:
        source.add(f"return {commit}(returned)")
        return
    if write_back.bare:
        source.add(f"if type(returned) is tuple: return {commit}(returned)", "return returned")
        return
    if grouped:
        other = f"len(returned[1]) != {number}"
    else:  # only with spec 0 can it be a single array instead of a tuple
        other = ("type(returned) is not tuple or " if number else "") + f"len(returned) != {number + 2}"
    source.add(f"if {other}: return {commit}(returned)")
    written = [path.writer.storages[i] for i in write_back.written]
    parts = [f"p{i}" for i in range(len(written))]
    if grouped:
        out, sources = _unpack_groups(source, write_back)
        source.add(*[f"{p} = {x}" for p, x in zip(parts, sources, strict=True)], f"out = {out}")
    elif len(written) > MOST:
        source.add(
            "p = returned[0]",
            f"if type(p[0]) is not {source.name(write_back.array_type)}: return {commit}(returned)",
        )
        source.add(f"write({source.name(written)}, p)", "return returned[1]")
        return
    else:
        source.add(
            "p, out, *_ = returned" if number else "p, out = returned",
            *([f"{', '.join(parts)}, = p"] if parts else []),
        )
    if parts:
        source.add(f"if type(p0) is not {source.name(write_back.array_type)}: return {commit}(returned)")
    source.add(*[f"{source.name(x)}.value = {p}" for x, p in zip(written, parts, strict=True)], "return out")


def _unpack_groups(source: Source[Remembered], write_back: WriteBack) -> tuple[str, list[str]]:
    """Return expressions for the output and the written values, if the result is grouped by sharding."""
    assert write_back.layout is not None
    source.add("g = returned[0]")
    every = [f"g[{g}][{i}]" for g, i in write_back.layout.at]
    leaves, parts = every[: write_back.treedef.num_leaves], every[write_back.treedef.num_leaves :]
    single = write_back.treedef == LEAF
    return (
        leaves[0] if single else f"{source.name(write_back.treedef)}.unflatten([{', '.join(leaves)}])"
    ), parts
