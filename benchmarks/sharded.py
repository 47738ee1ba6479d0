"""Sharded steps on eight CPU devices and in several processes, many steps a call, and very many Variables.

python benchmarks/sharded.py [--quick] [--rounds N] [--output FOLDER]

All rows compare liftnn with bare JAX that is given the same shardings, in the same run; the rows on growth compare
20,000 Variables with 10,000.
"""

from __future__ import annotations

import gc
import json
import math
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import large_decoder
import optax
import sharded_steps
import steps
from compare import compare
from machine import environment
from measure import Figure, Row, Run, Times, options, report, take_single_turns, take_turns

import liftnn

PROCESSES = ((2, 2), (4, 2))
"""How many processes, with how many devices each."""


def exactly(name: str, value: float, target: float | None, note: str = "", unit: str = "x") -> Row:
    """A row without a spread."""
    return Row(name, Figure(value, value, value), target, unit, note=note)


def program_rows(mesh: jax.sharding.Mesh) -> Iterator[Row]:
    """What the compiled step is: collectives, bytes moved, memory; and that of the creation."""
    x, found = sharded_steps.batch(mesh, 64), {}
    for name, (step, held) in sharded_steps.pair(mesh, 4, 64, donate_argnums=(0, 1)).items():
        found[name] = step.lower(*held, x).compile()
    (ours, moved), (theirs, moved_by_hand) = (sharded_steps.collectives(found[k]) for k in ("liftnn", "jax"))
    kinds = ", ".join(f"{kind} {ours[kind]} / {theirs[kind]}" for kind in sorted(ours | theirs))
    yield exactly("collectives of a train step", ours.total() / theirs.total(), 1, kinds)
    yield exactly("bytes they move", moved / moved_by_hand, 1, f"{moved:,} / {moved_by_hand:,}")
    yield memory_row("memory of a train step", found)
    given = sharded_steps.shardings_by_hand(mesh, 4)[0]
    shapes = liftnn.abstract(lambda: sharded_steps.Network(4, 512), mesh)
    created = {
        "liftnn": liftnn.jit(
            lambda: sharded_steps.Network(4, 512), out_shardings=liftnn.get_named_sharding(shapes, mesh)
        ),
        "jax": jax.jit(lambda: sharded_steps.make_by_hand(4, 512), out_shardings=given),
    }
    yield memory_row("memory of the creation", {k: f.lower().compile() for k, f in created.items()})


def memory_row(name: str, compiled: dict[str, Any]) -> Row:
    """The temporary bytes of two programs on one device."""
    ours, theirs = (compiled[k].memory_analysis().temp_size_in_bytes for k in ("liftnn", "jax"))
    return exactly(f"{name}, temporary bytes", (ours + 1) / (theirs + 1), 1.01, f"{ours:,} / {theirs:,}")


