"""Claims that several processes of `jax.distributed` make together, each with devices of its own.

A test names functions of a module. Each process imports it and calls them in turn; `run` returns for each function what
each process got: the text that it returned, or `Class: message` of what it raised. Processes that hang are ended by a
time limit, and the message says where each of them was.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import pathlib
import socket
import tempfile
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import jax

from tests import forked

FLAGS = "--xla_force_host_platform_device_count={} --xla_backend_optimization_level=0"


def run(
    module: str,
    calls: Iterable[str | tuple[Any, ...]],
    *,
    processes: int = 2,
    devices: int = 2,
    timeout: float = 60,
) -> dict[str, list[str]]:
    """Call functions of a module in several processes at the same time.

    Args:
      module: The name of the module, such as `tests.sharding.mistakes`.
      calls: The names of the functions, or tuples of a name and arguments that JSON can hold.
      processes: The number of processes.
      devices: The number of devices of each process.
      timeout: The seconds in which all processes must end.

    Returns:
      For each name what each process got, in the order of the processes.

    Raises:
      AssertionError: If a process does not end in time, or fails outside of the functions.
    """
    listed = [(call, ()) if isinstance(call, str) else (call[0], call[1:]) for call in calls]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [pathlib.Path(folder, f"{rank}.json") for rank in range(processes)]
        task = {"module": module, "calls": listed, "devices": devices, "timeout": timeout}
        codes = _wait(_start(task, outputs), timeout)
        results = [_read(output) for output in outputs]
        logs = [output.with_suffix(".log").read_text()[-6000:] for output in outputs]
    names = [name for name, _ in listed]
    assert codes == [0] * processes, "\n\n".join(
        f"Process {rank} ended with {code} after {len(found)} of {names}.\n{log}"
        for rank, (code, found, log) in enumerate(zip(codes, results, logs, strict=True))
    )
    return {name: [found[i] for found in results] for i, name in enumerate(names)}


def _start(task: dict[str, Any], outputs: list[pathlib.Path]) -> list[BaseProcess]:
    """Start the processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started: list[BaseProcess] = []
    for rank, output in enumerate(outputs):
        own = {**task, "rank": rank, "processes": len(outputs), "port": port, "output": str(output)}
        started.append(forked.start(_be_one, own, flags=FLAGS.format(task["devices"]))[0])
    return started


def _wait(started: list[BaseProcess], timeout: float) -> list[int | None]:
    """Return the exit statuses, None of those that had to be ended: at the limit, or soon after another one failed."""
    limit = time.monotonic() + timeout
    while time.monotonic() < limit:
        codes = [process.exitcode for process in started]
        if all(code == 0 for code in codes):
            break
        if any(code not in (0, None) for code in codes):
            limit = min(limit, time.monotonic() + 5)
        time.sleep(0.05)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
        process.join()
    return codes


def _read(output: pathlib.Path) -> list[str]:
    """Return what a process has got so far."""
    return [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []


def _outcome(function: Any, arguments: list[Any]) -> str:
    """Return what a function returns or raises, as text."""
    try:
        return str(function(*arguments))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _be_one(_: Connection, task: dict[str, Any]) -> None:
    """Be one of the processes."""
    log = os.open(pathlib.Path(task["output"]).with_suffix(".log"), os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.dump_traceback_later(task["timeout"] - 3, file=2)  # into the log: where this process waits
    if task["processes"] > 1:
        jax.distributed.initialize(f"127.0.0.1:{task['port']}", task["processes"], task["rank"])
    module = importlib.import_module(task["module"])
    with open(task["output"], "w") as output:
        for name, arguments in task["calls"]:
            print(json.dumps(_outcome(getattr(module, name), arguments)), file=output, flush=True)
    if task["processes"] > 1:
        jax.distributed.shutdown()