def compilations(mesh: jax.sharding.Mesh) -> Iterator[Row]:
    """How often a step is compiled whose outputs have no given sharding."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    counts = {}
    x = sharded_steps.batch(mesh, 16)
    _, (params, state) = sharded_steps.pair(mesh, 2, 16)["jax"]
    step = jax.jit(sharded_steps.train_by_hand)
    compiled.clear()
    for _ in range(3):
        params, state, _ = step(params, state, x)
    counts["jax"] = len(compiled)
    step, held = sharded_steps.pair(mesh, 2, 16)["liftnn"]
    compiled.clear()
    for _ in range(3):
        step(*held, x)
    yield exactly("compilations of a train step", len(compiled), 1, f"JAX: {counts['jax']}", unit="")


class Decay(liftnn.Module):
    """Very many Variables."""

    def __init__(self, count: int):
        self.weights = [liftnn.Param(jnp.ones((8,)), sharding=("fsdp",)) for _ in range(count)]


def shrink(model: Decay) -> None:
    """Writes each Variable."""
    for weight in model.weights:
        weight.value = weight.value * 0.999


def call_rows(mesh: jax.sharding.Mesh, rounds: int, many: int) -> Iterator[Row]:
    """Calls of compiled steps on the mesh."""
    x = sharded_steps.batch(mesh, 8)
    (ours, held), (by_hand, state) = sharded_steps.pair(mesh, 2, 8, donate_argnums=(0, 1)).values()
    count = len(jax.tree.leaves(state))
    yield _calls(
        f"a train step of {count} arrays",
        {"liftnn": steps.calls(ours, *held, x), "jax": steps.threaded(by_hand, tuple(state), x)},
        rounds,
    )
    model = liftnn.make_sharded(lambda: Decay(many), mesh)
    weights = [x.value + 0 for x in model.weights]
    decay = jax.jit(lambda weights: ([x * 0.999 for x in weights], 0.0), donate_argnums=0)
    step = liftnn.jit(shrink, donate_argnums=0)

    def run(n: int) -> None:
        for _ in range(n):
            step(model)
        jax.block_until_ready(model.weights[-1].value)

    contenders: dict[str, Run] = {"liftnn": run, "jax": steps.threaded(decay, (weights,))}
    yield _calls(f"a step that writes {many:,} Variables", contenders, max(11, rounds // 3))


def _calls(name: str, contenders: dict[str, Run], rounds: int) -> Row:
    times, retraces = compare(contenders, rounds)
    row = Row(name, times.ratio("liftnn", "jax"), 1.05, microseconds=times.microseconds(), retraces=retraces)
    row.at_best = times.at_best("liftnn", "jax")
    return row


def repeat_rows(rounds: int, n: int) -> Iterator[Row]:
    """Many steps in one program, against `lax.scan` by hand."""
    for depth in (2, 4, 16):
        model = steps.STACKS[liftnn](depth)
        optimizer = liftnn.Optimizer(model, optax.adam(1e-3), wrt=liftnn.Param)
        _, train = steps.functions(liftnn, "liftnn")
        _, by_hand = steps.hand_written("jax")
        x, y = (jnp.stack([a] * n) for a in steps.batch())
        params = steps.nested_params(depth)
        state = (params, optax.adam(1e-3).init(params))

        def loop(params: Any, state: Any, x: Any, y: Any, step: Any = by_hand) -> tuple[Any, ...]:
            def body(carry: Any, xy: Any) -> tuple[Any, Any]:
                *carry, loss = step(*carry, *xy)
                return tuple(carry), loss

            carry, losses = jax.lax.scan(body, (params, state), (x, y))
            return *carry, losses

        contenders = {
            "liftnn": steps.calls(liftnn.repeat(train, n), model, optimizer, x, y),
            "jax": steps.threaded(jax.jit(loop), state, x, y),
        }
        times = take_turns(contenders, rounds)
        row = Row(f"repeat, {n} steps a call, depth {depth}", times.ratio("liftnn", "jax"), 1.05)
        row.at_best = times.at_best("liftnn", "jax")
        per_step = {name: x / n for name, x in times.microseconds().items()}
        row.microseconds, row.note = per_step, f"{per_step['liftnn']:.1f} us a step"
        yield row


def growth_rows(rounds: int, small: int) -> Iterator[Row]:
    """How the time of what walks all objects grows from `small` Variables to twice as many."""

    class Dense(liftnn.Module):
        def __init__(self) -> None:
            self.kernel, self.bias = liftnn.Param(jnp.ones((1, 1))), liftnn.Param(jnp.ones(1))

    class Layers(liftnn.Module):
        def __init__(self, count: int):
            self.layers = [Dense() for _ in range(count // 2)]

    models = {count: Layers(count) for count in (small, 2 * small)}
    tasks: dict[str, Callable[[Any], Any]] = {
        "split": liftnn.split,
        "split and merge": lambda model: liftnn.merge(*liftnn.split(model)[::-1]),
        "state": liftnn.state,
        "repr": repr,
        "clone": liftnn.clone,
        "eval_shape": lambda model: liftnn.eval_shape(lambda model: model.layers[0].bias.value, model),
        "Optimizer": lambda model: liftnn.Optimizer(model, optax.adam(1e-3)),
    }
    for name, task in tasks.items():
        seconds = {count: [_clock(task, model) for _ in range(rounds)] for count, model in models.items()}
        best = {count: min(x) for count, x in seconds.items()}
        exponent = math.log2(best[2 * small] / best[small])
        note = ", ".join(f"{count:,}: {x * 1e3:.0f} ms" for count, x in best.items())
        yield exactly(f"{name}: exponent of the growth in time", exponent, 1.05, note, unit="")


def _clock(task: Callable[[Any], Any], model: Any) -> float:
    """The seconds of one run, with the garbage collector on, as users have it."""
    gc.collect()
    start = time.perf_counter()
    task(model)
    return time.perf_counter() - start


def process_rows(rounds: int) -> Iterator[Row]:
    """The same step over several processes on this machine."""
    for count, devices in PROCESSES:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, str(pathlib.Path(__file__)), "--rounds", str(rounds)]
        places = [["--process", f"{address},{count},{i},{devices}"] for i in range(count)]
        running = [
            subprocess.Popen([*command, *place], stdout=subprocess.PIPE, text=True) for place in places
        ]
        texts = [process.communicate(timeout=1200)[0] for process in running]
        if any(process.returncode for process in running):
            raise RuntimeError(f"a process of {count} failed")
        found = json.loads(texts[0].splitlines()[-1])
        times = Times(found["seconds"])
        name = f"a train step, {count} processes with {devices} devices"
        row = Row(name, times.ratio("liftnn", "jax"), 1.05, microseconds=times.microseconds())
        row.at_best, row.note = times.at_best("liftnn", "jax"), found["note"]
        yield row


def run_process(place: str, rounds: int) -> None:
    """One of the processes: times the step, and prints what it found."""
    address, count, number, devices = place.split(",")
    jax.config.update("jax_num_cpu_devices", int(devices))
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, int(count), int(number))
    mesh = sharded_steps.make_mesh()
    x = sharded_steps.batch(mesh, 64)
    pair = sharded_steps.pair(mesh, 2, 64, donate_argnums=(0, 1))
    counts = [
        sharded_steps.collectives(step.lower(*held, x).compile())[0].total() for step, held in pair.values()
    ]
    (ours, held), (by_hand, state) = pair.values()
    contenders = {"liftnn": steps.calls(ours, *held, x), "jax": steps.threaded(by_hand, tuple(state), x)}
    times = take_single_turns(contenders, rounds)  # as many calls in all processes
    note = f"collectives {counts[0]} / {counts[1]}"
    print(json.dumps({"seconds": dict(times.seconds), "note": note}), flush=True)


def main() -> None:
    """Measures, prints and writes."""
    if "--process" in sys.argv:
        at = sys.argv.index("--process")
        run_process(sys.argv[at + 1], options(None, sys.argv[1:at]).rounds)
        return
    chosen = options(__doc__)
    started = environment()
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_platforms", "cpu")
    mesh, quick = sharded_steps.make_mesh(), chosen.quick
    rows = [
        *program_rows(mesh),
        *compilations(mesh),
        *large_decoder.rows(mesh),
        *call_rows(mesh, chosen.rounds, 300 if quick else 3000),
        *repeat_rows(chosen.rounds, 32),
        *growth_rows(3 if quick else 7, 1000 if quick else 10_000),
        *process_rows(chosen.rounds),
    ]
    report("sharded", rows, chosen.output, started)


if __name__ == "__main__":
    main()
